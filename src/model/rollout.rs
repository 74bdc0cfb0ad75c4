//! A rollout as a route asks for it: its steps, the guard that judges, and what follows from a verdict.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Share, VersionName};

/// A rollout as a route asks for it.
#[derive(Clone, Debug, PartialEq)]
pub struct RolloutSpec {
    /// The version that is rolled out.
    pub canary: VersionName,
    /// Its steps, in order; at least one, and their weights grow.
    pub steps: Vec<RolloutStep>,
    /// What judges.
    pub guard: Guard,
    /// What a failed verdict does.
    pub on_fail: OnFail,
    /// Whether it starts by itself when the canary's pods first become ready.
    pub auto: bool,
    /// How long connections to an aborted canary may go on (semantics §5.6).
    pub abort_deadline: Duration,
    /// Who is told, and who is asked.
    pub hooks: Vec<Hook>,
}

/// A step of a rollout.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RolloutStep {
    /// The canary's weight.
    pub weight: Share,
    /// How long it is judged at this weight, at least.
    pub hold: Duration,
    /// Whether it waits for a `promote` at its end.
    pub pause: bool,
}

/// What judges a canary (semantics §5).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Guard {
    /// The chance, over the whole rollout, that a canary that is no worse is rolled back: more than 0, less than 1.
    pub alpha: f64,
    /// How much more of its requests a canary may fail than stable does.
    pub error_margin: Share,
    /// Judges slow answers too.
    pub latency: Option<LatencyGuard>,
    /// How many requests the canary must have had in a step before the next.
    pub min_requests: u64,
    /// The canary fails, whatever stable does, when it fails more than that.
    pub limit: Option<ErrorLimit>,
}

impl Default for Guard {
    fn default() -> Self {
        Self { alpha: 0.001, error_margin: Share::ZERO, latency: None, min_requests: 100, limit: None }
    }
}

/// What judges how fast a canary is: the part of its answers that are slow, compared with stable's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LatencyGuard {
    /// An answer is slow when its head takes longer.
    pub limit: Duration,
    /// How much more of its answers may be slow than stable's.
    pub margin: Share,
}

/// How much a canary may fail, whatever stable does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ErrorLimit {
    /// Of its first attempts, in this step.
    pub rate: Share,
    /// Once it has had so many.
    pub requests: u64,
}

/// What a failed verdict does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnFail {
    /// The canary gets nothing any more, at once.
    #[default]
    Rollback,
    /// The rollout stays where it is until somebody decides.
    Pause,
}

/// A webhook: it is told what a rollout does, or asked whether a step may begin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hook {
    /// Where it is sent, with POST.
    pub url: String,
    /// What for.
    pub on: Vec<HookEvent>,
    /// How long an answer may take.
    pub timeout: Duration,
    /// How often it is tried again.
    pub retries: u8,
}

impl Hook {
    /// Which one it is, for people: scheme, host and port. The rest of a URL may be a secret.
    #[must_use]
    pub fn shown(&self) -> &str {
        let host = self.url.find("://").map_or(0, |at| at + 3);
        let end = self.url.get(host..).and_then(|rest| rest.find(['/', '?'])).map(|end| host + end);
        end.and_then(|end| self.url.get(..end)).unwrap_or(&self.url)
    }
}

/// What a webhook is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum HookEvent {
    /// A step may begin once it answers 2xx.
    Gate,
    /// A step began.
    Step,
    /// The last step ended well.
    Promoted,
    /// The canary was taken back.
    RolledBack,
}

impl HookEvent {
    /// The word for it, in configs, in metrics and in what is sent.
    #[must_use]
    pub fn token(self) -> &'static str {
        match self {
            HookEvent::Gate => "gate",
            HookEvent::Step => "step",
            HookEvent::Promoted => "promoted",
            HookEvent::RolledBack => "rolledBack",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_be_secret_of_a_hook_is_not_shown() {
        let shown = |url: &str| {
            let hook = Hook { url: url.to_owned(), on: Vec::new(), timeout: Duration::ZERO, retries: 0 };
            hook.shown().to_owned()
        };
        assert_eq!(
            shown("https://hooks.example.com:8443/T0/secret?token=x"),
            "https://hooks.example.com:8443"
        );
        assert_eq!(shown("http://a?b"), "http://a");
        assert_eq!(shown("http://[::1]:1"), "http://[::1]:1");
    }
}
