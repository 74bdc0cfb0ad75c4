//! Faults of the control plane, as the clients of the router see them: requests go on, weights still change, and what happened
//! meanwhile is known when it is over. What each fault does to a watch is in `kubernetes.rs`; docs/faults.md has the table.

use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use serinus::cli::app::Router;
use serinus::kubernetes::Patience;
use tokio::task::JoinHandle;

use crate::support::apiserver::ApiServer;
use crate::support::clients::{Clients, Outcome, Plan};
use crate::support::cluster::loopback_address;
use crate::support::eventually;
use crate::support::fleet::Fleet;
use crate::support::http::Client;
use crate::support::misbehaving::{Pod, Told};
use crate::support::stack::{POD_PORT, cluster_config, manifest, set_weight, start_router, usable};
use crate::support::watching::{QUICK, Watching};

/// The routes of the nginx-canary manifest.
const SHOP: &str = "
  - name: shop
    service: web/nginx-svc
    port: 80
    versions:
      - {name: v1, selector: 'version!=v2'}
      - {name: v2, selector: 'version=v2', weight: 10}
";

/// The pods of the nginx-canary manifest, and a router that knows them.
async fn shop() -> (Fleet, Router) {
    let fleet = Fleet::start(&manifest("nginx-canary.yaml")).await;
    let router = start_router(fleet.config(SHOP)).await;
    eventually("the router knows the pods", || (known(&router) == 7).then_some(())).await;
    (fleet, router)
}

/// How many usable pods the router knows.
fn known(router: &Router) -> usize {
    usable(router, "shop", 0).len() + usable(router, "shop", 1).len()
}

fn clients(fleet: &Fleet, router: &Router) -> Clients {
    Clients::start(Plan::new(router.listeners()[0].1, u64::MAX), &fleet.ledger)
}

/// Only GETs: where pods go before the router can know, a POST may have been sent to one.
fn gets(fleet: &Fleet, router: &Router) -> Clients {
    let plan = Plan { post_every: 0, ..Plan::new(router.listeners()[0].1, u64::MAX) };
    Clients::start(plan, &fleet.ledger)
}

#[track_caller]
fn check(outcome: &Outcome) {
    assert!(outcome.requests() > 100, "{outcome:?}");
    assert_eq!((outcome.failed(), outcome.repeated_posts.len()), (0, 0), "{outcome:?}");
}

async fn readyz(router: &Router) -> u16 {
    Client::new(router.admin()).get("localhost", "/readyz").await.unwrap().status
}

/// Watches the table without a pause, and knows the fewest pods that it ever had.
struct Fewest(Arc<AtomicUsize>, JoinHandle<()>);

impl Fewest {
    fn watch(router: &Router) -> Self {
        let fewest = Arc::new(AtomicUsize::new(usize::MAX));
        let (into, table) = (Arc::clone(&fewest), Arc::clone(router.control().table()));
        let task = tokio::spawn(async move {
            loop {
                let pods = table.load().routes()[0].versions.iter().map(|v| v.candidates().len()).sum();
                into.fetch_min(pods, Ordering::Relaxed);
                tokio::task::yield_now().await;
            }
        });
        Self(fewest, task)
    }

    fn end(self) -> usize {
        self.1.abort();
        self.0.load(Ordering::Relaxed)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_router_that_starts_without_an_api_server_is_unready_until_there_is_one() {
    let mut fleet = Fleet::start(&manifest("nginx-canary.yaml")).await;
    fleet.cluster.api.stop().await;
    let router = start_router(fleet.config(SHOP)).await;
    assert_eq!(readyz(&router).await, 503);
    let mut client = Client::new(router.listeners()[0].1);
    let answer = client.get("any", "/").await.unwrap();
    assert_eq!((answer.status, answer.header("x-serinus-reason")), (503, "no-endpoints"));
    let told = || router.control().problems().iter().any(|p| p.message.contains("refuses connections"));
    eventually("the reason is told", || told().then_some(())).await;
    assert_eq!(set_weight(&router, "shop", "{\"v2\": 20}").await.status, 200, "weights change already");

    fleet.cluster.api.restart_on_same_port().await;
    eventually("the router knows the pods", || (known(&router) == 7).then_some(())).await;
    eventually("it is ready", || router.control().readiness().hindrance().is_none().then_some(())).await;
    assert_eq!(readyz(&router).await, 200);
    eventually("the reason is gone", || (!told()).then_some(())).await;
    let clients = clients(&fleet, &router);
    clients.more(200).await;
    check(&clients.stop().await);
    router.stop().await;
}

/// How long the API server is away; ten minutes by hand: `SERINUS_LAB_OUTAGE=600`.
fn outage() -> Duration {
    let asked = std::env::var("SERINUS_LAB_OUTAGE").ok();
    Duration::from_secs(asked.map_or(3, |asked| asked.parse().expect("SERINUS_LAB_OUTAGE is in seconds")))
}

#[tokio::test(flavor = "multi_thread")]
async fn an_api_server_that_is_away_for_long_stops_neither_requests_nor_weights_nor_config() {
    let (mut fleet, router) = shop().await;
    let (clients, fewest) = (gets(&fleet, &router), Fewest::watch(&router));
    fleet.cluster.api.stop().await;
    let away = Instant::now();
    let file = fleet.folder.path().join("serinus.yaml");
    let text = std::fs::read_to_string(&file).unwrap();
    for round in 1_u64.. {
        assert_eq!(set_weight(&router, "shop", &format!("{{\"v2\": {}}}", round % 90 + 1)).await.status, 200);
        clients.more(50).await;
        if round == 5 {
            std::fs::write(&file, text.replace("name: v2,", "name: canary,")).unwrap();
            let renamed = || {
                let table = router.control().table().load_full();
                (table.routes()[0].versions[1].name.as_str() == "canary").then_some(())
            };
            eventually("the config is in force", renamed).await;
            std::fs::write(&file, &text).unwrap();
            let back = || {
                let table = router.control().table().load_full();
                (table.routes()[0].versions[1].name.as_str() == "v2").then_some(())
            };
            eventually("the config is back", back).await;
        }
        if round > 10 && away.elapsed() > outage() {
            break;
        }
    }
    assert_eq!(readyz(&router).await, 200);
    // A pod that dies meanwhile is found without the cluster's word.
    let dead = fleet.pods_of("web/nginx-dm").remove(0);
    fleet.leave(&dead, Told::Yes).await;
    clients.more(300).await;

    fleet.cluster.scale("web/nginx-v2", 3);
    fleet.start_pods().await;
    fleet.cluster.api.restart_on_same_port().await;
    fleet.remove(&dead);
    // The pauses between attempts grow to ten seconds.
    eventually("what happened meanwhile is known", || (known(&router) == 8).then_some(())).await;
    clients.more(100).await;
    check(&clients.stop().await);
    assert!(fewest.end() >= 6, "there was an empty moment");
    router.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_api_server_that_restarts_again_and_again_costs_nothing() {
    let (mut fleet, router) = shop().await;
    let (clients, fewest) = (clients(&fleet, &router), Fewest::watch(&router));
    for round in 0..4 {
        fleet.cluster.api.stop().await;
        let old = fleet.pods_of("web/nginx-dm").remove(0);
        fleet.cluster.scale("web/nginx-dm", 7);
        fleet.start_pods().await;
        if round % 2 == 1 {
            fleet.cluster.api.compact();
        }
        fleet.cluster.api.restart_on_same_port().await;
        eventually("the new pod is known", || (known(&router) == 8).then_some(())).await;
        fleet.cluster.begin_delete(&old);
        eventually("the old pod is out", || (known(&router) == 7).then_some(())).await;
        clients.more(50).await;
        fleet.leave(&old, Told::No).await;
        fleet.remove(&old);
    }
    check(&clients.stop().await);
    assert!(fewest.end() >= 7, "there was an empty moment");
    router.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_deleted_before_a_compaction_vanishes_without_an_empty_moment() {
    let (mut fleet, router) = shop().await;
    let (clients, fewest) = (gets(&fleet, &router), Fewest::watch(&router));
    clients.more(100).await;
    fleet.cluster.api.stop().await;
    let gone: Vec<_> = fleet.pods_of("web/nginx-dm").into_iter().take(3).collect();
    for pod in &gone {
        fleet.leave(pod, Told::Yes).await;
        fleet.remove(pod);
    }
    fleet.cluster.api.compact();
    fleet.cluster.api.restart_on_same_port().await;
    eventually("the deleted pods vanish", || {
        let table = router.control().table().load_full();
        (table.routes()[0].versions[0].members.len() == 3).then_some(())
    })
    .await;
    clients.more(100).await;
    check(&clients.stop().await);
    assert!(fewest.end() >= 4, "there was an empty moment");
    router.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_is_empty_after_a_relist_is_empty_until_pods_come() {
    let (mut fleet, router) = shop().await;
    fleet.cluster.api.stop().await;
    let old: Vec<_> = ["web/nginx-dm", "web/nginx-v2"].iter().flat_map(|d| fleet.pods_of(d)).collect();
    for pod in &old {
        fleet.cluster.remove(pod);
    }
    fleet.cluster.api.compact();
    fleet.cluster.api.restart_on_same_port().await;
    // The API server's word counts: pods that it does not know are not asked, though they would answer.
    eventually("no pod is left", || (known(&router) == 0).then_some(())).await;
    let mut client = Client::new(router.listeners()[0].1);
    let answer = client.get("any", "/").await.unwrap();
    assert_eq!((answer.status, answer.header("x-serinus-reason")), (503, "no-endpoints"));
    assert_eq!(readyz(&router).await, 200, "as ready as it was");
    fleet.cluster.scale("web/nginx-dm", 2);
    fleet.start_pods().await;
    eventually("the new pods are known", || (known(&router) == 2).then_some(())).await;
    let clients = clients(&fleet, &router);
    clients.more(150).await;
    check(&clients.stop().await);
    router.stop().await;
}

#[tokio::test]
async fn a_watch_that_the_api_server_closes_goes_on_where_it_was() {
    let api = ApiServer::start().await;
    let watching = Watching::start(&api, &["web/shop"]).await;
    watching.settled(&api, &["web"]).await;
    for round in 1..=5 {
        api.close_watches();
        eventually("the watch again", || (api.count("watch", "pods") > round).then_some(())).await;
        let name = format!("p{round}");
        api.apply(pod(&name, &[]));
        watching.until("a change after it", |view| view.pod_names().contains(&name)).await;
        watching.settled(&api, &["web"]).await;
    }
    assert_eq!(api.count("list", "pods"), 1);
    assert!(watching.now().troubles.is_empty());
}

#[tokio::test]
async fn a_watch_that_says_nothing_more_is_found_though_the_api_server_answers() {
    let api = ApiServer::start().await;
    api.bookmark_every(Duration::from_millis(20));
    let patience = Patience { silence: Duration::from_millis(300), ..QUICK };
    let watching = Watching::start_with(api.kubeconfig(), &["web/shop"], patience).await;
    watching.settled(&api, &["web"]).await;
    api.mute_watches();
    api.apply(pod("a", &[]));
    watching.until("what was not said", |view| view.pod_names() == ["a"]).await;
    assert!(watching.now().troubles.is_empty(), "a new watch went through at once");
    assert_eq!(api.count("list", "pods"), 1, "it went on where it was");
}

/// As the router is run: a silent watch is found within two minutes, and a quiet one, which has a bookmark about every
/// minute, is not taken for one.
#[test]
fn the_usual_patience_finds_a_half_open_watch_within_minutes() {
    let Patience { connect, answer, silence, retry_most, .. } = Patience::default();
    assert!(silence > Duration::from_secs(65), "bookmarks come every minute or so: {silence:?}");
    let longest = silence + retry_most + connect + answer;
    assert!(longest < Duration::from_secs(180), "{longest:?}");
}

#[tokio::test]
async fn a_busy_api_server_is_left_alone_for_as_long_as_it_asks() {
    let api = ApiServer::start().await;
    api.apply(pod("a", &[]));
    api.throttle(3, 1);
    let begun = Instant::now();
    let watching = Watching::start(&api, &["web/shop"]).await;
    let view = watching.until("trouble with each list", |view| view.troubles.len() == 3).await;
    for problem in view.troubles.values() {
        assert!(problem.message.contains("429"), "{problem}");
    }
    let view = watching.settled(&api, &["web"]).await;
    assert!(begun.elapsed() >= Duration::from_secs(1), "asked again before Retry-After had passed");
    assert_eq!(view.pod_names(), ["a"]);
    assert_eq!(api.count("list", "pods"), 2, "asked once more, and not again and again");
    watching.until("no trouble any more", |view| view.troubles.is_empty()).await;

    // And while it is watched: what is known stays.
    api.throttle(6, 0);
    api.cut_watches();
    api.apply(pod("b", &[]));
    let view = watching.until("the next change", |view| view.pod_names() == ["a", "b"]).await;
    assert!(view.fewest.values().all(|least| *least <= 1));
    assert_eq!(api.count("list", "pods"), 2);
}

#[tokio::test]
async fn a_rotated_token_is_read_when_the_old_one_is_refused() {
    let api = ApiServer::start().await;
    api.accept_token("first");
    let token = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(token.path(), "first").unwrap();
    let kubeconfig = api.kubeconfig();
    let text = std::fs::read_to_string(&kubeconfig).unwrap();
    let file = json!({"tokenFile": token.path()}).to_string();
    std::fs::write(&kubeconfig, text.replace("{\"token\":\"a-token\"}", &file)).unwrap();
    let watching = Watching::start_with(kubeconfig, &["web/shop"], QUICK).await;
    watching.settled(&api, &["web"]).await;

    // The file is not rotated yet: trouble, and then none.
    api.accept_token("second");
    api.cut_watches();
    let view = watching.until("trouble with each watch", |view| view.troubles.len() == 3).await;
    assert!(view.troubles.values().all(|problem| problem.message.contains("401")), "{view:?}");
    std::fs::write(token.path(), "second").unwrap();
    api.apply(pod("a", &[]));
    watching.until("the next change", |view| view.pod_names() == ["a"]).await;
    watching.until("no trouble any more", |view| view.troubles.is_empty()).await;

    // Rotated in time: no trouble at all.
    std::fs::write(token.path(), "third").unwrap();
    api.accept_token("third");
    let told = watching.now().told.len();
    api.cut_watches();
    api.apply(pod("b", &[]));
    watching.until("the next change", |view| view.pod_names() == ["a", "b"]).await;
    assert!(watching.now().told.len() <= told + 7, "told of again and again");
    assert_eq!(api.count("list", "pods"), 1);
}

fn pod(name: &str, labels: &[(&str, &str)]) -> Value {
    let labels: Value = labels.iter().map(|(key, value)| ((*key).to_owned(), json!(value))).collect();
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "namespace": "web", "labels": labels}, "spec": {"containers": []},
    })
}

/// A slice of web/shop with these endpoints: address, pod and conditions.
fn slice(name: &str, endpoints: &[(IpAddr, &str, Value)]) -> Value {
    let v6 = endpoints.iter().any(|(address, ..)| address.is_ipv6());
    let endpoints: Vec<_> = endpoints
        .iter()
        .map(|(address, pod, conditions)| {
            let target = json!({"kind": "Pod", "namespace": "web", "name": pod});
            json!({"addresses": [address.to_string()], "conditions": conditions, "targetRef": target})
        })
        .collect();
    json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "addressType": if v6 { "IPv6" } else { "IPv4" },
        "metadata": {"name": name, "namespace": "web", "labels": {"kubernetes.io/service-name": "shop"}},
        "endpoints": endpoints, "ports": [{"name": "", "port": POD_PORT, "protocol": "TCP"}],
    })
}

/// One route to web/shop, and an empty API server.
async fn hand_made() -> (ApiServer, Router, tempfile::TempDir) {
    let api = ApiServer::start().await;
    let kubeconfig = api.kubeconfig();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("serinus.yaml");
    let route =
        "  - {name: shop, service: web/shop, port: 80, versions: [{name: all, selector: 'app=shop'}]}\n";
    std::fs::write(&file, cluster_config(&kubeconfig, folder.path(), route)).unwrap();
    (api, start_router(file).await, folder)
}

fn shop_service() -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": "shop", "namespace": "web"},
        "spec": {"ports": [{"port": 80, "targetPort": POD_PORT, "protocol": "TCP"}]},
    })
}

/// Waits until exactly these addresses get requests.
async fn gets_requests(router: &Router, wanted: &[IpAddr]) {
    let mut wanted: Vec<_> = wanted.to_vec();
    wanted.sort();
    let mut found = Vec::new();
    let same = || {
        found = usable(router, "shop", 0).iter().map(|address| address.ip()).collect::<Vec<_>>();
        found.sort();
        (found == wanted).then_some(())
    };
    eventually(&format!("requests go to {wanted:?}"), same).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn slices_of_every_shape_are_read_right_and_in_any_order() {
    let (api, router, _folder) = hand_made().await;
    let [a, b, c, d] = [(); 4].map(|()| loopback_address());
    let (ready, unready) = (json!({"ready": true}), json!({"ready": false}));
    // First the slices, then the Service, then the pods: nothing is known before the last.
    api.apply(slice("one", &[(a, "a", ready.clone()), (b, "b", unready.clone())]));
    // The same endpoints again: the better word counts. And nil conditions.
    api.apply(slice("two", &[(a, "a", unready), (b, "b", json!({})), (c, "c", Value::Null)]));
    api.apply(shop_service());
    for name in ["a", "b", "c", "d"] {
        api.apply(pod(name, &[("app", "shop")]));
    }
    gets_requests(&router, &[a, b, c]).await;

    // Serving and terminating: the last resort, and only that (semantics §2.1).
    let terminating = json!({"ready": false, "serving": true, "terminating": true});
    api.apply(slice("three", &[(d, "d", terminating)]));
    api.delete("endpointslices", "web", "two");
    gets_requests(&router, &[a]).await;
    api.delete("endpointslices", "web", "one");
    gets_requests(&router, &[d]).await;

    // Over a hundred endpoints, in slices that come last to first.
    let many: Vec<IpAddr> = (0..250_u32).map(|n| std::net::Ipv4Addr::from(0x7f01_0000 + n).into()).collect();
    for (number, part) in many.chunks(100).enumerate().rev() {
        let endpoints: Vec<_> = part.iter().map(|address| (*address, "d", ready.clone())).collect();
        api.apply(slice(&format!("many-{number}"), &endpoints));
    }
    gets_requests(&router, &many).await;
    router.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_with_addresses_of_ipv6_get_requests() {
    let here: IpAddr = Ipv6Addr::LOCALHOST.into();
    if tokio::net::TcpListener::bind((here, 0)).await.is_err() {
        println!("skipped: this machine has no IPv6 loopback");
        return;
    }
    let (api, router, _folder) = hand_made().await;
    let ledger = Arc::default();
    let good = Pod::good((here, 0).into(), &ledger).await;
    let mut six = slice("six", &[(here, "a", json!({"ready": true}))]);
    six["ports"][0]["port"] = good.address.port().into();
    api.apply(six);
    api.apply(pod("a", &[("app", "shop")]));
    api.apply(shop_service());
    gets_requests(&router, &[here]).await;
    let outcome = Clients::start(Plan::new(router.listeners()[0].1, 200), &ledger).finish().await;
    check(&outcome);
    assert_eq!(good.requests(), 200);
    router.stop().await;
}
