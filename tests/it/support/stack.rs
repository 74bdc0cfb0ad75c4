//! The whole thing: a cluster with pods that listen, and the router in front of them.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use serinus::cli::app::Router;
use serinus::config;
use tempfile::{TempDir, TempPath};
use tokio::task::JoinHandle;

use super::apiserver::ApiServer;
use super::cluster::{Cluster, PodInfo, loopback_address};
use super::eventually;
use super::http::{Answer, Client};
use super::upstream::Upstream;

/// The port that pods listen on in place of the manifests' 80, which needs rights.
pub(crate) const POD_PORT: u16 = 18080;

/// Shares that are tried, in percent and in millionths.
pub(crate) const SHARES: [(&str, u64); 7] = [
    ("0.0001", 1),
    ("0.1", 1_000),
    ("1", 10_000),
    ("30", 300_000),
    ("50", 500_000),
    ("99.9", 999_000),
    ("100", 1_000_000),
];

/// A cluster, its pods and a router.
pub(crate) struct Stack {
    pub(crate) cluster: Cluster,
    pub(crate) pods: BTreeMap<String, Upstream>,
    pub(crate) router: Router,
    /// The folder of the config file and the state file.
    pub(crate) folder: TempDir,
    _kubeconfig: TempPath,
}

/// A manifest of `tests/fixtures/manifests`, with pods on a port that needs no rights.
pub(crate) fn manifest(name: &str) -> String {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/manifests").join(name);
    let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    text.replace("targetPort: 80,", &format!("targetPort: {POD_PORT},"))
        .replace("containerPort: 80}", &format!("containerPort: {POD_PORT}}}"))
        .replace("containerPort: 80,", &format!("containerPort: {POD_PORT},"))
}

/// A config for a cluster: the router and its admin API on free ports, state in `folder`, and these routes.
pub(crate) fn cluster_config(kubeconfig: &std::path::Path, folder: &std::path::Path, routes: &str) -> String {
    format!(
        "listeners: [{{name: web, address: '127.0.0.1:0'}}]\n\
         admin: {{address: '127.0.0.1:0'}}\n\
         state: {{file: {}}}\n\
         drain: {{delay: 0s, timeout: 5s}}\n\
         discovery: {{kubernetes: {{kubeconfig: {}}}}}\n\
         routes:\n{routes}",
        folder.join("state.json").display(),
        kubeconfig.display(),
    )
}

impl Stack {
    /// Loads a manifest, starts its pods (with the version that `version_of` tells) and a router with these routes, and
    /// waits until it is ready.
    pub(crate) async fn start(yaml: &str, routes: &str, version_of: impl Fn(&PodInfo) -> String) -> Self {
        let api = ApiServer::start().await;
        let kubeconfig = api.kubeconfig();
        let mut cluster = Cluster::new(api, loopback_address);
        cluster.load(yaml);
        let folder = tempfile::tempdir().unwrap();
        let text = cluster_config(&kubeconfig, folder.path(), routes);
        let file = folder.path().join("serinus.yaml");
        std::fs::write(&file, text).unwrap();
        let router = start_router(file).await;
        let mut stack = Self { cluster, pods: BTreeMap::new(), router, folder, _kubeconfig: kubeconfig };
        stack.start_pods(version_of).await;
        stack.ready().await;
        stack
    }

    /// Starts servers for pods that have none.
    pub(crate) async fn start_pods(&mut self, version_of: impl Fn(&PodInfo) -> String) {
        for pod in self.cluster.all_pods() {
            let name = format!("{}/{}", pod.namespace, pod.name);
            if let Entry::Vacant(vacant) = self.pods.entry(name) {
                let port = pod.ports.first().map_or(POD_PORT, |(_, port)| *port);
                vacant.insert(Upstream::start((pod.ip, port).into(), &version_of(&pod)).await);
            }
        }
    }

    /// Waits until the router is ready.
    pub(crate) async fn ready(&self) {
        eventually("the router is ready", || {
            self.router.control().readiness().hindrance().is_none().then_some(())
        })
        .await;
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.router.listeners()[0].1
    }

    pub(crate) fn client(&self) -> Client {
        Client::new(self.address())
    }

    pub(crate) fn admin(&self) -> Client {
        Client::new(self.router.admin())
    }

    /// Sets weights through the admin API.
    pub(crate) async fn weight(&self, route: &str, weights: &str) -> Answer {
        set_weight(&self.router, route, weights).await
    }

    /// How many requests of a route have begun.
    pub(crate) fn begun(&self, route: &str) -> u64 {
        let table = self.router.control().table().load_full();
        table.route(route).map_or(0, |r| r.versions.iter().map(|v| v.tally.begun()).sum())
    }

    /// Replaces every pod's server by one at the same place whose answers take this long.
    pub(crate) async fn slow_down(&mut self, delay: Duration) {
        for pod in self.pods.values_mut() {
            pod.terminate().await;
            *pod = Upstream::slow(pod.address, "v1", delay).await;
        }
    }

    /// How many ready endpoints a version has.
    pub(crate) fn usable(&self, route: &str, version: usize) -> usize {
        usable(&self.router, route, version).len()
    }

    /// Sends `count` GETs on `clients` connections, and gives how often each version answered; panics at a failed one.
    pub(crate) async fn split(&self, host: &str, clients: u64, count: u64) -> BTreeMap<String, u64> {
        count_versions(self.address(), host, clients, count, |answer| answer.version().to_owned()).await
    }
}

/// Sets weights through a router's admin API.
pub(crate) async fn set_weight(router: &Router, route: &str, weights: &str) -> Answer {
    let body = format!("{{\"weights\": {weights}, \"reason\": \"test\"}}");
    let request = format!(
        "PUT /api/v1/routes/{route}/weights HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    );
    Client::new(router.admin()).raw(request.as_bytes()).await.unwrap()
}

/// Goes back to the weights before, through a router's admin API.
pub(crate) async fn undo(router: &Router, route: &str) -> Answer {
    let request = format!(
        "POST /api/v1/routes/{route}/undo HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n\
         Content-Length: 2\r\n\r\n{{}}"
    );
    Client::new(router.admin()).raw(request.as_bytes()).await.unwrap()
}

/// The addresses of a version's usable endpoints.
pub(crate) fn usable(router: &Router, route: &str, version: usize) -> BTreeSet<SocketAddr> {
    let table = router.control().table().load_full();
    let route = table.route(route);
    route.map_or_else(BTreeSet::new, |r| {
        r.versions[version].candidates().iter().map(|s| s.endpoint().id.address).collect()
    })
}

/// Sends `count` GETs on `clients` connections, and gives how often each version answered; panics at a failed one.
pub(crate) async fn count_versions(
    router: SocketAddr,
    host: &str,
    clients: u64,
    count: u64,
    version_of: fn(&Answer) -> String,
) -> BTreeMap<String, u64> {
    let left = Arc::new(AtomicU64::new(count));
    let mut tasks = Vec::new();
    for _ in 0..clients {
        let (mut client, left, host) = (Client::new(router), Arc::clone(&left), host.to_owned());
        tasks.push(tokio::spawn(async move {
            let mut versions: BTreeMap<String, u64> = BTreeMap::new();
            while left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_sub(1)).is_ok() {
                let answer = client.get(&host, "/").await.unwrap();
                assert_eq!(answer.status, 200, "{answer:?}");
                *versions.entry(version_of(&answer)).or_default() += 1;
            }
            versions
        }));
    }
    let mut versions: BTreeMap<String, u64> = BTreeMap::new();
    for task in tasks {
        for (version, count) in task.await.unwrap() {
            *versions.entry(version).or_default() += count;
        }
    }
    versions
}

/// How many of `count` requests must be v2's at this many millionths: the split is less than one request off at the end,
/// and was so at the beginning.
#[track_caller]
pub(crate) fn check_share(versions: &BTreeMap<String, u64>, count: u64, millionths: u64) {
    let v2 = versions.get("v2").copied().unwrap_or_default();
    let asked = count * millionths;
    assert!(
        asked.abs_diff(v2 * 1_000_000) < 2_000_000,
        "v2 got {v2} of {count} requests at {millionths} millionths: {versions:?}"
    );
    assert_eq!(versions.values().sum::<u64>(), count);
}

/// Starts a router from a config file.
pub(crate) async fn start_router(file: PathBuf) -> Router {
    let settings = config::load(&file).unwrap_or_else(|e| panic!("{e}"));
    Router::start(settings, Some(file)).await.unwrap_or_else(|e| panic!("{e:#}"))
}

/// Clients that send GETs until they are told to stop. One that fails panics, and so does who waits for it.
pub(crate) struct Load {
    done: Arc<AtomicBool>,
    count: Arc<AtomicU64>,
    clients: Vec<JoinHandle<()>>,
}

impl Load {
    pub(crate) fn start(stack: &Stack, host: &str, clients: usize) -> Self {
        let (done, count) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let client = |_| {
            let (mut client, host) = (stack.client(), host.to_owned());
            let (done, count) = (Arc::clone(&done), Arc::clone(&count));
            tokio::spawn(async move {
                while !done.load(Ordering::Relaxed) {
                    let answer = client.get(&host, "/").await.unwrap();
                    assert_eq!(answer.status, 200, "{answer:?}");
                    count.fetch_add(1, Ordering::Relaxed);
                }
            })
        };
        let clients = (0..clients).map(client).collect();
        Self { done, count, clients }
    }

    /// Waits until this many more were answered.
    pub(crate) async fn more(&self, more: u64) {
        let wanted = self.count.load(Ordering::Relaxed) + more;
        eventually("requests are answered", || {
            assert!(!self.clients.iter().any(JoinHandle::is_finished), "a request failed");
            (self.count.load(Ordering::Relaxed) >= wanted).then_some(())
        })
        .await;
    }

    /// Ends, and gives how many were answered.
    pub(crate) async fn stop(self) -> u64 {
        self.done.store(true, Ordering::Relaxed);
        for client in self.clients {
            client.await.unwrap();
        }
        self.count.load(Ordering::Relaxed)
    }
}
