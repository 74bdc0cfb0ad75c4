//! Which watches run: one for each wanted namespace and kind.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use crate::model::{ClusterChange, ClusterKind, Namespace, Problem, ServiceKey};
use crate::telemetry::Telemetry;

use super::access::Client;
use super::kinds::{Names, Pods, Services, Slices};
use super::task::Task;

/// One thing that a watch tells.
#[derive(Clone, Debug, PartialEq, Eq)]
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
    let links = Links::new(Arc::clone(&telemetry));
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
        tasks.spawn(Task::<Services>::new(client, namespace, names.subscribe(), out, links).run());
        tasks.spawn(Task::<Slices>::new(client, namespace, names.subscribe(), out, links).run());
        tasks.spawn(Task::<Pods>::new(client, namespace, names.subscribe(), out, links).run());
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
    up: Arc<Mutex<BTreeMap<(ClusterKind, Namespace), bool>>>,
}

impl Links {
    fn new(telemetry: Arc<Telemetry>) -> Self {
        for kind in ClusterKind::ALL {
            telemetry.watch_connected(kind, true);
        }
        Self { telemetry, up: Arc::default() }
    }

    /// Whether the watch of a kind in a namespace is connected.
    pub(super) fn set(&self, kind: ClusterKind, namespace: &Namespace, connected: bool) {
        let mut up = self.up.lock().unwrap_or_else(PoisonError::into_inner);
        up.insert((kind, Arc::clone(namespace)), connected);
        self.tell(&up, kind);
    }

    fn forget(&self, namespace: &Namespace) {
        let mut up = self.up.lock().unwrap_or_else(PoisonError::into_inner);
        up.retain(|(_, other), _| other != namespace);
        for kind in ClusterKind::ALL {
            self.tell(&up, kind);
        }
    }

    /// Set under the lock, so that the last word is the last state.
    fn tell(&self, up: &BTreeMap<(ClusterKind, Namespace), bool>, kind: ClusterKind) {
        let connected = up.iter().all(|((other, _), connected)| *other != kind || *connected);
        self.telemetry.watch_connected(kind, connected);
    }

    fn close(&self) {
        for kind in ClusterKind::ALL {
            self.telemetry.watch_connected(kind, false);
        }
    }
}
