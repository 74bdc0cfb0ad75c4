//! Pods whose success rate is far below that of the others (semantics §2.5).

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use hyper::body::Incoming;
use hyper::{Request, Response};
use serde_json::Value;

use super::bodies::Sent;
use super::front::{Front, Plan};
use super::pods::{Pod, Speaks};
use crate::support::clients::sum;
use crate::support::eventually;
use crate::support::http::Client;
use crate::support::stack::usable;

/// For how long a pod is set aside.
const EJECT: Duration = Duration::from_secs(4);
/// A window of attempts is 10 s long, and is judged when the next one has begun; the first may be too short to have enough.
/// All of it is waited for by requests, of which slow machines need some time for enough.
const LONG: Duration = Duration::from_secs(90);

/// A pod that answers every second request with 500, or none.
struct Shaky {
    pod: Pod,
    fails: Arc<AtomicBool>,
    requests: Arc<AtomicU64>,
}

impl Shaky {
    async fn start(fails: bool) -> Self {
        let (fails, requests) = (Arc::new(AtomicBool::new(fails)), Arc::<AtomicU64>::default());
        let (failing, count) = (Arc::clone(&fails), Arc::clone(&requests));
        let answer = move |_: Request<Incoming>| {
            let odd = count.fetch_add(1, Ordering::Relaxed) % 2 == 1;
            let mut response = Response::new(Sent::empty());
            if odd && failing.load(Ordering::Relaxed) {
                *response.status_mut() = hyper::StatusCode::INTERNAL_SERVER_ERROR;
            }
            async move { response }
        };
        Self { pod: Pod::http(Speaks::Http1, None, answer).await, fails, requests }
    }

    fn address(&self) -> SocketAddr {
        self.pod.address
    }

    fn requests(&self) -> u64 {
        self.requests.load(Ordering::Relaxed)
    }
}

async fn start(pods: &[Shaky]) -> (Front, Client) {
    let front = Plan::to(pods.iter().map(Shaky::address))
        .route(format!("outliers: {{count5xx: true, successRate: 80, eject: {}s}}", EJECT.as_secs()))
        .route("balance: roundRobin")
        .start()
        .await;
    let client = Client::new(front.address());
    (front, client)
}

async fn get(client: &mut Client) -> u16 {
    client.get("a", "/").await.unwrap().status
}

/// How many pods `status` shows as ejected, and which.
async fn ejected(front: &Front) -> (u64, Vec<String>) {
    let body = Client::new(front.router.admin()).get("localhost", "/api/v1/routes/shop").await.unwrap().body;
    let status: Value = serde_json::from_str(&body).unwrap();
    let endpoints = &status["versions"][0]["endpoints"];
    let listed = endpoints["addresses"].as_array().unwrap().iter().filter(|pod| pod["ejected"] == true);
    let addresses = listed.map(|pod| pod["address"].as_str().unwrap().to_owned()).collect();
    (endpoints["ejected"].as_u64().unwrap(), addresses)
}

/// How often a pod was ejected, and how often for its success rate.
async fn ejections(front: &Front) -> (u64, u64) {
    let metrics = Client::new(front.router.admin()).get("localhost", "/metrics").await.unwrap().body;
    let rates: Vec<_> = metrics.lines().filter(|line| line.contains("reason=\"success-rate\"")).collect();
    (sum(&metrics, "serinus_ejections_total"), sum(&rates.join("\n"), "serinus_ejections_total"))
}

/// Whether a pod is ejected, which the table in force may not know yet.
fn is_ejected(front: &Front, pod: &Shaky) -> bool {
    let table = front.router.control().table().load_full();
    let mut members = table.routes()[0].versions[0].members.iter();
    members.any(|member| member.endpoint.id.address == pod.address() && member.standing.is_ejected())
}

/// One of three answers half of its requests with an error, now one, now none, so that there are never two in a row; of three
/// others each does.
#[tokio::test(flavor = "multi_thread")]
async fn s2_5_a_pod_that_fails_by_half_among_good_ones_is_set_aside_for_its_time_and_none_is_where_all_do() {
    let pods = [Shaky::start(true).await, Shaky::start(false).await, Shaky::start(false).await];
    let alike = [Shaky::start(true).await, Shaky::start(true).await, Shaky::start(true).await];
    let ((front, mut client), (other, mut others_client)) = (start(&pods).await, start(&alike).await);
    let all = usable(&front.router, "shop", 0);
    assert_eq!(all.len(), 3);
    let (begun, mut failed) = (Instant::now(), 0);
    // Not after the moment of its ejection.
    let mut since = begun;
    while !is_ejected(&front, &pods[0]) {
        since = Instant::now();
        failed += u32::from(get(&mut client).await == 500);
        get(&mut others_client).await;
        assert!(begun.elapsed() < LONG, "never set aside: {failed} failed");
    }
    assert!(failed >= 50, "not before it had a hundred attempts: {failed} failed");
    eventually("it gets no requests", || (usable(&front.router, "shop", 0) != all).then_some(())).await;
    assert!(!usable(&front.router, "shop", 0).contains(&pods[0].address()), "the one that fails");
    assert_eq!(ejected(&front).await, (1, vec![pods[0].address().to_string()]));
    assert_eq!(ejections(&front).await, (1, 1));

    // It gets nothing for its time, so that nobody sees its errors.
    pods[0].fails.store(false, Ordering::Relaxed);
    let before = pods[0].requests();
    while usable(&front.router, "shop", 0) != all {
        let counted = pods[0].requests();
        assert_eq!(get(&mut client).await, 200);
        if usable(&front.router, "shop", 0) != all {
            assert_eq!(counted, before, "after {:?}", since.elapsed());
        }
        get(&mut others_client).await;
        assert!(since.elapsed() < LONG, "never taken back");
    }
    assert!(since.elapsed() >= EJECT, "{:?}", since.elapsed());
    assert_eq!(ejected(&front).await, (0, vec![]));
    for _ in 0..9 {
        assert_eq!(get(&mut client).await, 200);
    }
    assert!(pods[0].requests() >= before + 2, "it has its share again");

    // Where all fail alike the fault is not a pod's.
    assert!(alike.iter().all(|pod| pod.requests() >= 100), "they had enough to be judged by");
    assert_eq!((ejected(&other).await, ejections(&other).await), ((0, vec![]), (0, 0)));
    front.router.stop().await;
    other.router.stop().await;
}
