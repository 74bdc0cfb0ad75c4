//! How the requests of a route are carried: time limits, retries, balancing, health and encryption.

use std::path::PathBuf;
use std::time::Duration;

use super::{Mirror, Protocol, SecretKey};

/// How the requests of a route are carried.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Traffic {
    /// Its time limits.
    pub timeouts: Timeouts,
    /// Which of its requests are tried again.
    pub retries: Retries,
    /// When a pod that fails is set aside.
    pub outliers: Outliers,
    /// How its pods are asked whether they are well; nothing for not at all.
    pub health_check: Option<HealthCheck>,
    /// How long a pod that has just come up gets a growing share; nothing for the whole share at once.
    pub slow_start: Option<Duration>,
    /// TLS towards its pods; nothing for none.
    pub upstream_tls: Option<UpstreamTls>,
    /// What its pods speak, whatever `appProtocol` says; nothing for what that says.
    pub protocol: Option<Protocol>,
    /// The longest body that a request may have, in bytes; nothing for no limit.
    pub max_body: Option<u64>,
    /// Whether a request that a version other than the stable one failed is repeated on that, where it is safe (semantics §3.4).
    pub shield: bool,
    /// Which requests are copied to a version; nothing for none.
    pub mirror: Option<Mirror>,
}

/// The time limits of a route (semantics §4.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// For a connection to a pod, TLS included.
    pub connect: Duration,
    /// From a request, or the last piece of its body, to the head of its answer, of each attempt.
    pub request: Duration,
    /// Between two pieces of an answer, and between two that a pod takes of a request.
    pub idle: Duration,
    /// From a request to the end of its answer; nothing means no limit. Never for upgraded connections, `text/event-stream`
    /// and gRPC.
    pub total: Option<Duration>,
    /// How long an upgraded connection (WebSocket) may be without a byte in either direction.
    pub upgraded_idle: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(1),
            request: Duration::from_secs(60),
            idle: Duration::from_secs(60),
            total: None,
            upgraded_idle: Duration::from_secs(3600),
        }
    }
}

/// Which requests are tried again on another pod, and how many (semantics §4.1–§4.3).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Retries {
    /// How many pods a request is tried on at most, the first included.
    pub attempts: u8,
    /// The statuses for which an idempotent request is tried again; in order, each once.
    pub on: Vec<u16>,
    /// The longest body that is kept to be sent again, in bytes.
    pub buffer: u64,
    /// How many requests may be repeated at once, in percent of the active ones (semantics §4.3).
    pub budget: u8,
    /// How many may always be.
    pub least: u32,
}

impl Default for Retries {
    fn default() -> Self {
        Self { attempts: 4, on: Vec::new(), buffer: 64 * 1024, budget: 20, least: 3 }
    }
}

/// When a pod that fails is set aside (semantics §2.5).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Outliers {
    /// After so many failures in a row; 0 for never.
    pub consecutive_failures: u32,
    /// Whether an answer of 500 or more is a failure; connections that fail, break or time out always are.
    pub count_5xx: bool,
    /// When its success rate of the last window is below this share (0 to 1) of that of its version's others; nothing for
    /// never.
    pub success_rate: Option<f64>,
    /// For how long at the first time; each further time for once more that.
    pub eject: Duration,
    /// For how long at most.
    pub longest: Duration,
    /// How much of a version may be set aside at once, in percent. No endpoint is ejected beyond it, nor the last; when more
    /// is set aside all the same, by failed health checks or because pods left, all are used.
    pub most: u8,
}

impl Default for Outliers {
    fn default() -> Self {
        Self {
            consecutive_failures: 5,
            count_5xx: false,
            success_rate: None,
            eject: Duration::from_secs(10),
            longest: Duration::from_secs(300),
            most: 50,
        }
    }
}

/// How pods are asked whether they are well.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HealthCheck {
    /// What is asked for with GET; 200 to 399 is well.
    pub path: String,
    /// The `Host` of the question; nothing for the pod's address.
    pub host: Option<String>,
    /// The port; nothing for the endpoint's own.
    pub port: Option<u16>,
    /// How long between two questions.
    pub interval: Duration,
    /// How long an answer may take.
    pub timeout: Duration,
    /// How many bad answers in a row make a pod unhealthy.
    pub unhealthy: u32,
    /// How many good answers in a row make it healthy again.
    pub healthy: u32,
}

impl Default for HealthCheck {
    fn default() -> Self {
        Self {
            path: "/".to_owned(),
            host: None,
            port: None,
            interval: Duration::from_secs(5),
            timeout: Duration::from_secs(1),
            unhealthy: 3,
            healthy: 2,
        }
    }
}

/// How a pod of a version is chosen (semantics §2.5).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Balance {
    /// Of two pods drawn at random, the one with fewer requests in flight (Mitzenmacher, 2001).
    #[default]
    LeastRequest,
    /// One after the other.
    RoundRobin,
    /// Of two pods drawn at random, the one with the lower product of requests in flight and recent latency.
    PeakEwma,
    /// The same pod for the same key, as far as pods come and go (multi-probe consistent hashing; Appleton and O'Reilly,
    /// 2015). Requests without the key go by [`Balance::LeastRequest`].
    Hash(HashKey),
}

/// What of a request is hashed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HashKey {
    /// The value of this header.
    Header(String),
    /// The value of this cookie.
    Cookie(String),
    /// The address of the client.
    ClientIp,
}

/// TLS towards the pods of a route.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UpstreamTls {
    /// The name that the pod's certificate must have, also sent as SNI; nothing for the host of the request's route: its first
    /// exact host, else the Service's `NAME.NAMESPACE.svc`.
    pub server_name: Option<String>,
    /// Who may sign it; nothing for the authorities of the system.
    pub ca: Option<PemSource>,
    /// What Serinus shows if asked.
    pub client_certificate: Option<CertificateSource>,
    /// Whether any certificate will do.
    pub insecure_skip_verify: bool,
}

/// Where PEM text is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PemSource {
    /// A file.
    File(PathBuf),
    /// The `ca.crt` of a Secret.
    Secret(SecretKey),
}

/// Where a certificate with its key is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum CertificateSource {
    /// Two PEM files: the chain, leaf first, and the key.
    Files {
        /// The chain.
        cert: PathBuf,
        /// The key.
        key: PathBuf,
    },
    /// A Secret of type `kubernetes.io/tls`: NAMESPACE/NAME.
    Secret(SecretKey),
}
