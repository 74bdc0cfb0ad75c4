//! Server-sent events: what the `data` of each is, by the name in its `event`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::model::{HookEvent, Share};
use crate::telemetry::{News, RolloutNews};

/// The `data` of an event.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(untagged)]
pub enum EventData {
    /// Of a `weight` event.
    Weight(WeightEvent),
    /// Of a `rollout` event.
    Rollout(RolloutEvent),
    /// Of a `hook` event.
    Hook(HookFailure),
    /// Of an `endpoint` event.
    Endpoint(EndpointEvent),
    /// Of a `config` event.
    Config(ConfigEvent),
    /// Of a `problem` event.
    Problem(ProblemEvent),
    /// Of a `lagged` event.
    Lagged(LaggedEvent),
}

/// A route's weights changed.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct WeightEvent {
    /// When (RFC 3339).
    pub time: String,
    /// The route.
    pub route: String,
    /// The revision in force.
    pub revision: u64,
    /// Where the change came from: `file`, `admin`, `rollout` or `kubernetes`.
    pub source: String,
    /// Who asked, if that is known.
    #[schema(required = true)]
    pub who: Option<String>,
    /// The weights in force, in percent.
    #[schema(value_type = BTreeMap<String, f64>)]
    pub weights: BTreeMap<String, Share>,
    /// Why.
    #[schema(required = true)]
    pub reason: Option<String>,
}

/// A rollout came to another step or phase.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct RolloutEvent {
    /// When (RFC 3339).
    pub time: String,
    /// The route.
    pub route: String,
    /// The version that is rolled out.
    pub version: String,
    /// `running`, `paused`, `succeeded`, `rolled-back` or `aborted`.
    pub phase: String,
    /// Its step, from 1.
    pub step: usize,
    /// How many steps there are.
    pub steps: usize,
    /// The version's weight, in percent.
    #[schema(value_type = f64, minimum = 0, maximum = 100)]
    pub weight: Share,
    /// Why.
    pub reason: String,
    /// The revision in force.
    pub revision: u64,
}

/// A webhook of a rollout did not take what it was told, or has not let a step begin.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct HookFailure {
    /// When (RFC 3339).
    pub time: String,
    /// The route.
    pub route: String,
    /// What for: `gate`, `step`, `promoted` or `rolledBack`.
    pub on: String,
    /// Which one: its scheme, host and port.
    pub hook: String,
    /// What went wrong.
    pub error: String,
}

/// A pod came, went, or changed.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct EndpointEvent {
    /// When (RFC 3339).
    pub time: String,
    /// The route.
    pub route: String,
    /// The version.
    pub version: String,
    /// IP and port.
    pub address: String,
    /// As the cluster tells it: `ready`, `draining`, `unready`, `gone`; by what became of requests: `set-aside`, `taken-back`.
    pub state: String,
    /// Why it is or was set aside; null otherwise.
    #[schema(required = true)]
    pub reason: Option<String>,
}

/// The config file was read.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ConfigEvent {
    /// When (RFC 3339).
    pub time: String,
    /// Whether it is in force; else the one before is.
    pub accepted: bool,
    /// How many routes it has; null where it was refused.
    #[schema(required = true)]
    pub routes: Option<usize>,
    /// Every error, a line for each; null where there is none.
    #[schema(required = true)]
    pub errors: Option<String>,
}

/// A problem was found, or is gone.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ProblemEvent {
    /// When (RFC 3339).
    pub time: String,
    /// The route; null for one of the router as a whole.
    #[schema(required = true)]
    pub route: Option<String>,
    /// Whether it is there, or gone.
    pub there: bool,
    /// What is wrong, and where.
    pub message: String,
    /// What to do about it.
    pub remedy: String,
}

/// Events were not sent, for those before were read too slowly.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct LaggedEvent {
    /// How many, of all routes: read the routes anew.
    pub missed: u64,
}

impl EventData {
    /// What happened then, as it is sent.
    #[must_use]
    pub fn of(news: &News, time: String) -> Self {
        let text = ToString::to_string;
        match news {
            News::Weights { route, revision, source, who, weights, reason } => Self::Weight(WeightEvent {
                time,
                route: text(route),
                revision: revision.0,
                source: source.clone(),
                who: who.clone(),
                weights: weights.iter().map(|(version, share)| (version.to_string(), *share)).collect(),
                reason: reason.clone(),
            }),
            News::Rollout(news) => {
                let RolloutNews { route, version, phase, step, steps, weight, reason, revision } = news;
                Self::Rollout(RolloutEvent {
                    time,
                    route: text(route),
                    version: version.to_string(),
                    phase: (*phase).to_owned(),
                    step: *step,
                    steps: *steps,
                    weight: *weight,
                    reason: reason.clone(),
                    revision: revision.0,
                })
            }
            News::HookFailed { route, event, hook, error } => Self::Hook(HookFailure {
                time,
                route: text(route),
                on: HookEvent::token(*event).to_owned(),
                hook: hook.clone(),
                error: error.clone(),
            }),
            News::Endpoint { route, version, address, state, reason } => Self::Endpoint(EndpointEvent {
                time,
                route: text(route),
                version: version.to_string(),
                address: address.to_string(),
                state: (*state).to_owned(),
                reason: reason.map(ToOwned::to_owned),
            }),
            News::Config { accepted, routes, errors } => Self::Config(ConfigEvent {
                time,
                accepted: *accepted,
                routes: *routes,
                errors: errors.clone(),
            }),
            News::Problem { route, there, message, remedy } => Self::Problem(ProblemEvent {
                time,
                route: route.as_ref().map(text),
                there: *there,
                message: message.clone(),
                remedy: remedy.clone(),
            }),
        }
    }

    /// The name in its `event`.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Weight(_) => "weight",
            Self::Rollout(_) => "rollout",
            Self::Hook(_) => "hook",
            Self::Endpoint(_) => "endpoint",
            Self::Config(_) => "config",
            Self::Problem(_) => "problem",
            Self::Lagged(_) => "lagged",
        }
    }
}
