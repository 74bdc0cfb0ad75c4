//! Events: what the API server asks of a new one, and how it shows it in the core group, where `kubectl describe` looks.

use serde_json::{Value, json};

use super::store::{RESOURCES, Resource};

/// Events in the group that they are posted to.
pub(super) fn is_event(resource: Resource) -> bool {
    resource.group == "events.k8s.io" && resource.plural == "events"
}

/// The same objects in the core group.
pub(super) fn core() -> Resource {
    *RESOURCES.iter().find(|r| r.group.is_empty() && r.plural == "events").unwrap()
}

/// Why a new Event is not taken (`ValidateEventCreate` of Kubernetes); nothing where it is.
pub(super) fn fault(event: &Value, namespace: &str) -> Option<String> {
    let text = |field: &str| event[field].as_str().unwrap_or_default();
    for (field, most) in
        [("reportingController", 253), ("reportingInstance", 128), ("action", 128), ("reason", 128)]
    {
        if text(field).is_empty() {
            return Some(format!("{field}: Required value"));
        }
        if text(field).len() > most {
            return Some(format!("{field}: Invalid value: can have at most {most} characters"));
        }
    }
    let name_part = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '/');
    if !text("reportingController").chars().all(name_part) {
        return Some(
            "reportingController: Invalid value: name part must consist of alphanumeric characters".into(),
        );
    }
    if text("note").len() > 1024 {
        return Some("note: Invalid value: can have at most 1024 characters".into());
    }
    if !matches!(text("type"), "Normal" | "Warning") {
        return Some(format!("type: Invalid value: {:?}", text("type")));
    }
    // A MicroTime: `2026-03-20T09:46:40.123456Z`.
    if text("eventTime").len() != 27 || !text("eventTime").ends_with('Z') {
        return Some("eventTime: Required value".into());
    }
    if event["regarding"]["namespace"] != namespace {
        return Some("involvedObject.namespace: Invalid value: does not match event.namespace".into());
    }
    let old = ["deprecatedSource", "deprecatedFirstTimestamp", "deprecatedLastTimestamp", "deprecatedCount"];
    old.iter()
        .find(|field| !event[**field].is_null())
        .map(|field| format!("{field}: Invalid value: needs to be unset"))
}

/// An Event of `events.k8s.io/v1` as one of the core group.
pub(super) fn as_core(event: &Value) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Event", "metadata": event["metadata"],
        "involvedObject": event["regarding"], "related": event["related"], "message": event["note"],
        "reason": event["reason"], "action": event["action"], "type": event["type"],
        "eventTime": event["eventTime"], "series": event["series"],
        "reportingComponent": event["reportingController"], "reportingInstance": event["reportingInstance"],
        "source": {}, "firstTimestamp": null, "lastTimestamp": null,
    })
}
