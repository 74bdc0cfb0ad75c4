//! Copies of requests: what they are, that nobody waits for them, and that there is an end to how many there are.

use std::net::SocketAddr;
use std::sync::Arc;

use serde_json::Value;

use super::bodies::{Sent, pattern, whole};
use super::front::{Front, Plan};
use super::pods::{Speaks, nobody};
use super::seer::{Answers, Seer, versions};
use crate::support::cluster::loopback_address;
use crate::support::eventually;
use crate::support::http::Client;
use crate::support::misbehaving::{Conduct, End, Ledger, Pod, always};

/// A route to these pods; v2 gets nothing but copies, as `mirror` says besides.
fn plan(stable: SocketAddr, copies: SocketAddr, mirror: &str) -> Plan {
    let mut plan = Plan::to([stable]).route(versions("weight: 0"));
    plan.pods.push((copies, "v2"));
    plan.route(format!("mirror: {{version: v2, {mirror}}}"))
}

/// What became of the copies: sent, failed, dropped, too large, under way.
fn copies(front: &Front) -> [u64; 5] {
    use serinus::model::MirrorOutcome::{Dropped, Failed, Sent, TooLarge};
    let table = front.router.control().table().load_full();
    let counts = table.routes()[0].mirror.as_ref().unwrap().tally.snapshot();
    let [sent, failed, dropped, too_large] = [Sent, Failed, Dropped, TooLarge].map(|of| counts.count(of));
    [sent, failed, dropped, too_large, counts.in_flight.into()]
}

async fn come_to(front: &Front, expected: [u64; 5]) {
    let what = format!("the copies come to {expected:?}");
    eventually(&what, || (copies(front) == expected).then_some(())).await;
}

/// v2 has no part in it: no request of its own, no failure, no pod that is set aside.
async fn untouched(front: &Front, expected: u64) {
    let table = front.router.control().table().load_full();
    let version = &table.routes()[0].versions[1];
    let counts = version.tally.snapshot();
    assert_eq!((counts.begun, counts.ended()), (expected, expected));
    assert!(counts.failures.iter().all(|(_, count)| *count == 0), "{counts:?}");
    assert!(counts.set_aside.iter().all(|(_, count)| *count == 0), "{counts:?}");
    assert_eq!(version.candidates().len(), 1);
}

async fn status(front: &Front) -> Value {
    let body = Client::new(front.router.admin()).get("localhost", "/api/v1/routes/shop").await.unwrap().body;
    serde_json::from_str(&body).unwrap()
}

const EMPTY: Answers = |_| (200, String::new());

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_is_the_request_and_says_that_it_is_a_copy() {
    for speaks in [Speaks::Http1, Speaks::Http2] {
        let name = if speaks == Speaks::Http1 { "http1" } else { "http2" };
        let stable = Seer::that_speaks(speaks, |path| (200, path.to_owned())).await;
        let mirror = Seer::that_speaks(speaks, |_| (500, "nobody sees this".to_owned())).await;
        let plan = plan(stable.address(), mirror.address(), "methods: [GET, HEAD, POST], maxBody: 100KiB");
        let front = plan.route(format!("protocol: {name}")).start().await;
        let mut client = front.sender(Speaks::Http1).await;
        let long = pattern(0, 100 << 10);
        for (method, path, body) in [
            ("GET", "/a?b=c", Sent::empty()),
            ("HEAD", "/head", Sent::empty()),
            ("POST", "/short", Sent::whole("body")),
            ("POST", "/none", Sent::empty()),
            // Longer than is kept for a retry, and as long as is copied; the second without telling so before.
            ("POST", "/long", Sent::whole(long.clone())),
            ("POST", "/pieces", Sent::pattern(100 << 10)),
            // Not copied: too long, told or not, or another method.
            ("POST", "/longer", Sent::whole(pattern(0, (100 << 10) + 1))),
            ("POST", "/stream", Sent::pattern((100 << 10) + 1)),
            ("PUT", "/put", Sent::whole("body")),
        ] {
            let request = client.request(method, path, body);
            let answer = client.send(request).await.unwrap();
            assert_eq!(answer.status(), 200, "{path}");
            let (body, _) = whole(answer.into_body()).await.unwrap();
            let expected = if method == "HEAD" { "" } else { path.split('?').next().unwrap() };
            assert_eq!(String::from_utf8(body).unwrap(), expected);
        }
        come_to(&front, [6, 0, 0, 2, 0]).await;
        let (requests, copies) = (stable.seen(), mirror.seen());
        let mut paths: Vec<_> = copies.iter().map(|copy| copy.path.as_str()).collect();
        paths.sort_unstable();
        assert_eq!(paths, ["/a?b=c", "/head", "/long", "/none", "/pieces", "/short"]);
        for copy in &copies {
            let request = requests.iter().find(|request| request.path == copy.path).unwrap();
            assert_eq!((&copy.method, &copy.body), (&request.method, &request.body), "{}", copy.path);
            assert_eq!((copy.header("x-serinus-mirror"), request.header("x-serinus-mirror")), ("true", ""));
            for kept in ["x-request-id", "x-forwarded-for", "x-forwarded-host"] {
                assert_eq!(copy.header(kept), request.header(kept), "{kept}");
                assert!(!copy.header(kept).is_empty(), "{kept}");
            }
        }
        // Each but the first finds a connection, except where it could meet one that its pod is just closing.
        assert!(
            mirror.connections() <= if speaks == Speaks::Http1 { 6 } else { 1 },
            "{}",
            mirror.connections()
        );
        untouched(&front, 0).await;
        front.router.stop().await;
    }
}

/// Requests that go to the version anyway are not copied, nor are those that are copies themselves.
#[tokio::test(flavor = "multi_thread")]
async fn the_share_of_copies_is_exact() {
    let (stable, mirror) = (Seer::stable().await, Seer::start(EMPTY).await);
    let mut plan = Plan::to([stable.address()]).route(versions("weight: 20"));
    plan.pods.push((mirror.address(), "v2"));
    let plan = plan.route("mirror: {version: v2, percent: 25}").top("trustedProxies: [127.0.0.0/8]");
    let front = plan.start().await;
    let mut client = Client::new(front.address());
    for _ in 0..100 {
        client.get("a", "/").await.unwrap();
    }
    come_to(&front, [20, 0, 0, 0, 0]).await;
    assert_eq!((stable.count(), mirror.count()), (80, 40), "of the 80 that go to stable, a fourth");
    for _ in 0..20 {
        client.raw(b"GET / HTTP/1.1\r\nHost: a\r\nX-Serinus-Mirror: true\r\n\r\n").await.unwrap();
    }
    assert_eq!(copies(&front), [20, 0, 0, 0, 0], "none of a copy");
    untouched(&front, 24).await;
    let metrics = Client::new(front.router.admin()).get("localhost", "/metrics").await.unwrap().body;
    let line = r#"serinus_mirrored_requests_total{route="shop",version="v2",outcome="sent"} 20"#;
    assert!(metrics.lines().any(|l| l == line), "{metrics}");
    front.router.stop().await;
}

/// A pod that gets requests and copies keeps connections for either, so that no request finds its own taken.
#[tokio::test(flavor = "multi_thread")]
async fn copies_have_connections_of_their_own() {
    let (stable, mirror) = (Seer::stable().await, Seer::start(EMPTY).await);
    let mut plan = Plan::to([stable.address()]).route(versions("weight: 50"));
    plan.pods.push((mirror.address(), "v2"));
    let front = plan.route("mirror: {version: v2}").start().await;
    let mut client = Client::new(front.address());
    for _ in 0..40 {
        client.get("a", "/").await.unwrap();
        // One after the other, so that a single connection would do for all.
        eventually("its copy has ended", || (copies(&front)[4] == 0).then_some(())).await;
        eventually("it has ended", || (front.active() == 0).then_some(())).await;
    }
    come_to(&front, [20, 0, 0, 0, 0]).await;
    assert_eq!(mirror.count(), 40);
    // One for the requests and one for the copies; and another, should the machine be so busy that one of them gets old.
    assert!((2..=4).contains(&mirror.connections()), "{}", mirror.connections());
    front.router.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mirror_that_never_answers_holds_nobody_up_and_has_an_end() {
    let (stable, mirror) = (Seer::stable().await, Seer::start(EMPTY).await);
    mirror.hold(true);
    let mirror_says = "maxInFlight: 5, timeout: 1h, methods: [GET, POST]";
    let front = plan(stable.address(), mirror.address(), mirror_says).start().await;
    let mut client = Client::new(front.address());
    for number in 0..40 {
        // The mirror answers none of them, and each is answered.
        let post = format!("POST /{number} HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbody");
        let get = format!("GET /{number} HTTP/1.1\r\nHost: a\r\n\r\n");
        let request = if number % 2 == 0 { get } else { post };
        assert_eq!(client.raw(request.as_bytes()).await.unwrap().body, "stable");
    }
    eventually("five are at the mirror", || (mirror.now() == 5).then_some(())).await;
    come_to(&front, [0, 0, 35, 0, 5]).await;
    mirror.hold(false);
    come_to(&front, [5, 0, 35, 0, 0]).await;
    assert_eq!((stable.count(), mirror.count(), mirror.most()), (40, 5, 5));
    untouched(&front, 0).await;
    front.router.stop().await;
}

/// Whatever the mirror's pod does, the clients get what stable says, and nothing counts against the version.
#[tokio::test(flavor = "multi_thread")]
async fn a_mirror_that_breaks_costs_the_requests_nothing() {
    let ledger = Arc::<Ledger>::default();
    for (conduct, answered) in [
        (Conduct::EndAtOnce(End::Reset), false),
        (Conduct::EndAfterHead(End::Reset), false),
        (Conduct::EndInHead(End::Fin), false),
        (Conduct::Garbage, false),
        (Conduct::Hang, false),
        // The head of an answer has come.
        (Conduct::EndInBody(End::Reset), true),
        (Conduct::UntilClosed, true),
        (Conduct::Interims(3), true),
    ] {
        let stable = Seer::stable().await;
        let mirror = Pod::start((loopback_address(), 0).into(), &ledger, always(conduct)).await;
        // In vain where it hangs; otherwise longer than it ever needs.
        let timeout = if conduct == Conduct::Hang { "timeout: 100ms" } else { "timeout: 1m" };
        let front = plan(stable.address(), mirror.address, timeout).start().await;
        let mut client = Client::new(front.address());
        for _ in 0..20 {
            assert_eq!(client.get("a", "/").await.unwrap().body, "stable", "{conduct:?}");
        }
        come_to(&front, if answered { [20, 0, 0, 0, 0] } else { [0, 20, 0, 0, 0] }).await;
        untouched(&front, 0).await;
        front.router.stop().await;
    }
    // Nobody listens there: that too is found out by each anew, for no copy marks a pod.
    let stable = Seer::stable().await;
    let front = plan(stable.address(), nobody(), "").start().await;
    let mut client = Client::new(front.address());
    for _ in 0..20 {
        assert_eq!(client.get("a", "/").await.unwrap().body, "stable");
    }
    come_to(&front, [0, 20, 0, 0, 0]).await;
    untouched(&front, 0).await;
    front.router.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_without_a_pod_gets_no_copies_and_it_is_told() {
    let stable = Seer::stable().await;
    let plan = Plan::to([stable.address()]).route(versions("weight: 0")).route("mirror: {version: v2}");
    let front = plan.start().await;
    let mut client = Client::new(front.address());
    assert_eq!(client.get("a", "/").await.unwrap().body, "stable");
    come_to(&front, [0, 0, 1, 0, 0]).await;
    let problems = front.problems();
    assert!(
        problems.contains("the mirror of route shop copies to version v2, which has no usable pod"),
        "{problems}"
    );
    front.router.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_are_compared() {
    let long = |last: char| "x".repeat((1 << 20) - 1) + &last.to_string();
    let stable = Seer::start(|path| match path {
        "/long" => (200, "x".repeat((1 << 20) - 1) + "y"),
        path => (200, path.to_owned()),
    });
    let mirror = Seer::start(|path| match path {
        "/status" => (404, path.to_owned()),
        "/body" => (200, "/Body".to_owned()),
        "/long" => (200, "x".repeat((1 << 20) - 1) + "z"),
        path => (200, path.to_owned()),
    });
    let (stable, mirror) = (stable.await, mirror.await);
    let front = plan(stable.address(), mirror.address(), "compare: true").start().await;
    let mut client = Client::new(front.address());
    for path in ["/same", "/same", "/same", "/status", "/status", "/body"] {
        assert_eq!(client.get("a", path).await.unwrap().body, path);
    }
    assert_eq!(client.get("a", "/long").await.unwrap().body, long('y'), "the last of what is compared");
    come_to(&front, [7, 0, 0, 0, 0]).await;
    let found = status(&front).await["mirror"].clone();
    let compared = &found["compared"];
    assert_eq!(
        (&found["version"], &found["percent"], &found["sent"]),
        (&"v2".into(), &100.into(), &7.into())
    );
    assert_eq!(compared["same"], 3, "{found}");
    assert_eq!((&compared["otherStatus"], &compared["otherBody"]), (&2.into(), &2.into()), "{found}");
    assert!(compared["originalP50Ms"].as_f64().unwrap() > 0.0, "{found}");
    assert!(compared["copyP50Ms"].as_f64().unwrap() > 0.0, "{found}");
    let metrics = Client::new(front.router.admin()).get("localhost", "/metrics").await.unwrap().body;
    for (outcome, count) in [("same", 3), ("different", 4), ("sent", 7)] {
        let line = format!(
            r#"serinus_mirrored_requests_total{{route="shop",version="v2",outcome="{outcome}"}} {count}"#
        );
        assert!(metrics.lines().any(|l| l == line), "{line}: {metrics}");
    }
    front.router.stop().await;
}
