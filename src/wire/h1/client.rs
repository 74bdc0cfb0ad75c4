//! The router's side of a connection to a pod.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::{Method, StatusCode};
use tokio::io::{AsyncRead, AsyncWrite};

use super::buffers::{Input, Output, Read, Reading, Writing};
use super::{framing, length};
use crate::wire::{
    Fields, Length, Link, Piece, Refused, RequestHead, ResponseHead, Upstream, UpstreamError, parse,
};

/// How many interim answers a request may get: who sends more is not answering.
const INTERIM: u8 = 16;

/// A connection to a pod that speaks HTTP/1; one exchange at a time.
#[derive(Debug)]
pub struct H1Client<IO> {
    io: IO,
    input: Input,
    output: Output,
    reading: Reading,
    writing: Writing,
    state: State,
    /// Has nothing but room for the head of the next answer.
    room: ResponseHead,
}

/// What is known of the exchange that runs.
#[derive(Debug, Default)]
struct State {
    method: Method,
    /// A byte of the request was written.
    written: bool,
    /// The final head has come.
    answered: bool,
    /// Nothing can be written any more. What the pod said before may still be read.
    mute: bool,
    /// What the client asked to speak from here on; empty for nothing.
    asked: String,
    upgraded: bool,
    /// The request's end is to be told by closing this half.
    shut: bool,
    interim: u8,
    /// The connection ends after this exchange.
    close: bool,
}

impl<IO: AsyncRead + AsyncWrite + Unpin + Send> H1Client<IO> {
    /// A new connection.
    #[must_use]
    pub fn new(io: IO) -> Self {
        Self {
            io,
            input: Input::default(),
            output: Output::default(),
            reading: Reading::Ended,
            writing: Writing::Ended,
            state: State::default(),
            room: ResponseHead::default(),
        }
    }

    /// Whether it may serve another exchange: both messages have ended where they should, and nothing else came.
    pub fn rest(&mut self) -> bool {
        let whole = self.state.answered && self.reading.has_ended() && self.writing == Writing::Ended;
        let clean = self.output.is_empty() && self.input.bytes.is_empty();
        let fit = whole && clean && !self.state.close && !self.state.mute && !self.state.upgraded;
        if fit {
            self.input.rest();
        }
        fit
    }

    /// A head to read an answer into: with the memory of one that was given back.
    pub fn room_for_head(&mut self) -> ResponseHead {
        std::mem::take(&mut self.room)
    }

    /// Takes a head back that nobody needs any more.
    pub fn keep_room(&mut self, mut head: ResponseHead) {
        head.clear();
        self.room = head;
    }

    /// Whether an idle connection is still good: the pod has neither closed it nor said anything, as far as is known. Whoever
    /// waited for it before is not woken by it any more.
    pub fn is_quiet(&mut self) -> bool {
        let mut cx = Context::from_waker(std::task::Waker::noop());
        self.input.bytes.is_empty() && self.input.poll_fill(&mut self.io, &mut cx).is_pending()
    }

    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        self.input.poll_fill(&mut self.io, cx)
    }

    /// Why the connection's end before the answer's head is a failure.
    fn ended_early(&self) -> UpstreamError {
        if !self.input.bytes.is_empty() || self.state.interim > 0 {
            UpstreamError::Broken
        } else if self.state.written {
            UpstreamError::NoAnswer
        } else {
            UpstreamError::NotTaken
        }
    }
}

impl H1Client<Link> {
    /// The same, for who is about to use it: what the last one waited for ends with that.
    pub fn seems_quiet(&mut self) -> bool {
        self.input.bytes.is_empty() && self.io.is_quiet()
    }
}

impl<IO: AsyncRead + AsyncWrite + Unpin + Send> Upstream for H1Client<IO> {
    fn start(&mut self, head: &RequestHead, length: Length) {
        let framing = framing(length);
        self.state = State { method: head.method.clone(), asked: head.upgrade.clone(), ..State::default() };
        self.reading = Reading::Ended;
        self.writing = Writing::of(framing);
        self.output.write(|out| parse::write_request(head, framing, out));
    }

    fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), UpstreamError>> {
        if !self.output.has_room() {
            ready!(self.poll_flush(cx))?;
        }
        Poll::Ready(Ok(()))
    }

    fn data(&mut self, data: Bytes) {
        if !self.state.mute {
            self.writing.data(data, &mut self.output);
        }
    }

    fn end(&mut self, trailers: Option<&Fields>) {
        self.state.shut = self.state.upgraded;
        // A body that is shorter than it said: the pod waits for the rest, and must not take the next request for it.
        self.state.close |= !self.writing.end(trailers, &mut self.output);
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), UpstreamError>> {
        let state = &mut self.state;
        if ready!(self.output.poll_write(&mut self.io, cx, |_| state.written = true)).is_err() {
            // The pod may have answered before it closed: reading tells.
            self.state.mute = true;
            self.output.clear();
        } else if self.state.shut {
            // Who does not hear it hears the end of the connection.
            let _ = ready!(Pin::new(&mut self.io).poll_shutdown(cx));
            self.state.shut = false;
        }
        Poll::Ready(Ok(()))
    }

    fn backlog(&self) -> usize {
        self.output.backlog()
    }

    fn poll_head(
        &mut self,
        cx: &mut Context<'_>,
        head: &mut ResponseHead,
    ) -> Poll<Result<Length, UpstreamError>> {
        loop {
            if !self.input.bytes.is_empty() {
                head.fields.clear();
                head.upgrade.clear();
                let parsed = parse::response(&self.input.bytes, &self.state.method, &self.state.asked, head)
                    .map_err(UpstreamError::Protocol)?;
                if let Some(parsed) = parsed {
                    bytes::Buf::advance(&mut self.input.bytes, parsed.consumed);
                    if head.is_interim() {
                        self.state.interim += 1;
                        if self.state.interim > INTERIM {
                            return Poll::Ready(Err(UpstreamError::Protocol(Refused::bad(
                                "too many interim answers",
                            ))));
                        }
                        return Poll::Ready(Ok(Length::None));
                    }
                    self.state.answered = true;
                    self.state.close |= parsed.close;
                    if head.status == StatusCode::SWITCHING_PROTOCOLS {
                        self.state.upgraded = true;
                        self.reading = Reading::UntilClose;
                        self.writing = Writing::UntilClose;
                        return Poll::Ready(Ok(Length::Unknown));
                    }
                    self.reading = Reading::of(parsed.framing);
                    return Poll::Ready(Ok(length(parsed.framing)));
                }
            }
            match ready!(self.poll_fill(cx)) {
                Ok(0) | Err(_) => return Poll::Ready(Err(self.ended_early())),
                Ok(_) => {}
            }
        }
    }

    fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Piece>, UpstreamError>> {
        loop {
            match self.reading.next(&mut self.input) {
                Ok(Read::Piece(piece)) => return Poll::Ready(Ok(Some(piece))),
                Ok(Read::End) => return Poll::Ready(Ok(None)),
                Ok(Read::More) => {}
                Err(refused) => return Poll::Ready(Err(UpstreamError::Protocol(refused))),
            }
            match ready!(self.poll_fill(cx)) {
                Ok(0) if matches!(self.reading, Reading::UntilClose) => {
                    self.reading = Reading::Ended;
                    return Poll::Ready(Ok(None));
                }
                Ok(0) | Err(_) => return Poll::Ready(Err(UpstreamError::Broken)),
                Ok(_) => {}
            }
        }
    }
}
