//! A config that is valid: what the rest of Serinus works with.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use ipnet::IpNet;

use crate::model::{
    AccessFormat, ConfigMapKey, Edge, ListenerTls, Namespace, RouteSpec, ServiceKey, Share, StaticEndpoint,
};

/// A config file that was read, checked and completed with its defaults.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// Where requests come in; at least one.
    pub listeners: Vec<Listener>,
    /// The admin API.
    pub admin: Admin,
    /// Where live weights and their history are kept.
    pub state: StateStore,
    /// Where Services and pods are found.
    pub discovery: Discovery,
    /// How Serinus stops.
    pub drain: Drain,
    /// Whether requests are logged.
    pub access_log: AccessLog,
    /// Which requests are traced; nothing for none.
    pub tracing: Option<Tracing>,
    /// The networks of hops whose word about a client counts (`X-Forwarded-*`, `X-Request-Id`).
    pub trusted_proxies: Vec<IpNet>,
    /// The routes, in the order of the file.
    pub routes: Vec<RouteSpec>,
}

/// A place where requests come in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listener {
    /// Its name, unique in the file; a label in metrics.
    pub name: String,
    /// Where it listens.
    pub address: HostPort,
    /// TLS towards its clients; nothing for none.
    pub tls: Option<ListenerTls>,
    /// What it takes from its clients.
    pub edge: Edge,
}

/// The admin API.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Admin {
    /// Where it listens.
    pub address: HostPort,
    /// The file with the token that writes need.
    pub token_file: Option<PathBuf>,
}

/// Which requests are traced, and where their spans are sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tracing {
    /// Where the collector takes them: a URL with its whole path.
    pub endpoint: String,
    /// The share of the requests that are traced where nobody before has decided.
    pub sample: Share,
}

impl Tracing {
    /// The sample where none is given: 1 %.
    pub(super) const SAMPLE: Share = match Share::from_millionths(Share::DENOMINATOR / 100) {
        Some(share) => share,
        None => Share::ZERO,
    };
}

/// Where live weights and their history are kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StateStore {
    /// Nowhere: a restart forgets them.
    Memory,
    /// In this file.
    File(PathBuf),
    /// In this ConfigMap, which all replicas share. The discovery is [`Discovery::Kubernetes`] then.
    ConfigMap(ConfigMapKey),
}

/// Where Services and pods are found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Discovery {
    /// In a Kubernetes cluster.
    Kubernetes(KubernetesSettings),
    /// In the config file. Every Service that a route names has an entry.
    Static(BTreeMap<ServiceKey, Vec<StaticEndpoint>>),
}

/// How to reach the Kubernetes API.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KubernetesSettings {
    /// A kubeconfig file; otherwise the pod's ServiceAccount, or what `kubectl` would use.
    pub kubeconfig: Option<PathBuf>,
    /// A context of the kubeconfig; otherwise its current one.
    pub context: Option<String>,
    /// The only namespaces that routes may use, each once; empty means all.
    pub namespaces: Vec<Namespace>,
}

/// How Serinus stops (semantics §4.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Drain {
    /// How long it goes on accepting after SIGTERM, unready.
    pub delay: Duration,
    /// How long requests then get to end.
    pub timeout: Duration,
}

/// Whether requests are logged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AccessLog {
    /// No.
    Off,
    /// So.
    On(RequestLog),
}

/// Which requests are logged, where, and in which form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestLog {
    /// The file that is appended to; nothing for standard output.
    pub file: Option<PathBuf>,
    /// The form of a line.
    pub format: AccessFormat,
    /// How many of the requests that went well.
    pub sample: Share,
}

impl Default for RequestLog {
    /// All, as JSON on standard output.
    fn default() -> Self {
        Self { file: None, format: AccessFormat::Json, sample: Share::ALL }
    }
}

/// A place to listen: `HOST:PORT`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostPort {
    /// An IP address, without brackets, or a name such as `localhost`.
    pub host: String,
    /// The port; 0 lets the system choose one.
    pub port: u16,
}

/// Why a text is not a [`HostPort`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not an address: {remedy}")]
pub struct HostPortError {
    text: String,
    remedy: &'static str,
}

impl HostPort {
    /// The host as an IP address, where it is one.
    #[must_use]
    pub fn ip(&self) -> Option<IpAddr> {
        self.host.parse().ok()
    }
}

impl FromStr for HostPort {
    type Err = HostPortError;

    fn from_str(text: &str) -> Result<Self, HostPortError> {
        let refuse = |remedy| HostPortError { text: text.chars().take(80).collect(), remedy };
        let (host, port) =
            text.rsplit_once(':').ok_or_else(|| refuse("write HOST:PORT, like 127.0.0.1:8080"))?;
        let port = Some(port)
            .filter(|p| p.bytes().all(|b| b.is_ascii_digit()))
            .and_then(|p| p.parse().ok())
            .ok_or_else(|| refuse("end it with a port from 0 to 65535, like 127.0.0.1:8080"))?;
        if host.is_empty() {
            return Err(refuse("write the host too: 0.0.0.0 for every IPv4 address, [::] for IPv6"));
        }
        if let Some(inner) = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')) {
            let ip = inner.parse::<std::net::Ipv6Addr>();
            let ip = ip.map_err(|_| refuse("between the brackets goes an IPv6 address, like [::1]:8080"))?;
            return Ok(Self { host: ip.to_string(), port });
        }
        if host.contains(':') {
            return Err(refuse("put an IPv6 address into brackets, like [::1]:8080"));
        }
        let numeric = host.bytes().all(|b| b.is_ascii_digit() || b == b'.');
        if numeric && host.parse::<std::net::Ipv4Addr>().is_err() {
            return Err(refuse("an IPv4 address has four numbers from 0 to 255, like 127.0.0.1:8080"));
        }
        if !is_host_name(host) {
            return Err(refuse("the host is an IP address or a name, like 127.0.0.1:8080 or localhost:8080"));
        }
        Ok(Self { host: host.to_ascii_lowercase(), port })
    }
}

fn is_host_name(host: &str) -> bool {
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
    };
    host.len() <= 253 && host.strip_suffix('.').unwrap_or(host).split('.').all(label)
}

impl fmt::Display for HostPort {
    /// As it is written in the file; an IPv6 address in brackets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_have_a_host_and_a_port() {
        for (text, shown) in [
            ("0.0.0.0:8080", "0.0.0.0:8080"),
            ("127.0.0.1:0", "127.0.0.1:0"),
            ("LocalHost:80", "localhost:80"),
            ("[::]:8080", "[::]:8080"),
            ("[0:0::1]:1", "[::1]:1"),
        ] {
            assert_eq!(text.parse::<HostPort>().map(|a| a.to_string()), Ok(shown.to_owned()), "{text}");
        }
        for (text, needle) in [
            ("", "write HOST:PORT"),
            ("localhost", "write HOST:PORT"),
            ("localhost:", "end it with a port"),
            ("localhost:http", "end it with a port"),
            ("localhost:+1", "end it with a port"),
            ("localhost:65536", "end it with a port"),
            (":8080", "write the host too"),
            ("::1:80", "into brackets"),
            ("[::1:80", "into brackets"),
            ("[x]:80", "between the brackets"),
            ("1.2.3:80", "four numbers"),
            ("256.0.0.1:80", "four numbers"),
            ("http://a:80", "into brackets"),
            ("a b:80", "IP address or a name"),
        ] {
            let error = text.parse::<HostPort>().unwrap_err().to_string();
            assert!(error.contains(needle), "{text}: {error}");
        }
    }
}
