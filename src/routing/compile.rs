//! From what should be true to a routing table.
//!
//! Compiling cannot fail: a route that is wrong costs only itself, and says so in its problems. What must outlive a table
//! is carried here by identity. Only the routes that a change touched are compiled anew.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Weak};

use crate::model::{
    BackendRef, EndpointId, EndpointPhase, Generation, OnEmpty, Problem, Protocol, Revision, RouteName,
    RouteSpec, Selector, ServiceKey, Share, VersionName,
};
use crate::state::{Desired, Resolved, ResolvedEndpoint, Touched};

use super::Endpoint;
use super::balance::Balancer;
use super::matcher::Matcher;
use super::split::{Place, Split};
use super::table::{Member, Origin, Route, RoutingTable, Unassigned, Version};
use super::tally::Tally;

/// Compiles routing tables, each from the one before.
#[derive(Debug, Default)]
pub struct Compiler {
    table: RoutingTable,
    by_service: HashMap<ServiceKey, Vec<usize>>,
    carried: HashMap<RouteName, CarriedRoute>,
    /// By protocol too: two ports of a Service may lead to the same address and speak differently.
    endpoints: BTreeMap<(EndpointId, Protocol), Weak<Endpoint>>,
    prune_at: usize,
}

/// What outlives a route's table.
#[derive(Debug, Default)]
struct CarriedRoute {
    /// The places of the split, by the version's place in the spec: see `split`.
    places: Vec<Arc<Place>>,
    /// Its versions, in the order of the spec.
    names: Vec<VersionName>,
    /// The revision of the weights in force.
    revision: Revision,
    versions: HashMap<VersionName, CarriedVersion>,
}

#[derive(Clone, Debug, Default)]
struct CarriedVersion {
    tally: Arc<Tally>,
    turn: Arc<AtomicUsize>,
    /// Where its own requests stand against those that fall to it from versions without a usable endpoint.
    origin: Arc<Place>,
    /// How many requests it had got when the revision in force began.
    begun_before: u64,
}

/// The endpoints of the backends that one compile came across.
type ResolvedBackends = HashMap<BackendRef, Arc<Resolved>>;

impl Compiler {
    /// The table for `desired`, of which `touched` is all that changed since the last call.
    pub fn compile(&mut self, desired: &Desired, touched: &Touched) -> RoutingTable {
        self.forgive(&touched.spoken_of);
        if touched.everything {
            self.compile_everything(desired);
        } else {
            let mut resolved = ResolvedBackends::new();
            for index in self.routes_of(touched) {
                if let Some(spec) = self.table.routes.get(index).map(|r| Arc::clone(&r.spec)) {
                    let route = self.route(&spec, desired, &mut resolved);
                    if let Some(slot) = self.table.routes.get_mut(index) {
                        *slot = Arc::new(route);
                    }
                }
            }
        }
        self.prune();
        self.table.generation = Generation(self.table.generation.0 + 1);
        self.table.clone()
    }

    fn compile_everything(&mut self, desired: &Desired) {
        let mut resolved = ResolvedBackends::new();
        let specs = desired.routes();
        let same_routes = specs.len() == self.table.routes.len()
            && specs.iter().zip(&self.table.routes).all(|(spec, route)| Arc::ptr_eq(spec, &route.spec));
        if !same_routes {
            let names: HashSet<_> = specs.iter().map(|s| &s.name).collect();
            self.carried.retain(|name, _| names.contains(name));
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
            specs.iter().map(|spec| Arc::new(self.route(spec, desired, &mut resolved))).collect();
        self.table.routes = routes;
    }

    fn routes_of(&self, touched: &Touched) -> BTreeSet<usize> {
        let by_service = touched.services.iter().filter_map(|service| self.by_service.get(service)).flatten();
        let by_name = touched.routes.iter().filter_map(|name| self.table.by_name.get(name));
        by_service.chain(by_name).copied().collect()
    }

    fn route(&mut self, spec: &Arc<RouteSpec>, desired: &Desired, resolved: &mut ResolvedBackends) -> Route {
        let mut problems = Vec::new();
        let (assigned, unassigned) = assign(spec, desired, resolved, &mut problems);
        let members: Vec<Vec<Member>> =
            assigned.iter().map(|own| own.iter().map(|e| self.member(e)).collect()).collect();
        let (candidates, last_resort) = candidates(&members);
        let split = desired.weights(&spec.name).map(|w| w.split().to_vec()).unwrap_or_else(|| spec.weights());
        let revision = desired.weights(&spec.name).map(|w| w.revision()).unwrap_or_default();
        let asked: Vec<Share> = spec
            .versions
            .iter()
            .map(|v| split.iter().find(|(name, _)| *name == v.name).map_or(Share::ZERO, |(_, share)| *share))
            .collect();
        let usable: Vec<bool> = candidates.iter().map(|c| !c.is_empty()).collect();
        let heirs = heirs(spec.on_empty, &asked, &usable);
        let effective = effective(&asked, &usable, &heirs);
        let known = desired.knows(spec);
        if known {
            problems.extend(empty_versions(spec, &asked, &usable, &heirs, &members));
            problems.extend(last_resort.then(|| all_refuse(spec)));
        }

        let carried = self.carried.entry(spec.name.clone()).or_default();
        carried.fit(spec, revision);
        let versions = spec
            .versions
            .iter()
            .zip(members.into_iter().zip(candidates))
            .zip(asked.iter().zip(&effective))
            .map(|((v, (members, candidates)), (asked, effective))| {
                let CarriedVersion { tally, turn, origin, begun_before } =
                    carried.versions.entry(v.name.clone()).or_default().clone();
                Version {
                    name: v.name.clone(),
                    asked: *asked,
                    effective: *effective,
                    origin: Origin::new(*asked, *effective, origin),
                    begun_before,
                    tally,
                    members,
                    candidates,
                    balancer: Balancer { balance: spec.balance.clone(), turn },
                }
            })
            .collect();
        // By the shares in force, so that a version that is empty for a while owes nothing when it is back.
        let weights = effective.iter().map(|share| u64::from(share.millionths())).zip(&carried.places);
        let split =
            Split::new(weights.enumerate().map(|(i, (weight, place))| (i, weight, Arc::clone(place))));
        problems.sort();
        problems.dedup();
        Route { spec: Arc::clone(spec), revision, known, versions, unassigned, problems, split }
    }

    fn member(&mut self, found: &ResolvedEndpoint) -> Member {
        let key = (found.id.clone(), found.protocol);
        let endpoint = self.endpoints.get(&key).and_then(Weak::upgrade).unwrap_or_else(|| {
            let endpoint = Arc::new(Endpoint::new(found.id.clone(), found.pod.clone(), found.protocol));
            self.endpoints.insert(key, Arc::downgrade(&endpoint));
            endpoint
        });
        Member { endpoint, phase: found.phase }
    }

    /// What the cluster says anew of an address outweighs a connection that it refused before (semantics §2.2).
    fn forgive(&self, spoken_of: &HashSet<IpAddr>) {
        for ip in spoken_of {
            let first = EndpointId { address: SocketAddr::new(*ip, 0), pod_uid: Arc::from("") };
            let from_there = self.endpoints.range((first, Protocol::Http1)..);
            for (_, endpoint) in from_there.take_while(|((id, _), _)| id.address.ip() == *ip) {
                if let Some(endpoint) = endpoint.upgrade() {
                    endpoint.forgive();
                }
            }
        }
    }

    /// Forgets endpoints that no table has any more, once they may be half of those remembered.
    fn prune(&mut self) {
        if self.endpoints.len() > self.prune_at {
            self.endpoints.retain(|_, endpoint| endpoint.strong_count() > 0);
            self.prune_at = 2 * self.endpoints.len() + 64;
        }
    }
}

impl CarriedRoute {
    fn fit(&mut self, spec: &RouteSpec, revision: Revision) {
        self.places.resize_with(spec.versions.len().max(self.places.len()), Arc::default);
        if !self.names.iter().eq(spec.versions.iter().map(|v| &v.name)) {
            self.fit_stable(spec);
            self.names = spec.versions.iter().map(|v| v.name.clone()).collect();
        }
        self.versions.retain(|name, _| spec.versions.iter().any(|v| v.name == *name));
        if std::mem::replace(&mut self.revision, revision) != revision {
            self.versions.values_mut().for_each(|version| version.begun_before = version.tally.begun());
        }
    }

    /// The first place tells where the stable version stands: another one stands elsewhere. If it was the only canary, as
    /// at the end of many a rollout, it is just where the former one was not.
    fn fit_stable(&mut self, spec: &RouteSpec) {
        let stable = spec.versions.first().map(|v| &v.name);
        if let Some(place) = self.places.first_mut()
            && stable != self.names.first()
        {
            *place = match self.names.as_slice() {
                [_, canary] if Some(canary) == stable => Arc::new(place.turned()),
                _ => Arc::default(),
            };
        }
    }
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

/// The endpoints of each version that get requests: those ready, else those draining (semantics §2.1); of these, not those
/// that refused a connection, unless nothing else is left in the whole route: true then.
fn candidates(members: &[Vec<Member>]) -> (Vec<Vec<Arc<Endpoint>>>, bool) {
    let of = |members: &[Member], phase, refused: bool| -> Vec<Arc<Endpoint>> {
        let fit = members.iter().filter(|m| m.phase == phase && m.endpoint.is_refused() == refused);
        fit.map(|m| Arc::clone(&m.endpoint)).collect()
    };
    let best = |members: &[Member], refused| {
        let ready = of(members, EndpointPhase::Ready, refused);
        if ready.is_empty() { of(members, EndpointPhase::Draining, refused) } else { ready }
    };
    let fit: Vec<_> = members.iter().map(|members| best(members, false)).collect();
    if fit.iter().any(|candidates| !candidates.is_empty()) {
        return (fit, false);
    }
    let refused: Vec<_> = members.iter().map(|members| best(members, true)).collect();
    let any = refused.iter().any(|candidates| !candidates.is_empty());
    (refused, any)
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

/// The shares in force; what is given away in proportion is rounded by the largest remainder, so that the sum stays whole.
fn effective(asked: &[Share], usable: &[bool], heirs: &Option<Vec<Share>>) -> Vec<Share> {
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

fn empty_versions(
    spec: &RouteSpec,
    asked: &[Share],
    usable: &[bool],
    heirs: &Option<Vec<Share>>,
    members: &[Vec<Member>],
) -> Vec<Problem> {
    let heirs: Vec<_> = heirs
        .iter()
        .flatten()
        .zip(&spec.versions)
        .filter(|(share, _)| **share > Share::ZERO)
        .map(|(_, version)| version.name.as_str())
        .collect();
    let fate = match heirs.as_slice() {
        [] => "its requests are answered 503".to_owned(),
        heirs => format!("its share goes to {}", heirs.join(", ")),
    };
    spec.versions
        .iter()
        .zip(asked.iter().zip(usable).zip(members))
        .filter(|(_, ((asked, usable), _))| **asked > Share::ZERO && !**usable)
        .map(|(version, (_, members))| {
            let pods = why_empty(members, version.selector.as_ref());
            Problem::new(
                format!("version {} of route {} has no usable pod ({pods}): {fate}", version.name, spec.name),
                "check its pods, labels and readiness with `kubectl get pods --show-labels`",
            )
        })
        .collect()
}

fn all_refuse(spec: &RouteSpec) -> Problem {
    Problem::new(
        format!(
            "every pod of route {} refused its last connection: requests are tried on them all the same, and answered \
             502 while none takes them",
            spec.name
        ),
        "see whether the application listens on the port that the Service names (kubectl logs, kubectl describe pod)",
    )
}

fn why_empty(members: &[Member], selector: Option<&Selector>) -> String {
    let all = members.len();
    let unready = members.iter().filter(|m| m.phase == EndpointPhase::Unready).count();
    match (all, all - unready, selector) {
        (0, _, Some(selector)) => format!("no pod of the Service matches `{selector}`"),
        (0, _, None) => "the Service has no pod left for it".to_owned(),
        (1, 0, _) => "its only pod is not ready".to_owned(),
        (1, _, _) => "its only pod refuses connections".to_owned(),
        (_, 0, _) => format!("none of its {all} pods is ready"),
        (_, refused, _) if refused == all => format!("all its {all} pods refuse connections"),
        (_, refused, _) => {
            format!("of its {all} pods, {unready} not ready and {refused} refusing connections")
        }
    }
}

#[cfg(test)]
#[path = "compile_tests.rs"]
mod tests;
