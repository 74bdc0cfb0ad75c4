//! What this process did to a route, for those who look at its Service: put into words and handed on, without waiting.

use std::sync::Arc;

use tokio::sync::mpsc;

use crate::model::{Deed, RouteName, ServiceEvent, Timestamp};
use crate::rollout::{PausedBy, Phase, Rollout};
use crate::state::Desired;
use crate::telemetry::{RolloutNews, Telemetry};

/// Hands on what was done to routes, where anybody takes it.
#[derive(Debug)]
pub(super) struct ServiceEvents {
    to: Option<mpsc::Sender<ServiceEvent>>,
    telemetry: Arc<Telemetry>,
}

impl ServiceEvents {
    pub(super) fn new(to: Option<mpsc::Sender<ServiceEvent>>, telemetry: Arc<Telemetry>) -> Self {
        Self { to, telemetry }
    }

    /// A rollout came to another step or phase; `before` is what was shown of it.
    pub(super) fn rollout_moved(
        &self,
        before: Option<&Rollout>,
        now: &Rollout,
        news: &RolloutNews,
        desired: &Desired,
        at: Timestamp,
    ) {
        let RolloutNews { route, version, step, steps, weight, reason, revision, .. } = news;
        self.tell(desired, route, deed(before, now), at, || {
            format!(
                "route {route}: {version} at {weight} %, step {step} of {steps}, revision {revision}: {reason}"
            )
        });
    }

    /// Somebody set a route's weights: its last revision.
    pub(super) fn weights_set(&self, route: &RouteName, desired: &Desired) {
        let Some(last) = desired.weights(route).and_then(|weights| weights.history().next_back()) else {
            return;
        };
        self.tell(desired, route, Deed::WeightsChanged, last.time, || {
            let split = last.after.iter().map(|(version, share)| format!("{version} at {share} %"));
            let split = split.collect::<Vec<_>>().join(", ");
            let who = last.who.as_ref().map(|who| format!(" ({who})")).unwrap_or_default();
            let why = last.reason.as_ref().map(|why| format!(": {why}")).unwrap_or_default();
            format!("route {route}: {split}, revision {}, by {}{who}{why}", last.revision, last.source)
        });
    }

    fn tell(
        &self,
        desired: &Desired,
        route: &RouteName,
        deed: Deed,
        time: Timestamp,
        note: impl FnOnce() -> String,
    ) {
        let Some(to) = &self.to else { return };
        let Some(spec) = desired.routes().iter().find(|spec| spec.name == *route) else { return };
        let service = spec.backend.service.clone();
        let uid = desired.cluster().uid(&service);
        let event = ServiceEvent { service, uid, route: route.clone(), deed, note: note(), time };
        if let Err(error) = to.try_send(event) {
            self.telemetry.service_event_dropped(&error.into_inner());
        }
    }
}

/// What was done to bring a rollout here.
fn deed(before: Option<&Rollout>, now: &Rollout) -> Deed {
    match now.phase {
        Phase::Paused(by) => Deed::RolloutPaused { by_verdict: by == PausedBy::Verdict },
        Phase::Succeeded => Deed::RolloutSucceeded,
        Phase::RolledBack => Deed::RolloutRolledBack,
        Phase::Aborted => Deed::RolloutAborted,
        Phase::Running => match before.filter(|before| before.started == now.started) {
            Some(before) if before.step == now.step => Deed::RolloutResumed,
            None if now.step == 0 => Deed::RolloutStarted,
            _ => Deed::RolloutStep,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rollout(started: u64, step: usize, phase: Phase) -> Rollout {
        Rollout {
            version: "v2".parse().unwrap(),
            phase,
            step,
            held_ms: 0,
            attempt: 0,
            started: Timestamp::from_millis(started),
            changed: Timestamp::from_millis(started),
            reason: String::new(),
            judge: Default::default(),
        }
    }

    #[test]
    fn each_move_has_its_word() {
        use Deed::*;
        use Phase::*;
        let told = |before: Option<(u64, usize, Phase)>, now: (u64, usize, Phase)| {
            let before = before.map(|(started, step, phase)| rollout(started, step, phase));
            deed(before.as_ref(), &rollout(now.0, now.1, now.2))
        };
        let paused = Paused(PausedBy::Somebody);
        assert_eq!(told(None, (1, 0, Running)), RolloutStarted);
        assert_eq!(told(Some((1, 2, Aborted)), (2, 0, Running)), RolloutStarted);
        assert_eq!(told(Some((1, 0, Running)), (1, 1, Running)), RolloutStep);
        assert_eq!(told(Some((1, 0, Paused(PausedBy::Step))), (1, 1, Running)), RolloutStep);
        // Its config has come back.
        assert_eq!(told(None, (1, 1, Running)), RolloutStep);
        assert_eq!(told(Some((1, 1, Running)), (1, 1, paused)), RolloutPaused { by_verdict: false });
        assert_eq!(told(Some((1, 1, paused)), (1, 1, Running)), RolloutResumed);
        let verdict = told(Some((1, 1, Running)), (1, 1, Paused(PausedBy::Verdict)));
        assert!(verdict == RolloutPaused { by_verdict: true } && verdict.is_warning());
        let end = |phase| told(Some((1, 1, Running)), (1, 1, phase));
        assert_eq!(
            [Succeeded, RolledBack, Aborted].map(end),
            [RolloutSucceeded, RolloutRolledBack, RolloutAborted]
        );
        assert_eq!(
            [Succeeded, RolledBack, Aborted].map(|phase| end(phase).is_warning()),
            [false, true, false]
        );
    }
}
