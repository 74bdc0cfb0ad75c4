//! HTTP/1 as bytes: strict reading of heads and chunks (RFC 9112), and writing them.

use bytes::{Bytes, BytesMut};
use http::Method;

use super::{Fields, Refused, RequestHead, ResponseHead};
use crate::model::Edge;

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

/// What a [`Dechunker`] found.
#[derive(Debug)]
pub enum Decoded {
    /// Content; not empty.
    Data(Bytes),
    /// More bytes are needed.
    More,
    /// The end, with the trailer fields where there are any.
    End(Option<Fields>),
}

/// Takes chunked bodies apart (RFC 9112 §7.1), strictly.
#[derive(Debug, Default)]
pub struct Dechunker {}

impl Dechunker {
    /// Takes what can be taken from the front of `bytes`.
    ///
    /// # Errors
    /// When the bytes are no chunks, or more than a bounded number of them say nothing.
    pub fn decode(&mut self, _bytes: &mut BytesMut) -> Result<Decoded, Refused> {
        Err(Refused::bad("not there yet"))
    }
}

/// Reads the head of a request from the front of `bytes`; nothing while it is incomplete.
///
/// # Errors
/// When it is malformed, ambiguous, or over a limit.
pub fn request(_bytes: &[u8], _edge: &Edge, _head: &mut RequestHead) -> Result<Option<Parsed>, Refused> {
    Err(Refused::bad("not there yet"))
}

/// Reads the head of an answer to a request of this method from the front of `bytes`; nothing while it is incomplete.
///
/// # Errors
/// When it is malformed, ambiguous, over a limit, or a 101 that was not asked for.
pub fn response(
    _bytes: &[u8],
    _to: &Method,
    _upgrade_asked: bool,
    _head: &mut ResponseHead,
) -> Result<Option<Parsed>, Refused> {
    Err(Refused::bad("not there yet"))
}

/// Writes the head of a request as HTTP/1.1, with `framing` (never [`Framing::UntilClose`]).
pub fn write_request(_head: &RequestHead, _framing: Framing, _out: &mut BytesMut) {}

/// Writes the head of an answer as HTTP/1.1, with `framing`; `close` adds `Connection: close`.
pub fn write_response(_head: &ResponseHead, _framing: Framing, _close: bool, _out: &mut BytesMut) {}
