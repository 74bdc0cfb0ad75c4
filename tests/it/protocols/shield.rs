//! What a canary fails, stable makes good, where it is safe (semantics §3.4).

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use super::front::{Front, Plan};
use super::pods::nobody;
use super::seer::{Seer, versions};
use crate::support::cluster::loopback_address;
use crate::support::eventually;
use crate::support::http::{Answer, Client};
use crate::support::misbehaving::{Conduct, Deaf, End, Ledger, Pod, always};

/// What a shielded canary may do with every request.
const FAILURES: [Conduct; 5] = [
    Conduct::Status(503),
    Conduct::EndAfterHead(End::Reset),
    Conduct::EndInHead(End::Fin),
    Conduct::Garbage,
    Conduct::Hang,
];

/// How long answers may take: short only where one never comes.
fn patience(conduct: Conduct) -> &'static str {
    if conduct == Conduct::Hang { "timeouts: {request: 1s}" } else { "timeouts: {request: 1m}" }
}

/// A route to these pods, half of whose requests are v2's, and no pod is set aside.
fn plan(stable: SocketAddr, canary: SocketAddr) -> Plan {
    let mut plan =
        Plan::to([stable]).route(versions("weight: 50")).route("outliers: {consecutiveFailures: 0}");
    plan.pods.push((canary, "v2"));
    plan
}

async fn pod(conduct: Conduct, ledger: &Arc<Ledger>) -> Pod {
    Pod::start((loopback_address(), 0).into(), ledger, always(conduct)).await
}

/// Sends a request with an id of its own.
async fn send(client: &mut Client, method: &str, id: &str) -> Answer {
    let body = if method == "POST" { "Content-Length: 4\r\n\r\nbody" } else { "\r\n" };
    let request = format!("{method} /{id} HTTP/1.1\r\nHost: a\r\nX-Test-Id: {id}\r\n{body}");
    client.once(request.as_bytes()).await.unwrap()
}

/// What is counted of v2: begun, ended with an answer, shielded.
fn of_v2(front: &Front) -> (u64, u64, u64) {
    let table = front.router.control().table().load_full();
    let counts = table.routes()[0].versions[1].tally.snapshot();
    (counts.begun, counts.ended(), counts.shielded)
}

async fn metrics(front: &Front) -> String {
    Client::new(front.router.admin()).get("localhost", "/metrics").await.unwrap().body
}

#[tokio::test(flavor = "multi_thread")]
async fn s3_4_a_canary_that_fails_costs_a_shielded_client_nothing_and_is_counted() {
    for conduct in FAILURES {
        let ledger = Arc::default();
        let (stable, canary) = (pod(Conduct::Answer, &ledger).await, pod(conduct, &ledger).await);
        let plan = plan(stable.address, canary.address).route("shield: true");
        // One attempt alone, so that it is not the usual retries that help.
        let front = plan.route("retries: {attempts: 1}").route(patience(conduct)).start().await;
        let mut client = Client::new(front.address());
        for number in 0..10 {
            let id = format!("{number}");
            let answer = send(&mut client, "GET", &id).await;
            assert_eq!((answer.status, answer.body.as_str()), (200, id.as_str()), "{conduct:?}");
        }
        // Each was dealt as ever, and each of the canary's failed there, and was repeated once.
        assert_eq!((canary.requests(), stable.requests()), (5, 10), "{conduct:?}");
        eventually("the last is counted", || (front.active() == 0).then_some(())).await;
        assert_eq!(of_v2(&front), (5, 0, 5), "{conduct:?}");
        let metrics = metrics(&front).await;
        for line in [
            r#"serinus_requests_total{route="shop",version="v1",code="200",reason="fallback"} 5"#,
            r#"serinus_requests_total{route="shop",version="v1",code="200",reason="weight"} 5"#,
            r#"serinus_shielded_requests_total{route="shop",version="v2"} 5"#,
            r#"serinus_retries_total{route="shop",version="v1",outcome="success"} 5"#,
        ] {
            assert!(metrics.lines().any(|l| l == line), "{conduct:?}: {line}\n{metrics}");
        }
        let failed =
            metrics.lines().filter(|l| l.starts_with("serinus_upstream_failures_total") && l.contains("v2"));
        let failed: u64 = failed.map(|l| l.rsplit(' ').next().unwrap().parse::<u64>().unwrap()).sum();
        // An answer is no failed attempt, but an error: see below.
        assert_eq!(failed, if matches!(conduct, Conduct::Status(_)) { 0 } else { 5 }, "{conduct:?}");
        let status = Client::new(front.router.admin()).get("localhost", "/api/v1/routes/shop").await.unwrap();
        let status: Value = serde_json::from_str(&status.body).unwrap();
        assert_eq!(status["versions"][1]["errorRate"], 100.0, "{conduct:?}: {status}");
        assert_eq!(status["versions"][1]["measuredShare"], 50.0, "{conduct:?}: {status}");
        front.router.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn s3_4_a_post_that_a_pod_may_have_seen_is_never_repeated_on_stable() {
    for conduct in FAILURES {
        let ledger = Arc::<Ledger>::default();
        let (stable, canary) = (pod(Conduct::Answer, &ledger).await, pod(conduct, &ledger).await);
        let plan = plan(stable.address, canary.address).route("shield: true");
        let front = plan.route(patience(conduct)).start().await;
        let mut failed = 0;
        for number in 0..6 {
            let mut client = Client::new(front.address());
            failed += u32::from(send(&mut client, "POST", &format!("POST-{number}")).await.status >= 500);
        }
        assert_eq!(failed, 3, "{conduct:?}: those of the canary");
        assert_eq!(ledger.repeated(), Vec::<String>::new(), "{conduct:?}");
        assert_eq!(of_v2(&front).2, 0, "{conduct:?}");
        front.router.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn s3_4_what_never_came_to_the_canary_goes_to_stable_whatever_its_method() {
    let ledger = Arc::<Ledger>::default();
    let stable = pod(Conduct::Answer, &ledger).await;
    let deaf = Deaf::start((loopback_address(), 0).into());
    // One that takes no connection in time, and one that refuses it, which is for `onEmpty` to care for.
    for (canary, shielded) in [(deaf.address, 3), (nobody(), 0)] {
        let front = plan(stable.address, canary).route("shield: true").start().await;
        let mut client = Client::new(front.address());
        for number in 0..6 {
            let id = format!("POST-{canary}-{number}");
            assert_eq!(send(&mut client, "POST", &id).await.status, 200);
            assert_eq!(ledger.seen(&id).times, 1);
        }
        assert_eq!(of_v2(&front).2, shielded, "{canary}");
        front.router.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn s3_4_it_is_once_and_within_the_budget_and_only_where_the_route_says_so() {
    let ledger = Arc::<Ledger>::default();
    let (good, bad) = (pod(Conduct::Answer, &ledger).await, pod(Conduct::Status(503), &ledger).await);
    let broken = pod(Conduct::EndAfterHead(End::Reset), &ledger).await;
    let other = pod(Conduct::EndAfterHead(End::Reset), &ledger).await;
    let answered = async |stable: &[&Pod], lines: &[&str]| {
        let mut plan = plan(stable[0].address, bad.address);
        plan.pods.extend(stable[1..].iter().map(|pod| (pod.address, "v1")));
        for line in lines {
            plan = plan.route(*line);
        }
        let front = plan.start().await;
        let mut client = Client::new(front.address());
        let before = stable.iter().map(|pod| pod.requests()).sum::<u64>();
        let mut statuses = Vec::new();
        for _ in 0..2 {
            statuses.push(send(&mut client, "GET", "any").await.status);
        }
        statuses.sort_unstable();
        let came = stable.iter().map(|pod| pod.requests()).sum::<u64>() - before;
        front.router.stop().await;
        (statuses, came)
    };
    assert_eq!(answered(&[&good], &["shield: true"]).await, (vec![200, 200], 2));
    assert_eq!(answered(&[&good], &[]).await, (vec![200, 503], 1));
    assert_eq!(
        answered(&[&good], &["shield: true", "retries: {budget: 0, least: 0}"]).await,
        (vec![200, 503], 1),
        "there is no leave: the canary's answer is passed on"
    );
    // Stable's own request is tried on both of its pods; the canary's on one.
    let lines = ["shield: true", "retries: {attempts: 2}"];
    assert_eq!(answered(&[&broken, &other], &lines).await, (vec![502, 502], 3));
}

/// A connection that was kept, and that the pod had closed, is nobody's failure: the canary gets it again.
#[tokio::test(flavor = "multi_thread")]
async fn s3_4_a_connection_that_the_canary_had_closed_is_not_its_failure() {
    let ledger = Arc::<Ledger>::default();
    let (stable, canary) =
        (pod(Conduct::Answer, &ledger).await, pod(Conduct::AnswerThenEndAtNext(End::Fin), &ledger).await);
    let front = plan(stable.address, canary.address).route("shield: true").start().await;
    let mut client = Client::new(front.address());
    for number in 0..20 {
        assert_eq!(send(&mut client, "GET", &format!("{number}")).await.status, 200);
    }
    assert_eq!(stable.requests(), 10);
    eventually("the last is counted", || (front.active() == 0).then_some(())).await;
    assert_eq!(of_v2(&front), (10, 10, 0));
    front.router.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn s3_4_the_access_log_shows_both_pods() {
    let canary = Seer::start(|_| (500, String::new())).await;
    let stable = Seer::stable().await;
    let plan = plan(stable.address(), canary.address()).route("shield: true");
    let log = plan.path("access.log");
    let front = plan.top(format!("accessLog: {{file: '{}'}}", log.display())).start().await;
    let mut client = Client::new(front.address());
    for _ in 0..2 {
        assert_eq!(client.get("a", "/").await.unwrap().body, "stable");
    }
    let lines = eventually("both are logged", || {
        let text = std::fs::read_to_string(&log).ok()?;
        let lines: Vec<Value> = text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
        (lines.len() == 2).then_some(lines)
    })
    .await;
    let line = lines.iter().find(|line| line["reason"] == "fallback").unwrap();
    assert_eq!(
        (&line["version"], &line["status"], &line["attempts"]),
        (&"v1".into(), &200.into(), &2.into())
    );
    assert_eq!(line["upstream"], stable.address().to_string());
    assert_eq!(line["tried"], serde_json::json!([canary.address().to_string()]));
    front.router.stop().await;
}

/// Its clients see nothing of it, and the rollout of a canary that fails is taken back all the same.
#[tokio::test(flavor = "multi_thread")]
async fn s3_4_a_shielded_canary_is_rolled_back_for_what_it_failed() {
    let canary = Seer::start(|_| (500, String::new())).await;
    let stable = Seer::stable().await;
    let plan = plan(stable.address(), canary.address()).route("shield: true");
    let plan = plan.route("rollout: {steps: [{weight: 50, hold: 1h}], guard: {alpha: 0.01}}");
    let front = plan.start().await;
    let mut admin = Client::new(front.router.admin());
    let start = r#"{"action": "start"}"#;
    let request = format!(
        "POST /api/v1/routes/shop/rollout HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\n\r\n{start}",
        start.len()
    );
    let answer = admin.raw(request.as_bytes()).await.unwrap();
    assert_eq!(answer.status, 200, "{answer:?}");
    let mut client = Client::new(front.address());
    let mut status = Value::Null;
    for _ in 0..5_000 {
        assert_eq!(client.get("a", "/").await.unwrap().status, 200);
        let body = admin.get("localhost", "/api/v1/routes/shop").await.unwrap().body;
        status = serde_json::from_str(&body).unwrap();
        if status["versions"][1]["weight"] == 0.0 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert_eq!(status["versions"][1]["weight"], 0.0, "{status}");
    assert!(status["rollout"]["evidence"]["canary"]["errors"].as_u64().unwrap() >= 5, "{status}");
    assert_eq!(status["rollout"]["evidence"]["stable"]["errors"], 0, "{status}");
    front.router.stop().await;
}
