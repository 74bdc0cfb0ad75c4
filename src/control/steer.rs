//! Takes rollouts forward and back: what was seen of their requests goes to their judges, and what follows is done.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::model::{RolloutSpec, RouteName, Share, Sides, Timestamp};
use crate::rollout::{Facts, Findings, LOOK, Phase, Rollout, Transition, step};
use crate::routing::{Evidence, Route, RoutingTable};
use crate::state::{Desired, Touched};

/// How often evidence is saved while a rollout is under way.
const SAVE: Duration = Duration::from_secs(1);

/// A route's last rollout, as it is shown.
#[derive(Clone, Debug)]
pub struct RolloutView {
    /// As it is asked for.
    pub spec: Arc<RolloutSpec>,
    /// How far it has come.
    pub rollout: Rollout,
    /// What its judge has found.
    pub findings: Findings,
}

/// Every route's last rollout.
pub type RolloutViews = HashMap<RouteName, Arc<RolloutView>>;

/// What steering remembers from one look to the next.
#[derive(Debug, Default)]
pub(super) struct Steering {
    seen: HashMap<RouteName, Seen>,
    last: Option<Instant>,
    saved: Option<Instant>,
}

/// What of a route's evidence was taken in.
#[derive(Debug)]
struct Seen {
    evidence: Arc<Evidence>,
    counts: Sides,
}

/// What a look brought about.
#[derive(Debug, Default)]
pub(super) struct Looked {
    /// What is to be compiled anew.
    pub(super) touched: Touched,
    /// The routes whose rollout made a transition.
    pub(super) moved: Vec<RouteName>,
    /// It is time to save the evidence.
    pub(super) save: bool,
}

impl Steering {
    /// When the next look is due.
    pub(super) fn due(&self) -> Instant {
        self.last.map_or_else(Instant::now, |last| last + LOOK)
    }

    /// Looks at every rollout under way.
    pub(super) fn look(
        &mut self,
        desired: &mut Desired,
        table: &RoutingTable,
        now: Instant,
        at: Timestamp,
    ) -> Looked {
        let elapsed = self.last.replace(now).map_or(Duration::ZERO, |last| now.saturating_duration_since(last));
        let mut looked = Looked::default();
        for name in desired.under_way() {
            let Some(route) = table.route(name.as_str()) else { continue };
            let (Some(evidence), Some(spec)) = (&route.evidence, &route.spec.rollout) else { continue };
            let (counts, share) = (self.news(route.name(), evidence), canary_share(route, evidence));
            let Some(rollout) = desired.judged(route.name()) else { continue };
            rollout.judge.take(&spec.guard, counts, share.ratio(), evidence.take());
            let ready = has_pods(route, evidence);
            if rollout.phase == Phase::Running && ready {
                let millis = u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX);
                rollout.held_ms = rollout.held_ms.saturating_add(millis);
            }
            let transition = next(rollout, spec, route, ready);
            if let Transition::Stay(_) = &transition {
                rollout.become_of(&transition, at);
            } else {
                looked.touched.merge(desired.go_on(route.name(), &transition, at));
                looked.moved.push(route.name().clone());
            }
        }
        self.seen.retain(|name, _| desired.is_under_way(name));
        if !desired.has_rollouts() {
            (self.last, self.saved) = (None, None);
        } else if self.saved.is_none_or(|saved| now.saturating_duration_since(saved) >= SAVE) {
            self.saved = Some(now);
            looked.save = true;
        }
        looked
    }

    /// What was counted since the last look.
    fn news(&mut self, route: &RouteName, evidence: &Arc<Evidence>) -> Sides {
        let counts = evidence.counts();
        let before = self.seen.insert(route.clone(), Seen { evidence: Arc::clone(evidence), counts });
        match before {
            Some(before) if Arc::ptr_eq(&before.evidence, evidence) => counts.since(before.counts),
            _ => counts,
        }
    }
}

/// The share of the requests that the canary gets now.
fn canary_share(route: &Route, evidence: &Evidence) -> Share {
    route.versions.get(evidence.canary()).map_or(Share::ZERO, |version| version.effective)
}

fn has_pods(route: &Route, evidence: &Evidence) -> bool {
    route.versions.get(evidence.canary()).is_some_and(|version| !version.candidates().is_empty())
}

fn next(rollout: &Rollout, spec: &RolloutSpec, route: &Route, ready: bool) -> Transition {
    let Some(stable) = route.versions.first() else { return Transition::Stay(String::new()) };
    let findings = rollout.judge.findings(&spec.guard, []);
    let facts =
        Facts { stable: &stable.name, findings: &findings, ready, live: true, leads: true, gate: None };
    step(rollout, spec, &facts)
}

/// Every route's last rollout, as it is shown.
pub(super) fn views(desired: &Desired) -> RolloutViews {
    let view = |route: &Arc<crate::model::RouteSpec>| {
        let spec = route.rollout.as_ref()?;
        let rollout = desired.weights(&route.name)?.rollout()?;
        let findings = rollout.judge.findings(&spec.guard, []);
        let view = RolloutView { spec: Arc::new(spec.clone()), rollout: rollout.clone(), findings };
        Some((route.name.clone(), Arc::new(view)))
    };
    desired.routes().iter().filter_map(view).collect()
}
