//! Who wins, what is refused, and what `undo` goes back to (contract §4).

use super::*;
use crate::model::{BackendRef, OnEmpty, ServiceKey, VersionSpec};
use crate::state::{Desired, Proposal, SavedState};

fn spec(route: &str, versions: &[(&str, Option<&str>)]) -> RouteSpec {
    RouteSpec {
        name: route.parse().unwrap(),
        hosts: Vec::new(),
        paths: Vec::new(),
        backend: BackendRef { service: ServiceKey::new("web", "svc"), port: None },
        versions: versions
            .iter()
            .map(|(name, weight)| VersionSpec {
                name: name.parse().unwrap(),
                selector: None,
                backend: None,
                weight: weight.map(|w| w.parse().unwrap()),
                max_in_flight_per_pod: None,
            })
            .collect(),
        audience: crate::model::Audience::default(),
        on_empty: OnEmpty::Spill,
        balance: crate::model::Balance::LeastRequest,
        traffic: crate::model::Traffic::default(),
        rollout: None,
        debug_headers: false,
    }
}

fn two(weight: &str) -> RouteSpec {
    spec("shop", &[("v1", None), ("v2", Some(weight))])
}

fn request(reason: &str) -> Request {
    Request {
        source: Source::Admin,
        who: None,
        reason: Some(reason.to_owned()),
        expected: None,
        at: Timestamp::from_millis(1),
    }
}

fn asked(weights: &[(&str, &str)]) -> BTreeMap<String, Share> {
    weights.iter().map(|(version, share)| ((*version).to_owned(), share.parse().unwrap())).collect()
}

/// The state in a line: `r2 v1=95 v2=5`.
fn show(desired: &Desired) -> String {
    let weights = desired.weights(&"shop".parse().unwrap()).unwrap();
    let shares = weights.split().iter().map(|(version, share)| format!("{version}={share}"));
    format!("r{} {}", weights.revision(), shares.collect::<Vec<_>>().join(" "))
}

fn desired(spec: RouteSpec) -> Desired {
    let mut desired = Desired::default();
    desired.set_routes(vec![spec], None, Timestamp::default());
    desired
}

#[test]
fn stable_takes_the_rest_and_versions_left_out_keep_theirs() {
    let mut desired = desired(spec("shop", &[("v1", None), ("v2", Some("0.1")), ("v3", None)]));
    assert_eq!(show(&desired), "r1 v1=99.9 v2=0.1 v3=0");
    desired.set_weights("shop", &asked(&[("v3", "10")]), request("")).unwrap();
    assert_eq!(show(&desired), "r2 v1=89.9 v2=0.1 v3=10");
    desired.set_weights("shop", &asked(&[("v1", "60"), ("v2", "30")]), request("")).unwrap();
    assert_eq!(show(&desired), "r3 v1=60 v2=30 v3=10");
    let touched = desired.set_weights("shop", &asked(&[("v2", "30")]), request("the same again")).unwrap();
    assert!(touched.is_empty());
    assert_eq!(show(&desired), "r3 v1=60 v2=30 v3=10");
}

#[test]
fn every_reason_against_weights_is_told_and_nothing_changes() {
    let mut desired = desired(spec("shop", &[("v1", None), ("v2", Some("5")), ("v3", Some("10"))]));
    let mut refused = |weights: &[(&str, &str)]| {
        let error = desired.set_weights("shop", &asked(weights), request("")).unwrap_err().to_string();
        assert_eq!(show(&desired), "r1 v1=85 v2=5 v3=10");
        error
    };
    assert_eq!(
        refused(&[("v2", "91"), ("v9", "1")]),
        "route `shop` has no version `v9`; there are v1, v2, v3; the weights are more than 100 percent together: \
         v2 91 + v3 10"
    );
    assert_eq!(
        refused(&[("v1", "80")]),
        "`v1` is the stable version and gets what the others leave: 85 percent, not 80; leave it out, or give the \
         others weights that leave it 80"
    );
    let unknown = desired.set_weights("shoop", &asked(&[("v2", "1")]), request("")).unwrap_err();
    assert_eq!(unknown.to_string(), "there is no route `shoop`; there is shop");
}

#[test]
fn a_stale_revision_is_refused() {
    let mut desired = desired(two("0.1"));
    let stale = Request { expected: Some(Revision(7)), ..request("") };
    let error = desired.set_weights("shop", &asked(&[("v2", "1")]), stale.clone()).unwrap_err();
    assert_eq!(error, WeightsError::Stale { expected: Revision(7), actual: Revision(1) });
    assert!(desired.change("shop", &Proposal::Undo(None), stale).is_err());
    let fresh = Request { expected: Some(Revision(1)), ..request("") };
    desired.set_weights("shop", &asked(&[("v2", "1")]), fresh).unwrap();
    assert_eq!(show(&desired), "r2 v1=99 v2=1");
}

#[test]
fn undo_goes_to_the_one_before_or_to_any_that_is_kept() {
    let mut desired = desired(two("0.1"));
    let error = desired.change("shop", &Proposal::Undo(None), request("")).unwrap_err();
    assert_eq!(error, WeightsError::NothingToUndo(Revision(1)));
    for weight in ["1", "30", "100"] {
        desired.set_weights("shop", &asked(&[("v2", weight)]), request(weight)).unwrap();
    }
    desired.change("shop", &Proposal::Undo(None), request("too bold")).unwrap();
    assert_eq!(show(&desired), "r5 v1=70 v2=30");
    desired.change("shop", &Proposal::Undo(Some(Revision(1))), request("")).unwrap();
    assert_eq!(show(&desired), "r6 v1=99.9 v2=0.1");
    let last = desired.weights(&"shop".parse().unwrap()).unwrap().history().next_back().unwrap().clone();
    assert_eq!(last.reason.as_deref(), Some("undo to revision 1"));
    let error = desired.change("shop", &Proposal::Undo(Some(Revision(99))), request("")).unwrap_err();
    assert_eq!(error.to_string(), "revision 99 is not kept; there are 1, 2, 3, 4, 5, 6");
}

#[test]
fn undo_to_a_version_that_is_gone_is_refused() {
    let mut desired = desired(spec("shop", &[("v1", None), ("v2", Some("5"))]));
    desired.set_routes(vec![spec("shop", &[("v1", None), ("v3", Some("1"))])], None, Timestamp::default());
    let error =
        desired.change("shop", &Proposal::Undo(Some(Revision(1))), request("")).unwrap_err().to_string();
    assert_eq!(error, "route `shop` has no version `v2`; there are v1, v3");
    assert_eq!(show(&desired), "r2 v1=99 v3=1");
}

#[test]
fn the_last_20_revisions_are_kept() {
    let mut desired = desired(two("0.1"));
    for i in 1..=40 {
        desired.set_weights("shop", &asked(&[("v2", &i.to_string())]), request("")).unwrap();
    }
    let weights = desired.weights(&"shop".parse().unwrap()).unwrap();
    let kept: Vec<_> = weights.history().map(|e| e.revision.0).collect();
    assert_eq!(kept, (22..=41).collect::<Vec<_>>());
}

#[test]
fn a_file_counts_only_where_its_weights_differ_from_those_last_seen_in_it() {
    let mut desired = desired(two("0.1"));
    desired.set_weights("shop", &asked(&[("v2", "30")]), request("")).unwrap();
    let (_, changed) = desired.set_routes(vec![two("0.1")], None, Timestamp::default());
    assert_eq!(
        (show(&desired).as_str(), changed.len()),
        ("r2 v1=70 v2=30", 0),
        "the same weights in the file"
    );
    let with_v3 = spec("shop", &[("v1", None), ("v2", Some("0.1")), ("v3", Some("0"))]);
    desired.set_routes(vec![with_v3], None, Timestamp::default());
    assert_eq!(show(&desired), "r2 v1=70 v2=30 v3=0", "a version listed at 0 is no change");
    let (_, changed) = desired.set_routes(vec![two("0.2")], None, Timestamp::default());
    assert_eq!(
        (show(&desired).as_str(), changed.len()),
        ("r3 v1=99.8 v2=0.2", 1),
        "other weights in the file"
    );
}

#[test]
fn a_version_that_leaves_the_config_gives_its_share_to_stable() {
    let mut desired = desired(spec("shop", &[("v1", None), ("v2", None), ("v3", Some("1"))]));
    desired.set_weights("shop", &asked(&[("v2", "30")]), request("")).unwrap();
    desired.set_routes(vec![spec("shop", &[("v1", None), ("v3", Some("1"))])], None, Timestamp::default());
    assert_eq!(show(&desired), "r3 v1=99 v3=1");
    let weights = desired.weights(&"shop".parse().unwrap()).unwrap();
    assert_eq!(weights.history().next_back().unwrap().reason.as_deref(), Some("v2 left the config"));
}

#[test]
fn a_restart_serves_the_weights_it_had() {
    let mut before = desired(two("0.1"));
    before.set_weights("shop", &asked(&[("v2", "30")]), request("go")).unwrap();
    let json = serde_json::to_string(&before.to_saved()).unwrap();
    let saved: SavedState = serde_json::from_str(&json).unwrap();
    let mut after = Desired::restored(saved.clone());
    after.set_routes(vec![two("0.1")], None, Timestamp::default());
    assert_eq!(show(&after), "r2 v1=70 v2=30");
    assert_eq!(after.to_saved(), before.to_saved());
    let mut after = Desired::restored(saved);
    after.set_routes(vec![two("0.3")], None, Timestamp::default());
    assert_eq!(show(&after), "r3 v1=99.7 v2=0.3", "the file was changed while it was down");
}

#[test]
fn a_route_that_leaves_and_comes_back_keeps_its_weights() {
    let mut desired = desired(two("0.1"));
    desired.set_weights("shop", &asked(&[("v2", "30")]), request("go")).unwrap();
    desired.set_routes(Vec::new(), None, Timestamp::default());
    assert!(desired.weights(&"shop".parse().unwrap()).is_none());
    desired.set_routes(vec![two("0.1")], None, Timestamp::default());
    assert_eq!(show(&desired), "r2 v1=70 v2=30");
}

#[test]
fn a_saved_revision_of_any_size_is_lived_with() {
    let saved = serde_json::json!({"format": 1, "routes": {"shop": {
        "revision": u64::MAX, "weights": {"v1": 90, "v2": 10}, "file": {"v2": 10}, "history": [],
    }}});
    let mut desired = Desired::restored(serde_json::from_value(saved).unwrap());
    desired.set_routes(vec![two("10")], None, Timestamp::default());
    desired.set_weights("shop", &asked(&[("v2", "20")]), request("on")).unwrap();
    assert_eq!(show(&desired), format!("r{} v1=80 v2=20", u64::MAX));
}
