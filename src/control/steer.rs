//! Takes rollouts forward and back: what was seen of their requests goes to their judges, and what follows is done.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::hooks::{Hooks, Note};
use crate::model::{HookEvent, RolloutSpec, RouteName, RouteSpec, Share, Sides, Timestamp};
use crate::rollout::{Facts, Findings, LOOK, Phase, Rollout, Transition, step};
use crate::routing::{Evidence, Route, RoutingTable};
use crate::state::{Desired, Touched};

use super::gates::Gates;

/// The longest time between two looks that counts as judged: a process that stood still has judged nothing meanwhile.
const LONGEST_LOOK: Duration = Duration::from_secs(1);
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
    gates: Gates,
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
        hooks: &Hooks,
        now: Instant,
        at: Timestamp,
    ) -> Looked {
        let elapsed = self.last.map_or(Duration::ZERO, |last| now.saturating_duration_since(last));
        let millis = u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX);
        // What is less than a millisecond counts the next time.
        self.last = now.checked_sub(elapsed.saturating_sub(Duration::from_millis(millis))).or(Some(now));
        let millis = millis.min(u64::try_from(LONGEST_LOOK.as_millis()).unwrap_or(u64::MAX));
        let mut looked = Looked::default();
        for name in desired.under_way() {
            let Some(route) = table.route(name.as_str()) else { continue };
            let (Some(evidence), Some(spec)) = (&route.evidence, &route.spec.rollout) else { continue };
            let (counts, share) = (self.news(route.name(), evidence), canary_share(route, evidence));
            let Some(rollout) = desired.judged(route.name()) else { continue };
            rollout.judge.take(&spec.guard, counts, share.ratio(), evidence.take());
            let ready = has_pods(route, evidence);
            if rollout.phase == Phase::Running && ready {
                rollout.held_ms = rollout.held_ms.saturating_add(millis);
            }
            let mut transition = next(rollout, spec, route, ready, None);
            if let Transition::Step { step, weight, .. } = &transition {
                let of = (rollout.started, *step);
                let gate =
                    self.gates.hindrance(hooks, spec, gate_note(rollout, route, *step, *weight, at), of, now);
                if gate.is_some() {
                    transition = next(rollout, spec, route, ready, gate);
                }
            }
            if let Transition::Stay(_) = &transition {
                rollout.become_of(&transition, at);
            } else {
                looked.touched.merge(desired.go_on(route.name(), &transition, at));
                looked.moved.push(route.name().clone());
            }
        }
        self.seen.retain(|name, _| desired.is_under_way(name));
        self.gates.retain(|name| desired.is_under_way(name));
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

fn next(
    rollout: &Rollout,
    spec: &RolloutSpec,
    route: &Route,
    ready: bool,
    gate: Option<String>,
) -> Transition {
    let Some(stable) = route.versions.first() else { return Transition::Stay(String::new()) };
    let findings = rollout.judge.findings(&spec.guard, []);
    let facts = Facts { stable: &stable.name, findings: &findings, ready, live: true, leads: true, gate };
    step(rollout, spec, &facts)
}

/// What a gate is asked: whether this step may begin.
fn gate_note(rollout: &Rollout, route: &Route, step: usize, weight: Share, at: Timestamp) -> Note {
    Note {
        event: HookEvent::Gate,
        route: route.name().clone(),
        version: rollout.version.clone(),
        step: step + 1,
        weight,
        phase: rollout.phase.token(),
        reason: format!("step {} ended well, and step {} is to begin", rollout.step + 1, step + 1),
        revision: route.revision,
        time: at,
    }
}

/// Every route's last rollout, as it is shown; those that are as before are the same objects.
pub(super) fn views(desired: &Desired, before: &RolloutViews) -> RolloutViews {
    let view = |route: &Arc<RouteSpec>| {
        let rollout = desired.weights(&route.name)?.rollout()?;
        let known = before.get(&route.name);
        let spec = match (&route.rollout, known) {
            (Some(spec), Some(known)) if *known.spec == *spec => Arc::clone(&known.spec),
            (Some(spec), _) => Arc::new(spec.clone()),
            // It left the config, and those who follow it are to see how it ended.
            (None, known) => Arc::clone(&known?.spec),
        };
        if let Some(known) =
            known.filter(|known| Arc::ptr_eq(&known.spec, &spec) && known.rollout == *rollout)
        {
            return Some((route.name.clone(), Arc::clone(known)));
        }
        let findings = rollout.judge.findings(&spec.guard, []);
        Some((route.name.clone(), Arc::new(RolloutView { spec, rollout: rollout.clone(), findings })))
    };
    desired.routes().iter().filter_map(view).collect()
}
