//! The judge: what it finds, and the words for it.

use std::time::Duration;

use super::*;
use crate::model::{AttemptClass, ErrorLimit, LatencyGuard, Placement};

fn name(text: &str) -> VersionName {
    text.parse().unwrap()
}

fn counts(requests: u64, errors: u64, slow: u64) -> Counts {
    Counts { requests, errors, slow }
}

fn bad(window: u32, side: Side, class: AttemptClass) -> Sighting {
    Sighting { side, class, at: Placement::Split { window, before: 0.0, share: 0.01, chosen: false } }
}

fn verdict(judge: &Judge, guard: &Guard) -> Verdict {
    judge.findings(guard, []).verdict(guard, &name("v2"), &name("v1"))
}

#[test]
fn a_worse_canary_fails_in_words() {
    let (guard, mut judge) = (Guard::default(), Judge::default());
    let sides = Sides { stable: counts(30_690, 22, 0), canary: counts(310, 14, 0) };
    let seen = (0..14).map(|i| bad(i, Side::Canary, AttemptClass::Error));
    let seen = seen.chain((14..36).map(|i| bad(i, Side::Stable, AttemptClass::Error)));
    judge.take(&guard, sides, 0.01, seen);
    let Verdict::Fail(why) = verdict(&judge, &guard) else { panic!("{:?}", verdict(&judge, &guard)) };
    assert!(why.starts_with("v2 failed 14 of 310 first attempts, v1 22 of 30,690; e-value "), "{why}");
    assert!(why.ends_with(" > 1000"), "{why}");
}

#[test]
fn s5_4_too_little_is_inconclusive_and_enough_passes() {
    let (guard, mut judge) = (Guard { min_requests: 1_200, ..Guard::default() }, Judge::default());
    judge.take(&guard, Sides { stable: counts(99_000, 0, 0), canary: counts(1_000, 0, 0) }, 0.01, []);
    assert_eq!(
        verdict(&judge, &guard),
        Verdict::Inconclusive("v2 has had 1,000 of the 1,200 requests that a step needs".to_owned())
    );
    judge.take(&guard, Sides { stable: counts(19_800, 0, 0), canary: counts(200, 0, 0) }, 0.01, []);
    assert_eq!(verdict(&judge, &guard), Verdict::Pass);
    judge.begin_step();
    assert!(matches!(verdict(&judge, &guard), Verdict::Inconclusive(_)), "each step needs its own");
}

#[test]
fn what_looks_worse_waits() {
    let (guard, mut judge) = (Guard { min_requests: 0, ..Guard::default() }, Judge::default());
    let at = Placement::Split { window: 0, before: 0.0, share: 0.004, chosen: false };
    let rare = Sighting { side: Side::Canary, class: AttemptClass::Error, at };
    judge.take(&guard, Sides::default(), 0.004, [rare]);
    let Verdict::Inconclusive(why) = verdict(&judge, &guard) else { panic!("{:?}", verdict(&judge, &guard)) };
    assert!(why.starts_with("v2 looks worse, which is not certain yet"), "{why}");
    judge.take(&guard, Sides::default(), 0.01, (1..400).map(|i| bad(i, Side::Stable, AttemptClass::Error)));
    assert_eq!(verdict(&judge, &guard), Verdict::Pass, "it was chance");
}

#[test]
fn slow_answers_are_judged_where_that_is_asked_for() {
    let latency = LatencyGuard { limit: Duration::from_millis(500), margin: crate::model::Share::ZERO };
    let asked = Guard { latency: Some(latency), ..Guard::default() };
    for (guard, fails) in [(asked, true), (Guard::default(), false)] {
        let mut judge = Judge::default();
        let sides = Sides { stable: counts(990, 0, 0), canary: counts(10, 0, 10) };
        judge.take(&guard, sides, 0.01, (0..10).map(|i| bad(i, Side::Canary, AttemptClass::Slow)));
        match verdict(&judge, &guard) {
            Verdict::Fail(why) => {
                assert!(
                    fails && why.starts_with("v2 answered slower than 500ms in 10 of 10 first attempts"),
                    "{why}"
                );
                assert!(why.ends_with(" > 2000"), "each of two tests has half of alpha: {why}");
            }
            other @ (Verdict::Inconclusive(_) | Verdict::Pass) => assert!(!fails, "{other:?}"),
        }
    }
}

#[test]
fn an_absolute_limit_needs_its_requests() {
    let limit = ErrorLimit { rate: "5".parse().unwrap(), requests: 50 };
    let guard = Guard { limit: Some(limit), min_requests: 0, ..Guard::default() };
    let mut judge = Judge::default();
    // Stable fails as often, so that the canary is no worse.
    judge.take(&guard, Sides { stable: counts(49, 10, 0), canary: counts(49, 10, 0) }, 0.5, []);
    assert_eq!(verdict(&judge, &guard), Verdict::Pass);
    judge.take(&guard, Sides { stable: counts(1, 0, 0), canary: counts(1, 0, 0) }, 0.5, []);
    assert_eq!(
        verdict(&judge, &guard),
        Verdict::Fail(
            "v2 failed 10 of 50 first attempts in this step, more than the limit of 5 %".to_owned()
        )
    );
}
