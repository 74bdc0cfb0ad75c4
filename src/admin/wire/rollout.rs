//! Rollouts, as the admin API shows and hears them.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::model::{Counts, Share};

/// What is asked of a rollout.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RolloutChange {
    /// What to do.
    pub action: RolloutAction,
    /// With `promote`: to the last step, instead of the next.
    #[serde(default)]
    pub full: bool,
    /// Why, for the history; at most 500 characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(max_length = 500)]
    pub reason: Option<String>,
}

/// What to do with a rollout.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub enum RolloutAction {
    /// To begin at the first step.
    Start,
    /// To stay at this weight; a bad verdict still takes it back.
    Pause,
    /// To go on at the weight of its step.
    Resume,
    /// To end the step now.
    Promote,
    /// To end it, with nothing for the canary.
    Abort,
}

/// A route's last rollout.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct RolloutStatus {
    /// The version that is rolled out.
    pub version: String,
    /// `running`, `paused`, `succeeded`, `rolled-back` or `aborted`.
    pub phase: String,
    /// Why it is where it is, or what it waits for.
    pub reason: String,
    /// Its step, from 1.
    pub step: usize,
    /// All its steps.
    pub steps: Vec<RolloutStepStatus>,
    /// How long its step has been judged, in seconds.
    pub held_seconds: f64,
    /// When it began (RFC 3339).
    pub started: String,
    /// When it last came to another step or phase (RFC 3339).
    pub changed: String,
    /// What speaks for and against the version.
    pub evidence: RolloutEvidence,
}

/// A step of a rollout.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct RolloutStepStatus {
    /// The version's weight, in percent.
    #[schema(value_type = f64, minimum = 0, maximum = 100)]
    pub weight: Share,
    /// How long it is judged at this weight, at least, in seconds.
    pub hold_seconds: f64,
    /// Whether it waits for a `promote` at its end.
    pub pause: bool,
}

/// What was seen of first attempts, and how strongly it speaks against the version.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct RolloutEvidence {
    /// Of the version, since the rollout began.
    pub canary: AttemptCounts,
    /// Of stable, since the rollout began.
    pub stable: AttemptCounts,
    /// Requests of the version since its step began.
    pub step_requests: u64,
    /// How many it needs in each step.
    pub min_requests: u64,
    /// The decimal logarithm of the e-value of failures: the version fails beyond `log10Threshold`.
    pub log10_errors: f64,
    /// The same of slow answers; null where those are not judged.
    #[schema(required = true)]
    pub log10_slowness: Option<f64>,
    /// Where it fails.
    pub log10_threshold: f64,
}

/// First attempts.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct AttemptCounts {
    /// All of them.
    pub requests: u64,
    /// Those that failed: 5xx, a reset, a timeout.
    pub errors: u64,
    /// Those that were slow.
    pub slow: u64,
}

impl From<Counts> for AttemptCounts {
    fn from(Counts { requests, errors, slow }: Counts) -> Self {
        Self { requests, errors, slow }
    }
}
