//! The state that replicas have in common, in a ConfigMap, and how the replicas are, in Leases.
//!
//! | object | holds |
//! |---|---|
//! | ConfigMap | each route's weights, history and rollout, a key each ([`record`]); written only if it is as it was read |
//! | Lease with its name | which replica takes rollouts forward ([`election`]) |
//! | Lease with its name and the replica's | that the replica lives, which revisions it serves, and what it has seen of rollouts ([`keeper`]) |
//!
//! Nothing here is waited for by a request. What is heard goes to the control task as [`StoreNews`], and what that wants
//! written comes back as [`Commit`].

mod election;
mod keeper;
mod leases;
mod record;
mod refusals;
mod writer;

use std::sync::Arc;

use k8s_openapi::api::core::v1::ConfigMap;
use kube::Api;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;

use crate::model::ConfigMapKey;
use crate::state::{Commit, Said, StoreNews};
use crate::telemetry::Telemetry;

use super::access::Client;
use super::kinds::Names;
use super::supervisor::{Links, WatchEvent};
use super::task::Task;

pub use self::leases::LeaseRecord;

use self::keeper::Keeper;
use self::leases::Leases;
use self::record::States;
use self::writer::Writer;

/// How many events of Leases may wait.
const LEASE_EVENTS: usize = 256;

/// The store as it runs.
#[derive(Debug)]
pub struct Store {
    /// Its tasks, by name; none ends before the router.
    pub tasks: Vec<(&'static str, JoinHandle<()>)>,
    /// Lets go of what this replica holds, so that another can have it at once.
    pub release: Release,
}

/// Lets go of the Leases that this replica holds.
#[derive(Debug)]
pub struct Release {
    say: oneshot::Sender<()>,
    done: JoinHandle<()>,
}

impl Release {
    /// Lets go; takes no longer than a few seconds.
    pub async fn now(self) {
        let _ = self.say.send(());
        let _ = self.done.await;
    }
}

/// Where the common state is, and who asks.
#[derive(Clone, Debug)]
pub struct Common {
    /// The ConfigMap.
    pub key: ConfigMapKey,
    /// This replica's name: that of its pod.
    pub me: Arc<str>,
}

/// What goes between the store and the control task.
#[derive(Debug)]
pub struct Ends {
    /// What is to be written, one after the other.
    pub commits: mpsc::Receiver<Commit>,
    /// What this replica says of itself; while there is nothing it holds no Lease.
    pub said: watch::Receiver<Option<Arc<Said>>>,
    /// What is heard: [`WatchEvent::Store`], and the trouble of watches.
    pub out: mpsc::Sender<WatchEvent>,
}

/// Follows the common state, and writes it, until `out` is closed.
#[must_use]
pub fn share(client: &Client, common: &Common, ends: Ends, telemetry: Arc<Telemetry>) -> Store {
    let Ends { commits, said, out } = ends;
    let links = Links::new(Arc::clone(&telemetry), &[]);
    let (heard, leases) = mpsc::channel(LEASE_EVENTS);
    let (say, released) = oneshot::channel();
    let of_state = {
        let (client, common, out, links) = (client.clone(), common.clone(), out.clone(), links.clone());
        tokio::spawn(async move {
            let names = watch::Sender::new(Names::from([Arc::clone(&common.key.name)]));
            let (namespace, name) = (&common.key.namespace, Some(&common.key.name));
            Task::<States>::new(&client, namespace, name, names.subscribe(), &out, &links).run().await;
        })
    };
    let of_leases = {
        let (client, common) = (client.clone(), common.clone());
        tokio::spawn(async move {
            // The label of those that are asked for.
            let names = watch::Sender::new(Names::from([Arc::clone(&common.key.name)]));
            let namespace = &common.key.namespace;
            Task::<Leases>::new(&client, namespace, None, names.subscribe(), &heard, &links).run().await;
        })
    };
    let writer = Writer::new(client, common, out.clone());
    let keeper = Keeper::new(client, common, said, out, telemetry);
    let keeping = tokio::spawn(keeper.run(leases, released));
    Store {
        tasks: vec![
            ("the watch of the replicas' state", of_state),
            ("the watch of the replicas", of_leases),
            ("the writing of the replicas' state", tokio::spawn(writer.run(commits))),
        ],
        release: Release { say, done: keeping },
    }
}

/// The ConfigMaps of the namespace of the common state.
fn config_maps(client: &Client, common: &Common) -> Api<ConfigMap> {
    Api::namespaced(client.current(), &common.key.namespace)
}

/// News for the control task.
async fn tell(out: &mpsc::Sender<WatchEvent>, news: StoreNews) {
    // Fails only when the router ends.
    let _ = out.send(WatchEvent::Store(news)).await;
}
