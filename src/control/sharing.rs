//! The state that the replicas have in common, as the control task deals with it: what is asked goes to the store first and is
//! live once it is in there; what the store has is live here; what takes a canary back does not wait.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use arc_swap::ArcSwapOption;
use tokio::sync::{mpsc, watch};

use crate::model::{Problem, RouteName, RouteSpec, Timestamp};
use crate::rollout::Asked;
use crate::state::{
    Commit, Proposal, Replicas, Request, Said, Serves, Settled, Shared, Source, StoreNews, WeightsError,
};

use super::handle::{ChangeError, Reply, RoutesConfig};
use super::steer;
use super::task::Task;

/// How long somebody who asks for a change waits for the store at most, as long as that cannot be reached.
const PATIENCE: Duration = Duration::from_secs(4);
/// The part of the router that its problems are shown under.
const PART: &str = "the replicas' state";

/// The way to the store of the replicas' common state: it says what it has by [`Control::store`](super::Control::store).
#[derive(Debug)]
pub struct StoreLink {
    /// What it is to hold. It answers each one before the next.
    pub commits: mpsc::Sender<Commit>,
    /// What this replica says of itself; nothing before it can say so.
    pub said: watch::Sender<Option<Arc<Said>>>,
}

/// What the control task knows of the replicas' common state.
pub(super) struct Sharing {
    shared: Shared,
    link: StoreLink,
    waiting: HashMap<u64, Waiting>,
    replicas: Arc<Replicas>,
    /// The same, for those who look.
    shown: Arc<ArcSwapOption<Replicas>>,
    /// The replicas were heard of, so that this one knows what it said in an earlier life.
    has_heard: bool,
    /// The revisions that are served; nothing where they are to be looked at again.
    serves: Option<Arc<Serves>>,
    /// Routes that this replica changed since their moves were told last: it has their hooks called.
    own: HashSet<RouteName>,
}

/// Somebody waits for a change to be in the store.
struct Waiting {
    route: RouteName,
    reply: Reply,
    since: Instant,
    /// The change is live here already.
    live: bool,
}

impl Sharing {
    pub(super) fn new(link: StoreLink, shown: Arc<ArcSwapOption<Replicas>>) -> Self {
        Self {
            shared: Shared::default(),
            link,
            waiting: HashMap::new(),
            replicas: Arc::default(),
            shown,
            has_heard: false,
            serves: None,
            own: HashSet::new(),
        }
    }

    pub(super) fn replicas(&self) -> &Replicas {
        &self.replicas
    }

    /// Whether this replica changed a route since that was asked last.
    pub(super) fn take_own(&mut self) -> HashSet<RouteName> {
        std::mem::take(&mut self.own)
    }
}

impl Task {
    /// Has a change made that nobody waits for.
    pub(super) fn share(&mut self, route: &RouteName, proposal: Proposal, request: Request) {
        self.make_live(route, &proposal, &request);
        if let Some(sharing) = &mut self.sharing {
            sharing.shared.propose(route.clone(), proposal, request);
        }
        self.commit();
    }

    /// Has a change made that somebody waits for.
    pub(super) fn share_for(&mut self, route: RouteName, proposal: Proposal, request: Request, reply: Reply) {
        let refused = match self.sharing.as_ref().map(|sharing| sharing.shared.is_known()) {
            Some(true) => self
                .desired
                .weights(&route)
                .is_none()
                .then(|| self.desired.unknown_route(route.as_str()).into()),
            _ => Some(ChangeError::NotShared("it has not been read yet".to_owned())),
        };
        if let Some(error) = refused {
            drop(reply.send(Err(error)));
            return;
        }
        // Which rollout is meant is known here and now.
        let begun = self.desired.weights(&route).and_then(|weights| weights.rollout());
        let proposal = match (proposal, begun.filter(|rollout| rollout.phase.is_active())) {
            (Proposal::Ask(Asked::Abort), Some(rollout)) => Proposal::Abort(rollout.started),
            (proposal, _) => proposal,
        };
        let live = match self.try_live(&route, &proposal, &request) {
            Ok(live) => live,
            Err(error) => return drop(reply.send(Err(error.into()))),
        };
        // What is live was asked of the revision that was in force here.
        let request = Request { expected: request.expected.filter(|_| !live), ..request };
        if let Some(sharing) = &mut self.sharing {
            let id = sharing.shared.propose(route.clone(), proposal, request);
            sharing.waiting.insert(id, Waiting { route, reply, since: Instant::now(), live });
        }
        self.commit();
    }

    /// What takes a canary back is live at once.
    fn make_live(&mut self, route: &RouteName, proposal: &Proposal, request: &Request) {
        // What does not hold any more is nothing to be made.
        let _ = self.try_live(route, proposal, request);
    }

    fn try_live(
        &mut self,
        route: &RouteName,
        proposal: &Proposal,
        request: &Request,
    ) -> Result<bool, WeightsError> {
        if !proposal.takes_back() {
            return Ok(false);
        }
        let touched = self.desired.change(route.as_str(), proposal, request.clone())?;
        if !touched.is_empty() {
            if let Some(sharing) = &mut self.sharing {
                sharing.own.insert(route.clone());
            }
            self.log_weights(route);
            self.batch.weights_changed = true;
            self.batch.touched.merge(touched);
        }
        Ok(true)
    }

    /// Hands what waits to the store, unless that has something under way, or another process has the state.
    pub(super) fn commit(&mut self) {
        if self.frozen.is_some() {
            return;
        }
        let Some(sharing) = self.sharing.as_mut().filter(|sharing| sharing.shared.has_work()) else { return };
        let specs: HashMap<&RouteName, &Arc<RouteSpec>> =
            self.desired.routes().iter().map(|spec| (&spec.name, spec)).collect();
        let spec = |route: &RouteName| {
            specs.get(route).copied().ok_or_else(|| self.desired.unknown_route(route.as_str()))
        };
        let (settled, commit) = sharing.shared.commit(spec);
        if let Some(commit) = commit
            // It takes one at a time, and there is none; unless it has ended, with the router.
            && sharing.link.commits.try_send(commit).is_err()
        {
            sharing.shared.failed();
        }
        self.settled(settled);
    }

    /// What the store says.
    pub(super) fn take_store(&mut self, news: StoreNews) {
        let Some(sharing) = &mut self.sharing else { return };
        match news {
            StoreNews::Heard(snapshot) => {
                let first = !sharing.shared.is_known();
                let (routes, own) = sharing.shared.heard(snapshot);
                sharing.own.extend(own);
                if first {
                    self.state_is_known();
                } else {
                    self.adopt(&routes);
                }
                self.commit();
            }
            StoreNews::Committed(version) => {
                let settled = sharing.shared.committed(version);
                sharing.own.extend(settled.routes.iter().cloned());
                self.telemetry.state_saved();
                self.settled(settled);
                self.commit();
            }
            StoreNews::Conflict(snapshot) => {
                let (routes, own) = sharing.shared.conflict(snapshot);
                sharing.own.extend(own);
                self.telemetry.state_conflict();
                self.adopt(&routes);
                self.give_up("others change it all the time");
                self.commit();
            }
            // It has been told, as a problem of the object.
            StoreNews::Unreadable => {}
            StoreNews::Failed(why) => {
                sharing.shared.failed();
                self.telemetry.state_not_shared();
                self.give_up(&why);
                self.commit();
                self.tell_whether_shared(Some(why));
            }
            StoreNews::Replicas(replicas) => self.take_replicas(replicas),
        }
        if self.frozen.is_some() {
            self.refuse_waiting();
        }
        self.tell_whether_shared(None);
    }

    /// Another process has the state: whoever still waits asks that one.
    pub(super) fn refuse_waiting(&mut self) {
        let Some(sharing) = &mut self.sharing else { return };
        let idle: Vec<u64> =
            sharing.waiting.keys().copied().filter(|id| sharing.shared.forget(*id)).collect();
        for waiting in idle.iter().filter_map(|id| sharing.waiting.remove(id)) {
            drop(waiting.reply.send(Err(ChangeError::HandedOver)));
        }
    }

    /// Whether a canary was taken back here, and the store does not know it yet.
    pub(super) fn has_taken_back_alone(&self) -> bool {
        self.sharing.as_ref().is_some_and(|sharing| sharing.shared.has_live())
    }

    /// This process says nothing more of itself: another one of this replica does.
    pub(super) fn fall_silent(&self) {
        if let Some(sharing) = &self.sharing {
            sharing.link.said.send_replace(None);
        }
    }

    /// The store was heard of for the first time: from now on its weights are those in force, and the config is to be in it.
    fn state_is_known(&mut self) {
        self.batch.quiet = true;
        self.batch.weights_changed = true;
        let routes: BTreeSet<_> = self.desired.routes().iter().map(|spec| spec.name.clone()).collect();
        self.adopt(&routes);
        let touched = self.desired.await_state(false);
        self.batch.touched.merge(touched);
        self.readiness.await_state(false);
        for spec in self.desired.routes() {
            self.tell_if_restored(spec);
        }
        self.recall();
        self.propose_config();
    }

    /// A config came into force: its routes have the weights that the store has, and the store is to know what it asks for.
    pub(super) fn share_config(&mut self, config: RoutesConfig) {
        let at = Timestamp::from(SystemTime::now());
        let Some(sharing) = &self.sharing else { return };
        let touched = self.desired.follow_routes(config.routes, config.statics, &sharing.shared, at);
        self.batch.touched.merge(touched);
        if sharing.shared.is_known() {
            let pending = sharing.shared.live_routes().cloned().collect();
            self.adopt(&pending);
            self.propose_config();
        }
    }

    /// Has the store know what the config asks for, where it does not.
    fn propose_config(&mut self) {
        let at = Timestamp::from(SystemTime::now());
        let Some(sharing) = &mut self.sharing else { return };
        sharing.shared.forget_config();
        let news = self.desired.routes().iter().filter(|spec| sharing.shared.lacks_config(spec, at));
        let news: Vec<_> = news.collect();
        for spec in news {
            sharing.shared.propose(spec.name.clone(), Proposal::AdoptFile, Request::of(Source::File, at));
        }
        self.commit();
    }

    /// Takes these routes' state from the common one; what was made live here meanwhile is made so again.
    fn adopt(&mut self, routes: &BTreeSet<RouteName>) {
        let live = self.has_taken_back_alone();
        for route in routes {
            let Some(sharing) = &self.sharing else { return };
            let Some(known) = sharing.shared.route(route) else { continue };
            let mut touched = self.desired.adopt(route, known);
            for (proposal, request) in live.then(|| sharing.shared.live_of(route)).into_iter().flatten() {
                // What does not hold any more is nothing to be made.
                if let Ok(again) = self.desired.change(route.as_str(), proposal, request.clone()) {
                    touched.merge(again);
                }
            }
            if !touched.is_empty() {
                // What was so before this process began has been told.
                if !self.batch.quiet {
                    self.log_weights(route);
                }
                self.batch.weights_changed = true;
                self.batch.touched.merge(touched);
            }
        }
    }

    fn settled(&mut self, settled: Settled) {
        let Settled { done, refused, routes, set } = settled;
        self.adopt(&routes);
        for route in set {
            // The first revision is how it was from the start.
            let weights = self.desired.weights(&route);
            if weights.is_some_and(|weights| weights.revision().0 > 1) {
                self.service_events.weights_set(&route, &self.desired);
            }
        }
        let Some(sharing) = &mut self.sharing else { return };
        for (id, error) in refused {
            if let Some(waiting) = sharing.waiting.remove(&id) {
                // What is live here and was done by another meanwhile is done.
                match waiting.live {
                    true => self.batch.replies.push((waiting.route, waiting.reply)),
                    false => drop(waiting.reply.send(Err(error.into()))),
                }
            }
        }
        for waiting in done.iter().filter_map(|id| sharing.waiting.remove(id)) {
            self.batch.replies.push((waiting.route, waiting.reply));
        }
        self.batch.urgent |= !self.batch.replies.is_empty();
    }

    /// Answers those who have waited long enough: their changes are not made, save those that are live here.
    fn give_up(&mut self, why: &str) {
        let Some(sharing) = &mut self.sharing else { return };
        let late =
            sharing.waiting.iter().filter(|(_, waiting)| waiting.since.elapsed() >= PATIENCE || waiting.live);
        let late: Vec<u64> = late.map(|(id, _)| *id).collect();
        for id in late {
            let Some(waiting) = sharing.waiting.remove(&id) else { continue };
            if waiting.live {
                self.batch.replies.push((waiting.route, waiting.reply));
            } else {
                sharing.shared.forget(id);
                drop(waiting.reply.send(Err(ChangeError::NotShared(why.to_owned()))));
            }
        }
        self.batch.urgent |= !self.batch.replies.is_empty();
    }

    /// Shows that what was asked here is not in the store, as long as that is so.
    fn tell_whether_shared(&mut self, why: Option<String>) {
        let waits = self.sharing.as_ref().is_some_and(|sharing| sharing.shared.waits());
        let problems = match why.filter(|_| waits) {
            Some(why) => vec![Problem::new(
                format!("the last changes of weights are not shared with the other replicas: {why}"),
                "it is tried again all the time; a canary that was taken back here may still be live on the others",
            )],
            // As it was told.
            None if waits => return,
            None => Vec::new(),
        };
        if self.parts.get(PART).map_or(&[][..], Vec::as_slice) != problems {
            problems.iter().for_each(|problem| self.telemetry.problem_found(problem));
            for gone in self.parts.insert(PART, problems).iter().flatten() {
                self.telemetry.problem_gone(gone);
            }
            self.batch.problems_changed = true;
        }
    }

    fn take_replicas(&mut self, replicas: Replicas) {
        let led = self.leads();
        let Some(sharing) = &mut self.sharing else { return };
        sharing.replicas = Arc::new(replicas);
        sharing.shown.store(Some(Arc::clone(&sharing.replicas)));
        self.recall();
        // What this one may begin now, it does.
        self.batch.weights_changed |= self.leads() && !led;
    }

    /// What this replica had seen of the rollouts under way in an earlier life counts again.
    fn recall(&mut self) {
        let Some(sharing) = &mut self.sharing else { return };
        if sharing.has_heard || sharing.replicas.me.is_empty() || !sharing.shared.is_known() {
            return;
        }
        sharing.has_heard = true;
        for (route, standing) in sharing.replicas.mine.iter() {
            if let Some(rollout) = self.desired.judged(route) {
                rollout.recall(standing.place(), standing.held_ms, &standing.judge);
            }
        }
        self.publish_standings();
    }

    /// The same, where weights or routes have changed.
    pub(super) fn say_what_is_served(&mut self) {
        if let Some(sharing) = &mut self.sharing {
            sharing.serves = None;
        }
        self.publish_standings();
    }

    /// Says what this replica serves, and what it has seen of the rollouts under way.
    pub(super) fn publish_standings(&mut self) {
        let Some(sharing) = self.sharing.as_mut().filter(|sharing| sharing.has_heard) else { return };
        if self.frozen.is_some() {
            return;
        }
        let table = self.table.load();
        let serves = Arc::clone(sharing.serves.get_or_insert_with(|| {
            let routes = table.routes().iter().map(|route| {
                let changed =
                    self.desired.weights(route.name()).and_then(|weights| weights.history().next_back());
                (route.name(), route.revision, changed.map(|entry| entry.time).unwrap_or_default())
            });
            Arc::new(Serves::of(routes))
        }));
        let standings = steer::standings(&self.desired, &table, sharing.shared.live_routes());
        sharing.link.said.send_if_modified(|known| {
            let same =
                known.as_ref().is_some_and(|known| known.standings == standings && known.serves == serves);
            if !same {
                *known = Some(Arc::new(Said { standings, serves }));
            }
            !same
        });
    }

    /// Whether this process may begin rollouts, and take them forward.
    pub(super) fn leads(&self) -> bool {
        self.sharing.as_ref().is_none_or(|sharing| sharing.replicas.leads(Instant::now()))
    }

    /// What this process takes over includes what the one before had seen of the rollouts under way.
    pub(super) fn has_inherited(&mut self) {
        if let Some(sharing) = &mut self.sharing {
            sharing.has_heard = true;
        }
    }

    /// The routes with changes that are on their way to the store.
    pub(super) fn pending_routes(&self) -> HashSet<RouteName> {
        let shared = self.sharing.as_ref().map(|sharing| &sharing.shared);
        shared.map(|shared| shared.pending_routes().into_iter().cloned().collect()).unwrap_or_default()
    }

    /// Whether a change of this route is on its way to the store.
    pub(super) fn is_pending(&self, route: &RouteName) -> bool {
        self.sharing.as_ref().is_some_and(|sharing| sharing.shared.is_pending(route))
    }
}
