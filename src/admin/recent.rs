//! How the versions did of late: what they counted, less what they had counted half a minute to a minute ago.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;

use crate::routing::RoutingTable;
use crate::routing::tally::{LatencySnapshot, Snapshot, Tally};

/// How often the snapshots are rotated: the window is one to two of these.
pub(super) const ROTATION: Duration = Duration::from_secs(30);

/// Two generations of snapshots of every version that has had traffic. What is held is bounded by the versions of the
/// tables of the last minute.
#[derive(Debug, Default)]
pub(super) struct Recent(ArcSwap<Snapshots>);

#[derive(Debug, Default)]
struct Snapshots {
    older: Arc<ByTally>,
    newer: Arc<ByTally>,
}

/// By the tally's address, which cannot come up anew as long as the tally is held.
type ByTally = HashMap<usize, Before>;

#[derive(Debug)]
struct Before {
    _held: Arc<Tally>,
    counts: Counts,
}

/// What became of requests.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    /// How many began.
    pub(super) begun: u64,
    /// How many ended, those among them that were failed and repeated elsewhere.
    pub(super) ended: u64,
    /// How many of them with 5xx, or to be repeated elsewhere.
    pub(super) errors: u64,
    /// How many were for the version and went elsewhere, because it was full.
    pub(super) diverted: u64,
    /// How long they took.
    pub(super) latency: LatencySnapshot,
    /// The longest of them.
    pub(super) peak: Duration,
}

impl Counts {
    fn of(snapshot: &Snapshot, peak: Duration) -> Self {
        let (ended, errors) = (snapshot.ended() + snapshot.shielded, snapshot.errors() + snapshot.shielded);
        let (begun, diverted, latency) = (snapshot.begun, snapshot.diverted, snapshot.latency.clone());
        Self { begun, ended, errors, diverted, latency, peak }
    }

    /// The time under which this part (0–1) of them stayed; nothing without any.
    pub(super) fn quantile(&self, part: f64) -> Option<Duration> {
        self.latency.quantile(part, self.peak)
    }

    /// The part that was answered with 5xx, in percent; nothing without any.
    pub(super) fn error_percent(&self) -> Option<f64> {
        (self.ended > 0).then(|| 100.0 * self.errors.min(self.ended) as f64 / self.ended as f64)
    }
}

impl Recent {
    /// What came in the window, of all that `now` counts of this tally.
    pub(super) fn of(&self, tally: &Arc<Tally>, now: &Snapshot) -> Counts {
        let snapshots = self.0.load();
        // The window is what came since `older`: until `newer`, whose peak is kept, and from then on.
        let until = snapshots.newer.get(&key(tally)).map_or(Duration::ZERO, |before| before.counts.peak);
        let now = Counts::of(now, tally.peak().max(until));
        match snapshots.older.get(&key(tally)) {
            // It had no traffic then.
            None => now,
            Some(before) => Counts {
                begun: now.begun.saturating_sub(before.counts.begun),
                diverted: now.diverted.saturating_sub(before.counts.diverted),
                ended: now.ended.saturating_sub(before.counts.ended),
                errors: now.errors.saturating_sub(before.counts.errors),
                latency: now.latency.since(&before.counts.latency),
                peak: now.peak,
            },
        }
    }

    /// All that this tally counts, with a peak that is no shorter than that of the last half minute.
    pub(super) fn whole(&self, tally: &Arc<Tally>) -> Counts {
        let counts = Counts::of(&tally.snapshot(), Duration::ZERO);
        let snapshots = self.0.load();
        let until = snapshots.newer.get(&key(tally)).map_or(Duration::ZERO, |before| before.counts.peak);
        // After the counts: what ended in between can only make it longer.
        Counts { peak: tally.peak().max(until), ..counts }
    }

    /// Takes a new generation of snapshots, and forgets the oldest.
    pub(super) fn rotate(&self, table: &RoutingTable) {
        let busy = table.routes().iter().flat_map(|r| &r.versions).filter(|v| v.tally.begun() > 0);
        let newer: ByTally = busy
            .map(|version| {
                // Before the counts: what ends in between has its peak in the next generation, as its window has.
                let peak = version.tally.take_peak();
                let counts = Counts::of(&version.tally.snapshot(), peak);
                (key(&version.tally), Before { _held: Arc::clone(&version.tally), counts })
            })
            .collect();
        let older = Arc::clone(&self.0.load().newer);
        self.0.store(Arc::new(Snapshots { older, newer: Arc::new(newer) }));
    }
}

pub(super) fn key(tally: &Arc<Tally>) -> usize {
    Arc::as_ptr(tally).addr()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::tests::table;
    use crate::model::ChoiceReason;

    #[tokio::test]
    async fn the_window_forgets() {
        let table = table().await;
        let tally = &table.routes()[0].versions[0].tally;
        let count = |status: u16, millis: u64| {
            tally.begin();
            tally.end(ChoiceReason::Weight, status, Duration::from_millis(millis));
        };
        let recent = Recent::default();
        let window = || {
            let counts = recent.of(tally, &tally.snapshot());
            (counts.ended, counts.errors, counts.latency.count())
        };
        assert_eq!((window(), recent.of(tally, &tally.snapshot()).error_percent()), ((0, 0, 0), None));
        count(200, 1);
        count(503, 1);
        assert_eq!(window(), (2, 1, 2), "since the start");
        recent.rotate(&table);
        count(200, 100);
        assert_eq!(window(), (3, 1, 3), "less than two rotations: all of it");
        recent.rotate(&table);
        count(200, 100);
        assert_eq!(window(), (2, 0, 2), "what came after the first rotation");
        let counts = recent.of(tally, &tally.snapshot());
        assert_eq!(counts.error_percent(), Some(0.0));
        assert!(counts.quantile(0.5).unwrap() > Duration::from_millis(50));
        recent.rotate(&table);
        recent.rotate(&table);
        assert_eq!(window(), (0, 0, 0));
        // A version without traffic costs nothing, and another tally is not taken for this one.
        assert_eq!(recent.0.load().newer.len(), 1);
        let other = &table.routes()[0].versions[1].tally;
        other.begin();
        other.end(ChoiceReason::Weight, 500, Duration::ZERO);
        assert_eq!(recent.of(other, &other.snapshot()).error_percent(), Some(100.0));
    }

    #[tokio::test]
    async fn no_quantile_is_beyond_the_longest_of_its_window() {
        let table = table().await;
        let tally = &table.routes()[0].versions[0].tally;
        let count = |micros| {
            tally.begin();
            tally.end(ChoiceReason::Weight, 200, Duration::from_micros(micros));
        };
        let recent = Recent::default();
        let p99 = || recent.of(tally, &tally.snapshot()).quantile(0.99).map(|found| found.as_micros());
        // Each in the bucket from 2 to 3 ms.
        count(2_800);
        assert_eq!(p99(), Some(2_800));
        recent.rotate(&table);
        count(2_500);
        assert_eq!(p99(), Some(2_800), "since the start");
        recent.rotate(&table);
        assert_eq!(p99(), Some(2_500), "after the first rotation, though the second took the peak");
        count(2_200);
        assert_eq!(p99(), Some(2_500), "the longest of both parts of the window");
        recent.rotate(&table);
        assert_eq!(p99(), Some(2_200), "what is before the window is forgotten");
        recent.rotate(&table);
        assert_eq!(p99(), None);
    }
}
