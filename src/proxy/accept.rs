//! One listener's loop: takes connections in while there is a place for them, and gets over a lack of descriptors.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use prometheus::core::{AtomicI64, GenericGauge};
use rustix::io::Errno;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::telemetry::Telemetry;

use super::Gateway;
use super::connection::{self, Client, Site};
use super::listener::{BACKLOG, Listener, take_again, take_no_more};
use super::roster::Roster;

/// How long to wait when no connection can be accepted (out of file descriptors, for one).
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// How long nothing must have been lacking until a lack of descriptors, or of places, is over.
const RECOVERED: Duration = Duration::from_secs(5);
/// While no place is free, how often idle connections are asked to leave.
const THIN_OUT: Duration = Duration::from_millis(250);
/// How long after the last handshake the queue of a listener that closes is taken for empty: clients that began before have
/// this long to end theirs.
const LAST_HANDSHAKES: Duration = Duration::from_millis(100);
/// The same where new handshakes could not be held off.
const LAST_ACCEPTS: Duration = Duration::from_millis(1);
/// The longest time that the end takes.
const LONGEST_END: Duration = Duration::from_secs(1);

/// The listeners that another process serves from now on, once the word to close has come.
pub(super) type Closed = Option<Arc<[String]>>;

/// What a listener's loop works with.
pub(super) struct Accept {
    pub(super) gateway: Arc<Gateway>,
    pub(super) telemetry: Arc<Telemetry>,
    pub(super) site: Arc<Site>,
    pub(super) name: String,
    pub(super) open: GenericGauge<AtomicI64>,
    /// One for each connection that this listener may have open.
    pub(super) own_places: Arc<Semaphore>,
    /// One for each connection that all listeners together may have open.
    pub(super) all_places: Arc<Semaphore>,
    pub(super) own: Arc<Roster>,
    pub(super) all: Arc<[Arc<Roster>]>,
    pub(super) connections: TaskTracker,
    pub(super) leave: CancellationToken,
    pub(super) episodes: Episodes,
}

/// What was said once, and is not said again before it is over.
#[derive(Debug, Default)]
pub(super) struct Episodes {
    /// The last time that something was lacking to accept a connection.
    short: Option<Instant>,
    /// The last time that every place was taken.
    full: Option<Instant>,
}

impl Episodes {
    /// When one of them may be over.
    fn end(&self) -> Option<Instant> {
        self.short.into_iter().chain(self.full).min().map(|last| last + RECOVERED)
    }
}

/// A connection that was accepted, with its places.
type Accepted = (TcpStream, SocketAddr, Vec<OwnedSemaphorePermit>);

impl Accept {
    /// Accepts until the word to close comes; then what the kernel has taken by then, unless another process goes on with the
    /// socket.
    pub(super) async fn run(mut self, listener: Listener, mut closed: watch::Receiver<Closed>) {
        take_again(&listener.socket);
        let elsewhere = loop {
            let end = self.episodes.end();
            let accepted = tokio::select! {
                accepted = self.accept(&listener.socket) => accepted,
                closed = closed.wait_for(Option::is_some) => {
                    let names = closed.ok().and_then(|names| names.clone());
                    break names.is_some_and(|names| names.contains(&self.name));
                }
                () = tokio::time::sleep_until(end.unwrap_or_else(Instant::now)), if end.is_some() => {
                    self.look_for_recovery();
                    continue;
                }
            };
            match accepted {
                Ok((socket, peer, places)) => self.serve(socket, peer, places),
                Err(error) => self.failed(&error).await,
            }
        };
        if !elsewhere {
            self.accept_the_last(&listener.socket).await;
        }
    }

    /// The next connection, once there is a place for it.
    async fn accept(&mut self, socket: &TcpListener) -> std::io::Result<Accepted> {
        let places = self.places().await;
        let (socket, peer) = socket.accept().await?;
        Ok((socket, peer, places))
    }

    /// A place of the listener, and one of all listeners. While there is none, idle connections are asked to leave.
    async fn places(&mut self) -> Vec<OwnedSemaphorePermit> {
        let mut places = Vec::with_capacity(2);
        let own = (Arc::clone(&self.own_places), Arc::from([Arc::clone(&self.own)]));
        let all = (Arc::clone(&self.all_places), Arc::clone(&self.all));
        for (semaphore, rosters) in [own, all] {
            if let Ok(place) = Arc::clone(&semaphore).try_acquire_owned() {
                places.push(place);
                continue;
            }
            loop {
                self.full();
                thin_out(&rosters);
                // The semaphore is never closed.
                if let Ok(place) =
                    tokio::time::timeout(THIN_OUT, Arc::clone(&semaphore).acquire_owned()).await
                {
                    places.extend(place.ok());
                    break;
                }
            }
        }
        places
    }

    /// Every place is taken: said once, until it is over.
    fn full(&mut self) {
        if self.episodes.full.replace(Instant::now()).is_none() {
            let open = self.open.get();
            self.telemetry.connection_limit_reached(&self.name, open);
        }
    }

    fn look_for_recovery(&mut self) {
        let is_over = |last: &mut Instant| last.elapsed() >= RECOVERED;
        if self.episodes.short.take_if(is_over).is_some() {
            self.telemetry.accepting_again(&self.name);
        }
        if self.episodes.full.take_if(is_over).is_some() {
            self.telemetry.below_connection_limit(&self.name);
        }
    }

    /// No connection could be accepted.
    async fn failed(&mut self, error: &std::io::Error) {
        self.telemetry.accept_errors(&self.name).inc();
        // A connection that ended while it waited is no reason to pause; a lack of descriptors is.
        if is_of_the_connection(error) {
            return;
        }
        if self.episodes.short.replace(Instant::now()).is_none() {
            self.telemetry.cannot_accept(&self.name, error);
        }
        self.make_room();
        tokio::time::sleep(ACCEPT_PAUSE).await;
    }

    /// Lets go of connections that nobody needs just now: those to pods, and of clients that are idle.
    fn make_room(&self) {
        self.gateway.pools.close_idle();
        thin_out(&self.all);
    }

    /// Takes what the kernel has accepted in our name: the clients think that they are connected. Whatever the limits say: it
    /// is the end of the queue, and the end of the listener.
    async fn accept_the_last(&mut self, socket: &TcpListener) {
        let quiet = match take_no_more(socket) {
            Ok(()) => LAST_HANDSHAKES,
            Err(error) => {
                tracing::debug!(%error, "new handshakes cannot be held off while the listener closes");
                LAST_ACCEPTS
            }
        };
        let end = Instant::now() + LONGEST_END;
        for _ in 0..BACKLOG {
            match tokio::time::timeout(quiet, socket.accept()).await {
                Ok(Ok((socket, peer))) => self.serve(socket, peer, Vec::new()),
                Ok(Err(error)) if is_shortage(&error) => self.failed(&error).await,
                Ok(Err(_)) => {}
                Err(_) => return,
            }
            if Instant::now() >= end {
                return;
            }
        }
    }

    fn serve(&self, socket: TcpStream, peer: SocketAddr, places: Vec<OwnedSemaphorePermit>) {
        let (gateway, leave) = (Arc::clone(&self.gateway), self.leave.child_token());
        let client = Client::new(peer.ip().to_canonical(), Arc::clone(&self.site));
        let open = OpenConnection::new(&self.open);
        let entry = self.own.add(leave.clone());
        let watched = Arc::clone(&entry);
        let serving = async move {
            let _open = (open, places);
            let mut serving = pin!(connection::serve(gateway, client, socket, leave));
            poll_fn(|cx| watched.poll(serving.as_mut(), cx)).await;
        };
        entry.ends_by(self.connections.spawn(serving).abort_handle());
    }
}

fn thin_out(rosters: &[Arc<Roster>]) {
    for roster in rosters {
        roster.thin_out();
    }
}

fn is_of_the_connection(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted)
}

/// Whether this machine, or this process, has no descriptor or memory left for a connection: nobody else's fault.
pub(super) fn is_shortage(error: &std::io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shortage_is_told_from_other_errors() {
        for (code, short) in [(24, true), (23, true), (105, true), (12, true), (111, false), (104, false)] {
            assert_eq!(is_shortage(&std::io::Error::from_raw_os_error(code)), short, "{code}");
        }
    }
}
