//! Connections that last (upgraded ones, event streams, gRPC), and their end when their version is taken back
//! (semantics §5.6).

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Waker};

use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use crate::model::Moment;
use crate::routing::{Bell, Sessions};

impl Bell for CancellationToken {
    fn ring(&self) {
        self.cancel();
    }
}

/// A connection that lasts.
#[derive(Debug)]
pub(super) struct Lasting {
    sessions: Arc<Sessions>,
    rung: Option<Pin<Box<WaitForCancellationFutureOwned>>>,
    /// Who is woken by the bell.
    waker: Option<Waker>,
}

impl Lasting {
    /// One of these.
    pub(super) fn one_of(sessions: &Arc<Sessions>) -> Self {
        let bell = sessions.bell(CancellationToken::new).cloned();
        let rung = bell.map(|bell| Box::pin(bell.cancelled_owned()));
        Self { sessions: Arc::clone(sessions), rung, waker: None }
    }

    /// When it must have ended, if it must; whoever asks is woken when that changes. One load, once the waker is known.
    pub(super) fn poll_end(&mut self, cx: &mut Context<'_>) -> Option<Instant> {
        if !self.waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker()))
            && let Some(rung) = &mut self.rung
        {
            // Ready or not, the end says it all.
            let _ = rung.as_mut().poll(cx);
            self.waker = Some(cx.waker().clone());
        }
        let end = self.sessions.end()?;
        let now = Instant::now();
        Some(now + end.since(Moment::of(now.into_std())))
    }
}
