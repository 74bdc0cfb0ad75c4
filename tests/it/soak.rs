//! The soak: everything changes all the time for minutes, and no request may fail and no memory be lost. By hand:
//!
//! `cargo build --release && SERINUS_TEST_BINARY=target/release/serinus SERINUS_SOAK_SECONDS=300 cargo test --test it soak:: -- --ignored --nocapture`

use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::clients::{Clients, Plan, sum};
use crate::support::fleet::Fleet;
use crate::support::http::Client;
use crate::support::misbehaving::Told;
use crate::support::process::Process;
use crate::support::stack::manifest;

const CLIENTS: usize = 500;
/// How long each client waits between two requests: a build that is not optimised is not to be measured by its limits.
const PAUSE: Duration = Duration::from_millis(if cfg!(debug_assertions) { 500 } else { 50 });
const PODS: [(&str, usize); 2] = [("web/nginx-dm", 6), ("web/nginx-v2", 3)];

fn seconds() -> Duration {
    let asked = std::env::var("SERINUS_SOAK_SECONDS").ok();
    Duration::from_secs(asked.map_or(300, |asked| asked.parse().expect("SERINUS_SOAK_SECONDS is a number")))
}

/// The route, and others that come and go.
fn routes(round: u64) -> String {
    let mut text = "
  - name: shop
    hosts: [lab.example.com]
    service: web/nginx-svc
    port: 80
    versions:
      - {name: v1, selector: 'version!=v2'}
      - {name: v2, selector: 'version=v2', weight: 10}
"
    .to_owned();
    for other in 0..round % 5 {
        writeln!(text, "  - {{name: other-{other}, hosts: ['{other}.example.com'], service: web/nginx-svc, port: 80, versions: [{{name: all}}]}}").unwrap();
    }
    text
}

/// How many usable pods a version has, as the admin API tells.
async fn ready(admin: &mut Client, version: usize) -> u64 {
    let answer = admin.get("localhost", "/api/v1/routes/shop").await.unwrap();
    let route: Value = serde_json::from_str(&answer.body).unwrap();
    route["versions"][version]["endpoints"]["ready"].as_u64().unwrap()
}

async fn until_ready(admin: &mut Client, version: usize, wanted: usize) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while ready(admin, version).await != wanted as u64 {
        assert!(Instant::now() < deadline, "version {version} never had {wanted} pods");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Replaces the oldest pod of a version; by turns it is told before, or leaves with or without a word.
async fn replace(fleet: &mut Fleet, admin: &mut Client, round: usize) {
    let version = round % PODS.len();
    let (deployment, count) = PODS[version];
    let old = fleet.pods_of(deployment).remove(0);
    fleet.cluster.scale(deployment, count + 1);
    fleet.start_pods().await;
    until_ready(admin, version, count + 1).await;
    match round / PODS.len() % 3 {
        0 => {
            fleet.cluster.begin_delete(&old);
            until_ready(admin, version, count).await;
            fleet.leave(&old, Told::No).await;
        }
        turn => {
            fleet.leave(&old, if turn == 1 { Told::Yes } else { Told::No }).await;
            fleet.cluster.begin_delete(&old);
            until_ready(admin, version, count).await;
        }
    }
    fleet.remove(&old);
}

/// Changes weights ten times a second until told to end, and gives how often.
async fn change_weights(admin: std::net::SocketAddr, done: Arc<AtomicBool>) -> u64 {
    let mut ticks = tokio::time::interval(Duration::from_millis(100));
    let mut admin = Client::new(admin);
    let mut changes = 0;
    while !done.load(Ordering::Relaxed) {
        ticks.tick().await;
        let body = format!("{{\"weights\": {{\"v2\": {}}}}}", changes % 99 + 1);
        let length = body.len();
        let request = format!(
            "PUT /api/v1/routes/shop/weights HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n\
             Content-Length: {length}\r\n\r\n{body}"
        );
        let answer = admin.raw(request.as_bytes()).await.unwrap();
        assert_eq!(answer.status, 200, "{answer:?}");
        changes += 1;
    }
    changes
}

/// Rewrites the config every second until told to end, and gives how often.
async fn reload(file: std::path::PathBuf, done: Arc<AtomicBool>) -> u64 {
    let head = std::fs::read_to_string(&file).unwrap();
    let (head, _) = head.split_once("routes:\n").unwrap();
    let mut ticks = tokio::time::interval(Duration::from_secs(1));
    let mut round = 0;
    while !done.load(Ordering::Relaxed) {
        ticks.tick().await;
        round += 1;
        let beside = file.with_extension("new");
        std::fs::write(&beside, format!("{head}routes:\n{}", routes(round))).unwrap();
        std::fs::rename(&beside, &file).unwrap();
    }
    round
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes minutes: the first lines of this file have the command"]
async fn everything_changes_for_minutes_and_nothing_is_lost() {
    let mut fleet = Fleet::start(&manifest("nginx-canary.yaml")).await;
    fleet.cluster.scale("web/nginx-v2", 3);
    fleet.start_pods().await;
    let file = fleet.config(&routes(0));
    let process = Process::start(&file).await;
    let mut admin = Client::new(process.admin);
    for (version, (_, count)) in PODS.iter().enumerate() {
        until_ready(&mut admin, version, *count).await;
    }
    let plan = Plan { clients: CLIENTS, pause: PAUSE, ..Plan::new(process.web, u64::MAX) };
    let clients = Clients::start(plan, &fleet.ledger);
    let done = Arc::new(AtomicBool::new(false));
    let weights = tokio::spawn(change_weights(process.admin, Arc::clone(&done)));
    let reloads = tokio::spawn(reload(file, Arc::clone(&done)));
    let (begun, mut ticks) = (Instant::now(), tokio::time::interval(Duration::from_millis(500)));
    let (mut memory, mut replaced, answered) = (Vec::new(), 0, AtomicU64::new(0));
    while begun.elapsed() < seconds() {
        ticks.tick().await;
        replace(&mut fleet, &mut admin, replaced).await;
        replaced += 1;
        if begun.elapsed() >= Duration::from_secs(10) * (memory.len() as u32 + 1) {
            memory.push(process.memory());
            let ended = clients.ended();
            let rate = (ended - answered.swap(ended, Ordering::Relaxed)) / 10;
            println!(
                "{:>4.0} s: {ended} requests ({rate}/s), {} failed, {replaced} pods replaced, {} KiB",
                begun.elapsed().as_secs_f64(),
                clients.failed(),
                memory.last().unwrap_or(&0)
            );
        }
    }
    done.store(true, Ordering::Relaxed);
    let (weights, reloads) = (weights.await.unwrap(), reloads.await.unwrap());
    let outcome = clients.stop().await;
    let metrics = admin.get("localhost", "/metrics").await.unwrap().body;
    println!(
        "{} GETs and {} POSTs on {CLIENTS} connections in {:.0?}, the slowest {:.0?}; {weights} weights, {replaced} pods \
         replaced, {reloads} reloads, {} retried; failed: {} GETs, {} POSTs that a pod saw, {} that none saw; {} sent twice",
        outcome.gets,
        outcome.posts,
        begun.elapsed(),
        outcome.slowest,
        sum(&metrics, "serinus_retries_total"),
        outcome.failed_gets.len(),
        outcome.failed_sent_posts.len(),
        outcome.failed_unseen_posts.len(),
        outcome.repeated_posts.len(),
    );
    for failed in outcome
        .failed_gets
        .iter()
        .chain(&outcome.failed_sent_posts)
        .chain(&outcome.failed_unseen_posts)
        .take(20)
    {
        println!("{:.1?}: {}: {}", failed.at, failed.id, failed.why);
    }
    assert!(outcome.failed_gets.is_empty() && outcome.failed_sent_posts.is_empty());
    assert!(outcome.repeated_posts.is_empty(), "{:?}", outcome.repeated_posts);
    // What the kernel of a pod took at the moment that the pod closed its port: see rolling.rs.
    assert!(outcome.failed_unseen_posts.len() <= 1 + replaced / 100, "{:?}", outcome.failed_unseen_posts);
    // The first third warms up.
    let third = memory.len() / 3;
    let (early, late) = (memory.get(third), memory.iter().skip(2 * third).max());
    if let (Some(early), Some(late)) = (early, late) {
        assert!(*late <= early + early / 10 + 4 * 1024, "memory grows: {memory:?} KiB");
    }
    process.signal("TERM");
    assert_eq!(process.end(Duration::from_secs(20)).0.code(), Some(0));
}
