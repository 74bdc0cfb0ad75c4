//! What a request costs before it is sent, and what a change costs before it is live.
//!
//! `cargo bench --bench decisions`. The aims: a decision under 200 ns, a draw under 20 ns uncontended, a recompile after one
//! pod event under 5 ms with 1,000 routes and 10,000 pods.

#![allow(missing_docs, reason = "divan's macro makes what it makes")]
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a bench may stop at what must not be")]

mod world;

use std::hint::black_box;
use std::time::Duration;

use divan::Bencher;
use serinus::model::{Balance, ClusterChange, FailureKind, HashKey, Pod};
use serinus::routing::AttemptOutcome;
use serinus::state::Touched;

use world::{Decider, NOW, World, canary, decide, decide_for_browser, hosts, random};

fn main() {
    divan::main();
}

// Many in a row: a router's table is in the caches as far as it is used.
#[divan::bench(args = [1, 100, 10_000], sample_size = 10_000)]
fn decision(bencher: Bencher, routes: u32) {
    let table = World::new(routes, 10).table();
    let hosts = hosts(routes);
    let mut next = 0;
    bencher.bench_local(|| {
        next = (next + 1) % hosts.len();
        decide(&table, black_box(&hosts[next]), black_box("/api/v1/items/42"))
    });
}

#[divan::bench(sample_size = 10_000)]
fn decision_with_port_upper_case_and_long_path(bencher: Bencher) {
    let table = World::new(1_000, 10).table();
    let path = format!("/cart{}", "/element".repeat(30));
    bencher.bench_local(|| decide(&table, black_box("Shop-7.Example.Com:8080"), black_box(&path)));
}

/// A decision where there is nothing before the weight, where none of five rules fits, and by a user's cookie.
#[divan::bench(args = [Decider::Weight, Decider::FiveRules, Decider::Cohort], sample_size = 10_000)]
fn decision_for_a_browser(bencher: Bencher, by: Decider) {
    let table = World::deciding_by(by).table();
    bencher.bench_local(|| decide_for_browser(&table));
}

/// The ways to balance, by the name in the config.
const BALANCES: [&str; 4] = ["leastRequest", "roundRobin", "peakEwma", "hash"];

fn balance(name: &str) -> Balance {
    match name {
        "leastRequest" => Balance::LeastRequest,
        "roundRobin" => Balance::RoundRobin,
        "peakEwma" => Balance::PeakEwma,
        _ => Balance::Hash(HashKey::ClientIp),
    }
}

/// An endpoint of a version with this many pods, whose attempts all took some time.
fn pick(bencher: Bencher, name: &str, pods: u32) {
    let table = World::balanced(1, pods, &balance(name)).table();
    let version = &table.routes()[0].versions[0];
    for i in 0..10 * pods {
        let at = version.pick(Some(random()), NOW, |_| false, random).unwrap();
        let took = Duration::from_millis(u64::from(i % 50));
        version.ended(&at, AttemptOutcome::Answered(200), took, NOW);
    }
    bencher.bench_local(|| {
        version.pick(Some(random()), NOW, |_| false, random).map(|at| at.endpoint().in_flight())
    });
}

#[divan::bench(args = BALANCES, sample_size = 10_000)]
fn pick_of_10_pods(bencher: Bencher, name: &str) {
    pick(bencher, name, 10);
}

#[divan::bench(args = BALANCES, sample_size = 10_000)]
fn pick_of_10_000_pods(bencher: Bencher, name: &str) {
    pick(bencher, name, 10_000);
}

/// What telling of an attempt's end costs: it went well, or it failed and the endpoint may be ejected no more.
#[divan::bench(args = [true, false], sample_size = 10_000)]
fn attempt_ended(bencher: Bencher, well: bool) {
    let table = World::balanced(1, 10, &Balance::PeakEwma).table();
    let version = &table.routes()[0].versions[0];
    let at = version.pick(None, NOW, |_| false, random).unwrap();
    let outcome =
        if well { AttemptOutcome::Answered(200) } else { AttemptOutcome::Failed(FailureKind::Reset) };
    bencher.bench_local(|| version.ended(&at, black_box(outcome), Duration::from_millis(3), NOW));
}

// Long enough that the threads do meet.
#[divan::bench(threads = [1, 2], sample_size = 1_000_000)]
fn draw(bencher: Bencher) {
    let split = canary();
    bencher.bench(|| split.draw(random));
}

/// The random number alone, which is part of each draw.
#[divan::bench]
fn random_number() -> u64 {
    random()
}

/// Everything anew: 1,000 routes, 10,000 pods.
#[divan::bench]
fn compile_1_000_routes_10_000_pods(bencher: Bencher) {
    let mut world = World::new(1_000, 10);
    let everything = Touched { everything: true, ..Touched::default() };
    bencher.bench_local(|| world.compiler.compile(&world.desired, &everything, NOW));
}

/// A pod gets a deletionTimestamp, or loses it: applied and compiled.
#[divan::bench]
fn recompile_after_one_pod_event(bencher: Bencher) {
    pod_event(bencher, World::new(1_000, 10));
}

/// The same where keys decide, and the ring of one version is made anew.
#[divan::bench(args = [10, 10_000])]
fn recompile_with_hash(bencher: Bencher, pods: u32) {
    pod_event(bencher, World::balanced(1, pods, &balance("hash")));
}

/// The same where all pods are one Service's.
#[divan::bench]
fn recompile_after_one_pod_event_10_000_pods_of_one_service(bencher: Bencher) {
    pod_event(bencher, World::new(1, 10_000));
}

fn pod_event(bencher: Bencher, mut world: World) {
    let mut pods = world.pods.clone().into_iter().cycle();
    let mut turn = 0;
    let total = world.pods.len();
    bencher.bench_local(|| {
        let pod = pods.next().unwrap();
        let deleting = (turn / total).is_multiple_of(2);
        turn += 1;
        world.hear(ClusterChange::PodApplied(Pod { deleting, ..pod }))
    });
}

/// One endpoint of a slice changes its state: applied and compiled.
#[divan::bench]
fn recompile_after_one_slice_event(bencher: Bencher) {
    let mut world = World::new(1_000, 10);
    let mut slices = world.slices.clone().into_iter().cycle();
    let mut turn = 0;
    let total = world.slices.len();
    bencher.bench_local(|| {
        let mut slice = slices.next().unwrap();
        slice.endpoints[0].conditions.terminating = (turn / total).is_multiple_of(2);
        turn += 1;
        world.hear(ClusterChange::SliceApplied(slice))
    });
}
