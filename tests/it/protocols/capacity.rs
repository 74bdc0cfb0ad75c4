//! No canary gets more than its pods may have at once (`maxInFlightPerPod`).

use serde_json::Value;

use super::front::{Front, Plan};
use super::seer::{Seer, versions};
use crate::support::eventually;
use crate::support::http::Client;

async fn front(stable: Option<&Seer>, canaries: &[&Seer], canary: &str) -> Front {
    let mut plan = Plan::to(stable.map(Seer::address)).route(versions(canary));
    plan.pods.extend(canaries.iter().map(|pod| (pod.address(), "v2")));
    plan.start().await
}

async fn status(front: &Front) -> Value {
    let body = Client::new(front.router.admin()).get("localhost", "/api/v1/routes/shop").await.unwrap().body;
    serde_json::from_str(&body).unwrap()
}

/// Sends so many requests at once; each tells where it was answered.
fn send(front: &Front, count: usize) -> tokio::sync::mpsc::UnboundedReceiver<String> {
    let (told, answers) = tokio::sync::mpsc::unbounded_channel();
    for _ in 0..count {
        let (told, mut client) = (told.clone(), Client::new(front.address()));
        tokio::spawn(async move { drop(told.send(client.get("a", "/").await.unwrap().body)) });
    }
    answers
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_full_canary_cannot_take_goes_to_stable_and_is_told() {
    let stable = Seer::stable().await;
    let canaries = [
        Seer::start(|_| (200, "canary".to_owned())).await,
        Seer::start(|_| (200, "canary".to_owned())).await,
    ];
    let front = front(Some(&stable), &[&canaries[0], &canaries[1]], "weight: 50, maxInFlightPerPod: 2").await;
    canaries.iter().for_each(|pod| pod.hold(true));
    let mut answers = send(&front, 40);
    // Half are the canary's; it takes four, and none of the others waits.
    for _ in 0..36 {
        assert_eq!(answers.recv().await.unwrap(), "stable");
    }
    let at_canaries = || canaries.iter().map(Seer::count).sum::<usize>();
    eventually("four are at the canary", || (at_canaries() == 4).then_some(())).await;

    let found = status(&front).await;
    let canary = &found["versions"][1];
    for (field, expected) in [
        ("weight", 50.0),
        ("diverted", 16.0),
        ("effectiveWeight", 10.0),
        ("measuredShare", 10.0),
        ("requests", 4.0),
    ] {
        assert_eq!(canary[field].as_f64(), Some(expected), "{field}: {found}");
    }
    assert_eq!(found["versions"][0]["effectiveWeight"], 90.0, "{found}");
    let problem = found["problems"][0]["message"].as_str().unwrap();
    assert_eq!(
        problem,
        "version v2 of route shop was full (4 requests at once on 2 pods): 16 of its 20 requests of the last minute went to v1 instead"
    );
    let metrics = Client::new(front.router.admin()).get("localhost", "/metrics").await.unwrap().body;
    for line in [
        r#"serinus_requests_diverted_total{route="shop",version="v2",reason="capacity"} 16"#,
        r#"serinus_requests_total{route="shop",version="v1",code="200",reason="fallback"} 16"#,
        r#"serinus_requests_total{route="shop",version="v1",code="200",reason="weight"} 20"#,
    ] {
        assert!(metrics.lines().any(|l| l == line), "{line}\n{metrics}");
    }

    // When it has room, it gets its own again.
    canaries.iter().for_each(|pod| pod.hold(false));
    for _ in 0..4 {
        assert_eq!(answers.recv().await.unwrap(), "canary");
    }
    eventually("nothing is active", || (front.active() == 0).then_some(())).await;
    let mut client = Client::new(front.address());
    for _ in 0..4 {
        client.get("a", "/").await.unwrap();
    }
    assert_eq!(at_canaries(), 6);
    front.router.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn however_many_come_at_once_there_are_never_more() {
    let stable = Seer::stable().await;
    let canary = Seer::start(|_| (200, "canary".to_owned())).await;
    let front = front(Some(&stable), &[&canary], "weight: 90, maxInFlightPerPod: 3").await;
    canary.slow_down(20);
    let mut answers = send(&front, 100);
    for _ in 0..100 {
        answers.recv().await.unwrap();
    }
    assert!(canary.most() <= 3, "{} at once", canary.most());
    let counts = {
        let table = front.router.control().table().load_full();
        table.routes()[0].versions[1].tally.snapshot()
    };
    // What was asked for is dealt exactly, whatever becomes of it.
    assert_eq!((counts.begun + counts.diverted, counts.begun), (90, canary.count() as u64));
    front.router.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn where_stable_has_no_pod_the_canary_takes_what_comes() {
    let canary = Seer::start(|_| (200, "canary".to_owned())).await;
    let front = front(None, &[&canary], "weight: 50, maxInFlightPerPod: 1").await;
    canary.hold(true);
    let mut answers = send(&front, 5);
    eventually("all are there", || (canary.now() == 5).then_some(())).await;
    canary.hold(false);
    for _ in 0..5 {
        assert_eq!(answers.recv().await.unwrap(), "canary");
    }
    front.router.stop().await;
}
