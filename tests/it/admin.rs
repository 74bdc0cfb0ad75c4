//! The admin API over real sockets, before a real control task.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test's helpers fail the test"
)]

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use serinus::admin::{self, AdminOptions};
use serinus::control::{self, Control, RoutesConfig, Start};
use serinus::model::{
    AnswerReason, BackendRef, Balance, ChoiceReason, FailureKind, HostMatch, Moment, OnEmpty, PathMatch,
    RouteSpec, ServiceKey, SetAsideReason, StaticEndpoint, VersionSpec,
};
use serinus::routing::tally::Unrouted;
use serinus::routing::{AttemptOutcome, InFlight};
use serinus::telemetry::Telemetry;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

/// Longer than anything here takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);

/// A router without a proxy: control task and admin API.
pub(crate) struct Router {
    pub(crate) address: SocketAddr,
    control: Control,
    unrouted: Arc<Unrouted>,
    stop: oneshot::Sender<()>,
    served: JoinHandle<()>,
}

/// Six pods of v1 and one of v2 behind `web/nginx-svc`, and a route that takes them all.
fn config() -> RoutesConfig {
    let pod = |n: u16, labels: &[(&str, &str)]| StaticEndpoint {
        address: SocketAddr::from(([127, 0, 1, 1], 8000 + n)),
        labels: Arc::new(labels.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()),
    };
    let mut pods: Vec<_> = (1..=6).map(|n| pod(n, &[("name", "nginx")])).collect();
    pods.push(pod(7, &[("name", "nginx"), ("version", "v2")]));
    let version = |name: &str, selector: &str, weight: Option<&str>| VersionSpec {
        name: name.parse().unwrap(),
        selector: Some(selector.parse().unwrap()),
        backend: None,
        weight: weight.map(|w| w.parse().unwrap()),
        max_in_flight_per_pod: None,
    };
    let route = |name: &str, host: &str| RouteSpec {
        name: name.parse().unwrap(),
        hosts: vec![host.parse::<HostMatch>().unwrap()],
        paths: vec![PathMatch::prefix("/").unwrap()],
        backend: BackendRef { service: ServiceKey::new("web", "nginx-svc"), port: None },
        versions: vec![
            version("v1", "version!=v2", None),
            version("v2", "version=v2", Some("0.1")),
            version("v3", "version=v3", None),
        ],
        audience: serinus::model::Audience::default(),
        on_empty: OnEmpty::Spill,
        balance: Balance::LeastRequest,
        traffic: serinus::model::Traffic::default(),
        rollout: None,
        debug_headers: false,
    };
    RoutesConfig {
        routes: vec![route("shop", "shop.example.com"), route("blog", "blog.example.com")],
        statics: Some(BTreeMap::from([(ServiceKey::new("web", "nginx-svc"), pods)])),
    }
}

impl Router {
    pub(crate) async fn start(options: AdminOptions) -> Self {
        let telemetry = Arc::new(Telemetry::new().unwrap());
        let (control, _) = control::start(Start {
            config: config(),
            saved: Default::default(),
            state_file: None,
            store: None,
            telemetry: Arc::clone(&telemetry),
            service_events: None,
            begin: Default::default(),
        });
        let listener = admin::bind("localhost:0").await.unwrap();
        let address = listener.address();
        let unrouted = Arc::new(Unrouted::default());
        let (stop, stopped) = oneshot::channel();
        let shutdown = async {
            let _ = stopped.await;
        };
        let serve =
            admin::serve(listener, control.clone(), telemetry, Arc::clone(&unrouted), options, shutdown);
        let served = tokio::spawn(serve);
        Self { address, control, unrouted, stop, served }
    }

    pub(crate) async fn open() -> Self {
        Self::start(AdminOptions::default()).await
    }

    /// Requests that were routed and ended.
    pub(crate) fn traffic(&self, route: &str, requests: u32) {
        let table = self.control.table().load();
        let route = table.route(route).unwrap();
        for _ in 0..requests {
            let choice = route.choose(|| fastrand::u64(..)).unwrap();
            let version = &route.versions[choice.version];
            version.tally.begin();
            version.tally.end(choice.reason, 200, Duration::from_millis(3));
        }
    }

    async fn call(&self, line: &str, headers: &[(&str, &str)], body: &str) -> Answer {
        call(self.address, line, headers, body).await
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.call(&format!("GET {path}"), &[], "").await
    }

    async fn json(&self, line: &str, body: &Value) -> Answer {
        self.call(line, &[("Content-Type", "application/json")], &body.to_string()).await
    }

    async fn put(&self, weights: Value) -> Answer {
        self.json("PUT /api/v1/routes/shop/weights", &json!({ "weights": weights })).await
    }
}

#[derive(Debug)]
pub(crate) struct Answer {
    status: u16,
    headers: BTreeMap<String, String>,
    pub(crate) body: String,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|e| panic!("{e}: {self:?}"))
    }

    fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }

    /// A problem document with this status and token; its detail.
    #[track_caller]
    fn problem(&self, status: u16, token: &str) -> String {
        assert_eq!(self.status, status, "{self:?}");
        assert_eq!(self.header("content-type"), "application/problem+json", "{self:?}");
        let document = self.json();
        assert_eq!(document["status"], status, "{self:?}");
        assert_eq!(document["type"], format!("urn:serinus:problem:{token}"), "{self:?}");
        assert!(document["title"].as_str().is_some_and(|t| !t.is_empty()), "{self:?}");
        document["detail"].as_str().unwrap().to_owned()
    }
}

/// One request on its own connection: `line` is method and path; a `Host` among the headers replaces the usual one.
async fn call(address: SocketAddr, line: &str, headers: &[(&str, &str)], body: &str) -> Answer {
    let mut head = format!("{line} HTTP/1.1\r\nConnection: close\r\n");
    if !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("host")) {
        head += &format!("Host: {address}\r\n");
    }
    if !body.is_empty() {
        head += &format!("Content-Length: {}\r\n", body.len());
    }
    for (name, value) in headers {
        head += &format!("{name}: {value}\r\n");
    }
    send(address, &format!("{head}\r\n{body}")).await
}

async fn send(address: SocketAddr, request: &str) -> Answer {
    let exchange = async {
        let mut stream = TcpStream::connect(address).await.unwrap();
        // The server may answer and close before it has read all: what it answered counts.
        let _ = stream.write_all(request.as_bytes()).await;
        let mut bytes = Vec::new();
        let _ = stream.read_to_end(&mut bytes).await;
        parse(&bytes)
    };
    tokio::time::timeout(PATIENCE, exchange).await.unwrap()
}

fn parse(bytes: &[u8]) -> Answer {
    let text = std::str::from_utf8(bytes).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no answer: {text}"));
    let mut lines = head.lines();
    let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
    let headers = lines
        .map(|line| line.split_once(": ").unwrap())
        .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
        .collect();
    let body = body.to_owned();
    Answer { status, headers, body }
}

#[tokio::test]
async fn probes_follow_the_readiness() {
    let router = Router::open().await;
    for path in ["/livez", "/readyz", "/healthz"] {
        let answer = router.get(path).await;
        assert_eq!((answer.status, answer.body.as_str()), (200, "ok\n"), "{path}");
        assert!(answer.header("content-type").starts_with("text/plain"));
    }
    router.control.readiness().stop();
    for path in ["/readyz", "/healthz"] {
        let answer = router.get(path).await;
        assert_eq!((answer.status, answer.body.as_str()), (503, "not ready: stopping\n"), "{path}");
    }
    assert_eq!(router.get("/livez").await.status, 200);
    assert_eq!(router.get("/api/v1/routes").await.status, 200, "it goes on during the drain");
    router.stop.send(()).unwrap();
    tokio::time::timeout(PATIENCE, router.served).await.unwrap().unwrap();
    assert!(TcpStream::connect(router.address).await.is_err());
}

#[tokio::test]
async fn a_router_that_waits_for_the_cluster_is_not_ready() {
    let config = RoutesConfig { statics: None, ..config() };
    let telemetry = Arc::new(Telemetry::new().unwrap());
    let start = Start {
        config,
        saved: Default::default(),
        state_file: None,
        store: None,
        telemetry: Arc::clone(&telemetry),
        service_events: None,
        begin: Default::default(),
    };
    let (control, _) = control::start(start);
    let listener = admin::bind("127.0.0.1:0").await.unwrap();
    let address = listener.address();
    let options = AdminOptions::default();
    tokio::spawn(admin::serve(
        listener,
        control,
        telemetry,
        Default::default(),
        options,
        std::future::pending(),
    ));
    let answer = call(address, "GET /readyz", &[], "").await;
    assert_eq!(answer.status, 503);
    assert!(answer.body.contains("Pods"), "{answer:?}");
}

#[tokio::test]
async fn routes_show_what_is_asked_and_what_is_measured() {
    let router = Router::open().await;
    router.traffic("shop", 2000);
    let list = router.get("/api/v1/routes").await.json();
    assert_eq!(list["routes"].as_array().unwrap().len(), 2);
    assert_eq!(list["problems"], json!([]));
    assert!(list["generation"].as_u64().unwrap() > 0);

    let answer = router.get("/api/v1/routes/shop").await;
    assert_eq!((answer.status, answer.header("etag")), (200, "\"1\""));
    let shop = answer.json();
    assert_eq!(shop["name"], "shop");
    assert_eq!(shop["revision"], 1);
    assert_eq!(shop["service"], "web/nginx-svc");
    assert_eq!(shop["hosts"], json!(["shop.example.com"]));
    assert_eq!(shop["paths"], json!([{"prefix": "/"}]));
    let [v1, v2, v3] = [0, 1, 2].map(|i| shop["versions"][i].clone());
    assert_eq!((&v1["name"], &v1["stable"], &v1["weight"]), (&json!("v1"), &json!(true), &json!(99.9)));
    assert_eq!((&v2["weight"], &v2["effectiveWeight"]), (&json!(0.1), &json!(0.1)));
    assert_eq!((&v2["stable"], &v2["endpoints"]["ready"]), (&json!(false), &json!(1)));
    assert_eq!(v1["endpoints"]["ready"], 6);
    assert_eq!(v1["endpoints"]["addresses"][0]["address"], "127.0.1.1:8001");
    assert_eq!(v1["endpoints"]["addresses"][0]["phase"], "ready");
    let requests = |v: &Value| v["requests"].as_u64().unwrap();
    assert_eq!(requests(&v1) + requests(&v2) + requests(&v3), 2000);
    assert!((1..=3).contains(&requests(&v2)), "{v2}");
    let share = v2["measuredShare"].as_f64().unwrap();
    assert!((share - 100.0 * requests(&v2) as f64 / 2000.0).abs() < 1e-9, "{v2}");
    assert_eq!(v1["errorRate"], 0.0);
    assert!((2.0..=3.0).contains(&v1["p50Ms"].as_f64().unwrap()), "{v1}");
    assert_eq!(
        (&v3["measuredShare"], &v3["errorRate"], &v3["p99Ms"]),
        (&json!(0.0), &json!(null), &json!(null))
    );

    let blog = router.get("/api/v1/routes/blog").await.json();
    assert_eq!(blog["versions"][0]["measuredShare"], json!(null), "no request, no share");
}

#[tokio::test]
async fn a_refused_endpoint_is_shown_as_such() {
    let router = Router::open().await;
    let table = router.control.table().load_full();
    let endpoint = &table.route("shop").unwrap().versions[0].members[2].endpoint;
    endpoint.refuse();
    let shop = router.get("/api/v1/routes/shop").await.json();
    let endpoints = &shop["versions"][0]["endpoints"];
    assert_eq!((&endpoints["ready"], &endpoints["refused"]), (&json!(5), &json!(1)));
    assert_eq!(endpoints["addresses"][2]["refused"], true);
    let metrics = router.get("/metrics").await.body;
    assert!(metrics.contains(r#"serinus_endpoints{route="shop",version="v1",state="ejected"} 1"#));
    assert!(metrics.contains(r#"serinus_endpoints{route="shop",version="v1",state="ready"} 5"#));
}

#[tokio::test]
async fn endpoints_that_are_set_aside_are_shown_as_such() {
    let router = Router::open().await;
    let table = router.control.table().load_full();
    let version = &table.route("shop").unwrap().versions[0];
    let at = InFlight::begin(&version.members[1].standing);
    let failed = AttemptOutcome::Failed(FailureKind::Reset);
    let told = (0..9).filter_map(|_| version.ended(&at, failed, Duration::ZERO, Moment::default()));
    assert_eq!(told.collect::<Vec<_>>(), [SetAsideReason::ConsecutiveFailures]);
    version.members[2].standing.set_unhealthy(true);
    let shop = router.get("/api/v1/routes/shop").await.json();
    let endpoints = &shop["versions"][0]["endpoints"];
    let counts =
        ["ready", "draining", "unready", "refused", "ejected", "unhealthy"].map(|s| endpoints[s].as_u64());
    assert_eq!(counts, [4, 0, 0, 0, 1, 1].map(Some));
    let states = |i: usize| {
        let of = &endpoints["addresses"][i];
        (of["refused"].as_bool(), of["ejected"].as_bool(), of["unhealthy"].as_bool())
    };
    assert_eq!(states(0), (Some(false), Some(false), Some(false)));
    assert_eq!((states(1).1, states(2).2), (Some(true), Some(true)));
    let metrics = router.get("/metrics").await.body;
    for line in [
        r#"serinus_endpoints{route="shop",version="v1",state="ready"} 4"#,
        r#"serinus_endpoints{route="shop",version="v1",state="ejected"} 1"#,
        r#"serinus_endpoints{route="shop",version="v1",state="unhealthy"} 1"#,
        r#"serinus_ejections_total{route="shop",version="v1",reason="consecutive-failures"} 1"#,
        r#"serinus_ejections_total{route="shop",version="v1",reason="refused"} 0"#,
    ] {
        assert!(metrics.contains(line), "{line} in {metrics}");
    }
}

#[tokio::test]
async fn weights_are_live_when_the_answer_comes() {
    let router = Router::open().await;
    let body = json!({"weights": {"v2": 30, "v3": 0.0001}, "reason": "first try"});
    let answer = router.json("PUT /api/v1/routes/shop/weights", &body).await;
    assert_eq!((answer.status, answer.header("etag")), (200, "\"2\""), "{answer:?}");
    let weights = |answer: &Answer| {
        let versions = answer.json()["versions"].as_array().unwrap().clone();
        versions.iter().map(|v| v["weight"].to_string()).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(weights(&answer), "69.9999 30 0.0001");
    assert_eq!(router.control.table().load().route("shop").unwrap().revision.0, 2);
    // Versions left out keep theirs; stable may be named when it is right.
    assert_eq!(weights(&router.put(json!({"v2": 50})).await), "49.9999 50 0.0001");
    assert_eq!(weights(&router.put(json!({"v1": 50, "v3": 0})).await), "50 50 0");
    // The same again is no revision.
    let same = router.put(json!({"v2": 50})).await;
    assert_eq!((same.status, same.header("etag")), (200, "\"4\""));
    assert_eq!(router.get("/api/v1/routes/blog").await.header("etag"), "\"1\"");
}

#[tokio::test]
async fn history_and_undo() {
    let router = Router::open().await;
    let undo = |body: &'static str| {
        let headers = [("Content-Type", "application/json")];
        let address = router.address;
        async move { call(address, "POST /api/v1/routes/shop/undo", &headers, body).await }
    };
    let detail = undo("").await.problem(409, "nothing-to-undo");
    assert!(detail.contains("no revision before 1 has other weights"), "{detail}");
    router.json("PUT /api/v1/routes/shop/weights", &json!({"weights": {"v2": 5}, "reason": "a\nb"})).await;
    router.put(json!({"v2": 50})).await;
    let back = undo("").await;
    assert_eq!((back.status, back.header("etag")), (200, "\"4\""), "{back:?}");
    assert_eq!(back.json()["versions"][1]["weight"], 5);
    let first = undo(r#"{"toRevision": 1, "reason": "enough"}"#).await;
    assert_eq!(first.json()["versions"][1]["weight"], 0.1);

    let history = router.get("/api/v1/routes/shop/history").await.json();
    assert_eq!(history["route"], "shop");
    let entries = history["revisions"].as_array().unwrap();
    let numbers: Vec<_> = entries.iter().map(|e| e["revision"].as_u64().unwrap()).collect();
    assert_eq!(numbers, [1, 2, 3, 4, 5], "newest last");
    let [file, second, .., last] = entries.as_slice() else { panic!("{entries:?}") };
    assert_eq!((&file["source"], &file["who"]), (&json!("file"), &json!(null)));
    assert_eq!((&second["source"], &second["who"]), (&json!("admin"), &json!("127.0.0.1")));
    assert_eq!((&second["before"]["v2"], &second["after"]["v2"]), (&json!(0.1), &json!(5)));
    assert_eq!((&second["after"]["v1"], &second["reason"]), (&json!(95), &json!("a\nb")));
    assert_eq!(last["reason"], "undo to revision 1: enough");
    assert!(humantime::parse_rfc3339(last["time"].as_str().unwrap()).is_ok());

    let detail = undo(r#"{"toRevision": 99}"#).await.problem(422, "unknown-revision");
    assert!(detail.contains("1, 2, 3, 4, 5"), "{detail}");
    undo(r#"{"revision": 1}"#).await.problem(422, "bad-fields");
    undo("null").await.problem(422, "bad-fields");
}

#[tokio::test]
async fn of_two_writers_who_saw_the_same_one_wins() {
    let router = Router::open().await;
    for round in 0_u32..20 {
        let tag = router.get("/api/v1/routes/shop").await.header("etag").to_owned();
        let write = |weight: u32| {
            let headers = [("Content-Type", "application/json"), ("If-Match", tag.as_str())];
            let body = json!({"weights": {"v2": weight}}).to_string();
            let address = router.address;
            async move { call(address, "PUT /api/v1/routes/shop/weights", &headers, &body).await.status }
        };
        let (a, b) = tokio::join!(write(2 * round + 1), write(2 * round + 2));
        assert!(matches!((a, b), (200, 412) | (412, 200)), "round {round}: {a} {b}");
    }
    assert_eq!(router.get("/api/v1/routes/shop").await.header("etag"), "\"21\"");
    let headers = [("Content-Type", "application/json"), ("If-Match", "\"3\"")];
    let stale = router.call("PUT /api/v1/routes/shop/weights", &headers, r#"{"weights": {"v2": 1}}"#).await;
    let detail = stale.problem(412, "stale-revision");
    assert!(detail.contains("revision 21 is in force, not 3"), "{detail}");
    router.call("POST /api/v1/routes/shop/undo", &headers, "{}").await.problem(412, "stale-revision");
}

#[tokio::test]
async fn bad_weights_are_told_with_every_reason() {
    let router = Router::open().await;
    let bad = router.put(json!({"v2": 101, "v3": 0.00001, "v4": 1, "v1": "5"})).await;
    bad.problem(422, "bad-weights");
    let errors = bad.json()["errors"].to_string();
    for needle in [
        "weights.v2: 101 is not between 0 and 100",
        "weights.v3: 0.00001 percent is finer than one in a million",
        "weights.v4: the route has no such version; there is v1, v2, v3",
        "is not a number",
    ] {
        assert!(errors.contains(needle), "{needle} in {errors}");
    }
    let over = router.put(json!({"v2": 60, "v3": 41, "nix": 1})).await;
    over.problem(422, "bad-weights");
    let errors = over.json()["errors"].clone();
    assert_eq!(errors.as_array().unwrap().len(), 2, "{errors}");
    assert!(errors.to_string().contains("more than 100") && errors.to_string().contains("no version `nix`"));
    let stable = router.put(json!({"v1": 50, "v2": 10})).await.problem(422, "bad-weights");
    assert!(stable.contains("`v1` is the stable version"), "{stable}");
    router.put(json!({})).await.problem(422, "bad-weights");
    assert_eq!(router.get("/api/v1/routes/shop").await.header("etag"), "\"1\"", "nothing was changed");
}

#[tokio::test]
async fn every_fault_of_a_request_has_its_status() {
    let router = Router::open().await;
    let json = [("Content-Type", "application/json")];
    let weights = "PUT /api/v1/routes/shop/weights";
    let good = r#"{"weights": {"v2": 5}}"#;
    for (line, headers, body, status, token, needle) in [
        ("GET /api/v1/routes/nix", &[][..], "", 404, "unknown-route", "there are shop, blog"),
        ("GET /api/v1/routes/nix/history", &[], "", 404, "unknown-route", "shop"),
        ("PUT /api/v1/routes/nix/weights", &json, good, 404, "unknown-route", "shop"),
        ("POST /api/v1/routes/nix/undo", &json, "", 404, "unknown-route", "shop"),
        ("GET /nix", &[], "", 404, "unknown-path", "/openapi.json"),
        ("GET /api/v1/routes/", &[], "", 404, "unknown-path", "/openapi.json"),
        ("GET /api/v1/routes/%FF", &[], "", 400, "bad-path", "UTF-8"),
        (weights, &json, "", 400, "bad-json", "EOF"),
        (weights, &json, "{", 400, "bad-json", "EOF"),
        (weights, &json, "{\"weights\": {\"v2\": 5}} x", 400, "bad-json", "trailing"),
        (weights, &json, "[1]", 422, "bad-fields", "invalid"),
        (weights, &json, r#"{"weights": [5]}"#, 422, "bad-fields", "weights"),
        (weights, &json, r#"{"weight": {"v2": 5}}"#, 422, "bad-fields", "unknown field `weight`"),
        (weights, &json, r#"{"weights": {"v2": 5}, "dryRun": true}"#, 422, "bad-fields", "dryRun"),
        (weights, &json, r#"{"reason": "x"}"#, 422, "bad-fields", "missing field `weights`"),
        (weights, &[], good, 415, "not-json", "Content-Type: application/json"),
        (weights, &[("Content-Type", "text/plain")], good, 415, "not-json", "Content-Type"),
        (weights, &[("Content-Type", "application/jsonx")], good, 415, "not-json", "Content-Type"),
        (weights, &[json[0], ("If-Match", "1")], good, 400, "bad-if-match", "in quotes"),
        ("POST /api/v1/routes/shop/undo", &[], "", 415, "not-json", "Content-Type"),
        ("POST /api/v1/explain", &[], "{}", 415, "not-json", "Content-Type"),
        ("POST /api/v1/explain", &json, "{}", 422, "bad-fields", "missing field `url`"),
        ("POST /api/v1/explain", &json, r#"{"url": "nix"}"#, 422, "bad-fields", "is not a URL"),
    ] {
        let detail = router.call(line, headers, body).await.problem(status, token);
        assert!(detail.contains(needle), "{line} {body}: {detail}");
    }
    let large = format!(r#"{{"weights": {{"v2": 5}}, "reason": "{}"}}"#, "x".repeat(70_000));
    router.call(weights, &json, &large).await.problem(413, "too-large");
    // One that does not say how large it is.
    let chunk = "x".repeat(0x8000);
    let chunked = format!(
        "{weights} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Type: application/json\r\n\
         Transfer-Encoding: chunked\r\n\r\n8000\r\n{chunk}\r\n8000\r\n{chunk}\r\n8000\r\n{chunk}\r\n0\r\n\r\n"
    );
    send(router.address, &chunked).await.problem(413, "too-large");
    let utf8 = [("Content-Type", "Application/JSON; charset=utf-8")];
    assert_eq!(router.call(weights, &utf8, good).await.status, 200);
}

#[tokio::test]
async fn pages_of_other_origins_and_foreign_hosts_are_kept_out() {
    let router = Router::open().await;
    let own = format!("http://{}", router.address);
    let weights = "PUT /api/v1/routes/shop/weights";
    let good = r#"{"weights": {"v2": 5}}"#;
    let json = ("Content-Type", "application/json");
    for headers in [
        &[json, ("Origin", "http://evil.example")][..],
        &[json, ("Origin", "null")],
        &[json, ("Sec-Fetch-Site", "cross-site")],
        &[json, ("Sec-Fetch-Site", "same-site")],
    ] {
        router.call(weights, headers, good).await.problem(403, "foreign-origin");
        router.call("POST /api/v1/routes/shop/undo", headers, "").await.problem(403, "foreign-origin");
    }
    for line in
        [weights, "GET /api/v1/routes", "GET /api/v1/routes/shop", "GET /metrics", "GET /openapi.json"]
    {
        for host in ["evil.example", "evil.example:9901", "", "localhost.evil.example"] {
            router.call(line, &[json, ("Host", host)], "").await.problem(403, "foreign-host");
        }
    }
    let absolute = router.call("GET http://evil.example/api/v1/routes", &[], "").await;
    absolute.problem(403, "foreign-host");
    assert_eq!(router.get("/api/v1/routes/shop").await.header("etag"), "\"1\"", "nothing was changed");

    assert_eq!(router.call("GET /readyz", &[("Host", "evil.example")], "").await.status, 200);
    for host in ["localhost", "LOCALHOST:1", "127.0.0.2:80", "[::1]:9901"] {
        assert_eq!(router.call("GET /api/v1/routes", &[("Host", host)], "").await.status, 200, "{host}");
    }
    let page = [json, ("Origin", own.as_str()), ("Sec-Fetch-Site", "same-origin")];
    assert_eq!(router.call(weights, &page, good).await.status, 200);
}

#[tokio::test]
async fn with_a_token_file_writes_need_the_token() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "hush-hush\n").unwrap();
    let router =
        Router::start(AdminOptions { token_file: Some(file.path().to_owned()), ..AdminOptions::default() })
            .await;
    let weights = "PUT /api/v1/routes/shop/weights";
    let json = ("Content-Type", "application/json");
    let put = |authorization: &'static str, weight: u32| {
        let body = json!({"weights": {"v2": weight}}).to_string();
        let headers = [json, ("Authorization", authorization)];
        let address = router.address;
        async move { call(address, weights, &headers, &body).await }
    };
    let missing = router.put(json!({"v2": 5})).await;
    let detail = missing.problem(401, "token-missing");
    assert!(detail.contains("Authorization: Bearer") && detail.contains("--token-file"), "{detail}");
    assert!(missing.header("www-authenticate").starts_with("Bearer"));
    for wrong in
        ["Bearer nix", "Bearer hush-hush2", "Bearer hush-hus", "Bearer ", "Basic hush-hush", "hush-hush"]
    {
        put(wrong, 5).await.problem(401, "token-wrong");
    }
    assert_eq!(put("Bearer hush-hush", 5).await.status, 200);
    let history = router.get("/api/v1/routes/shop/history").await;
    assert_eq!(history.json()["revisions"][1]["who"], "token@127.0.0.1");
    assert!(!history.body.contains("hush"));
    // A read from loopback needs none; one that carries a wrong one is told so.
    assert_eq!(router.get("/api/v1/routes").await.status, 200);
    router
        .call("GET /api/v1/routes", &[("Authorization", "Bearer nix")], "")
        .await
        .problem(401, "token-wrong");
    // With the token neither the host nor, without a body, the content type matters; the origin does.
    let token = ("Authorization", "Bearer hush-hush");
    let undo = "POST /api/v1/routes/shop/undo";
    assert_eq!(router.call(undo, &[token, ("Host", "router.example")], "").await.status, 200);
    let page = [token, json, ("Origin", "http://evil.example")];
    router.call(undo, &page, "").await.problem(403, "foreign-origin");
    // A rotated Secret works at once.
    std::fs::write(file.path(), "next").unwrap();
    put("Bearer hush-hush", 6).await.problem(401, "token-wrong");
    assert_eq!(put("Bearer next", 6).await.status, 200);
    std::fs::write(file.path(), " \n").unwrap();
    let detail = put("Bearer next", 7).await.problem(503, "token-file");
    assert!(detail.contains("admin.tokenFile"), "{detail}");
    put("Bearer ", 7).await.problem(401, "token-wrong");
    assert_eq!(router.get("/api/v1/routes/shop").await.json()["versions"][1]["weight"], 6);
}

#[tokio::test]
async fn answers_tell_browsers_to_keep_off() {
    let router = Router::open().await;
    for path in ["/livez", "/metrics", "/api/v1/routes", "/nix", "/openapi.json"] {
        let answer = router.get(path).await;
        for (name, value) in [
            ("x-content-type-options", "nosniff"),
            ("cache-control", "no-store"),
            ("x-frame-options", "DENY"),
            ("content-security-policy", "default-src 'none'; frame-ancestors 'none'"),
        ] {
            assert_eq!(answer.header(name), value, "{path}");
        }
        assert!(!answer.headers.keys().any(|name| name.starts_with("access-control")), "{answer:?}");
    }
}

#[tokio::test]
async fn explain_says_which_version_and_why() {
    let router = Router::open().await;
    let ask = |body: Value| {
        let address = router.address;
        async move {
            let headers = [("Content-Type", "application/json")];
            call(address, "POST /api/v1/explain", &headers, &body.to_string()).await.json()
        }
    };
    let shop = ask(json!({"method": "GET", "url": "http://shop.example.com/cart"})).await;
    assert_eq!(
        (&shop["route"], &shop["rule"], &shop["revision"]),
        (&json!("shop"), &json!("weight"), &json!(1))
    );
    assert_eq!(shop["versions"][1], json!({"name": "v2", "percent": 0.1, "endpoints": ["127.0.1.1:8007"]}));
    let blog = ask(json!({"url": "/x", "headers": {"Host": "blog.example.com:8080"}})).await;
    assert_eq!(blog["route"], "blog");
    let none = ask(json!({"method": "GET", "url": "http://nix.example/"})).await;
    assert_eq!(none["route"], json!(null));
    assert!(none["why"].to_string().contains("404"), "{none}");
    let all = router.put(json!({"v2": 100})).await;
    assert_eq!(all.status, 200);
    let only = ask(json!({"url": "http://shop.example.com/"})).await;
    assert_eq!((&only["version"], &only["endpoint"]), (&json!("v2"), &json!("127.0.1.1:8007")));
}

#[tokio::test]
async fn metrics_are_whole_and_well_formed() {
    let router = Router::open().await;
    router.traffic("shop", 1000);
    router.unrouted.add(AnswerReason::NoRoute);
    {
        let table = router.control.table().load();
        let v2 = &table.route("shop").unwrap().versions[1].tally;
        v2.begin();
        v2.end(ChoiceReason::Fallback, 503, Duration::from_secs(2));
        v2.fail(serinus::model::FailureKind::Connect);
        v2.begin();
    }
    let answer = router.get("/metrics").await;
    assert_eq!(answer.header("content-type"), "text/plain; version=0.0.4; charset=utf-8");
    let sample = regex::Regex::new(
        r#"^([a-z_]+)(\{[a-z]+="(?:[^"\\\n]|\\["\\n])*"(?:,[a-z]+="(?:[^"\\\n]|\\["\\n])*")*\})? (-?[0-9.]+(?:e-?[0-9]+)?)$"#,
    )
    .unwrap();
    let mut types: BTreeMap<String, String> = BTreeMap::new();
    let mut samples: BTreeMap<String, f64> = BTreeMap::new();
    let mut family = String::new();
    for line in answer.body.lines() {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').unwrap();
            assert!(types.insert(name.to_owned(), kind.to_owned()).is_none(), "{name} comes twice");
            family = name.to_owned();
        } else if !line.starts_with("# HELP ") {
            let found = sample.captures(line).unwrap_or_else(|| panic!("malformed: {line}"));
            let name = &found[1];
            let histogram = ["_bucket", "_sum", "_count"].map(|end| format!("{family}{end}"));
            assert!(name == family || histogram.contains(&name.to_owned()), "{name} in {family}");
            let key = format!("{name}{}", found.get(2).map_or("", |labels| labels.as_str()));
            assert!(samples.insert(key, found[3].parse().unwrap()).is_none(), "twice: {line}");
        }
    }
    for (name, kind) in [
        ("serinus_requests_total", "counter"),
        ("serinus_request_duration_seconds", "histogram"),
        ("serinus_upstream_failures_total", "counter"),
        ("serinus_retries_total", "counter"),
        ("serinus_version_weight_ratio", "gauge"),
        ("serinus_endpoints", "gauge"),
        ("serinus_active_requests", "gauge"),
        ("serinus_unrouted_requests_total", "counter"),
        ("serinus_table_generation", "gauge"),
        ("serinus_table_swaps_total", "counter"),
        ("serinus_build_info", "gauge"),
    ] {
        assert_eq!(types.get(name).map(String::as_str), Some(kind), "{name}");
    }
    let at = |key: &str| *samples.get(key).unwrap_or_else(|| panic!("no {key} in {}", answer.body));
    let v2 = r#"route="shop",version="v2""#;
    assert_eq!(at(&format!("serinus_version_weight_ratio{{{v2}}}")), 0.001);
    assert_eq!(at(&format!("serinus_requests_total{{{v2},code=\"503\",reason=\"fallback\"}}")), 1.0);
    assert_eq!(at(&format!("serinus_active_requests{{{v2}}}")), 1.0);
    assert_eq!(at(&format!("serinus_upstream_failures_total{{{v2},kind=\"connect\"}}")), 1.0);
    assert_eq!(at(r#"serinus_unrouted_requests_total{reason="no-route"}"#), 1.0);
    let v1 = r#"route="shop",version="v1""#;
    let count = at(&format!("serinus_request_duration_seconds_count{{{v1}}}"));
    assert_eq!(count, at(&format!("serinus_requests_total{{{v1},code=\"200\",reason=\"weight\"}}")));
    assert_eq!(count, at(&format!("serinus_request_duration_seconds_bucket{{{v1},le=\"+Inf\"}}")));
    assert_eq!(count, at(&format!("serinus_request_duration_seconds_bucket{{{v1},le=\"0.005\"}}")));
    assert_eq!(0.0, at(&format!("serinus_request_duration_seconds_bucket{{{v1},le=\"0.002\"}}")));
    let sum = at(&format!("serinus_request_duration_seconds_sum{{{v1}}}"));
    assert!((sum - count * 0.003).abs() < 1e-6, "{sum}");
}

#[tokio::test]
async fn a_slow_client_holds_up_nobody() {
    let router = Router::open().await;
    let mut slow = Vec::new();
    for _ in 0..200 {
        let mut stream = TcpStream::connect(router.address).await.unwrap();
        stream.write_all(b"PUT /api/v1/routes/shop/weights HTTP/1.1\r\nHost: local").await.unwrap();
        slow.push(stream);
    }
    // And one that announces a body which does not come.
    let mut half = TcpStream::connect(router.address).await.unwrap();
    let head = "PUT /api/v1/routes/shop/weights HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n\
                Content-Length: 50\r\n\r\n{";
    half.write_all(head.as_bytes()).await.unwrap();
    let mut silent = TcpStream::connect(router.address).await.unwrap();
    let mut idle = TcpStream::connect(router.address).await.unwrap();
    idle.write_all(b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
    let begun = Instant::now();
    assert_eq!(router.put(json!({"v2": 5})).await.status, 200);
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
    let mut bytes = vec![0; 4096];
    let read = tokio::time::timeout(PATIENCE, half.read(&mut bytes)).await.unwrap().unwrap();
    parse(&bytes[..read]).problem(408, "slow-body");
    // Heads that do not come whole are given up, and so are connections on which nothing comes (any more).
    for stream in [&mut slow[0], &mut silent, &mut idle] {
        let mut rest = Vec::new();
        let ended = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut rest)).await;
        assert!(ended.is_ok(), "still open");
    }
}

#[tokio::test]
async fn a_request_that_was_taken_is_answered_at_the_end() {
    let router = Router::open().await;
    let mut stream = TcpStream::connect(router.address).await.unwrap();
    let body = r#"{"weights": {"v2": 5}}"#;
    let head = format!(
        "PUT /api/v1/routes/shop/weights HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n\
         Expect: 100-continue\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    // The answer to `Expect` says that the request is being served.
    let mut bytes = [0; 64];
    let read = tokio::time::timeout(PATIENCE, stream.read(&mut bytes)).await.unwrap().unwrap();
    assert!(bytes[..read].starts_with(b"HTTP/1.1 100"), "{}", String::from_utf8_lossy(&bytes[..read]));
    router.stop.send(()).unwrap();
    // Nobody new is taken by now, or soon.
    let refused = async {
        while TcpStream::connect(router.address).await.is_ok() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, refused).await.unwrap();
    stream.write_all(body.as_bytes()).await.unwrap();
    let mut rest = Vec::new();
    tokio::time::timeout(PATIENCE, stream.read_to_end(&mut rest)).await.unwrap().unwrap();
    assert_eq!(parse(&rest).status, 200);
    tokio::time::timeout(PATIENCE, router.served).await.unwrap().unwrap();
    assert_eq!(router.control.table().load().route("shop").unwrap().revision.0, 2);
}

#[tokio::test]
async fn garbage_hurts_nobody() {
    let router = Router::open().await;
    for round in 0..200 {
        let mut bytes: Vec<u8> = (0..fastrand::usize(1..400)).map(|_| fastrand::u8(..)).collect();
        if round % 2 == 0 {
            let line =
                b"PUT /api/v1/routes/shop/weights HTTP/1.1\r\nContent-Type: application/json\r\n".to_vec();
            bytes = [line, bytes, b"\r\n\r\n".to_vec()].concat();
        }
        let mut stream = TcpStream::connect(router.address).await.unwrap();
        let _ = stream.write_all(&bytes).await;
        let _ = stream.shutdown().await;
        let mut answer = Vec::new();
        let ended = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut answer)).await;
        assert!(ended.is_ok() && !answer.starts_with(b"HTTP/1.1 2"), "{bytes:?}: {answer:?}");
    }
    let many: String = (0..500).map(|n| format!("X-{n}: y\r\n")).collect();
    let head = format!("GET /livez HTTP/1.1\r\nHost: localhost\r\n{many}\r\n");
    assert_eq!(send(router.address, &head).await.status, 431);
    let long = format!("GET /{} HTTP/1.1\r\nHost: localhost\r\n\r\n", "x".repeat(100_000));
    assert!(matches!(send(router.address, &long).await.status, 414 | 431));
    assert_eq!(router.get("/livez").await.status, 200);
    assert_eq!(router.get("/api/v1/routes/shop").await.header("etag"), "\"1\"");
}

#[tokio::test]
async fn a_change_is_live_within_five_milliseconds() {
    let router = Router::open().await;
    let mut stream = TcpStream::connect(router.address).await.unwrap();
    stream.set_nodelay(true).unwrap();
    let mut times = Vec::new();
    for round in 0_u64..200 {
        let body = json!({"weights": {"v2": (round % 90) + 1}}).to_string();
        let request = format!(
            "PUT /api/v1/routes/shop/weights HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\n\r\n{body}",
            body.len()
        );
        let begun = Instant::now();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut bytes = vec![0; 16 << 10];
        let read = tokio::time::timeout(PATIENCE, stream.read(&mut bytes)).await.unwrap().unwrap();
        times.push(begun.elapsed());
        assert!(bytes[..read].starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&bytes[..read]));
        assert_eq!(router.control.table().load().route("shop").unwrap().revision.0, round + 2);
    }
    times.sort();
    // The lower quartile: a wait in the router would show in all of them, a busy machine in some.
    let (quick, median, slow) = (times[times.len() / 4], times[times.len() / 2], times[times.len() - 3]);
    show(&format!("PUT to its answer, table live: quartile {quick:?}, median {median:?}, p99 {slow:?}"));
    assert!(quick < Duration::from_millis(5), "{times:?}");
}

#[allow(clippy::print_stderr, reason = "a measurement, shown with --nocapture")]
fn show(line: &str) {
    eprintln!("{line}");
}

#[tokio::test]
async fn the_document_and_the_router_have_the_same_paths() {
    let router = Router::open().await;
    let document = router.get("/openapi.json").await;
    assert_eq!(document.header("content-type"), "application/json");
    let document = document.json();
    assert!(document["openapi"].as_str().unwrap().starts_with("3.1"), "{}", document["openapi"]);
    let mut operations = Vec::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        let methods: Vec<String> = item.as_object().unwrap().keys().map(|m| m.to_uppercase()).collect();
        operations.extend(methods.iter().map(|method| format!("{method} {path}")));
        // A method that the path has not says which ones it has: those of the document, and HEAD with GET.
        let asked = router.call(&format!("DELETE {}", path.replace("{route}", "shop")), &[], "").await;
        asked.problem(405, "wrong-method");
        let mut allowed: Vec<_> = asked.header("allow").split(',').filter(|m| *m != "HEAD").collect();
        allowed.sort_unstable();
        assert_eq!(allowed, methods, "{path}");
    }
    operations.sort();
    let contract = [
        "GET /",
        "GET /api/v1/access",
        "GET /api/v1/events",
        "GET /api/v1/log",
        "GET /api/v1/routes",
        "GET /api/v1/routes/{route}",
        "GET /api/v1/routes/{route}/history",
        "GET /api/v1/routes/{route}/series",
        "GET /dashboard/{file}",
        "GET /healthz",
        "GET /livez",
        "GET /metrics",
        "GET /openapi.json",
        "GET /readyz",
        "POST /api/v1/explain",
        "POST /api/v1/routes/{route}/rollout",
        "POST /api/v1/routes/{route}/undo",
        "PUT /api/v1/log",
        "PUT /api/v1/routes/{route}/weights",
    ];
    assert_eq!(operations, contract);
    let mut references = Vec::new();
    collect_references(&document, &mut references);
    assert!(references.len() > 20, "{references:?}");
    for reference in references {
        let pointer = reference.strip_prefix('#').unwrap();
        assert!(document.pointer(pointer).is_some(), "{reference} leads nowhere");
    }
    assert_eq!(document["components"]["securitySchemes"]["token"]["scheme"], "bearer");
    let writes = &document["paths"]["/api/v1/routes/{route}/weights"]["put"];
    for status in ["200", "400", "401", "403", "404", "408", "412", "413", "415", "422", "503"] {
        assert!(writes["responses"][status].is_object(), "{status}");
    }
    assert_eq!(
        writes["responses"]["412"]["content"]["application/problem+json"]["schema"]["$ref"],
        "#/components/schemas/ProblemDetails"
    );
    assert_eq!(
        writes["responses"]["401"]["content"]["application/problem+json"]["schema"]["$ref"],
        "#/components/schemas/ProblemDetails"
    );
}

fn collect_references(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            found.extend(fields.get("$ref").and_then(Value::as_str).map(str::to_owned));
            fields.values().for_each(|v| collect_references(v, found));
        }
        Value::Array(items) => items.iter().for_each(|v| collect_references(v, found)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

#[tokio::test]
async fn live_answers_fit_their_schemas() {
    let router = Router::open().await;
    router.traffic("shop", 100);
    router.put(json!({"v2": 5, "v3": 1})).await;
    let document = router.get("/openapi.json").await.json();
    let schema = |name: &str| {
        let mut schema = document.clone();
        schema["$ref"] = json!(format!("#/components/schemas/{name}"));
        jsonschema::draft202012::new(&schema).unwrap()
    };
    let explain = json!({"url": "http://shop.example.com/"});
    for (name, answer) in [
        ("RouteList", router.get("/api/v1/routes").await),
        ("RouteStatus", router.get("/api/v1/routes/shop").await),
        ("History", router.get("/api/v1/routes/shop/history").await),
        ("Explained", router.json("POST /api/v1/explain", &explain).await),
        ("ProblemDetails", router.get("/api/v1/routes/nix").await),
        ("ProblemDetails", router.put(json!({"v2": 200})).await),
    ] {
        let schema = schema(name);
        let errors: Vec<_> = schema.iter_errors(&answer.json()).map(|e| e.to_string()).collect();
        assert!(errors.is_empty(), "{name}: {errors:?}: {}", answer.body);
        assert!(!schema.is_valid(&json!({"name": 1})), "{name} takes anything");
    }
    let change = schema("WeightsChange");
    assert!(change.is_valid(&json!({"weights": {"v2": 0.1}, "reason": "x"})));
    assert!(!change.is_valid(&json!({"weights": {"v2": "0.1"}})));
    assert!(!change.is_valid(&json!({"weights": {}, "more": 1})));
}

#[tokio::test]
async fn an_address_that_cannot_be_bound_says_why() {
    let taken = admin::bind("127.0.0.1:0").await.unwrap();
    let error = admin::bind(&taken.address().to_string()).await.unwrap_err().to_string();
    assert!(error.contains(&taken.address().to_string()) && error.contains("another process"), "{error}");
    let error = admin::bind("9901").await.unwrap_err().to_string();
    assert!(error.contains("HOST:PORT"), "{error}");
    let error = admin::bind("192.0.2.1:0").await.unwrap_err().to_string();
    assert!(error.contains("not one of this machine"), "{error}");
}
