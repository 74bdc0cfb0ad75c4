//! What has changed since the last table: for those who listen, for the webhooks of rollouts, for the Events on Services.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use crate::hooks::{Hooks, Note};
use crate::model::{EndpointPhase, HookEvent, RouteName, Share, Timestamp, VersionName};
use crate::rollout::{Phase, Rollout};
use crate::routing::{Route, RoutingTable};
use crate::state::Desired;
use crate::telemetry::{RolloutNews, Telemetry};

use super::service_events::ServiceEvents;
use super::steer::{RolloutView, RolloutViews};

/// Tells of the rollouts that came to another step or phase: by log and events; and those outside, where it is this process that
/// `did` it.
pub(super) fn tell_of_rollouts(
    before: &RolloutViews,
    now: &RolloutViews,
    desired: &Desired,
    telemetry: &Telemetry,
    outside: Outside<'_>,
    did: impl Fn(&RouteName) -> bool,
    at: Timestamp,
) {
    for (route, view) in now.iter() {
        let known = before.get(route.as_str());
        if known.is_some_and(|known| Arc::ptr_eq(known, view) || place(known) == place(view)) {
            continue;
        }
        // One that has ended before it is first shown is an old one, whose route or config has come back.
        if known.is_none() && !view.rollout.phase.is_active() {
            continue;
        }
        let Some(weights) = desired.weights(route) else { continue };
        let RolloutView { spec, rollout, .. } = view.as_ref();
        let has = weights.split().iter().find(|(name, _)| *name == rollout.version);
        let news = RolloutNews {
            route: route.clone(),
            version: rollout.version.clone(),
            phase: rollout.phase.token(),
            step: rollout.step + 1,
            steps: spec.steps.len(),
            weight: has.map_or(Share::ZERO, |(_, share)| *share),
            reason: rollout.reason.clone(),
            revision: weights.revision(),
        };
        if did(route) {
            outside.tell(known.map(|known| &known.rollout), view, &news, desired, at);
        }
        telemetry.rollout_moved(news);
    }
}

/// Those outside, who are told once of what this process brought about.
#[derive(Clone, Copy)]
pub(super) struct Outside<'a> {
    /// The webhooks of rollouts.
    pub(super) hooks: &'a Hooks,
    /// The Events on Services.
    pub(super) events: &'a ServiceEvents,
}

impl Outside<'_> {
    fn tell(
        self,
        before: Option<&Rollout>,
        view: &RolloutView,
        news: &RolloutNews,
        desired: &Desired,
        at: Timestamp,
    ) {
        let RolloutView { spec, rollout, .. } = view;
        let another_step =
            before.is_none_or(|before| (before.started, before.step) != (rollout.started, rollout.step));
        let event = match rollout.phase {
            Phase::Running | Phase::Paused(_) => another_step.then_some(HookEvent::Step),
            Phase::Succeeded => Some(HookEvent::Promoted),
            Phase::RolledBack | Phase::Aborted => Some(HookEvent::RolledBack),
        };
        if let Some(event) = event {
            self.hooks.tell(&spec.hooks, note(event, news, at));
        }
        self.events.rollout_moved(before, rollout, news, desired, at);
    }
}

/// What makes a rollout's place another one.
fn place(view: &RolloutView) -> (Timestamp, usize, Phase) {
    (view.rollout.started, view.rollout.step, view.rollout.phase)
}

/// What a hook is sent.
fn note(event: HookEvent, news: &RolloutNews, at: Timestamp) -> Note {
    Note {
        event,
        route: news.route.clone(),
        version: news.version.clone(),
        step: news.step,
        weight: news.weight,
        phase: news.phase,
        reason: news.reason.clone(),
        revision: news.revision,
        time: at,
    }
}

/// Tells those who listen of the pods that came, went or changed.
pub(super) fn tell_of_endpoints(before: &RoutingTable, now: &RoutingTable, telemetry: &Telemetry) {
    if !telemetry.has_listeners() {
        return;
    }
    for route in now.routes() {
        let known = before.route(route.name().as_str());
        if known.is_some_and(|known| Arc::ptr_eq(known, route)) {
            continue;
        }
        let was = known.map(|known| phases(known)).unwrap_or_default();
        let is = phases(route);
        for ((version, address), phase) in &is {
            if was.get(&(*version, *address)) != Some(phase) {
                telemetry.endpoint_changed(route.name(), version, *address, Some(*phase));
            }
        }
        for (version, address) in was.keys().filter(|key| !is.contains_key(*key)) {
            telemetry.endpoint_changed(route.name(), version, *address, None);
        }
    }
}

fn phases(route: &Route) -> BTreeMap<(&VersionName, SocketAddr), EndpointPhase> {
    let members = route.versions.iter().flat_map(|v| v.members.iter().map(move |member| (&v.name, member)));
    members.map(|(version, member)| ((version, member.endpoint.id.address), member.phase)).collect()
}
