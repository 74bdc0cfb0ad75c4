//! Connections to pods that speak HTTP/2.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use futures::task::AtomicWaker;
use h2::client::{Builder, Connection, SendRequest};
use http::uri::Scheme;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::Notify;

use super::lifeline::{Keepalive, Pulse, Rhythm, Watched};
use super::outbox::Parcel;
use super::request::H2Request;

/// How much of one answer a pod may send ahead. Within a cluster, at a millisecond of round trip, that is 125 MiB/s.
const STREAM_WINDOW: u32 = 128 * 1024;
/// How many requests one connection carries at most, whatever the pod allows: the window of the connection is that of all of
/// them together, so that no client that takes its answer slowly holds up another one's.
const STREAMS: usize = 128;
/// A silent pod is asked whether it is there. Servers of gRPC count pings that come more often than every five minutes, and
/// close the connection after a few of them: so the first comes soon, and others seldom.
const RHYTHM: Rhythm =
    Rhythm { after: Duration::from_secs(30), wait: Duration::from_secs(20), gap: Duration::from_secs(305) };

/// What a connection to a pod is like.
#[derive(Clone, Debug)]
pub struct H2Settings {
    /// `:scheme` of its requests: https where TLS is spoken to the pod.
    pub scheme: Scheme,
    /// The most that the fields of an answer may have, in bytes, 32 for each field counted in.
    pub header_bytes: u32,
    /// How long the pod may take nothing of what is sent to it.
    pub write_timeout: Duration,
}

impl Default for H2Settings {
    fn default() -> Self {
        Self { scheme: Scheme::HTTP, header_bytes: 128 * 1024, write_timeout: Duration::from_secs(60) }
    }
}

/// A connection to a pod, for many requests at once.
pub struct H2Connection {
    shared: Arc<Shared>,
}

/// What a connection, its requests and its driver share.
pub(super) struct Shared {
    /// Nothing once the connection is to end.
    sender: ArcSwapOption<SendRequest<Parcel>>,
    pub(super) pulse: Arc<Pulse>,
    pub(super) scheme: Scheme,
    /// How many requests there are.
    open: AtomicUsize,
    /// How many the pod allows.
    most: AtomicUsize,
    /// The connection takes no more requests: told so, gone, or told by the pod (GOAWAY).
    closing: AtomicBool,
    driver: AtomicWaker,
    /// Told when a request ends, and when the pod changes its mind.
    news: Notify,
}

impl H2Connection {
    /// Begins HTTP/2 on a connection, and waits for the pod's SETTINGS: a pod that does not speak HTTP/2 is found out before
    /// a request was sent to it. The future that comes with the connection drives it, and has to be spawned; it ends when
    /// the connection does. Whoever calls bounds how long this may take.
    ///
    /// # Errors
    /// When the connection breaks, or the pod does not speak HTTP/2.
    pub async fn handshake<IO>(
        io: IO,
        settings: &H2Settings,
    ) -> io::Result<(Self, impl Future<Output = ()> + Send + 'static)>
    where
        IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        Self::handshake_with(io, settings, RHYTHM).await
    }

    pub(super) async fn handshake_with<IO>(
        io: IO,
        settings: &H2Settings,
        rhythm: Rhythm,
    ) -> io::Result<(Self, impl Future<Output = ()> + Send + 'static)>
    where
        IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (io, pulse) = Watched::new(io, settings.write_timeout);
        let (sender, mut connection) = builder(settings).handshake(io).await.map_err(not_http2)?;
        let pings = connection.ping_pong();
        // No request may be open before the pod has said how many: that it has said so is its SETTINGS.
        std::future::poll_fn(|cx| match Pin::new(&mut connection).poll(cx) {
            _ if connection.max_concurrent_send_streams() > 0 => Poll::Ready(Ok(())),
            Poll::Ready(Err(error)) => Poll::Ready(Err(not_http2(error))),
            Poll::Ready(Ok(())) => Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into())),
            Poll::Pending => Poll::Pending,
        })
        .await?;
        let shared = Arc::new(Shared {
            sender: ArcSwapOption::from_pointee(sender.clone()),
            pulse: Arc::clone(&pulse),
            scheme: settings.scheme.clone(),
            open: AtomicUsize::new(0),
            most: AtomicUsize::new(connection.max_concurrent_send_streams().min(STREAMS)),
            closing: AtomicBool::new(false),
            driver: AtomicWaker::new(),
            news: Notify::new(),
        });
        let keepalive = Keepalive::new(pings, pulse, rhythm);
        let driver = Driver { connection, keepalive, probe: Some(sender), shared: Arc::clone(&shared) };
        Ok((Self { shared }, driver))
    }

    /// Whether it takes requests at all. A pod that is about to leave has often said so (GOAWAY).
    #[must_use]
    pub fn is_usable(&self) -> bool {
        !self.shared.closing.load(Ordering::SeqCst)
    }

    /// Whether it takes another request now: the pod says how many there may be at once.
    #[must_use]
    pub fn has_room(&self) -> bool {
        self.is_usable() && self.shared.open.load(Ordering::SeqCst) < self.shared.most.load(Ordering::SeqCst)
    }

    /// How many requests there are.
    #[must_use]
    pub fn open(&self) -> usize {
        self.shared.open.load(Ordering::SeqCst)
    }

    /// Waits until there is room for a request; false when there never will be.
    pub async fn ready(&self) -> bool {
        loop {
            let mut news = std::pin::pin!(self.shared.news.notified());
            news.as_mut().enable();
            if self.has_room() {
                return true;
            }
            if !self.is_usable() {
                return false;
            }
            news.await;
        }
    }

    /// A place for a request; nothing when there is no room.
    #[must_use]
    pub fn request(&self) -> Option<H2Request> {
        let place = Place::take(&self.shared)?;
        let sender = self.shared.sender.load();
        let sender = SendRequest::clone(sender.as_deref()?);
        Some(H2Request::new(place, sender))
    }

    /// Takes no more requests, and ends the connection after the last one.
    pub fn close_when_idle(&self) {
        self.shared.close();
    }
}

impl Drop for H2Connection {
    fn drop(&mut self) {
        self.shared.close();
    }
}

impl std::fmt::Debug for H2Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("H2Connection")
            .field("open", &self.open())
            .field("usable", &self.is_usable())
            .finish_non_exhaustive()
    }
}

impl Shared {
    fn close(&self) {
        self.closing.store(true, Ordering::SeqCst);
        self.sender.store(None);
        self.driver.wake();
        self.news.notify_waiters();
    }
}

/// A request's place on a connection.
pub(super) struct Place(Arc<Shared>);

impl Place {
    fn take(shared: &Arc<Shared>) -> Option<Self> {
        let before = shared.open.fetch_add(1, Ordering::SeqCst);
        // Counted first: a connection that is told to end meanwhile either sees this request, or is seen to end here.
        let place = Self(Arc::clone(shared));
        let fits = before < shared.most.load(Ordering::SeqCst);
        (fits && !shared.closing.load(Ordering::SeqCst)).then_some(place)
    }

    pub(super) fn shared(&self) -> &Shared {
        &self.0
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let before = self.0.open.fetch_sub(1, Ordering::SeqCst);
        if before == 1 && self.0.closing.load(Ordering::SeqCst) {
            self.0.driver.wake();
        }
        self.0.news.notify_one();
    }
}

fn builder(settings: &H2Settings) -> Builder {
    let mut builder = Builder::new();
    builder
        .enable_push(false)
        .initial_max_send_streams(0)
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(STREAM_WINDOW * STREAMS as u32)
        .max_header_list_size(settings.header_bytes);
    builder
}

fn not_http2(error: h2::Error) -> io::Error {
    if !error.is_io() {
        return io::Error::new(io::ErrorKind::InvalidData, format!("the pod does not speak HTTP/2: {error}"));
    }
    error.into_io().unwrap_or_else(|| io::ErrorKind::Other.into())
}

/// Drives a connection to its end.
struct Driver<IO: AsyncRead + AsyncWrite + Unpin> {
    connection: Connection<Watched<IO>, Parcel>,
    keepalive: Keepalive,
    /// Keeps the connection open while there is no request, and knows whether it takes one.
    probe: Option<SendRequest<Parcel>>,
    shared: Arc<Shared>,
}

impl<IO: AsyncRead + AsyncWrite + Unpin> Driver<IO> {
    /// Hears what the pod says of further requests. True when it was just now that there are to be none (GOAWAY).
    fn listen(&mut self) -> bool {
        let most = self.connection.max_concurrent_send_streams().min(STREAMS);
        if self.shared.most.swap(most, Ordering::SeqCst) < most {
            self.shared.news.notify_waiters();
        }
        let cx = &mut Context::from_waker(Waker::noop());
        let probe = self.probe.as_mut().filter(|_| !self.shared.closing.load(Ordering::SeqCst));
        let told = probe.is_some_and(|probe| matches!(probe.poll_ready(cx), Poll::Ready(Err(_))));
        if told {
            self.shared.close();
        }
        told
    }
}

impl<IO: AsyncRead + AsyncWrite + Unpin> Future for Driver<IO> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        this.shared.driver.register(cx.waker());
        loop {
            if this.shared.closing.load(Ordering::SeqCst) && this.shared.open.load(Ordering::SeqCst) == 0 {
                // Without anybody who could send a request, `h2` says GOAWAY and closes.
                this.probe = None;
            }
            if Pin::new(&mut this.connection).poll(cx).is_ready() {
                return Poll::Ready(());
            }
            if !this.listen() {
                break;
            }
        }
        let open = || this.shared.open.load(Ordering::SeqCst) > 0;
        this.keepalive.poll_dead(cx, open)
    }
}

impl<IO: AsyncRead + AsyncWrite + Unpin> Drop for Driver<IO> {
    fn drop(&mut self) {
        self.shared.close();
    }
}

#[cfg(test)]
#[path = "client_tests.rs"]
mod tests;
