//! HTTP/1 as bytes: strict reading of heads and chunks (RFC 9112), and writing them.
//!
//! The caller keeps what it has read and calls again with all of it when more has come. Until a head is whole it is only
//! searched for line ends, which costs no more than the read that brought the byte, and never beyond the limits: a client that
//! drips bytes cannot make it expensive. Whatever can be refused before the head is whole is refused then.

mod chunks;
mod control;
mod glimpse;
mod host;
mod lines;
mod request;
mod response;
mod target;
mod write;

pub(in crate::wire) use chunks::may_trail;
pub use chunks::{Dechunker, Decoded};
pub(in crate::wire) use control::Kind;
pub use glimpse::{Glimpse, glimpse};
pub use host::check_authority;
pub use request::request;
pub use response::response;
pub use target::normalise_target;
pub use write::{write_request, write_response};

/// The most header fields that a message may have, whatever a listener allows.
pub const MOST_FIELDS: usize = 256;

/// How long a method may be.
pub(in crate::wire) const LONGEST_METHOD: usize = 32;

/// Where a message's body ends (RFC 9112 §6.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// With its head.
    None,
    /// After this many bytes; not 0.
    Length(u64),
    /// With the last chunk.
    Chunked,
    /// With the connection; answers alone.
    UntilClose,
}

/// What a head says besides what is in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parsed {
    /// How many bytes it had.
    pub consumed: usize,
    /// Where its body ends.
    pub framing: Framing,
    /// The connection ends after this message: `Connection: close`, or HTTP/1.0 without `keep-alive`.
    pub close: bool,
}

#[cfg(test)]
mod property_tests;
