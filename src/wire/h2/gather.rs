//! Small writes of a connection put together into large ones.
//!
//! `h2` writes each DATA frame to its connection by itself, and flushes after it. With many answers under way that is a call
//! of the system for each, and with TLS a record, where one would do for all that are ready. So what `h2` writes is kept
//! here, and a flush that it asks for is left to whoever drives the connection, who knows when there is nothing more to come
//! for now ([`Gathered::poll_out`]).

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// How much is kept at most, in bytes: as much as a record of TLS holds. What is larger is not copied, but written at once,
/// together with what was kept before it.
const ROOM: usize = 16 * 1024;
/// How many pieces are written at once: what was kept, a frame's head, and its content.
const PIECES: usize = 8;

/// A connection whose small writes are gathered. Its clones are the same connection; they belong to the same task, so its
/// lock is never waited for.
pub(super) struct Gathered<IO>(Arc<Mutex<Line<IO>>>);

struct Line<IO> {
    io: IO,
    /// Nothing is kept before it is said that somebody looks after it.
    gathers: bool,
    kept: Vec<u8>,
    /// How much of it is written already.
    written: usize,
    /// Something was written since the last flush.
    unflushed: bool,
}

impl<IO> Gathered<IO> {
    /// A connection that writes through, until [`gather`](Self::gather).
    pub(super) fn new(io: IO) -> Self {
        let line = Line { io, gathers: false, kept: Vec::new(), written: 0, unflushed: false };
        Self(Arc::new(Mutex::new(line)))
    }

    /// The same connection.
    pub(super) fn share(&self) -> Self {
        Self(Arc::clone(&self.0))
    }

    /// From now on small writes are kept until [`poll_out`](Self::poll_out).
    pub(super) fn gather(&self) {
        self.line().gathers = true;
    }

    /// Whether something is kept that is still to be written.
    pub(super) fn waits(&self) -> bool {
        let line = self.line();
        line.unflushed || !line.kept.is_empty()
    }

    fn line(&self) -> MutexGuard<'_, Line<IO>> {
        // Who panicked left bytes that are whole, for nothing here can panic half-way.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<IO: AsyncWrite + Unpin> Gathered<IO> {
    /// Writes out what is kept, and flushes; ready when all of it is with the system.
    ///
    /// # Errors
    /// When the connection cannot be written to.
    pub(super) fn poll_out(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut line = self.line();
        ready!(line.poll_kept(cx))?;
        line.poll_flush(cx)
    }
}

impl<IO: AsyncWrite + Unpin> Line<IO> {
    /// Writes out what is kept.
    fn poll_kept(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while let Some(left) = self.kept.get(self.written..).filter(|left| !left.is_empty()) {
            let n = ready!(Pin::new(&mut self.io).poll_write(cx, left))?;
            self.wrote(n, n)?;
        }
        Poll::Ready(Ok(()))
    }

    /// Writes what is not kept; what is comes before it. At least a byte of it.
    fn poll_through(&mut self, cx: &mut Context<'_>, bufs: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        loop {
            let kept = self.kept.get(self.written..).unwrap_or_default();
            let before = kept.len();
            let mut pieces = [IoSlice::new(&[]); PIECES];
            let mut count = 0;
            let all =
                std::iter::once(kept).chain(bufs.iter().map(|buf| &**buf)).filter(|all| !all.is_empty());
            for (piece, bytes) in pieces.iter_mut().zip(all) {
                *piece = IoSlice::new(bytes);
                count += 1;
            }
            let pieces = pieces.get(..count).unwrap_or_default();
            let n = ready!(Pin::new(&mut self.io).poll_write_vectored(cx, pieces))?;
            self.wrote(n, n.min(before))?;
            if n > before {
                return Poll::Ready(Ok(n - before));
            }
        }
    }

    /// So much was written, and so much of it was kept before.
    fn wrote(&mut self, n: usize, kept: usize) -> io::Result<()> {
        if n == 0 {
            // To try again would be to try for ever.
            return Err(io::ErrorKind::WriteZero.into());
        }
        self.written += kept;
        self.unflushed = true;
        if self.written >= self.kept.len() {
            // Given back: a connection at rest holds nothing, and one that is busy gets the same memory again.
            (self.kept, self.written) = (Vec::new(), 0);
        }
        Ok(())
    }

    fn keep(&mut self, bufs: &[IoSlice<'_>]) {
        if self.kept.capacity() == 0 {
            self.kept.reserve_exact(ROOM);
        }
        bufs.iter().for_each(|buf| self.kept.extend_from_slice(buf));
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.unflushed {
            ready!(Pin::new(&mut self.io).poll_flush(cx))?;
            self.unflushed = false;
        }
        Poll::Ready(Ok(()))
    }
}

impl<IO: AsyncRead + Unpin> AsyncRead for Gathered<IO> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.line().io).poll_read(cx, buf)
    }
}

impl<IO: AsyncWrite + Unpin> AsyncWrite for Gathered<IO> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(buf)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let mut line = self.line();
        let bytes: usize = bufs.iter().map(|buf| buf.len()).sum();
        if bytes == 0 {
            return Poll::Ready(Ok(0));
        }
        if !line.gathers || bytes > ROOM {
            return line.poll_through(cx, bufs);
        }
        if line.kept.len() + bytes > ROOM {
            ready!(line.poll_kept(cx))?;
        }
        line.keep(bufs);
        Poll::Ready(Ok(bytes))
    }

    /// The many pieces of a write cost nothing more, whatever the connection makes of them.
    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut line = self.line();
        if line.gathers { Poll::Ready(Ok(())) } else { line.poll_flush(cx) }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut line = self.line();
        ready!(line.poll_kept(cx))?;
        ready!(line.poll_flush(cx))?;
        Pin::new(&mut line.io).poll_shutdown(cx)
    }
}

#[cfg(test)]
#[path = "gather_tests.rs"]
mod tests;
