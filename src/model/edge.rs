//! What a listener takes from its clients.

use std::time::Duration;

use super::{CertificateSource, PemSource};

/// The limits of a listener: what is over them is refused or cut, and costs no more than them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Edge {
    /// The longest request line, in bytes: 414 beyond.
    pub request_line: usize,
    /// The most that all header fields of a request may have, in bytes: 431 beyond.
    pub header_bytes: usize,
    /// How many header fields a request may have: 431 beyond.
    pub header_count: usize,
    /// How many connections may be open at once; further ones wait to be accepted.
    pub connections: usize,
    /// How many requests of one HTTP/2 connection may be open at once.
    pub streams: u32,
    /// From the first byte of a request's head (from the connection's begin, for its first one) to its last.
    pub header_timeout: Duration,
    /// Between two pieces of a request's body.
    pub body_timeout: Duration,
    /// How long a client may take nothing of what is sent to it.
    pub write_timeout: Duration,
    /// How long a connection may be without a request.
    pub idle_timeout: Duration,
    /// What happens to a path with an escaped slash (`%2F`, `%5C`).
    pub escaped_slashes: EscapedSlashes,
    /// Whether several slashes in a row become one.
    pub merge_slashes: bool,
    /// What happens to header names with an underscore.
    pub underscores: Underscores,
    /// Whether each connection begins with a PROXY protocol header, version 1 or 2.
    pub proxy_protocol: bool,
    /// Whether HTTP/2 is spoken.
    pub http2: bool,
    /// The requests of this listener are sent elsewhere: to HTTPS.
    pub redirect: Option<Redirect>,
}

impl Default for Edge {
    fn default() -> Self {
        Self {
            request_line: 16 * 1024,
            header_bytes: 64 * 1024,
            header_count: 128,
            connections: 50_000,
            streams: 128,
            header_timeout: Duration::from_secs(10),
            body_timeout: Duration::from_secs(60),
            write_timeout: Duration::from_secs(60),
            idle_timeout: Duration::from_secs(75),
            escaped_slashes: EscapedSlashes::Reject,
            merge_slashes: false,
            underscores: Underscores::Drop,
            proxy_protocol: false,
            http2: true,
            redirect: None,
        }
    }
}

/// What happens to a path with an escaped slash or backslash: who unescapes it sees another path than who does not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EscapedSlashes {
    /// 400.
    Reject,
    /// Sent on as it is, and matched as the three characters that it is written with.
    Pass,
}

/// What happens to header names with an underscore: many frameworks take `X_User` for `X-User`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Underscores {
    /// The field is left out, as nginx does.
    Drop,
    /// 400.
    Reject,
    /// Sent on.
    Pass,
}

/// Sends clients to HTTPS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Redirect {
    /// The port of HTTPS, left out of the location where it is 443.
    pub port: u16,
    /// 301, 302, 307 or 308.
    pub status: u16,
}

/// TLS towards the clients of a listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenerTls {
    /// The certificates, chosen by SNI; the first is shown to clients that name no host, or one that no certificate has.
    pub certificates: Vec<CertificateSource>,
    /// The oldest version that is spoken.
    pub min_version: MinTls,
    /// Whether clients show a certificate, and who may sign it.
    pub client_auth: Option<ClientAuth>,
}

/// The oldest version of TLS that a listener speaks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MinTls {
    /// TLS 1.2 (RFC 5246).
    #[default]
    Tls12,
    /// TLS 1.3 (RFC 8446).
    Tls13,
}

/// Certificates of clients.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientAuth {
    /// Who may sign them.
    pub ca: PemSource,
    /// Whether a client without one is refused.
    pub required: bool,
}
