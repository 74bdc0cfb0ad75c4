//! What the admin API says and hears, as JSON. The client commands read the same types.
//!
//! Shares are percentages from 0 to 100 in steps of 0.0001. A field may be added at any time; none is taken away or given
//! another meaning without a major version.

mod events;
mod log;
mod mirror;
mod rollout;
mod series;

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::model::{EndpointPhase, Share};

pub use events::{
    ConfigEvent, EndpointEvent, EventData, HookFailure, LaggedEvent, ProblemEvent, RolloutEvent, WeightEvent,
};
pub use log::{LogChange, LogStatus};
pub use mirror::{MirrorComparison, MirrorStatus};
pub use rollout::{
    AttemptCounts, RolloutAction, RolloutChange, RolloutEvidence, RolloutStatus, RolloutStepStatus,
};
pub use series::{AccessStatus, RouteSeries, VersionSeries, WriteNeed};

/// Every route, and what is wrong with the router as a whole.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct RouteList {
    /// The number of the routing table in force; each one that is published has the next.
    pub generation: u64,
    /// Problems that belong to no single route.
    pub problems: Vec<ProblemNote>,
    /// The replicas that share their state (`state.configMap`), this one first; empty where it is this one's own.
    #[serde(default)]
    pub replicas: Vec<ReplicaStatus>,
    /// The routes, in the order of the config.
    pub routes: Vec<RouteStatus>,
}

/// A replica, as the one that was asked sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ReplicaStatus {
    /// Its name: that of its pod.
    pub name: String,
    /// It is the one that was asked.
    pub asked: bool,
    /// It takes rollouts forward.
    pub leads: bool,
    /// It has given a sign of life lately.
    pub live: bool,
    /// The routes of which it serves another revision than the one that was asked, or that only one of the two has, as far as the
    /// one that was asked has heard; at most 100. A moment after a change that is as it should be. Of a replica of a release that does
    /// not tell all its revisions, only routes with a rollout under way.
    #[serde(default)]
    #[schema(required = true)]
    pub differs: Vec<String>,
    /// The revisions of those that it serves; one that it does not have is not among them.
    #[serde(default)]
    #[schema(required = true)]
    pub serves: BTreeMap<String, u64>,
    /// It serves other revisions also of routes that `differs` does not name.
    #[serde(default)]
    #[schema(required = true)]
    pub differs_more: bool,
}

/// One route: what was asked for, what is in force, and how its versions do.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct RouteStatus {
    /// Its name.
    pub name: String,
    /// The revision of the weights in force; also its `ETag`, for `If-Match`.
    pub revision: u64,
    /// The Service whose pods it splits between, as `NAMESPACE/NAME`.
    pub service: String,
    /// The hosts it takes, exact or `*.suffix`; none means every host.
    pub hosts: Vec<String>,
    /// The paths it takes; none means every path.
    pub paths: Vec<PathRule>,
    /// Its versions, stable first.
    pub versions: Vec<VersionStatus>,
    /// How many endpoints belong to no version and get no traffic.
    pub unassigned_count: usize,
    /// Those endpoints, at most 100.
    pub unassigned: Vec<UnassignedEndpoint>,
    /// What is wrong with it.
    pub problems: Vec<ProblemNote>,
    /// Whether the config gives it a rollout, so that one can be started. Routers before this field did not tell, and are asked.
    #[serde(default = "yes")]
    #[schema(required = true)]
    pub rollout_configured: bool,
    /// Its last rollout: the one under way, if one is; null where there was none.
    #[serde(default)]
    #[schema(required = true)]
    pub rollout: Option<RolloutStatus>,
    /// Which of its requests are copied to a version, and what became of the copies; null where none are.
    #[serde(default)]
    #[schema(required = true)]
    pub mirror: Option<MirrorStatus>,
}

fn yes() -> bool {
    true
}

/// A path that a route takes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub enum PathRule {
    /// This path and everything under it, by whole elements.
    Prefix(String),
    /// This path and no other.
    Exact(String),
    /// A regular expression over the whole path.
    Regex(String),
}

/// One version of a route. `errorRate`, `p50Ms` and `p99Ms` look at the last 30 to 60 seconds (since the start, before
/// that) and are null when no request ended in them.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct VersionStatus {
    /// Its name.
    pub name: String,
    /// Whether it is the stable one, which gets what the others leave.
    pub stable: bool,
    /// The share asked for, in percent.
    #[schema(value_type = f64, minimum = 0, maximum = 100)]
    pub weight: Share,
    /// The share that its pods get after versions without a usable one gave theirs away, in percent: 0 without a usable pod; and
    /// less what was diverted in the last 30 to 60 seconds because it was full. Where a share is given to nobody (answered 503),
    /// those of a route sum to less than 100.
    #[schema(value_type = f64, minimum = 0, maximum = 100)]
    pub effective_weight: Share,
    /// Its part of the route's requests under the revision in force, in percent; null when there were none.
    #[schema(required = true, minimum = 0, maximum = 100)]
    pub measured_share: Option<f64>,
    /// How many requests it got under the revision in force.
    pub requests: u64,
    /// How many different users it got under the revision in force, estimated to about 3 %; null where the route has no
    /// `cohort`.
    #[serde(default)]
    #[schema(required = true)]
    pub users: Option<u64>,
    /// Its part of the route's users under the revision in force, in percent, as exact as `users` is; null where the route has
    /// no `cohort`, and before the first.
    #[serde(default)]
    #[schema(required = true, minimum = 0, maximum = 100)]
    pub measured_user_share: Option<f64>,
    /// The part of its recent requests that was answered with 5xx, or that it failed and the stable version was asked instead
    /// (`shield`), in percent.
    #[schema(required = true, minimum = 0, maximum = 100)]
    pub error_rate: Option<f64>,
    /// The time in which half of its recent requests were answered, in milliseconds.
    #[schema(required = true)]
    pub p50_ms: Option<f64>,
    /// The time in which 99 % of its recent requests were answered, in milliseconds.
    #[schema(required = true)]
    pub p99_ms: Option<f64>,
    /// How many requests it is serving.
    pub active_requests: u64,
    /// How many requests were repeated on the stable version because it failed them (`shield`), since the start.
    #[serde(default)]
    #[schema(required = true)]
    pub shielded: u64,
    /// How many requests went to the stable version because it was full (`maxInFlightPerPod`), since the start.
    #[serde(default)]
    #[schema(required = true)]
    pub diverted: u64,
    /// Its endpoints.
    pub endpoints: EndpointCounts,
}

/// The endpoints of a version, by state.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct EndpointCounts {
    /// Serving and not terminating: get new requests.
    pub ready: usize,
    /// Serving and terminating: get new requests only when the version has nothing better.
    pub draining: usize,
    /// Not serving: get nothing.
    pub unready: usize,
    /// Refused a connection, and nothing better has been heard of them since; counted here and not above.
    pub refused: usize,
    /// Ready, but failed too often, and set aside for a while; counted here and not above.
    #[serde(default)]
    #[schema(required = true)]
    pub ejected: usize,
    /// Ready, but fail the route's health checks; counted here and not above.
    #[serde(default)]
    #[schema(required = true)]
    pub unhealthy: usize,
    /// Each of them, at most 100.
    pub addresses: Vec<EndpointStatus>,
}

/// One endpoint.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct EndpointStatus {
    /// IP and port.
    pub address: String,
    /// Its pod, as `NAMESPACE/NAME`.
    #[schema(required = true)]
    pub pod: Option<String>,
    /// Where it is in its life, as the cluster tells it.
    pub phase: Phase,
    /// How many requests it is serving.
    pub in_flight: u32,
    /// Whether it refused a connection.
    pub refused: bool,
    /// Whether it failed too often, and is set aside for a while.
    #[serde(default)]
    #[schema(required = true)]
    pub ejected: bool,
    /// Whether it fails the route's health checks.
    #[serde(default)]
    #[schema(required = true)]
    pub unhealthy: bool,
}

/// Where an endpoint is in its life, as the cluster tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub enum Phase {
    /// Serving and not terminating.
    Ready,
    /// Serving and terminating.
    Draining,
    /// Not serving.
    Unready,
}

impl From<EndpointPhase> for Phase {
    fn from(phase: EndpointPhase) -> Self {
        match phase {
            EndpointPhase::Ready => Self::Ready,
            EndpointPhase::Draining => Self::Draining,
            EndpointPhase::Unready => Self::Unready,
        }
    }
}

/// An endpoint that belongs to no version.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct UnassignedEndpoint {
    /// IP and port.
    pub address: String,
    /// Its pod, as `NAMESPACE/NAME`.
    #[schema(required = true)]
    pub pod: Option<String>,
    /// Only its labels have not arrived yet.
    pub labels_pending: bool,
}

/// Something that is wrong and does not stop the rest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ProblemNote {
    /// What is wrong, and where.
    pub message: String,
    /// What to do about it.
    pub remedy: String,
}

/// A change of weights: versions left out keep theirs, stable takes the rest.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct WeightsChange {
    /// The share of each version that changes, in percent: 0 to 100, at most four decimals.
    #[schema(value_type = BTreeMap<String, f64>)]
    pub weights: BTreeMap<String, Share>,
    /// Why, for the history: at most 500 characters.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(max_length = 500)]
    pub reason: Option<String>,
}

/// Which weights to go back to.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Undo {
    /// The revision whose weights come back; left out, the one before the one in force.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to_revision: Option<u64>,
    /// Why, for the history: at most 500 characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(max_length = 500)]
    pub reason: Option<String>,
}

/// The last revisions of a route.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct History {
    /// The route's name.
    pub route: String,
    /// At most 20, the newest last.
    pub revisions: Vec<RevisionStatus>,
}

/// One change of a route's weights.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct RevisionStatus {
    /// Its number; the first is 1.
    pub revision: u64,
    /// When (RFC 3339).
    #[schema(format = DateTime)]
    pub time: String,
    /// Where it came from: `file`, `admin`, `rollout` or `kubernetes`.
    pub source: String,
    /// Who asked: the address a request to the admin API came from, after `token@` when it carried the token. Null when it
    /// was nobody's request.
    #[schema(required = true)]
    pub who: Option<String>,
    /// The weights before, in percent.
    #[schema(value_type = BTreeMap<String, f64>)]
    pub before: BTreeMap<String, Share>,
    /// The weights after, in percent.
    #[schema(value_type = BTreeMap<String, f64>)]
    pub after: BTreeMap<String, Share>,
    /// Why, in the asker's words.
    #[schema(required = true)]
    pub reason: Option<String>,
}

/// A request to explain.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ExplainRequest {
    /// Its method.
    #[serde(default = "get")]
    #[schema(default = "GET")]
    pub method: String,
    /// Its URL: absolute, or a path, whose host is then that of the `Host` header.
    pub url: String,
    /// Its headers; several of one name as several lines.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, String>,
    /// The address of its client; left out, rules and cohorts that look at it have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, example = "203.0.113.7")]
    pub client: Option<IpAddr>,
}

fn get() -> String {
    "GET".to_owned()
}

/// What a request would get, and why. Asking changes nothing: the split does not move.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Explained {
    /// The route; null when none matches, which is answered 404.
    #[schema(required = true)]
    pub route: Option<String>,
    /// The revision of its weights.
    #[schema(required = true)]
    pub revision: Option<u64>,
    /// The version, when only one is possible.
    #[schema(required = true)]
    pub version: Option<String>,
    /// What decides the version: `weight`, `rule`, `cohort`, or `fallback` when its share comes from a version without
    /// pods.
    #[schema(required = true)]
    pub rule: Option<String>,
    /// The endpoint, when only one is possible.
    #[schema(required = true)]
    pub endpoint: Option<String>,
    /// Each version that is possible.
    pub versions: Vec<VersionOdds>,
    /// Why, step by step, in words.
    pub why: Vec<String>,
}

/// A version that a request may get.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct VersionOdds {
    /// Its name.
    pub name: String,
    /// The chance that a request gets it, in percent.
    #[schema(value_type = f64, minimum = 0, maximum = 100)]
    pub percent: Share,
    /// The endpoints among which it would be sent, at most 20.
    pub endpoints: Vec<String>,
}

/// Why a request was not done (RFC 9457).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ProblemDetails {
    /// Which problem it is: `urn:serinus:problem:` and a fixed token.
    #[serde(rename = "type")]
    pub kind: String,
    /// The status in words.
    pub title: String,
    /// The status.
    pub status: u16,
    /// What is wrong, where, and what to do.
    pub detail: String,
    /// Each reason, where there may be several.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<String>,
}
