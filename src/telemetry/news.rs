//! What happens, for those who listen: each of these is a log line too, and many are a metric.
//!
//! Nobody is waited for: who listens too slowly is told how much was missed, and goes on from there.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use tokio::sync::broadcast;

use crate::model::{HookEvent, Revision, RouteName, Share, Timestamp, VersionName};

use super::Telemetry;

/// How much is kept for those who are slow.
const KEPT: usize = 1024;

/// One thing that happened.
#[derive(Clone, Debug)]
pub struct Item {
    /// Its number; the next one has the next, whoever listens.
    pub id: u64,
    /// When.
    pub time: Timestamp,
    /// What.
    pub news: News,
}

/// What happened.
#[derive(Clone, Debug)]
pub enum News {
    /// A route's weights changed.
    Weights {
        /// The route.
        route: RouteName,
        /// The revision in force.
        revision: Revision,
        /// Where the change came from.
        source: String,
        /// Who asked.
        who: Option<String>,
        /// The weights in force.
        weights: Vec<(VersionName, Share)>,
        /// Why.
        reason: Option<String>,
    },
    /// A rollout came to another step or phase.
    Rollout(RolloutNews),
    /// A webhook of a rollout did not take what it was told, or has not let a step begin.
    HookFailed {
        /// The route.
        route: RouteName,
        /// What for.
        event: HookEvent,
        /// Which one: its scheme and host, for the rest may be a secret.
        hook: String,
        /// What went wrong.
        error: String,
    },
    /// A pod came, went, or changed.
    Endpoint {
        /// The route.
        route: RouteName,
        /// The version.
        version: VersionName,
        /// Where it is.
        address: SocketAddr,
        /// What it is now.
        state: &'static str,
        /// Why, where that is not plain.
        reason: Option<&'static str>,
    },
    /// The config file was read.
    Config {
        /// Whether it is in force.
        accepted: bool,
        /// How many routes it has, where it is.
        routes: Option<usize>,
        /// Every error, where it is not.
        errors: Option<String>,
    },
    /// A problem was found, or is gone.
    Problem {
        /// The route, where it is that of one.
        route: Option<RouteName>,
        /// Whether it is there.
        there: bool,
        /// What is wrong.
        message: String,
        /// What to do about it.
        remedy: String,
    },
}

/// How far a rollout has come.
#[derive(Clone, Debug)]
pub struct RolloutNews {
    /// The route.
    pub route: RouteName,
    /// The version that is rolled out.
    pub version: VersionName,
    /// Where it is in its life.
    pub phase: &'static str,
    /// Its step, from 1.
    pub step: usize,
    /// How many there are.
    pub steps: usize,
    /// The version's weight.
    pub weight: Share,
    /// Why.
    pub reason: String,
    /// The revision in force.
    pub revision: Revision,
}

impl News {
    /// The route that it is about; nothing where that is all of them.
    #[must_use]
    pub fn route(&self) -> Option<&RouteName> {
        match self {
            News::Weights { route, .. }
            | News::HookFailed { route, .. }
            | News::Endpoint { route, .. }
            | News::Rollout(RolloutNews { route, .. }) => Some(route),
            News::Problem { route, .. } => route.as_ref(),
            News::Config { .. } => None,
        }
    }
}

/// Tells those who listen.
#[derive(Debug)]
pub(super) struct Teller {
    items: broadcast::Sender<Arc<Item>>,
    told: AtomicU64,
}

impl Default for Teller {
    fn default() -> Self {
        Self { items: broadcast::Sender::new(KEPT), told: AtomicU64::new(0) }
    }
}

impl Telemetry {
    /// What happens from now on. Who is more than 1024 behind is told so.
    #[must_use]
    pub fn listen(&self) -> broadcast::Receiver<Arc<Item>> {
        self.teller.items.subscribe()
    }

    /// Whether anybody listens: what costs something to find out is not found out for nobody.
    #[must_use]
    pub fn has_listeners(&self) -> bool {
        self.teller.items.receiver_count() > 0
    }

    /// Tells those who listen, if anybody does.
    pub(super) fn tell(&self, news: impl FnOnce() -> News) {
        let id = self.teller.told.fetch_add(1, Ordering::Relaxed) + 1;
        if self.has_listeners() {
            let time = Timestamp::from(SystemTime::now());
            // The last one may have left meanwhile.
            let _ = self.teller.items.send(Arc::new(Item { id, time, news: news() }));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn who_is_slow_is_told_how_much_was_missed_and_goes_on() {
        let telemetry = Telemetry::new().unwrap();
        telemetry.config_loaded("before anybody listens", 0);
        let mut heard = telemetry.listen();
        for routes in 0..KEPT + 10 {
            telemetry.config_loaded("serinus.yaml", routes);
        }
        assert!(matches!(heard.recv().await, Err(broadcast::error::RecvError::Lagged(10))));
        let item = heard.recv().await.unwrap();
        assert!(matches!(item.news, News::Config { accepted: true, routes: Some(10), .. }), "{item:?}");
        assert_eq!(item.id, 12, "what nobody heard is counted too");
    }
}
