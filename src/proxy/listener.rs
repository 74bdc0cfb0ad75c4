//! Listeners: accepting connections, and stopping without losing one (semantics §4.5).
//!
//! pingora's own server closes its listeners the moment it is told to stop and then sleeps; here the listener goes on for
//! `drain.delay`, so that those who have not heard yet lose nothing, and the wait ends as soon as the last request has.

use std::net::SocketAddr;
use std::os::fd::AsRawFd as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use pingora::apps::{HttpServerApp as _, ServerApp as _};
use pingora::protocols::l4::stream::Stream;
use pingora::protocols::{GetSocketDigest as _, SocketDigest};
use pingora::proxy::HttpProxy;
use pingora::server::configuration::ServerConf;
use prometheus::core::{AtomicI64, GenericGauge};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_util::task::TaskTracker;

use crate::telemetry::Telemetry;

use super::Gateway;
use super::gateway::ATTEMPTS;

/// How many idle connections to pods are kept, all pods together.
const IDLE_POOL: usize = 4096;
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
    pub async fn bind(name: &str, address: &str) -> Result<Self, BindError> {
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
        Ok(Self { name: name.to_owned(), socket, address })
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
    proxy: Arc<HttpProxy<Gateway>>,
    closing: Arc<AtomicBool>,
    telemetry: Arc<Telemetry>,
    drain: Drain,
}

impl Server {
    /// A server for this gateway.
    #[must_use]
    pub fn new(gateway: Gateway, telemetry: Arc<Telemetry>, drain: Drain) -> Self {
        let conf = ServerConf {
            threads: std::thread::available_parallelism().map_or(1, usize::from),
            upstream_keepalive_pool_size: IDLE_POOL,
            max_retries: ATTEMPTS,
            ..ServerConf::default()
        };
        let closing = Arc::clone(&gateway.closing);
        let mut proxy = HttpProxy::new(gateway, Arc::new(conf));
        proxy.handle_init_modules();
        Self { proxy: Arc::new(proxy), closing, telemetry, drain }
    }

    /// Serves until told to stop, then until the last request has ended or `drain.timeout` has passed. Returns how many
    /// connections were cut.
    pub async fn run(self, listeners: Vec<Listener>, mut shutdown: Shutdown) -> usize {
        // Two words: `closing` makes connections end after the next answer; `closed` ends the accepting.
        let (say_closing, closing) = watch::channel(false);
        let (say_closed, closed) = watch::channel(false);
        let connections = TaskTracker::new();
        let accepting = TaskTracker::new();
        for listener in listeners {
            let accept = Accept {
                proxy: Arc::clone(&self.proxy),
                open: self.telemetry.connections(&listener.name),
                errors: self.telemetry.accept_errors(&listener.name),
                connections: connections.clone(),
                closing: closing.clone(),
            };
            accepting.spawn(accept.run(listener, closed.clone()));
        }
        accepting.close();
        shutdown.wait().await;
        self.closing.store(true, Ordering::Relaxed);
        say_closing.send_replace(true);
        tokio::time::sleep(self.drain.delay).await;
        say_closed.send_replace(true);
        accepting.wait().await;
        connections.close();
        // One that was taken at the last moment has its request still on the way.
        let _ = tokio::time::timeout(LAST_REQUESTS, connections.wait()).await;
        // Connections that wait for a request are closed now; requests that run go on.
        self.proxy.http_cleanup().await;
        let _ = tokio::time::timeout(self.drain.timeout, connections.wait()).await;
        connections.len()
    }
}

struct Accept {
    proxy: Arc<HttpProxy<Gateway>>,
    open: GenericGauge<AtomicI64>,
    errors: prometheus::IntCounter,
    connections: TaskTracker,
    closing: watch::Receiver<bool>,
}

impl Accept {
    async fn run(self, listener: Listener, mut closed: watch::Receiver<bool>) {
        loop {
            let accepted = tokio::select! {
                accepted = listener.socket.accept() => accepted,
                _ = closed.wait_for(|closed| *closed) => break,
            };
            match accepted {
                Ok((socket, peer)) => self.serve(socket, peer),
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
        while let Ok(Ok((socket, peer))) =
            tokio::time::timeout(Duration::from_millis(1), listener.socket.accept()).await
        {
            self.serve(socket, peer);
        }
    }

    fn serve(&self, socket: TcpStream, peer: SocketAddr) {
        let stream = stream(socket, peer);
        let (proxy, closing) = (Arc::clone(&self.proxy), self.closing.clone());
        let open = OpenConnection::new(&self.open);
        self.connections.spawn(async move {
            let _open = open;
            proxy.process_new(Box::new(stream), &closing).await;
        });
    }
}

/// A pingora stream of an accepted socket, as its own listeners make it.
fn stream(socket: TcpStream, peer: SocketAddr) -> Stream {
    // Without it answers wait for acknowledgements; a socket that refuses it is about to fail anyway.
    let _ = socket.set_nodelay(true);
    let digest = SocketDigest::from_raw_fd(socket.as_raw_fd());
    let _ = digest.peer_addr.set(Some(peer.into()));
    let mut stream = Stream::from(socket);
    stream.set_socket_digest(digest);
    stream
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
