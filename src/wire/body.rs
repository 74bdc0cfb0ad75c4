//! One exchange as the router sees it, whatever version of HTTP either side speaks.
//!
//! Both sides are polled by one future, [`poll_fn`](std::future::poll_fn)-like, so that a request's body and its answer can
//! pass at the same time without a lock or a task for each direction. Whoever is polled keeps the waker of the last
//! `Context`, like every future.

use std::task::{Context, Poll};

use bytes::Bytes;

use super::{Fields, Refused, RequestHead, ResponseHead};

/// A piece of a body.
#[derive(Clone, Debug)]
pub enum Piece {
    /// Content; never empty (an empty chunk or DATA frame is not handed on: it would end a chunked body, and peers count
    /// empty frames against those who send them).
    Data(Bytes),
    /// Trailer fields; nothing but the end follows.
    Trailers(Fields),
}

/// What is known of a body's length when it begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Length {
    /// There is no body.
    None,
    /// This many bytes.
    Exactly(u64),
    /// As many as come: chunked, until the connection closes, or a stream of HTTP/2.
    Unknown,
}

/// Why the client's side of an exchange ended early.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The client left: closed, reset, or the stream was cancelled.
    #[error("the client left")]
    Gone,
    /// Its body was malformed or too large.
    #[error("the request's body was refused: {0}")]
    Refused(Refused),
    /// It took or sent nothing for too long.
    #[error("the client was too slow")]
    TooSlow,
}

/// Why the pod's side of an exchange ended early.
#[derive(Debug, thiserror::Error)]
pub enum UpstreamError {
    /// Nothing of the request was processed: not a byte was written, or the pod said so (HTTP/2 REFUSED_STREAM, or a GOAWAY
    /// with a lower last stream). Any method may be repeated (semantics §4.1).
    #[error("the pod did not take the request")]
    NotTaken,
    /// The connection ended before a byte of the answer came (semantics §4.2).
    #[error("the pod ended the connection before it had answered")]
    NoAnswer,
    /// The connection ended, or the stream was reset, inside the answer.
    #[error("the pod ended the connection inside its answer")]
    Broken,
    /// What came is not HTTP, or not an answer to this request.
    #[error("the pod's answer was refused: {0}")]
    Protocol(Refused),
}

/// The client's side of one exchange.
pub trait Downstream: Send {
    /// The next piece of the request's body; nothing at its end, and ever after.
    fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Piece>, ClientError>>;

    /// Ready when the client is gone. Loses nothing that it sends meanwhile. Only polled when the body has ended.
    fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<()>;

    /// Queues an interim answer (100, 103) where the version of HTTP has such.
    fn interim(&mut self, head: &ResponseHead);

    /// Queues the head of the answer. With [`Length::None`] the answer has ended with it.
    fn start(&mut self, head: &ResponseHead, length: Length);

    /// Ready when more of the answer may be queued: memory stays bounded.
    fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), ClientError>>;

    /// Queues content of the answer; never empty.
    fn data(&mut self, data: Bytes);

    /// Ends the answer. Not called after [`Length::None`].
    fn end(&mut self, trailers: Option<&Fields>);

    /// Writes out what is queued; ready when all of it is written.
    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), ClientError>>;

    /// How many bytes are queued, where that is known: who sees it shrink knows that the client takes something.
    fn backlog(&self) -> usize {
        0
    }

    /// The connection ends after this exchange. To be said before the answer starts; only HTTP/1 has it.
    fn close_after(&mut self) {}
}

/// The pod's side of one exchange.
pub trait Upstream: Send {
    /// Queues the head of the request. With [`Length::None`] the request has ended with it.
    fn start(&mut self, head: &RequestHead, length: Length);

    /// Ready when more of the request may be queued.
    fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), UpstreamError>>;

    /// Queues content of the request; never empty.
    fn data(&mut self, data: Bytes);

    /// Ends the request. Not called after [`Length::None`].
    fn end(&mut self, trailers: Option<&Fields>);

    /// Writes out what is queued; ready when all of it is written.
    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), UpstreamError>>;

    /// How many bytes are queued, where that is known: who sees it shrink knows that the pod takes something.
    fn backlog(&self) -> usize {
        0
    }

    /// The next head of the answer: interim ones first, then the final one, which is the last; with the length of its body.
    fn poll_head(
        &mut self,
        cx: &mut Context<'_>,
        head: &mut ResponseHead,
    ) -> Poll<Result<Length, UpstreamError>>;

    /// The next piece of the answer's body; nothing at its end, and ever after.
    fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Piece>, UpstreamError>>;
}
