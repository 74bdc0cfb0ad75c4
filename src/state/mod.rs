//! What should be true now: the routes asked for, their weights and revisions, and what the cluster has.
//!
//! CORE: plain synchronous methods; time is an argument. One task owns a [`Desired`] (`control`); nothing here is shared.

mod cluster;
mod own;
mod resolve;
mod revisions;
#[cfg(test)]
pub(crate) mod samples;
mod saved;
mod serves;
mod shared;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;

use crate::model::{
    BackendRef, ClusterChange, Revision, RouteName, RouteSpec, ServiceKey, Share, StaticEndpoint, Timestamp,
};
use crate::rollout::Rollout;

pub use cluster::Cluster;
pub use own::OwnAddresses;
pub use resolve::{Resolved, ResolvedEndpoint};
pub use revisions::{RevisionEntry, RouteWeights, Source, WeightsError};
pub use saved::{SAVED_FORMAT, SavedRoute, SavedState};
pub use serves::{Difference, Serves};
pub use shared::{
    Commit, Peer, Proposal, Replicas, Said, Settled, Shared, Snapshot, Standing, Standings, StoreNews,
    Version,
};

use revisions::Outcome;

/// Everything a routing table is compiled from.
#[derive(Debug, Default)]
pub struct Desired {
    routes: Vec<Arc<RouteSpec>>,
    /// The place of each among them.
    places: HashMap<RouteName, usize>,
    weights: HashMap<RouteName, RouteWeights>,
    /// The routes with a rollout under way.
    under_way: BTreeSet<RouteName>,
    retired: BTreeMap<RouteName, Arc<SavedRoute>>,
    cluster: Cluster,
    statics: Option<BTreeMap<ServiceKey, Vec<StaticEndpoint>>>,
    own: OwnAddresses,
    /// The replicas' common state is not known yet: until then no pod gets a request, for its weights may be others.
    awaits_state: bool,
}

/// What a change touched, so that a compile looks at nothing else.
#[derive(Debug, Default)]
pub struct Touched {
    /// The list of routes itself: everything is compiled anew.
    pub everything: bool,
    /// Services whose endpoints may have changed.
    pub services: HashSet<ServiceKey>,
    /// Routes whose weights changed.
    pub routes: HashSet<RouteName>,
    /// Addresses that the cluster said something new about: a refused connection is forgiven (semantics §2.2).
    pub spoken_of: HashSet<IpAddr>,
}

impl Touched {
    /// Nothing was touched.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        !self.everything && self.services.is_empty() && self.routes.is_empty() && self.spoken_of.is_empty()
    }

    /// Both.
    pub fn merge(&mut self, other: Touched) {
        self.everything |= other.everything;
        self.services.extend(other.services);
        self.routes.extend(other.routes);
        self.spoken_of.extend(other.spoken_of);
    }
}

/// Who asked for a change of weights, and why.
#[derive(Clone, Debug)]
pub struct Request {
    /// Where it came from.
    pub source: Source,
    /// Who, if that is known.
    pub who: Option<String>,
    /// Why, in the asker's words.
    pub reason: Option<String>,
    /// Only if this is still the revision in force (`If-Match`).
    pub expected: Option<Revision>,
    /// When.
    pub at: Timestamp,
}

/// How many routes that left the config are remembered, so that one that comes back keeps its history.
const RETIRED_KEPT: usize = 256;

impl Desired {
    /// The state with what an earlier run saved.
    #[must_use]
    pub fn restored(saved: SavedState) -> Self {
        Self { retired: saved.routes, ..Self::default() }
    }

    /// Takes another process's weights and histories in place of these, as at a start: the config's weights count where they
    /// differ from those last seen in it.
    pub fn restore(&mut self, saved: SavedState, at: Timestamp) -> Touched {
        self.weights.clear();
        self.retired = saved.routes;
        let routes = self.routes.iter().map(|route| RouteSpec::clone(route)).collect();
        let statics = self.statics.take();
        self.set_routes(routes, statics, at).0
    }

    /// The routes, in the order of the config.
    #[must_use]
    pub fn routes(&self) -> &[Arc<RouteSpec>] {
        &self.routes
    }

    /// The weights and history of a route.
    #[must_use]
    pub fn weights(&self, route: &RouteName) -> Option<&RouteWeights> {
        self.weights.get(route)
    }

    /// What the cluster has.
    #[must_use]
    pub fn cluster(&self) -> &Cluster {
        &self.cluster
    }

    /// The endpoints of a backend, from hand-given pods or from the cluster; without Serinus itself.
    #[must_use]
    pub fn resolve(&self, backend: &BackendRef) -> Resolved {
        if self.awaits_state {
            return Resolved::default();
        }
        let mut resolved = match &self.statics {
            Some(statics) => resolve::from_statics(statics, backend),
            None => self.cluster.resolve(backend),
        };
        self.own.leave_out(backend, &mut resolved);
        resolved
    }

    /// Where Serinus itself takes requests: it sends none there.
    pub fn set_own(&mut self, own: OwnAddresses) -> Touched {
        self.own = own;
        Touched { everything: true, ..Touched::default() }
    }

    /// Waits for the replicas' common state, or does no longer.
    pub fn await_state(&mut self, awaits: bool) -> Touched {
        let news = std::mem::replace(&mut self.awaits_state, awaits) != awaits;
        Touched { everything: news, ..Touched::default() }
    }

    /// Whether everything that the routes need is known (`/readyz`).
    #[must_use]
    pub fn is_complete(&self) -> bool {
        !self.awaits_state && self.routes.iter().all(|route| self.knows(route))
    }

    /// Whether everything that this route needs is known: what it lacks is a problem only then.
    #[must_use]
    pub fn knows(&self, route: &RouteSpec) -> bool {
        self.statics.is_some() || route.services().all(|service| self.cluster.knows(service))
    }

    /// Every Service that a route needs to know.
    #[must_use]
    pub fn wanted_services(&self) -> std::collections::BTreeSet<ServiceKey> {
        self.routes.iter().flat_map(|r| r.services()).cloned().collect()
    }

    /// A config came into force.
    ///
    /// Weights follow contract §4: the file counts as a change only for routes whose weights in it differ from those
    /// last seen in it; every other route keeps the weights it has. Returns what was touched and the routes whose
    /// weights changed.
    pub fn set_routes(
        &mut self,
        routes: Vec<RouteSpec>,
        statics: Option<BTreeMap<ServiceKey, Vec<StaticEndpoint>>>,
        at: Timestamp,
    ) -> (Touched, Vec<RouteName>) {
        let mut changed = Vec::new();
        let mut kept = HashMap::new();
        for spec in &routes {
            let before = self
                .weights
                .remove(&spec.name)
                .or_else(|| self.retired.remove(&spec.name).as_ref().map(RouteWeights::from_saved));
            let first = before.as_ref().is_none_or(|w| w.revision() == Revision(0));
            let mut weights = before.unwrap_or_default();
            if weights.adopt_file(spec, at) == Outcome::Changed && !first {
                changed.push(spec.name.clone());
            }
            kept.insert(spec.name.clone(), weights);
        }
        for (name, mut weights) in std::mem::replace(&mut self.weights, kept) {
            self.retired.insert(name, weights.saved());
        }
        self.forget_oldest_retired();
        (self.route_by(routes, statics), changed)
    }

    /// As [`Desired::set_routes`], where replicas share their state: that is what `shared` knows, and what this config would have
    /// it be is a [`Proposal::AdoptFile`] for each route. One that it does not know yet has the weights of the file.
    pub fn follow_routes(
        &mut self,
        routes: Vec<RouteSpec>,
        statics: Option<BTreeMap<ServiceKey, Vec<StaticEndpoint>>>,
        shared: &Shared,
        at: Timestamp,
    ) -> Touched {
        let mut kept = HashMap::new();
        for spec in &routes {
            let mut weights = self.weights.remove(&spec.name).unwrap_or_default();
            match shared.route(&spec.name) {
                Some(known) => drop(weights.adopt(spec, known)),
                None => drop(weights.adopt_file(spec, at)),
            }
            kept.insert(spec.name.clone(), weights);
        }
        self.weights = kept;
        self.route_by(routes, statics)
    }

    fn route_by(
        &mut self,
        routes: Vec<RouteSpec>,
        statics: Option<BTreeMap<ServiceKey, Vec<StaticEndpoint>>>,
    ) -> Touched {
        self.under_way.clear();
        for spec in &routes {
            self.note_rollout(&spec.name);
        }
        self.routes = routes.into_iter().map(Arc::new).collect();
        self.places =
            self.routes.iter().enumerate().map(|(place, spec)| (spec.name.clone(), place)).collect();
        self.statics = statics;
        Touched { everything: true, ..Touched::default() }
    }

    /// Something was heard from the cluster.
    pub fn apply_cluster(&mut self, change: ClusterChange) -> Touched {
        self.cluster.apply(change)
    }

    /// Makes a change of a route's weights or rollout.
    ///
    /// # Errors
    /// When the route or a version is unknown, the weights do not fit, the revision is not the expected one, or a rollout does
    /// not do that in its phase. Nothing is changed then.
    pub fn change(
        &mut self,
        route: &str,
        proposal: &Proposal,
        request: Request,
    ) -> Result<Touched, WeightsError> {
        let (spec, weights) = self.route_mut(route)?;
        let outcome = weights.apply(&spec, proposal, request)?;
        self.note_rollout(&spec.name);
        Ok(touched_route(&spec.name, outcome))
    }

    /// Asks for weights: versions left out keep theirs, stable takes the rest.
    ///
    /// # Errors
    /// As [`Desired::change`].
    pub fn set_weights(
        &mut self,
        route: &str,
        asked: &BTreeMap<String, Share>,
        request: Request,
    ) -> Result<Touched, WeightsError> {
        self.change(route, &Proposal::Set(asked.clone()), request)
    }

    /// Takes a route's state from the replicas' common one.
    pub fn adopt(&mut self, route: &RouteName, shared: &Arc<SavedRoute>) -> Touched {
        let Ok((spec, weights)) = self.route_mut(route.as_str()) else { return Touched::default() };
        let outcome = weights.adopt(&spec, shared);
        self.note_rollout(&spec.name);
        touched_route(&spec.name, outcome)
    }

    /// Takes over what the process before has seen of the rollouts under way.
    pub fn inherit(&mut self, saved: &SavedState) {
        for (name, before) in &saved.routes {
            if let (Some(rollout), Some(before)) = (self.judged(name), &before.rollout) {
                rollout.inherit(before);
            }
        }
    }

    /// The routes with a rollout under way.
    #[must_use]
    pub fn under_way(&self) -> Vec<RouteName> {
        self.under_way.iter().cloned().collect()
    }

    /// Whether any route has a rollout under way.
    #[must_use]
    pub fn has_rollouts(&self) -> bool {
        !self.under_way.is_empty()
    }

    /// Whether this route has a rollout under way.
    #[must_use]
    pub fn is_under_way(&self, route: &RouteName) -> bool {
        self.under_way.contains(route)
    }

    fn note_rollout(&mut self, route: &RouteName) {
        let active =
            self.weights.get(route).and_then(RouteWeights::rollout).is_some_and(|r| r.phase.is_active());
        if active {
            self.under_way.insert(route.clone());
        } else {
            self.under_way.remove(route);
        }
    }

    /// A route's rollout, to be told what was seen of it; nothing where none is under way.
    pub fn judged(&mut self, route: &RouteName) -> Option<&mut Rollout> {
        self.weights.get_mut(route)?.judged()
    }

    /// What must survive a restart.
    #[must_use]
    pub fn to_saved(&mut self) -> SavedState {
        let mut routes = self.retired.clone();
        routes.extend(self.weights.iter_mut().map(|(name, weights)| (name.clone(), weights.saved())));
        SavedState { format: SAVED_FORMAT, routes }
    }

    fn forget_oldest_retired(&mut self) {
        let surplus = self.retired.len().saturating_sub(RETIRED_KEPT);
        if surplus > 0 {
            let mut by_age: Vec<_> =
                self.retired.iter().map(|(name, r)| (r.changed_at(), name.clone())).collect();
            by_age.sort();
            by_age.iter().take(surplus).for_each(|(_, name)| drop(self.retired.remove(name)));
        }
    }

    fn route_mut(&mut self, route: &str) -> Result<(Arc<RouteSpec>, &mut RouteWeights), WeightsError> {
        let found = self.places.get(route).and_then(|place| self.routes.get(*place));
        let Some(spec) = found.map(Arc::clone) else { return Err(self.unknown_route(route)) };
        // Every route has weights: `set_routes` sees to it.
        let weights = self.weights.entry(spec.name.clone()).or_default();
        Ok((spec, weights))
    }

    /// That there is no such route, and which there are.
    #[must_use]
    pub fn unknown_route(&self, route: &str) -> WeightsError {
        WeightsError::UnknownRoute {
            route: route.chars().take(80).collect(),
            known: self.routes.iter().map(|r| r.name.clone()).collect(),
        }
    }
}

fn touched_route(route: &RouteName, outcome: Outcome) -> Touched {
    match outcome {
        Outcome::Changed => Touched { routes: HashSet::from([route.clone()]), ..Touched::default() },
        Outcome::Unchanged => Touched::default(),
    }
}
