//! A deadline that is moved with every message: cheap to move, since most of them never pass.

use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tokio::time::{Instant, Sleep};

/// A deadline. Moving it to a later time touches no timer: the timer that runs fires early, sees that it is early, and is set
/// anew; so a connection that serves thousands of requests a second sets a timer every few seconds, and polls one as often.
#[derive(Debug)]
pub struct Alarm {
    at: Option<Instant>,
    timer: Option<Pin<Box<Sleep>>>,
    /// Whom the timer wakes.
    waker: Option<Waker>,
}

impl Alarm {
    /// One that is not set.
    #[must_use]
    pub fn new() -> Self {
        Self { at: None, timer: None, waker: None }
    }

    /// Sets it to `at`; nothing for never.
    pub fn set(&mut self, at: Option<Instant>) {
        self.at = at;
    }

    /// Sets it to so much later than now.
    pub fn after(&mut self, span: Duration) {
        self.at = Some(Instant::now() + span);
    }

    /// Ready when the deadline has passed.
    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(at) = self.at else { return Poll::Pending };
        let timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(at)));
        let known = self.waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker()));
        if at < timer.deadline() {
            timer.as_mut().reset(at);
        } else if known && !timer.is_elapsed() {
            // It runs, and wakes whom it was last polled for.
            return Poll::Pending;
        }
        loop {
            match timer.as_mut().poll(cx) {
                Poll::Pending if known => return Poll::Pending,
                Poll::Pending => {
                    self.waker = Some(cx.waker().clone());
                    return Poll::Pending;
                }
                Poll::Ready(()) if timer.deadline() >= at => return Poll::Ready(()),
                Poll::Ready(()) => timer.as_mut().reset(at),
            }
        }
    }

    /// Waits for the deadline.
    pub async fn wait(&mut self) {
        std::future::poll_fn(|cx| self.poll(cx)).await;
    }
}

impl Default for Alarm {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn an_alarm_follows_its_deadline_both_ways() {
        let start = Instant::now();
        let mut alarm = Alarm::new();
        alarm.after(Duration::from_secs(10));
        assert!(tokio::time::timeout(Duration::from_secs(9), alarm.wait()).await.is_err());
        alarm.after(Duration::from_secs(10));
        alarm.wait().await;
        assert_eq!(start.elapsed().as_secs(), 19);
        alarm.after(Duration::from_secs(100));
        assert!(tokio::time::timeout(Duration::from_secs(1), alarm.wait()).await.is_err());
        alarm.after(Duration::from_secs(2));
        alarm.wait().await;
        assert_eq!(start.elapsed().as_secs(), 22);
        alarm.set(None);
        assert!(tokio::time::timeout(Duration::from_secs(1_000), alarm.wait()).await.is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn an_alarm_wakes_who_polled_it_last() {
        let start = Instant::now();
        let mut alarm = Alarm::new();
        alarm.after(Duration::from_secs(10));
        let another = tokio::spawn(async move {
            assert!(std::future::poll_fn(|cx| Poll::Ready(alarm.poll(cx))).await.is_pending());
            alarm
        });
        let mut alarm = another.await.unwrap();
        assert!(tokio::time::timeout(Duration::from_secs(20), alarm.wait()).await.is_ok());
        assert_eq!(start.elapsed().as_secs(), 10);
        // The timer has fired, and runs again.
        alarm.after(Duration::from_secs(5));
        assert!(tokio::time::timeout(Duration::from_secs(20), alarm.wait()).await.is_ok());
        assert_eq!(start.elapsed().as_secs(), 15);
    }
}
