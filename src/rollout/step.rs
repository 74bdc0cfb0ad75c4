//! What a rollout does next.

use std::time::Duration;

use crate::model::{OnFail, RolloutSpec, Share, VersionName};

use super::{Findings, PausedBy, Phase, Rollout, Transition, Verdict};

/// How often what was seen is looked at: a canary that is worse costs no more requests than pass in that time.
pub const LOOK: Duration = Duration::from_millis(50);

/// What a rollout must know of the world around it.
#[derive(Clone, Debug)]
pub struct Facts<'a> {
    /// The stable version.
    pub stable: &'a VersionName,
    /// What the judges of all replicas have found.
    pub findings: &'a Findings,
    /// The canary has a pod that takes requests.
    pub ready: bool,
    /// A replica that lives and does not serve the step yet; nothing when all do.
    pub behind: Option<&'a str>,
    /// This replica is the one that takes rollouts forward.
    pub leads: bool,
    /// What is still to be asked before the next step may begin; nothing when that may.
    pub gate: Option<String>,
}

/// What the rollout does next (semantics §5.4, §5.5). Reads no clock: `rollout.held_ms` is how long its step was judged.
#[must_use]
pub fn step(rollout: &Rollout, spec: &RolloutSpec, facts: &Facts<'_>) -> Transition {
    if !rollout.phase.is_active() {
        return Transition::Stay(rollout.reason.clone());
    }
    let verdict = facts.findings.verdict(&spec.guard, &spec.canary, facts.stable);
    if let Verdict::Fail(why) = &verdict {
        match (spec.on_fail, rollout.phase) {
            (OnFail::Rollback, _) => return Transition::RollBack(format!("rolled back: {why}")),
            (OnFail::Pause, Phase::Paused(PausedBy::Verdict)) => {}
            (OnFail::Pause, _) => return Transition::Pause(PausedBy::Verdict, format!("paused: {why}")),
        }
    }
    if rollout.phase != Phase::Running {
        return Transition::Stay(rollout.reason.clone());
    }
    if let Some(waits) = waits(rollout, spec, facts, &verdict) {
        return Transition::Stay(waits);
    }
    let steps = spec.steps.len();
    if spec.steps.get(rollout.step).is_some_and(|step| step.pause) {
        let reason = format!("step {} of {steps} ended well and waits for a promote", rollout.step + 1);
        return Transition::Pause(PausedBy::Step, reason);
    }
    let next = rollout.step + 1;
    match spec.steps.get(next) {
        None => Transition::Succeed(format!("all {steps} steps ended well")),
        Some(_) if facts.gate.is_some() => Transition::Stay(facts.gate.clone().unwrap_or_default()),
        Some(step) => Transition::Step {
            step: next,
            weight: step.weight,
            reason: format!("step {} of {steps}: step {next} ended well", next + 1),
        },
    }
}

/// What the step waits for; nothing when it may end.
fn waits(rollout: &Rollout, spec: &RolloutSpec, facts: &Facts<'_>, verdict: &Verdict) -> Option<String> {
    if !facts.ready {
        return Some(format!("{} has no ready pod", spec.canary));
    }
    if let Some(replica) = facts.behind {
        return Some(format!("replica {replica} does not serve this step yet"));
    }
    let hold = spec.steps.get(rollout.step).map(|step| step.hold).unwrap_or_default();
    if let Some(left) = hold.checked_sub(rollout.held()).filter(|left| !left.is_zero()) {
        let seconds = Duration::from_secs(left.as_secs_f64().ceil() as u64);
        let weight = spec.steps.get(rollout.step).map_or(Share::ZERO, |step| step.weight);
        return Some(format!("at {weight} % for {} more", humantime::format_duration(seconds)));
    }
    if let Verdict::Inconclusive(missing) = verdict {
        return Some(missing.clone());
    }
    (!facts.leads).then(|| "it waits for the replica that takes rollouts forward".to_owned())
}

#[cfg(test)]
#[path = "step_tests.rs"]
mod tests;
