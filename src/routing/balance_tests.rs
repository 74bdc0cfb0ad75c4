//! Which of some endpoints is picked how often.

use std::time::Duration;

use super::*;
use crate::model::HashKey;
use crate::routing::samples::{at, place, standings};
use crate::routing::{AttemptOutcome, InFlight};

fn balancer(balance: Balance) -> Balancer {
    Balancer { balance, ..Balancer::default() }
}

fn counts_of(
    balancer: &Balancer,
    endpoints: &[Arc<Standing>],
    asked: Question,
    tried: impl Fn(&Endpoint) -> bool,
) -> Vec<usize> {
    let mut rng = fastrand::Rng::with_seed(1);
    let mut counts = vec![0; endpoints.len()];
    for _ in 0..30_000 {
        counts[place(balancer.pick(endpoints, asked, &tried, || rng.u64(..)).unwrap())] += 1;
    }
    counts
}

fn counts(balance: Balance, endpoints: &[Arc<Standing>], tried: impl Fn(&Endpoint) -> bool) -> Vec<usize> {
    counts_of(&balancer(balance), endpoints, Question::default(), tried)
}

fn by_key() -> Balance {
    Balance::Hash(HashKey::ClientIp)
}

#[test]
fn s2_5_idle_endpoints_share_evenly() {
    for balance in [Balance::LeastRequest, Balance::RoundRobin, Balance::PeakEwma, by_key()] {
        for count in counts(balance.clone(), &standings(6), |_| false) {
            assert!((4_600..5_400).contains(&count), "{balance:?}: {count}");
        }
    }
}

#[test]
fn s2_5_least_request_prefers_the_less_busy() {
    let endpoints = standings(2);
    let _busy = InFlight::begin(&endpoints[0]);
    assert_eq!(counts(Balance::LeastRequest, &endpoints, |_| false), [0, 30_000]);
    assert_eq!(counts(by_key(), &endpoints, |_| false), [0, 30_000], "without a key");
}

#[test]
fn s2_5_peak_ewma_prefers_the_faster_though_it_is_busier() {
    let endpoints = standings(2);
    for (endpoint, millis) in endpoints.iter().zip([100, 10]) {
        endpoint.took(AttemptOutcome::Answered(200), Duration::from_millis(millis), at(0));
    }
    let _busy: Vec<_> = (0..5).map(|_| InFlight::begin(&endpoints[1])).collect();
    assert_eq!(counts(Balance::PeakEwma, &endpoints, |_| false), [0, 30_000], "100 ms against 6 times 10 ms");
    let _busier: Vec<_> = (0..5).map(|_| InFlight::begin(&endpoints[1])).collect();
    assert_eq!(
        counts(Balance::PeakEwma, &endpoints, |_| false),
        [30_000, 0],
        "100 ms against 11 times 10 ms"
    );
}

#[test]
fn s2_5_a_key_has_its_endpoint_and_goes_on_to_the_next() {
    let endpoints = standings(10);
    let balancer = Balancer { ring: Some(Arc::new(Ring::new(&endpoints))), ..balancer(by_key()) };
    let asked = |key| Question { key: Some(key), ..Question::default() };
    let of = |key, tried: &dyn Fn(&Endpoint) -> bool| {
        let pick = || place(balancer.pick(&endpoints, asked(key), tried, || panic!("a draw")).unwrap());
        let picked = pick();
        assert!((0..20).all(|_| pick() == picked), "one endpoint for one key");
        picked
    };
    for key in 0..20 {
        let first = of(key, &|_| false);
        let second = of(key, &|e| usize::from(e.id.address.port()) == first + 1);
        assert_ne!(first, second);
        endpoints[first].endpoint().refuse();
        assert_eq!(of(key, &|_| false), second, "refused is as good as tried");
        endpoints[first].endpoint().forgive();
    }
    // Where all were tried, any will do.
    assert!(counts_of(&balancer, &endpoints, asked(1), |_| true).iter().all(|n| *n > 0));
}

#[test]
fn s2_2_a_refusing_endpoint_gets_nothing_while_another_does_not() {
    for balance in [Balance::LeastRequest, Balance::RoundRobin, Balance::PeakEwma] {
        let endpoints = standings(50);
        endpoints.iter().skip(1).for_each(|s| assert!(s.endpoint().refuse()));
        assert_eq!(counts(balance.clone(), &endpoints, |_| false)[0], 30_000);
        endpoints[0].endpoint().refuse();
        assert!(counts(balance, &endpoints, |_| false).iter().all(|c| *c > 0), "rather any than none");
    }
}

#[test]
fn s2_5_one_set_aside_gets_nothing_even_before_the_table_says_so() {
    let endpoints = standings(3);
    endpoints[0].set_unhealthy(true);
    let settings = crate::model::Outliers { consecutive_failures: 1, ..Default::default() };
    let failed = AttemptOutcome::Failed(crate::model::FailureKind::Reset);
    assert!(endpoints[1].ended(failed, &settings, at(1)).is_some());
    assert_eq!(counts(Balance::LeastRequest, &endpoints, |_| false), [0, 0, 30_000]);
    let all_used = Balancer { all_used: true, ..balancer(Balance::LeastRequest) };
    for count in counts_of(&all_used, &endpoints, Question::default(), |_| false) {
        assert!((9_400..10_600).contains(&count), "too many are set aside: {count}");
    }
}

#[test]
fn one_that_was_tried_comes_last() {
    let endpoints = standings(3);
    let tried = |e: &Endpoint| e.id.address.port() != 3;
    assert_eq!(counts(Balance::LeastRequest, &endpoints, tried), [0, 0, 30_000]);
    endpoints[2].endpoint().refuse();
    let untried_first = "untried before not refused";
    assert_eq!(counts(Balance::LeastRequest, &endpoints, tried), [0, 0, 30_000], "{untried_first}");
    let nothing: [Arc<Standing>; 0] = [];
    assert!(Balancer::default().pick(&nothing, Question::default(), |_| false, || 0).is_none());
}

/// The part of the requests that the last of four idle endpoints gets, which came up at 1000 s and starts over 100 s.
fn part_of_the_new_one(balance: &Balance, now: u64) -> f64 {
    let endpoints = standings(4);
    endpoints[3].set_used(true, Some(at(1_000)));
    let slow_start = SlowStart::of(Some(Duration::from_secs(100)), &endpoints, at(1_000));
    let balancer = Balancer { slow_start, ..balancer(balance.clone()) };
    let asked = Question { key: None, now: at(now) };
    counts_of(&balancer, &endpoints, asked, |_| false)[3] as f64 / 30_000.0
}

#[test]
fn s2_5_slow_start_grows_linearly_from_a_small_part_to_a_whole_share() {
    for balance in [Balance::LeastRequest, Balance::RoundRobin, Balance::PeakEwma] {
        for (now, weight) in
            [(1_000, 0.1), (1_005, 0.1), (1_025, 0.25), (1_050, 0.5), (1_100, 1.0), (9_000, 1.0)]
        {
            let (part, expected) = (part_of_the_new_one(&balance, now), weight / (3.0 + weight));
            assert!((part - expected).abs() < 0.015, "{balance:?} at {now}: {part} of {expected}");
        }
    }
}

#[test]
fn s2_5_slow_start_of_all_at_once_is_none() {
    let endpoints = standings(4);
    endpoints.iter().for_each(|s| s.set_used(true, Some(at(1_000))));
    let slow_start = SlowStart::of(Some(Duration::from_secs(100)), &endpoints, at(1_000));
    let balancer = Balancer { slow_start, ..balancer(Balance::LeastRequest) };
    for count in counts_of(&balancer, &endpoints, Question { key: None, now: at(1_001) }, |_| false) {
        assert!((7_000..8_000).contains(&count), "{count}");
    }
    assert_eq!(SlowStart::of(None, &endpoints, at(1_001)), None);
    assert_eq!(SlowStart::of(Some(Duration::from_secs(100)), &endpoints, at(1_100)), None, "it is over");
    assert_eq!(
        SlowStart::of(Some(Duration::from_secs(100)), &standings(4), at(1_001)),
        None,
        "nobody is new"
    );
}
