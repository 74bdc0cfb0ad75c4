//! Connections of HTTP/2 clients.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use h2::server::{Builder, Connection, SendResponse};
use h2::{Reason, RecvStream};
use http::Request;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::exchange::H2Exchange;
use super::lifeline::{Keepalive, Rhythm, Watched};
use super::{convert, outbox::Parcel};
use crate::model::Edge;
use crate::wire::{Glimpse, Length, Refused, RequestHead};

/// How much of one request's body a client may send ahead. At 20 ms of round trip that is 12 MiB/s.
const STREAM_WINDOW: u32 = 256 * 1024;
/// How much of all bodies together: no connection costs more than that, whatever its client does. One client's slow upload
/// may hold up its others; they are of the same client.
const CONNECTION_WINDOW: u32 = 1024 * 1024;
/// So many requests that were reset before they were answered are nothing to wonder at: a browser that leaves a page.
const RESETS: u32 = 200;
/// How long a client without a request has to close a connection that it was told to.
const GOODBYE: Duration = Duration::from_secs(5);
/// A client that is silent while it waits for an answer is asked whether it is there.
const RHYTHM: Rhythm =
    Rhythm { after: Duration::from_secs(30), wait: Duration::from_secs(20), gap: Duration::from_secs(30) };

/// A request; or why it is refused, and what is known of it all the same.
pub type Asked = Result<(RequestHead, Length), (Refused, Glimpse)>;

/// Serves HTTP/2 on a connection (prior knowledge or ALPN) until it ends. Each request, or why it is refused, is given to
/// `handle` with the exchange to answer it in, on a task of its own; dropping the future ends them all.
///
/// When `shutdown` is ready, the client is told to go elsewhere (GOAWAY), what is under way is finished, and the connection
/// ends; whoever calls bounds how long that may take.
pub async fn serve<IO, F, Fut>(io: IO, edge: &Edge, shutdown: impl Future<Output = ()>, handle: F)
where
    IO: AsyncRead + AsyncWrite + Unpin,
    F: Fn(Asked, H2Exchange) -> Fut,
    Fut: Future<Output = ()> + Send + 'static,
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
    F: Fn(Asked, H2Exchange) -> Fut,
    Fut: Future<Output = ()> + Send + 'static,
{
    let (io, pulse) = Watched::new(io, edge.write_timeout);
    // A client that does not begin is not answered: there is nothing that it would understand.
    let handshake = tokio::time::timeout(edge.header_timeout, builder(edge).handshake(io)).await;
    let Ok(Ok(mut connection)) = handshake else { return };
    let keepalive = Keepalive::new(connection.ping_pong(), pulse, rhythm);
    let session = Session {
        connection,
        keepalive,
        edge,
        handle,
        tasks: JoinSet::new(),
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
struct Session<'a, IO, F> {
    connection: Connection<Watched<IO>, Parcel>,
    keepalive: Keepalive,
    edge: &'a Edge,
    handle: F,
    tasks: JoinSet<()>,
    accepted: u32,
    resets: Arc<AtomicU32>,
    /// Since when there has been no request; nothing while there is one.
    quiet_since: Option<Instant>,
    /// The client was told to go.
    leaving: bool,
}

/// A request as `h2` has it; nothing when the connection is over, or its client silent for good.
type Accepted = Option<(Request<RecvStream>, SendResponse<Parcel>)>;

impl<IO, F, Fut> Session<'_, IO, F>
where
    IO: AsyncRead + AsyncWrite + Unpin,
    F: Fn(Asked, H2Exchange) -> Fut,
    Fut: Future<Output = ()> + Send + 'static,
{
    async fn run(mut self, shutdown: impl Future<Output = ()>) {
        let mut shutdown = pin!(shutdown);
        let mut alarm = pin!(tokio::time::sleep(self.edge.idle_timeout));
        loop {
            if let Some(due) = self.due()
                && due != alarm.deadline()
            {
                alarm.as_mut().reset(due);
            }
            let quiet = self.quiet_since.is_some();
            // A client that resets its requests may open others at once while the work for the first ones still ends: the
            // room is for tasks, not for open streams. Those that are not taken count against `h2`'s limit of such.
            let room = self.tasks.len() < self.edge.streams as usize;
            tokio::select! {
                accepted = poll_fn(|cx| poll(&mut self.connection, &mut self.keepalive, room, cx)) => match accepted {
                    Some((request, respond)) => self.begin(request, respond),
                    None => break,
                },
                _ = self.tasks.join_next(), if !self.tasks.is_empty() => self.judge(),
                () = &mut shutdown, if !self.leaving => self.leave(),
                () = &mut alarm, if quiet => {
                    // A stream whose request has ended may still be on its way out.
                    let busy = self.connection.has_streams();
                    if self.leaving && !busy {
                        break;
                    }
                    if !busy {
                        self.leave();
                    }
                    self.quiet_since = Some(Instant::now());
                }
            }
        }
        // What is under way hears that its client is gone, and ends by itself.
        drop(self.connection);
        while self.tasks.join_next().await.is_some() {}
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
        self.tasks.spawn((self.handle)(head, exchange));
    }

    /// After a request: is this a client that opens streams only to reset them, each of which costs it nothing and the pods a
    /// request? Then it has to go.
    fn judge(&mut self) {
        if self.tasks.is_empty() {
            self.quiet_since = Some(Instant::now());
        }
        let resets = self.resets.load(Ordering::Relaxed);
        if resets > RESETS && resets > self.accepted / 2 {
            self.connection.abrupt_shutdown(Reason::ENHANCE_YOUR_CALM);
        }
    }

    fn leave(&mut self) {
        self.leaving = true;
        self.connection.graceful_shutdown();
    }

    /// When a quiet connection has been quiet for too long.
    fn due(&self) -> Option<Instant> {
        let patience =
            if self.leaving { GOODBYE.min(self.edge.idle_timeout) } else { self.edge.idle_timeout };
        self.quiet_since.map(|since| since + patience)
    }
}

/// Drives a connection, and takes a request where there is room for one.
fn poll<IO: AsyncRead + AsyncWrite + Unpin>(
    connection: &mut Connection<Watched<IO>, Parcel>,
    keepalive: &mut Keepalive,
    room: bool,
    cx: &mut Context<'_>,
) -> Poll<Accepted> {
    let polled = if room { connection.poll_accept(cx) } else { connection.poll_closed(cx).map(|_| None) };
    match polled {
        Poll::Ready(Some(Ok(accepted))) => Poll::Ready(Some(accepted)),
        Poll::Ready(Some(Err(_)) | None) => Poll::Ready(None),
        Poll::Pending => keepalive.poll_dead(cx, || connection.has_streams()).map(|()| None),
    }
}

#[cfg(test)]
#[path = "server_tests.rs"]
mod tests;
