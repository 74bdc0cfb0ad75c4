//! What outlives a table, carried to the next by identity.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Weak};

use crate::model::{
    Balance, Cohort, EndpointId, EndpointPhase, Moment, Protocol, Revision, RouteSpec, Timestamp,
    UpstreamTls, VersionName,
};
use crate::state::ResolvedEndpoint;

use super::hash::Ring;
use super::mirror::CarriedMirror;
use super::outliers::Crowd;
use super::split::Place;
use super::table::Member;
use super::tally::Tally;
use super::usable::Usable;
use super::users::Users;
use super::{Endpoint, Evidence, RetryBudget, Sessions, Standing};

/// What makes an endpoint the same one: where it is, and how it is spoken to. Two ports of a Service may lead to the same
/// address and speak differently, and two routes may ask for different certificates.
type EndpointKey = (EndpointId, Protocol, Option<Arc<UpstreamTls>>);

/// Every endpoint that some table or request has.
#[derive(Debug, Default)]
pub(super) struct Endpoints {
    by_key: BTreeMap<EndpointKey, Weak<Endpoint>>,
    prune_at: usize,
}

impl Endpoints {
    fn get(&mut self, found: &ResolvedEndpoint, how: &Manner) -> Arc<Endpoint> {
        let (protocol, tls) = (how.protocol.unwrap_or(found.protocol), how.tls.clone());
        let key = (found.id.clone(), protocol, tls.clone());
        // Where no uid is told, another name is another pod.
        let known = self.by_key.get(&key).and_then(Weak::upgrade).filter(|known| known.pod == found.pod);
        known.unwrap_or_else(|| {
            let endpoint = Arc::new(Endpoint::new(found.id.clone(), found.pod.clone(), protocol, tls));
            self.by_key.insert(key, Arc::downgrade(&endpoint));
            endpoint
        })
    }

    /// What the cluster says anew of an address outweighs a connection that it refused before (semantics §2.2).
    pub(super) fn forgive(&self, spoken_of: &HashSet<IpAddr>) {
        for ip in spoken_of {
            let first = EndpointId { address: SocketAddr::new(*ip, 0), pod_uid: Arc::from("") };
            let from_there = self.by_key.range((first, Protocol::Http1, None)..);
            for (_, endpoint) in from_there.take_while(|((id, ..), _)| id.address.ip() == *ip) {
                if let Some(endpoint) = endpoint.upgrade() {
                    endpoint.forgive();
                }
            }
        }
    }

    /// Forgets endpoints that no table has any more, once they may be half of those remembered.
    pub(super) fn prune(&mut self) {
        if self.by_key.len() > self.prune_at {
            self.by_key.retain(|_, endpoint| endpoint.strong_count() > 0);
            self.prune_at = 2 * self.by_key.len() + 64;
        }
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.by_key.len()
    }
}

/// How a route speaks to the endpoints of a version.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Manner {
    /// Whatever `appProtocol` says.
    pub(super) protocol: Option<Protocol>,
    pub(super) tls: Option<Arc<UpstreamTls>>,
}

/// What outlives a route's table.
#[derive(Debug, Default)]
pub(super) struct CarriedRoute {
    /// The places of the split, by the version's place in the spec: see `split`.
    pub(super) places: Vec<Arc<Place>>,
    pub(super) versions: HashMap<VersionName, CarriedVersion>,
    pub(super) budget: Arc<RetryBudget>,
    pub(super) mirror: CarriedMirror,
    /// What is seen of the rollout that began then.
    evidence: Option<(Timestamp, Arc<Evidence>)>,
    /// The rollout, by when it began, whose version was taken back; its sessions were told.
    taken_back: Option<Timestamp>,
    /// Its versions, in the order of the spec.
    names: Vec<VersionName>,
    /// How its users were dealt.
    cohort: Option<Cohort>,
    /// The revision of the weights in force.
    revision: Revision,
    /// Whether all that it needs was known when it was last compiled.
    known: bool,
}

/// What outlives a version's table.
#[derive(Debug, Default)]
pub(super) struct CarriedVersion {
    pub(super) tally: Arc<Tally>,
    pub(super) sessions: Arc<Sessions>,
    pub(super) turn: Arc<AtomicUsize>,
    /// Where its own requests stand against those that fall to it from versions without a usable endpoint.
    pub(super) origin: Arc<Place>,
    /// How many requests it had got when the revision in force began.
    pub(super) begun_before: u64,
    /// Its users under that revision, where the route has a cohort.
    users: Option<Arc<Users>>,
    crowd: Arc<Crowd>,
    standings: HashMap<(EndpointId, Protocol), Arc<Standing>>,
    /// The last ring, and the candidates that it is of.
    ring: Option<(Vec<Arc<Standing>>, Arc<Ring>)>,
    /// Counts the compiles.
    round: u64,
}

/// Endpoints that a version uses no more, or not yet: they are told when every version of the route has been looked at, for
/// another may use them.
pub(super) type Unused = Vec<Arc<Standing>>;

impl CarriedRoute {
    /// Fits itself to the spec; the versions that are no more, to be let go of when the others have taken what they had.
    pub(super) fn fit(&mut self, spec: &RouteSpec, revision: Revision) -> Vec<CarriedVersion> {
        self.places.resize_with(spec.versions.len().max(self.places.len()), Arc::default);
        if !self.names.iter().eq(spec.versions.iter().map(|v| &v.name)) {
            self.fit_stable(spec);
            self.names = spec.versions.iter().map(|v| v.name.clone()).collect();
        }
        let is_gone = |name: &VersionName| !spec.versions.iter().any(|v| v.name == *name);
        let gone = self.versions.extract_if(|name, _| is_gone(name)).map(|(_, version)| version).collect();
        if std::mem::replace(&mut self.revision, revision) != revision {
            self.versions.values_mut().for_each(|version| version.begun_before = version.tally.begun());
            self.versions.values_mut().for_each(|version| version.users = None);
        }
        if self.cohort != spec.audience.cohort {
            self.cohort.clone_from(&spec.audience.cohort);
            self.versions.values_mut().for_each(|version| version.users = None);
        }
        gone
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

    /// What the rollout that began then is judged by: the same as before, as long as it is the same.
    pub(super) fn evidence(&mut self, spec: &RouteSpec, began: Option<Timestamp>) -> Option<Arc<Evidence>> {
        let asked = began.zip(spec.rollout.as_ref()).and_then(|(began, rollout)| {
            let canary = spec.versions.iter().position(|version| version.name == rollout.canary)?;
            Some((began, canary, rollout.guard.latency.map(|latency| latency.limit)))
        });
        let Some((began, canary, slow)) = asked else {
            self.evidence = None;
            return None;
        };
        let same = |(of, evidence): &(Timestamp, Arc<Evidence>)| {
            *of == began && evidence.canary() == canary && evidence.slow() == slow
        };
        let kept = self
            .evidence
            .take()
            .filter(same)
            .unwrap_or_else(|| (began, Arc::new(Evidence::new(canary, slow))));
        Some(Arc::clone(&self.evidence.insert(kept).1))
    }

    /// The version of the rollout that began then was taken back: what lasts of its connections ends by then, those that come
    /// later do not. Once for each rollout.
    pub(super) fn take_back(&mut self, version: &VersionName, began: Timestamp, end: Moment) {
        if self.taken_back.replace(began) != Some(began)
            && let Some(version) = self.versions.get_mut(version)
        {
            std::mem::take(&mut version.sessions).end_by(end);
        }
    }

    /// Whether it was known before, so that an endpoint that is new now has just come up. Then as now.
    pub(super) fn was_known(&mut self, known: bool) -> bool {
        std::mem::replace(&mut self.known, known)
    }
}

impl CarriedVersion {
    /// A new compile begins.
    pub(super) fn begin(&mut self) {
        self.round += 1;
    }

    /// Where its users are counted, where the route has a cohort.
    pub(super) fn users(&mut self, spec: &RouteSpec) -> Option<Arc<Users>> {
        spec.audience.cohort.as_ref().map(|_| Arc::clone(self.users.get_or_insert_default()))
    }

    /// An endpoint of the version.
    pub(super) fn member(
        &mut self,
        found: &ResolvedEndpoint,
        how: &Manner,
        endpoints: &mut Endpoints,
    ) -> Member {
        let key = (found.id.clone(), how.protocol.unwrap_or(found.protocol));
        let same = |standing: &&Arc<Standing>| {
            let endpoint = standing.endpoint();
            endpoint.tls == how.tls && endpoint.pod == found.pod
        };
        let standing = match self.standings.get(&key).filter(same) {
            Some(standing) => Arc::clone(standing),
            None => {
                let endpoint = endpoints.get(found, how);
                let standing = Arc::new(Standing::new(endpoint, Arc::clone(&self.crowd)));
                if let Some(former) = self.standings.insert(key, Arc::clone(&standing)) {
                    former.retire();
                }
                standing
            }
        };
        standing.seen_in(self.round);
        Member { endpoint: Arc::clone(standing.endpoint()), phase: found.phase, standing }
    }

    /// The compile has found which of the members are used: tells the endpoints, and forgets those that are no members.
    /// `just_up` is when an endpoint that was not used before came up, or nothing when that is not known.
    pub(super) fn settle(
        &mut self,
        members: &[Member],
        usable: &Usable,
        just_up: Option<Moment>,
        unused: &mut Unused,
    ) {
        self.crowd.set_room(usable.room);
        // Both are in the same order.
        let mut candidates = usable.candidates.iter().peekable();
        for Member { standing, phase, .. } in members {
            let used = candidates.next_if(|candidate| Arc::ptr_eq(candidate, standing)).is_some();
            standing.set_used(used, just_up);
            // A pod that is leaving may have to do as a last resort; its connections are not kept for that.
            if used && *phase == EndpointPhase::Ready {
                standing.enter();
            } else {
                unused.push(Arc::clone(standing));
            }
        }
        if self.standings.len() > members.len() {
            let round = self.round;
            self.standings.retain(|_, standing| {
                let stays = standing.was_seen_in(round);
                if !stays {
                    unused.push(Arc::clone(standing));
                }
                stays
            });
        }
    }

    /// The ring of these candidates, where keys decide: the last one, if they are the same.
    pub(super) fn ring(&mut self, balance: &Balance, candidates: &[Arc<Standing>]) -> Option<Arc<Ring>> {
        if !matches!(balance, Balance::Hash(_)) {
            self.ring = None;
        } else if !self.ring.as_ref().is_some_and(|(of, _)| same(of, candidates)) {
            self.ring = Some((candidates.to_vec(), Arc::new(Ring::new(candidates))));
        }
        self.ring.as_ref().map(|(_, ring)| Arc::clone(ring))
    }
}

impl Drop for CarriedVersion {
    /// Its route, or it, is no more.
    fn drop(&mut self) {
        self.standings.values().for_each(|standing| standing.retire());
    }
}

fn same(some: &[Arc<Standing>], others: &[Arc<Standing>]) -> bool {
    some.len() == others.len() && some.iter().zip(others).all(|(a, b)| Arc::ptr_eq(a, b))
}
