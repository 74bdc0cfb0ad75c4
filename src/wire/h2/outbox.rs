//! What is queued in a stream and not yet written, counted byte by byte.
//!
//! `h2` takes whatever it is given and keeps it until the peer's window and the connection have room for it; it does not say
//! how much that is, nor when it is gone. So the pieces themselves tell: each is a [`Parcel`], which notes when bytes of it
//! were written, and when it is thrown away. From that come bounded memory ([`Outbox::poll_below`]) and a flush that means
//! it ([`Outbox::poll_written`]).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll};

use bytes::{Buf, Bytes};
use futures::task::AtomicWaker;

/// How much of one stream may be queued before there is no more room, in bytes. The first window of most peers is as large
/// (RFC 9113 §6.9.2), so more would only wait; with the piece that goes over it, a stream holds at most some 128 KiB.
pub(super) const ROOM: usize = 64 * 1024;

/// The count of one stream.
#[derive(Default)]
struct Ledger {
    queued: AtomicUsize,
    lost: AtomicBool,
    waker: AtomicWaker,
}

/// Counts what is queued in one stream.
#[derive(Clone, Default)]
pub(super) struct Outbox(Arc<Ledger>);

/// A piece of content that knows its [`Outbox`].
pub(super) struct Parcel {
    bytes: Bytes,
    ledger: Option<Arc<Ledger>>,
}

impl Outbox {
    /// Counts in what is about to be queued.
    pub(super) fn parcel(&self, bytes: Bytes) -> Parcel {
        self.0.queued.fetch_add(bytes.len(), Ordering::AcqRel);
        Parcel { bytes, ledger: Some(Arc::clone(&self.0)) }
    }

    /// How many bytes wait.
    pub(super) fn queued(&self) -> usize {
        self.0.queued.load(Ordering::Acquire)
    }

    /// Whether something was thrown away that was not written.
    pub(super) fn lost(&self) -> bool {
        self.0.lost.load(Ordering::Acquire)
    }

    /// Ready when fewer than `limit` bytes wait.
    pub(super) fn poll_below(&self, cx: &mut Context<'_>, limit: usize) -> Poll<()> {
        if self.queued() < limit {
            return Poll::Ready(());
        }
        self.0.waker.register(cx.waker());
        if self.queued() < limit { Poll::Ready(()) } else { Poll::Pending }
    }

    /// Ready when nothing waits.
    pub(super) fn poll_written(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.poll_below(cx, 1)
    }
}

impl Ledger {
    fn less(&self, bytes: usize) {
        self.queued.fetch_sub(bytes, Ordering::AcqRel);
        self.waker.wake();
    }
}

impl Parcel {
    /// No content: it ends a stream.
    pub(super) fn end() -> Self {
        Self { bytes: Bytes::new(), ledger: None }
    }
}

impl Buf for Parcel {
    fn remaining(&self) -> usize {
        self.bytes.len()
    }

    fn chunk(&self) -> &[u8] {
        &self.bytes
    }

    fn advance(&mut self, count: usize) {
        self.bytes.advance(count);
        if let Some(ledger) = &self.ledger {
            ledger.less(count);
        }
    }
}

impl Drop for Parcel {
    fn drop(&mut self) {
        if let Some(ledger) = self.ledger.take().filter(|_| !self.bytes.is_empty()) {
            ledger.lost.store(true, Ordering::Release);
            ledger.less(self.bytes.len());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use super::*;

    #[test]
    fn what_is_written_and_what_is_thrown_away_is_told_apart() {
        let cx = &mut Context::from_waker(Waker::noop());
        let outbox = Outbox::default();
        let mut parcel = outbox.parcel(Bytes::from_static(b"12345"));
        assert!(outbox.poll_written(cx).is_pending() && outbox.poll_below(cx, 6).is_ready());
        parcel.advance(5);
        drop(parcel);
        assert!(outbox.poll_written(cx).is_ready() && !outbox.lost());
        drop(outbox.parcel(Bytes::from_static(b"12345")));
        assert!(outbox.poll_written(cx).is_ready() && outbox.lost());
    }
}
