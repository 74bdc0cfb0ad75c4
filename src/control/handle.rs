//! How other rooms speak to the control task.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::{ArcSwap, ArcSwapOption};
use tokio::sync::{Mutex, OwnedMutexGuard, mpsc, oneshot, watch};

use crate::model::{
    ClusterChange, ClusterKind, Namespace, Problem, Revision, RouteSpec, ServiceKey, Share, StaticEndpoint,
};
use crate::rollout::Asked;
use crate::routing::{Route, RoutingTable};
use crate::state::{
    OwnAddresses, Proposal, Replicas, Request, RevisionEntry, SavedState, StoreNews, WeightsError,
};

use super::readiness::Readiness;
use super::saver::Saved;
use super::steer::RolloutViews;

/// The part of a config that routing follows.
#[derive(Clone, Debug, Default)]
pub struct RoutesConfig {
    /// The routes.
    pub routes: Vec<RouteSpec>,
    /// Hand-given pods, where there is no cluster.
    pub statics: Option<BTreeMap<ServiceKey, Vec<StaticEndpoint>>>,
}

/// What the control task is told.
#[derive(Debug)]
pub(super) enum Message {
    Config(RoutesConfig),
    Cluster(ClusterChange),
    /// A watch's problems, in place of those it had: of the watch itself, or of its objects.
    Watch {
        of: WatchProblems,
        problems: Vec<Problem>,
    },
    /// Problems of a whole part of the router, by its name; none when they are gone.
    Problems(&'static str, Vec<Problem>),
    Touched(Vec<ServiceKey>),
    /// Where this process takes requests.
    Own(OwnAddresses),
    Weights {
        route: String,
        change: Proposal,
        request: Request,
        reply: Reply,
    },
    /// What the store of the replicas' common state says.
    Store(StoreNews),
    History {
        route: String,
        reply: oneshot::Sender<Option<Vec<RevisionEntry>>>,
    },
    /// Another process gets the state: it is frozen here.
    HandOver {
        pen: Pen,
        reply: oneshot::Sender<SavedState>,
    },
    /// The state of the process before, in place of this one's.
    TakeOver {
        state: SavedState,
        reply: oneshot::Sender<()>,
    },
    /// The state may change, and be written, again.
    Thaw,
}

/// The right to write the state: who holds it keeps others from it.
pub(super) type Pen = OwnedMutexGuard<()>;

/// Whose problems they are.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum WatchProblems {
    Itself(ClusterKind, Namespace),
    Objects(ClusterKind, Namespace),
}

impl WatchProblems {
    pub(super) fn namespace(&self) -> &Namespace {
        match self {
            Self::Itself(_, namespace) | Self::Objects(_, namespace) => namespace,
        }
    }
}

pub(super) type Reply = oneshot::Sender<Result<Done, ChangeError>>;

/// A change is live; its state has this number.
#[derive(Debug)]
pub(super) struct Done {
    pub(super) route: Arc<Route>,
    pub(super) state: u64,
}

/// Why a change of weights was not made.
#[derive(Debug, thiserror::Error)]
pub enum ChangeError {
    /// It was refused.
    #[error(transparent)]
    Refused(#[from] WeightsError),
    /// The router is stopping.
    #[error("the router is stopping")]
    Stopping,
    /// Another process has the state, or is about to.
    #[error("the router is handing over to a new process")]
    HandedOver,
    /// The state is the replicas', and where it is kept cannot be reached.
    #[error(
        "the weights are shared with the other replicas, and their state cannot be written: {0}; nothing was changed here: \
         try again, or `rollout abort`, which does not wait for it"
    )]
    NotShared(String),
}

/// How long a change's answer waits for the state to be on disk.
const SAVE_PATIENCE: Duration = Duration::from_secs(2);

/// Speaks to the control task; cheap to clone.
#[derive(Clone, Debug)]
pub struct Control {
    pub(super) tell: mpsc::Sender<Message>,
    pub(super) table: Arc<ArcSwap<RoutingTable>>,
    pub(super) problems: Arc<ArcSwap<Vec<Problem>>>,
    pub(super) readiness: Arc<Readiness>,
    pub(super) wanted: watch::Receiver<Arc<std::collections::BTreeSet<ServiceKey>>>,
    pub(super) saved: watch::Receiver<Saved>,
    pub(super) rollouts: Arc<ArcSwap<RolloutViews>>,
    pub(super) replicas: Arc<ArcSwapOption<Replicas>>,
    pub(super) pen: Arc<Mutex<()>>,
}

impl Control {
    /// The table in force.
    #[must_use]
    pub fn table(&self) -> &Arc<ArcSwap<RoutingTable>> {
        &self.table
    }

    /// Problems that belong to no single route.
    #[must_use]
    pub fn problems(&self) -> Vec<Problem> {
        let mut problems = self.problems.load().to_vec();
        if let Some(hindrance) = self.readiness.hindrance() {
            problems.push(Problem::new(
                format!("the router is not ready: {hindrance}"),
                "it is ready by itself once that is over; other problems may say what is in the way",
            ));
        }
        if let Some(error) = self.saved.borrow().failure() {
            problems.push(Problem::new(
                format!("the last weights are not saved and would be lost by a restart: {error}"),
                "it is tried again every few seconds",
            ));
        }
        problems
    }

    /// Whether the router is ready.
    #[must_use]
    pub fn readiness(&self) -> &Arc<Readiness> {
        &self.readiness
    }

    /// The Services that the routes name, as they change.
    #[must_use]
    pub fn wanted_services(&self) -> watch::Receiver<Arc<std::collections::BTreeSet<ServiceKey>>> {
        self.wanted.clone()
    }

    /// A config came into force.
    pub async fn config(&self, config: RoutesConfig) {
        self.send(Message::Config(config)).await;
    }

    /// Something was heard from the cluster. Waits while the queue is full, so that a storm of events is held back where
    /// it comes from.
    pub async fn cluster(&self, change: ClusterChange) {
        self.send(Message::Cluster(change)).await;
    }

    /// What hinders a watch, in place of what did; nothing when it is well again.
    pub async fn trouble(&self, namespace: Namespace, kind: ClusterKind, problems: Vec<Problem>) {
        self.send(Message::Watch { of: WatchProblems::Itself(kind, namespace), problems }).await;
    }

    /// The objects of a watch that cannot be used, in place of those before; nothing when all can.
    pub async fn bad_objects(&self, namespace: Namespace, kind: ClusterKind, problems: Vec<Problem>) {
        self.send(Message::Watch { of: WatchProblems::Objects(kind, namespace), problems }).await;
    }

    /// The problems of a part of the router, in place of those it had.
    pub async fn set_problems(&self, part: &'static str, problems: Vec<Problem>) {
        self.send(Message::Problems(part, problems)).await;
    }

    /// This process takes requests there from now on, and is to send none there.
    pub async fn listens_at(&self, own: OwnAddresses) {
        self.send(Message::Own(own)).await;
    }

    /// Something about the endpoints of these Services is to be looked at again. Never waits.
    pub fn touched(&self, services: &[ServiceKey]) {
        // A full queue means that compiles are under way that will see it.
        let _ = self.tell.try_send(Message::Touched(services.to_vec()));
    }

    /// Changes weights: versions left out keep theirs, stable takes the rest. Returns the route as it is then, live, and
    /// saved where that took no longer than a moment.
    ///
    /// # Errors
    /// When the weights are refused, or the router stops; nothing is changed then.
    pub async fn set_weights(
        &self,
        route: &str,
        weights: BTreeMap<String, Share>,
        request: Request,
    ) -> Result<Arc<Route>, ChangeError> {
        self.change(route, Proposal::Set(weights), request).await
    }

    /// Goes back to the weights of a revision, or of the one before the one in force.
    ///
    /// # Errors
    /// When that cannot be done, or the router stops; nothing is changed then.
    pub async fn undo(
        &self,
        route: &str,
        to: Option<Revision>,
        request: Request,
    ) -> Result<Arc<Route>, ChangeError> {
        self.change(route, Proposal::Undo(to), request).await
    }

    /// Asks something of a route's rollout. Returns the route as it is then, live, and saved where that took no longer than a
    /// moment.
    ///
    /// # Errors
    /// When that is not to be had, or the router stops; nothing is changed then.
    pub async fn ask_rollout(
        &self,
        route: &str,
        asked: Asked,
        request: Request,
    ) -> Result<Arc<Route>, ChangeError> {
        self.change(route, Proposal::Ask(asked), request).await
    }

    /// Every route's last rollout, as of a moment ago.
    #[must_use]
    pub fn rollouts(&self) -> Arc<RolloutViews> {
        self.rollouts.load_full()
    }

    /// The replicas that share their state, as far as they are known; nothing where it is this one's own.
    #[must_use]
    pub fn replicas(&self) -> Option<Arc<Replicas>> {
        self.replicas.load_full()
    }

    async fn change(
        &self,
        route: &str,
        change: Proposal,
        request: Request,
    ) -> Result<Arc<Route>, ChangeError> {
        let (reply, answer) = oneshot::channel();
        self.send(Message::Weights { route: route.to_owned(), change, request, reply }).await;
        let done = answer.await.map_err(|_| ChangeError::Stopping)??;
        let mut saved = self.saved.clone();
        // What cannot be saved is a problem that `status` shows; the change is live all the same.
        let _ = tokio::time::timeout(SAVE_PATIENCE, saved.wait_for(|s| s.settled(done.state))).await;
        Ok(done.route)
    }

    /// What the store of the replicas' common state says. Waits while the queue is full.
    pub async fn store(&self, news: StoreNews) {
        self.send(Message::Store(news)).await;
    }

    /// The revisions of a route, oldest first; nothing for an unknown route.
    pub async fn history(&self, route: &str) -> Option<Vec<RevisionEntry>> {
        let (reply, answer) = oneshot::channel();
        self.send(Message::History { route: route.to_owned(), reply }).await;
        answer.await.ok().flatten()
    }

    /// Freezes the state, so that another process may go on with it: from now on it neither changes nor is written. Gives it.
    ///
    /// # Errors
    /// [`ChangeError::Stopping`] when the state is being written and that does not end, or the router stops; nothing is frozen
    /// then.
    pub async fn hand_over(&self) -> Result<SavedState, ChangeError> {
        let pen = tokio::time::timeout(SAVE_PATIENCE, Arc::clone(&self.pen).lock_owned()).await;
        let pen = pen.map_err(|_| ChangeError::Stopping)?;
        let (reply, state) = oneshot::channel();
        self.send(Message::HandOver { pen, reply }).await;
        state.await.map_err(|_| ChangeError::Stopping)
    }

    /// Takes the state of the process before in place of its own; it is live when this returns, and written once
    /// [`Control::thaw`] is called.
    pub async fn take_over(&self, state: SavedState) {
        let (reply, taken) = oneshot::channel();
        self.send(Message::TakeOver { state, reply }).await;
        // Fails only when the task has ended, with the router.
        let _ = taken.await;
    }

    /// The state may change, and be written, again.
    pub async fn thaw(&self) {
        self.send(Message::Thaw).await;
    }

    async fn send(&self, message: Message) {
        // Fails only when the task has ended, with the router.
        let _ = self.tell.send(message).await;
    }
}
