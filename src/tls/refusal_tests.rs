//! Tests of what is said of failed handshakes: by handshakes in memory, with the clients that bring them about.

use std::sync::Arc;

use rustls::pki_types::ServerName;
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, ServerConfig};
use tokio::io::AsyncWriteExt as _;
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::super::authority_tests::{Authority, client, client_of, server};
use super::super::listener::{Clients, ListenerCertificates};
use super::*;
use crate::model::{ConnectionRefusal, MinTls};
use crate::tls::identity::Identity;

/// What is said of a client with this config that comes to this server.
async fn refusal(server: Arc<ServerConfig>, client: ClientConfig) -> (ConnectionRefusal, Problem) {
    let (near, far) = tokio::io::duplex(64 * 1024);
    let name = ServerName::try_from("a.example").unwrap();
    let accepting = TlsAcceptor::from(server).accept(far);
    let connecting = TlsConnector::from(Arc::new(client)).connect(name, near);
    let (refused, _) = tokio::join!(accepting, connecting);
    explain_refusal(&refused.expect_err("refused"), &[HANDSHAKE])
}

/// What is said of bytes that are sent, and then the connection closed.
async fn refusal_of(bytes: &[u8]) -> (ConnectionRefusal, Problem) {
    let (mut near, far) = tokio::io::duplex(64 * 1024);
    near.write_all(bytes).await.unwrap();
    near.shutdown().await.unwrap();
    let issued = Authority::new("a").issue(&["a.example"]);
    let refused = TlsAcceptor::from(Arc::new(server(&issued, &[]))).accept(far).await;
    let begin = bytes.get(..BEGIN).unwrap_or(bytes);
    explain_refusal(&refused.expect_err("refused"), begin)
}

fn listener(min: MinTls, clients: &Clients, authority: Option<&Authority>) -> Arc<ServerConfig> {
    let certificates = ListenerCertificates::new(min, clients).unwrap();
    if let Some(authority) = authority {
        let (chain, key) = authority.issue(&["a.example"]).texts();
        certificates.publish(&[Some(Arc::new(Identity::from_pem(&chain, &key).unwrap()))]);
    }
    certificates.server_config(false)
}

#[tokio::test]
async fn each_failed_handshake_has_its_reason() {
    let (authority, stranger) = (Authority::new("a"), Authority::new("s"));
    let own = stranger.issue(&["client.example"]);
    let required = Clients::Required(authority.roots());
    let with_alpn = {
        let mut config = client(&authority);
        config.alpn_protocols = vec![b"imap".to_vec()];
        config
    };
    for (server, client, reason, words) in [
        (
            listener(MinTls::Tls12, &Clients::NotAsked, None),
            client(&authority),
            ConnectionRefusal::NoCertificate,
            "no certificate to show",
        ),
        (
            listener(MinTls::Tls13, &Clients::NotAsked, Some(&authority)),
            client_of(&authority, &[&TLS12], None),
            ConnectionRefusal::TlsIncompatible,
            "no version of TLS",
        ),
        (
            listener(MinTls::Tls12, &Clients::NotAsked, Some(&authority)),
            with_alpn,
            ConnectionRefusal::TlsIncompatible,
            "another protocol",
        ),
        (
            listener(MinTls::Tls12, &required, Some(&authority)),
            client_of(&authority, &[&TLS13], None),
            ConnectionRefusal::ClientCertificate,
            "has no certificate",
        ),
        (
            listener(MinTls::Tls12, &required, Some(&authority)),
            client_of(&authority, &[&TLS12], Some(&own)),
            ConnectionRefusal::ClientCertificate,
            "is not accepted",
        ),
        (
            listener(MinTls::Tls12, &Clients::NotAsked, Some(&authority)),
            client(&stranger),
            ConnectionRefusal::RefusedByClient,
            "UnknownCA",
        ),
    ] {
        let (told, problem) = refusal(server, client).await;
        assert_eq!(told, reason, "{problem}");
        assert!(problem.message.contains(words) && !problem.remedy.is_empty(), "{problem}");
    }
}

#[tokio::test]
async fn what_is_no_tls_is_named() {
    for (bytes, reason, words) in [
        (&b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"[..], ConnectionRefusal::NotTls, "plain HTTP"),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", ConnectionRefusal::NotTls, "plain HTTP"),
        (b"PROXY TCP4 192.0.2.7 192.0.2.1 1 2\r\n", ConnectionRefusal::NotTls, "PROXY header"),
        (b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c", ConnectionRefusal::NotTls, "PROXY header"),
        (b"SSH-2.0-OpenSSH_9.9\r\n", ConnectionRefusal::NotTls, "not TLS"),
        (b"\0", ConnectionRefusal::NotTls, "not TLS"),
        // Half a record, and one that is malformed.
        (b"\x16\x03\x01", ConnectionRefusal::TlsHandshake, "closed the connection"),
        (b"\x16\x03\x01\0\x04\x01\0\0\0", ConnectionRefusal::TlsHandshake, "handshake failed"),
    ] {
        let (told, problem) = refusal_of(bytes).await;
        assert_eq!(told, reason, "{bytes:?}: {problem}");
        assert!(problem.message.contains(words), "{bytes:?}: {problem}");
    }
}
