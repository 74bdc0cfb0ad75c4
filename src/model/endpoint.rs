//! A place to which requests can be sent.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use serde::Serialize;

/// The labels of a pod.
pub type Labels = Arc<BTreeMap<String, String>>;

/// What makes an endpoint the same one from table to table: its address and the pod behind it.
///
/// A new pod that got a dead pod's address is another endpoint: it starts with a clean record.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EndpointId {
    /// IP and port.
    pub address: SocketAddr,
    /// The uid of the pod; empty where there is none (static discovery, endpoints without a `targetRef`).
    pub pod_uid: Arc<str>,
}

/// Where an endpoint is in its life, as the cluster tells it (semantics §1.5, §2.1, §2.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum EndpointPhase {
    /// Serving and not terminating: gets new requests.
    Ready,
    /// Serving and terminating: gets new requests only when the version has nothing better.
    Draining,
    /// Not serving: gets nothing.
    Unready,
}

/// What an endpoint speaks, from the Service's `appProtocol` (semantics §1.4).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Protocol {
    /// HTTP/1.1, WebSocket upgrades included.
    #[default]
    Http1,
    /// HTTP/2 with prior knowledge (`kubernetes.io/h2c`, `grpc`).
    H2c,
}

impl Protocol {
    /// The protocol that an `appProtocol` names; HTTP/1.1 where it names nothing that is known.
    #[must_use]
    pub fn from_app_protocol(app_protocol: Option<&str>) -> Self {
        match app_protocol {
            Some("kubernetes.io/h2c" | "grpc" | "h2c" | "http2") => Protocol::H2c,
            _ => Protocol::Http1,
        }
    }
}

impl fmt::Display for EndpointId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.address.fmt(f)
    }
}
