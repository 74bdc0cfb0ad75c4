//! From the table and the tallies to what the API shows of a route.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::control::{RolloutView, RolloutViews};
use crate::model::{PathMatch, PodKey, Problem, Revision, RouteName, Share};
use crate::routing::tally::Snapshot;
use crate::routing::{EndpointState, Member, Route, RoutingTable, Version};
use crate::state::{Difference, Peer, Replicas, RevisionEntry};

use super::mirror::{effective, full, mirror};
use super::recent::{Counts, Recent};
use super::wire::{
    EndpointCounts, EndpointStatus, PathRule, ProblemNote, ReplicaStatus, RevisionStatus, RolloutEvidence,
    RolloutStatus, RolloutStepStatus, RouteStatus, UnassignedEndpoint, VersionStatus,
};

/// How many endpoints of a kind, and routes in which a replica differs, are listed.
const LISTED: usize = 100;

/// What the API shows of the replicas, the one that is asked first.
pub(super) fn replicas(replicas: &Replicas, table: &RoutingTable) -> Vec<ReplicaStatus> {
    let status = |name: &Arc<str>, asked: bool, live: bool| ReplicaStatus {
        name: name.to_string(),
        asked,
        leads: replicas.leader.as_ref() == Some(name),
        live,
        differs: Vec::new(),
        serves: BTreeMap::new(),
        differs_more: false,
    };
    let here = table.routes().iter().map(|route| (route.name(), route.revision)).collect();
    let other = |peer: &Peer| {
        let Difference { routes, more } = peer.differs(&here);
        let listed = || routes.iter().take(LISTED);
        let serves =
            |(name, revision): (&RouteName, &Option<Revision>)| Some((name.to_string(), (*revision)?.0));
        ReplicaStatus {
            differs: listed().map(|(name, _)| name.to_string()).collect(),
            serves: listed().filter_map(serves).collect(),
            differs_more: more || routes.len() > LISTED,
            ..status(&peer.name, false, peer.live)
        }
    };
    std::iter::once(status(&replicas.me, true, true)).chain(replicas.peers.iter().map(other)).collect()
}

/// What the API shows of a route.
pub(super) fn route(route: &Route, recent: &Recent, rollouts: &RolloutViews) -> RouteStatus {
    // Read once, so that the shares sum to a whole while requests go on.
    let requests: Vec<u64> = route.versions.iter().map(Version::requests_of_revision).collect();
    let users: Vec<Option<f64>> = route.versions.iter().map(Version::users_of_revision).collect();
    let total = Total { requests: requests.iter().sum(), users: users.iter().flatten().sum() };
    let counts: Vec<_> = route.versions.iter().map(|version| version.tally.snapshot()).collect();
    let windows: Vec<Counts> =
        route.versions.iter().zip(&counts).map(|(v, now)| recent.of(&v.tally, now)).collect();
    let effective = effective(route, &windows);
    let version = |(place, (v, had)): (usize, (&Version, (u64, Option<f64>)))| {
        let (now, window) = (counts.get(place)?, windows.get(place)?);
        Some(version(v, place == 0, *effective.get(place)?, (had, &total), (now, window)))
    };
    RouteStatus {
        name: route.name().to_string(),
        revision: route.revision.0,
        service: route.spec.backend.service.to_string(),
        hosts: route.spec.hosts.iter().map(ToString::to_string).collect(),
        paths: route.spec.paths.iter().map(path).collect(),
        versions: route
            .versions
            .iter()
            .zip(requests.into_iter().zip(users))
            .enumerate()
            .filter_map(version)
            .collect(),
        unassigned_count: route.unassigned.len(),
        unassigned: route
            .unassigned
            .iter()
            .take(LISTED)
            .map(|u| UnassignedEndpoint {
                address: u.address.to_string(),
                pod: u.pod.as_ref().map(pod),
                labels_pending: u.labels_pending,
            })
            .collect(),
        problems: route.problems.iter().map(problem).chain(full(route, &windows)).collect(),
        rollout_configured: route.spec.rollout.is_some(),
        rollout: rollouts.get(route.name().as_str()).map(|view| rollout(view)),
        mirror: route.mirror.as_ref().map(mirror),
    }
}

/// What the API shows of a rollout.
fn rollout(view: &RolloutView) -> RolloutStatus {
    let RolloutView { spec, rollout, findings } = view;
    let tens = |log: f64| round(log / std::f64::consts::LN_10);
    RolloutStatus {
        version: rollout.version.to_string(),
        phase: rollout.phase.token().to_owned(),
        reason: rollout.reason.clone(),
        step: rollout.step + 1,
        steps: spec
            .steps
            .iter()
            .map(|step| RolloutStepStatus {
                weight: step.weight,
                hold_seconds: step.hold.as_secs_f64(),
                pause: step.pause,
            })
            .collect(),
        held_seconds: rollout.held().as_secs_f64(),
        started: rollout.started.to_string(),
        changed: rollout.changed.to_string(),
        evidence: RolloutEvidence {
            canary: findings.total.canary.into(),
            stable: findings.total.stable.into(),
            step_requests: findings.step.canary.requests,
            min_requests: spec.guard.min_requests,
            log10_errors: tens(findings.log_errors),
            log10_slowness: findings.log_slowness.map(tens),
            log10_threshold: tens(findings.log_threshold),
        },
    }
}

/// What the API shows of a problem.
pub(super) fn problem(problem: &Problem) -> ProblemNote {
    ProblemNote { message: problem.message.clone(), remedy: problem.remedy.clone() }
}

/// What the API shows of a revision.
pub(super) fn revision(entry: RevisionEntry) -> RevisionStatus {
    let weights = |weights: std::collections::BTreeMap<_, _>| {
        weights
            .into_iter()
            .map(|(name, share): (crate::model::VersionName, _)| (name.into(), share))
            .collect()
    };
    RevisionStatus {
        revision: entry.revision.0,
        time: entry.time.to_string(),
        source: entry.source.to_string(),
        who: entry.who,
        before: weights(entry.before),
        after: weights(entry.after),
        reason: entry.reason,
    }
}

/// What a route had under the revision in force.
struct Total {
    requests: u64,
    users: f64,
}

/// What the API shows of a version that gets this share, and had so many requests, and users where the route has a cohort, of
/// those of the route.
fn version(
    version: &Version,
    stable: bool,
    effective: Share,
    ((requests, users), total): ((u64, Option<f64>), &Total),
    (now, window): (&Snapshot, &Counts),
) -> VersionStatus {
    let percent = |part: f64, of: f64| (of > 0.0).then(|| round(100.0 * part / of));
    let millis = |part| window.quantile(part).map(|time| round(time.as_secs_f64() * 1000.0));
    VersionStatus {
        name: version.name.to_string(),
        stable,
        weight: version.asked,
        effective_weight: effective,
        measured_share: percent(requests as f64, total.requests as f64),
        requests,
        users: users.map(|users| users.round() as u64),
        measured_user_share: users.and_then(|users| percent(users, total.users)),
        error_rate: window.error_percent().map(round),
        p50_ms: millis(0.5),
        p99_ms: millis(0.99),
        active_requests: now.active,
        shielded: now.shielded,
        diverted: now.diverted,
        endpoints: endpoints(&version.members),
    }
}

fn endpoints(members: &[Member]) -> EndpointCounts {
    let count = |state| members.iter().filter(|m| m.state() == state).count();
    let listed = members.iter().take(LISTED).map(|m| EndpointStatus {
        address: m.endpoint.id.address.to_string(),
        pod: m.endpoint.pod.as_ref().map(pod),
        phase: m.phase.into(),
        in_flight: m.endpoint.in_flight(),
        refused: m.endpoint.is_refused(),
        ejected: m.standing.is_ejected(),
        unhealthy: m.standing.is_unhealthy(),
    });
    EndpointCounts {
        ready: count(EndpointState::Ready),
        draining: count(EndpointState::Draining),
        unready: count(EndpointState::Unready),
        refused: count(EndpointState::Refused),
        ejected: count(EndpointState::Ejected),
        unhealthy: count(EndpointState::Unhealthy),
        addresses: listed.collect(),
    }
}

fn path(path: &PathMatch) -> PathRule {
    // Printed as `prefix /x`, `exact /x` or `regex x`.
    let text = path.to_string();
    let text = text.split_once(' ').map_or(text.as_str(), |(_, text)| text).to_owned();
    match path {
        PathMatch::Prefix(_) => PathRule::Prefix(text),
        PathMatch::Exact(_) => PathRule::Exact(text),
        PathMatch::Regex(_) => PathRule::Regex(text),
    }
}

fn pod(pod: &PodKey) -> String {
    format!("{}/{}", pod.namespace, pod.name)
}

/// To four decimals: as fine as a share can be asked for.
pub(super) fn round(number: f64) -> f64 {
    (number * 10_000.0).round() / 10_000.0
}
