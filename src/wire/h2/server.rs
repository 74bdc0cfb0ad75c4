//! Connections of HTTP/2 clients.

use std::future::poll_fn;
use std::panic::AssertUnwindSafe;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use futures::future::{CatchUnwind, FutureExt as _};
use futures::stream::{FuturesUnordered, StreamExt as _};
use h2::server::{Builder, Connection, SendResponse};
use h2::{Reason, RecvStream};
use http::Request;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::Instant;

use super::bell::{Bell, Porch};
use super::exchange::H2Exchange;
use super::gather::Gathered;
use super::lifeline::{Keepalive, Rhythm, Watched};
use super::seats::{Requests, Seats};
use super::{convert, outbox::Parcel};
use crate::model::Edge;
use crate::wire::{Alarm, Glimpse, Length, Refused, RequestHead};

/// How much of one request's body a client may send ahead. At 20 ms of round trip that is 12 MiB/s.
const STREAM_WINDOW: u32 = 256 * 1024;
/// How much of all bodies together: no connection costs more than that, whatever its client does. One client's slow upload
/// may hold up its others; they are of the same client.
const CONNECTION_WINDOW: u32 = 1024 * 1024;
/// So many requests that were reset before they were answered are nothing to wonder at: a browser that leaves a page.
const RESETS: u32 = 200;
/// How often in a row the connection and its requests are polled: taken in, answered, queued. What is left waits for the next
/// turn, so that other connections come to theirs.
const ROUNDS: usize = 3;
/// How long after the last request nothing is kept any more for the next ones.
const SPARE: Duration = Duration::from_secs(1);
/// How long a client without a request has to close a connection that it was told to.
const GOODBYE: Duration = Duration::from_secs(5);
/// A client that is silent while it waits for an answer is asked whether it is there.
const RHYTHM: Rhythm =
    Rhythm { after: Duration::from_secs(30), wait: Duration::from_secs(20), gap: Duration::from_secs(30) };

/// A request; or why it is refused, and what is known of it all the same.
pub type Asked = Result<(RequestHead, Length), (Refused, Glimpse)>;

/// Serves HTTP/2 on a connection (prior knowledge or ALPN) until it ends. Each request, or why it is refused, is given with
/// the exchange to answer it in to one of the futures that `handle` makes: as many as there are requests at the same time.
/// They are polled within this future, so that answers that are ready at the same time are written together; one that panics
/// takes no other one with it. Dropping the future ends them all.
///
/// When `shutdown` is ready, the client is told to go elsewhere (GOAWAY), what is under way is finished, and the connection
/// ends; whoever calls bounds how long that may take.
pub async fn serve<IO, F, Fut>(io: IO, edge: &Edge, shutdown: impl Future<Output = ()>, handle: F)
where
    IO: AsyncRead + AsyncWrite + Unpin,
    F: Fn(Requests) -> Fut,
    Fut: Future<Output = ()>,
{
    serve_with(io, edge, RHYTHM, shutdown, handle).await;
}

async fn serve_with<IO, F, Fut>(
    io: IO,
    edge: &Edge,
    rhythm: Rhythm,
    shutdown: impl Future<Output = ()>,
    handle: F,
) where
    IO: AsyncRead + AsyncWrite + Unpin,
    F: Fn(Requests) -> Fut,
    Fut: Future<Output = ()>,
{
    let (io, pulse) = Watched::new(io, edge.write_timeout);
    let io = Gathered::new(io);
    let line = io.share();
    // A client that does not begin is not answered: there is nothing that it would understand.
    let handshake = tokio::time::timeout(edge.header_timeout, builder(edge).handshake(io)).await;
    let Ok(Ok(mut connection)) = handshake else { return };
    line.gather();
    let keepalive = Keepalive::new(connection.ping_pong(), pulse, rhythm);
    let session = Session {
        connection,
        line,
        keepalive,
        edge,
        handle,
        streams: FuturesUnordered::new(),
        seats: Arc::default(),
        bells: Bells::new(),
        accepted: 0,
        resets: Arc::default(),
        quiet_since: Some(Instant::now()),
        leaving: false,
    };
    session.run(shutdown).await;
}

/// `h2`'s defaults, which hold its limits against hostile clients, with the windows of this router and the listener's limits.
fn builder(edge: &Edge) -> Builder {
    let mut builder = Builder::new();
    // What is over the listener's own limits is answered by the router, with its reason; this is for what is far over them.
    // Each field counts for 32 bytes more than it has (RFC 9113 §6.5.2).
    let list = edge.header_bytes + edge.request_line + 32 * edge.header_count;
    builder
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_concurrent_streams(edge.streams)
        .max_header_list_size(u32::try_from(list).unwrap_or(u32::MAX));
    builder
}

/// A connection with its requests.
struct Session<'a, IO, F, Fut> {
    connection: Connection<Gathered<Watched<IO>>, Parcel>,
    /// The same connection, to be written out.
    line: Gathered<Watched<IO>>,
    keepalive: Keepalive,
    edge: &'a Edge,
    handle: F,
    streams: FuturesUnordered<CatchUnwind<AssertUnwindSafe<Fut>>>,
    /// Those of them that are at rest.
    seats: Arc<Seats>,
    bells: Bells,
    accepted: u32,
    resets: Arc<AtomicU32>,
    /// Since when there has been no request; nothing while there is one.
    quiet_since: Option<Instant>,
    /// The client was told to go.
    leaving: bool,
}

/// What a session's task is woken for.
struct Bells {
    porch: Arc<Porch>,
    connection: Part,
    streams: Part,
    shutdown: Part,
}

/// A part of the task: whether it is to be polled, and the waker that it is polled with.
struct Part {
    bell: Arc<Bell>,
    waker: Waker,
}

impl Bells {
    fn new() -> Self {
        let porch = Arc::default();
        let part = || {
            let bell = Bell::new(&porch);
            Part { waker: Waker::from(Arc::clone(&bell)), bell }
        };
        Self { connection: part(), streams: part(), shutdown: part(), porch }
    }

    fn have_rung(&self) -> bool {
        [&self.connection, &self.streams, &self.shutdown].iter().any(|part| part.bell.has_rung())
    }
}

impl Part {
    fn context(&self) -> Context<'_> {
        Context::from_waker(&self.waker)
    }
}

/// The connection is over.
struct Over;

impl<IO, F, Fut> Session<'_, IO, F, Fut>
where
    IO: AsyncRead + AsyncWrite + Unpin,
    F: Fn(Requests) -> Fut,
    Fut: Future<Output = ()>,
{
    async fn run(mut self, shutdown: impl Future<Output = ()>) {
        let mut shutdown = pin!(shutdown);
        let mut alarm = Alarm::new();
        poll_fn(|cx| {
            self.bells.porch.enter(cx.waker());
            let polled = self.poll(cx, shutdown.as_mut(), &mut alarm);
            self.bells.porch.leave();
            if polled.is_pending() && self.bells.have_rung() {
                cx.waker().wake_by_ref();
            }
            polled
        })
        .await;
        // What is under way hears that its client is gone, and ends by itself.
        drop((self.connection, self.line));
        self.seats.close();
        while self.streams.next().await.is_some() {}
    }

    /// Ready when the connection is over.
    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        shutdown: Pin<&mut impl Future<Output = ()>>,
        alarm: &mut Alarm,
    ) -> Poll<()> {
        let told = &self.bells.shutdown;
        if told.bell.take() && !self.leaving && shutdown.poll(&mut told.context()).is_ready() {
            self.leave();
        }
        if self.turn().is_err() || self.rest(cx, alarm).is_err() {
            return Poll::Ready(());
        }
        self.keepalive.poll_dead(cx, || self.connection.has_streams())
    }

    /// Takes requests, has them answered, and writes out what they queued.
    fn turn(&mut self) -> Result<(), Over> {
        // What a slow client has left is written first: a task that has used up its time would not come to it.
        if self.line.waits() {
            self.write_out()?;
        }
        for _ in 0..ROUNDS {
            if self.bells.connection.bell.take() {
                self.take_requests()?;
            }
            if !self.bells.streams.bell.take() {
                break;
            }
            self.answer();
        }
        self.write_out()
    }

    /// Drives the connection, and takes the requests that there is room for.
    fn take_requests(&mut self) -> Result<(), Over> {
        loop {
            let cx = &mut self.bells.connection.context();
            // A client that resets its requests may open others at once while the work for the first ones still ends: the
            // room is for tasks, not for open streams. Those that are not taken count against `h2`'s limit of such.
            let polled = if self.has_room() {
                self.connection.poll_accept(cx)
            } else {
                self.connection.poll_closed(cx).map(|_| None)
            };
            match polled {
                Poll::Ready(Some(Ok((request, respond)))) => self.begin(request, respond),
                Poll::Ready(Some(Err(_)) | None) => return Err(Over),
                Poll::Pending => return Ok(()),
            }
        }
    }

    fn has_room(&self) -> bool {
        self.at_work() < self.edge.streams as usize
    }

    /// How many requests there are.
    fn at_work(&self) -> usize {
        self.streams.len().saturating_sub(self.seats.resting())
    }

    /// Polls those requests that something has happened for.
    fn answer(&mut self) {
        let had_room = self.has_room();
        while let Poll::Ready(Some(_)) = self.streams.poll_next_unpin(&mut self.bells.streams.context()) {}
        self.judge();
        if !had_room && self.has_room() {
            self.bells.connection.bell.ring();
        }
    }

    fn write_out(&mut self) -> Result<(), Over> {
        match self.line.poll_out(&mut self.bells.connection.context()) {
            Poll::Ready(Err(_)) => Err(Over),
            Poll::Ready(Ok(())) | Poll::Pending => Ok(()),
        }
    }

    /// Ends a connection that has been without a request for too long.
    fn rest(&mut self, cx: &mut Context<'_>, alarm: &mut Alarm) -> Result<(), Over> {
        let Some(since) = self.quiet_since else { return Ok(()) };
        let patience =
            if self.leaving { GOODBYE.min(self.edge.idle_timeout) } else { self.edge.idle_timeout };
        let spares = self.seats.resting() > 0;
        alarm.set(Some(since + if spares { SPARE.min(patience) } else { patience }));
        if alarm.poll(cx).is_pending() {
            return Ok(());
        }
        // To be set anew.
        cx.waker().wake_by_ref();
        if spares {
            self.seats.clear();
            return Ok(());
        }
        // A stream whose request has ended may still be on its way out.
        let busy = self.connection.has_streams() || self.line.waits();
        if self.leaving && !busy {
            return Err(Over);
        }
        if !busy {
            self.leave();
        }
        self.quiet_since = Some(Instant::now());
        Ok(())
    }

    /// Gives a request to its handler.
    fn begin(&mut self, request: Request<RecvStream>, respond: SendResponse<Parcel>) {
        let (parts, body) = request.into_parts();
        let resets = Arc::clone(&self.resets);
        let (mut exchange, length) = H2Exchange::accept(&parts.headers, body, respond, self.edge, resets);
        let head = convert::request_head(&parts, self.edge).map(|mut head| {
            // Without a body there is nothing to wait for.
            head.expects_continue &= length != Length::None;
            if head.expects_continue {
                exchange.await_continue();
            }
            (head, length)
        });
        let head = head.map_err(|refused| (refused, convert::glimpse(&parts, self.edge)));
        self.accepted = self.accepted.saturating_add(1);
        self.quiet_since = None;
        if let Some(requests) = self.seats.give((head, exchange)) {
            self.streams.push(AssertUnwindSafe((self.handle)(requests)).catch_unwind());
            self.bells.streams.bell.ring();
        }
    }

    /// After requests: is this a client that opens streams only to reset them, each of which costs it nothing and the pods a
    /// request? Then it has to go.
    fn judge(&mut self) {
        if self.at_work() == 0 && self.quiet_since.is_none() {
            self.quiet_since = Some(Instant::now());
        }
        let resets = self.resets.load(Ordering::Relaxed);
        if resets > RESETS && resets > self.accepted / 2 {
            self.connection.abrupt_shutdown(Reason::ENHANCE_YOUR_CALM);
            self.bells.connection.bell.ring();
        }
    }

    fn leave(&mut self) {
        self.leaving = true;
        self.connection.graceful_shutdown();
        self.bells.connection.bell.ring();
    }
}

#[cfg(test)]
#[path = "server_tests.rs"]
mod tests;
