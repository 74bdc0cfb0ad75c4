//! The listener of the API: bounded connections, bounded patience, and an end that answers what it took.

use std::collections::VecDeque;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use axum::extract::Request;
use axum::middleware::{self, Next};
use axum::{Extension, Router};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::control::Control;
use crate::routing::tally::Unrouted;
use crate::telemetry::Telemetry;

use super::api::{self, Admin};
use super::events::Streams;
use super::guard::{Gate, Peer, is_loopback};
use super::recent::{ROTATION, Recent};
use super::series;
use super::token::TokenFile;

/// How many connections are served at once. One that comes beyond takes the place of the one that has been without a request
/// for the longest, so that those who open connections and say nothing cannot keep probes out.
pub const CONNECTIONS: usize = 512;
/// How long a request's head may take to arrive, and a connection be idle.
const HEAD_PATIENCE: Duration = Duration::from_secs(10);
/// How long a connection lives, so that one whose answers are not read does not stay; the request it is at is answered.
const LIFE: Duration = Duration::from_secs(60);
/// How long the requests under way may take when their connection ends.
const LAST_ANSWERS: Duration = Duration::from_secs(3);
/// The largest head of a request.
const HEAD: usize = 32 << 10;
/// How long to wait when no connection can be accepted (out of file descriptors, for one).
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// How long connections must have been accepted again until that is over.
const RECOVERED: Duration = Duration::from_secs(5);

/// What an admin API is asked for.
#[derive(Clone, Debug)]
pub struct AdminOptions {
    /// The file that holds the token for writes (`admin.tokenFile`); check it with
    /// [`check_token_file`](super::check_token_file) at the start.
    pub token_file: Option<PathBuf>,
    /// How many connections are served at once, [`CONNECTIONS`] at most.
    pub connections: usize,
}

impl Default for AdminOptions {
    fn default() -> Self {
        Self { token_file: None, connections: CONNECTIONS }
    }
}

/// A bound listener.
#[derive(Debug)]
pub struct AdminListener {
    socket: Arc<TcpListener>,
    address: SocketAddr,
}

impl AdminListener {
    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// A listener on a socket that listens already: the process before had it.
    ///
    /// # Errors
    /// When the runtime cannot take it in.
    pub fn inherited(socket: std::net::TcpListener) -> std::io::Result<Self> {
        socket.set_nonblocking(true)?;
        let address = socket.local_addr()?;
        Ok(Self { socket: Arc::new(TcpListener::from_std(socket)?), address })
    }

    /// The socket, for as long as it listens.
    #[must_use]
    pub fn socket(&self) -> Weak<TcpListener> {
        Arc::downgrade(&self.socket)
    }
}

/// Why the admin API cannot listen.
#[derive(Debug, thiserror::Error)]
#[error("the admin API cannot listen on {address}: {error}{hint}")]
pub struct AdminBindError {
    address: String,
    error: std::io::Error,
    hint: &'static str,
}

const HINTS: [(ErrorKind, &str); 3] = [
    (
        ErrorKind::AddrInUse,
        "; another process has it (`ss -ltnp` shows which): stop that one, or change `admin.address`",
    ),
    (ErrorKind::PermissionDenied, "; use a port from 1024 on, or grant NET_BIND_SERVICE"),
    (
        ErrorKind::AddrNotAvailable,
        "; the address is not one of this machine: 0.0.0.0 or [::] listens on every one it has",
    ),
];

/// Binds `address` (`HOST:PORT`; port 0 takes a free one).
///
/// # Errors
/// When the name does not resolve, or the address cannot be bound.
pub async fn bind(address: &str) -> Result<AdminListener, AdminBindError> {
    let failed = |error: std::io::Error| {
        let hint = HINTS.iter().find(|(kind, _)| *kind == error.kind());
        let hint = hint.map_or("; write `admin.address` as HOST:PORT, like 127.0.0.1:9901", |(_, hint)| hint);
        AdminBindError { address: address.to_owned(), error, hint }
    };
    let socket = TcpListener::bind(address).await.map_err(failed)?;
    let address = socket.local_addr().map_err(failed)?;
    Ok(AdminListener { socket: Arc::new(socket), address })
}

/// Serves until `shutdown` is done; then answers what was taken, for a moment. During a drain it goes on: tell it to stop
/// last, so that `/readyz` says what is going on.
pub async fn serve(
    listener: AdminListener,
    control: Control,
    telemetry: Arc<Telemetry>,
    unrouted: Arc<Unrouted>,
    options: AdminOptions,
    shutdown: impl Future<Output = ()> + Send,
) {
    let gate = Gate {
        token: options.token_file.map(TokenFile::new),
        on_loopback: is_loopback(listener.address.ip()),
    };
    let stop = CancellationToken::new();
    let streams = Streams::new(options.connections, stop.clone());
    let recent = Recent::default();
    let admin = Arc::new(Admin { control, telemetry, unrouted, recent, series: Mutex::default(), streams });
    let router = api::router(Arc::clone(&admin), gate);
    let tasks = TaskTracker::new();
    tasks.spawn(rotate(Arc::clone(&admin), stop.clone()));
    tasks.spawn(sample(admin, stop.clone()));
    tokio::select! {
        () = shutdown => {}
        () = accept(&listener.socket, &router, &tasks, &stop, Places::new(options.connections)) => {}
    }
    drop(listener);
    stop.cancel();
    tasks.close();
    tasks.wait().await;
}

async fn rotate(admin: Arc<Admin>, stop: CancellationToken) {
    let mut ticks = tokio::time::interval(ROTATION);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    ticks.tick().await;
    while stop.run_until_cancelled(ticks.tick()).await.is_some() {
        let admin = Arc::clone(&admin);
        // Nothing to do about a failure: the next one comes in half a minute.
        let _ = tokio::task::spawn_blocking(move || admin.recent.rotate(&admin.control.table().load())).await;
    }
}

async fn sample(admin: Arc<Admin>, stop: CancellationToken) {
    let mut ticks = tokio::time::interval(series::INTERVAL);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    while stop.run_until_cancelled(ticks.tick()).await.is_some() {
        let admin = Arc::clone(&admin);
        let take = move || {
            let table = admin.control.table().load();
            let mut series = admin.series.lock().unwrap_or_else(PoisonError::into_inner);
            series.sample(&table, &admin.recent, std::time::Instant::now());
        };
        // As above; and thousands of versions take milliseconds.
        let _ = tokio::task::spawn_blocking(take).await;
    }
}

async fn accept(
    socket: &TcpListener,
    router: &Router,
    tasks: &TaskTracker,
    stop: &CancellationToken,
    mut places: Places,
) {
    let mut short: Option<Instant> = None;
    loop {
        match socket.accept().await {
            Ok((connection, peer)) => {
                if short.is_some_and(|last| last.elapsed() >= RECOVERED) {
                    short = None;
                    tracing::info!("the admin API accepts connections again");
                }
                let place = places.next().await;
                let router = router.clone().layer(Extension(Peer(peer)));
                tasks.spawn(serve_connection(connection, router, place, stop.clone()));
            }
            Err(error) => {
                if short.replace(Instant::now()).is_none() {
                    tracing::warn!(%error, "the admin API cannot accept connections: raise the limit of open files");
                }
                // Its descriptor is one that can be accepted with.
                places.give_up_idle();
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// The places for connections, in the order in which they were taken.
struct Places {
    free: Arc<Semaphore>,
    taken: VecDeque<Weak<Seat>>,
}

/// What is known of a connection from outside.
#[derive(Debug)]
pub(super) struct Seat {
    /// A request is being answered.
    busy: AtomicBool,
    /// Its answer is a stream of events, which lasts.
    pub(super) streaming: AtomicBool,
    /// The place is needed for another connection.
    give_up: CancellationToken,
}

impl Seat {
    fn is_busy(&self) -> bool {
        self.busy.load(Ordering::Acquire) || self.streaming.load(Ordering::Acquire)
    }

    /// Waits until the connection has lived long enough: a stream of events has an end of its own.
    async fn life(&self) {
        loop {
            tokio::time::sleep(LIFE).await;
            if !self.streaming.load(Ordering::Acquire) {
                return;
            }
        }
    }
}

/// A connection's place.
struct Place {
    seat: Arc<Seat>,
    _permit: Option<OwnedSemaphorePermit>,
}

impl Places {
    fn new(most: usize) -> Self {
        Self { free: Arc::new(Semaphore::new(most.clamp(1, CONNECTIONS))), taken: VecDeque::new() }
    }

    /// A place for a connection that was accepted. Where there is none, the oldest connection without a request gives its up.
    async fn next(&mut self) -> Place {
        if self.free.available_permits() == 0 {
            self.give_up_idle();
        }
        // The semaphore is never closed.
        let permit = Arc::clone(&self.free).acquire_owned().await.ok();
        if self.taken.len() >= 2 * CONNECTIONS {
            self.taken.retain(|seat| seat.strong_count() > 0);
        }
        let seat = Arc::new(Seat {
            busy: AtomicBool::new(false),
            streaming: AtomicBool::new(false),
            give_up: CancellationToken::new(),
        });
        self.taken.push_back(Arc::downgrade(&seat));
        Place { seat, _permit: permit }
    }

    fn give_up_idle(&mut self) {
        let idle = self.taken.iter().position(|seat| {
            seat.upgrade().is_some_and(|seat| !seat.is_busy() && !seat.give_up.is_cancelled())
        });
        if let Some(seat) = idle.and_then(|place| self.taken.remove(place)).and_then(|seat| seat.upgrade()) {
            seat.give_up.cancel();
        }
    }
}

async fn serve_connection(connection: TcpStream, router: Router, place: Place, stop: CancellationToken) {
    // Without it answers wait for acknowledgements; a socket that refuses it is about to fail anyway.
    let _ = connection.set_nodelay(true);
    let seat = Arc::clone(&place.seat);
    let router = router.layer(middleware::from_fn(move |mut request: Request, next: Next| {
        let seat = Arc::clone(&seat);
        async move {
            request.extensions_mut().insert(Arc::clone(&seat));
            seat.busy.store(true, Ordering::Release);
            let answer = next.run(request).await;
            seat.busy.store(false, Ordering::Release);
            answer
        }
    }));
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_PATIENCE)
        .max_buf_size(HEAD)
        .serve_connection(TokioIo::new(connection), TowerToHyperService::new(router));
    tokio::pin!(connection);
    tokio::select! {
        // A client that left or spoke no HTTP: nobody to tell.
        _ = &mut connection => return,
        () = stop.cancelled() => {}
        () = place.seat.give_up.cancelled() => {
            if !place.seat.is_busy() {
                return;
            }
        }
        () = place.seat.life() => {}
    }
    connection.as_mut().graceful_shutdown();
    let _ = tokio::time::timeout(LAST_ANSWERS, connection).await;
}
