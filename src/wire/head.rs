//! The heads of messages.

use http::{Method, StatusCode};

use super::Fields;

/// The version of HTTP that a message came in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Version {
    /// HTTP/1.0 (RFC 1945).
    Http10,
    /// HTTP/1.1 (RFC 9112).
    #[default]
    Http11,
    /// HTTP/2 (RFC 9113).
    Http2,
}

impl Version {
    /// As people write it, and the first line of a message in HTTP/1.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Http10 => "HTTP/1.0",
            Self::Http11 => "HTTP/1.1",
            Self::Http2 => "HTTP/2",
        }
    }
}

/// The head of a request that passed every check.
#[derive(Clone, Debug, Default)]
pub struct RequestHead {
    /// The method; never CONNECT or TRACE.
    pub method: Method,
    /// Path and query, normalised as far as the listener asks: the same text is routed by and sent on. `*` for OPTIONS
    /// alone (RFC 9112 §3.2.4).
    pub target: String,
    /// Who is asked: `Host`, the authority of an absolute target, or `:authority`; with the port it came with. Empty only
    /// in HTTP/1.0.
    pub authority: String,
    /// The version it came in.
    pub version: Version,
    /// The header fields, less those for this hop alone: no `Connection` and none that it names, no framing. `Host` is one
    /// of them in every version.
    pub fields: Fields,
    /// What the client would like to speak from here on (`Upgrade`, where `Connection` names it); empty for nothing.
    pub upgrade: String,
    /// Whether the body comes only when it is asked for (`Expect: 100-continue`).
    pub expects_continue: bool,
}

impl RequestHead {
    /// The path, without the query.
    #[must_use]
    pub fn path(&self) -> &str {
        let end = memchr::memchr(b'?', self.target.as_bytes());
        end.and_then(|end| self.target.get(..end)).unwrap_or(&self.target)
    }

    /// Forgets all, and keeps the memory.
    pub fn clear(&mut self) {
        self.method = Method::GET;
        self.target.clear();
        self.authority.clear();
        self.version = Version::Http11;
        self.fields.clear();
        self.upgrade.clear();
        self.expects_continue = false;
    }
}

/// The head of an answer that passed every check.
#[derive(Clone, Debug, Default)]
pub struct ResponseHead {
    /// The status.
    pub status: StatusCode,
    /// The version it came in.
    pub version: Version,
    /// The header fields, less those for this hop alone. `Content-Length` is one of them only where the answer has no body and
    /// it says how long another would have been (HEAD, 304).
    pub fields: Fields,
    /// What is spoken from here on (101 alone); empty for nothing.
    pub upgrade: String,
}

impl ResponseHead {
    /// Forgets all, and keeps the memory.
    pub fn clear(&mut self) {
        self.status = StatusCode::OK;
        self.version = Version::Http11;
        self.fields.clear();
        self.upgrade.clear();
    }

    /// Whether more is to come: 1xx, save 101 (RFC 9110 §15.2).
    #[must_use]
    pub fn is_interim(&self) -> bool {
        self.status.is_informational() && self.status != StatusCode::SWITCHING_PROTOCOLS
    }
}

/// A message that is refused: what is wrong with it, and the status that a request gets for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what}")]
pub struct Refused {
    /// 400, 405, 413, 414, 417, 431, 501 or 505.
    pub status: u16,
    /// What is wrong, for a person.
    pub what: &'static str,
}

impl Refused {
    /// 400: malformed, or to be understood in more than one way.
    #[must_use]
    pub const fn bad(what: &'static str) -> Self {
        Self { status: 400, what }
    }
}
