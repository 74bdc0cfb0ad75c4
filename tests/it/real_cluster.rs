//! The example applications on a real cluster: with `SERINUS_TEST_KUBECONFIG`, in a namespace that the test makes and
//! deletes. Its user must be allowed to make namespaces and what is in them.
//!
//! Without the variable each test says that it was skipped. The code runs all the same in every run of the tests: one of
//! them starts the others as a process of their own, against the loopback API server with simulated controllers.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test's helpers fail the test"
)]

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::env;
use std::io::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::panic::{AssertUnwindSafe, resume_unwind};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use futures::FutureExt as _;
use kube::api::{Api, ApiResource, DeleteParams, DynamicObject, GroupVersionKind, ListParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use serde_json::{Value, json};
use serinus::cli::app::Router;
use serinus::model::Selector;
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout};

use crate::support::apiserver::{ApiServer, documents};
use crate::support::cluster::{Cluster, loopback_address};
use crate::support::http::Answer;
use crate::support::process::{Ending, read_all};
use crate::support::stack::{
    POD_PORT, SHARES, check_share, cluster_config, count_versions, set_weight, start_router, undo, usable,
};
use crate::support::upstream::Upstream;
use crate::support::{PATIENCE, eventually};

const VARIABLE: &str = "SERINUS_TEST_KUBECONFIG";
/// How long pods may take to be ready: images are pulled, and the slowest of the applications waits for 50 s by itself.
const PODS_PATIENCE: Duration = Duration::from_secs(600);
/// How many requests measure a share.
const REQUESTS: u64 = 2_000;

/// Says it whether or not the output of tests is captured.
fn loudly(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}

/// A namespace of a real cluster, for one test.
struct Place {
    kubeconfig: PathBuf,
    client: kube::Client,
    namespace: String,
}

/// Runs a check in a namespace of its own on the cluster that was named, and deletes the namespace, whatever happens.
async fn on_a_real_cluster(test: &str, check: impl AsyncFnOnce(&Place)) {
    let Some(kubeconfig) = env::var_os(VARIABLE).filter(|path| !path.is_empty()) else {
        loudly(&format!("{test}: skipped: {VARIABLE} is not set"));
        return;
    };
    in_a_namespace(kubeconfig.into(), check).await;
}

async fn in_a_namespace(kubeconfig: PathBuf, check: impl AsyncFnOnce(&Place)) {
    let place = Place::make(kubeconfig).await;
    let checked = AssertUnwindSafe(check(&place)).catch_unwind().await;
    let deleted = place.delete().await;
    if let Err(panic) = checked {
        resume_unwind(panic);
    }
    deleted.unwrap();
}

fn resource(group: &str, version: &str, kind: &str) -> ApiResource {
    ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind))
}

impl Place {
    async fn make(kubeconfig: PathBuf) -> Self {
        let file = Kubeconfig::read_from(&kubeconfig).unwrap_or_else(|error| panic!("{VARIABLE}: {error}"));
        let mut config =
            kube::Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await.unwrap();
        // As the router does: a proxy that is set for other things is not asked.
        config.proxy_url = None;
        let client = kube::Client::try_from(config).unwrap();
        let namespace = format!("serinus-test-{:08x}", fastrand::u32(..));
        let object = json!({
            "apiVersion": "v1", "kind": "Namespace",
            "metadata": {"name": namespace, "labels": {"app.kubernetes.io/managed-by": "serinus-tests"}},
        });
        let namespaces: Api<DynamicObject> = Api::all_with(client.clone(), &resource("", "v1", "Namespace"));
        let object = serde_json::from_value(object).unwrap();
        namespaces.create(&PostParams::default(), &object).await.unwrap();
        loudly(&format!("namespace {namespace} made"));
        Self { kubeconfig, client, namespace }
    }

    async fn delete(&self) -> Result<(), kube::Error> {
        let namespaces: Api<DynamicObject> =
            Api::all_with(self.client.clone(), &resource("", "v1", "Namespace"));
        let deleted = namespaces.delete(&self.namespace, &DeleteParams::default()).await;
        match &deleted {
            Ok(_) => loudly(&format!("namespace {} deleted", self.namespace)),
            Err(error) => {
                loudly(&format!("DELETE THE NAMESPACE {} BY HAND: {error}", self.namespace));
            }
        }
        deleted.map(drop)
    }

    fn api(&self, group: &str, version: &str, kind: &str) -> Api<DynamicObject> {
        Api::namespaced_with(self.client.clone(), &self.namespace, &resource(group, version, kind))
    }

    async fn list(&self, group: &str, version: &str, kind: &str, labels: Option<&str>) -> Vec<Value> {
        let parameters = ListParams { label_selector: labels.map(str::to_owned), ..ListParams::default() };
        let list = self.api(group, version, kind).list(&parameters).await.unwrap();
        list.items.iter().map(|object| serde_json::to_value(object).unwrap()).collect()
    }

    /// Makes the Services and Deployments of a manifest of `tests/fixtures/manifests` in this namespace, and waits until
    /// the pods of each Deployment are ready.
    async fn load(&self, name: &str) {
        let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/manifests").join(name);
        let mut wanted = Vec::new();
        for mut object in documents(&std::fs::read_to_string(&path).unwrap()) {
            let kind = object["kind"].as_str().unwrap().to_owned();
            let group = match kind.as_str() {
                "Namespace" => continue,
                "Deployment" => "apps",
                _ => "",
            };
            if kind == "Deployment" {
                let labels = object["spec"]["selector"]["matchLabels"].as_object().unwrap();
                let labels: Vec<_> =
                    labels.iter().map(|(key, value)| format!("{key}={}", value.as_str().unwrap())).collect();
                let pods = object["spec"]["replicas"].as_u64().unwrap();
                wanted.push((labels.join(","), usize::try_from(pods).unwrap()));
            }
            object["metadata"]["namespace"] = self.namespace.as_str().into();
            let object = serde_json::from_value(object).unwrap();
            self.api(group, "v1", &kind).create(&PostParams::default(), &object).await.unwrap();
        }
        for (labels, pods) in wanted {
            self.until(&format!("{pods} ready pods with {labels} of {name}"), async || {
                let found = self.list("", "v1", "Pod", Some(&labels)).await;
                found.iter().filter(|pod| is_ready(pod)).count() >= pods
            })
            .await;
        }
    }

    async fn until(&self, what: &str, met: impl AsyncFn() -> bool) {
        let deadline = Instant::now() + PODS_PATIENCE;
        while !met().await {
            assert!(Instant::now() < deadline, "never came true in {}: {what}", self.namespace);
            sleep(Duration::from_millis(200)).await;
        }
    }

    /// The ready endpoints of a Service whose pods match a selector, as the API tells them.
    async fn endpoints(&self, service: &str, selector: &str) -> BTreeSet<SocketAddr> {
        let selector: Selector = selector.parse().unwrap();
        let labels = |pod: &Value| -> BTreeMap<String, String> {
            serde_json::from_value(pod["metadata"]["labels"].clone()).unwrap()
        };
        let pods = self.list("", "v1", "Pod", None).await;
        let mine: BTreeSet<_> = pods
            .iter()
            .filter(|pod| selector.matches(&labels(pod)))
            .map(|pod| pod["metadata"]["uid"].as_str().unwrap())
            .collect();
        let of_service = format!("kubernetes.io/service-name={service}");
        let slices = self.list("discovery.k8s.io", "v1", "EndpointSlice", Some(&of_service)).await;
        let mut found = BTreeSet::new();
        for slice in &slices {
            for endpoint in slice["endpoints"].as_array().into_iter().flatten() {
                let uid = endpoint["targetRef"]["uid"].as_str().unwrap_or_default();
                if endpoint["conditions"]["ready"] != false && mine.contains(uid) {
                    let ip: IpAddr = endpoint["addresses"][0].as_str().unwrap().parse().unwrap();
                    let port = slice["ports"][0]["port"].as_u64().unwrap();
                    found.insert((ip, u16::try_from(port).unwrap()).into());
                }
            }
        }
        found
    }

    /// A router with these routes, whose versions have the endpoints that the API tells; and the folder of its files.
    async fn router(&self, routes: &str) -> (Router, tempfile::TempDir) {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("serinus.yaml");
        std::fs::write(&file, cluster_config(&self.kubeconfig, folder.path(), routes)).unwrap();
        let router = start_router(file).await;
        eventually("the router is ready", || {
            router.control().readiness().hindrance().is_none().then_some(())
        })
        .await;
        (router, folder)
    }

    /// Checks that a version has the endpoints that the API tells for its selector, and this many.
    async fn check(
        &self,
        router: &Router,
        route: &str,
        version: usize,
        service: &str,
        selector: &str,
        pods: usize,
    ) {
        self.until(&format!("version {version} of {route} has the API's {pods} endpoints"), async || {
            let told = self.endpoints(service, selector).await;
            told.len() == pods && usable(router, route, version) == told
        })
        .await;
    }
}

fn is_ready(pod: &Value) -> bool {
    let conditions = pod["status"]["conditions"].as_array();
    conditions.into_iter().flatten().any(|c| c["type"] == "Ready" && c["status"] == "True")
}

/// How often each version gets a request: requests through the router where pods can be reached, else what it chooses.
async fn measure(router: &Router, reachable: bool) -> BTreeMap<String, u64> {
    if reachable {
        let version_of = |answer: &Answer| answer.header("x-serinus-version").to_owned();
        return count_versions(router.listeners()[0].1, "shop.example.com", 8, REQUESTS, version_of).await;
    }
    let table = router.control().table().load_full();
    let route = table.route("shop").unwrap();
    let mut versions = BTreeMap::new();
    for _ in 0..REQUESTS {
        let choice = route.choose(|| fastrand::u64(..)).unwrap();
        *versions.entry(route.versions[choice.version].name.to_string()).or_default() += 1;
    }
    versions
}

#[tokio::test(flavor = "multi_thread")]
async fn nginx_canary() {
    on_a_real_cluster("nginx_canary", async |place: &Place| {
        place.load("nginx-canary.yaml").await;
        let routes = format!(
            "  - name: shop\n    hosts: [shop.example.com]\n    service: {}/nginx-svc\n    port: 80\n    \
             debugHeaders: true\n    versions:\n      - {{name: v1, selector: 'version!=v2'}}\n      \
             - {{name: v2, selector: 'version=v2', weight: 0.1}}\n",
            place.namespace
        );
        let (router, _folder) = place.router(&routes).await;
        place.check(&router, "shop", 0, "nginx-svc", "version!=v2", 6).await;
        place.check(&router, "shop", 1, "nginx-svc", "version=v2", 1).await;
        let pod = usable(&router, "shop", 1).into_iter().next().unwrap();
        let reachable = timeout(Duration::from_secs(3), TcpStream::connect(pod)).await.is_ok_and(|c| c.is_ok());
        if !reachable {
            loudly(&format!(
                "nginx_canary: requests through the router are skipped: the pod {pod} cannot be reached from here; \
                 measuring what the router chooses instead"
            ));
        }
        for (percent, millionths) in SHARES {
            let answer = set_weight(&router, "shop", &format!("{{\"v2\": {percent}}}")).await;
            assert_eq!(answer.status, 200, "{answer:?}");
            let versions = measure(&router, reachable).await;
            loudly(&format!("nginx_canary: asked {percent} %, measured {versions:?} of {REQUESTS}"));
            check_share(&versions, REQUESTS, millionths);
        }
        let answer = undo(&router, "shop").await;
        assert_eq!(answer.status, 200, "{answer:?}");
        check_share(&measure(&router, reachable).await, REQUESTS, 999_000);
        router.stop().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_other_applications_are_found() {
    on_a_real_cluster("the_other_applications_are_found", async |place: &Place| {
        for (file, service, port, pods) in [
            ("testpage.yaml", "testpage", "8080", 3),
            ("wordpress.yaml", "wordpress", "web", 4),
            ("spring-boot.yaml", "spring-boot-kubernetes", "80", 2),
        ] {
            place.load(file).await;
            let routes = format!(
                "  - name: app\n    service: {}/{service}\n    port: {port}\n    versions:\n      - {{name: all}}\n",
                place.namespace
            );
            let (router, _folder) = place.router(&routes).await;
            place.check(&router, "app", 0, service, "!of-no-version", pods).await;
            router.stop().await;
        }
    })
    .await;
}

/// Runs one of these tests, in a process of its own, against a loopback API server whose controllers are simulated. Gives
/// what it said.
async fn rehearse(test: &str, pods_listen: bool) -> String {
    let api = ApiServer::start().await;
    let kubeconfig = api.kubeconfig();
    let mut cluster = Cluster::new(api, loopback_address);
    let child = Command::new(env::current_exe().unwrap())
        .args([&format!("real_cluster::{test}"), "--exact", "--nocapture"])
        .env(VARIABLE, &kubeconfig)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn();
    let mut child = Ending(child.unwrap());
    let said = read_all(child.0.stderr.take().unwrap());
    let mut upstreams = BTreeMap::new();
    let deadline = Instant::now() + PATIENCE * 3;
    let status = loop {
        control(&mut cluster);
        for pod in cluster.all_pods().into_iter().filter(|_| pods_listen) {
            if let Entry::Vacant(vacant) = upstreams.entry(pod.uid) {
                vacant.insert(Upstream::start((pod.ip, pod.ports[0].1).into(), "any").await);
            }
        }
        if let Some(status) = child.0.try_wait().unwrap() {
            break status;
        }
        assert!(Instant::now() < deadline, "the rehearsal of {test} does not end");
        sleep(Duration::from_millis(10)).await;
    };
    let said = said.join().unwrap();
    assert!(status.success(), "{said}");
    assert_eq!(cluster.api.count("create", "namespaces"), 1);
    assert!(cluster.api.everywhere("namespaces").is_empty(), "the namespace is deleted: {said}");
    let requests: u64 = upstreams.values().map(Upstream::served).sum();
    let measured =
        if test == "nginx_canary" && pods_listen { REQUESTS * (SHARES.len() as u64 + 1) } else { 0 };
    assert_eq!(requests, measured, "{said}");
    said
}

/// What the controllers of a cluster do at a moment: pods for Deployments, slices for Services, an end for what is in a
/// namespace that is gone. Pods get a port that needs no rights.
fn control(cluster: &mut Cluster) {
    let name = |object: &Value| object["metadata"]["name"].as_str().unwrap().to_owned();
    let namespace = |object: &Value| object["metadata"]["namespace"].as_str().unwrap().to_owned();
    let alive: BTreeSet<_> = cluster.api.everywhere("namespaces").iter().map(name).collect();
    for plural in ["deployments", "pods", "services", "endpointslices"] {
        for object in cluster.api.everywhere(plural) {
            if !alive.contains(&namespace(&object)) {
                cluster.api.delete(plural, &namespace(&object), &name(&object));
            }
        }
    }
    for deployment in cluster.api.everywhere("deployments") {
        let (namespace, name) = (namespace(&deployment), name(&deployment));
        let path = format!("{namespace}/{name}");
        if cluster.pods(&path).is_empty() {
            cluster.api.edit("deployments", &namespace, &name, |deployment| {
                let port =
                    &mut deployment["spec"]["template"]["spec"]["containers"][0]["ports"][0]["containerPort"];
                if *port == 80 {
                    *port = POD_PORT.into();
                }
            });
            cluster.scale(&path, usize::try_from(deployment["spec"]["replicas"].as_u64().unwrap()).unwrap());
        }
    }
    for service in cluster.api.everywhere("services") {
        if service["spec"]["ports"][0]["targetPort"] == 80 {
            cluster.api.edit("services", &namespace(&service), &name(&service), |service| {
                service["spec"]["ports"][0]["targetPort"] = POD_PORT.into();
            });
        }
    }
    for namespace in alive {
        cluster.publish(&namespace);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rehearsal_with_pods_that_can_be_reached() {
    let said = rehearse("nginx_canary", true).await;
    assert!(said.contains("asked 30 %, measured") && !said.contains("skipped"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rehearsal_with_pods_that_cannot_be_reached() {
    let said = rehearse("nginx_canary", false).await;
    assert!(
        said.contains("asked 30 %, measured") && said.contains("requests through the router are skipped"),
        "{said}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rehearsal_of_the_other_applications() {
    let said = rehearse("the_other_applications_are_found", false).await;
    assert!(said.contains("deleted") && !said.contains("skipped"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_namespace_is_deleted_also_when_a_check_fails() {
    let api = ApiServer::start().await;
    let kubeconfig = api.kubeconfig();
    let failing = in_a_namespace(kubeconfig.to_path_buf(), async |_: &Place| panic!("a check fails"));
    let panic = AssertUnwindSafe(failing).catch_unwind().await.unwrap_err();
    assert_eq!(panic.downcast_ref::<&str>(), Some(&"a check fails"));
    assert_eq!((api.count("create", "namespaces"), api.count("delete", "namespaces")), (1, 1));
    assert!(api.everywhere("namespaces").is_empty());
}
