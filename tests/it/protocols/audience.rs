//! Rules and cohorts through a whole router: who gets which version, the cookie of new browsers, and what is told of it.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::bodies::{Sent, text};
use super::front::{Front, HOST, Plan};
use super::pods::Speaks;
use super::raw::{Raw, header};
use crate::support::PATIENCE;
use crate::support::certificates::Authority;
use crate::support::http::{Answer, Client};
use crate::support::stack::set_weight;
use crate::support::upstream::Upstream;

/// A pod of each version, and a route with these lines; its canary has this weight.
async fn start(weight: &str, change: impl FnOnce(Plan) -> Plan) -> (Front, [Upstream; 2]) {
    let any = || ([127, 0, 0, 1], 0).into();
    let pods = [Upstream::start(any(), "v1").await, Upstream::start(any(), "v2").await];
    let mut plan = Plan::to([]).route(format!(
        "versions: [{{name: v1, selector: version=v1}}, {{name: v2, selector: version=v2, weight: {weight}}}]"
    ));
    plan.pods = vec![(pods[0].address, "v1"), (pods[1].address, "v2")];
    (change(plan).start().await, pods)
}

/// The answer to a request with this first line and these header lines.
async fn ask(front: &Front, first: &str, lines: &[&str]) -> Answer {
    let mut request = format!("{first} HTTP/1.1\r\nHost: {HOST}\r\n");
    lines.iter().for_each(|line| request.push_str(&format!("{line}\r\n")));
    let answer = Client::new(front.address()).raw(format!("{request}\r\n").as_bytes()).await.unwrap();
    assert_eq!(answer.status, 200, "{first} {lines:?}: {answer:?}");
    answer
}

/// How many requests of a version were counted with this reason.
async fn counted(front: &Front, version: &str, reason: &str) -> u64 {
    let answer = Client::new(front.router.admin()).get("localhost", "/metrics").await.unwrap();
    let of = |line: &&str| {
        line.starts_with("serinus_requests_total{")
            && line.contains(&format!("version=\"{version}\""))
            && line.contains(&format!("reason=\"{reason}\""))
    };
    let number = |line: &str| line.rsplit_once(' ').unwrap().1.parse::<u64>().unwrap();
    answer.body.lines().filter(of).map(number).sum()
}

/// Waits until so many requests of a version were counted with this reason: they are when they have ended.
async fn check_counted(front: &Front, version: &str, reason: &str, expected: u64) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let found = counted(front, version, reason).await;
        if found == expected {
            return;
        }
        assert!(
            found < expected && Instant::now() < deadline,
            "{found} of {version} by {reason}, not {expected}"
        );
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// What the admin API answers.
async fn api(front: &Front, first: &str, body: &Value) -> Value {
    let body = body.to_string();
    let request = format!(
        "{first} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let answer = Client::new(front.router.admin()).raw(request.as_bytes()).await.unwrap();
    assert_eq!(answer.status, 200, "{answer:?}");
    serde_json::from_str(&answer.body).unwrap()
}

async fn status(front: &Front) -> Value {
    let answer = Client::new(front.router.admin()).get("localhost", "/api/v1/routes/shop").await.unwrap();
    serde_json::from_str(&answer.body).unwrap()
}

const RULES: &str = "rules: [
      {header: X-Beta, value: 'yes', methods: [GET, HEAD], version: v2},
      {cookie: group, regex: 'beta-[0-9]+', version: v2},
      {query: preview, value: 'on & on', version: v2},
      {clientCidrs: [203.0.113.0/24, '2001:db8::/32'], version: v2},
      {header: X-Staff, and: [{cookie: staff}, {query: q}], version: v2},
      {methods: [DELETE], version: v2},
      {header: X-Canary, canary: v2}]";

#[tokio::test(flavor = "multi_thread")]
async fn s3_1_each_kind_of_rule_decides() {
    let (front, pods) = start("0", |plan| plan.route(RULES).top("trustedProxies: [127.0.0.1]")).await;
    let cases: [(&str, &[&str], &str); 17] = [
        ("GET /", &["X-Beta: yes"], "v2"),
        ("GET /", &["X-Beta: no"], "v1"),
        ("PUT /", &["X-Beta: yes", "Content-Length: 0"], "v1"),
        ("GET /", &["Cookie: a=b; group=beta-1; c=d"], "v2"),
        ("GET /", &["Cookie: group=xbeta-1"], "v1"),
        ("GET /?a&preview=on+%26%20on", &[], "v2"),
        ("GET /?preview=off", &[], "v1"),
        // The client is the one behind the trusted hop.
        ("GET /", &["X-Forwarded-For: 198.51.100.1, 203.0.113.9"], "v2"),
        ("GET /", &["X-Forwarded-For: 2001:db8::7"], "v2"),
        ("GET /", &["X-Forwarded-For: 203.0.113.9, 198.51.100.1"], "v1"),
        ("GET /?q=", &["X-Staff: 1", "Cookie: staff=1"], "v2"),
        ("GET /", &["X-Staff: 1", "Cookie: staff=1"], "v1"),
        ("DELETE /", &[], "v2"),
        ("GET /", &["X-Canary: always"], "v2"),
        ("GET /", &["X-Canary: never"], "v1"),
        ("GET /", &["X-Canary: 1"], "v1"),
        ("GET /", &[], "v1"),
    ];
    for (first, lines, version) in cases {
        assert_eq!(ask(&front, first, lines).await.version(), version, "{first} {lines:?}");
    }
    let v2 = cases.iter().filter(|(_, _, version)| *version == "v2").count() as u64;
    assert_eq!(pods[1].served(), v2);
    // `never` is a rule's word too; the others go by weight.
    check_counted(&front, "v2", "rule", v2).await;
    check_counted(&front, "v1", "rule", 1).await;
    check_counted(&front, "v1", "weight", cases.len() as u64 - v2 - 1).await;
    front.router.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn s3_1_http2_brings_cookies_in_fields_of_their_own() {
    let (front, _pods) = start("0", |plan| plan.route(RULES)).await;
    let mut sender = front.sender(Speaks::Http2).await;
    let mut request = sender.request("GET", "/", Sent::empty());
    for cookie in ["a=b", "group=beta-7"] {
        request.headers_mut().append("cookie", cookie.parse().unwrap());
    }
    let answer = sender.send(request).await.unwrap();
    assert!(text(answer.into_body()).await.contains("version is: v2"));
    front.router.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn s2_4_a_rule_whose_version_has_no_pod_spills_or_is_answered_503() {
    for (on_empty, status, version, reason) in [("spill", 200, "v1", "fallback"), ("fail", 503, "v2", "rule")]
    {
        let (front, _pods) = start("0", |mut plan| {
            plan.pods.truncate(1);
            plan.route(RULES).route(format!("onEmpty: {on_empty}"))
        })
        .await;
        let request = format!("GET / HTTP/1.1\r\nHost: {HOST}\r\nX-Canary: always\r\n\r\n");
        let answer = Client::new(front.address()).raw(request.as_bytes()).await.unwrap();
        assert_eq!(answer.status, status, "{on_empty}");
        check_counted(&front, version, reason, 1).await;
        front.router.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn s3_2_a_user_stays_with_his_version_and_more_weight_only_adds_users() {
    let (front, _pods) = start("20", |plan| plan.route("cohort: {header: X-User, salt: s}")).await;
    let mut before = BTreeMap::new();
    for user in (0..100).chain(0..100) {
        let version = ask(&front, "GET /", &[&format!("X-User: u{user}")]).await.version().to_owned();
        let first = before.entry(user).or_insert_with(|| version.clone());
        assert_eq!(*first, version);
    }
    let canary = before.values().filter(|version| *version == "v2").count();
    assert!((5..40).contains(&canary), "{canary} of 100 at 20 %");
    check_counted(&front, "v2", "cohort", 2 * canary as u64).await;
    let told = status(&front).await;
    let users = told["versions"][1]["users"].as_f64().unwrap();
    assert!((users - canary as f64).abs() <= 0.15 * canary as f64 + 1.0, "{users} of {canary}: {told}");
    let share = told["versions"][1]["measuredUserShare"].as_f64().unwrap();
    assert!((share - canary as f64).abs() < 0.25 * canary as f64 + 1.0, "{share} of {canary}");

    assert_eq!(set_weight(&front.router, "shop", "{\"v2\": 60}").await.status, 200);
    assert_eq!(status(&front).await["versions"][1]["users"], 0, "anew with the revision");
    for (user, version) in before {
        let now = ask(&front, "GET /", &[&format!("X-User: u{user}")]).await.version().to_owned();
        assert!(version == "v1" || now == "v2", "user {user}");
    }
    // Without the key, by weight.
    for _ in 0..10 {
        ask(&front, "GET /", &[]).await;
    }
    check_counted(&front, "v1", "weight", 4).await;
    check_counted(&front, "v2", "weight", 6).await;
    front.router.stop().await;
}

/// A cookie's attributes, in the order of the alphabet, and its value.
fn attributes(cookie: &str) -> (String, Vec<String>) {
    let mut parts = cookie.split("; ").map(ToOwned::to_owned);
    let value = parts.next().and_then(|pair| pair.strip_prefix("serinus=").map(ToOwned::to_owned));
    let mut rest: Vec<_> = parts.collect();
    rest.sort();
    (value.unwrap_or_else(|| panic!("another cookie: {cookie}")), rest)
}

const PLAIN: [&str; 4] = ["HttpOnly", "Max-Age=31536000", "Path=/", "SameSite=Lax"];
const SECURE: [&str; 5] = ["HttpOnly", "Max-Age=31536000", "Path=/", "SameSite=Lax", "Secure"];

#[tokio::test(flavor = "multi_thread")]
async fn s3_2_a_new_browser_is_given_a_cookie_that_holds_no_version() {
    let (front, _pods) = start("50", |plan| {
        plan.route("cohort: {cookie: serinus, set: true}").top("trustedProxies: [127.0.0.1]")
    })
    .await;
    let mut of_version = BTreeMap::new();
    for _ in 0..40 {
        let first = ask(&front, "GET /", &[]).await;
        let (value, attributes) = attributes(first.header("set-cookie"));
        assert_eq!(attributes, PLAIN);
        assert!(value.len() == 16 && value.bytes().all(|b| b.is_ascii_hexdigit()), "{value}");
        let kept = format!("Cookie: a=b; serinus={value}");
        let again = ask(&front, "GET /", &[&kept]).await;
        assert_eq!(again.version(), first.version(), "its first request counts");
        assert_eq!(again.header("set-cookie"), "", "once");
        of_version.insert(kept, first.version().to_owned());
    }
    let canary = of_version.values().filter(|version| *version == "v2").count();
    assert!((5..36).contains(&canary), "{canary} of 40 at 50 %");
    check_counted(&front, "v2", "cohort", 2 * canary as u64).await;
    // What Serinus did not make is no cookie of its own.
    let foreign = ask(&front, "GET /", &["Cookie: serinus=v2"]).await;
    assert_eq!(attributes(foreign.header("set-cookie")).1, PLAIN);
    // The client came by TLS to the hop before.
    let behind = ask(&front, "GET /", &["X-Forwarded-Proto: https"]).await;
    assert_eq!(attributes(behind.header("set-cookie")).1, SECURE);
    assert_eq!(set_weight(&front.router, "shop", "{\"v2\": 0}").await.status, 200);
    for kept in of_version.keys() {
        assert_eq!(ask(&front, "GET /", &[kept]).await.version(), "v1", "weights keep meaning what they say");
    }
    front.router.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn s3_2_the_cookie_is_secure_on_tls_and_nobodys_word_changes_that() {
    let authority = Authority::new("a");
    let issued = authority.issue(&[HOST]);
    let (front, _pods) =
        start("50", |plan| plan.route("cohort: {cookie: serinus, set: true}").tls(&[&issued], "")).await;
    for line in ["", "X-Forwarded-Proto: http\r\n"] {
        let stream = front.secure(&authority.client(), HOST, &["http/1.1"]).await.unwrap();
        let mut raw = Raw::new(stream);
        raw.send(format!("GET / HTTP/1.1\r\nHost: {HOST}\r\n{line}\r\n")).await;
        let head = raw.head().await.expect("an answer");
        assert_eq!(attributes(header(&head, "set-cookie").expect("a cookie")).1, SECURE, "{head}");
    }
    front.router.stop().await;
    let (plain, _pods) = start("50", |plan| plan.route("cohort: {cookie: serinus, set: true}")).await;
    let answer = ask(&plain, "GET /", &["X-Forwarded-Proto: https"]).await;
    assert_eq!(attributes(answer.header("set-cookie")).1, PLAIN, "no hop is trusted here");
    plain.router.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn explain_says_which_rule_or_user_decides_and_moves_nothing() {
    let (front, _pods) =
        start("0", |plan| plan.route(RULES).route("cohort: {clientIp: true, salt: s}")).await;
    let explain = |more: Value| {
        let mut request = json!({"url": format!("http://{HOST}/?preview=off")});
        request.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let front = &front;
        async move { api(front, "POST /api/v1/explain", &request).await }
    };
    let by_rule = explain(json!({"headers": {"x-canary": "always"}, "client": "198.51.100.1"})).await;
    assert_eq!((&by_rule["rule"], &by_rule["version"]), (&json!("rule"), &json!("v2")));
    let why: Vec<&str> =
        by_rule["why"].as_array().unwrap().iter().map(|line| line.as_str().unwrap()).collect();
    for line in [
        "rule 1 does not fit: there is no header `x-beta`",
        "rule 3 does not fit: query parameter `preview` is not `on & on`",
        "rule 4 does not fit: the client 198.51.100.1 is not in 203.0.113.0/24 or 2001:db8::/32",
        "rule 6 does not fit: the method is not DELETE",
        "rule 7 fits: header `x-canary` is `always`: version `v2`",
    ] {
        assert!(why.contains(&line), "{line}: {why:#?}");
    }
    let by_client = explain(json!({"client": "203.0.113.9"})).await;
    assert_eq!((&by_client["rule"], &by_client["version"]), (&json!("rule"), &json!("v2")));
    let by_user = explain(json!({"client": "198.51.100.1"})).await;
    assert_eq!((&by_user["rule"], &by_user["version"]), (&json!("cohort"), &json!("v1")));
    assert_eq!(explain(json!({})).await["rule"], "weight");
    // Asking counts nobody.
    assert_eq!(status(&front).await["versions"][0]["users"], 0);
    front.router.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn s5_6_after_an_abort_canary_cookies_are_ignored() {
    let (front, _pods) = start("0", |plan| {
        plan.route("rules: [{cookie: beta, version: v2}, {header: X-Canary, canary: v2}]")
            .route("rollout: {steps: [{weight: 1, hold: 1h}]}")
    })
    .await;
    let cookie = ["Cookie: beta=1"];
    assert_eq!(ask(&front, "GET /", &cookie).await.version(), "v2");
    api(&front, "POST /api/v1/routes/shop/rollout", &json!({"action": "start"})).await;
    assert_eq!(ask(&front, "GET /", &cookie).await.version(), "v2");
    api(&front, "POST /api/v1/routes/shop/rollout", &json!({"action": "abort"})).await;
    assert_eq!(ask(&front, "GET /", &cookie).await.version(), "v1");
    assert_eq!(ask(&front, "GET /", &["X-Canary: always"]).await.version(), "v2");
    let question = json!({"url": format!("http://{HOST}/"), "headers": {"cookie": "beta=1"}});
    let why = api(&front, "POST /api/v1/explain", &question).await["why"].to_string();
    assert!(why.contains("rule 1 would fit, and is ignored: it looks at a cookie"), "{why}");
    assert_eq!(set_weight(&front.router, "shop", "{\"v2\": 0.0001}").await.status, 200);
    assert_eq!(ask(&front, "GET /", &cookie).await.version(), "v2");
    front.router.stop().await;
}
