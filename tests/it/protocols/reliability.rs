//! Which pods get requests when some fail, are new, or are meant by a key (semantics §2, §4.3).

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use super::front::{Front, Plan, config};
use super::pods::{Pod, nobody};
use super::raw::{self, Raw};
use crate::support::clients::sum;
use crate::support::eventually;
use crate::support::http::Client;
use crate::support::stack::usable;

/// A pod that answers with its port, as it is told.
struct Told {
    pod: Pod,
    word: Arc<Word>,
}

#[derive(Default)]
struct Word {
    /// The status that it answers; 0 to break off without an answer.
    status: AtomicU16,
    /// How it answers `/healthz`.
    unwell: AtomicBool,
    /// How many requests came, health checks aside.
    requests: AtomicU64,
    /// How many milliseconds it takes.
    takes: AtomicU64,
    /// How many connections to it are open.
    open: AtomicU64,
}

impl Told {
    async fn start() -> Self {
        let word = Arc::new(Word { status: AtomicU16::new(200), ..Word::default() });
        let heard = Arc::clone(&word);
        let name = Arc::new(OnceLock::new());
        let known = Arc::clone(&name);
        let pod = raw::pod(move |raw| {
            let (known, heard) = (Arc::clone(&known), Arc::clone(&heard));
            async move {
                heard.open.fetch_add(1, Ordering::Relaxed);
                serve(raw, known, &heard).await;
                heard.open.fetch_sub(1, Ordering::Relaxed);
            }
        })
        .await;
        name.set(pod.address.port().to_string()).unwrap();
        Self { pod, word }
    }

    async fn several<const N: usize>() -> [Self; N] {
        let mut pods = Vec::new();
        for _ in 0..N {
            pods.push(Self::start().await);
        }
        pods.try_into().unwrap_or_else(|_| unreachable!("there are as many"))
    }

    fn answer(&self, status: u16) {
        self.word.status.store(status, Ordering::Relaxed);
    }

    fn requests(&self) -> u64 {
        self.word.requests.load(Ordering::Relaxed)
    }

    fn address(&self) -> SocketAddr {
        self.pod.address
    }
}

async fn serve(mut raw: Raw, name: Arc<OnceLock<String>>, word: &Word) {
    while let Some(head) = raw.head().await {
        let status = if head.starts_with("GET /healthz ") {
            if word.unwell.load(Ordering::Relaxed) { 500 } else { 200 }
        } else {
            word.requests.fetch_add(1, Ordering::Relaxed);
            tokio::time::sleep(Duration::from_millis(word.takes.load(Ordering::Relaxed))).await;
            word.status.load(Ordering::Relaxed)
        };
        let text = name.get().map_or("", String::as_str);
        let answer = format!("HTTP/1.1 {status} Told\r\nContent-Length: {}\r\n\r\n{text}", text.len());
        if status == 0 || raw.try_send(answer).await.is_err() {
            return;
        }
    }
}

fn plan<'a>(pods: impl IntoIterator<Item = &'a Told>) -> Plan {
    Plan::to(pods.into_iter().map(Told::address))
}

async fn get(client: &mut Client) -> u16 {
    client.get("a", "/").await.unwrap().status
}

/// Sends so many GETs, all of which must be answered 200.
async fn gets(client: &mut Client, count: u32) {
    for _ in 0..count {
        assert_eq!(get(client).await, 200);
    }
}

/// The places of those pods of the first version that get requests.
fn used(front: &Front, pods: &[Told]) -> Vec<usize> {
    let usable = usable(&front.router, "shop", 0);
    (0..pods.len()).filter(|i| usable.contains(&pods[*i].address())).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn s2_5_a_pod_that_fails_five_times_gets_nothing_for_its_time_and_is_back_then() {
    let pods = Told::several::<3>().await;
    let front = plan(&pods).route("outliers: {eject: 2s}").route("balance: roundRobin").start().await;
    let mut client = Client::new(front.address());
    pods[0].answer(0);
    let mut asked = 0;
    // Not after the moment from which on it is set aside.
    let mut since = Instant::now();
    while pods[0].requests() < 5 {
        since = Instant::now();
        gets(&mut client, 1).await;
        asked += 1;
        assert!(asked < 100, "it gets its turn");
    }
    eventually("it is set aside", || (used(&front, &pods) == [1, 2]).then_some(())).await;
    pods[0].answer(200);
    while used(&front, &pods) == [1, 2] {
        gets(&mut client, 1).await;
        if used(&front, &pods) == [1, 2] {
            assert_eq!(pods[0].requests(), 5, "after {:?}", since.elapsed());
        }
    }
    let away = since.elapsed();
    // Not the 10 s that it would be without a word about it.
    assert!(away >= Duration::from_secs(2) && away < Duration::from_secs(9), "{away:?}");
    gets(&mut client, 9).await;
    assert!(pods[0].requests() >= 7, "{}", pods[0].requests());
    let metrics = Client::new(front.router.admin()).get("localhost", "/metrics").await.unwrap().body;
    let ejected =
        metrics.lines().find(|line| line.starts_with("serinus_endpoints{") && line.contains("ejected"));
    assert!(ejected.is_some_and(|line| line.ends_with(" 0")), "{ejected:?}");
    front.router.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn s2_5_a_version_is_never_ejected_whole() {
    let pods = Told::several::<4>().await;
    let front = plan(&pods)
        .route("outliers: {count5xx: true, consecutiveFailures: 2, eject: 60s}")
        .route("balance: roundRobin")
        .start()
        .await;
    let mut client = Client::new(front.address());
    pods.iter().for_each(|pod| pod.answer(500));
    for _ in 0..60 {
        assert_eq!(get(&mut client).await, 500, "the pods' own answers");
    }
    eventually("half of them are set aside", || (used(&front, &pods).len() == 2).then_some(())).await;
    assert_eq!(front.problems(), "");
    front.router.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn s2_5_pods_that_fail_health_checks_are_set_aside_and_all_are_used_when_too_many_do() {
    let pods = Told::several::<3>().await;
    let front = plan(&pods)
        .route("healthCheck: {path: /healthz, interval: 100ms, unhealthy: 2, healthy: 1}")
        .route("balance: roundRobin")
        .start()
        .await;
    let mut client = Client::new(front.address());
    gets(&mut client, 3).await;
    pods[1].word.unwell.store(true, Ordering::Relaxed);
    eventually("it is set aside", || (used(&front, &pods) == [0, 2]).then_some(())).await;
    let before = pods[1].requests();
    gets(&mut client, 20).await;
    assert_eq!(pods[1].requests(), before);

    pods[0].word.unwell.store(true, Ordering::Relaxed);
    eventually("all are used", || {
        (used(&front, &pods) == [0, 1, 2] && !front.problems().is_empty()).then_some(())
    })
    .await;
    let status =
        Client::new(front.router.admin()).get("localhost", "/api/v1/routes/shop").await.unwrap().body;
    assert!(
        status.contains("more than 50 % of the pods of version v1 of route shop are set aside"),
        "{status}"
    );
    gets(&mut client, 6).await;
    assert!(pods[1].requests() > before);

    pods.iter().for_each(|pod| pod.word.unwell.store(false, Ordering::Relaxed));
    eventually("all is well", || {
        (used(&front, &pods).len() == 3 && front.problems().is_empty()).then_some(())
    })
    .await;
    let before = pods[1].requests();
    gets(&mut client, 6).await;
    assert!(pods[1].requests() > before);
    front.router.stop().await;
}

/// Has the router read its config anew, with these pods, and waits until they are those that get requests.
async fn replace_pods(front: &Front, route: &[String], pods: &[SocketAddr]) {
    let pods: Vec<_> = pods.iter().map(|pod| (*pod, "v1")).collect();
    std::fs::write(front.folder.path().join("serinus.yaml"), config(&[], &pods, route, &[])).unwrap();
    let wanted = pods.iter().map(|(pod, _)| *pod).collect();
    eventually("the pods are known", || (usable(&front.router, "shop", 0) == wanted).then_some(())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn s2_5_a_pod_that_comes_up_gets_a_growing_share() {
    let pods = Told::several::<3>().await;
    let route = ["slowStart: 4s".to_owned()];
    let front = plan(&pods[..2]).route(&route[0]).start().await;
    let all: Vec<_> = pods.iter().map(Told::address).collect();
    replace_pods(&front, &route, &all).await;
    let begun = Instant::now();
    let mut client = Client::new(front.address());
    // So many at least, that chance does not decide.
    let part = async |client: &mut Client, until: Duration, least: u32| {
        let (mut count, before) = (0, pods[2].requests());
        while begun.elapsed() < until || count < least {
            gets(client, 1).await;
            count += 1;
        }
        (pods[2].requests() - before) as f64 / f64::from(count)
    };
    let first = part(&mut client, Duration::from_millis(400), 200).await;
    part(&mut client, Duration::from_millis(4_100), 0).await;
    let last = part(&mut client, Duration::from_millis(4_600), 400).await;
    // At first a tenth to a third of a whole share, which is one in three.
    assert!(first > 0.0 && first < 0.24 && last > 0.24 && last > 1.3 * first, "{first} then {last}");
    front.router.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn s2_3_requests_on_a_pod_that_leaves_run_to_their_end_and_its_idle_connections_are_closed() {
    let pods = Told::several::<2>().await;
    let route = ["balance: roundRobin".to_owned()];
    let front = plan(&pods).route(&route[0]).start().await;
    let mut client = Client::new(front.address());
    gets(&mut client, 4).await;
    let open = || pods[0].word.open.load(Ordering::Relaxed);
    assert_eq!(open(), 1, "one is kept");
    pods[0].word.takes.store(1_000, Ordering::Relaxed);
    let asked = pods[0].requests();
    let address = front.address();
    let mut running = Vec::new();
    for _ in 0..4 {
        running.push(tokio::spawn(async move { get(&mut Client::new(address)).await }));
    }
    eventually("two of them run there", || (pods[0].requests() == asked + 2).then_some(())).await;
    let kept = Instant::now();
    replace_pods(&front, &route, &[pods[1].address()]).await;
    for running in running {
        assert_eq!(running.await.unwrap(), 200);
    }
    eventually("none is kept", || (open() == 0).then_some(())).await;
    assert!(kept.elapsed() < Duration::from_millis(3_500), "not by growing old: {:?}", kept.elapsed());
    assert_eq!(pods[0].requests(), asked + 2);
    front.router.stop().await;
}

/// Where each key goes.
async fn homes(front: &Front, keys: u32) -> BTreeMap<u32, String> {
    let mut client = Client::new(front.address());
    let mut homes = BTreeMap::new();
    for key in 0..keys {
        let request = format!("GET / HTTP/1.1\r\nHost: a\r\nCookie: lang=de; session=user{key}\r\n\r\n");
        let answer = client.raw(request.as_bytes()).await.unwrap();
        assert_eq!(answer.status, 200);
        homes.insert(key, answer.body);
    }
    homes
}

#[tokio::test(flavor = "multi_thread")]
async fn s2_5_the_same_cookie_gets_the_same_pod_and_a_pod_that_goes_moves_its_own_keys_alone() {
    const KEYS: u32 = 150;
    let pods = Told::several::<5>().await;
    let route = ["balance: {hash: {cookie: session}}".to_owned()];
    let front = plan(&pods).route(&route[0]).start().await;
    let all: Vec<_> = pods.iter().map(Told::address).collect();
    let before = homes(&front, KEYS).await;
    assert_eq!(before, homes(&front, KEYS).await);
    assert!(pods.iter().all(|pod| pod.requests() > 0), "each has some");
    let gone = all[2].port().to_string();
    let left: Vec<_> = all.iter().copied().filter(|pod| *pod != all[2]).collect();
    replace_pods(&front, &route, &left).await;
    let without = homes(&front, KEYS).await;
    for (key, home) in &before {
        assert_eq!(without[key] == *home, *home != gone, "{key}: {home} then {}", without[key]);
    }
    replace_pods(&front, &route, &all).await;
    assert_eq!(before, homes(&front, KEYS).await, "and it gets them back");
    front.router.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn s2_5_peak_ewma_avoids_a_slow_pod() {
    let pods = Told::several::<3>().await;
    pods[0].word.takes.store(60, Ordering::Relaxed);
    let front = plan(&pods).route("balance: peakEwma").start().await;
    let mut client = Client::new(front.address());
    gets(&mut client, 90).await;
    assert!(pods[0].requests() < 15, "{} of 90", pods[0].requests());
    front.router.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn s4_3_answers_are_repeated_that_the_route_names_within_the_budget_and_for_idempotent_requests() {
    let pods = Told::several::<3>().await;
    pods[0].answer(503);
    let front = plan(&pods).route("retries: {on: [503]}").route("balance: roundRobin").start().await;
    let mut client = Client::new(front.address());
    gets(&mut client, 30).await;
    assert!(pods[0].requests() >= 10, "it is asked, and another after it: {}", pods[0].requests());
    let mut failed = 0;
    for _ in 0..30 {
        let answer = client.raw(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n").await.unwrap();
        assert_eq!(answer.header("x-serinus-reason"), "", "the pod's own answer");
        failed += u32::from(answer.status == 503);
    }
    assert_eq!(failed, 10, "every third");
    // When every pod says so, the last one's answer passes.
    pods.iter().for_each(|pod| pod.answer(503));
    let before: u64 = pods.iter().map(Told::requests).sum();
    assert_eq!(get(&mut client).await, 503);
    let tried = pods.iter().map(Told::requests).sum::<u64>() - before;
    assert!((3..=4).contains(&tried), "{tried}");
    let metrics = Client::new(front.router.admin()).get("localhost", "/metrics").await.unwrap().body;
    assert!(sum(&metrics, "serinus_retries_total") > 0, "{metrics}");
    front.router.stop().await;

    let front = plan(&pods).route("retries: {on: [503], budget: 0, least: 0}").start().await;
    let mut client = Client::new(front.address());
    let before: u64 = pods.iter().map(Told::requests).sum();
    for _ in 0..10 {
        assert_eq!(get(&mut client).await, 503);
    }
    assert_eq!(pods.iter().map(Told::requests).sum::<u64>() - before, 10, "there is no budget");
    front.router.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn s2_4_a_canary_whose_only_pod_refuses_costs_no_request() {
    let [stable] = Told::several().await;
    let mut plan = plan([&stable])
        .route("versions: [{name: v1, selector: version=v1}, {name: v2, selector: version=v2, weight: 50}]");
    let empty = nobody();
    plan.pods.push((empty, "v2"));
    let front = plan.start().await;
    let mut client = Client::new(front.address());
    for _ in 0..20 {
        let answer = client.raw(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n").await.unwrap();
        assert_eq!(answer.status, 200);
        gets(&mut client, 1).await;
    }
    assert_eq!(stable.requests(), 40);
    let versions = || {
        let table = front.router.control().table().load_full();
        table.routes()[0].versions.iter().map(|v| v.effective.millionths()).collect::<Vec<_>>()
    };
    eventually("its share goes to stable", || (versions() == [1_000_000, 0]).then_some(())).await;

    // Until it listens.
    let canary = Pod::at(empty, None, |io| async move {
        let mut raw = Raw::new(io);
        while raw.head().await.is_some() {
            raw.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await;
        }
    })
    .await;
    eventually("it has its share again", || (versions() == [500_000, 500_000]).then_some(())).await;
    gets(&mut client, 10).await;
    assert!(canary.connections() > 1, "a probe, and requests");
    assert!(stable.requests() < 50);
    front.router.stop().await;
}
