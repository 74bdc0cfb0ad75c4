//! A client's connection, from its first byte to its last.

use std::future::poll_fn;
use std::net::IpAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;

use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use crate::model::Edge;
use crate::tls::ListenerCertificates;
use crate::wire::h1::{H1Server, Next};
use crate::wire::{Alarm, Link, RequestHead, serve_http2};

use super::Gateway;
use super::exchange::Exchange;
use super::proxy_protocol;

/// What all connections of a listener share.
#[derive(Debug)]
pub(super) struct Site {
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
    pub(super) site: Arc<Site>,
    /// The host that a TLS connection is for, if it said so (RFC 6066 §3).
    sni: Option<String>,
}

impl Client {
    /// A client of a listener.
    pub(super) fn new(peer: IpAddr, site: Arc<Site>) -> Self {
        Self { peer, site, sni: None }
    }

    /// What the connection is, as `X-Forwarded-Proto` has it.
    pub(super) fn scheme(&self) -> &'static str {
        if self.site.certificates.is_some() { "https" } else { "http" }
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
        let introduced = proxy_protocol::read(&mut socket);
        // Who may not speak for others, or does not do so at once, is not served.
        let spoken = match tokio::time::timeout(edge.header_timeout, introduced).await {
            Ok(Ok(spoken)) if gateway.may_introduce(client.peer) => spoken,
            Ok(_) | Err(_) => return,
        };
        client.peer = spoken.unwrap_or(client.peer);
    }
    let Some(certificates) = &site.certificates else {
        return serve_h1(gateway, client, Link::plain(socket), &leave).await;
    };
    let acceptor = TlsAcceptor::from(certificates.server_config(edge.http2));
    // A handshake that fails, or never ends, is answered by TLS itself.
    let Ok(Ok(stream)) = tokio::time::timeout(edge.header_timeout, acceptor.accept(socket)).await else {
        return;
    };
    let tls = stream.get_ref().1;
    client.sni = tls.server_name().map(str::to_owned);
    let http2 = tls.alpn_protocol() == Some(b"h2");
    let link = Link::tls(tokio_rustls::TlsStream::Server(stream));
    if http2 {
        serve_h2(gateway, client, link, &leave).await;
    } else {
        serve_h1(gateway, client, link, &leave).await;
    }
}

async fn serve_h2(gateway: Arc<Gateway>, client: Client, link: Link, leave: &CancellationToken) {
    let client = Arc::new(client);
    let farewell = gateway.farewell.clone();
    // Told to go elsewhere when the router stops, or when others need its place and it rests.
    let told = async {
        tokio::select! {
            () = farewell.cancelled() => {}
            () = leave.cancelled() => {}
        }
    };
    // Each stream is a task of its own, and whoever ends what runs at `drain.timeout` knows of the connection's task alone.
    let cut = CancellationToken::new();
    let serving = serve_http2(link, &client.site.edge, told, |head, mut down| {
        let (gateway, client, cut) = (Arc::clone(&gateway), Arc::clone(&client), cut.clone());
        async move {
            let mut alarm = Alarm::new();
            let mut exchange =
                Exchange { gateway: &gateway, client: &client, down: &mut down, alarm: &mut alarm };
            let serving = async {
                match head {
                    Ok((mut head, length)) => exchange.serve(&mut head, length).await,
                    Err(refused) => exchange.refuse(refused).await,
                }
            };
            woken_by(&cut, pin!(serving)).await;
        }
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
    let mut patience = edge.header_timeout;
    let left = leave.cancelled();
    tokio::pin!(left);
    loop {
        alarm.after(patience);
        let mut begun = false;
        let next = poll_fn(|cx| {
            if let Poll::Ready(next) = server.poll_next(cx, &mut head) {
                return Poll::Ready(Some(next));
            }
            // From its first byte on, a head has its own time.
            if server.has_begun() && !std::mem::replace(&mut begun, true) {
                alarm.after(edge.header_timeout);
            }
            if !begun && left.as_mut().poll(cx).is_ready() {
                return Poll::Ready(None);
            }
            alarm.poll(cx).map(|()| None)
        })
        .await;
        let mut exchange =
            Exchange { gateway: &gateway, client: &client, down: &mut server, alarm: &mut alarm };
        match next {
            Some(Next::Request(length)) => exchange.serve(&mut head, length).await,
            Some(Next::Refused(refused)) => {
                exchange.refuse(refused).await;
                return server.linger().await;
            }
            None if begun => {
                exchange.time_out().await;
                return server.linger().await;
            }
            Some(Next::Http2) => {
                let (link, ahead) = server.into_parts();
                return serve_h2(gateway, client, link.with_ahead(ahead), leave).await;
            }
            Some(Next::End) | None => return,
        }
        if !server.rest() {
            if server.must_reset() {
                server.io().reset_on_close();
            } else {
                server.linger().await;
            }
            return;
        }
        patience = edge.idle_timeout;
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
