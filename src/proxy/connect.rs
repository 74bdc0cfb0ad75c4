//! Connections to pods: taken from the pool, or made.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::future::BoxFuture;
use socket2::{SockRef, TcpKeepalive};
use tokio::net::TcpStream;

use crate::model::Protocol;
use crate::routing::{Endpoint, Route};
use crate::tls::{self, Alpn, UpstreamConnectors};
use crate::wire::h1::H1Client;
use crate::wire::{
    Fields, H2Connection, H2Request, H2Settings, Length, Link, Piece, RequestHead, ResponseHead, Upstream,
    UpstreamError,
};

use super::Gateway;
use super::accept::is_shortage;
use super::failure::ConnectFailure;
use super::health::{Connected, Connector};
use super::pool::{Pool, Pools};

/// A connection to a pod on which nothing passes for so long is asked whether its other side is there (RFC 9293 §3.8.4), this
/// often. A pod that only takes its time answers: its kernel does.
const KEEPALIVE: TcpKeepalive = TcpKeepalive::new()
    .with_time(Duration::from_secs(15))
    .with_interval(Duration::from_secs(5))
    .with_retries(3);

/// A connection to a pod, or a place on one, for one request.
pub(super) enum Connection {
    /// A connection of its own.
    Http1 {
        client: Box<H1Client<Link>>,
        /// It served another request before.
        reused: bool,
    },
    /// A stream on a connection that it shares.
    Http2(Box<H2Request>),
}

/// What connections are made with, and for whom.
#[derive(Clone, Copy)]
pub(super) struct Reach<'a> {
    pub(super) pools: &'a Pools,
    pub(super) connectors: &'a UpstreamConnectors,
    /// For copies of requests, which must not take anything from these.
    pub(super) for_copies: bool,
}

impl<'a> Reach<'a> {
    fn of(gateway: &'a Gateway) -> Self {
        Self { pools: &gateway.pools, connectors: &gateway.options.connectors, for_copies: false }
    }

    fn pool(self, endpoint: &Endpoint) -> Option<&Pool> {
        if self.for_copies { self.pools.of_copies(endpoint) } else { self.pools.of(endpoint) }
    }
}

/// Which connections will do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    /// One that waits, or a new one.
    Any,
    /// A new one.
    New,
}

impl Connection {
    /// A connection to this endpoint of this route; `now` may be a few milliseconds old.
    ///
    /// # Errors
    /// When there is none to be had within `timeouts.connect`.
    pub(super) async fn open(
        gateway: &Gateway,
        route: &Route,
        endpoint: &Arc<Endpoint>,
        wanted: Wanted,
        now: Instant,
    ) -> Result<Self, ConnectFailure> {
        let patience = route.spec.traffic.timeouts.connect;
        if endpoint.protocol == Protocol::Http1
            && let Some(pool) = gateway.pools.of(endpoint)
        {
            pool.meet(endpoint);
        }
        let reach = Reach::of(gateway);
        if let Some(waiting) = Self::waiting(reach, endpoint, wanted, now) {
            return Ok(waiting);
        }
        // Apart: what it takes to make one is held by few requests, not by each connection from a client.
        let opening = Box::pin(Self::of(reach, endpoint, wanted));
        tokio::time::timeout(patience, opening).await.unwrap_or(Err(ConnectFailure::Timeout))
    }

    /// One that waits, if such will do.
    fn waiting(reach: Reach<'_>, endpoint: &Endpoint, wanted: Wanted, now: Instant) -> Option<Self> {
        let pool = reach.pool(endpoint)?;
        match endpoint.protocol {
            Protocol::Http1 if wanted == Wanted::New => None,
            Protocol::Http1 => pool.take(now).map(|client| Self::Http1 { client, reused: true }),
            Protocol::H2c => pool.stream().map(|request| Self::Http2(Box::new(request))),
        }
    }

    /// The same, for as long as it takes.
    pub(super) async fn of(
        reach: Reach<'_>,
        endpoint: &Endpoint,
        wanted: Wanted,
    ) -> Result<Self, ConnectFailure> {
        match endpoint.protocol {
            Protocol::Http1 => {
                if let Some(waiting) = Self::waiting(reach, endpoint, wanted, Instant::now()) {
                    return Ok(waiting);
                }
                let link = link(reach, endpoint, Alpn::Http1).await?;
                Ok(Self::Http1 { client: Box::new(H1Client::new(link)), reused: false })
            }
            Protocol::H2c => Self::http2(reach, endpoint).await,
        }
    }

    async fn http2(reach: Reach<'_>, endpoint: &Endpoint) -> Result<Self, ConnectFailure> {
        let Some(pool) = reach.pool(endpoint) else { return Err(ConnectFailure::Refused) };
        loop {
            if let Some(request) = pool.stream() {
                return Ok(Self::Http2(Box::new(request)));
            }
            // One makes a connection, and the others wait for it: they will find room on it.
            let _one = pool.connecting.lock().await;
            if let Some(request) = pool.stream() {
                return Ok(Self::Http2(Box::new(request)));
            }
            if let Some(busy) = pool.full() {
                busy.ready().await;
                continue;
            }
            let link = link(reach, endpoint, Alpn::Http2).await?;
            let https = endpoint.tls.is_some();
            let settings = H2Settings {
                scheme: if https { http::uri::Scheme::HTTPS } else { http::uri::Scheme::HTTP },
                ..H2Settings::default()
            };
            let (connection, driver) =
                H2Connection::handshake(link, &settings).await.map_err(ConnectFailure::Io)?;
            tokio::spawn(driver);
            pool.add(connection, endpoint);
        }
    }

    /// Whether it served another request before.
    pub(super) fn is_reused(&self) -> bool {
        matches!(self, Self::Http1 { reused: true, .. })
    }

    /// A head for an answer, with the memory of former ones.
    pub(super) fn room_for_head(&mut self) -> ResponseHead {
        match self {
            Self::Http1 { client, .. } => client.room_for_head(),
            Self::Http2(_) => ResponseHead::default(),
        }
    }

    /// Keeps it for another request, if it is fit for one; with the memory of this head.
    pub(super) fn keep(self, gateway: &Gateway, endpoint: &Endpoint, now: Instant, head: ResponseHead) {
        if let Self::Http1 { mut client, .. } = self
            && client.rest()
            && let Some(pool) = gateway.pools.of(endpoint)
        {
            client.keep_room(head);
            pool.keep(client, endpoint, now);
        }
    }

    /// The same, for another copy.
    pub(super) fn keep_for_copies(self, pools: &Pools, endpoint: &Endpoint) {
        if let Self::Http1 { mut client, .. } = self
            && client.rest()
            && let Some(pool) = pools.of_copies(endpoint)
        {
            pool.keep_for_copies(client, endpoint);
        }
    }
}

async fn dial(reach: Reach<'_>, address: SocketAddr) -> std::io::Result<TcpStream> {
    match TcpStream::connect(address).await {
        Err(error) if is_shortage(&error) && !reach.for_copies => {
            // Connections that wait for a request give their descriptors to one that is there.
            reach.pools.close_idle();
            TcpStream::connect(address).await
        }
        connected => connected,
    }
}

/// A new connection to an endpoint, with TLS where the route wants it.
async fn link(reach: Reach<'_>, endpoint: &Endpoint, alpn: Alpn) -> Result<Link, ConnectFailure> {
    let stream = dial(reach, endpoint.id.address).await.map_err(|error| {
        if error.kind() == std::io::ErrorKind::ConnectionRefused {
            ConnectFailure::Refused
        } else if is_shortage(&error) {
            ConnectFailure::Shortage(error)
        } else {
            ConnectFailure::Io(error)
        }
    })?;
    // Without it requests wait for acknowledgements; a socket that refuses it is about to fail anyway.
    let _ = stream.set_nodelay(true);
    // A node that died is found out so; where it cannot be set, the time limits are left.
    let _ = SockRef::from(&stream).set_tcp_keepalive(&KEEPALIVE);
    let Some(tls) = &endpoint.tls else { return Ok(Link::plain(stream)) };
    let name = tls::server_name(tls).map_err(ConnectFailure::Tls)?;
    let stream = reach.connectors.connect(tls, name, alpn, stream).await;
    Ok(Link::tls(tokio_rustls::TlsStream::Client(stream.map_err(ConnectFailure::Tls)?)))
}

/// Connects for health checks as for requests.
#[derive(Debug, Default)]
pub struct PodConnector(pub Arc<UpstreamConnectors>);

impl Connector for PodConnector {
    fn connect(
        &self,
        endpoint: Arc<Endpoint>,
        address: SocketAddr,
    ) -> BoxFuture<'static, io::Result<Connected>> {
        let connectors = Arc::clone(&self.0);
        Box::pin(async move {
            let stream = TcpStream::connect(address).await?;
            let Some(tls) = &endpoint.tls else { return Ok(Box::new(stream) as Connected) };
            let alpn = if endpoint.protocol == Protocol::H2c { Alpn::Http2 } else { Alpn::Http1 };
            let name = tls::server_name(tls).map_err(io::Error::other)?;
            let stream = connectors.connect(tls, name, alpn, stream).await.map_err(io::Error::other)?;
            Ok(Box::new(stream) as Connected)
        })
    }
}

impl Upstream for Connection {
    fn start(&mut self, head: &RequestHead, length: Length) {
        match self {
            Self::Http1 { client, .. } => client.start(head, length),
            Self::Http2(request) => request.start(head, length),
        }
    }

    fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), UpstreamError>> {
        match self {
            Self::Http1 { client, .. } => client.poll_room(cx),
            Self::Http2(request) => request.poll_room(cx),
        }
    }

    fn data(&mut self, data: Bytes) {
        match self {
            Self::Http1 { client, .. } => client.data(data),
            Self::Http2(request) => request.data(data),
        }
    }

    fn end(&mut self, trailers: Option<&Fields>) {
        match self {
            Self::Http1 { client, .. } => client.end(trailers),
            Self::Http2(request) => request.end(trailers),
        }
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), UpstreamError>> {
        match self {
            Self::Http1 { client, .. } => client.poll_flush(cx),
            Self::Http2(request) => request.poll_flush(cx),
        }
    }

    fn backlog(&self) -> usize {
        match self {
            Self::Http1 { client, .. } => client.backlog(),
            Self::Http2(request) => request.backlog(),
        }
    }

    fn poll_head(
        &mut self,
        cx: &mut Context<'_>,
        head: &mut ResponseHead,
    ) -> Poll<Result<Length, UpstreamError>> {
        match self {
            Self::Http1 { client, .. } => client.poll_head(cx, head),
            Self::Http2(request) => request.poll_head(cx, head),
        }
    }

    fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Piece>, UpstreamError>> {
        match self {
            Self::Http1 { client, .. } => client.poll_body(cx),
            Self::Http2(request) => request.poll_body(cx),
        }
    }
}
