//! A cluster whose pods are those of the fault lab: they come and go, and the ledger sees every request.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tempfile::{TempDir, TempPath};

use super::apiserver::ApiServer;
use super::cluster::{Cluster, PodInfo, loopback_address};
use super::misbehaving::{Conduct, Ledger, Pod, Told};
use super::stack::{POD_PORT, cluster_config};

/// A cluster and its pods.
pub(crate) struct Fleet {
    pub(crate) cluster: Cluster,
    /// By `NAMESPACE/NAME`.
    pub(crate) pods: BTreeMap<String, Pod>,
    pub(crate) ledger: Arc<Ledger>,
    pub(crate) folder: TempDir,
    kubeconfig: TempPath,
    /// Addresses of pods that are gone, which later pods get: as in a cluster, an address has many pods in its life.
    freed: Arc<Mutex<VecDeque<IpAddr>>>,
    /// Pods that have left: the ledger still hears of what comes to their last connections.
    gone: VecDeque<Pod>,
}

/// How long a slow answer takes.
const SLOW: Duration = Duration::from_millis(20);
/// So many addresses rest before the first of them is used again.
const RESTING: usize = 16;

impl Fleet {
    /// Loads a manifest, and starts its pods.
    pub(crate) async fn start(yaml: &str) -> Self {
        let api = ApiServer::start().await;
        let kubeconfig = api.kubeconfig();
        let freed: Arc<Mutex<VecDeque<IpAddr>>> = Arc::default();
        let again = Arc::clone(&freed);
        let mut cluster = Cluster::new(api, move || {
            let mut freed = again.lock().unwrap();
            let old = if freed.len() > RESTING { freed.pop_front() } else { None };
            old.unwrap_or_else(loopback_address)
        });
        cluster.load(yaml);
        let folder = tempfile::tempdir().unwrap();
        let mut fleet = Self {
            cluster,
            pods: BTreeMap::new(),
            ledger: Arc::default(),
            folder,
            kubeconfig,
            freed,
            gone: VecDeque::new(),
        };
        fleet.start_pods().await;
        fleet
    }

    /// Writes a config file with these routes.
    pub(crate) fn config(&self, routes: &str) -> PathBuf {
        let file = self.folder.path().join("serinus.yaml");
        std::fs::write(&file, cluster_config(&self.kubeconfig, self.folder.path(), routes)).unwrap();
        file
    }

    /// Starts pods that are in the cluster and do not listen yet.
    pub(crate) async fn start_pods(&mut self) {
        for pod in self.cluster.all_pods() {
            if let Entry::Vacant(vacant) = self.pods.entry(path(&pod)) {
                let port = pod.ports.first().map_or(POD_PORT, |(_, port)| *port);
                vacant.insert(Pod::start((pod.ip, port).into(), &self.ledger, Arc::new(usual)).await);
            }
        }
    }

    /// The pods of a Deployment, oldest first, by `NAMESPACE/NAME`.
    pub(crate) fn pods_of(&self, deployment: &str) -> Vec<String> {
        self.cluster.pods(deployment).iter().map(path).collect()
    }

    /// A pod takes no more connections and ends those it has; the cluster says nothing of it.
    pub(crate) async fn leave(&mut self, pod: &str, told: Told) {
        self.pods.get_mut(pod).expect("a pod").leave(told).await;
    }

    /// A pod is gone from the cluster, and from its machine.
    pub(crate) fn remove(&mut self, pod: &str) {
        self.cluster.remove(pod);
        if let Some(gone) = self.pods.remove(pod) {
            self.freed.lock().unwrap().push_back(gone.address.ip());
            self.gone.extend(Some(gone).filter(Pod::is_leaving));
            if self.gone.len() > RESTING {
                self.gone.pop_front();
            }
        }
    }
}

/// Answers, and every seventh request takes a while: some are under way whenever a pod leaves.
fn usual(connection: u64, request: u64) -> Conduct {
    if (connection + request).is_multiple_of(7) { Conduct::AnswerAfter(SLOW) } else { Conduct::Answer }
}

fn path(pod: &PodInfo) -> String {
    format!("{}/{}", pod.namespace, pod.name)
}
