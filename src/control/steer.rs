//! Takes rollouts forward and back: what was seen of their requests goes to their judges, and what follows is done.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::hooks::{Hooks, Note};
use crate::model::{HookEvent, RolloutSpec, RouteName, RouteSpec, Share, Sides, Timestamp};
use crate::rollout::{Facts, Findings, Judge, LOOK, Phase, Rollout, Transition, step};
use crate::routing::{Evidence, Route, RoutingTable};
use crate::state::{Desired, Proposal, Replicas, Standing, Standings};

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

/// Every route's last rollout. Those that have ended are apart: there may be one of each route, and they change only when weights do.
#[derive(Clone, Debug, Default)]
pub struct RolloutViews {
    under_way: HashMap<RouteName, Arc<RolloutView>>,
    ended: Arc<HashMap<RouteName, Arc<RolloutView>>>,
}

impl RolloutViews {
    /// A route's last rollout.
    #[must_use]
    pub fn get(&self, route: &str) -> Option<&Arc<RolloutView>> {
        self.under_way.get(route).or_else(|| self.ended.get(route))
    }

    /// Each route that has one, in no order.
    pub fn iter(&self) -> impl Iterator<Item = (&RouteName, &Arc<RolloutView>)> {
        self.under_way.iter().chain(self.ended.iter())
    }
}

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
    /// What the rollouts are to do.
    pub(super) decided: Vec<(RouteName, Proposal)>,
    /// It is time to save the evidence.
    pub(super) save: bool,
}

impl Steering {
    /// When the next look is due.
    pub(super) fn due(&self) -> Instant {
        self.last.map_or_else(Instant::now, |last| last + LOOK)
    }

    /// Looks at every rollout under way, with what the other replicas say of it, where there are some.
    pub(super) fn look(
        &mut self,
        desired: &mut Desired,
        table: &RoutingTable,
        hooks: &Hooks,
        replicas: Option<&Replicas>,
        (now, at): (Instant, Timestamp),
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
            let others = Others::of(rollout, route, replicas, now);
            let ready = has_pods(route, evidence);
            if rollout.phase == Phase::Running && ready && others.behind.is_none() {
                rollout.held_ms = rollout.held_ms.saturating_add(millis);
            }
            rollout.held_ms = rollout.held_ms.max(others.held_ms);
            let mut transition = next(rollout, spec, route, ready, &others, None);
            if let Transition::Step { step, weight, .. } = &transition {
                let of = (rollout.started, *step);
                let gate =
                    self.gates.hindrance(hooks, spec, gate_note(rollout, route, *step, *weight, at), of, now);
                if gate.is_some() {
                    transition = next(rollout, spec, route, ready, &others, gate);
                }
            }
            if let Transition::Stay(_) = &transition {
                rollout.become_of(&transition, at);
            } else {
                let proposal = Proposal::GoOn(rollout.place(), transition);
                looked.decided.push((route.name().clone(), proposal));
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

/// What the other replicas say of a rollout.
struct Others {
    judges: Vec<Judge>,
    /// One that lives and does not serve its step yet.
    behind: Option<Arc<str>>,
    /// How long one of them has judged the step.
    held_ms: u64,
    /// This one takes the rollout forward.
    leads: bool,
}

impl Others {
    fn of(rollout: &Rollout, route: &Route, replicas: Option<&Replicas>, now: Instant) -> Self {
        let Some(replicas) = replicas else {
            return Self { judges: Vec::new(), behind: None, held_ms: 0, leads: true };
        };
        let (name, place) = (route.name(), rollout.place());
        let in_step = replicas.of(name, place).filter(|theirs| theirs.step == place.step);
        Self {
            judges: judges(rollout, name, replicas),
            behind: replicas.behind(name, place, route.revision).cloned(),
            held_ms: in_step.map(|theirs| theirs.held_ms).max().unwrap_or_default(),
            leads: replicas.leads(now),
        }
    }
}

/// What the other replicas have seen of a rollout; of another step only what counts for the whole of it.
fn judges(rollout: &Rollout, route: &RouteName, replicas: &Replicas) -> Vec<Judge> {
    let place = rollout.place();
    let judge = |theirs: &Standing| {
        let mut judge = theirs.judge.clone();
        if theirs.step != place.step {
            judge.begin_step();
        }
        judge
    };
    replicas.of(route, place).map(judge).collect()
}

/// What this replica says of the rollouts under way.
pub(super) fn standings(desired: &Desired, table: &RoutingTable) -> Standings {
    let standing = |name: RouteName| {
        let rollout = desired.weights(&name)?.rollout()?;
        // One that is not compiled yet is not served.
        let revision = table.route(name.as_str())?.revision;
        let place = rollout.place();
        let standing = Standing {
            revision,
            started: place.started,
            attempt: place.attempt,
            step: place.step,
            held_ms: rollout.held_ms,
            judge: rollout.judge.clone(),
        };
        Some((name, standing))
    };
    desired.under_way().into_iter().filter_map(standing).collect()
}

fn next(
    rollout: &Rollout,
    spec: &RolloutSpec,
    route: &Route,
    ready: bool,
    others: &Others,
    gate: Option<String>,
) -> Transition {
    let Some(stable) = route.versions.first() else { return Transition::Stay(String::new()) };
    let findings = rollout.judge.findings(&spec.guard, &others.judges);
    let (behind, leads) = (others.behind.as_deref(), others.leads);
    step(rollout, spec, &Facts { stable: &stable.name, findings: &findings, ready, behind, leads, gate })
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
pub(super) fn views(desired: &Desired, before: &RolloutViews, replicas: Option<&Replicas>) -> RolloutViews {
    let view = |route: &Arc<RouteSpec>| {
        let rollout = desired.weights(&route.name)?.rollout()?;
        let known = before.get(route.name.as_str());
        let spec = match (&route.rollout, known) {
            (Some(spec), Some(known)) if *known.spec == *spec => Arc::clone(&known.spec),
            (Some(spec), _) => Arc::new(spec.clone()),
            // It left the config, and those who follow it are to see how it ended.
            (None, known) => Arc::clone(&known?.spec),
        };
        Some((route.name.clone(), view(&route.name, rollout, spec, known, replicas)))
    };
    let all = desired.routes().iter().filter_map(view);
    let (under_way, ended) =
        all.partition(|(_, view): &(_, Arc<RolloutView>)| view.rollout.phase.is_active());
    RolloutViews { under_way, ended: Arc::new(ended) }
}

/// The same, where nothing but what was seen of those under way has changed.
pub(super) fn views_under_way(
    desired: &Desired,
    before: &RolloutViews,
    replicas: Option<&Replicas>,
) -> RolloutViews {
    let view = |(name, known): (&RouteName, &Arc<RolloutView>)| {
        let rollout = desired.weights(name)?.rollout()?;
        Some((name.clone(), view(name, rollout, Arc::clone(&known.spec), Some(known), replicas)))
    };
    let under_way = before.under_way.iter().filter_map(view).collect();
    RolloutViews { under_way, ended: Arc::clone(&before.ended) }
}

fn view(
    route: &RouteName,
    rollout: &Rollout,
    spec: Arc<RolloutSpec>,
    known: Option<&Arc<RolloutView>>,
    replicas: Option<&Replicas>,
) -> Arc<RolloutView> {
    let same = known.filter(|known| Arc::ptr_eq(&known.spec, &spec) && known.rollout == *rollout);
    if let Some(known) = same.filter(|_| replicas.is_none() || !rollout.phase.is_active()) {
        return Arc::clone(known);
    }
    let theirs = replicas.map(|replicas| judges(rollout, route, replicas)).unwrap_or_default();
    let findings = rollout.judge.findings(&spec.guard, &theirs);
    match same.filter(|known| known.findings == findings) {
        Some(known) => Arc::clone(known),
        None => Arc::new(RolloutView { spec, rollout: rollout.clone(), findings }),
    }
}
