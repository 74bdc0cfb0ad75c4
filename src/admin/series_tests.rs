//! What is kept of the last quarter of an hour.

use super::*;
use crate::admin::tests::table;
use crate::model::ChoiceReason;

/// A table with one route, and its series so far.
struct Watched {
    table: Arc<RoutingTable>,
    recent: Recent,
    series: Series,
    now: Instant,
}

impl Watched {
    async fn new() -> Self {
        let (series, recent) = (Series::default(), Recent::default());
        Self { table: table().await, recent, series, now: Instant::now() }
    }

    fn tally(&self, version: usize) -> &Arc<Tally> {
        &self.table.routes()[0].versions[version].tally
    }

    fn request(&self, version: usize, status: u16, millis: u64) {
        self.tally(version).begin();
        self.tally(version).end(ChoiceReason::Weight, status, Duration::from_millis(millis));
    }

    fn tick(&mut self) {
        self.now += INTERVAL;
        self.series.sample(&self.table, &self.recent, self.now);
    }

    fn shown(&self) -> RouteSeries {
        self.series.of(&self.table.routes()[0], self.now, SystemTime::now())
    }
}

#[tokio::test]
async fn a_sample_has_what_came_since_the_one_before() {
    let mut watched = Watched::new().await;
    assert!(watched.shown().ends.is_empty() && watched.shown().until.is_none());
    watched.tick();
    watched.request(0, 200, 4);
    watched.request(0, 503, 4);
    // It is under way at the sample, and ends after it.
    watched.tally(1).begin();
    watched.tick();
    watched.tally(1).end(ChoiceReason::Weight, 200, Duration::from_millis(40));
    watched.tick();
    watched.tick();
    let shown = watched.shown();
    assert_eq!((shown.ends.len(), shown.seconds.as_slice()), (4, &[5.0; 4][..]));
    assert!(shown.ends.windows(2).all(|pair| (pair[1] - pair[0] - 5.0).abs() < 0.002), "{:?}", shown.ends);
    let [v1, v2] = &shown.versions[..] else { panic!("{shown:?}") };
    let some = |counts: [u32; 4]| counts.map(Some).to_vec();
    assert_eq!((&v1.requests, &v1.errors), (&some([0, 2, 0, 0]), &some([0, 1, 0, 0])));
    assert_eq!((&v2.requests, &v2.ended), (&some([0, 1, 0, 0]), &some([0, 0, 1, 0])));
    assert!(v1.p50_ms[1].is_some_and(|ms| (3.0..=5.0).contains(&ms)), "{v1:?}");
    assert!(v2.p99_ms[2].is_some_and(|ms| (30.0..=40.0).contains(&ms)), "{v2:?}");
    assert_eq!((v1.p50_ms[0], v1.p50_ms[2], v2.p50_ms[1]), (None, None, None), "no requests, no time");
}

#[tokio::test]
async fn what_is_older_is_forgotten_and_what_is_idle_is_not_kept() {
    let mut watched = Watched::new().await;
    watched.request(0, 200, 1);
    watched.tick();
    assert_eq!(watched.series.kept.len(), 1);
    for _ in 0..SAMPLES - 1 {
        watched.tick();
    }
    assert_eq!(watched.shown().versions[0].requests[0], Some(1));
    watched.tick();
    let shown = watched.shown();
    assert_eq!((shown.ends.len(), watched.series.kept.len()), (SAMPLES, 0));
    assert!(shown.versions[0].requests.iter().all(|count| *count == Some(0)));
    // It comes back: what it had before is not taken for new.
    watched.request(0, 500, 1);
    watched.tick();
    watched.request(0, 200, 1);
    watched.tick();
    let shown = &watched.shown().versions[0];
    assert_eq!(shown.requests[SAMPLES - 2..], [Some(0), Some(1)]);
    assert_eq!(shown.errors[SAMPLES - 2..], [Some(0), Some(0)]);
}

#[tokio::test]
async fn versions_beyond_the_bound_are_said_to_be_unknown() {
    let mut watched = Watched::new().await;
    let other = |_| {
        let (tally, counts) = (Arc::new(Tally::default()), Counts::default());
        (key(&tally), Kept { tally, counts, samples: VecDeque::new(), quiet: 0 })
    };
    watched.series.kept = (0..MOST).map(other).collect();
    watched.request(0, 200, 1);
    watched.series.sample(&watched.table, &watched.recent, watched.now);
    // Those were of no table, and are gone by the next sample.
    assert!(watched.series.kept.is_empty());
    watched.request(0, 200, 1);
    watched.tick();
    assert_eq!(watched.series.kept.len(), 1);
    let others: Vec<_> = (1..MOST).map(other).collect();
    watched.series.kept.extend(others);
    let shown = watched.series.version("v2", watched.tally(1));
    assert!(shown.requests.iter().all(|count| *count == Some(0)), "it has none: {shown:?}");
    watched.request(1, 200, 1);
    let shown = watched.series.version("v2", watched.tally(1));
    assert!(!shown.requests.is_empty() && shown.requests.iter().all(Option::is_none), "{shown:?}");
}

/// Of ten thousand routes that all have requests no more are kept than there is room for.
#[tokio::test]
async fn ten_thousand_busy_routes_are_kept_within_the_bound() {
    let table = crate::admin::tests::many_routes(10_000).await;
    let (mut series, recent, now) = (Series::default(), Recent::default(), Instant::now());
    for tick in 1..=3 {
        for version in table.routes().iter().flat_map(|route| &route.versions) {
            version.tally.begin();
            version.tally.end(ChoiceReason::Weight, 200, Duration::from_millis(1));
        }
        let began = Instant::now();
        series.sample(&table, &recent, now + tick * INTERVAL);
        println!("a sample of 20,000 versions, 2,048 of them kept: {:?}", began.elapsed());
    }
    assert_eq!((series.kept.len(), series.begun.len()), (MOST, 20_000));
    let shown: Vec<_> = table.routes().iter().map(|route| series.of(route, now, SystemTime::now())).collect();
    let known = |version: &VersionSeries| version.requests.iter().all(Option::is_some);
    assert_eq!(shown.iter().flat_map(|route| &route.versions).filter(|version| known(version)).count(), MOST);
}
