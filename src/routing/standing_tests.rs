//! When an endpoint is set aside, and for how long.

use super::*;
use crate::routing::samples::{at, standing, standings};

const FAILED: AttemptOutcome = AttemptOutcome::Failed(FailureKind::Reset);
const OK: AttemptOutcome = AttemptOutcome::Answered(200);

fn settings() -> Outliers {
    Outliers { consecutive_failures: 3, ..Outliers::default() }
}

/// The seconds for which so many failures in a row at this second eject it; nothing when they do not.
fn fail(standing: &Standing, times: u32, second: u64) -> Option<u64> {
    let told = (0..times).filter_map(|_| standing.ended(FAILED, &settings(), at(second))).count();
    let until = standing.ejected_until();
    assert_eq!(told, usize::from(until.is_some()), "told once, when it is ejected");
    until.map(|until| until.since(at(second)).as_secs())
}

#[test]
fn s2_5_consecutive_failures_eject() {
    let all = standings(2);
    assert_eq!(fail(&all[0], 2, 100), None);
    assert_eq!(all[0].ended(OK, &settings(), at(100)), None);
    assert_eq!(fail(&all[0], 2, 100), None, "not in a row");
    assert_eq!(all[0].ended(FAILED, &settings(), at(100)), Some(SetAsideReason::ConsecutiveFailures));
    assert_eq!(all[0].ejected_until(), Some(at(110)));
    assert!(!all[1].is_ejected());
    let never = Outliers { consecutive_failures: 0, ..settings() };
    assert!((0..100).all(|_| all[1].ended(FAILED, &never, at(100)).is_none()));
}

#[test]
fn s2_5_what_counts_as_a_failure() {
    let one = Outliers { consecutive_failures: 1, ..settings() };
    let ejects = |outcome, settings: &Outliers| standings(1)[0].ended(outcome, settings, at(1)).is_some();
    for kind in FailureKind::ALL {
        assert!(ejects(AttemptOutcome::Failed(*kind), &one), "{kind}");
    }
    for status in [100, 200, 404, 499] {
        assert!(!ejects(AttemptOutcome::Answered(status), &Outliers { count_5xx: true, ..one }), "{status}");
    }
    assert!(!ejects(AttemptOutcome::Answered(503), &one));
    assert!(ejects(AttemptOutcome::Answered(503), &Outliers { count_5xx: true, ..one }));
    assert!(!ejects(AttemptOutcome::Abandoned, &one));
}

/// What made nginx eject every pod of a healthy service.
#[test]
fn s2_5_a_stale_connection_never_counts_against_an_endpoint() {
    let all = standings(1);
    assert_eq!(fail(&all[0], 2, 100), None);
    for outcome in [AttemptOutcome::Stale, AttemptOutcome::Abandoned] {
        assert!((0..1_000).all(|_| all[0].ended(outcome, &settings(), at(100)).is_none()));
    }
    assert_eq!(fail(&all[0], 1, 100), Some(10), "nor for it");
}

#[test]
fn s2_2_a_refused_connection_is_told_once_and_is_no_failure_of_the_route() {
    let all = standings(1);
    let told = |_| all[0].ended(AttemptOutcome::Refused, &settings(), at(1));
    assert_eq!((0..10).filter_map(told).collect::<Vec<_>>(), [SetAsideReason::Refused]);
    assert!(all[0].endpoint().is_refused() && !all[0].is_ejected());
}

#[test]
fn s2_5_ejected_for_longer_each_time_up_to_the_longest() {
    let one = &standings(1)[0];
    let mut second = 1_000;
    let mut times = Vec::new();
    for _ in 0..33 {
        let time = fail(one, 3, second).unwrap();
        times.push(time);
        second += time;
        assert!(one.readmit(at(second)) && !one.readmit(at(second)));
    }
    assert_eq!(times[..3], [10, 20, 30]);
    assert_eq!(times[29..], [300; 4]);
    assert_eq!(fail(one, 3, second + 299), Some(300));
    assert!(one.readmit(at(second + 599)));
    assert_eq!(fail(one, 3, second + 899), Some(10), "it was well for long");
}

#[test]
fn s2_5_never_more_than_there_is_room_for() {
    let crowd = Arc::new(Crowd::default());
    let all: Vec<_> = (1..=4).map(|port| standing(port, &crowd)).collect();
    assert_eq!(fail(&all[0], 9, 100), None, "no table was compiled yet");
    crowd.set_room(2);
    assert_eq!(fail(&all[0], 1, 100), Some(10), "the next failure asks again");
    assert_eq!(fail(&all[1], 3, 100), Some(10));
    assert_eq!((fail(&all[2], 9, 100), fail(&all[3], 9, 100)), (None, None));
    assert!(all[0].readmit(at(110)));
    assert_eq!(fail(&all[2], 1, 110), Some(10));
    // One that is gone for good leaves its place.
    let mut all = all;
    drop(all.remove(1));
    assert_eq!(fail(&all[2], 1, 110), Some(10));
}

#[test]
fn s2_5_the_success_rate_is_compared_with_the_others() {
    let settings = Outliers { consecutive_failures: 0, success_rate: Some(0.9), ..settings() };
    // Of each hundred attempts so many fail, at this second and in the next window.
    let run = |failures: [u32; 3]| {
        let all = standings(3);
        let mut told = Vec::new();
        for second in [40_000, 40_010] {
            for attempt in 0..200_u32 {
                for (i, one) in all.iter().enumerate() {
                    // Spread over the window, so that no two follow each other.
                    let outcome = if attempt * failures[i] % 100 < failures[i] { FAILED } else { OK };
                    told.extend(one.ended(outcome, &settings, at(second)).map(|reason| (i, reason)));
                }
            }
        }
        told
    };
    let rate = SetAsideReason::SuccessRate;
    assert_eq!(run([0, 0, 20]), [(2, rate)], "80 % is below 0.9 of 100 %");
    assert_eq!(run([1, 1, 5]), [], "95 % is not");
    assert_eq!(run([50, 50, 50]), [], "all fail alike: it is not one's fault");
}

#[test]
fn s2_5_threads_eject_an_endpoint_once() {
    let all = standings(1);
    let settings = Outliers { consecutive_failures: 1, ..settings() };
    let told: usize = std::thread::scope(|scope| {
        let fail = || (0..1_000).filter_map(|_| all[0].ended(FAILED, &settings, at(1))).count();
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(fail)).collect();
        threads.into_iter().map(|t| t.join().unwrap()).sum()
    });
    assert_eq!(told, 1);
    assert!(all[0].readmit(at(2)));
    assert!(all[0].ended(FAILED, &settings, at(2)).is_some(), "its place was given back, once");
}
