//! Changes of weights, in each peer by its own way: how long until they are in force, what they cost, how many there can be, and what becomes of the
//! connections and the memory meanwhile.

use std::collections::VecDeque;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Context;

use crate::case::{CONNECTIONS, Case};
use crate::change::Changer;
use crate::lab::Plan;
use crate::load::{Clients, Done, Seen, Work, per_mille};
use crate::peer::{Found, Kind, Peer, Protocol, Setup};
use crate::results::Results;
use crate::stop;
use crate::upstream::CANARY;

/// Requests a second of the load.
const RATE: f64 = 2_000.0;
/// How many changes there are under load, one after the other.
const CHANGES: u32 = 50;
/// How long between them.
const PAUSE: Duration = Duration::from_millis(150);
/// How long the load goes on before the first change, and after the last one.
const BEFORE: Duration = Duration::from_secs(2);
const AFTER: Duration = Duration::from_secs(1);
/// How long it is seen how many changes there can be at most.
const AT_MOST: Duration = Duration::from_secs(3);
/// Clients that have asked once, and stay.
const IDLE: usize = 100;
/// WebSockets that are open at any time: with each change the oldest one ends, and another client comes.
const SOCKETS: usize = 20;
/// After so many failures under way a peer is not worth measuring.
const MOST_FAILURES: u64 = 100_000;

/// The names of those that are measured.
pub(crate) const NAMES: [&str; 5] = ["nginx", "haproxy", "envoy", "serinus", "serinus, kept"];

/// Measures those that are here.
pub(crate) fn measure(plan: &Plan, folder: &Path, pods: u16, results: &mut Results) -> anyhow::Result<()> {
    let mut all = Vec::new();
    for found in &plan.found {
        let name = found.kind.name();
        if matches!(found.kind, Kind::Nginx | Kind::Haproxy | Kind::Envoy | Kind::Serinus) {
            all.push((found, Setup::Changing, name));
        }
        if found.kind == Kind::Serinus {
            all.push((found, Setup::Kept, "serinus, kept"));
        }
    }
    for round in 1..=plan.rounds.min(3) {
        fastrand::shuffle(&mut all);
        for (found, setup, name) in &all {
            match one(found, folder, pods, setup) {
                Ok(values) => results.keep(&Case::Swap.name(), name, round, values),
                Err(error) => {
                    stop::go_on()?;
                    eprintln!("FAILED: swap, {name}, round {round}: {error:#}");
                }
            }
        }
    }
    Ok(())
}

type Values = Vec<(&'static str, f64)>;

fn one(found: &Found, folder: &Path, pods: u16, setup: &Setup) -> anyhow::Result<Values> {
    let mut values = Values::new();
    let peer = Peer::start(found, folder, "0", 1, pods, setup)?;
    under_load(&peer, pods, &mut values).context("under load")?;
    drop(peer);
    // Anew, so that nothing of before is in the way.
    let peer = Peer::start(found, folder, "0", 1, pods, setup)?;
    alone(&peer, pods, &mut values).context("alone")?;
    at_most(&peer, pods, &mut values).context("as many as it can")?;
    Ok(values)
}

/// What a change costs, without any load.
fn alone(peer: &Peer, pods: u16, values: &mut Values) -> anyhow::Result<()> {
    let mut changer = Changer::new(peer, pods)?;
    changer.change(1)?;
    std::thread::sleep(PAUSE);
    let (before, begin) = (peer.process.cpu_micros()?, Instant::now());
    let mut done = 0;
    // Those that answer are fast, and the clock of CPU time is coarse: as many as can be. The others get time to be done with each.
    while if changer.answers() { begin.elapsed() < AT_MOST } else { done < CHANGES } {
        stop::go_on()?;
        changer.change(1 + (done + 1) % 2)?;
        done += 1;
        if !changer.answers() {
            std::thread::sleep(PAUSE / 2);
        }
    }
    if changer.answers() {
        values.push(("answers_per_second", f64::from(done) / begin.elapsed().as_secs_f64()));
    }
    values.push(("change_cpu_us", (peer.process.cpu_micros()? - before) / f64::from(done)));
    Ok(())
}

/// How many changes there can be a second if each waits until the one before is seen in force.
fn at_most(peer: &Peer, pods: u16, values: &mut Values) -> anyhow::Result<()> {
    let mut changer = Changer::new(peer, pods)?;
    changer.change(0)?;
    changer.until(false)?;
    let (begin, mut done) = (Instant::now(), 0u32);
    while begin.elapsed() < AT_MOST {
        let new = done.is_multiple_of(2);
        changer.change(if new { 100 } else { 0 })?;
        changer.until(new)?;
        done += 1;
    }
    values.push(("seen_per_second", f64::from(done) / begin.elapsed().as_secs_f64()));
    Ok(())
}

/// One change under load.
struct Change {
    new: bool,
    begin: Instant,
    /// When it was answered, or when the command was over.
    returned: Instant,
}

/// What was seen beside the load.
#[derive(Default)]
struct Beside {
    changes: Vec<Change>,
    /// KiB, shared memory once and for each process, and how many processes.
    memory: Vec<(f64, f64, f64)>,
    /// WebSockets that the peer closed.
    sockets_lost: usize,
}

fn under_load(peer: &Peer, pods: u16, values: &mut Values) -> anyhow::Result<()> {
    let mut changer = Changer::new(peer, pods)?;
    changer.change(0)?;
    changer.until(false)?;
    let mut idle = connect(peer, IDLE, Case::Swap)?;
    idle.once()?;
    let mut clients = connect(peer, CONNECTIONS, Case::Swap)?;
    clients.most_failures = MOST_FAILURES;
    clients.once()?;
    let length = BEFORE + PAUSE * CHANGES + AFTER;
    let mut log = Vec::with_capacity((RATE * length.as_secs_f64()) as usize);
    let begin = Instant::now();
    let (beside, loaded) = std::thread::scope(|scope| {
        let beside = scope.spawn(|| beside(peer, &mut changer));
        let loaded = clients.open_loop_with(RATE, length, |done, now| log.push((done, now)));
        (beside.join(), loaded)
    });
    let beside = beside.map_err(|_| anyhow::anyhow!("the thread that changes has panicked"))??;
    let (seen, _) = loaded?;
    let lost = idle.gone();
    drop(clients);
    std::thread::sleep(AFTER * 2);
    let afterwards = memory(peer)?;
    connections(&seen, lost, beside.sockets_lost, values);
    memories(&beside.memory, afterwards, values);
    latencies(&log, begin, &beside.changes, values);
    times(&log, &beside.changes, values);
    Ok(())
}

fn connect(peer: &Peer, connections: usize, case: Case) -> anyhow::Result<Clients> {
    let (request, answer) = case.exchange().context("no request")?;
    Clients::connect(Work { address: peer.address(Protocol::Http1), connections, request, answer })
}

/// Keeps WebSockets open, changes the weights, and looks at the memory.
fn beside(peer: &Peer, changer: &mut Changer<'_>) -> anyhow::Result<Beside> {
    let mut found = Beside::default();
    let mut sockets = VecDeque::new();
    let begin = Instant::now();
    for _ in 0..SOCKETS {
        sockets.push_back(connect(peer, 1, Case::WebSocket)?);
    }
    found.memory.push(memory(peer)?);
    std::thread::sleep(BEFORE.saturating_sub(begin.elapsed()));
    for i in 0..CHANGES {
        stop::go_on()?;
        // Not in step with the load.
        let due = begin + BEFORE + PAUSE * i + Duration::from_micros(fastrand::u64(0..1_000));
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        let new = i % 2 == 0;
        let begin = Instant::now();
        changer.change(if new { 100 } else { 0 })?;
        found.changes.push(Change { new, begin, returned: Instant::now() });
        std::thread::sleep(PAUSE / 2);
        if let Some(mut oldest) = sockets.pop_front() {
            found.sockets_lost += oldest.gone();
        }
        sockets.push_back(connect(peer, 1, Case::WebSocket)?);
        if i % 10 == 9 {
            found.memory.push(memory(peer)?);
        }
    }
    found.sockets_lost += sockets.iter_mut().map(Clients::gone).sum::<usize>();
    Ok(found)
}

fn memory(peer: &Peer) -> anyhow::Result<(f64, f64, f64)> {
    let process = &peer.process;
    Ok((process.memory_kib()?, process.resident_kib()?, process.many()? as f64))
}

fn connections(seen: &Seen, idle: usize, sockets: usize, values: &mut Values) {
    values.extend([
        ("requests", seen.requests as f64),
        ("failures", seen.failures as f64),
        ("closed", seen.closed as f64),
        ("idle_closed", idle as f64),
        ("sockets_lost", sockets as f64),
    ]);
}

fn memories(during: &[(f64, f64, f64)], (shared, resident, many): (f64, f64, f64), values: &mut Values) {
    let before = during.first().copied().unwrap_or_default();
    let most = |part: fn(&(f64, f64, f64)) -> f64| during.iter().map(part).fold(0.0, f64::max);
    values.extend([
        ("before_kib", before.0),
        ("most_kib", most(|one| one.0)),
        ("after_kib", shared),
        ("before_resident_kib", before.1),
        ("most_resident_kib", most(|one| one.1)),
        ("after_resident_kib", resident),
        ("before_processes", before.2),
        ("most_processes", most(|one| one.2)),
        ("after_processes", many),
    ]);
}

/// Latencies before the first change, and from then on.
fn latencies(log: &[(Done, Instant)], begin: Instant, changes: &[Change], values: &mut Values) {
    let Some(first) = changes.first().map(|change| change.begin) else { return };
    let mut parts = [Vec::new(), Vec::new()];
    let [quiet, changing] = &mut parts;
    for (done, now) in log.iter().filter(|(done, _)| done.due > begin + BEFORE / 4) {
        let part = if done.due < first { &mut *quiet } else { &mut *changing };
        part.push((*now - done.due).as_secs_f64() * 1e6);
    }
    for part in [&mut *quiet, &mut *changing] {
        part.sort_by(f64::total_cmp);
    }
    values.extend([
        ("quiet_p50_us", per_mille(quiet, 500)),
        ("quiet_p99_us", per_mille(quiet, 990)),
        ("changing_p50_us", per_mille(changing, 500)),
        ("changing_p99_us", per_mille(changing, 990)),
    ]);
}

/// How long changes took: until they were answered, from then until the first request was served under them, and until the last one was sent that
/// was served under the old ones. Less than nothing, where that was before the answer.
fn times(log: &[(Done, Instant)], changes: &[Change], values: &mut Values) {
    let (mut calls, mut firsts, mut lasts) = (Vec::new(), Vec::new(), Vec::new());
    let after = |at: Instant, from: Instant| {
        let before = from.saturating_duration_since(at).as_secs_f64();
        (at.saturating_duration_since(from).as_secs_f64() - before) * 1e6
    };
    for (i, change) in changes.iter().enumerate() {
        let end = changes.get(i + 1).map_or(change.begin + PAUSE, |next| next.begin);
        // One that is under way at the next change counts for neither.
        let of = |new: bool| {
            log.iter().filter(move |(done, now)| {
                (change.begin..end).contains(now) && done.first.is_some_and(|first| (first == CANARY) == new)
            })
        };
        calls.push(after(change.returned, change.begin));
        let first = of(change.new).map(|(_, now)| *now).min();
        let last = of(!change.new).map(|(done, _)| done.sent).max();
        firsts.extend(first.map(|at| after(at, change.returned)));
        lasts.push(after(last.unwrap_or(change.begin).max(change.begin), change.returned));
    }
    for (times, names) in [
        (calls, ["call_p50_us", "call_most_us"]),
        (firsts, ["first_p50_us", "first_most_us"]),
        (lasts, ["last_p50_us", "last_most_us"]),
    ] {
        let mut times = times;
        times.sort_by(f64::total_cmp);
        let [middle, most] = names;
        values.extend([(middle, per_mille(&times, 500)), (most, per_mille(&times, 1000))]);
    }
}

#[cfg(test)]
#[path = "swap_tests.rs"]
mod tests;
