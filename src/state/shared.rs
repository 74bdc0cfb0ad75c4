//! One state for several replicas (contract §4): what the store holds, and what this replica would have it hold.
//!
//! Each change is a [`Proposal`]: it can be tried on any state of its route, and on a newer one once more. What is asked here is
//! tried on the newest state that is known and handed to the store, which takes it only if that is still the newest; else it is
//! tried again on what the store has then. So no change is lost, and none is made twice. A change that takes a canary back
//! is the exception: it is live here at once, for any replica may roll back (semantics §5.5), and reaches the store when it can.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Instant;

use serde::{Deserialize, Serialize};

use crate::model::{Revision, RouteName, RouteSpec, Share, Timestamp};
use crate::rollout::{Asked, Judge, Place, Transition};

use super::revisions::{Outcome, RouteWeights, WeightsError};
use super::saved::SavedRoute;
use super::serves::{Difference, Serves};
use super::{Request, Source};

/// What a route's weights or rollout are to become.
#[derive(Clone, Debug, PartialEq)]
pub enum Proposal {
    /// These weights: versions left out keep theirs, stable takes the rest.
    Set(BTreeMap<String, Share>),
    /// Those of this revision, or of the one before the one in force.
    Undo(Option<Revision>),
    /// What somebody asks of the rollout.
    Ask(Asked),
    /// What a verdict or the time brought about, of the rollout that was there.
    GoOn(Place, Transition),
    /// The rollout that began then ends, with nothing for its version.
    Abort(Timestamp),
    /// The rollout begins by itself.
    Begin,
    /// The version that is rolled out has no pod at all.
    CanaryIsGone,
    /// What the config asks for.
    AdoptFile,
}

impl Proposal {
    /// Whether it only takes from a canary, so that it does not wait for the other replicas.
    #[must_use]
    pub fn takes_back(&self) -> bool {
        match self {
            Proposal::Abort(_) => true,
            Proposal::GoOn(_, transition) => transition.is_verdict_against(),
            Proposal::Set(_)
            | Proposal::Undo(_)
            | Proposal::Ask(_)
            | Proposal::Begin
            | Proposal::CanaryIsGone
            | Proposal::AdoptFile => false,
        }
    }
}

impl Proposal {
    /// Whether this replica decided it by itself, and does so again where that is still right.
    fn is_decided_anew(&self) -> bool {
        match self {
            Proposal::GoOn(..) => !self.takes_back(),
            Proposal::Begin | Proposal::CanaryIsGone => true,
            Proposal::Set(_)
            | Proposal::Undo(_)
            | Proposal::Ask(_)
            | Proposal::Abort(_)
            | Proposal::AdoptFile => false,
        }
    }
}

/// Which state of the store it is: the `resourceVersion` of a Kubernetes object.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Version(pub Arc<str>);

impl Version {
    /// Whether it is later than another. Kubernetes' are whole numbers that grow (KEP-5504); others count as later.
    fn is_later_than(&self, other: &Version) -> bool {
        match (self.0.parse::<u128>(), other.0.parse::<u128>()) {
            (Ok(this), Ok(other)) => this > other,
            _ => self != other,
        }
    }
}

/// The state that the store had at some moment.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Snapshot {
    /// Which it is; nothing where the store has none yet.
    pub version: Option<Version>,
    /// Each route's weights, history and rollout, without evidence.
    pub routes: BTreeMap<RouteName, Arc<SavedRoute>>,
}

/// What the store is to hold instead of what it has, if that is still of this version.
#[derive(Clone, Debug, PartialEq)]
pub struct Commit {
    /// The version that it was made of; nothing where the store has none.
    pub of: Option<Version>,
    /// The routes that change; none where it is only to be read.
    pub routes: BTreeMap<RouteName, Arc<SavedRoute>>,
}

/// What the store says.
#[derive(Clone, Debug, PartialEq)]
pub enum StoreNews {
    /// It has, or had a moment ago, this.
    Heard(Snapshot),
    /// It has something that cannot be read: what is known goes on.
    Unreadable,
    /// The last commit is in it, and this is its version.
    Committed(Version),
    /// The last commit is not in it, for it has this by now.
    Conflict(Snapshot),
    /// Whether the last commit is in it is not known, or it is not, and why.
    Failed(String),
    /// How the replicas are.
    Replicas(Replicas),
}

/// What one replica says of a rollout under way: what it serves, and what it has seen.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Standing {
    /// The route's revision that it serves.
    pub revision: Revision,
    /// When the rollout began.
    pub started: Timestamp,
    /// How often its evidence began anew.
    pub attempt: u32,
    /// Its step.
    pub step: usize,
    /// How long the step has been judged, in milliseconds.
    pub held_ms: u64,
    /// What this replica has seen.
    pub judge: Judge,
}

/// What one replica says of the rollouts under way.
pub type Standings = BTreeMap<RouteName, Standing>;

/// What one replica says of itself.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Said {
    /// Of the rollouts under way.
    pub standings: Standings,
    /// Of the revisions that it serves.
    pub serves: Arc<Serves>,
}

/// Another replica.
#[derive(Clone, Debug, PartialEq)]
pub struct Peer {
    /// Its name: that of its pod.
    pub name: Arc<str>,
    /// It has given a sign of life lately.
    pub live: bool,
    /// What it said last of the rollouts under way.
    pub standings: Arc<Standings>,
    /// What it said last of the revisions that it serves; nothing where its release says nothing of them.
    pub serves: Option<Arc<Serves>>,
}

/// The replicas, as this one sees them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Replicas {
    /// This one's name.
    pub me: Arc<str>,
    /// The one that takes rollouts forward, if there is one.
    pub leader: Option<Arc<str>>,
    /// Until when this one takes them forward; nothing where another does.
    pub leads_until: Option<Instant>,
    /// What this one said last, in an earlier life too.
    pub mine: Arc<Standings>,
    /// The others, those that are gone included as long as what they have seen may count.
    pub peers: Vec<Peer>,
}

/// A change that the store does not have yet.
#[derive(Debug)]
struct Pending {
    id: u64,
    route: RouteName,
    proposal: Proposal,
    request: Request,
    /// It was in a commit of which nobody knows what became.
    doubtful: bool,
}

impl Pending {
    /// It is not tried again: either it is in the store, or it is to be decided anew.
    fn waits_for_word(&self) -> bool {
        self.doubtful && self.proposal.is_decided_anew()
    }
}

/// What the store knows of the state, and what it is to learn.
#[derive(Debug, Default)]
pub struct Shared {
    /// What it has, as far as is known; nothing before it was first heard of.
    base: Option<Base>,
    pending: VecDeque<Pending>,
    /// The commit that is under way.
    flight: Option<Flight>,
    next: u64,
}

#[derive(Debug, Default)]
struct Base {
    version: Option<Version>,
    routes: HashMap<RouteName, Arc<SavedRoute>>,
    /// Those that the store has not, or in no form that can be read: they are to be in it again.
    missing: BTreeSet<RouteName>,
}

impl Base {
    /// The store has nothing any more: all that is known of it is to be in it again.
    fn was_lost(&self) -> bool {
        self.version.is_none() && !self.routes.is_empty()
    }

    /// What has left the config, and was taken out of the store, is forgotten.
    fn forget_missing(&mut self, is_gone: impl Fn(&RouteName) -> bool) {
        if self.version.is_some() {
            let routes = &mut self.routes;
            self.missing.retain(|route| !is_gone(route) || routes.remove(route).is_none());
        }
    }
}

#[derive(Debug)]
struct Flight {
    /// The version that it was made of.
    of: Option<Version>,
    ids: HashSet<u64>,
    routes: BTreeMap<RouteName, Arc<SavedRoute>>,
}

/// What became of changes.
#[derive(Debug, Default)]
pub struct Settled {
    /// These are in the store, or had nothing to change.
    pub done: Vec<u64>,
    /// These were refused.
    pub refused: Vec<(u64, WeightsError)>,
    /// The routes whose state is to be looked at again.
    pub routes: BTreeSet<RouteName>,
    /// Those whose weights somebody set, or the config.
    pub set: BTreeSet<RouteName>,
}

impl Shared {
    /// Whether the store was heard of.
    #[must_use]
    pub fn is_known(&self) -> bool {
        self.base.is_some()
    }

    /// What the store has of a route.
    #[must_use]
    pub fn route(&self, route: &RouteName) -> Option<&Arc<SavedRoute>> {
        self.base.as_ref()?.routes.get(route)
    }

    /// Has a change made; its number.
    pub fn propose(&mut self, route: RouteName, proposal: Proposal, request: Request) -> u64 {
        self.next += 1;
        self.pending.push_back(Pending { id: self.next, route, proposal, request, doubtful: false });
        self.next
    }

    /// Whether there is something to hand to the store, and nothing on its way there.
    #[must_use]
    pub fn has_work(&self) -> bool {
        let work = |base: &Base| !self.pending.is_empty() || !base.missing.is_empty() || base.was_lost();
        self.flight.is_none() && self.base.as_ref().is_some_and(work)
    }

    /// The routes with changes that wait to be in the store.
    #[must_use]
    pub fn pending_routes(&self) -> HashSet<&RouteName> {
        self.pending.iter().map(|pending| &pending.route).collect()
    }

    /// Whether the store is to know what this config asks for: it does not yet.
    #[must_use]
    pub fn lacks_config(&self, spec: &RouteSpec, at: Timestamp) -> bool {
        let Some(known) = self.route(&spec.name) else { return true };
        let mut weights = RouteWeights::from_saved(known);
        weights.adopt_file(spec, at);
        weights.shared() != *known
    }

    /// Whether anything is live here that the store does not have yet.
    #[must_use]
    pub fn has_live(&self) -> bool {
        self.pending.iter().any(|pending| pending.proposal.takes_back())
    }

    /// The routes of that.
    pub fn live_routes(&self) -> impl Iterator<Item = &RouteName> {
        self.pending.iter().filter(|pending| pending.proposal.takes_back()).map(|pending| &pending.route)
    }

    /// Forgets what an earlier config asked for, save what is on its way.
    pub fn forget_config(&mut self) {
        let flight = self.flight.as_ref();
        self.pending.retain(|pending| {
            pending.proposal != Proposal::AdoptFile || flight.is_some_and(|it| it.ids.contains(&pending.id))
        });
    }

    /// Whether anything waits to be in the store.
    #[must_use]
    pub fn waits(&self) -> bool {
        !self.pending.is_empty()
    }

    /// Whether a change of this route waits to be in the store.
    #[must_use]
    pub fn is_pending(&self, route: &RouteName) -> bool {
        self.pending.iter().any(|pending| pending.route == *route)
    }

    /// Forgets a change that is not under way; whether that was so.
    pub fn forget(&mut self, id: u64) -> bool {
        let flies = self.flight.as_ref().is_some_and(|flight| flight.ids.contains(&id));
        if !flies {
            self.pending.retain(|pending| pending.id != id);
        }
        !flies
    }

    /// What is live here before the store has it, of this route, in order.
    pub fn live_of<'a>(&'a self, route: &'a RouteName) -> impl Iterator<Item = (&'a Proposal, &'a Request)> {
        let live = |pending: &&Pending| pending.route == *route && pending.proposal.takes_back();
        self.pending.iter().filter(live).map(|pending| (&pending.proposal, &pending.request))
    }

    /// The next commit, if there is one to make and none is under way: all that waits, tried on what the store has. `spec` has
    /// each route as the config asks for it.
    pub fn commit<'a>(
        &mut self,
        spec: impl Fn(&RouteName) -> Result<&'a Arc<RouteSpec>, WeightsError>,
    ) -> (Settled, Option<Commit>) {
        let mut settled = Settled::default();
        let Some(base) = self.base.as_mut().filter(|_| self.flight.is_none()) else { return (settled, None) };
        base.forget_missing(|route| spec(route).is_err());
        let mut tried: BTreeMap<RouteName, RouteWeights> = BTreeMap::new();
        let mut ids = HashSet::new();
        let mut doubt = false;
        self.pending.retain(|pending| {
            if pending.waits_for_word() {
                doubt = true;
                return true;
            }
            let Pending { id, route, proposal, request, doubtful } = pending;
            let tried = spec(route).and_then(|spec| {
                let weights = tried.entry(route.clone()).or_insert_with(|| {
                    base.routes.get(route).map(RouteWeights::from_saved).unwrap_or_default()
                });
                if *doubtful && weights.has_been_asked(request) {
                    return Ok(Outcome::Unchanged);
                }
                weights.apply(spec, proposal, request.clone())
            });
            match tried {
                Ok(_) => ids.insert(*id),
                Err(error) => {
                    settled.refused.push((*id, error));
                    settled.routes.insert(route.clone());
                    false
                }
            }
        });
        let shared = tried.into_iter().map(|(name, weights)| (name, weights.shared()));
        let routes: BTreeMap<_, _> =
            shared.filter(|(name, saved)| base.routes.get(name) != Some(saved)).collect();
        let anew = base.was_lost();
        if routes.is_empty() && !anew && base.missing.is_empty() && !doubt {
            self.settle(&ids, &routes, &mut settled);
            return (settled, None);
        }
        let mut commit = Commit { of: base.version.clone(), routes: routes.clone() };
        let again = base.routes.iter().filter(|(name, _)| anew || base.missing.contains(*name));
        let again: Vec<_> = again.filter(|(name, _)| !routes.contains_key(*name)).collect();
        commit.routes.extend(again.into_iter().map(|(name, saved)| (name.clone(), Arc::clone(saved))));
        self.flight = Some(Flight { of: base.version.clone(), ids, routes });
        (settled, Some(commit))
    }

    /// The store has the commit that was under way.
    pub fn committed(&mut self, version: Version) -> Settled {
        let mut settled = Settled::default();
        let Some(Flight { ids, routes, .. }) = self.flight.take() else { return settled };
        let base = self.base.get_or_insert_default();
        // It may have been heard of before, and of what came after it.
        if base.version.as_ref().is_none_or(|known| version.is_later_than(known)) {
            base.version = Some(version);
            settled.routes.extend(routes.keys().cloned());
            base.routes.extend(routes.clone());
            base.missing.clear();
        }
        self.settle(&ids, &routes, &mut settled);
        self.pending.retain(|pending| !pending.waits_for_word());
        settled
    }

    /// The store has something else than the commit that was under way, or was read because of doubt. As [`Shared::heard`].
    pub fn conflict(&mut self, snapshot: Snapshot) -> (BTreeSet<RouteName>, BTreeSet<RouteName>) {
        let of = self.flight.take().and_then(|flight| flight.of);
        let known = self.base.as_ref().and_then(|base| base.version.clone());
        let news = match (&known, &snapshot.version) {
            // Something newer was heard of meanwhile. But a store that was set back is as it says.
            (Some(known), Some(read)) if Some(known) != of.as_ref() && !read.is_later_than(known) => {
                BTreeSet::new()
            }
            _ => self.take(snapshot),
        };
        let own = news.iter().filter(|route| self.has_done(route)).cloned().collect();
        // It was right when it was decided; meanwhile another may lead, or a gate be closed.
        self.pending.retain(|pending| !pending.proposal.is_decided_anew());
        (news, own)
    }

    /// The commit that was under way failed, or nobody knows.
    pub fn failed(&mut self) {
        let Some(flight) = self.flight.take() else { return };
        // What waited behind it was not sent, and is old by now.
        self.pending.retain(|pending| {
            flight.ids.contains(&pending.id)
                || pending.waits_for_word()
                || !pending.proposal.is_decided_anew()
        });
        for pending in self.pending.iter_mut().filter(|pending| flight.ids.contains(&pending.id)) {
            pending.doubtful = true;
        }
    }

    /// The store had this a moment ago. The routes that are other than was known, and those of them that hold a change of this
    /// replica whose answer was lost, or is still to come.
    pub fn heard(&mut self, snapshot: Snapshot) -> (BTreeSet<RouteName>, BTreeSet<RouteName>) {
        let known = self.base.as_ref().and_then(|base| base.version.as_ref());
        let old = match (known, &snapshot.version) {
            // What was heard may be older than what was committed since.
            (Some(known), Some(heard)) => !heard.is_later_than(known),
            // It is gone: what it had goes on here, and is written again at once.
            (_, None) | (None, Some(_)) => false,
        };
        if old {
            return (BTreeSet::new(), BTreeSet::new());
        }
        let news = self.take(snapshot);
        let own = news.iter().filter(|route| self.has_done(route)).cloned().collect();
        (news, own)
    }

    /// Whether something that waits here, or is under way, is in the store already: its answer was lost, or is still to come.
    fn has_done(&self, route: &RouteName) -> bool {
        let Some(weights) = self.route(route).map(RouteWeights::from_saved) else { return false };
        let mut of = self.pending.iter().filter(|pending| pending.route == *route);
        of.any(|pending| weights.has_been_asked(&pending.request))
    }

    /// A route that the store has no more, or has in no form that can be read, stays as it was.
    fn take(&mut self, snapshot: Snapshot) -> BTreeSet<RouteName> {
        let base = self.base.get_or_insert_default();
        base.version = snapshot.version;
        let missing = base.routes.keys().filter(|name| !snapshot.routes.contains_key(*name));
        base.missing = missing.cloned().collect();
        let mut news = BTreeSet::new();
        for (name, saved) in snapshot.routes {
            if base.routes.get(&name) != Some(&saved) {
                news.insert(name.clone());
                base.routes.insert(name, saved);
            }
        }
        news
    }

    fn settle(
        &mut self,
        ids: &HashSet<u64>,
        changed: &BTreeMap<RouteName, Arc<SavedRoute>>,
        settled: &mut Settled,
    ) {
        self.pending.retain(|pending| {
            let done = ids.contains(&pending.id);
            if done {
                let set =
                    matches!(pending.proposal, Proposal::Set(_) | Proposal::Undo(_) | Proposal::AdoptFile);
                if set && changed.contains_key(&pending.route) {
                    settled.set.insert(pending.route.clone());
                }
                settled.done.push(pending.id);
                settled.routes.insert(pending.route.clone());
            }
            !done
        });
    }
}

impl Request {
    /// What nobody asked for but a rollout itself, or the config.
    #[must_use]
    pub fn of(source: Source, at: Timestamp) -> Self {
        Self { source, who: None, reason: None, expected: None, at }
    }
}

impl Replicas {
    /// Whether this one takes rollouts forward now.
    #[must_use]
    pub fn leads(&self, now: Instant) -> bool {
        self.leads_until.is_some_and(|until| now < until)
    }

    /// The first of those that live and do not serve this revision of a route's rollout, in this step, yet.
    #[must_use]
    pub fn behind(&self, route: &RouteName, place: Place, revision: Revision) -> Option<&Arc<str>> {
        let serves = |peer: &Peer| {
            let theirs = peer.standings.get(route);
            theirs.is_some_and(|it| it.is_of(place) && it.step == place.step && it.revision == revision)
        };
        self.peers.iter().find(|peer| peer.live && !serves(peer)).map(|peer| &peer.name)
    }

    /// What the others say of a rollout, those that are gone included.
    pub fn of<'a>(&'a self, route: &'a RouteName, place: Place) -> impl Iterator<Item = &'a Standing> {
        let theirs = self.peers.iter().filter_map(move |peer| peer.standings.get(route));
        theirs.filter(move |standing| standing.is_of(place))
    }
}

impl Peer {
    /// In what it differed from what is served here, when it was last heard of. One that says nothing of all its revisions is known
    /// by its rollouts under way.
    #[must_use]
    pub fn differs(&self, here: &BTreeMap<&RouteName, Revision>) -> Difference {
        if let Some(serves) = &self.serves {
            return serves.differs(here);
        }
        let standings = self.standings.iter().map(|(name, standing)| (name, standing.revision));
        let other = standings.filter(|(name, theirs)| here.get(name).is_some_and(|ours| ours != theirs));
        let routes = other.map(|(name, theirs)| (name.clone(), Some(theirs))).collect();
        Difference { routes, more: false }
    }
}

impl Standing {
    /// Where its rollout is.
    #[must_use]
    pub fn place(&self) -> Place {
        Place { started: self.started, attempt: self.attempt, step: self.step }
    }

    /// Whether it is of this rollout, so that what was seen of both counts together.
    #[must_use]
    pub fn is_of(&self, place: Place) -> bool {
        (self.started, self.attempt) == (place.started, place.attempt)
    }
}

#[cfg(test)]
#[path = "shared_tests.rs"]
mod tests;
