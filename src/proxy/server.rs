//! A gateway on its listeners, and how it stops without losing a request (semantics §4.5).
//!
//! When told to stop, a listener goes on accepting for `drain.delay`, so that those who have not heard yet lose nothing; the
//! wait after it ends as soon as the last request has. When another process has taken over, it stops accepting at once.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Semaphore, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::telemetry::Telemetry;

use super::Gateway;
use super::accept::{Accept, Closed, Episodes};
use super::connection::Site;
use super::listener::Listener;
use super::pool::Pools;
use super::roster::Roster;

/// How long after the last connection was taken its request may take to come.
const LAST_REQUESTS: Duration = Duration::from_millis(250);
/// How long the answers to those may take that are cut at the end of `drain.timeout`.
const LAST_ANSWERS: Duration = Duration::from_secs(1);

/// How a stop goes.
#[derive(Clone, Copy, Debug)]
pub struct Drain {
    /// How long new connections are still taken after the word to stop.
    pub delay: Duration,
    /// How long requests that were taken may then go on.
    pub timeout: Duration,
}

/// Whether to stop, and how.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Stop {
    /// Not at all.
    #[default]
    Running,
    /// Listeners close after `drain.delay`, and requests get until `drain.timeout`.
    Drain,
    /// Another process has the sockets of these listeners: no connection is accepted from now on, and requests end as usual.
    HandedOver(Arc<[String]>),
    /// At once.
    Now,
}

/// The word to stop: cloned to all who wait for it.
#[derive(Clone, Debug)]
pub struct Shutdown(watch::Receiver<Stop>);

impl Shutdown {
    /// The word, and who says it.
    #[must_use]
    pub fn new() -> (watch::Sender<Stop>, Self) {
        let (say, hear) = watch::channel(Stop::Running);
        (say, Self(hear))
    }

    /// Waits for the word; a sayer that is gone has said it.
    pub async fn wait(&mut self) -> Stop {
        self.until(|stop| *stop != Stop::Running).await.unwrap_or(Stop::Drain)
    }

    /// Waits for a word that leaves no time for `drain.delay`.
    async fn hurry(&mut self) -> Stop {
        match self.until(|stop| matches!(stop, Stop::HandedOver(_) | Stop::Now)).await {
            Some(stop) => stop,
            None => std::future::pending().await,
        }
    }

    async fn now(&mut self) {
        if self.until(|stop| *stop == Stop::Now).await.is_none() {
            std::future::pending::<()>().await;
        }
    }

    async fn until(&mut self, is: impl FnMut(&Stop) -> bool) -> Option<Stop> {
        self.0.wait_for(is).await.ok().map(|stop| stop.clone())
    }
}

/// A gateway on its listeners.
pub struct Server {
    gateway: Arc<Gateway>,
    telemetry: Arc<Telemetry>,
    drain: Drain,
    most_connections: usize,
}

/// What runs while the listeners are open.
struct Serving {
    close: watch::Sender<Closed>,
    accepting: TaskTracker,
    connections: TaskTracker,
    rosters: Arc<[Arc<Roster>]>,
    leave: CancellationToken,
}

impl Server {
    /// A server for this gateway.
    #[must_use]
    pub fn new(gateway: Gateway, telemetry: Arc<Telemetry>, drain: Drain) -> Self {
        Self { gateway: Arc::new(gateway), telemetry, drain, most_connections: Semaphore::MAX_PERMITS }
    }

    /// With at most so many connections open on all listeners together, whatever theirs allow: more than there are descriptors
    /// for would leave none for pods.
    #[must_use]
    pub fn with_most_connections(mut self, most: usize) -> Self {
        self.most_connections = most.clamp(1, Semaphore::MAX_PERMITS);
        self
    }

    /// Serves until told to stop, then until the last request has ended or `drain.timeout` has passed. Returns how many
    /// connections were cut.
    pub async fn run(self, listeners: Vec<Listener>, mut shutdown: Shutdown) -> usize {
        let sweeping = tokio::spawn(Pools::sweep(Arc::downgrade(&self.gateway.pools)));
        let serving = self.listen(listeners);
        let mut stop = shutdown.wait().await;
        // Connections end with their next answer from now on, and new ones are still taken.
        self.gateway.close();
        if stop == Stop::Drain {
            let hurried = tokio::time::timeout(self.drain.delay, shutdown.hurry()).await;
            stop = hurried.unwrap_or(Stop::Drain);
        }
        let (elsewhere, patience) = match stop {
            // Nobody had time to hear of it: clients that keep their connection hear of it by their next answer.
            Stop::HandedOver(names) => (names, self.drain.delay.max(LAST_REQUESTS)),
            // One that was taken at the last moment has its request still on the way.
            Stop::Running | Stop::Drain | Stop::Now => (Arc::default(), LAST_REQUESTS),
        };
        serving.close.send_replace(Some(elsewhere));
        serving.accepting.wait().await;
        serving.connections.close();
        serving.wait(patience, &mut shutdown).await;
        // Connections that wait for a request are closed now; requests that run go on.
        serving.leave.cancel();
        serving.wait(self.drain.timeout, &mut shutdown).await;
        let cut = serving.connections.len();
        self.gateway.cut();
        serving.cut().await;
        sweeping.abort();
        cut
    }

    fn listen(&self, listeners: Vec<Listener>) -> Serving {
        let (close, closed) = watch::channel(None);
        let serving = Serving {
            close,
            accepting: TaskTracker::new(),
            connections: TaskTracker::new(),
            rosters: listeners.iter().map(|_| Arc::default()).collect(),
            leave: CancellationToken::new(),
        };
        let all_places = Arc::new(Semaphore::new(self.most_connections));
        for (listener, roster) in listeners.into_iter().zip(serving.rosters.iter()) {
            let most = listener.edge.connections.min(Semaphore::MAX_PERMITS);
            let accept = Accept {
                gateway: Arc::clone(&self.gateway),
                telemetry: Arc::clone(&self.telemetry),
                site: Arc::new(Site {
                    name: listener.name().to_owned(),
                    telemetry: Arc::clone(&self.telemetry),
                    edge: Arc::clone(&listener.edge),
                    certificates: listener.certificates.clone(),
                }),
                name: listener.name().to_owned(),
                open: self.telemetry.connections(listener.name()),
                own_places: Arc::new(Semaphore::new(most)),
                all_places: Arc::clone(&all_places),
                own: Arc::clone(roster),
                all: Arc::clone(&serving.rosters),
                connections: serving.connections.clone(),
                leave: serving.leave.clone(),
                episodes: Episodes::default(),
            };
            serving.accepting.spawn(accept.run(listener, closed.clone()));
        }
        serving.accepting.close();
        serving
    }
}

impl Serving {
    /// Waits until the last connection has ended, for so long at most, or until there is no more time.
    async fn wait(&self, most: Duration, shutdown: &mut Shutdown) {
        tokio::select! {
            () = self.connections.wait() => {}
            () = tokio::time::sleep(most) => {}
            () = shutdown.now() => {}
        }
    }

    /// Ends the requests that still run: with an answer where none was begun, and where that takes too long without one.
    async fn cut(&self) {
        self.rosters.iter().for_each(|roster| roster.wake());
        let _ = tokio::time::timeout(LAST_ANSWERS, self.connections.wait()).await;
        self.rosters.iter().for_each(|roster| roster.abort());
        let _ = tokio::time::timeout(LAST_ANSWERS, self.connections.wait()).await;
    }
}
