//! Whether the peer of a connection is still there: writes that go on, and pings when it is silent.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use h2::{Ping, PingPong};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};

/// What passed on a connection.
#[derive(Debug, Default)]
pub(super) struct Pulse {
    heard: AtomicBool,
    written: AtomicU64,
}

impl Pulse {
    /// Whether something came since this was last asked.
    fn take_heard(&self) -> bool {
        self.heard.swap(false, Ordering::AcqRel)
    }

    /// How many bytes the system has taken to be sent so far.
    pub(super) fn written(&self) -> u64 {
        self.written.load(Ordering::Acquire)
    }
}

/// A connection that fails when its peer takes nothing for too long, and keeps a [`Pulse`].
pub(super) struct Watched<IO> {
    io: IO,
    pulse: Arc<Pulse>,
    patience: Duration,
    /// Runs while a write waits; kept, so that it is allocated once at most.
    stuck: Option<Pin<Box<Sleep>>>,
    waits: bool,
}

impl<IO> Watched<IO> {
    /// Watches over `io`, whose peer may take nothing for `patience`.
    pub(super) fn new(io: IO, patience: Duration) -> (Self, Arc<Pulse>) {
        let pulse = Arc::<Pulse>::default();
        (Self { io, pulse: Arc::clone(&pulse), patience, stuck: None, waits: false }, pulse)
    }

    /// Bounds how long writes may wait one after the other.
    fn bound<T>(&mut self, cx: &mut Context<'_>, polled: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if polled.is_ready() {
            self.waits = false;
            return polled;
        }
        let until = Instant::now() + self.patience;
        let stuck = self.stuck.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(until)));
        if !self.waits {
            self.waits = true;
            stuck.as_mut().reset(until);
        }
        ready!(stuck.as_mut().poll(cx));
        let what = "the peer took nothing of what was sent to it for too long";
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, what)))
    }

    fn count(&self, polled: &Poll<io::Result<usize>>) {
        if let Poll::Ready(Ok(bytes)) = polled {
            self.pulse.written.fetch_add(*bytes as u64, Ordering::AcqRel);
        }
    }
}

impl<IO: AsyncRead + Unpin> AsyncRead for Watched<IO> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let polled = Pin::new(&mut self.io).poll_read(cx, buf);
        if buf.filled().len() > before {
            self.pulse.heard.store(true, Ordering::Release);
        }
        polled
    }
}

impl<IO: AsyncWrite + Unpin> AsyncWrite for Watched<IO> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.io).poll_write(cx, buf);
        self.count(&polled);
        self.bound(cx, polled)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.io).poll_write_vectored(cx, bufs);
        self.count(&polled);
        self.bound(cx, polled)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.io).poll_flush(cx);
        self.bound(cx, polled)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.io).poll_shutdown(cx);
        self.bound(cx, polled)
    }
}

/// When a silent peer is asked whether it is there.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rhythm {
    /// After so much silence.
    pub(super) after: Duration,
    /// How long it has for an answer.
    pub(super) wait: Duration,
    /// How much later it may be asked again, at the earliest.
    pub(super) gap: Duration,
}

/// Asks a silent peer whether it is there.
pub(super) struct Keepalive {
    pings: Option<PingPong>,
    pulse: Arc<Pulse>,
    rhythm: Rhythm,
    timer: Pin<Box<Sleep>>,
    asked: bool,
    last: Option<Instant>,
}

impl Keepalive {
    /// Of a connection with this pulse; `pings` are `h2`'s.
    pub(super) fn new(pings: Option<PingPong>, pulse: Arc<Pulse>, rhythm: Rhythm) -> Self {
        let timer = Box::pin(tokio::time::sleep(rhythm.after));
        Self { pings, pulse, rhythm, timer, asked: false, last: None }
    }

    /// Ready when the peer was asked and said nothing at all. A peer with `open` streams alone is asked: an idle connection
    /// owes nobody an answer.
    pub(super) fn poll_dead(&mut self, cx: &mut Context<'_>, open: impl Fn() -> bool) -> Poll<()> {
        loop {
            ready!(self.timer.as_mut().poll(cx));
            let now = Instant::now();
            let next = if self.pulse.take_heard() || !open() {
                self.asked = false;
                now + self.rhythm.after
            } else if self.asked {
                return Poll::Ready(());
            } else {
                match self.last.map(|last| last + self.rhythm.gap).filter(|next| *next > now) {
                    Some(next) => next,
                    None => self.ask(now),
                }
            };
            self.timer.as_mut().reset(next);
        }
    }

    /// Sends a ping, and says when to look again.
    fn ask(&mut self, now: Instant) -> Instant {
        let Some(pings) = &mut self.pings else { return now + self.rhythm.after };
        // An answer to the last one is taken, or there could not be another. Whether it came is known from the pulse.
        let _ = pings.poll_pong(&mut Context::from_waker(Waker::noop()));
        if pings.send_ping(Ping::opaque()).is_err() {
            return now + self.rhythm.after;
        }
        self.asked = true;
        self.last = Some(now);
        now + self.rhythm.wait
    }
}
