//! What a replica says in its Lease, as replicas of this release and of earlier ones do.

use k8s_openapi::serde_json::{from_value, json};

use super::*;
use crate::model::{Revision, RouteName};

const RENEWED: &str = "2026-11-27T12:00:00.123000Z";

fn renewed() -> Timestamp {
    "2026-11-27T12:00:00.123Z".parse::<Text>().unwrap().0
}

/// A time as it is read from a text.
struct Text(Timestamp);

impl std::str::FromStr for Text {
    type Err = serde_json::Error;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        serde_json::from_value(json!(text)).map(Self)
    }
}

fn lease(annotations: serde_json::Value) -> Lease {
    let metadata = json!({"name": "serinus-state-a", "resourceVersion": "7", "annotations": annotations});
    from_value(json!({"metadata": metadata, "spec": {"holderIdentity": "a", "renewTime": RENEWED}})).unwrap()
}

fn shop() -> RouteName {
    "shop".parse().unwrap()
}

fn serves(revision: u64) -> Serves {
    Serves::of([(&shop(), Revision(revision), Timestamp::default())].into_iter())
}

#[test]
fn what_a_replica_serves_is_read_as_it_was_written() {
    let told = record(lease(json!({SERVES: served(renewed(), &serves(3)), ROLLOUTS: "{}"})));
    assert_eq!(told.renewed, Some(renewed()));
    assert_eq!(told.serves.as_deref(), Some(&serves(3)));
    let differs = told.serves.unwrap().differs(&[(&shop(), Revision(4))].into());
    assert_eq!(differs.routes, [(shop(), Some(Revision(3)))].into());
}

#[test]
fn a_replica_of_an_earlier_release_says_nothing_of_what_it_serves() {
    assert_eq!(record(lease(json!({ROLLOUTS: "{}"}))).serves, None);
    // Nor does one that goes on with the Lease of a later one: the annotation stays as it was, and the Lease is renewed.
    let earlier = Timestamp::from_millis(renewed().millis() - 1);
    let told = record(lease(json!({SERVES: served(earlier, &serves(3)), ROLLOUTS: "{}"})));
    assert_eq!((told.serves, told.holder.as_deref()), (None, Some("a")));
}

#[test]
fn what_cannot_be_read_of_it_is_nothing_said_and_costs_nothing_else() {
    let whole = served(renewed(), &serves(3));
    for text in ["", "{}", "[]", r#"{"renewed": 5}"#, &whole.replace("\"shop\":3", "\"-\":3"), &whole[1..]] {
        let told = record(lease(json!({SERVES: text, ROLLOUTS: "{}"})));
        assert_eq!((told.serves, told.holder.as_deref()), (None, Some("a")), "{text}");
    }
    // What a later release adds is nothing to this one.
    let more = whole.replacen('{', "{\"also\": [1], ", 1);
    assert!(record(lease(json!({SERVES: more}))).serves.is_some());
}
