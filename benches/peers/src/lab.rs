//! The measuring: rounds in random order, the peer alone on its core, pods and clients on another.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};

use crate::case::{CONNECTIONS, Case};
use crate::changes;
use crate::crowd::Crowd;
use crate::handshakes::Certificate;
use crate::load::{Clients, Work, per_mille};
use crate::peer::{self, Found, Kind, Peer, Protocol, Setup};
use crate::process::Process;
use crate::results::Results;
use crate::stop;
use crate::swap;
use crate::upstream::PODS;

/// Before each measurement, at its load.
const WARM_UP: Duration = Duration::from_millis(300);
/// How long the pods may take to listen.
const PODS_START: Duration = Duration::from_secs(10);
/// How many clients ask in an open loop: enough that a request which is due finds one free.
const OPEN_CLIENTS: usize = 256;
/// How many idle clients come.
const CROWDS: [usize; 2] = [1_000, 10_000];
/// How many rounds the dear cases have at most.
const FEW: usize = 3;

/// What is measured, how often and for how long.
pub(crate) struct Plan {
    pub(crate) cases: Vec<Case>,
    pub(crate) rounds: usize,
    pub(crate) seconds: f64,
    pub(crate) found: Vec<Found>,
}

/// What all measurements need.
pub(crate) struct Lab<'a> {
    plan: &'a Plan,
    folder: PathBuf,
    pods: u16,
    certificate: Certificate,
    h2load: Option<PathBuf>,
    /// Those with one worker; each is used for several cases.
    peers: Vec<Peer>,
    results: Results,
    _pods: Process,
}

impl<'a> Lab<'a> {
    /// Starts the pods.
    pub(crate) fn open(plan: &'a Plan, folder: &Path, results: Results) -> anyhow::Result<Self> {
        let cores = std::thread::available_parallelism()?.get();
        ensure!(cores >= 2, "it needs two cores");
        let last = cores - 1;
        // With four cores or more, the pods have one of their own.
        let own = if cores >= 4 { last - 1 } else { last };
        let mut set = rustix::thread::CpuSet::new();
        set.set(own);
        rustix::thread::sched_setaffinity(None, &set)?;
        // Timers to the microsecond.
        rustix::thread::set_current_timer_slack(std::num::NonZeroU64::new(1))?;
        let pods = peer::free_port(std::net::Ipv4Addr::new(127, 0, 9, 1))?;
        let program =
            std::env::current_exe()?.to_str().context("the path of this program is not UTF-8")?.to_owned();
        let command = [program, "upstream".to_owned(), pods.to_string()];
        let upstream = Process::start("pods", folder, &last.to_string(), &command)?;
        let last_pod = crate::upstream::address(PODS, pods);
        let begin = Instant::now();
        while std::net::TcpStream::connect(last_pod).is_err() {
            stop::go_on()?;
            ensure!(begin.elapsed() < PODS_START, "the pods do not answer at {last_pod}");
            std::thread::sleep(Duration::from_millis(20));
        }
        let h2load = peer::on_path("h2load");
        Ok(Lab {
            plan,
            folder: folder.to_owned(),
            pods,
            certificate: Certificate::make(folder)?,
            h2load,
            peers: Vec::new(),
            results,
            _pods: upstream,
        })
    }

    /// Measures everything. What was measured is kept in `path` after each case.
    pub(crate) fn run(&mut self, path: &Path) -> anyhow::Result<Results> {
        for case in self.plan.cases.clone() {
            let begin = Instant::now();
            eprintln!("{} …", case.name());
            match case {
                Case::Memory => self.memory()?,
                Case::Latency => self.latency()?,
                Case::TwoWorkers => self.two_workers()?,
                Case::Changes => changes::measure(self.plan, &self.folder, self.pods, &mut self.results)?,
                Case::Swap => swap::measure(self.plan, &self.folder, self.pods, &mut self.results)?,
                Case::H2 if self.h2load.is_none() => {
                    eprintln!("SKIPPED: h2, for h2load is not here (apt-get install nghttp2-client)");
                }
                _ => self.rounds(case)?,
            }
            self.results.write(path)?;
            eprintln!("{}: {:.0} s", case.name(), begin.elapsed().as_secs_f64());
        }
        Ok(self.results.clone())
    }

    fn start(&mut self) -> anyhow::Result<()> {
        if self.peers.is_empty() {
            self.peers = self.start_all("0", 1, |_| true)?;
        }
        Ok(())
    }

    /// Those that start; of the others it is said.
    fn start_all(
        &self,
        cores: &str,
        workers: usize,
        who: impl Fn(Kind) -> bool,
    ) -> anyhow::Result<Vec<Peer>> {
        let mut peers = Vec::new();
        for found in self.plan.found.iter().filter(|found| who(found.kind)) {
            match Peer::start(found, &self.folder, cores, workers, self.pods, &Setup::Standard) {
                Ok(peer) => peers.push(peer),
                Err(error) => {
                    stop::go_on()?;
                    eprintln!("SKIPPED: {error:#}");
                }
            }
        }
        Ok(peers)
    }

    /// The peers that can do this, in a new order.
    fn shuffled(&self, case: Case) -> Vec<usize> {
        let protocol = match case {
            Case::H2 => Protocol::Http2,
            Case::Tls | Case::TlsResumed => Protocol::Tls,
            _ => Protocol::Http1,
        };
        let can = self.peers.iter().enumerate().filter(|(_, peer)| peer.kind.speaks(protocol));
        let mut order: Vec<usize> = can.map(|(place, _)| place).collect();
        fastrand::shuffle(&mut order);
        order
    }

    fn rounds(&mut self, case: Case) -> anyhow::Result<()> {
        self.start()?;
        let rounds = match case {
            Case::H2 | Case::Tls | Case::TlsResumed => self.plan.rounds.min(FEW),
            _ => self.plan.rounds,
        };
        for round in 1..=rounds {
            for place in self.shuffled(case) {
                let Some(peer) = self.peers.get_mut(place) else { continue };
                let length = Duration::from_secs_f64(self.plan.seconds);
                let values = match case {
                    Case::Tls | Case::TlsResumed => {
                        handshakes(peer, &self.certificate, case == Case::TlsResumed, length)
                    }
                    Case::H2 => h2(peer, self.h2load.as_deref(), &self.folder, length),
                    _ => closed(peer, case, length),
                };
                let name = peer.kind.name();
                match values {
                    Ok(values) => self.results.keep(&case.name(), name, round, values),
                    // The others are worth measuring all the same.
                    Err(error) => {
                        stop::go_on()?;
                        eprintln!("FAILED: {}, {name}, round {round}: {error:#}", case.name());
                    }
                }
            }
        }
        Ok(())
    }

    /// As `1k`, with two workers, which on two cores share one with the clients.
    fn two_workers(&mut self) -> anyhow::Result<()> {
        let ones = std::mem::take(&mut self.peers);
        self.peers = self.start_all("0,1", 2, |kind| kind != Kind::Relay)?;
        let measured = self.rounds(Case::TwoWorkers);
        self.peers = ones;
        measured
    }

    /// Half of what each can, and half of what the slowest can for all.
    fn latency(&mut self) -> anyhow::Result<()> {
        self.start()?;
        let mut most = Vec::new();
        for peer in &mut self.peers {
            let known = self.results.median(&Case::OneK.name(), peer.kind.name(), "per_second");
            most.push(match known {
                Some(known) => known,
                None => value(&closed(peer, Case::OneK, Duration::from_secs(1))?, "per_second"),
            });
        }
        let slowest = most.iter().copied().fold(f64::INFINITY, f64::min);
        for (case, same) in [("latency-own", false), ("latency-same", true)] {
            for round in 1..=self.plan.rounds.min(FEW) {
                for place in self.shuffled(Case::Latency) {
                    let (Some(peer), Some(own)) = (self.peers.get_mut(place), most.get(place)) else {
                        continue;
                    };
                    let rate = if same { slowest } else { *own } / 2.0;
                    let length = Duration::from_secs_f64(self.plan.seconds);
                    let values =
                        open(peer, rate, length).with_context(|| format!("{case}, {}", peer.kind.name()))?;
                    let name = peer.kind.name();
                    self.results.keep(case, name, round, values);
                }
            }
        }
        Ok(())
    }

    /// Each started anew, so that nothing before counts.
    fn memory(&mut self) -> anyhow::Result<()> {
        for found in &self.plan.found {
            match self.memory_of(found) {
                Ok(values) => self.results.keep(&Case::Memory.name(), found.kind.name(), 1, values),
                Err(error) => {
                    stop::go_on()?;
                    eprintln!("FAILED: memory, {}: {error:#}", found.kind.name());
                }
            }
        }
        Ok(())
    }

    fn memory_of(&self, found: &Found) -> anyhow::Result<Vec<(&'static str, f64)>> {
        let peer = Peer::start(found, &self.folder, "0", 1, self.pods, &Setup::Standard)?;
        let (request, _) = Case::Memory.exchange().context("no request")?;
        let mut crowd = Crowd::new(peer.address(Protocol::Http1), request);
        let mut values = vec![("idle_kib", settled(&peer.process)?)];
        for (many, name) in CROWDS.into_iter().zip(["at_1000_kib", "at_10000_kib"]) {
            // The relays have as many connections to the pods, whose process has all of these.
            let files = many as u64 * if found.kind.reads_http() { 1 } else { 2 } + 500;
            if peer::open_files() < files {
                let (name, limit) = (found.kind.name(), peer::open_files());
                eprintln!(
                    "SKIPPED: {many} connections of {name}: they want ulimit -n {files}, and it is {limit}"
                );
                continue;
            }
            crowd.grow_to(many)?;
            values.push((name, settled(&peer.process)?));
        }
        Ok(values)
    }
}

/// What it holds once that changes no more, or after five seconds.
fn settled(process: &Process) -> anyhow::Result<f64> {
    let mut before = process.memory_kib()?;
    for _ in 0..10 {
        stop::go_on()?;
        std::thread::sleep(Duration::from_millis(500));
        let now = process.memory_kib()?;
        if (now - before).abs() < 16.0 {
            return Ok(now);
        }
        before = now;
    }
    Ok(before)
}

fn value(values: &[(&str, f64)], name: &str) -> f64 {
    values.iter().find(|(of, _)| *of == name).map_or(f64::NAN, |(_, value)| *value)
}

/// The load of one case, as fast as the peer can.
fn closed(peer: &mut Peer, case: Case, length: Duration) -> anyhow::Result<Vec<(&'static str, f64)>> {
    let Some((request, answer)) = case.exchange() else { bail!("{} is measured otherwise", case.name()) };
    let address = peer.address(Protocol::Http1);
    let mut clients = Clients::connect(Work { address, connections: CONNECTIONS, request, answer })?;
    clients.closed(WARM_UP)?;
    let before = peer.process.cpu_micros()?;
    let seen = clients.closed(length)?;
    let cpu = peer.process.cpu_micros()? - before;
    ensure!(seen.requests > 0, "no answer in {length:?}");
    let requests = seen.requests as f64;
    Ok(vec![
        ("requests", requests),
        ("canary", seen.canary as f64),
        ("cpu_us", cpu / requests),
        ("per_second", requests / seen.seconds),
        ("busy_percent", cpu / seen.seconds / 1e4),
        ("failures", seen.failures as f64),
    ])
}

fn open(peer: &mut Peer, rate: f64, length: Duration) -> anyhow::Result<Vec<(&'static str, f64)>> {
    let (request, answer) = Case::Latency.exchange().context("no request")?;
    let address = peer.address(Protocol::Http1);
    let mut clients = Clients::connect(Work { address, connections: OPEN_CLIENTS, request, answer })?;
    clients.once()?;
    let before = peer.process.cpu_micros()?;
    let (latencies, seen) = clients.open_loop(rate, WARM_UP, length)?;
    let cpu = peer.process.cpu_micros()? - before;
    Ok(vec![
        ("rate", rate),
        ("p50_us", per_mille(&latencies, 500)),
        ("p99_us", per_mille(&latencies, 990)),
        ("p999_us", per_mille(&latencies, 999)),
        ("busy_percent", cpu / seen.seconds / 1e4),
        ("failures", (seen.failures + seen.closed) as f64),
    ])
}

fn handshakes(
    peer: &mut Peer,
    certificate: &Certificate,
    resume: bool,
    length: Duration,
) -> anyhow::Result<Vec<(&'static str, f64)>> {
    let address = peer.address(Protocol::Tls);
    let before = peer.process.cpu_micros()?;
    let seen = certificate.connect(address, resume, length)?;
    let cpu = peer.process.cpu_micros()? - before;
    ensure!(seen.connections > 0, "no connection in {length:?}");
    let connections = seen.connections as f64;
    Ok(vec![
        ("cpu_us", cpu / connections),
        ("per_second", connections / seen.seconds),
        ("busy_percent", cpu / seen.seconds / 1e4),
        ("resumed_percent", seen.resumed as f64 / connections * 100.0),
    ])
}

/// 64 requests at once, on eight connections.
fn h2(
    peer: &mut Peer,
    h2load: Option<&Path>,
    folder: &Path,
    length: Duration,
) -> anyhow::Result<Vec<(&'static str, f64)>> {
    let h2load = h2load.and_then(Path::to_str).context("no h2load")?;
    let url = format!("http://{}/1k", peer.address(Protocol::Http2));
    let seconds = length.as_secs().max(1);
    let command =
        [h2load, "-c", "8", "-m", "8", "-t", "1", "-D", &seconds.to_string(), &url].map(str::to_owned);
    let own = rustix::thread::sched_getaffinity(None)?;
    let core = (0..rustix::thread::CpuSet::MAX_CPU).find(|core| own.is_set(*core)).unwrap_or_default();
    let before = peer.process.cpu_micros()?;
    let mut running = Process::start("h2load", folder, &core.to_string(), &command)?;
    let begin = Instant::now();
    while running.is_running().is_ok() {
        stop::go_on()?;
        ensure!(begin.elapsed() < length + Duration::from_secs(10), "h2load does not end");
        std::thread::sleep(Duration::from_millis(5));
    }
    let cpu = peer.process.cpu_micros()? - before;
    let said = std::fs::read_to_string(folder.join("log/h2load.log"))?;
    let number = |before: &str| {
        let line = said.lines().find(|line| line.starts_with("requests:"))?;
        line.split(before).next()?.split_whitespace().last()?.parse::<f64>().ok()
    };
    let (Some(done), Some(failed)) = (number(" succeeded"), number(" failed")) else {
        bail!("h2load says:\n{said}");
    };
    ensure!(done > 0.0 && failed < done / 1000.0, "h2load says:\n{said}");
    Ok(vec![
        ("cpu_us", cpu / done),
        ("per_second", done / seconds as f64),
        ("busy_percent", cpu / begin.elapsed().as_secs_f64() / 1e4),
        ("failures", failed),
    ])
}
