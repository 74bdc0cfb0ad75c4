//! The router in front of real pods, found through the API server: what its users see.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::cluster::PodInfo;
use crate::support::http::Client;
use crate::support::stack::{Load, SHARES, Stack, check_share, manifest, start_router, undo};
use crate::support::upstream::Upstream;
use crate::support::{PATIENCE, eventually};

/// The routes of the nginx-canary manifest.
const SHOP: &str = "
  - name: shop
    hosts: [shop.example.com]
    service: web/nginx-svc
    port: 80
    debugHeaders: true
    versions:
      - {name: v1, selector: 'version!=v2'}
      - {name: v2, selector: 'version=v2', weight: 0.1}
";
const HOST: &str = "shop.example.com";

/// The version of a pod of the nginx-canary manifest.
fn label(pod: &PodInfo) -> String {
    pod.labels.get("version").cloned().unwrap_or_else(|| "v1".to_owned())
}

async fn shop() -> Stack {
    Stack::start(&manifest("nginx-canary.yaml"), SHOP, label).await
}

#[tokio::test(flavor = "multi_thread")]
async fn nginx_canary_splits_as_asked_from_a_millionth_to_all() {
    let stack = shop().await;
    assert_eq!((stack.usable("shop", 0), stack.usable("shop", 1)), (6, 1));
    for (percent, millionths) in SHARES {
        let answer = stack.weight("shop", &format!("{{\"v2\": {percent}}}")).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        let versions = stack.split(HOST, 8, 3_000).await;
        println!("nginx-canary: asked {percent} %, measured {versions:?} of 3000");
        check_share(&versions, 3_000, millionths);
    }
    stack.router.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nginx_canary_goes_back_by_undo() {
    let stack = shop().await;
    assert_eq!(stack.weight("shop", "{\"v2\": 100}").await.status, 200);
    check_share(&stack.split(HOST, 2, 100).await, 100, 1_000_000);
    let answer = undo(&stack.router, "shop").await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let route: Value = serde_json::from_str(&answer.body).unwrap();
    assert_eq!(route["revision"], 3);
    assert_eq!(route["versions"][1]["weight"], 0.1);
    check_share(&stack.split(HOST, 2, 2_000).await, 2_000, 1_000);
    stack.router.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nginx_paused_rollout_splits_by_pod_template_hash() {
    // One Deployment, paused: old and new ReplicaSet, told apart by `pod-template-hash` alone.
    let yaml = manifest("nginx-canary.yaml");
    let (yaml, _) =
        yaml.split_once("---\napiVersion: apps/v1\nkind: Deployment\nmetadata: {name: nginx-v2").unwrap();
    let routes = |hash: &str| {
        format!(
            "
  - name: shop
    service: web/nginx-svc
    port: 80
    versions:
      - {{name: old, selector: 'pod-template-hash!={hash}'}}
      - {{name: new, selector: 'pod-template-hash={hash}', weight: 10}}
"
        )
    };
    let mut stack = Stack::start(yaml, &routes("none"), |_| "old".to_owned()).await;
    let hash = stack.cluster.surge("web/nginx-dm", 1, |template| {
        template["spec"]["containers"][0]["image"] = "nginx:1.18.0".into();
    });
    let new = hash.clone();
    stack
        .start_pods(
            |pod| if pod.labels["pod-template-hash"] == new { "v2".to_owned() } else { "old".to_owned() },
        )
        .await;
    let file = stack.folder.path().join("serinus.yaml");
    let text = std::fs::read_to_string(&file).unwrap().replace("none", &hash);
    std::fs::write(&file, text).unwrap();
    eventually("the new config is in force", || (stack.usable("shop", 1) == 1).then_some(())).await;
    check_share(&stack.split("any", 4, 1_000).await, 1_000, 100_000);
    stack.router.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn spring_boot_testpage_and_wordpress_split_as_asked() {
    for (file, service, port, deployment, key) in [
        (
            "spring-boot.yaml",
            "default/spring-boot-kubernetes",
            "80",
            "default/spring-boot-kubernetes-deployment",
            "app",
        ),
        ("testpage.yaml", "default/testpage", "8080", "default/testpage", "type"),
        ("wordpress.yaml", "kube-example/wordpress", "web", "kube-example/wordpress", "app"),
    ] {
        let routes = format!(
            "
  - name: app
    service: {service}
    port: {port}
    versions:
      - {{name: old, selector: '!track'}}
      - {{name: new, selector: 'track=canary'}}
"
        );
        let mut stack = Stack::start(&manifest(file), &routes, |_| "old".to_owned()).await;
        assert_eq!(stack.cluster.pods(deployment).len(), stack.usable("app", 0), "{file} by {key}");
        stack.cluster.create_version(deployment, "canary", &[("track", "canary")], 1);
        stack.start_pods(|_| "v2".to_owned()).await;
        eventually("the canary's pod is known", || (stack.usable("app", 1) == 1).then_some(())).await;
        for (percent, millionths) in [("0.1", 1_000), ("30", 300_000), ("100", 1_000_000)] {
            assert_eq!(stack.weight("app", &format!("{{\"new\": {percent}}}")).await.status, 200);
            let versions = stack.split("any", 4, 1_000).await;
            println!("{file}: asked {percent} %, measured {versions:?} of 1000");
            check_share(&versions, 1_000, millionths);
        }
        stack.router.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_weight_is_live_within_milliseconds_and_a_pods_news_too() {
    let mut stack = shop().await;
    let mut slowest = Duration::ZERO;
    for i in 1..=20 {
        let asked = Instant::now();
        stack.weight("shop", &format!("{{\"v2\": {i}}}")).await;
        slowest = slowest.max(asked.elapsed());
        let table = stack.router.control().table().load_full();
        assert_eq!(
            table.route("shop").unwrap().versions[1].asked.to_string(),
            i.to_string(),
            "live when answered"
        );
    }
    println!("a weight was live and saved after {slowest:?} at the most, of 20");
    let pod = stack.cluster.pods("web/nginx-dm").remove(0);
    let told = Instant::now();
    stack.cluster.begin_delete(&format!("web/{}", pod.name));
    eventually("the pod gets no more requests", || (stack.usable("shop", 0) == 5).then_some(())).await;
    println!("a pod's deletion was live after {:?}", told.elapsed());
    stack.router.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_request_fails_while_weights_and_config_change() {
    let stack = shop().await;
    let load = Load::start(&stack, HOST, 4);
    let file = stack.folder.path().join("serinus.yaml");
    let text = std::fs::read_to_string(&file).unwrap();
    for i in 0..60_u64 {
        let weight = stack.weight("shop", &format!("{{\"v2\": {}}}", i % 100)).await;
        assert_eq!(weight.status, 200, "{weight:?}");
        load.more(10).await;
        if i % 20 == 0 {
            let beside = stack.folder.path().join("new.yaml");
            std::fs::write(&beside, text.replace("0.1", &format!("0.{}", i + 2))).unwrap();
            std::fs::rename(&beside, &file).unwrap();
        }
    }
    assert!(load.stop().await >= 600);
    stack.router.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn s4_1_a_refused_connection_is_retried_on_another_pod_whatever_the_method() {
    let mut stack = shop().await;
    // Two of six pods die without a word from the cluster.
    for pod in stack.cluster.pods("web/nginx-dm").into_iter().take(2) {
        stack.pods.get_mut(&format!("web/{}", pod.name)).unwrap().terminate().await;
    }
    let mut client = stack.client();
    for _ in 0..50 {
        assert_eq!(client.get(HOST, "/").await.unwrap().status, 200);
        let post = format!("POST / HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: 3\r\n\r\nabc");
        assert_eq!(client.raw(post.as_bytes()).await.unwrap().status, 200);
    }
    eventually("the dead pods are out of the table", || (stack.usable("shop", 0) == 4).then_some(())).await;
    stack.router.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn s2_2_a_pod_that_refused_is_back_when_it_takes_connections_again() {
    let mut stack = shop().await;
    let pod = stack.cluster.pods("web/nginx-dm").remove(0);
    let name = format!("web/{}", pod.name);
    let address = stack.pods[&name].address;
    stack.pods.get_mut(&name).unwrap().terminate().await;
    let mut client = stack.client();
    while stack.usable("shop", 0) > 5 {
        assert_eq!(client.get(HOST, "/").await.unwrap().status, 200);
    }
    stack.pods.insert(name, Upstream::start(address, "v1").await);
    eventually("the pod is back", || (stack.usable("shop", 0) == 6).then_some(())).await;
    stack.router.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn s2_4_an_empty_version_gives_its_share_to_stable() {
    let mut stack = shop().await;
    assert_eq!(stack.weight("shop", "{\"v2\": 50}").await.status, 200);
    let pod = stack.cluster.pods("web/nginx-v2").remove(0);
    stack.cluster.set_ready(&format!("web/{}", pod.name), false);
    eventually("v2 has no usable pod", || (stack.usable("shop", 1) == 0).then_some(())).await;
    let versions = stack.split(HOST, 2, 100).await;
    assert_eq!(versions, BTreeMap::from([("v1".to_owned(), 100)]));
    let answer = stack.admin().get("localhost", "/api/v1/routes/shop").await.unwrap();
    let route: Value = serde_json::from_str(&answer.body).unwrap();
    assert_eq!(
        (&route["versions"][1]["weight"], &route["versions"][1]["effectiveWeight"]),
        (&50.into(), &0.into())
    );
    let problems = route["problems"].to_string();
    assert!(problems.contains("version v2 of route shop has no usable pod"), "{problems}");
    let metrics = stack.admin().get("localhost", "/metrics").await.unwrap().body;
    assert!(
        metrics.contains(
            "serinus_requests_total{route=\"shop\",version=\"v1\",code=\"200\",reason=\"fallback\"} 50"
        ),
        "{metrics}"
    );
    stack.router.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn own_answers_carry_their_reason() {
    let mut stack = shop().await;
    let mut client = stack.client();
    let answer = client.get("other.example.com", "/").await.unwrap();
    assert_eq!((answer.status, answer.header("x-serinus-reason")), (404, "no-route"));
    let answer = client.raw(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    assert_eq!((answer.status, answer.header("x-serinus-reason")), (400, "bad-request"));
    let trace = format!("TRACE / HTTP/1.1\r\nHost: {HOST}\r\n\r\n");
    let answer = stack.client().raw(trace.as_bytes()).await.unwrap();
    assert_eq!((answer.status, answer.header("x-serinus-reason")), (405, "method-not-allowed"));
    let answer = client.get(HOST, "/").await.unwrap();
    assert_eq!((answer.status, answer.header("x-serinus-version")), (200, "v1"));
    for deployment in ["web/nginx-dm", "web/nginx-v2"] {
        for pod in stack.cluster.pods(deployment) {
            stack.cluster.set_ready(&format!("web/{}", pod.name), false);
        }
    }
    eventually("no pod is usable", || (stack.usable("shop", 0) + stack.usable("shop", 1) == 0).then_some(()))
        .await;
    let answer = client.get(HOST, "/").await.unwrap();
    assert_eq!((answer.status, answer.header("x-serinus-reason")), (503, "no-endpoints"));
    let head = format!("HEAD / HTTP/1.1\r\nHost: {HOST}\r\n\r\n");
    let answer = client.raw(head.as_bytes()).await.unwrap();
    assert_eq!((answer.status, answer.body.as_str()), (503, ""));
    stack.router.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_upstream_gets_to_know() {
    let stack = shop().await;
    let request = format!(
        "GET /a/b%20c?d=e%2Ff HTTP/1.1\r\nHost: {HOST}\r\nX-Forwarded-For: 6.6.6.6\r\nX-Request-Id: mine\r\n\
         traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01\r\nConnection: keep-alive, X-Hop\r\nX-Hop: 1\r\n\r\n"
    );
    stack.client().raw(request.as_bytes()).await.unwrap();
    let got = stack.pods.values().filter(|pod| pod.served() > 0).map(Upstream::last).next().unwrap();
    assert_eq!((got.method.as_str(), got.path.as_str()), ("GET", "/a/b%20c?d=e%2Ff"));
    let one = |name: &str| match got.headers.get(name).map(Vec::as_slice) {
        Some([value]) => value.as_str(),
        other => panic!("{name}: {other:?}"),
    };
    assert_eq!(one("host"), HOST);
    assert_eq!(one("x-forwarded-for"), "127.0.0.1");
    assert_eq!(one("x-forwarded-proto"), "http");
    assert_eq!(one("x-forwarded-host"), HOST);
    assert!(one("x-request-id").len() == 32 && one("x-request-id") != "mine");
    assert!(one("traceparent").starts_with("00-4bf92f"));
    assert!(!got.headers.contains_key("x-hop"), "{got:?}");
    stack.router.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_failed_answer_the_connection_serves_on_and_the_pods_state_is_told() {
    let mut stack = shop().await;
    for pod in stack.pods.values_mut() {
        pod.terminate().await;
    }
    let mut client = stack.client();
    let told = || {
        let table = stack.router.control().table().load_full();
        let told = "every pod of route shop refused its last connection";
        table.route("shop").is_some_and(|shop| shop.problems.iter().any(|p| p.message.contains(told)))
    };
    let until_told = async {
        while !told() {
            let answer = client.get(HOST, "/").await.unwrap();
            assert_eq!((answer.status, answer.header("x-serinus-reason")), (502, "connect-failed"));
            assert!(!answer.header("x-request-id").is_empty());
        }
    };
    tokio::time::timeout(PATIENCE, until_told).await.expect("it is told that every pod refused");
    stack.router.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trusted_proxys_word_about_the_client_is_passed_on() {
    let stack = shop().await;
    let text = std::fs::read_to_string(stack.folder.path().join("serinus.yaml")).unwrap();
    let behind = stack.folder.path().join("behind.yaml");
    let text = format!("{}trustedProxies: [127.0.0.0/8]\n", text.replace("state.json", "behind.json"));
    std::fs::write(&behind, text).unwrap();
    let router = start_router(behind).await;
    eventually("it is ready", || router.control().readiness().hindrance().is_none().then_some(())).await;
    let request = format!(
        "GET / HTTP/1.1\r\nHost: {HOST}\r\nX-Forwarded-For: 203.0.113.7\r\nX-Forwarded-Proto: https\r\n\
         X-Request-Id: theirs\r\n\r\n"
    );
    let answer = Client::new(router.listeners()[0].1).raw(request.as_bytes()).await.unwrap();
    assert_eq!(answer.status, 200);
    let got = stack.pods.values().filter(|pod| pod.served() > 0).map(Upstream::last).next().unwrap();
    let one = |name: &str| got.headers[name].join("|");
    assert_eq!(one("x-forwarded-for"), "203.0.113.7, 127.0.0.1");
    assert_eq!((one("x-forwarded-proto"), one("x-request-id")), ("https".to_owned(), "theirs".to_owned()));
    router.stop().await;
    stack.router.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_api_servers_absence_never_stops_traffic() {
    let mut stack = shop().await;
    stack.cluster.api.stop().await;
    check_share(&stack.split(HOST, 4, 500).await, 500, 1_000);
    assert_eq!(stack.weight("shop", "{\"v2\": 30}").await.status, 200, "weights still change");
    check_share(&stack.split(HOST, 4, 1_000).await, 1_000, 300_000);
    assert_eq!(stack.admin().get("localhost", "/readyz").await.unwrap().status, 200);
    // While it is away a pod goes; when it is back, that is known, and no moment is without pods.
    let before = stack.usable("shop", 0);
    stack.cluster.api.restart_on_same_port().await;
    let pod = stack.cluster.pods("web/nginx-dm").remove(0);
    stack.cluster.remove(&format!("web/{}", pod.name));
    eventually("the removed pod is gone", || {
        let now = stack.usable("shop", 0);
        assert!(now + 1 >= before, "{now} pods");
        (now + 1 == before).then_some(())
    })
    .await;
    stack.router.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_serves_the_weights_it_had() {
    let stack = shop().await;
    assert_eq!(stack.weight("shop", "{\"v2\": 30}").await.status, 200);
    let Stack { router, folder, cluster, pods, .. } = stack;
    router.stop().await;
    let file = folder.path().join("serinus.yaml");
    // The kubeconfig went with the stack; a static file in its place shows that the weights come from the state.
    let endpoints: String = pods
        .values()
        .map(|pod| format!("      - {{address: '{}', labels: {{version: x}}}}\n", pod.address))
        .collect();
    let text = std::fs::read_to_string(&file).unwrap();
    let kube = text.lines().find(|l| l.starts_with("discovery:")).unwrap().to_owned();
    let text = text
        .replace(&kube, &format!("discovery:\n  static:\n    web/nginx-svc:\n{endpoints}"))
        .replace("    port: 80\n", "");
    std::fs::write(&file, text).unwrap();
    let router = start_router(file).await;
    let table = router.control().table().load_full();
    let shop = table.route("shop").unwrap();
    assert_eq!((shop.revision.0, shop.versions[1].asked.to_string()), (2, "30".to_owned()));
    drop(cluster);
    router.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_config_changes_nothing_and_is_a_problem_until_it_is_mended() {
    let stack = shop().await;
    let file = stack.folder.path().join("serinus.yaml");
    let good = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, good.replace("weight: 0.1", "weight: 101")).unwrap();
    let problem = |stack: &Stack| {
        let problems = stack.router.control().problems();
        problems.iter().any(|p| p.message.contains("the config file was refused")).then_some(())
    };
    eventually("the bad config is a problem", || problem(&stack)).await;
    check_share(&stack.split(HOST, 2, 200).await, 200, 1_000);
    assert_eq!(stack.admin().get("localhost", "/readyz").await.unwrap().status, 200, "ready as it was");
    std::fs::write(&file, good.replace("weight: 0.1", "weight: 20")).unwrap();
    eventually("the mended config is in force", || {
        let table = stack.router.control().table().load_full();
        (table.route("shop")?.versions[1].asked.to_string() == "20").then_some(())
    })
    .await;
    // Said right after it is in force.
    eventually("it is no problem any more", || problem(&stack).is_none().then_some(())).await;
    stack.router.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn i1_a_request_keeps_the_route_it_started_with() {
    let mut stack = shop().await;
    stack.slow_down(Duration::from_millis(500)).await;
    let mut client = stack.client();
    let under_way = tokio::spawn(async move { client.get(HOST, "/").await });
    eventually("the request is under way", || (stack.begun("shop") == 1).then_some(())).await;
    let file = stack.folder.path().join("serinus.yaml");
    let text = std::fs::read_to_string(&file).unwrap().replace("name: shop", "name: other");
    std::fs::write(&file, text.replace(HOST, "other.example.com")).unwrap();
    eventually("the route is gone", || {
        stack.router.control().table().load().route("shop").is_none().then_some(())
    })
    .await;
    let answer = under_way.await.unwrap().unwrap();
    assert_eq!((answer.status, answer.header("x-serinus-version")), (200, "v1"));
    assert_eq!(stack.client().get(HOST, "/").await.unwrap().status, 404);
    stack.router.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn s4_5_a_stop_loses_no_request() {
    let mut stack = shop().await;
    // Answers take a while, so that some are under way when the stop comes.
    stack.slow_down(Duration::from_millis(300)).await;
    let mut load = Vec::new();
    for _ in 0..20 {
        let mut client = stack.client();
        load.push(tokio::spawn(async move { client.get(HOST, "/").await }));
    }
    eventually("all requests are under way", || (stack.begun("shop") >= 20).then_some(())).await;
    let cut = stack.router.stop().await;
    assert_eq!(cut, 0);
    for answer in load {
        let answer = answer.await.unwrap().unwrap();
        assert_eq!((answer.status, answer.header("connection")), (200, "close"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rolling_update_loses_no_get() {
    // maxSurge 1, maxUnavailable 0, and no preStop sleep: the pod stops listening when it is told to end, which is when
    // the cluster tells the router.
    let mut stack = Stack::start(&manifest("testpage.yaml"), TESTPAGE, |_| "0.8".to_owned()).await;
    let load = Load::start(&stack, "any", 8);
    let old = stack.cluster.pods("default/testpage");
    stack.cluster.surge("default/testpage", 0, |t| t["spec"]["containers"][0]["image"] = "0.9".into());
    for (i, pod) in old.iter().enumerate() {
        let known = stack.usable("testpage", 0);
        stack.cluster.surge("default/testpage", i + 1, |_| {});
        stack.start_pods(|_| "0.9".to_owned()).await;
        eventually("the new pod is known", || (stack.usable("testpage", 0) > known).then_some(())).await;
        load.more(300).await;
        let name = format!("default/{}", pod.name);
        // The kubelet and the endpoint controller hear of it at the same time: the pod closes before the router knows.
        stack.pods.get_mut(&name).unwrap().terminate().await;
        load.more(20).await;
        stack.cluster.begin_delete(&name);
        eventually("the old pod is out", || (stack.usable("testpage", 0) == known).then_some(())).await;
        load.more(300).await;
        stack.cluster.remove(&name);
    }
    println!("rolling update of testpage: {} GETs, none failed", load.stop().await);
    let versions = stack.split("any", 1, 30).await;
    assert_eq!(versions, BTreeMap::from([("0.9".to_owned(), 30)]));
    stack.router.stop().await;
}

const TESTPAGE: &str = "
  - name: testpage
    service: default/testpage
    port: 8080
    versions:
      - {name: all}
";
