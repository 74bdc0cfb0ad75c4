//! Listeners: accepting connections, and stopping without losing one (semantics §4.5).
//!
//! When told to stop, a listener goes on accepting for `drain.delay`, so that those who have not heard yet lose nothing; the
//! wait after it ends as soon as the last request has.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use prometheus::core::{AtomicI64, GenericGauge};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::model::Edge;
use crate::telemetry::Telemetry;
use crate::tls::ListenerCertificates;

use super::Gateway;
use super::connection::{self, Client, Site};
use super::pool::Pools;

/// Connections that wait to be accepted.
const BACKLOG: u32 = 4096;
/// How long after the last connection was taken its request may take to come.
const LAST_REQUESTS: Duration = Duration::from_millis(250);
/// How long to wait when no connection can be accepted (out of file descriptors, for one).
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// A bound listener.
#[derive(Debug)]
pub struct Listener {
    name: String,
    socket: TcpListener,
    address: SocketAddr,
    edge: Arc<Edge>,
    certificates: Option<Arc<ListenerCertificates>>,
}

/// Why a listener could not be bound.
#[derive(Debug, thiserror::Error)]
#[error("listener `{name}` cannot listen on {address}: {error}{hint}")]
pub struct BindError {
    name: String,
    address: String,
    error: std::io::Error,
    hint: &'static str,
}

impl Listener {
    /// Binds `address` (`HOST:PORT`; port 0 takes a free one).
    ///
    /// # Errors
    /// When the name does not resolve, or the address cannot be bound.
    pub async fn bind(name: &str, address: &str, edge: Edge) -> Result<Self, BindError> {
        let failed = |error: std::io::Error| BindError {
            name: name.to_owned(),
            address: address.to_owned(),
            hint: hint(error.kind()),
            error,
        };
        let mut addresses = tokio::net::lookup_host(address).await.map_err(failed)?;
        let missing = || failed(std::io::Error::other("the name has no address"));
        let address = addresses.next().ok_or_else(missing)?;
        let socket = listen(address).map_err(failed)?;
        let address = socket.local_addr().map_err(failed)?;
        Ok(Self { name: name.to_owned(), socket, address, edge: Arc::new(edge), certificates: None })
    }

    /// The same listener, speaking TLS with these.
    #[must_use]
    pub fn with_tls(self, certificates: Option<Arc<ListenerCertificates>>) -> Self {
        Self { certificates, ..self }
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

#[expect(clippy::wildcard_enum_match_arm, reason = "std's kinds of error are many, and more may come")]
fn hint(kind: std::io::ErrorKind) -> &'static str {
    match kind {
        std::io::ErrorKind::AddrInUse => {
            "; another process has it (`ss -ltnp` shows which): stop that one, or change `address`"
        }
        std::io::ErrorKind::PermissionDenied => "; use a port from 1024 on, or grant NET_BIND_SERVICE",
        std::io::ErrorKind::AddrNotAvailable => {
            "; the address is not one of this machine: 0.0.0.0 or [::] listens on every one it has"
        }
        _ => "",
    }
}

fn listen(address: SocketAddr) -> std::io::Result<TcpListener> {
    let socket =
        if address.is_ipv4() { tokio::net::TcpSocket::new_v4() } else { tokio::net::TcpSocket::new_v6() }?;
    // So that a restart need not wait for connections of the process before to be forgotten.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// How a stop goes.
#[derive(Clone, Copy, Debug)]
pub struct Drain {
    /// How long new connections are still taken after the word to stop.
    pub delay: Duration,
    /// How long requests that were taken may then go on.
    pub timeout: Duration,
}

/// The word to stop: cloned to all who wait for it.
#[derive(Clone, Debug)]
pub struct Shutdown(watch::Receiver<bool>);

impl Shutdown {
    /// The word, and who says it.
    #[must_use]
    pub fn new() -> (watch::Sender<bool>, Self) {
        let (say, hear) = watch::channel(false);
        (say, Self(hear))
    }

    /// Waits for the word; a sayer that is gone has said it.
    pub async fn wait(&mut self) {
        let _ = self.0.wait_for(|said| *said).await;
    }
}

/// A gateway on its listeners.
pub struct Server {
    gateway: Arc<Gateway>,
    telemetry: Arc<Telemetry>,
    drain: Drain,
}

impl Server {
    /// A server for this gateway.
    #[must_use]
    pub fn new(gateway: Gateway, telemetry: Arc<Telemetry>, drain: Drain) -> Self {
        Self { gateway: Arc::new(gateway), telemetry, drain }
    }

    /// Serves until told to stop, then until the last request has ended or `drain.timeout` has passed. Returns how many
    /// connections were cut.
    pub async fn run(self, listeners: Vec<Listener>, mut shutdown: Shutdown) -> usize {
        let (say_closed, closed) = watch::channel(false);
        let leave = CancellationToken::new();
        let connections = TaskTracker::new();
        let accepting = TaskTracker::new();
        let sweeping = tokio::spawn(Pools::sweep(Arc::downgrade(&self.gateway.pools)));
        for listener in listeners {
            let accept = Accept {
                gateway: Arc::clone(&self.gateway),
                site: Arc::new(Site {
                    edge: Arc::clone(&listener.edge),
                    certificates: listener.certificates.clone(),
                }),
                open: self.telemetry.connections(&listener.name),
                errors: self.telemetry.accept_errors(&listener.name),
                places: Arc::new(Semaphore::new(listener.edge.connections)),
                connections: connections.clone(),
                leave: leave.clone(),
            };
            accepting.spawn(accept.run(listener, closed.clone()));
        }
        accepting.close();
        shutdown.wait().await;
        // Connections end with their next answer from now on, and new ones are still taken.
        self.gateway.close();
        tokio::time::sleep(self.drain.delay).await;
        say_closed.send_replace(true);
        accepting.wait().await;
        connections.close();
        // One that was taken at the last moment has its request still on the way.
        let _ = tokio::time::timeout(LAST_REQUESTS, connections.wait()).await;
        // Connections that wait for a request are closed now; requests that run go on.
        leave.cancel();
        let _ = tokio::time::timeout(self.drain.timeout, connections.wait()).await;
        sweeping.abort();
        connections.len()
    }
}

struct Accept {
    gateway: Arc<Gateway>,
    site: Arc<Site>,
    open: GenericGauge<AtomicI64>,
    errors: prometheus::IntCounter,
    /// One for each connection that may be open.
    places: Arc<Semaphore>,
    connections: TaskTracker,
    leave: CancellationToken,
}

impl Accept {
    async fn run(self, listener: Listener, mut closed: watch::Receiver<bool>) {
        loop {
            let accepted = tokio::select! {
                accepted = self.accept(&listener) => accepted,
                _ = closed.wait_for(|closed| *closed) => break,
            };
            match accepted {
                Ok(connection) => self.serve(connection),
                Err(error) => {
                    self.errors.inc();
                    // A connection that ended while it waited is no reason to pause; a lack of descriptors is.
                    if !is_of_the_connection(&error) {
                        tracing::warn!(%error, listener = listener.name, "no connection can be accepted: raise the limit of open files, or add replicas");
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                    }
                }
            }
        }
        // What the kernel took before the end was accepted from the client's point of view: serve it as well.
        while let Ok(Ok(connection)) =
            tokio::time::timeout(Duration::from_millis(1), self.accept(&listener)).await
        {
            self.serve(connection);
        }
    }

    /// The next connection, once there is a place for it.
    async fn accept(&self, listener: &Listener) -> std::io::Result<Accepted> {
        // The semaphore is never closed.
        let place = Arc::clone(&self.places).acquire_owned().await.ok();
        let (socket, peer) = listener.socket.accept().await?;
        Ok(Accepted { socket, peer, place })
    }

    fn serve(&self, Accepted { socket, peer, place }: Accepted) {
        let (gateway, leave) = (Arc::clone(&self.gateway), self.leave.clone());
        let client = Client::new(peer.ip().to_canonical(), Arc::clone(&self.site));
        let open = OpenConnection::new(&self.open);
        self.connections.spawn(async move {
            let _open = (open, place);
            connection::serve(gateway, client, socket, leave).await;
        });
    }
}

/// A connection that was accepted.
struct Accepted {
    socket: TcpStream,
    peer: SocketAddr,
    place: Option<OwnedSemaphorePermit>,
}

fn is_of_the_connection(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted)
}

/// Counts a connection for as long as it is open.
struct OpenConnection(GenericGauge<AtomicI64>);

impl OpenConnection {
    fn new(gauge: &GenericGauge<AtomicI64>) -> Self {
        gauge.inc();
        Self(gauge.clone())
    }
}

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.0.dec();
    }
}
