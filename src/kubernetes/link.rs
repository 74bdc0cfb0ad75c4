//! The connection of one watch: its answers are waited for with a limit, and its opening is told.
//!
//! kube's watcher does the listing, watching and resuming, but it tells neither when a watch that broke off is open
//! again (nothing may happen in a namespace for hours) nor limits how long an answer takes, it opens a watch that ends at
//! once again without a pause, and it does not read `Retry-After`. So each watcher gets a client that is wrapped in this.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use kube::client::Body;
use kube::core::Status;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until, timeout};

use super::access::{Client, Patience};

/// A client for one watcher, and what tells that the API server has accepted a watch.
pub(super) fn observed(client: &Client) -> (kube::Client, Arc<Notify>) {
    let opened = Arc::new(Notify::new());
    let now = Instant::now();
    let watcher = Observer {
        client: client.clone(),
        opened: Arc::clone(&opened),
        turns: Arc::new(Mutex::new(Turns { any: now, watch: now })),
    };
    let service = tower::service_fn(move |request| watcher.clone().send(request));
    (kube::Client::new(service, client.current().default_namespace()), opened)
}

/// The longest that an API server may ask to be left alone.
const LONGEST_RETRY_AFTER: Duration = Duration::from_secs(60);

#[derive(Clone)]
struct Observer {
    client: Client,
    opened: Arc<Notify>,
    turns: Arc<Mutex<Turns>>,
}

/// When what may be asked for next.
struct Turns {
    /// Anything at all: the API server may ask to be left alone for a while.
    any: Instant,
    /// A watch.
    watch: Instant,
}

impl Observer {
    async fn send(self, request: http::Request<Body>) -> Result<http::Response<Body>, kube::Error> {
        let watch = request.uri().query().is_some_and(|q| q.split('&').any(|pair| pair == "watch=true"));
        sleep_until(self.turn(watch)).await;
        let patience = self.client.patience.answer;
        let answer = timeout(patience, self.client.current().send(request)).await;
        let response = answer.map_err(|_| kube::Error::Service(Box::new(NoAnswer(patience))))??;
        if response.status() == http::StatusCode::UNAUTHORIZED {
            self.client.renew().await;
        }
        self.heed(&response);
        if !watch {
            return Ok(response);
        }
        if response.status().is_success() {
            self.opened.notify_one();
            return Ok(response);
        }
        // kube reads the events of a watch without a look at the status.
        Err(refusal(response).await)
    }

    /// When this may be asked for; the next watch a little later.
    fn turn(&self, watch: bool) -> Instant {
        let mut turns = self.turns.lock().unwrap_or_else(PoisonError::into_inner);
        let mut turn = turns.any.max(Instant::now());
        if watch {
            turn = turn.max(turns.watch);
            turns.watch = turn + self.client.patience.retry_first;
        }
        turn
    }

    /// Nothing is asked for before `Retry-After` (RFC 9110 §10.2.3) of a refusal.
    fn heed(&self, response: &http::Response<Body>) {
        let status = response.status();
        let busy = status == http::StatusCode::TOO_MANY_REQUESTS || status.is_server_error();
        let after = response.headers().get(http::header::RETRY_AFTER).and_then(|value| value.to_str().ok());
        // API servers give seconds, never a date.
        if let Some(seconds) = after.and_then(|text| text.trim().parse().ok()).filter(|_| busy) {
            let wait = Duration::from_secs(seconds).min(LONGEST_RETRY_AFTER);
            self.turns.lock().unwrap_or_else(PoisonError::into_inner).any = Instant::now() + wait;
        }
    }
}

/// The API server took too long.
#[derive(Debug, thiserror::Error)]
#[error("no answer within {0:?}")]
pub(super) struct NoAnswer(Duration);

/// The error that a response with a status of 400 and more stands for.
async fn refusal(response: http::Response<Body>) -> kube::Error {
    let code = response.status().as_u16();
    match response.into_body().collect_bytes().await {
        Ok(bytes) => {
            let status = serde_json::from_slice(&bytes).unwrap_or_else(|_| {
                let text: String = String::from_utf8_lossy(&bytes).chars().take(200).collect();
                Status::failure(&text, "").with_code(code)
            });
            kube::Error::Api(status.boxed())
        }
        Err(error) => error,
    }
}

/// Growing pauses between attempts: doubling, with jitter so that replicas do not come all at once.
#[derive(Debug)]
pub(super) struct Backoff {
    first: Duration,
    most: Duration,
    next: Duration,
}

impl Backoff {
    pub(super) fn new(patience: Patience) -> Self {
        Self { first: patience.retry_first, most: patience.retry_most, next: patience.retry_first }
    }

    /// The pause before the next attempt: half to all of what it may be.
    pub(super) fn pause(&mut self) -> Duration {
        let most = self.next;
        self.next = (most * 2).min(self.most);
        most.mul_f64(0.5 + fastrand::f64() / 2.0)
    }

    pub(super) fn reset(&mut self) {
        self.next = self.first;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_to_a_cap_with_jitter_and_start_anew() {
        let mut backoff = Backoff::new(Patience::default());
        for most in [200, 400, 800, 1600, 3200, 6400, 10_000, 10_000, 10_000] {
            let pause = backoff.pause().as_millis();
            assert!((most / 2..=most).contains(&pause), "{pause} for {most}");
        }
        backoff.reset();
        assert!(backoff.pause() <= Duration::from_millis(200));
    }
}
