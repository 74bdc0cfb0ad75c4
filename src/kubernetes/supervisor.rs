//! Which watches run: one for each wanted namespace and kind.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use crate::model::{ClusterChange, ClusterKind, Namespace, Problem, SecretData, SecretKey, ServiceKey};
use crate::state::StoreNews;
use crate::telemetry::Telemetry;

use super::access::Client;
use super::faults::Place;
use super::kinds::{Names, Pods, Services, Slices};
use super::store::LeaseRecord;
use super::task::Task;

/// One thing that a watch tells.
#[derive(Clone, Debug, PartialEq)]
pub enum WatchEvent {
    /// The cluster changed. Changes of one namespace and kind come in order.
    Change(ClusterChange),
    /// A watch cannot be opened, and what is known of this kind in this namespace may be old. Told again when the
    /// reason changes, not for each attempt. It has been logged.
    Trouble {
        /// The namespace that is watched.
        namespace: Namespace,
        /// The kind that is watched.
        kind: ClusterKind,
        /// Why, and what to do.
        problem: Problem,
    },
    /// A watch that had trouble is open.
    Recovered {
        /// The namespace that is watched.
        namespace: Namespace,
        /// The kind that is watched.
        kind: ClusterKind,
    },
    /// The objects of a watch that cannot be used as they are: all of them, each time that they change. At most 33.
    /// They have been logged.
    Objects {
        /// The namespace that is watched.
        namespace: Namespace,
        /// The kind that is watched.
        kind: ClusterKind,
        /// The problems; none when all is well again.
        problems: Vec<ObjectProblem>,
    },
    /// Something about a Secret that is watched.
    Secret {
        /// Which one.
        key: SecretKey,
        /// What.
        news: SecretNews,
    },
    /// Something about the replicas' common state.
    Store(StoreNews),
    /// Something about the Leases of the replicas: only the store itself hears it.
    Lease(LeaseNews),
    /// What the API server refuses of this replica's Leases: all of it, each time that it changes. It has been logged.
    Refused(Vec<Problem>),
}

/// What a watch tells of Leases.
#[derive(Clone, Debug, PartialEq)]
pub enum LeaseNews {
    /// There are these.
    All(Vec<LeaseRecord>),
    /// One was added or changed.
    One(LeaseRecord),
    /// The one with this name was deleted.
    Gone(Arc<str>),
}

/// What a watch tells of a Secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SecretNews {
    /// This is in it: told again after each list, the same or not.
    Data(Arc<SecretData>),
    /// It does not exist.
    Gone,
    /// It cannot be watched, and what is known of it may be old; nothing when that is over. It has been logged.
    Trouble(Option<Problem>),
    /// It came, and does not decode: it stays as it was. Nothing when that is over. It has been logged.
    Unreadable(Option<Problem>),
}

impl From<ClusterChange> for WatchEvent {
    fn from(change: ClusterChange) -> Self {
        Self::Change(change)
    }
}

/// What is wrong with one object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectProblem {
    /// The Service that it is about, where that is known.
    pub service: Option<ServiceKey>,
    /// What is wrong, and what to do.
    pub problem: Problem,
}

/// Watches what `wanted` names, until `wanted` or `out` is closed. It never returns for a fault of the API server.
///
/// When `wanted` changes, watches are started, started anew, or stopped. A namespace that is not wanted any more is
/// told as [`ClusterChange::NamespaceForgotten`], which also ends all trouble and problems that were told of it.
/// Nothing is sent that would empty the state: lists are sent whole, and only when they are complete.
pub async fn watch(
    client: Client,
    mut wanted: watch::Receiver<Arc<BTreeSet<ServiceKey>>>,
    out: mpsc::Sender<WatchEvent>,
    telemetry: Arc<Telemetry>,
) {
    let links = Links::new(Arc::clone(&telemetry), &ClusterKind::ALL);
    let mut running: BTreeMap<Namespace, Running> = BTreeMap::new();
    loop {
        let names = by_namespace(&wanted.borrow_and_update());
        let gone: Vec<_> = running.keys().filter(|ns| !names.contains_key(*ns)).cloned().collect();
        for namespace in gone {
            if let Some(watches) = running.remove(&namespace) {
                watches.stop().await;
            }
            links.forget(&namespace);
            telemetry.namespace_forgotten(&namespace);
            if out.send(WatchEvent::Change(ClusterChange::NamespaceForgotten(namespace))).await.is_err() {
                break;
            }
        }
        for (namespace, names) in names {
            if let Some(watches) = running.get(&namespace) {
                watches.names.send_replace(names);
            } else {
                let watches = Running::start(&client, &namespace, names, &out, &links);
                running.insert(namespace, watches);
            }
        }
        tokio::select! {
            changed = wanted.changed() => if changed.is_err() { break },
            () = out.closed() => break,
        }
    }
    for watches in running.into_values() {
        watches.stop().await;
    }
    links.close();
}

fn by_namespace(wanted: &BTreeSet<ServiceKey>) -> BTreeMap<Namespace, Names> {
    let mut names: BTreeMap<Namespace, Names> = BTreeMap::new();
    for key in wanted {
        names.entry(Arc::clone(&key.namespace)).or_default().insert(Arc::clone(&key.name));
    }
    names
}

/// The watches of one namespace. Dropping it ends them.
struct Running {
    names: watch::Sender<Names>,
    tasks: JoinSet<()>,
}

impl Running {
    fn start(
        client: &Client,
        namespace: &Namespace,
        names: Names,
        out: &mpsc::Sender<WatchEvent>,
        links: &Links,
    ) -> Self {
        let names = watch::Sender::new(names);
        let mut tasks = JoinSet::new();
        tasks.spawn(Task::<Services>::new(client, namespace, None, names.subscribe(), out, links).run());
        tasks.spawn(Task::<Slices>::new(client, namespace, None, names.subscribe(), out, links).run());
        tasks.spawn(Task::<Pods>::new(client, namespace, None, names.subscribe(), out, links).run());
        Self { names, tasks }
    }

    /// Ends the watches; afterwards none of them sends anything.
    async fn stop(mut self) {
        self.tasks.shutdown().await;
    }
}

/// Which watches are connected, for the gauges.
#[derive(Clone)]
pub(super) struct Links {
    pub(super) telemetry: Arc<Telemetry>,
    up: Arc<Mutex<Up>>,
    /// The kinds whose gauges are there also while nothing of them is watched.
    kinds: &'static [ClusterKind],
}

/// Whether a watch is connected: by its kind, its namespace and, where it is of one object, that one's name.
type Up = BTreeMap<(ClusterKind, Namespace, Option<Arc<str>>), bool>;

impl Links {
    pub(super) fn new(telemetry: Arc<Telemetry>, kinds: &'static [ClusterKind]) -> Self {
        for kind in kinds {
            telemetry.watch_connected(*kind, true);
        }
        Self { telemetry, up: Arc::default(), kinds }
    }

    /// Whether a watch is connected.
    pub(super) fn set(&self, place: &Place, connected: bool) {
        let mut up = self.up.lock().unwrap_or_else(PoisonError::into_inner);
        up.insert((place.kind, Arc::clone(&place.namespace), place.name.clone()), connected);
        self.tell(&up, place.kind);
    }

    /// The watch of one object is no more.
    pub(super) fn forget_one(&self, kind: ClusterKind, namespace: &Namespace, name: &Arc<str>) {
        let mut up = self.up.lock().unwrap_or_else(PoisonError::into_inner);
        up.remove(&(kind, Arc::clone(namespace), Some(Arc::clone(name))));
        self.tell(&up, kind);
    }

    fn forget(&self, namespace: &Namespace) {
        let mut up = self.up.lock().unwrap_or_else(PoisonError::into_inner);
        up.retain(|(_, other, _), _| other != namespace);
        for kind in self.kinds {
            self.tell(&up, *kind);
        }
    }

    /// Set under the lock, so that the last word is the last state.
    fn tell(&self, up: &Up, kind: ClusterKind) {
        let connected = up.iter().all(|((other, ..), connected)| *other != kind || *connected);
        self.telemetry.watch_connected(kind, connected);
    }

    fn close(&self) {
        for kind in self.kinds {
            self.telemetry.watch_connected(*kind, false);
        }
    }
}
