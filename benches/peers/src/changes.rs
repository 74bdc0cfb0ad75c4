//! Serinus under a steady open-loop load, while nothing, its weights, its pods, or both change. Rounds in random order; what counts is the ratio of a
//! round to that in which nothing changed.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};

use crate::asker::{self, Asker};
use crate::case::{CONNECTIONS, Case};
use crate::cluster::Cluster;
use crate::lab::Plan;
use crate::load::{Clients, Work, per_mille};
use crate::peer::{Kind, Peer, Protocol, Setup};
use crate::results::Results;
use crate::stop;

/// Requests a second: less than a tenth of what a core can, so that latencies are not those of queues of the clients.
pub(crate) const RATE: f64 = 3_000.0;
/// Before each measurement, with the changes that belong to it.
const WARM_UP: Duration = Duration::from_millis(300);
/// How many times a second weights change, or the admin API is asked.
const CALLS: f64 = 1_000.0;
/// How many pods are replaced a second.
const PODS: f64 = 100.0;

/// What goes on beside the load.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Variant {
    name: &'static str,
    calls: Calls,
    pods: bool,
}

/// What the admin API is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Calls {
    None,
    /// As many questions that change nothing: what of the rest is the asking, on the cores where clients and Serinus are.
    Questions,
    Weights,
}

const VARIANTS: [Variant; 6] = [
    Variant { name: "quiet", calls: Calls::None, pods: false },
    // How much two rounds differ in which nothing changes.
    Variant { name: "quiet again", calls: Calls::None, pods: false },
    Variant { name: "questions", calls: Calls::Questions, pods: false },
    Variant { name: "weights", calls: Calls::Weights, pods: false },
    Variant { name: "pods", calls: Calls::None, pods: true },
    Variant { name: "both", calls: Calls::Weights, pods: true },
];

/// The names of what goes on beside the load, the quiet one first.
pub(crate) fn names() -> Vec<&'static str> {
    VARIANTS.iter().map(|variant| variant.name).collect()
}

/// What became of the calls of the admin API.
#[derive(Debug, Default)]
struct Called {
    done: u64,
    /// Microseconds from when each was due to its answer.
    latencies: Vec<f64>,
}

/// Measures it, if Serinus is here.
pub(crate) fn measure(plan: &Plan, folder: &Path, pods: u16, results: &mut Results) -> anyhow::Result<()> {
    let Some(found) = plan.found.iter().find(|found| found.kind == Kind::Serinus) else {
        eprintln!("SKIPPED: changes, for Serinus is not among the peers");
        return Ok(());
    };
    let cluster = Cluster::start(pods)?;
    let place = folder.join("serinus-1-Cluster");
    std::fs::create_dir_all(&place)?;
    cluster.kubeconfig(&place.join("kubeconfig.json"))?;
    let mut peer = Peer::start(found, folder, "0", 1, pods, &Setup::Cluster)?;
    let (request, answer) = Case::Changes.exchange().context("no request")?;
    let address = peer.address(Protocol::Http1);
    let mut clients = Clients::connect(Work { address, connections: CONNECTIONS, request, answer })?;
    clients.once()?;
    let length = Duration::from_secs_f64(plan.seconds);
    let mut order: Vec<usize> = (0..VARIANTS.len()).collect();
    for round in 1..=plan.rounds {
        fastrand::shuffle(&mut order);
        for variant in order.iter().filter_map(|place| VARIANTS.get(*place)) {
            let values = one(&mut peer, &mut clients, &cluster, *variant, length)
                .with_context(|| format!("changes, {}, round {round}", variant.name))?;
            results.keep(&Case::Changes.name(), variant.name, round, values);
        }
    }
    Ok(())
}

fn one(
    peer: &mut Peer,
    clients: &mut Clients,
    cluster: &Cluster,
    variant: Variant,
    length: Duration,
) -> anyhow::Result<Vec<(&'static str, f64)>> {
    let mut admin = Asker::new(peer.admin);
    let swaps = swaps(&mut admin)?;
    let (over, cpu) = (AtomicBool::new(false), peer.process.cpu_micros()?);
    let (loaded, called, replaced) = std::thread::scope(|scope| {
        let calls = scope.spawn(|| call(&mut admin, variant.calls, &over));
        let pods = scope.spawn(|| if variant.pods { replace(cluster, &over) } else { 0 });
        let loaded = clients.open_loop(RATE, WARM_UP, length);
        over.store(true, Ordering::Relaxed);
        (loaded, calls.join(), pods.join())
    });
    let cpu = peer.process.cpu_micros()? - cpu;
    let (latencies, seen) = loaded?;
    let called = called.map_err(|_| anyhow::anyhow!("the thread that calls has panicked"))??;
    let replaced = replaced.map_err(|_| anyhow::anyhow!("the thread that replaces has panicked"))?;
    ensure!(seen.requests > 0, "no answer in {length:?}");
    let swapped = self::swaps(&mut Asker::new(peer.admin))? - swaps;
    Ok(vec![
        ("p50_us", per_mille(&latencies, 500)),
        ("p99_us", per_mille(&latencies, 990)),
        ("p999_us", per_mille(&latencies, 999)),
        ("most_us", per_mille(&latencies, 1000)),
        ("request_us", cpu / seen.requests as f64),
        ("busy_percent", cpu / seen.seconds / 1e4),
        ("requests", seen.requests as f64),
        ("failures", seen.failures as f64),
        ("closed", seen.closed as f64),
        ("calls_per_second", called.done as f64 / seen.seconds),
        ("call_p50_us", per_mille(&called.latencies, 500)),
        ("call_p99_us", per_mille(&called.latencies, 990)),
        ("pods_per_second", replaced as f64 / seen.seconds),
        ("swaps_per_second", swapped / seen.seconds),
        ("memory_kib", peer.process.memory_kib()?),
    ]
    .into_iter()
    .filter(|(_, value)| value.is_finite())
    .collect())
}

/// Calls the admin API when it is due, until the load is over.
fn call(admin: &mut Asker, calls: Calls, over: &AtomicBool) -> anyhow::Result<Called> {
    let mut called = Called::default();
    let begin = Instant::now();
    let weights = |percent: u32| {
        asker::admin("PUT", "/api/v1/routes/shop/weights", &format!("{{\"weights\":{{\"v2\":{percent}}}}}"))
    };
    let requests = match calls {
        Calls::None => return Ok(called),
        Calls::Questions => [asker::admin("GET", "/livez", ""), asker::admin("GET", "/livez", "")],
        Calls::Weights => [weights(2), weights(1)],
    };
    for request in requests.iter().cycle() {
        if over.load(Ordering::Relaxed) || stop::stopped() {
            break;
        }
        let due = begin + Duration::from_secs_f64(called.done as f64 / CALLS);
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        let answer = admin.ask(request)?;
        let said = String::from_utf8_lossy(&answer.body);
        ensure!(answer.status == 200, "the admin API says {}: {said}", answer.status);
        called.done += 1;
        called.latencies.push(due.elapsed().as_secs_f64() * 1e6);
    }
    called.latencies.sort_by(f64::total_cmp);
    Ok(called)
}

/// Replaces pods when it is due, until the load is over. How many.
fn replace(cluster: &Cluster, over: &AtomicBool) -> u64 {
    let (begin, mut done) = (Instant::now(), 0);
    while !over.load(Ordering::Relaxed) && !stop::stopped() {
        let due = begin + Duration::from_secs_f64(done as f64 / PODS);
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        cluster.replace();
        done += 1;
    }
    done
}

/// How many routing tables there have been.
fn swaps(admin: &mut Asker) -> anyhow::Result<f64> {
    let answer = admin.ask(&asker::admin("GET", "/metrics", ""))?;
    let text = String::from_utf8_lossy(&answer.body);
    let value = text.lines().find_map(|line| line.strip_prefix("serinus_table_swaps_total "));
    Ok(value.context("no serinus_table_swaps_total in the metrics")?.trim().parse()?)
}
