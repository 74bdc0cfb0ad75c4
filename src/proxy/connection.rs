//! A client's connection, from its first byte to its last.

use std::future::poll_fn;
use std::net::IpAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;

use rustls::server::Acceptor;
use rustls::{HandshakeKind, ProtocolVersion};
use tokio::net::TcpStream;
use tokio_rustls::{LazyConfigAcceptor, server::TlsStream};
use tokio_util::sync::CancellationToken;

use crate::model::{ConnectionRefusal, Edge, Problem};
use crate::telemetry::{AccessTls, RefusedConnection, Telemetry};
use crate::tls::{BEGIN, ListenerCertificates, explain_refusal};
use crate::wire::h1::{H1Server, Next};
use crate::wire::{Alarm, Link, RequestHead, serve_http2};

use super::Gateway;
use super::exchange::Exchange;
use super::proxy_protocol::{self, NoHeader};

/// What all connections of a listener share.
#[derive(Debug)]
pub(super) struct Site {
    /// The listener's name.
    pub(super) name: String,
    pub(super) telemetry: Arc<Telemetry>,
    pub(super) edge: Arc<Edge>,
    pub(super) certificates: Option<Arc<ListenerCertificates>>,
}

impl Site {
    /// Where a client is sent that should use HTTPS.
    pub(super) fn location(&self, head: &RequestHead) -> String {
        let host = host(&head.authority);
        match self.edge.redirect.map_or(443, |redirect| redirect.port) {
            443 => format!("https://{host}{}", head.target),
            port => format!("https://{host}:{port}{}", head.target),
        }
    }
}

/// An authority without its port.
fn host(authority: &str) -> &str {
    match authority.rfind(':') {
        Some(colon) if !authority.get(colon..).is_some_and(|rest| rest.contains(']')) => {
            authority.get(..colon).unwrap_or(authority)
        }
        _ => authority,
    }
}

/// Who is at the other end of a connection.
#[derive(Debug)]
pub(super) struct Client {
    pub(super) peer: IpAddr,
    /// The same as each request's `X-Forwarded-For` has it: written once.
    pub(super) peer_name: String,
    pub(super) site: Arc<Site>,
    /// The host that a TLS connection is for, if it said so (RFC 6066 §3).
    sni: Option<String>,
    /// The version of its TLS, and whether it went on with an earlier session.
    tls: Option<(&'static str, bool)>,
}

impl Client {
    /// A client of a listener.
    pub(super) fn new(peer: IpAddr, site: Arc<Site>) -> Self {
        Self { peer, peer_name: peer.to_string(), site, sni: None, tls: None }
    }

    /// The connection is not served, and those who run the router are told why.
    fn refused(&self, reason: ConnectionRefusal, problem: &Problem) {
        let (listener, sni) = (self.site.name.as_str(), self.sni.as_deref());
        let refused = RefusedConnection { listener, client: self.peer, sni, reason, problem };
        self.site.telemetry.connection_refused(refused);
    }

    /// What the connection is, as `X-Forwarded-Proto` has it.
    pub(super) fn scheme(&self) -> &'static str {
        if self.site.certificates.is_some() { "https" } else { "http" }
    }

    /// Its TLS, as the access log shows it.
    pub(super) fn tls(&self) -> Option<AccessTls<'_>> {
        let (version, resumed) = self.tls?;
        Some(AccessTls { version, resumed, server_name: self.sni.as_deref() })
    }

    /// Whether this connection is for this authority: a TLS connection is for those hosts that its certificate would be shown
    /// for (RFC 9110 §15.5.20).
    pub(super) fn is_for(&self, authority: &str) -> bool {
        let certificates = self.site.certificates.as_ref();
        certificates.is_none_or(|of| of.same_certificate(self.sni.as_deref(), host(authority)))
    }
}

/// Serves a connection to its end. `leave` tells that none should wait for a next request any more.
pub(super) async fn serve(
    gateway: Arc<Gateway>,
    mut client: Client,
    mut socket: TcpStream,
    leave: CancellationToken,
) {
    // Without it answers wait for acknowledgements; a socket that refuses it is about to fail anyway.
    let _ = socket.set_nodelay(true);
    let site = Arc::clone(&client.site);
    let edge = &site.edge;
    if edge.proxy_protocol {
        match introduced(&gateway, &client, &mut socket).await {
            Some(peer) => (client.peer, client.peer_name) = (peer, peer.to_string()),
            None => return,
        }
    }
    let Some(certificates) = &site.certificates else {
        return serve_h1(gateway, client, Link::plain(socket), &leave).await;
    };
    // Apart, as all that is not for long or not for most: a connection that waits for requests is to hold little.
    let Some(stream) = Box::pin(secured(certificates, &mut client, socket)).await else { return };
    let tls = stream.get_ref().1;
    let http2 = tls.alpn_protocol() == Some(b"h2");
    let version =
        if tls.protocol_version() == Some(ProtocolVersion::TLSv1_3) { "TLSv1.3" } else { "TLSv1.2" };
    client.tls = Some((version, tls.handshake_kind() == Some(HandshakeKind::Resumed)));
    let link = Link::tls(tokio_rustls::TlsStream::Server(stream));
    if http2 {
        Box::pin(serve_h2(gateway, client, link, &leave)).await;
    } else {
        serve_h1(gateway, client, link, &leave).await;
    }
}

/// Who the client is, by the PROXY protocol. Nothing where the connection is not to be served: who may not speak for others,
/// or does not do so at once.
async fn introduced(gateway: &Gateway, client: &Client, socket: &mut TcpStream) -> Option<IpAddr> {
    const HEADER: &str =
        "let the load balancer send one, or leave out `proxyProtocol` and let clients connect without it";
    const WELL_FORMED: &str =
        "look at the load balancer's settings for the PROXY protocol: version 1 or 2 is read";
    let patience = client.site.edge.header_timeout;
    let (reason, problem) = match tokio::time::timeout(patience, proxy_protocol::read(socket)).await {
        Ok(Ok(spoken)) if gateway.may_introduce(client.peer) => return Some(spoken.unwrap_or(client.peer)),
        // There was no client: load balancers look whether somebody listens.
        Ok(Err(NoHeader::Nothing)) => return None,
        Ok(Ok(_)) => (
            ConnectionRefusal::ProxyProtocolUntrusted,
            Problem::new(
                "a PROXY header came from one who is not in `trustedProxies`",
                "if it is the load balancer, put its network into `trustedProxies`; keep everyone else from this port",
            ),
        ),
        Ok(Err(wrong)) => {
            let remedy = if matches!(wrong, NoHeader::Missing) { HEADER } else { WELL_FORMED };
            (ConnectionRefusal::ProxyProtocol, Problem::new(wrong.to_string(), remedy))
        }
        Err(_) => (
            ConnectionRefusal::ProxyProtocolTimeout,
            Problem::new(format!("no PROXY header came within {patience:?} (`timeouts.header`)"), HEADER),
        ),
    };
    client.refused(reason, &problem);
    None
}

/// The connection with TLS on it; the client's host is known then. Nothing where there is no TLS to be had: TLS itself tells
/// the client why.
async fn secured(
    certificates: &ListenerCertificates,
    client: &mut Client,
    socket: TcpStream,
) -> Option<TlsStream<TcpStream>> {
    let edge = Arc::clone(&client.site.edge);
    let mut begin = [0; BEGIN];
    let mut began = 0;
    let handshake = async {
        began = socket.peek(&mut begin).await?;
        let hello = LazyConfigAcceptor::new(Acceptor::default(), socket).await?;
        client.sni = hello.client_hello().server_name().map(str::to_owned);
        hello.into_stream(certificates.server_config(edge.http2)).await
    };
    let patience = edge.header_timeout;
    let (reason, problem) = match tokio::time::timeout(patience, handshake).await {
        Ok(Ok(stream)) => return Some(stream),
        // Nobody wanted anything: load balancers look whether somebody listens.
        Ok(Err(_)) if began == 0 => return None,
        Ok(Err(error)) => explain_refusal(&error, begin.get(..began).unwrap_or_default()),
        Err(_) if began == 0 => (
            ConnectionRefusal::TlsTimeout,
            Problem::new(
                format!("nothing came on the connection within {patience:?} (`timeouts.header`)"),
                "a monitor or a browser that keeps a spare connection is no harm; many from one client are",
            ),
        ),
        Err(_) => (
            ConnectionRefusal::TlsTimeout,
            Problem::new(
                format!("the TLS handshake did not end within {patience:?} (`timeouts.header`)"),
                "a slow network, or a client that holds connections for nothing",
            ),
        ),
    };
    client.refused(reason, &problem);
    None
}

async fn serve_h2(gateway: Arc<Gateway>, client: Client, link: Link, leave: &CancellationToken) {
    let farewell = gateway.farewell.clone();
    // Told to go elsewhere when the router stops, or when others need its place and it rests.
    let told = async {
        tokio::select! {
            () = farewell.cancelled() => {}
            () = leave.cancelled() => {}
        }
    };
    // Whoever ends what runs at `drain.timeout` wakes the connection, and each stream is polled only when something is for it.
    let cut = CancellationToken::new();
    let (to, from, end) = (&*gateway, &client, &cut);
    let serving = serve_http2(link, &client.site.edge, told, |mut requests| async move {
        let mut alarm = Alarm::new();
        let serving = async {
            while let Some((head, mut down)) = requests.next().await {
                let mut exchange = Exchange { gateway: to, client: from, down: &mut down, alarm: &mut alarm };
                match head {
                    Ok((mut head, length)) => {
                        exchange.serve(&mut head, length).await;
                    }
                    Err((refused, seen)) => exchange.refuse(refused, &seen).await,
                }
            }
        };
        woken_by(end, pin!(serving)).await;
    });
    let mut serving = pin!(serving);
    poll_fn(|cx| {
        if gateway.is_cut() {
            cut.cancel();
        }
        serving.as_mut().poll(cx)
    })
    .await;
}

/// Does as `serving` does, and has it look around when `cut` is said: it is woken then, though nothing has come for it.
async fn woken_by(cut: &CancellationToken, mut serving: Pin<&mut impl Future<Output = ()>>) {
    let mut said = pin!(cut.cancelled());
    let mut asked = false;
    poll_fn(|cx| {
        // Asked once: a task has one waker for all its life.
        if !std::mem::replace(&mut asked, true) {
            let _ = said.as_mut().poll(cx);
        }
        serving.as_mut().poll(cx)
    })
    .await;
}

async fn serve_h1(gateway: Arc<Gateway>, client: Client, link: Link, leave: &CancellationToken) {
    let edge = &Arc::clone(&client.site.edge);
    let mut server = H1Server::new(link, Arc::clone(edge));
    let mut head = RequestHead::default();
    let mut alarm = Alarm::new();
    alarm.after(edge.header_timeout);
    let left = leave.cancelled();
    tokio::pin!(left);
    let mut asked = false;
    loop {
        let mut begun = false;
        let next = poll_fn(|cx| {
            if let Poll::Ready(next) = server.poll_next(cx, &mut head) {
                return Poll::Ready(Some(next));
            }
            // From its first byte on, a head has its own time.
            if server.has_begun() && !std::mem::replace(&mut begun, true) {
                alarm.after(edge.header_timeout);
            }
            // Asked once: a task has one waker for all its life.
            if !std::mem::replace(&mut asked, true) {
                let _ = left.as_mut().poll(cx);
            }
            if !begun && leave.is_cancelled() {
                return Poll::Ready(None);
            }
            alarm.poll(cx).map(|()| None)
        })
        .await;
        let mut exchange =
            Exchange { gateway: &gateway, client: &client, down: &mut server, alarm: &mut alarm };
        let ended = match next {
            Some(Next::Request(length)) => exchange.serve(&mut head, length).await,
            Some(Next::Refused(refused)) => {
                let seen = exchange.down.glimpse();
                exchange.refuse(refused, &seen).await;
                return Box::pin(server.linger()).await;
            }
            None if begun => {
                let seen = exchange.down.glimpse();
                exchange.time_out(&seen).await;
                return Box::pin(server.linger()).await;
            }
            Some(Next::Http2) => {
                let (link, ahead) = server.into_parts();
                return Box::pin(serve_h2(gateway, client, link.with_ahead(ahead), leave)).await;
            }
            Some(Next::End) | None => return,
        };
        if !server.rest() {
            if server.must_reset() {
                server.io().reset_on_close();
            } else {
                Box::pin(server.linger()).await;
            }
            return;
        }
        alarm.set(Some(ended + edge.idle_timeout));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_an_authority_without_its_port() {
        for (authority, wanted) in [("a", "a"), ("a:80", "a"), ("[::1]", "[::1]"), ("[::1]:8080", "[::1]")] {
            assert_eq!(host(authority), wanted);
        }
    }
}
