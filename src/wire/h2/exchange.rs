//! One stream of a client's connection.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::{Context, Poll, Waker, ready};

use bytes::Bytes;
use h2::server::SendResponse;
use h2::{Reason, RecvStream, SendStream};
use http::{HeaderMap, StatusCode};

use super::outbox::{Outbox, Parcel, ROOM};
use super::{INTERIMS, convert};
use crate::model::{Edge, Underscores};
use crate::wire::{ClientError, Downstream, Fields, Length, Piece, Refused, ResponseHead, Version};

/// One request of an HTTP/2 client, to be answered. Dropped before its answer was written whole, it resets the stream: a
/// client never takes a cut answer for a whole one.
pub struct H2Exchange {
    body: Incoming,
    respond: SendResponse<Parcel>,
    stream: Option<SendStream<Parcel>>,
    outbox: Outbox,
    answer: Answer,
    /// How much content is still to come, where nothing can follow it: the last of it ends the stream.
    left: Option<u64>,
    interims: u8,
    /// The client waits for word before it sends the body.
    awaits_continue: bool,
    resets: Arc<AtomicU32>,
}

/// How far the answer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answer {
    Awaited,
    Begun,
    Ended,
    /// The stream did not take it.
    Failed,
}

/// The body of a request as it comes.
struct Incoming {
    stream: RecvStream,
    /// What came with the head.
    first: Option<Bytes>,
    ended: bool,
    most_trailers: usize,
    underscores: Underscores,
}

impl H2Exchange {
    /// The exchange of a stream that was just accepted, and the length of its body. `resets` counts requests that were
    /// reset before they were answered.
    pub(super) fn accept(
        headers: &HeaderMap,
        stream: RecvStream,
        respond: SendResponse<Parcel>,
        edge: &Edge,
        resets: Arc<AtomicU32>,
    ) -> (Self, Length) {
        let mut body = Incoming {
            stream,
            first: None,
            ended: false,
            most_trailers: edge.header_count,
            underscores: edge.underscores,
        };
        let length = body.length(headers);
        let exchange = Self {
            body,
            respond,
            stream: None,
            outbox: Outbox::default(),
            answer: Answer::Awaited,
            left: None,
            interims: 0,
            awaits_continue: false,
            resets,
        };
        (exchange, length)
    }

    /// The client waits with the body until it is asked for (`Expect: 100-continue`), unless some has come already.
    pub(super) fn await_continue(&mut self) {
        self.awaits_continue = self.body.first.is_none() && !self.body.ended;
    }

    /// Ready with a reset or the connection's end.
    fn poll_reset(&mut self, cx: &mut Context<'_>) -> Poll<Result<Reason, h2::Error>> {
        match &mut self.stream {
            Some(stream) => stream.poll_reset(cx),
            None => self.respond.poll_reset(cx),
        }
    }

    fn failed(&self) -> bool {
        self.answer == Answer::Failed || self.outbox.lost()
    }
}

impl Incoming {
    /// The length of the body, as far as it is known. Many clients end a stream that has no body with an empty DATA frame
    /// of its own; that comes with the head, and is taken in here: it is no body.
    fn length(&mut self, headers: &HeaderMap) -> Length {
        let told = convert::content_length(headers);
        if !self.stream.is_end_stream() && told.is_none() {
            let cx = &mut Context::from_waker(Waker::noop());
            match self.stream.poll_data(cx) {
                Poll::Ready(Some(Ok(data))) if !data.is_empty() => self.first = Some(data),
                // An error is told again when the body is asked for.
                Poll::Ready(_) | Poll::Pending => {}
            }
        }
        if self.first.is_none() && (self.stream.is_end_stream() || told == Some(0)) {
            self.ended = true;
            return Length::None;
        }
        told.map_or(Length::Unknown, Length::Exactly)
    }

    fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, h2::Error>>> {
        match self.first.take() {
            Some(first) => Poll::Ready(Some(Ok(first))),
            None => self.stream.poll_data(cx),
        }
    }

    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Piece>, ClientError>> {
        while !self.ended {
            match ready!(self.poll_data(cx)) {
                Some(Ok(data)) => {
                    // The window opens by what is taken, so that a slow pod slows its client down. Fails for a stream that
                    // is gone, which the next poll tells.
                    let _ = self.stream.flow_control().release_capacity(data.len());
                    if !data.is_empty() {
                        return Poll::Ready(Ok(Some(Piece::Data(data))));
                    }
                }
                Some(Err(error)) => return Poll::Ready(Err(client_error(&error))),
                None => {
                    let map = ready!(self.stream.poll_trailers(cx)).map_err(|e| client_error(&e))?;
                    self.ended = true;
                    let Some(map) = map else { break };
                    let fields = convert::trailers(&map, self.most_trailers, self.underscores)
                        .map_err(ClientError::Refused)?;
                    if !fields.is_empty() {
                        return Poll::Ready(Ok(Some(Piece::Trailers(fields))));
                    }
                }
            }
        }
        Poll::Ready(Ok(None))
    }
}

/// What a failed stream says of its client.
fn client_error(error: &h2::Error) -> ClientError {
    if error.is_library() {
        return ClientError::Refused(Refused::bad(
            "the body does not keep to HTTP/2 or to its content-length",
        ));
    }
    ClientError::Gone
}

impl Downstream for H2Exchange {
    fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Piece>, ClientError>> {
        if std::mem::take(&mut self.awaits_continue) && self.answer == Answer::Awaited {
            let asked = ResponseHead { status: StatusCode::CONTINUE, ..ResponseHead::default() };
            // Fails when the client is gone, which the next poll tells.
            let _ = self.respond.send_informational(convert::outgoing_response(&asked, Length::Unknown));
        }
        self.body.poll_piece(cx)
    }

    fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.failed() { Poll::Ready(()) } else { self.poll_reset(cx).map(|_| ()) }
    }

    fn interim(&mut self, head: &ResponseHead) {
        // Who waits for 100 gets it when its body is asked for.
        let passes = head.is_interim() && head.status != StatusCode::CONTINUE;
        if self.answer == Answer::Awaited && passes && self.interims < INTERIMS {
            self.interims += 1;
            // Fails when the client is gone, which the next poll tells.
            let _ = self.respond.send_informational(convert::outgoing_response(head, Length::Unknown));
        }
    }

    fn start(&mut self, head: &ResponseHead, length: Length) {
        if self.answer != Answer::Awaited || head.status.is_informational() {
            self.answer = Answer::Failed;
            return;
        }
        let ends = length == Length::None;
        self.left = match length {
            // In HTTP/1 trailer fields follow chunks alone (RFC 9112 §7.1.2); in HTTP/2 they may follow any content.
            Length::Exactly(bytes) if head.version != Version::Http2 => Some(bytes),
            Length::None | Length::Exactly(_) | Length::Unknown => None,
        };
        match self.respond.send_response(convert::outgoing_response(head, length), ends) {
            Ok(stream) => {
                self.stream = Some(stream);
                self.answer = if ends { Answer::Ended } else { Answer::Begun };
            }
            Err(_) => self.answer = Answer::Failed,
        }
    }

    fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), ClientError>> {
        if self.failed() || self.poll_reset(cx).is_ready() {
            return Poll::Ready(Err(ClientError::Gone));
        }
        self.outbox.poll_below(cx, ROOM).map(Ok)
    }

    fn data(&mut self, data: Bytes) {
        let begun = self.answer == Answer::Begun && !data.is_empty();
        let Some(stream) = self.stream.as_mut().filter(|_| begun) else { return };
        if let Some(left) = &mut self.left {
            *left = left.saturating_sub(data.len() as u64);
        }
        // A frame of its own that says nothing but that it is the last one would cost nearly as much as this one.
        let ends = self.left == Some(0);
        if stream.send_data(self.outbox.parcel(data), ends).is_err() {
            self.answer = Answer::Failed;
        } else if ends {
            self.answer = Answer::Ended;
        }
    }

    fn end(&mut self, trailers: Option<&Fields>) {
        let Some(stream) = self.stream.as_mut().filter(|_| self.answer == Answer::Begun) else { return };
        let sent = match trailers.map(convert::outgoing_trailers).filter(|map| !map.is_empty()) {
            Some(map) => stream.send_trailers(map),
            None => stream.send_data(Parcel::end(), true),
        };
        self.answer = if sent.is_ok() { Answer::Ended } else { Answer::Failed };
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), ClientError>> {
        let written = self.outbox.poll_written(cx);
        if self.failed() {
            return Poll::Ready(Err(ClientError::Gone));
        }
        if written.is_pending() && self.poll_reset(cx).is_ready() {
            return Poll::Ready(Err(ClientError::Gone));
        }
        written.map(Ok)
    }

    fn backlog(&self) -> usize {
        self.outbox.queued()
    }
}

impl Drop for H2Exchange {
    fn drop(&mut self) {
        let whole = self.answer == Answer::Ended;
        if whole && self.outbox.queued() == 0 {
            // A body that was not read to its end is reset by `h2` with NO_ERROR, so that the client stops sending it
            // (RFC 9113 §8.1).
            return;
        }
        let cx = &mut Context::from_waker(Waker::noop());
        if let Poll::Ready(reset) = self.poll_reset(cx) {
            if self.stream.is_none() && reset.is_ok() {
                self.resets.fetch_add(1, Ordering::Relaxed);
            }
            return;
        }
        // An answer that is whole here and was not taken there is the client's doing.
        self.respond.send_reset(if whole { Reason::CANCEL } else { Reason::INTERNAL_ERROR });
    }
}

impl std::fmt::Debug for H2Exchange {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("H2Exchange").field("answer", &self.answer).finish_non_exhaustive()
    }
}
