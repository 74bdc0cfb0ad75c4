//! A watch of the cluster as a test sees it: everything that it tells, and what that adds up to.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serinus::kubernetes::{ClusterAccess, ObjectProblem, Patience, WatchEvent, connect_with, watch};
use serinus::model::{
    ClusterChange, ClusterKind, Namespace, Pod, PodKey, Problem, Service, ServiceKey, Slice,
};
use serinus::telemetry::Telemetry;
use tempfile::TempPath;
use tokio::sync::{mpsc, watch as channel};
use tokio::task::JoinHandle;

use super::apiserver::ApiServer;
use super::eventually;

/// Quick to try again, slow to give up.
pub(crate) const QUICK: Patience = Patience {
    connect: Duration::from_secs(5),
    answer: Duration::from_secs(15),
    silence: Duration::from_secs(60),
    retry_first: Duration::from_millis(5),
    retry_most: Duration::from_millis(50),
};

/// What has been told, added up.
#[derive(Clone, Debug, Default)]
pub(crate) struct View {
    /// Everything, in order.
    pub(crate) told: Vec<WatchEvent>,
    pub(crate) services: BTreeMap<ServiceKey, Service>,
    /// By namespace and name.
    pub(crate) slices: BTreeMap<(Namespace, Arc<str>), Slice>,
    pub(crate) pods: BTreeMap<PodKey, Pod>,
    pub(crate) troubles: BTreeMap<(Namespace, ClusterKind), Problem>,
    pub(crate) objects: BTreeMap<(Namespace, ClusterKind), Vec<ObjectProblem>>,
    /// Names of the lists that arrived whole.
    pub(crate) lists: Vec<(ClusterKind, Namespace)>,
    /// The least that each kind had after its first list.
    pub(crate) fewest: BTreeMap<ClusterKind, usize>,
}

impl View {
    fn tell(&mut self, event: WatchEvent) {
        self.told.push(event.clone());
        match event {
            WatchEvent::Change(change) => self.change(change),
            WatchEvent::Trouble { namespace, kind, problem } => {
                self.troubles.insert((namespace, kind), problem);
            }
            WatchEvent::Recovered { namespace, kind } => {
                self.troubles.remove(&(namespace, kind)).expect("recovered from some trouble");
            }
            WatchEvent::Store(_) | WatchEvent::Lease(_) | WatchEvent::Refused(_) => {
                panic!("nobody asked for a common state")
            }
            WatchEvent::Secret { key, .. } => panic!("nobody asked for Secret {key}"),
            WatchEvent::Objects { namespace, kind, problems } => {
                self.objects.insert((namespace, kind), problems);
            }
        }
        for kind in ClusterKind::ALL {
            if self.lists.iter().any(|(other, _)| *other == kind) {
                let fewest = self.fewest.entry(kind).or_insert(usize::MAX);
                *fewest = (*fewest).min(match kind {
                    ClusterKind::Services => self.services.len(),
                    ClusterKind::EndpointSlices => self.slices.values().map(|s| s.endpoints.len()).sum(),
                    ClusterKind::Pods => self.pods.len(),
                    ClusterKind::Secrets | ClusterKind::ConfigMaps | ClusterKind::Leases => continue,
                });
            }
        }
    }

    fn change(&mut self, change: ClusterChange) {
        match change {
            ClusterChange::Services(namespace, all) => {
                self.services.retain(|key, _| key.namespace != namespace);
                self.services.extend(all);
                self.lists.push((ClusterKind::Services, namespace));
            }
            ClusterChange::ServiceApplied(key, service) => {
                self.services.insert(key, service);
            }
            ClusterChange::ServiceDeleted(key) => {
                self.services.remove(&key).expect("a Service that was known");
            }
            ClusterChange::Slices(namespace, all) => {
                self.slices.retain(|(other, _), _| *other != namespace);
                self.slices
                    .extend(all.into_iter().map(|slice| ((namespace.clone(), slice.name.clone()), slice)));
                self.lists.push((ClusterKind::EndpointSlices, namespace));
            }
            ClusterChange::SliceApplied(slice) => {
                self.slices.insert((slice.service.namespace.clone(), slice.name.clone()), slice);
            }
            ClusterChange::SliceDeleted(service, name) => {
                let slice = self.slices.remove(&(service.namespace.clone(), name));
                assert_eq!(slice.expect("a slice that was known").service, service);
            }
            ClusterChange::Pods(namespace, all) => {
                self.pods.retain(|key, _| key.namespace != namespace);
                self.pods.extend(all.into_iter().map(|pod| (pod.key.clone(), pod)));
                self.lists.push((ClusterKind::Pods, namespace));
            }
            ClusterChange::PodApplied(pod) => {
                self.pods.insert(pod.key.clone(), pod);
            }
            ClusterChange::PodDeleted(key) => {
                self.pods.remove(&key).expect("a pod that was known");
            }
            ClusterChange::NamespaceForgotten(namespace) => {
                self.services.retain(|key, _| key.namespace != namespace);
                self.slices.retain(|(other, _), _| *other != namespace);
                self.pods.retain(|key, _| key.namespace != namespace);
                self.troubles.retain(|(other, _), _| *other != namespace);
                self.objects.retain(|(other, _), _| *other != namespace);
                self.lists.retain(|(_, other)| *other != namespace);
            }
        }
    }

    /// Addresses of all endpoints, in order.
    pub(crate) fn addresses(&self) -> Vec<String> {
        let endpoints = self.slices.values().flat_map(|slice| &slice.endpoints);
        let mut addresses: Vec<_> = endpoints.map(|endpoint| endpoint.address.to_string()).collect();
        addresses.sort();
        addresses
    }

    /// Names of all pods.
    pub(crate) fn pod_names(&self) -> Vec<String> {
        self.pods.keys().map(|key| key.name.to_string()).collect()
    }

    /// Problems of single objects, as texts.
    pub(crate) fn object_problems(&self) -> Vec<String> {
        self.objects.values().flatten().map(|object| object.problem.to_string()).collect()
    }

    /// Whether a namespace is known whole.
    pub(crate) fn knows(&self, namespace: &str) -> bool {
        let kinds = self.lists.iter().filter(|(_, other)| other.as_ref() == namespace);
        kinds.map(|(kind, _)| kind).collect::<BTreeSet<_>>().len() == 3
    }
}

/// A running watch.
pub(crate) struct Watching {
    pub(crate) view: Arc<Mutex<View>>,
    pub(crate) telemetry: Arc<Telemetry>,
    /// Closed when this is taken.
    pub(crate) wanted: Option<channel::Sender<Arc<BTreeSet<ServiceKey>>>>,
    pub(crate) task: JoinHandle<()>,
    pub(crate) reader: JoinHandle<()>,
    _kubeconfig: TempPath,
}

impl Drop for Watching {
    fn drop(&mut self) {
        self.task.abort();
        self.reader.abort();
    }
}

/// Services, as a config names them.
pub(crate) fn services(names: &[&str]) -> Arc<BTreeSet<ServiceKey>> {
    Arc::new(names.iter().map(|name| name.parse().unwrap()).collect())
}

impl Watching {
    /// Watches Services; does not wait for anything.
    pub(crate) async fn start(api: &ApiServer, wanted: &[&str]) -> Self {
        Self::start_with(api.kubeconfig(), wanted, QUICK).await
    }

    pub(crate) async fn start_with(kubeconfig: TempPath, wanted: &[&str], patience: Patience) -> Self {
        let access = ClusterAccess { kubeconfig: Some(kubeconfig.to_path_buf()), context: None };
        let client = connect_with(&access, patience).await.unwrap();
        let (wanted, receiver) = channel::channel(services(wanted));
        let (out, mut events) = mpsc::channel(1);
        let telemetry = Arc::new(Telemetry::new().unwrap());
        let task = tokio::spawn(watch(client, receiver, out, Arc::clone(&telemetry)));
        let view: Arc<Mutex<View>> = Arc::default();
        let reader = tokio::spawn({
            let view = Arc::clone(&view);
            async move {
                while let Some(event) = events.recv().await {
                    view.lock().unwrap().tell(event);
                }
            }
        });
        Self { view, telemetry, wanted: Some(wanted), task, reader, _kubeconfig: kubeconfig }
    }

    /// What is known now.
    pub(crate) fn now(&self) -> View {
        self.view.lock().unwrap().clone()
    }

    /// Waits until what is known meets a condition, and gives it.
    pub(crate) async fn until(&self, what: &str, met: impl Fn(&View) -> bool) -> View {
        let probe = || Some(self.now()).filter(&met);
        eventually(what, probe).await
    }

    /// Waits until a namespace is known and its watches are open.
    pub(crate) async fn settled(&self, api: &ApiServer, namespaces: &[&str]) -> View {
        let view = self.until("whole lists", |view| namespaces.iter().all(|ns| view.knows(ns))).await;
        eventually("open watches", || {
            let open =
                ClusterKind::ALL.iter().all(|kind| api.open_watches(kind.plural()) >= namespaces.len());
            (open && self.connected() == [1, 1, 1]).then_some(())
        })
        .await;
        view
    }

    pub(crate) fn want(&self, names: &[&str]) {
        self.wanted.as_ref().unwrap().send_replace(services(names));
    }

    /// A sample of the metrics.
    pub(crate) fn metric(&self, sample: &str) -> Option<u64> {
        let text = self.telemetry.text();
        let line = text.lines().find_map(|line| line.strip_prefix(sample))?;
        Some(line.trim().parse().unwrap())
    }

    /// The gauges of Services, EndpointSlices and Pods.
    pub(crate) fn connected(&self) -> [u64; 3] {
        ClusterKind::ALL.map(|kind| {
            self.metric(&format!("serinus_watch_connected{{kind=\"{}\"}}", kind.plural())).unwrap_or(0)
        })
    }
}
