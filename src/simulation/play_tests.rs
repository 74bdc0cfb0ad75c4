//! Simulated rollouts are those of a router.

use super::*;
use crate::model::{ErrorLimit, Guard, LatencyGuard, OnFail, RolloutStep};
use crate::simulation::{Rates, Users};

fn share(percent: &str) -> Share {
    percent.parse().unwrap()
}

fn spec(guard: Guard, on_fail: OnFail) -> RolloutSpec {
    let step = |weight, seconds, pause| RolloutStep {
        weight: share(weight),
        hold: Duration::from_secs(seconds),
        pause,
    };
    RolloutSpec {
        canary: "v2".parse().unwrap(),
        steps: vec![step("2", 5, false), step("25", 5, true), step("100", 5, false)],
        guard,
        on_fail,
        auto: false,
        abort_deadline: Duration::ZERO,
        hooks: Vec::new(),
    }
}

fn assumed(stable: f64, canary: f64) -> Assumed {
    let rates = |errors| Rates { errors, slow: 0.05 };
    Assumed { rps: 200.0, stable: rates(stable), canary: rates(canary), replicas: 1, users: None }
}

fn random(seed: u64) -> impl FnMut() -> u64 {
    let mut chance = fastrand::Rng::with_seed(seed);
    move || chance.u64(..)
}

const MOST: Duration = Duration::from_secs(60);

/// The looks that are left out are those that would change nothing.
#[test]
fn looking_less_often_changes_nothing() {
    let guard = Guard { min_requests: 30, ..Guard::default() };
    let latency = LatencyGuard { limit: Duration::from_millis(100), margin: share("2") };
    let limit = ErrorLimit { rate: share("4"), requests: 40 };
    let users = |dealt| Some(Users { number: 300, dealt });
    let mut endings = [0; 3];
    for (guard, assumed) in [
        (guard, assumed(0.01, 0.01)),
        (guard, assumed(0.01, 0.2)),
        (Guard { limit: Some(limit), alpha: 1e-12, ..guard }, assumed(0.02, 0.05)),
        (Guard { latency: Some(latency), error_margin: share("1"), ..guard }, assumed(0.02, 0.05)),
        (Guard { min_requests: 300, ..guard }, assumed(0.0, 0.01)),
        (Guard { min_requests: 100_000, ..guard }, assumed(0.0, 0.01)),
        (guard, Assumed { replicas: 3, ..assumed(0.01, 0.1) }),
        (guard, Assumed { users: users(true), ..assumed(0.01, 0.1) }),
        (guard, Assumed { users: users(false), ..assumed(0.01, 0.1) }),
    ] {
        for on_fail in [OnFail::Rollback, OnFail::Pause] {
            for seed in 0..4 {
                let spec = spec(guard, on_fail);
                let few = play_looking(&spec, &assumed, MOST, Looks::Telling, &mut random(seed));
                let all = play_looking(&spec, &assumed, MOST, Looks::All, &mut random(seed));
                assert_eq!(few, all, "{guard:?} {assumed:?}");
                endings[few.ending as usize] += 1;
            }
        }
    }
    assert!(endings.iter().all(|n| *n > 0), "{endings:?}");
}

#[test]
fn what_is_told_is_what_was_played() {
    let bad = play(&spec(Guard::default(), OnFail::Rollback), &assumed(0.0, 0.9), MOST, &mut random(1));
    assert_eq!((bad.ending, bad.step), (Ending::Caught, 0));
    assert!(bad.took < Duration::from_secs(3) && bad.failed_requests() > 0, "{bad:?}");
    let good = play(&spec(Guard::default(), OnFail::Rollback), &assumed(0.0, 0.0), MOST, &mut random(1));
    assert_eq!((good.ending, good.step), (Ending::Succeeded, 2));
    // 25 s at 2 % until there are 100, or half a window sooner or later; 5 at 25 %, 5 at 100 %.
    assert!((34..=36).contains(&good.took.as_secs()), "{good:?}");
    assert_eq!(good.counts.requests(), u64::try_from(good.took.as_millis()).unwrap() / 5);
}

#[test]
fn users_are_counted_once_and_dealt_out_by_share() {
    let users = Some(Users { number: 1_000, dealt: true });
    let mut one = spec(Guard { alpha: 1e-300, ..Guard::default() }, OnFail::Rollback);
    one.steps.truncate(1);
    one.steps[0].weight = share("25");
    one.steps[0].hold = MOST;
    let played = play(&one, &Assumed { users, ..assumed(0.9, 0.9) }, MOST, &mut random(1));
    let failed = played.failed_users.unwrap();
    assert!((200..=300).contains(&failed), "a quarter of a thousand: {failed}");
    assert!(played.failed_requests() > 5 * failed);
}
