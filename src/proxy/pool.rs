//! Connections to pods that wait for their next request.
//!
//! Each endpoint carries its own pool ([`Endpoint::connections`]), so that a request finds one without a look-up, and an
//! endpoint that leaves takes its connections with it.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use crossbeam_queue::SegQueue;

use crate::routing::{Connections, Endpoint};
use crate::wire::h1::H1Client;
use crate::wire::{H2Connection, H2Request, Link};

/// How long a connection to a pod is kept idle. The shortest default of common servers is 5 s (Apache httpd, Node.js): it is
/// this side that should close first, for a request that meets the other side's close is lost if it cannot be repeated.
const IDLE: Duration = Duration::from_secs(4);
/// How many connections to one pod are kept.
const KEPT: usize = 1024;
/// How many connections to one pod are kept for copies: no more are ever made than there are copies at once.
const KEPT_FOR_COPIES: usize = 32;
/// How many connections of HTTP/2 there are to one pod at most.
const SHARED: usize = 64;
/// How often idle connections are looked through.
const SWEEP: Duration = Duration::from_millis(500);

/// The idle connections to one endpoint.
#[derive(Debug, Default)]
pub(super) struct Pool {
    inner: Arc<Inner>,
    /// Connections of HTTP/2; those that take no more requests are forgotten when one is added.
    shared: ArcSwap<Vec<Arc<H2Connection>>>,
    /// Held by who makes another.
    pub(super) connecting: tokio::sync::Mutex<()>,
    /// Those that copies of requests go by: no request ever finds one of its own taken, or waits for one, because of a copy.
    copies: OnceLock<Box<Pool>>,
}

#[derive(Debug, Default)]
struct Inner {
    idle: SegQueue<Idle>,
    count: AtomicUsize,
    /// How many requests there were at once, of late.
    peak: AtomicUsize,
}

#[derive(Debug)]
struct Idle {
    connection: Box<H1Client<Link>>,
    since: Instant,
}

impl Pool {
    /// An idle connection, if there is a good one; `now` may be a few milliseconds old.
    pub(super) fn take(&self, now: Instant) -> Option<Box<H1Client<Link>>> {
        while let Some(mut idle) = self.inner.pop() {
            if now.saturating_duration_since(idle.since) < IDLE && idle.connection.seems_quiet() {
                return Some(idle.connection);
            }
        }
        None
    }

    /// A request goes to the endpoint: as many connections are kept as there were requests at once of late.
    pub(super) fn meet(&self, endpoint: &Endpoint) {
        self.inner.peak.fetch_max(endpoint.in_flight() as usize, Ordering::Relaxed);
    }

    /// Keeps a connection for the next request, unless its endpoint is leaving, or has as many as it needs: each that is open
    /// costs the pod something, some of them a whole worker.
    pub(super) fn keep(&self, connection: Box<H1Client<Link>>, endpoint: &Endpoint, now: Instant) {
        let idle = self.inner.count.load(Ordering::Relaxed);
        // This one's request is in flight still.
        let needed = idle + endpoint.in_flight() as usize <= self.inner.peak.load(Ordering::Relaxed);
        self.keep_if(needed && idle < KEPT, connection, endpoint, now);
    }

    /// The same in the pool for copies, which are not counted at the endpoint.
    pub(super) fn keep_for_copies(&self, connection: Box<H1Client<Link>>, endpoint: &Endpoint) {
        self.inner.peak.fetch_max(KEPT_FOR_COPIES, Ordering::Relaxed);
        let wanted = self.inner.count.load(Ordering::Relaxed) < KEPT_FOR_COPIES;
        self.keep_if(wanted, connection, endpoint, Instant::now());
    }

    fn keep_if(&self, wanted: bool, connection: Box<H1Client<Link>>, endpoint: &Endpoint, now: Instant) {
        if wanted && !endpoint.is_leaving() {
            self.inner.push(Idle { connection, since: now });
            // It may have begun to leave meanwhile.
            if endpoint.is_leaving() {
                self.close_idle();
            }
        }
    }

    /// A place for a request on a connection of HTTP/2.
    pub(super) fn stream(&self) -> Option<H2Request> {
        self.shared.load().iter().find_map(|connection| connection.request())
    }

    /// The least busy connection of HTTP/2, if there are as many as there may be.
    pub(super) fn full(&self) -> Option<Arc<H2Connection>> {
        let shared = self.shared.load();
        let usable = || shared.iter().filter(|connection| connection.is_usable());
        if usable().count() < SHARED { None } else { usable().min_by_key(|c| c.open()).cloned() }
    }

    /// A connection of HTTP/2 was made.
    pub(super) fn add(&self, connection: H2Connection, endpoint: &Endpoint) {
        if endpoint.is_leaving() {
            connection.close_when_idle();
        }
        let connection = Arc::new(connection);
        self.shared.rcu(|shared| {
            let usable = shared.iter().filter(|connection| connection.is_usable());
            usable.chain([&connection]).cloned().collect::<Vec<_>>()
        });
    }
}

impl Inner {
    fn push(&self, idle: Idle) {
        self.count.fetch_add(1, Ordering::Relaxed);
        self.idle.push(idle);
    }

    fn pop(&self) -> Option<Idle> {
        let idle = self.idle.pop()?;
        self.count.fetch_sub(1, Ordering::Relaxed);
        Some(idle)
    }

    /// Closes what is too old, or was closed by the pod.
    fn sweep(&self) {
        let now = Instant::now();
        // The peak is forgotten by and by: by half within three seconds.
        let peak = self.peak.load(Ordering::Relaxed);
        self.peak.fetch_sub(peak / 8, Ordering::Relaxed);
        while self.count.load(Ordering::Relaxed) > peak.max(1) && self.pop().is_some() {}
        for _ in 0..self.count.load(Ordering::Relaxed) {
            let Some(mut idle) = self.pop() else { return };
            if now.saturating_duration_since(idle.since) < IDLE && idle.connection.is_quiet() {
                self.push(idle);
            }
        }
    }
}

impl Connections for Pool {
    fn close_idle(&self) {
        while self.inner.pop().is_some() {}
        self.shared.load().iter().for_each(|connection| connection.close_when_idle());
        if let Some(copies) = self.copies.get() {
            copies.close_idle();
        }
    }
}

/// Every pool, so that idle connections are closed in time.
#[derive(Debug, Default)]
pub(super) struct Pools(Mutex<Vec<Weak<Inner>>>);

impl Pools {
    /// The pool of an endpoint.
    pub(super) fn of<'a>(&self, endpoint: &'a Endpoint) -> Option<&'a Pool> {
        endpoint.connections(|| self.made())
    }

    /// The pool of an endpoint for copies of requests.
    pub(super) fn of_copies<'a>(&self, endpoint: &'a Endpoint) -> Option<&'a Pool> {
        let pool = self.of(endpoint)?;
        Some(pool.copies.get_or_init(|| Box::new(self.made())))
    }

    fn made(&self) -> Pool {
        let pool = Pool::default();
        // Once or twice in an endpoint's life.
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::downgrade(&pool.inner));
        pool
    }

    /// Closes every idle connection.
    pub(super) fn close_idle(&self) {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for pool in known.iter().filter_map(Weak::upgrade) {
            while pool.pop().is_some() {}
        }
    }

    /// Looks through all of them, again and again, for as long as somebody else has them.
    pub(super) async fn sweep(pools: Weak<Self>) {
        loop {
            tokio::time::sleep(SWEEP).await;
            let Some(pools) = pools.upgrade() else { return };
            let alive: Vec<_> = {
                let mut known = pools.0.lock().unwrap_or_else(PoisonError::into_inner);
                known.retain(|pool| pool.strong_count() > 0);
                known.iter().filter_map(Weak::upgrade).collect()
            };
            alive.iter().for_each(|pool| pool.sweep());
        }
    }
}
