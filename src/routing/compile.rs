//! From what should be true to a routing table.
//!
//! Compiling cannot fail: a route that is wrong costs only itself, and says so in its problems. What must outlive a table
//! is carried here by identity. Only the routes that a change touched are compiled anew.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use crate::model::{
    BackendRef, Generation, HostMatch, Moment, OnEmpty, Problem, RouteName, RouteSpec, ServiceKey, Share,
    UpstreamTls, VersionSpec,
};
use crate::state::{Desired, Resolved, ResolvedEndpoint, RouteWeights, Touched};

use super::ailing::{empty_versions, nothing_better, panicking};
use super::audience::{CompiledAudience, Situation};
use super::balance::Balancer;
use super::carry::{CarriedRoute, Endpoints, Manner, Unused};
use super::matcher::Matcher;
use super::slow_start::SlowStart;
use super::split::Split;
use super::table::{Member, Origin, Route, RoutingTable, Unassigned, Version};
use super::usable::{Usable, usable};

/// Compiles routing tables, each from the one before.
#[derive(Debug, Default)]
pub struct Compiler {
    table: RoutingTable,
    by_service: HashMap<ServiceKey, Vec<usize>>,
    carried: HashMap<RouteName, CarriedRoute>,
    endpoints: Endpoints,
}

/// The endpoints of the backends that one compile came across.
type ResolvedBackends = HashMap<BackendRef, Arc<Resolved>>;

impl Compiler {
    /// The table for `desired`, of which `touched` is all that changed since the last call. Endpoints that come up do so
    /// `now`, and those that leave close their idle connections.
    pub fn compile(&mut self, desired: &Desired, touched: &Touched, now: Moment) -> RoutingTable {
        self.endpoints.forgive(&touched.spoken_of);
        if touched.everything {
            self.compile_everything(desired, now);
        } else {
            let mut resolved = ResolvedBackends::new();
            for index in self.routes_of(touched) {
                if let Some(spec) = self.table.routes.get(index).map(|r| Arc::clone(&r.spec)) {
                    let route = self.route(&spec, desired, &mut resolved, now);
                    if let Some(slot) = self.table.routes.get_mut(index) {
                        *slot = Arc::new(route);
                    }
                }
            }
        }
        self.endpoints.prune();
        self.table.generation = Generation(self.table.generation.0 + 1);
        self.table.clone()
    }

    fn compile_everything(&mut self, desired: &Desired, now: Moment) {
        let mut resolved = ResolvedBackends::new();
        // Until the end, for the endpoints of a route that is gone may be those of another one by now.
        let mut gone = Vec::new();
        let specs = desired.routes();
        let same_routes = specs.len() == self.table.routes.len()
            && specs.iter().zip(&self.table.routes).all(|(spec, route)| Arc::ptr_eq(spec, &route.spec));
        if !same_routes {
            let names: HashSet<_> = specs.iter().map(|s| &s.name).collect();
            gone.extend(self.carried.extract_if(|name, _| !names.contains(name)));
            self.table.matcher = Arc::new(Matcher::new(specs));
            self.table.by_name =
                Arc::new(specs.iter().enumerate().map(|(i, s)| (s.name.clone(), i)).collect());
            self.by_service.clear();
            for (index, spec) in specs.iter().enumerate() {
                for service in spec.services().collect::<BTreeSet<_>>() {
                    self.by_service.entry(service.clone()).or_default().push(index);
                }
            }
        }
        let routes: Vec<_> =
            specs.iter().map(|spec| Arc::new(self.route(spec, desired, &mut resolved, now))).collect();
        self.table.routes = routes;
    }

    fn routes_of(&self, touched: &Touched) -> BTreeSet<usize> {
        let by_service = touched.services.iter().filter_map(|service| self.by_service.get(service)).flatten();
        let by_name = touched.routes.iter().filter_map(|name| self.table.by_name.get(name));
        by_service.chain(by_name).copied().collect()
    }

    fn route(
        &mut self,
        spec: &Arc<RouteSpec>,
        desired: &Desired,
        resolved: &mut ResolvedBackends,
        now: Moment,
    ) -> Route {
        let mut problems = Vec::new();
        let (assigned, unassigned) = assign(spec, desired, resolved, &mut problems);
        let weights = desired.weights(&spec.name);
        let revision = weights.map(|w| w.revision()).unwrap_or_default();
        let mut carried = self.carried.remove(&spec.name).unwrap_or_default();
        take_back(spec, weights, &mut carried, now);
        let _gone = carried.fit(spec, revision);
        let members = self.members(spec, &assigned, &mut carried);
        let (found, last_resort) = usable(&members, &spec.traffic);
        let split = weights.map(|w| w.split().to_vec()).unwrap_or_else(|| spec.weights());
        let asked: Vec<Share> = spec
            .versions
            .iter()
            .map(|v| split.iter().find(|(name, _)| *name == v.name).map_or(Share::ZERO, |(_, share)| *share))
            .collect();
        let is_usable: Vec<bool> = found.iter().map(|usable| !usable.candidates.is_empty()).collect();
        let heirs = heirs(spec.on_empty, &asked, &is_usable);
        let drawn = drawn(&asked, &is_usable, &heirs);
        let known = desired.knows(spec);
        if known {
            problems.extend(empty_versions(spec, &asked, &is_usable, &heirs, &members));
            if last_resort {
                problems.push(nothing_better(spec, &members, &found));
            } else {
                problems.extend(panicking(spec, &members, &found));
            }
        }
        let mirror = carried.mirror.mirroring(spec);
        if known {
            problems.extend(mirror.as_ref().and_then(|mirror| mirror.problem(spec, &is_usable)));
        }
        let just_up = carried.was_known(known).then_some(now);
        let versions = versions(spec, &mut carried, members, found, (just_up, now), asked.iter().zip(&drawn));
        // So that a version that is empty for a while, and gives its share away, owes nothing when it is back.
        let parts = drawn.iter().map(|share| u64::from(share.millionths())).zip(&carried.places);
        let split = Split::new(parts.enumerate().map(|(i, (weight, place))| (i, weight, Arc::clone(place))));
        problems.sort();
        problems.dedup();
        let budget = Arc::clone(&carried.budget);
        // Another replica may roll out what this one's config does not know (yet).
        let rollout = desired
            .weights(&spec.name)
            .and_then(|weights| weights.rollout())
            .filter(|rollout| rollout.phase.is_active() && rollout.is_known_to(spec.rollout.as_ref()));
        let evidence = carried.evidence(spec, rollout.map(|rollout| rollout.started));
        let (judged, taken_back) = (evidence.as_ref().map(|e| e.canary()), taken_back(spec, weights, &asked));
        let audience =
            CompiledAudience::of(spec, Situation { asked: &asked, drawn: &drawn, judged, taken_back });
        self.carried.insert(spec.name.clone(), carried);
        let spec = Arc::clone(spec);
        Route {
            spec,
            revision,
            known,
            versions,
            unassigned,
            problems,
            budget,
            evidence,
            mirror,
            split,
            audience,
        }
    }

    /// The members of each version, as they were before as far as they were.
    fn members(
        &mut self,
        spec: &RouteSpec,
        assigned: &[Vec<ResolvedEndpoint>],
        carried: &mut CarriedRoute,
    ) -> Vec<Vec<Member>> {
        let of = |(version, own): (&VersionSpec, &Vec<ResolvedEndpoint>)| {
            let how = Manner { protocol: spec.traffic.protocol, tls: tls(spec, version).map(Arc::new) };
            let carried = carried.versions.entry(version.name.clone()).or_default();
            carried.begin();
            own.iter().map(|found| carried.member(found, &how, &mut self.endpoints)).collect()
        };
        spec.versions.iter().zip(assigned).map(of).collect()
    }
}

/// The versions with their endpoints, of which those that are used or not any more are told so.
fn versions<'a>(
    spec: &RouteSpec,
    carried: &mut CarriedRoute,
    members: Vec<Vec<Member>>,
    found: Vec<Usable>,
    (just_up, now): (Option<Moment>, Moment),
    shares: impl Iterator<Item = (&'a Share, &'a Share)>,
) -> Vec<Version> {
    let mut unused = Unused::new();
    let version = |((v, (members, usable)), (asked, drawn)): ((&VersionSpec, (Vec<Member>, Usable)), _)| {
        let (asked, drawn): (&Share, &Share) = (asked, drawn);
        let carried = carried.versions.entry(v.name.clone()).or_default();
        carried.settle(&members, &usable, just_up, &mut unused);
        let Usable { candidates, all_used, .. } = usable;
        Version {
            // Where there is none, it is empty and not full.
            most_in_flight: v
                .max_in_flight_per_pod
                .map(|per_pod| u64::from(per_pod) * candidates.len() as u64)
                .filter(|most| *most > 0),
            name: v.name.clone(),
            asked: *asked,
            effective: if candidates.is_empty() { Share::ZERO } else { *drawn },
            drawn: *drawn,
            origin: Origin::new(*asked, *drawn, Arc::clone(&carried.origin)),
            begun_before: carried.begun_before,
            users: carried.users(spec),
            tally: Arc::clone(&carried.tally),
            sessions: Arc::clone(&carried.sessions),
            balancer: Balancer {
                balance: spec.balance.clone(),
                turn: Arc::clone(&carried.turn),
                ring: carried.ring(&spec.balance, &candidates),
                slow_start: SlowStart::of(spec.traffic.slow_start, &candidates, now),
                all_used,
            },
            outliers: spec.traffic.outliers,
            members,
            candidates,
        }
    };
    let versions =
        spec.versions.iter().zip(members.into_iter().zip(found)).zip(shares).map(version).collect();
    unused.iter().for_each(|standing| standing.exit());
    versions
}

/// The place of the version that the last rollout took back, as long as nobody has given it a weight since (semantics §5.6).
fn taken_back(spec: &RouteSpec, weights: Option<&RouteWeights>, asked: &[Share]) -> Option<usize> {
    let canary = &weights?.rollout().filter(|rollout| rollout.was_taken_back())?.version;
    let place = spec.versions.iter().position(|version| version.name == *canary)?;
    asked.get(place).is_some_and(|share| *share == Share::ZERO).then_some(place)
}

/// How long connections that last may go on at a version that was taken back where the config does not say so any more.
const ABORT_DEADLINE: Duration = Duration::from_secs(30);

/// Ends what lasts of the connections to a version that its rollout took back (semantics §5.6).
fn take_back(spec: &RouteSpec, weights: Option<&RouteWeights>, carried: &mut CarriedRoute, now: Moment) {
    let Some(rollout) = weights.and_then(RouteWeights::rollout).filter(|last| last.was_taken_back()) else {
        return;
    };
    let deadline = spec.rollout.as_ref().map_or(ABORT_DEADLINE, |rollout| rollout.abort_deadline);
    carried.take_back(&rollout.version, rollout.started, now.after(deadline));
}

/// How TLS is spoken with the pods of a version, with the name that their certificates must have.
fn tls(spec: &RouteSpec, version: &VersionSpec) -> Option<UpstreamTls> {
    let mut tls = spec.traffic.upstream_tls.clone()?;
    let host = || {
        spec.hosts.iter().find_map(|host| match host {
            HostMatch::Exact(name) => Some(name.clone()),
            HostMatch::Suffix(_) => None,
        })
    };
    let of_service = || {
        let service = &version.backend.as_ref().unwrap_or(&spec.backend).service;
        format!("{}.{}.svc", service.name, service.namespace)
    };
    tls.server_name = tls.server_name.or_else(host).or_else(|| Some(of_service()));
    Some(tls)
}

/// Gives each endpoint to the first version that lists it; also those that no version does.
fn assign(
    spec: &RouteSpec,
    desired: &Desired,
    resolved: &mut ResolvedBackends,
    problems: &mut Vec<Problem>,
) -> (Vec<Vec<ResolvedEndpoint>>, Vec<Unassigned>) {
    let backend_of =
        |v: &crate::model::VersionSpec| v.backend.clone().unwrap_or_else(|| spec.backend.clone());
    let mut backends: Vec<(BackendRef, Arc<Resolved>, Vec<bool>)> = Vec::new();
    let mut assigned = Vec::with_capacity(spec.versions.len());
    for version in &spec.versions {
        let backend = backend_of(version);
        let at = backends.iter().position(|(b, _, _)| *b == backend).unwrap_or_else(|| {
            let found =
                resolved.entry(backend.clone()).or_insert_with(|| Arc::new(desired.resolve(&backend)));
            problems.extend(found.problems.iter().cloned());
            backends.push((backend.clone(), Arc::clone(found), vec![false; found.endpoints.len()]));
            backends.len() - 1
        });
        let Some((_, found, taken)) = backends.get_mut(at) else { continue };
        // Where no version looks at labels, nothing waits for them.
        let labels_matter = spec.versions.iter().any(|v| v.selector.is_some() && backend_of(v) == backend);
        let mut own = Vec::new();
        for (endpoint, taken) in found.endpoints.iter().zip(taken.iter_mut()) {
            let fits = match (&version.selector, &endpoint.labels) {
                _ if *taken || (endpoint.labels_pending && labels_matter) => false,
                (None, _) => true,
                (Some(selector), Some(labels)) => selector.matches(labels),
                (Some(_), None) => false,
            };
            if fits {
                *taken = true;
                own.push(endpoint.clone());
            }
        }
        assigned.push(own);
    }
    let left =
        backends.iter().flat_map(|(_, found, taken)| found.endpoints.iter().zip(taken).filter(|(_, t)| !**t));
    let unassigned = left.map(|(endpoint, _)| Unassigned {
        address: endpoint.id.address,
        pod: endpoint.pod.clone(),
        labels_pending: endpoint.labels_pending,
    });
    (assigned, unassigned.collect())
}

/// The weights by which the share of an empty version is given away: all to stable; if that is empty itself, to the
/// others in proportion to what they have. Nothing where it is not given away.
fn heirs(on_empty: OnEmpty, asked: &[Share], usable: &[bool]) -> Option<Vec<Share>> {
    if on_empty == OnEmpty::Fail {
        return None;
    }
    let heirs: Vec<Share> = if usable.first().copied().unwrap_or_default() {
        asked.iter().enumerate().map(|(i, _)| if i == 0 { Share::ALL } else { Share::ZERO }).collect()
    } else {
        asked.iter().zip(usable).map(|(share, usable)| if *usable { *share } else { Share::ZERO }).collect()
    };
    heirs.iter().any(|share| *share > Share::ZERO).then_some(heirs)
}

/// The shares by which requests are drawn; what is given away in proportion is rounded by the largest remainder, so that the
/// sum stays whole. A version that is empty keeps its share where it is not given away: those requests are answered 503.
fn drawn(asked: &[Share], usable: &[bool], heirs: &Option<Vec<Share>>) -> Vec<Share> {
    let Some(heirs) = heirs else { return asked.to_vec() };
    let given: u64 =
        asked.iter().zip(usable).filter(|(_, u)| !**u).map(|(s, _)| u64::from(s.millionths())).sum();
    let whole: u64 = heirs.iter().map(|h| u64::from(h.millionths())).sum();
    let own = asked.iter().zip(usable).map(|(s, usable)| if *usable { u64::from(s.millionths()) } else { 0 });
    let mut shares: Vec<(u64, u64)> = own
        .zip(heirs)
        .map(|(own, heir)| {
            let product = given * u64::from(heir.millionths());
            (own + product.checked_div(whole).unwrap_or(0), product.checked_rem(whole).unwrap_or(0))
        })
        .collect();
    let missing = u64::from(Share::DENOMINATOR).saturating_sub(shares.iter().map(|(share, _)| share).sum());
    let mut by_remainder: Vec<usize> = (0..shares.len()).collect();
    by_remainder.sort_by_key(|i| std::cmp::Reverse(shares.get(*i).map(|(_, remainder)| *remainder)));
    for i in by_remainder.into_iter().take(usize::try_from(missing).unwrap_or(0)) {
        if let Some((share, _)) = shares.get_mut(i) {
            *share += 1;
        }
    }
    let share = |(share, _): (u64, u64)| {
        u32::try_from(share).ok().and_then(Share::from_millionths).unwrap_or(Share::ALL)
    };
    shares.into_iter().map(share).collect()
}

/// The shares that are drawn where these versions have a usable pod, and the others' share is given away.
#[cfg(test)]
pub(super) fn shares_drawn(asked: &[Share], usable: &[bool]) -> Vec<Share> {
    drawn(asked, usable, &heirs(OnEmpty::Spill, asked, usable))
}

#[cfg(test)]
#[path = "compile_tests.rs"]
mod tests;
