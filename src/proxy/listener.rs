//! Listening sockets: bound, taken over from the process before, and closed without losing a connection.

use std::net::SocketAddr;
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::{Arc, Weak};

use socket2::{SockFilter, SockRef};
use tokio::net::TcpListener;

use crate::model::Edge;
use crate::tls::ListenerCertificates;

/// Connections that wait to be accepted.
pub(super) const BACKLOG: u32 = 4096;

/// A bound listener.
#[derive(Debug)]
pub struct Listener {
    pub(super) name: String,
    pub(super) socket: Arc<TcpListener>,
    pub(super) edge: Arc<Edge>,
    address: SocketAddr,
    pub(super) certificates: Option<Arc<ListenerCertificates>>,
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
        Ok(Self::on(name, socket, address, edge))
    }

    /// A listener on a socket that listens already: the process before had it.
    ///
    /// # Errors
    /// When the runtime cannot take it in.
    pub fn inherited(name: &str, socket: std::net::TcpListener, edge: Edge) -> std::io::Result<Self> {
        socket.set_nonblocking(true)?;
        let address = socket.local_addr()?;
        Ok(Self::on(name, TcpListener::from_std(socket)?, address, edge))
    }

    fn on(name: &str, socket: TcpListener, address: SocketAddr, edge: Edge) -> Self {
        let (socket, edge) = (Arc::new(socket), Arc::new(edge));
        Self { name: name.to_owned(), socket, address, edge, certificates: None }
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

    /// What hands its socket to another process, for as long as it listens.
    #[must_use]
    pub fn shared(&self) -> SharedSocket {
        SharedSocket::new(Arc::downgrade(&self.socket))
    }
}

/// A listening socket that another process may be given.
#[derive(Clone, Debug)]
pub struct SharedSocket(Weak<TcpListener>);

impl SharedSocket {
    /// This socket, for as long as it has its owner.
    #[must_use]
    pub fn new(socket: Weak<TcpListener>) -> Self {
        Self(socket)
    }

    /// A further descriptor of the socket; nothing once it listens no more.
    ///
    /// # Errors
    /// When there is no descriptor left.
    pub fn duplicate(&self) -> std::io::Result<Option<OwnedFd>> {
        self.0.upgrade().map(|socket| socket.as_fd().try_clone_to_owned()).transpose()
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

/// Lets no new handshake begin on a listening socket, while those under way end and wait to be accepted. Closing a listening
/// socket resets what waits in its queue, and so does `shutdown` on Linux; with this the queue can be emptied before. Who is
/// turned away here tries again by itself after a second, as TCP does, and is refused then.
pub(super) fn take_no_more(socket: &TcpListener) -> std::io::Result<()> {
    // In the words of the classic BPF, over the TCP header: a packet with SYN and without ACK is dropped.
    const FLAGS: u32 = 13;
    const SYN: u32 = 0x02;
    const ACK: u32 = 0x10;
    const LOAD_BYTE: u16 = 0x30;
    const AND: u16 = 0x54;
    const JUMP_IF_EQUAL: u16 = 0x15;
    const RETURN: u16 = 0x06;
    SockRef::from(socket).attach_filter(&[
        SockFilter::new(LOAD_BYTE, 0, 0, FLAGS),
        SockFilter::new(AND, 0, 0, SYN | ACK),
        SockFilter::new(JUMP_IF_EQUAL, 0, 1, SYN),
        SockFilter::new(RETURN, 0, 0, 0),
        SockFilter::new(RETURN, 0, 0, u32::MAX),
    ])
}

/// Lets handshakes begin again, on a socket that the process before it had done with.
pub(super) fn take_again(socket: &TcpListener) {
    // Fails where there is no filter, which is as it should be.
    let _ = SockRef::from(socket).detach_filter();
}
