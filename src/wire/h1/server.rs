//! The router's side of a connection from a client.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, StatusCode};
use tokio::io::{AsyncRead, AsyncWrite};

use super::buffers::{Input, Output, Read, Reading, Writing};
use super::{framing, length};
use crate::model::Edge;
use crate::wire::{
    ClientError, Downstream, Fields, Framing, Glimpse, Length, Piece, Refused, RequestHead, ResponseHead,
    Version, parse,
};

/// What HTTP/2 begins with (RFC 9113 §3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// How much of next requests is read while one is served: who sends more than that is noticed to be gone only by what is
/// written to it.
const EARLY: usize = 16 * 1024;
/// How much a client may still send after its last answer, until the connection is cut.
const LINGER_BYTES: usize = 1 << 20;
/// For how long.
const LINGER: Duration = Duration::from_secs(2);

/// A connection from a client that speaks HTTP/1. One exchange at a time; requests that come early wait their turn (RFC 9112
/// §9.3.2).
#[derive(Debug)]
pub struct H1Server<IO> {
    io: IO,
    edge: Arc<Edge>,
    input: Input,
    output: Output,
    reading: Reading,
    writing: Writing,
    method: Method,
    version: Version,
    /// The client waits for word before it sends the body.
    awaits_continue: bool,
    /// The connection ends after this exchange.
    close: bool,
    /// The answer was cut: what was sent must not pass for all of it.
    cut: bool,
    upgraded: bool,
    /// The end of an upgraded connection's one half is to be told by closing that half.
    shut: bool,
    /// Nothing more comes from the client.
    eof: bool,
    answered: bool,
}

/// What comes next on a connection.
#[derive(Debug)]
pub enum Next {
    /// A request, with what is known of the length of its body.
    Request(Length),
    /// Something that is no request that can be served. It must be answered, and the connection closed.
    Refused(Refused),
    /// The client speaks HTTP/2 without having said so in TLS (RFC 9113 §3.3).
    Http2,
    /// The client closed the connection.
    End,
}

impl<IO: AsyncRead + AsyncWrite + Unpin + Send> H1Server<IO> {
    /// A new connection.
    #[must_use]
    pub fn new(io: IO, edge: Arc<Edge>) -> Self {
        Self {
            io,
            edge,
            input: Input::default(),
            output: Output::default(),
            reading: Reading::Ended,
            writing: Writing::Ended,
            method: Method::GET,
            version: Version::Http11,
            awaits_continue: false,
            close: false,
            cut: false,
            upgraded: false,
            shut: false,
            eof: false,
            answered: false,
        }
    }

    /// Whether a part of a next request has come.
    #[must_use]
    pub fn has_begun(&self) -> bool {
        !self.input.bytes.is_empty()
    }

    /// Reads the next request into `head`.
    pub fn poll_next(&mut self, cx: &mut Context<'_>, head: &mut RequestHead) -> Poll<Next> {
        loop {
            let bytes = self.input.bytes.as_ref();
            if !bytes.is_empty() {
                if self.edge.http2 && !self.answered && PREFACE.starts_with(first(bytes, PREFACE.len())) {
                    if bytes.len() >= PREFACE.len() {
                        return Poll::Ready(Next::Http2);
                    }
                } else {
                    head.clear();
                    match parse::request(bytes, &self.edge, head) {
                        Ok(Some(parsed)) => return Poll::Ready(Next::Request(self.begin(parsed, head))),
                        Ok(None) => {}
                        Err(refused) => {
                            self.close = true;
                            self.method = Method::GET;
                            self.version = Version::Http11;
                            return Poll::Ready(Next::Refused(refused));
                        }
                    }
                }
            }
            match ready!(self.poll_fill(cx)) {
                Ok(0) | Err(_) => return Poll::Ready(Next::End),
                Ok(_) => {}
            }
        }
    }

    /// What is known of a request that was refused, or did not come whole.
    #[must_use]
    pub fn glimpse(&self) -> Glimpse {
        parse::glimpse(&self.input.bytes, &self.edge)
    }

    fn begin(&mut self, parsed: parse::Parsed, head: &RequestHead) -> Length {
        bytes::Buf::advance(&mut self.input.bytes, parsed.consumed);
        self.method = head.method.clone();
        self.version = head.version;
        self.close = parsed.close;
        self.reading = Reading::of(parsed.framing);
        self.awaits_continue = head.expects_continue && self.input.bytes.is_empty();
        self.answered = true;
        length(parsed.framing)
    }

    /// Whether another request may come: both messages have ended, and nobody said that the connection ends.
    pub fn rest(&mut self) -> bool {
        self.input.release();
        self.output.release();
        let whole = self.reading.has_ended() && self.writing == Writing::Ended && self.output.is_empty();
        whole && !self.close && !self.cut && !self.upgraded && !self.eof
    }

    /// The connection, with what was read ahead.
    pub fn into_parts(self) -> (IO, Bytes) {
        (self.io, self.input.bytes.freeze())
    }

    /// Whether an answer broke off that ends with the connection: the client would take a plain close for its end.
    #[must_use]
    pub fn must_reset(&self) -> bool {
        self.writing == Writing::UntilClose && !self.upgraded
    }

    /// The connection itself.
    pub fn io(&self) -> &IO {
        &self.io
    }

    /// Closes the connection so that the client gets the last answer: who closes while bytes are unread resets the
    /// connection, and the client may lose what it has not read (RFC 9112 §9.6).
    pub async fn linger(mut self) {
        let closing = async {
            tokio::io::AsyncWriteExt::shutdown(&mut self.io).await?;
            let mut left = LINGER_BYTES;
            let mut buffer = [0; 4096];
            loop {
                match tokio::io::AsyncReadExt::read(&mut self.io, &mut buffer).await? {
                    0 => return Ok::<_, io::Error>(()),
                    n if n > left => return Ok(()),
                    n => left -= n,
                }
            }
        };
        // Whatever comes of it, the connection ends here.
        let _ = tokio::time::timeout(LINGER, closing).await;
    }

    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let filled = ready!(self.input.poll_fill(&mut self.io, cx));
        if !matches!(filled, Ok(n) if n > 0) {
            self.eof = true;
        }
        Poll::Ready(filled)
    }

    /// How an answer is written to this client.
    fn answer_framing(&self, head: &ResponseHead, length: Length) -> Framing {
        if head.status == StatusCode::SWITCHING_PROTOCOLS {
            return Framing::None;
        }
        match framing(length) {
            // How long the body of a GET would be is not known: nothing is said of it.
            Framing::None if self.method == Method::HEAD && head.fields.get("Content-Length").is_none() => {
                Framing::UntilClose
            }
            // HTTP/1.0 knows no chunks.
            Framing::Chunked if self.version == Version::Http10 => Framing::UntilClose,
            framing @ (Framing::None | Framing::Length(_) | Framing::Chunked | Framing::UntilClose) => {
                framing
            }
        }
    }
}

/// As many of the first bytes as there are, at most `n`.
fn first(bytes: &[u8], n: usize) -> &[u8] {
    bytes.get(..n).unwrap_or(bytes)
}

impl<IO: AsyncRead + AsyncWrite + Unpin + Send> Downstream for H1Server<IO> {
    fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Piece>, ClientError>> {
        if std::mem::take(&mut self.awaits_continue) {
            self.output.write(|out| out.extend_from_slice(b"HTTP/1.1 100 Continue\r\n\r\n"));
        }
        loop {
            match self.reading.next(&mut self.input) {
                Ok(Read::Piece(piece)) => return Poll::Ready(Ok(Some(piece))),
                Ok(Read::End) => return Poll::Ready(Ok(None)),
                Ok(Read::More) => {}
                Err(refused) => {
                    self.close = true;
                    return Poll::Ready(Err(ClientError::Refused(refused)));
                }
            }
            // The client may wait for what is to be written before it sends more.
            if let Poll::Ready(Err(error)) = self.poll_flush(cx) {
                return Poll::Ready(Err(error));
            }
            match ready!(self.poll_fill(cx)) {
                Ok(0) if self.upgraded => {
                    self.reading = Reading::Ended;
                    return Poll::Ready(Ok(None));
                }
                Ok(0) | Err(_) => return Poll::Ready(Err(ClientError::Gone)),
                Ok(_) => {}
            }
        }
    }

    fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.upgraded {
            // Who has said all that it had to say may still listen.
            return Poll::Pending;
        }
        if self.eof {
            return Poll::Ready(());
        }
        // What comes early is kept for its turn, up to a bound; beyond that nobody looks.
        while self.input.bytes.len() < EARLY {
            match ready!(self.poll_fill(cx)) {
                Ok(0) | Err(_) => return Poll::Ready(()),
                Ok(_) => {}
            }
        }
        Poll::Pending
    }

    fn interim(&mut self, head: &ResponseHead) {
        // HTTP/1.0 has none (RFC 9110 §15.2); who waits for 100 gets it when its body is asked for.
        if self.version == Version::Http11 && head.status != StatusCode::CONTINUE {
            self.output.write(|out| parse::write_response(head, Framing::None, false, out));
        }
    }

    fn start(&mut self, head: &ResponseHead, length: Length) {
        // The client that got its answer without having been asked for its body may send it, or not: nobody can tell what
        // comes next (RFC 9110 §10.1.1).
        self.close |= std::mem::take(&mut self.awaits_continue);
        let framing = self.answer_framing(head, length);
        let bodiless = self.method == Method::HEAD;
        self.close |= framing == Framing::UntilClose && !bodiless;
        // Who answers before it has the whole body will hardly want the rest.
        self.close |= !self.reading.has_ended();
        let keep_alive = self.version == Version::Http10 && !self.close;
        self.output.use_room_of(&mut self.input);
        self.output.write(|out| {
            parse::write_response(head, framing, self.close, out);
            if keep_alive {
                out.truncate(out.len() - 2);
                out.extend_from_slice(b"Connection: keep-alive\r\n\r\n");
            }
        });
        self.writing = if bodiless { Writing::Ended } else { Writing::of(framing) };
        if head.status == StatusCode::SWITCHING_PROTOCOLS {
            self.upgraded = true;
            self.reading = Reading::UntilClose;
            self.writing = Writing::UntilClose;
        }
    }

    fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), ClientError>> {
        if !self.output.has_room() {
            ready!(self.poll_flush(cx))?;
        }
        Poll::Ready(Ok(()))
    }

    fn data(&mut self, data: Bytes) {
        self.writing.data(data, &mut self.output);
    }

    fn end(&mut self, trailers: Option<&Fields>) {
        self.shut = self.upgraded;
        self.cut |= !self.writing.end(trailers, &mut self.output);
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), ClientError>> {
        let flushed = ready!(self.output.poll_write(&mut self.io, cx, |_| {}));
        if self.shut && flushed.is_ok() {
            // Who does not hear it hears the end of the connection.
            let _ = ready!(Pin::new(&mut self.io).poll_shutdown(cx));
            self.shut = false;
        }
        Poll::Ready(flushed.map_err(|_| ClientError::Gone))
    }

    fn backlog(&self) -> usize {
        self.output.backlog()
    }

    fn close_after(&mut self) {
        self.close = true;
    }
}
