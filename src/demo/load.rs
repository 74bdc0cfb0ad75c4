//! Clients of the demo: so many requests a second, and what became of them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use ureq::Agent;

/// How many clients there are.
const CLIENTS: u32 = 4;
/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// Requests that go on until it is dropped.
#[derive(Debug)]
pub struct Load {
    counts: Arc<LoadCounts>,
}

/// What became of the requests.
#[derive(Debug, Default)]
pub struct LoadCounts {
    sent: AtomicU64,
    failed: AtomicU64,
    end: AtomicBool,
}

impl LoadCounts {
    /// How many were sent.
    #[must_use]
    pub fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// How many of them got no answer, or 5xx.
    #[must_use]
    pub fn failed(&self) -> u64 {
        self.failed.load(Ordering::Relaxed)
    }
}

impl Load {
    /// Sends `rate` requests a second to this URL.
    #[must_use]
    pub fn start(url: &str, rate: u32) -> Self {
        let counts = Arc::new(LoadCounts::default());
        let pause = Duration::from_secs(1) * CLIENTS / rate.max(1);
        for _ in 0..CLIENTS {
            let (url, counts) = (url.to_owned(), Arc::clone(&counts));
            std::thread::spawn(move || send(&url, pause, &counts));
        }
        Self { counts }
    }

    /// What became of them so far.
    #[must_use]
    pub fn counts(&self) -> &Arc<LoadCounts> {
        &self.counts
    }
}

impl Drop for Load {
    /// The clients end with their next answer, which is not waited for: it may come from where this is dropped.
    fn drop(&mut self) {
        self.counts.end.store(true, Ordering::Relaxed);
    }
}

fn send(url: &str, pause: Duration, counts: &LoadCounts) {
    let config =
        Agent::config_builder().http_status_as_error(false).timeout_global(Some(PATIENCE)).proxy(None);
    let agent: Agent = config.build().into();
    let mut next = Instant::now();
    while !counts.end.load(Ordering::Relaxed) {
        let answer = agent.get(url).call().and_then(|mut answer| {
            answer.body_mut().read_to_vec()?;
            Ok(answer.status())
        });
        counts.sent.fetch_add(1, Ordering::Relaxed);
        if answer.map_or(true, |status| status.is_server_error()) {
            counts.failed.fetch_add(1, Ordering::Relaxed);
        }
        // By the clock and not by the answers, so that slow ones do not make it less.
        next = (next + pause).max(Instant::now() - PATIENCE);
        std::thread::sleep(next.saturating_duration_since(Instant::now()));
    }
}
