//! The control task: the only writer of the routing table.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime};

use arc_swap::ArcSwap;
use tokio::sync::{Mutex, mpsc, watch};
use tokio::task::JoinHandle;

use crate::hooks::Hooks;
use crate::model::{
    ClusterChange, EndpointPhase, Moment, Problem, RouteName, RouteSpec, ServiceEvent, ServiceKey, Timestamp,
};
use crate::routing::{Compiler, RoutingTable};
use crate::state::{Desired, Proposal, Replicas, Request, SavedState, Source, Touched};
use crate::telemetry::Telemetry;

use super::handle::{ChangeError, Control, Done, Message, Pen, Reply, RoutesConfig, WatchProblems};
use super::moves::{self, Outside};
use super::readiness::Readiness;
use super::saver::{self, Saver};
use super::service_events::ServiceEvents;
use super::sharing::{Sharing, StoreLink};
use super::state_file::StateFile;
use super::steer::{self, RolloutViews, Steering};

/// How many messages may wait.
const QUEUE: usize = 1024;
/// How long a change from the cluster waits for others to come along. Together with a compile this stays far below the
/// 50 ms in which a pod's news must be live.
const SETTLE: Duration = Duration::from_millis(5);

/// What a control task starts from.
#[derive(Debug)]
pub struct Start {
    /// The first config.
    pub config: RoutesConfig,
    /// What an earlier run saved.
    pub saved: SavedState,
    /// Where the state is saved; nothing keeps it in memory alone, or with the other replicas.
    pub state_file: Option<StateFile>,
    /// Where the state is that the replicas have in common; nothing where this one has its own.
    pub store: Option<StoreLink>,
    /// The router's metrics and events.
    pub telemetry: Arc<Telemetry>,
    /// Takes what is done to routes, for the Events on their Services; it is never waited for.
    pub service_events: Option<mpsc::Sender<ServiceEvent>>,
    /// When the state is this process's own.
    pub begin: Begin,
}

/// When the state is this process's own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Begin {
    /// From the start.
    #[default]
    AtOnce,
    /// The process before has it until [`Control::take_over`] and [`Control::thaw`].
    AfterHandOver,
}

/// Starts the control task; it ends when every [`Control`] is gone. The first table is published before this returns.
#[must_use]
pub fn start(start: Start) -> (Control, JoinHandle<()>) {
    let (tell, messages) = mpsc::channel(QUEUE);
    let (want, wanted) = watch::channel(Arc::default());
    let pen = Arc::new(Mutex::new(()));
    let frozen = match start.begin {
        Begin::AtOnce => None,
        // Nobody else has it yet.
        Begin::AfterHandOver => Arc::clone(&pen).try_lock_owned().ok().map(Frozen::new),
    };
    let (saver, saved) = saver::start(start.state_file, Arc::clone(&pen), Arc::clone(&start.telemetry));
    let control = Control {
        tell,
        table: Arc::default(),
        problems: Arc::default(),
        readiness: Arc::default(),
        wanted,
        saved,
        rollouts: Arc::default(),
        replicas: Arc::default(),
        alone: Arc::default(),
        pen,
    };
    let mut task = Task {
        desired: Desired::restored(start.saved),
        compiler: Compiler::default(),
        table: Arc::clone(&control.table),
        published_problems: Arc::clone(&control.problems),
        readiness: Arc::clone(&control.readiness),
        want,
        saver,
        rollouts: Arc::clone(&control.rollouts),
        steering: Steering::default(),
        hooks: Hooks::start(Arc::clone(&start.telemetry)),
        service_events: ServiceEvents::new(start.service_events, Arc::clone(&start.telemetry)),
        telemetry: start.telemetry,
        watches: BTreeMap::new(),
        parts: BTreeMap::new(),
        known_problems: BTreeMap::new(),
        // What an earlier run brought about has been told.
        batch: Batch { quiet: true, ..Batch::default() },
        frozen,
        alone: Arc::clone(&control.alone),
        sharing: start.store.map(|store| Sharing::new(store, Arc::clone(&control.replicas))),
    };
    task.desired.await_state(task.sharing.is_some());
    task.readiness.await_state(task.sharing.is_some());
    task.take_config(start.config);
    task.finish_batch();
    (control, tokio::spawn(task.run(messages)))
}

pub(super) struct Task {
    pub(super) desired: Desired,
    compiler: Compiler,
    pub(super) table: Arc<ArcSwap<RoutingTable>>,
    published_problems: Arc<ArcSwap<Vec<Problem>>>,
    pub(super) readiness: Arc<Readiness>,
    want: watch::Sender<Arc<BTreeSet<ServiceKey>>>,
    saver: Saver,
    rollouts: Arc<ArcSwap<RolloutViews>>,
    steering: Steering,
    hooks: Hooks,
    pub(super) service_events: ServiceEvents,
    pub(super) telemetry: Arc<Telemetry>,
    watches: BTreeMap<WatchProblems, Vec<Problem>>,
    pub(super) parts: BTreeMap<&'static str, Vec<Problem>>,
    /// Problems of routes that were logged and are still there, and a route that has each.
    known_problems: BTreeMap<Problem, RouteName>,
    pub(super) batch: Batch,
    /// Another process has the state.
    pub(super) frozen: Option<Frozen>,
    /// A canary was taken back here, which the other replicas cannot know yet.
    alone: Arc<AtomicBool>,
    /// The state is the replicas' common one.
    pub(super) sharing: Option<Sharing>,
}

/// The state while another process has it.
pub(super) struct Frozen {
    /// Keeps the saver from writing.
    _pen: Pen,
    /// A config that came meanwhile.
    config: Option<RoutesConfig>,
}

impl Frozen {
    fn new(pen: Pen) -> Self {
        Self { _pen: pen, config: None }
    }
}

/// What the task does next.
enum Next {
    Message(Box<Message>),
    Look,
    End,
}

/// What has been taken in since the last table.
#[derive(Default)]
pub(super) struct Batch {
    pub(super) touched: Touched,
    pub(super) replies: Vec<(RouteName, Reply)>,
    pub(super) weights_changed: bool,
    pub(super) problems_changed: bool,
    /// Another process has told what rollouts did.
    pub(super) quiet: bool,
    /// Somebody waits for an answer.
    pub(super) urgent: bool,
}

impl Task {
    async fn run(mut self, mut messages: mpsc::Receiver<Message>) {
        loop {
            match self.next(&mut messages).await {
                Next::Message(message) => self.take(*message),
                Next::Look => {
                    self.steer();
                    continue;
                }
                Next::End => return,
            }
            let settled = tokio::time::Instant::now() + SETTLE;
            loop {
                match messages.try_recv() {
                    Ok(message) => self.take(message),
                    Err(_) if self.batch.urgent || self.batch.is_empty() => break,
                    Err(_) => match tokio::time::timeout_at(settled, messages.recv()).await {
                        Ok(Some(message)) => self.take(message),
                        Ok(None) | Err(_) => break,
                    },
                }
                if tokio::time::Instant::now() >= settled {
                    break;
                }
            }
            self.finish_batch();
        }
    }

    /// The next message, or that it is time to look at the rollouts under way: however many messages there are.
    async fn next(&self, messages: &mut mpsc::Receiver<Message>) -> Next {
        let message = if self.frozen.is_none() && self.desired.has_rollouts() {
            let due = self.steering.due();
            if Instant::now() >= due {
                return Next::Look;
            }
            match tokio::time::timeout_at(due.into(), messages.recv()).await {
                Ok(message) => message,
                Err(_) => return Next::Look,
            }
        } else {
            messages.recv().await
        };
        message.map_or(Next::End, |message| Next::Message(Box::new(message)))
    }

    /// Looks at the rollouts under way, and does what follows.
    fn steer(&mut self) {
        let moments = (Instant::now(), Timestamp::from(SystemTime::now()));
        let table = self.table.load_full();
        let replicas = self.sharing.as_ref().map(Sharing::replicas);
        let looked = self.steering.look(&mut self.desired, &table, &self.hooks, replicas, moments);
        for (route, proposal) in looked.decided {
            // What is on its way is decided.
            if proposal.takes_back() || !self.is_pending(&route) {
                self.go_on(&route, proposal, moments.1);
            }
        }
        // Evidence is nothing that replicas have in common.
        self.batch.weights_changed |= looked.save && self.sharing.is_none();
        if !self.batch.weights_changed {
            self.show_rollouts(steer::views_under_way);
        }
        self.finish_batch();
        self.publish_standings();
    }

    /// Makes a change that nobody asked for but a rollout itself.
    fn go_on(&mut self, route: &RouteName, proposal: Proposal, at: Timestamp) {
        let request = Request::of(Source::Rollout, at);
        if self.sharing.is_some() {
            return self.share(route, proposal, request);
        }
        // What does not hold any more is nothing to be made.
        let touched = self.desired.change(route.as_str(), &proposal, request).unwrap_or_default();
        if !touched.is_empty() {
            self.log_weights(route);
        }
        self.batch.weights_changed = true;
        self.batch.touched.merge(touched);
    }

    fn take(&mut self, message: Message) {
        match message {
            Message::Config(config) => match &mut self.frozen {
                Some(frozen) => frozen.config = Some(config),
                None => self.take_config(config),
            },
            Message::Cluster(change) => {
                if let ClusterChange::NamespaceForgotten(gone) = &change {
                    // Nobody watches there any more, so nobody will say that the trouble is over.
                    self.watches.retain(|of, _| of.namespace() != gone);
                    self.batch.problems_changed = true;
                }
                self.batch.touched.merge(self.desired.apply_cluster(change));
            }
            Message::Watch { of, problems } => {
                if problems.is_empty() {
                    self.watches.remove(&of);
                } else {
                    self.watches.insert(of, problems);
                }
                self.batch.problems_changed = true;
            }
            Message::Problems(part, problems) => {
                self.parts.insert(part, problems);
                self.batch.problems_changed = true;
            }
            Message::Own(own) => self.batch.touched.merge(self.desired.set_own(own)),
            Message::Touched(services) => self.batch.touched.services.extend(services),
            // One who does not wait for the answer any more needs none.
            Message::Weights { reply, .. } if self.frozen.is_some() => {
                drop(reply.send(Err(ChangeError::HandedOver)));
            }
            Message::Weights { route, change, request, reply } => {
                self.take_weights(&route, change, request, reply);
            }
            Message::History { route, reply } => {
                self.batch.urgent = true;
                let weights = route.parse::<RouteName>().ok().and_then(|name| self.desired.weights(&name));
                let _ = reply.send(weights.map(|w| w.history().cloned().collect()));
            }
            // The next process would not know of it: this one has to tell the others first.
            Message::HandOver { reply, .. } if self.has_taken_back_alone() => drop(reply),
            Message::HandOver { pen, reply } => {
                self.fall_silent();
                if reply.send(self.desired.to_saved()).is_ok() {
                    self.frozen = Some(Frozen::new(pen));
                    self.refuse_waiting();
                }
            }
            Message::TakeOver { state, reply } => {
                if self.sharing.is_some() {
                    self.desired.inherit(&state);
                    self.has_inherited();
                } else {
                    let touched = self.desired.restore(state, Timestamp::from(SystemTime::now()));
                    self.batch.touched.merge(touched);
                }
                self.batch.weights_changed = true;
                self.batch.quiet = true;
                self.finish_batch();
                let _ = reply.send(());
            }
            Message::Thaw => {
                if let Some(config) = self.frozen.take().and_then(|frozen| frozen.config) {
                    self.take_config(config);
                }
                // What could not begin meanwhile may.
                self.batch.weights_changed = true;
                self.commit();
                self.publish_standings();
            }
            Message::Store(news) => self.take_store(news),
        }
    }

    fn take_weights(&mut self, route: &str, change: Proposal, request: Request, reply: Reply) {
        self.batch.urgent = true;
        let by_hand = !matches!(change, Proposal::Ask(_));
        let Ok(name) = route.parse::<RouteName>() else {
            return drop(reply.send(Err(self.desired.unknown_route(route).into())));
        };
        if self.sharing.is_some() {
            return self.share_for(name, change, request, reply);
        }
        match self.desired.change(route, &change, request) {
            Ok(touched) => {
                self.batch.weights_changed |= !touched.is_empty();
                touched.routes.iter().for_each(|route| self.log_weights(route));
                if by_hand {
                    let set = &touched.routes;
                    set.iter().for_each(|route| self.service_events.weights_set(route, &self.desired));
                }
                self.batch.touched.merge(touched);
                self.batch.replies.push((name, reply));
            }
            Err(error) => drop(reply.send(Err(error.into()))),
        }
    }

    fn take_config(&mut self, config: RoutesConfig) {
        if self.sharing.is_some() {
            self.share_config(config);
        } else {
            self.take_own_config(config);
        }
        self.batch.weights_changed = true;
        self.batch.urgent = true;
        let wanted = self.desired.wanted_services();
        self.want.send_if_modified(|known| {
            let news = **known != wanted;
            if news {
                *known = Arc::new(wanted);
            }
            news
        });
    }

    fn take_own_config(&mut self, config: RoutesConfig) {
        let now = Timestamp::from(SystemTime::now());
        let before: HashSet<_> = self.desired.routes().iter().map(|r| r.name.clone()).collect();
        let (touched, changed) = self.desired.set_routes(config.routes, config.statics, now);
        for route in changed.iter().filter(|route| before.contains(*route)) {
            self.log_weights(route);
            self.service_events.weights_set(route, &self.desired);
        }
        for spec in self.desired.routes().iter().filter(|spec| !before.contains(&spec.name)) {
            self.tell_if_restored(spec);
        }
        self.batch.touched.merge(touched);
    }

    /// Tells that a route has other weights than the config says.
    pub(super) fn tell_if_restored(&self, spec: &RouteSpec) {
        let weights = self.desired.weights(&spec.name);
        if let Some(weights) = weights.filter(|w| w.split() != spec.weights()) {
            self.telemetry.weights_restored(&spec.name, weights.revision(), weights.split(), &spec.weights());
        }
    }

    pub(super) fn log_weights(&self, route: &RouteName) {
        let Some(weights) = self.desired.weights(route) else { return };
        let Some(last) = weights.history().next_back() else { return };
        // A rollout that left them as they were is told of as such.
        if last.before == last.after {
            return;
        }
        self.telemetry.weights_changed(
            route,
            last.revision,
            &last.source,
            weights.split(),
            last.who.as_deref(),
            last.reason.as_deref(),
        );
    }

    /// Compiles and publishes what the batch touched, hands the state over to be saved, answers those who wait, and
    /// tells of problems: in this order, for the first must not wait for the last.
    fn finish_batch(&mut self) {
        let batch = std::mem::take(&mut self.batch);
        self.alone.store(self.has_taken_back_alone(), Ordering::Release);
        let own = self.sharing.as_mut().map(Sharing::take_own);
        let mut problems_changed = batch.problems_changed;
        if !batch.touched.is_empty() {
            let started = Instant::now();
            let now = Moment::of(started);
            let table = Arc::new(self.compiler.compile(&self.desired, &batch.touched, now));
            self.telemetry.table_published(table.generation(), table.routes().len(), started.elapsed());
            let before = self.table.swap(Arc::clone(&table));
            moves::tell_of_endpoints(&before, &table, &self.telemetry);
            problems_changed |= batch.touched.everything || problems_differ(&before, &table);
        }
        if batch.weights_changed {
            if self.sharing.is_none() {
                self.saver.save(self.desired.to_saved());
            }
            let before = self.show_rollouts(steer::views);
            if !batch.quiet {
                self.tell_of_rollouts(&before, own.as_ref());
            }
        }
        // Not for what pods do, which is often: revisions are as they were then.
        if batch.weights_changed || batch.touched.everything || !batch.touched.routes.is_empty() {
            self.say_what_is_served();
        }
        self.answer(batch.replies);
        if !self.readiness.is_complete() && self.desired.is_complete() {
            self.readiness.complete();
        }
        if problems_changed {
            self.publish_problems();
        }
        if (batch.weights_changed || !batch.touched.is_empty()) && self.frozen.is_none() {
            self.begin_rollouts();
        }
    }

    /// Publishes what is shown of rollouts; what was shown before.
    fn show_rollouts(
        &self,
        views: fn(&Desired, &RolloutViews, Option<&Replicas>) -> RolloutViews,
    ) -> Arc<RolloutViews> {
        let before = self.rollouts.load_full();
        let replicas = self.sharing.as_ref().map(Sharing::replicas);
        self.rollouts.store(Arc::new(views(&self.desired, &before, replicas)));
        before
    }

    /// `own` are the routes that this replica moved; nothing where it is the only one.
    fn tell_of_rollouts(&self, before: &RolloutViews, own: Option<&HashSet<RouteName>>) {
        let (now, at) = (self.rollouts.load(), Timestamp::from(SystemTime::now()));
        let did = |route: &RouteName| own.is_none_or(|own| own.contains(route));
        let outside = Outside { hooks: &self.hooks, events: &self.service_events };
        moves::tell_of_rollouts(before, &now, &self.desired, &self.telemetry, outside, did, at);
    }

    /// Begins the rollouts that begin by themselves, and notes whose pods are gone.
    fn begin_rollouts(&mut self) {
        if !self.leads() {
            return;
        }
        let (table, at) = (self.table.load_full(), Timestamp::from(SystemTime::now()));
        let mut changes = Vec::new();
        let pending = self.pending_routes();
        for route in table.routes().iter().filter(|route| route.known && !pending.contains(route.name())) {
            let Some(canary) = route.spec.rollout.as_ref().map(|rollout| &rollout.canary) else { continue };
            let version = route.versions.iter().find(|version| version.name == *canary);
            let (Some(version), Some(weights)) = (version, self.desired.weights(route.name())) else {
                continue;
            };
            if version.members.is_empty() {
                if weights.misses_that_canary_left(&route.spec) {
                    changes.push((route.name().clone(), Proposal::CanaryIsGone));
                }
            } else if weights.begins_by_itself(&route.spec)
                && version.members.iter().any(|member| member.phase == EndpointPhase::Ready)
            {
                changes.push((route.name().clone(), Proposal::Begin));
            }
        }
        if !changes.is_empty() {
            changes.into_iter().for_each(|(route, proposal)| self.go_on(&route, proposal, at));
            // Ends: what has begun does not begin again.
            self.finish_batch();
        }
    }

    fn answer(&self, replies: Vec<(RouteName, Reply)>) {
        let table = self.table.load();
        for (name, reply) in replies {
            let done = match table.route(name.as_str()) {
                Some(route) => Ok(Done { route: Arc::clone(route), state: self.saver.last() }),
                // A config that came in the same moment took the route away.
                None => Err(self.desired.unknown_route(name.as_str()).into()),
            };
            // One who does not wait for the answer any more needs none.
            let _ = reply.send(done);
        }
    }

    fn publish_problems(&mut self) {
        let table = self.table.load();
        let mut of_routes = BTreeMap::new();
        for route in table.routes() {
            for problem in &route.problems {
                of_routes.entry(problem.clone()).or_insert_with(|| route.name().clone());
            }
        }
        for (problem, route) in
            of_routes.iter().filter(|(problem, _)| !self.known_problems.contains_key(*problem))
        {
            self.telemetry.route_problem(route, problem, true);
        }
        for (problem, route) in
            self.known_problems.iter().filter(|(problem, _)| !of_routes.contains_key(*problem))
        {
            self.telemetry.route_problem(route, problem, false);
        }
        self.known_problems = of_routes;
        // Logged by those who told of them. Several watches may have one problem: it is shown once.
        let general: BTreeSet<Problem> =
            self.parts.values().chain(self.watches.values()).flatten().cloned().collect();
        self.published_problems.store(Arc::new(general.into_iter().collect()));
    }
}

fn problems_differ(before: &RoutingTable, now: &RoutingTable) -> bool {
    let pairs = before.routes().iter().zip(now.routes());
    pairs
        .filter(|(before, now)| !Arc::ptr_eq(before, now))
        .any(|(before, now)| before.problems != now.problems)
}

impl Batch {
    fn is_empty(&self) -> bool {
        self.touched.is_empty() && !self.problems_changed && self.replies.is_empty()
    }
}

#[cfg(test)]
#[path = "task_tests.rs"]
mod tests;
