//! Rollouts over the state: when one begins by itself, what ends one, and what survives a restart.

use std::time::Duration;

use super::*;
use crate::model::{BackendRef, Guard, OnEmpty, OnFail, Revision, RolloutStep, ServiceKey, VersionSpec};
use crate::state::{Desired, SavedState};

const NOW: Timestamp = Timestamp::from_millis(1_000);
const LATER: Timestamp = Timestamp::from_millis(2_000);

/// v1, v2 and v3, of which this one is rolled out by itself in these steps; v2's weight in the file.
fn spec(canary: &str, steps: &[&str], weight: &str) -> RouteSpec {
    let step =
        |weight: &&str| RolloutStep { weight: weight.parse().unwrap(), hold: Duration::ZERO, pause: false };
    let version = |name: &str, weight: Option<&str>| VersionSpec {
        name: name.parse().unwrap(),
        selector: None,
        backend: None,
        weight: weight.map(|w| w.parse().unwrap()),
        max_in_flight_per_pod: None,
    };
    RouteSpec {
        name: "shop".parse().unwrap(),
        hosts: Vec::new(),
        paths: Vec::new(),
        backend: BackendRef { service: ServiceKey::new("web", "svc"), port: None },
        versions: vec![version("v1", None), version("v2", Some(weight)), version("v3", None)],
        audience: Default::default(),
        on_empty: OnEmpty::Spill,
        balance: crate::model::Balance::LeastRequest,
        traffic: crate::model::Traffic::default(),
        rollout: Some(RolloutSpec {
            canary: canary.parse().unwrap(),
            steps: steps.iter().map(step).collect(),
            guard: Guard::default(),
            on_fail: OnFail::Rollback,
            auto: true,
            abort_deadline: Duration::from_secs(30),
            hooks: Vec::new(),
        }),
        debug_headers: false,
    }
}

fn desired(spec: RouteSpec) -> Desired {
    let mut desired = Desired::default();
    desired.set_routes(vec![spec], None, NOW);
    desired
}

fn weights(desired: &Desired) -> &RouteWeights {
    desired.weights(&"shop".parse().unwrap()).unwrap()
}

/// `spec` with a weight for v3 in the file.
fn with_third(canary: &str, steps: &[&str], weight: &str, third: &str) -> RouteSpec {
    let mut spec = spec(canary, steps, weight);
    spec.versions[2].weight = Some(third.parse().unwrap());
    spec
}

fn reason(desired: &Desired) -> &str {
    &weights(desired).rollout().unwrap().reason
}

/// Whether it begins by itself, now that pods are ready; and so it does.
fn begins(desired: &mut Desired) -> bool {
    !desired.change("shop", &Proposal::Begin, by_itself()).unwrap().is_empty()
}

fn by_itself() -> Request {
    Request::of(Source::Rollout, NOW)
}

fn phase(desired: &Desired) -> Phase {
    weights(desired).rollout().unwrap().phase
}

fn ask(desired: &mut Desired, asked: Asked) -> Result<(), WeightsError> {
    desired.change("shop", &Proposal::Ask(asked), request()).map(drop)
}

fn request() -> Request {
    Request { source: Source::Admin, who: None, reason: None, expected: None, at: LATER }
}

fn try_set(desired: &mut Desired, version: &str, share: &str) -> Result<(), WeightsError> {
    let asked = [(version.to_owned(), share.parse().unwrap())].into();
    desired.set_weights("shop", &asked, request()).map(drop)
}

fn set(desired: &mut Desired, version: &str, share: &str) {
    try_set(desired, version, share).unwrap();
}

/// The shares, and the last reason.
fn show(desired: &Desired) -> String {
    let shares = weights(desired).split().iter().map(|(name, share)| format!("{name}={share}"));
    let last = weights(desired).history().next_back().and_then(|entry| entry.reason.clone());
    format!("{} {}", shares.collect::<Vec<_>>().join(" "), last.unwrap_or_default())
}

fn restarted(desired: &mut Desired, spec: RouteSpec) -> Desired {
    let json = serde_json::to_string(&desired.to_saved()).unwrap();
    let mut after = Desired::restored(serde_json::from_str::<SavedState>(&json).unwrap());
    after.set_routes(vec![spec], None, LATER);
    after
}

#[test]
fn it_begins_by_itself_once_and_again_when_its_pods_had_all_gone() {
    let shop = || spec("v2", &["10", "100"], "0");
    let mut desired = desired(shop());
    assert!(begins(&mut desired));
    assert_eq!(
        show(&desired),
        "v1=90 v2=10 v3=0 rollout started by itself, for v2 has ready pods: step 1 of 2"
    );
    assert!(!begins(&mut desired), "it is under way");
    desired.change("shop", &Proposal::CanaryIsGone, by_itself()).unwrap();
    ask(&mut desired, Asked::Abort).unwrap();
    assert!(!begins(&mut desired), "its pods were gone before it ended");
    let mut desired = restarted(&mut desired, shop());
    assert!(!begins(&mut desired), "nor after a restart");
    assert!(weights(&desired).misses_that_canary_left(&shop()));
    desired.change("shop", &Proposal::CanaryIsGone, by_itself()).unwrap();
    assert!(!weights(&desired).misses_that_canary_left(&shop()));
    let mut desired = restarted(&mut desired, shop());
    assert!(begins(&mut desired), "they were gone, and that was kept");
    ask(&mut desired, Asked::Abort).unwrap();
    assert!(!begins(&mut desired));
}

#[test]
fn it_does_not_begin_by_itself_beside_other_shares_or_unasked() {
    let mut desired = desired(spec("v2", &["10"], "5"));
    assert!(!begins(&mut desired), "it has a share");
    set(&mut desired, "v2", "0");
    set(&mut desired, "v3", "1");
    assert!(!begins(&mut desired), "a third has one");
    set(&mut desired, "v3", "0");
    let mut unasked = spec("v2", &["10"], "5");
    unasked.rollout.as_mut().unwrap().auto = false;
    desired.set_routes(vec![unasked], None, NOW);
    assert!(!begins(&mut desired));
    desired.set_routes(vec![spec("v2", &["10"], "5")], None, NOW);
    assert!(begins(&mut desired));
}

#[test]
fn another_version_is_another_rollout() {
    let mut desired = desired(spec("v2", &["10"], "0"));
    assert!(begins(&mut desired));
    desired.set_routes(vec![spec("v3", &["10"], "0")], None, LATER);
    assert_eq!(phase(&desired), Phase::Aborted);
    assert_eq!(show(&desired), "v1=100 v2=0 v3=0 aborted: the config has no such rollout any more");
    assert_eq!(weights(&desired).rollout().unwrap().version.as_str(), "v2");
    assert!(begins(&mut desired));
    assert_eq!(weights(&desired).rollout().unwrap().version.as_str(), "v3");
}

#[test]
fn a_config_with_fewer_steps_ends_it_and_weights_in_the_file_win() {
    let mut desired = desired(spec("v2", &["10", "20"], "0"));
    ask(&mut desired, Asked::Start).unwrap();
    ask(&mut desired, Asked::Promote).unwrap();
    desired.set_routes(vec![spec("v2", &["15", "30"], "0")], None, LATER);
    assert_eq!((phase(&desired), show(&desired).starts_with("v1=80 v2=20")), (Phase::Running, true));
    desired.set_routes(vec![spec("v2", &["15"], "7")], None, LATER);
    assert_eq!((phase(&desired), show(&desired).as_str()), (Phase::Aborted, "v1=93 v2=7 v3=0 "));
}

/// What a rollout says that cannot go on beside a third version.
const THIRD: &str = "a rollout compares two versions, and v3 has a share too: set its weight to 0 first";

#[test]
fn while_a_rollout_is_under_way_no_third_version_is_given_a_share() {
    let mut desired = desired(spec("v2", &["10", "100"], "0"));
    set(&mut desired, "v3", "5");
    set(&mut desired, "v3", "0");
    ask(&mut desired, Asked::Start).unwrap();
    for paused in [false, true] {
        if paused {
            ask(&mut desired, Asked::Pause).unwrap();
        }
        let before = (show(&desired), phase(&desired));
        let refused = try_set(&mut desired, "v3", "0.0001").unwrap_err();
        assert_eq!(
            refused.to_string(),
            "the weights were not changed: a rollout of v2 is under way, which compares two versions, and v3 would get a \
             share too: end it with `rollout abort` first"
        );
        let refused = desired.change("shop", &Proposal::Undo(Some(Revision(2))), request()).unwrap_err();
        assert!(matches!(refused, WeightsError::ThirdMeanwhile { .. }), "{refused}");
        assert_eq!((show(&desired), phase(&desired)), before);
    }
    // Those of the two are anybody's to set, and undo goes back to them.
    set(&mut desired, "v2", "20");
    desired.change("shop", &Proposal::Undo(None), request()).unwrap();
    assert!(show(&desired).starts_with("v1=90 v2=10 v3=0"), "{}", show(&desired));
    ask(&mut desired, Asked::Abort).unwrap();
    set(&mut desired, "v3", "5");
}

#[test]
fn a_config_that_gives_a_third_a_share_wins_and_the_rollout_says_why_it_waits() {
    let mut desired = desired(spec("v2", &["10", "100"], "0"));
    ask(&mut desired, Asked::Start).unwrap();
    desired.set_routes(vec![with_third("v2", &["10", "100"], "8", "4")], None, LATER);
    assert_eq!(show(&desired), "v1=88 v2=8 v3=4 ");
    assert_eq!(phase(&desired), Phase::Paused(PausedBy::Weights));
    assert_eq!(reason(&desired), format!("paused: {THIRD}"));
    for asked in [Asked::Resume, Asked::Promote, Asked::PromoteFull] {
        assert_eq!(ask(&mut desired, asked).unwrap_err().to_string(), THIRD, "{asked:?}");
    }
    // It may lose some, or all, and the others may have more; not itself.
    set(&mut desired, "v3", "3");
    set(&mut desired, "v2", "9");
    assert!(matches!(try_set(&mut desired, "v3", "5"), Err(WeightsError::ThirdMeanwhile { .. })));
    assert_eq!(reason(&desired), format!("paused: {THIRD}"));
    set(&mut desired, "v3", "0");
    assert_eq!(
        reason(&desired),
        "paused: somebody set the weights; `rollout resume` goes back to those of the step"
    );
    ask(&mut desired, Asked::Resume).unwrap();
    assert_eq!(
        (phase(&desired), show(&desired).as_str()),
        (Phase::Running, "v1=90 v2=10 v3=0 resumed: step 1 of 2")
    );
}

#[test]
fn the_last_step_does_not_end_well_beside_a_third() {
    let mut desired = desired(spec("v2", &["10"], "0"));
    ask(&mut desired, Asked::Start).unwrap();
    desired.set_routes(vec![with_third("v2", &["10"], "0", "4")], None, LATER);
    assert_eq!(ask(&mut desired, Asked::Promote).unwrap_err().to_string(), THIRD);
    set(&mut desired, "v3", "0");
    ask(&mut desired, Asked::Promote).unwrap();
    assert_eq!(phase(&desired), Phase::Succeeded);
}

#[test]
fn what_paused_a_rollout_before_a_third_came_is_still_said() {
    let mut desired = desired(spec("v2", &["10", "100"], "0"));
    ask(&mut desired, Asked::Start).unwrap();
    ask(&mut desired, Asked::Pause).unwrap();
    desired.set_routes(vec![with_third("v2", &["10", "100"], "0", "4")], None, LATER);
    assert_eq!((phase(&desired), reason(&desired)), (Phase::Paused(PausedBy::Somebody), "paused"));
    assert_eq!(ask(&mut desired, Asked::Resume).unwrap_err().to_string(), THIRD);
    ask(&mut desired, Asked::Abort).unwrap();
    assert_eq!(show(&desired), "v1=96 v2=0 v3=4 aborted");
}

#[test]
fn a_saved_rollout_that_ran_beside_a_third_waits_and_says_why() {
    let shop = || spec("v2", &["10", "100"], "0");
    let mut desired = desired(shop());
    ask(&mut desired, Asked::Start).unwrap();
    // As a version before this one left it, or somebody's hand.
    let mut saved = serde_json::to_value(desired.to_saved()).unwrap();
    saved["routes"]["shop"]["weights"] = serde_json::json!({"v1": 80, "v2": 10, "v3": 10});
    let mut after = Desired::restored(serde_json::from_value::<SavedState>(saved).unwrap());
    after.set_routes(vec![shop()], None, LATER);
    assert_eq!(show(&after), format!("v1=80 v2=10 v3=10 paused: {THIRD}"));
    assert_eq!(
        (phase(&after), reason(&after)),
        (Phase::Paused(PausedBy::Weights), format!("paused: {THIRD}").as_str())
    );
    // Once is enough.
    let revision = weights(&after).revision();
    let after = restarted(&mut after, shop());
    assert_eq!((weights(&after).revision(), phase(&after)), (revision, Phase::Paused(PausedBy::Weights)));
}

#[test]
fn undo_passes_over_revisions_that_left_the_weights() {
    let mut desired = desired(spec("v2", &["10"], "0"));
    ask(&mut desired, Asked::Start).unwrap();
    ask(&mut desired, Asked::Pause).unwrap();
    desired.change("shop", &Proposal::Undo(None), request()).unwrap();
    assert_eq!(show(&desired), "v1=100 v2=0 v3=0 undo to revision 1");
    let mut same = self::desired(spec("v2", &["10"], "0"));
    assert!(matches!(
        same.change("shop", &Proposal::Undo(None), request()),
        Err(WeightsError::NothingToUndo(_))
    ));
}

#[test]
fn a_restart_goes_on_in_the_same_step() {
    let shop = || spec("v2", &["10", "20"], "0");
    let mut desired = desired(shop());
    ask(&mut desired, Asked::Start).unwrap();
    ask(&mut desired, Asked::Promote).unwrap();
    desired.judged(&"shop".parse().unwrap()).unwrap().held_ms = 4_321;
    let mut after = restarted(&mut desired, shop());
    assert_eq!(weights(&after).rollout(), weights(&desired).rollout());
    assert_eq!((after.under_way().len(), show(&after).starts_with("v1=80 v2=20")), (1, true));
    ask(&mut after, Asked::Abort).unwrap();
    assert!(!after.has_rollouts());
}
