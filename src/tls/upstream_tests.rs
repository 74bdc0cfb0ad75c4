//! Tests of TLS towards pods, by handshakes in memory.

use rustls::ServerConfig;
use rustls::server::WebPkiClientVerifier;
use tokio_rustls::TlsAcceptor;

use super::super::authority_tests::{Authority, Issued, server};
use super::*;

fn connector(trust: Trust, identity: Option<&Identity>) -> UpstreamConnector {
    let connector = UpstreamConnector::waiting("not yet".to_owned());
    connector.publish(&trust, identity).unwrap();
    connector
}

/// Connects to a pod; what was agreed on, or why not.
async fn connect(
    connector: &UpstreamConnector,
    pod: ServerConfig,
    name: &str,
    alpn: Alpn,
) -> Result<Option<Vec<u8>>, TlsError> {
    let (near, far) = tokio::io::duplex(64 * 1024);
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let accepting = TlsAcceptor::from(Arc::new(pod)).accept(far);
    let (stream, _pod) = tokio::join!(connector.connect(name, alpn, near), accepting);
    Ok(stream?.get_ref().1.alpn_protocol().map(<[u8]>::to_vec))
}

fn pod(authority: &Authority) -> ServerConfig {
    server(&authority.issue(&["shop.web.svc", "10.0.0.1"]), &["h2", "http/1.1"])
}

#[tokio::test]
async fn a_pod_is_checked_by_its_authority_and_its_name() {
    let (authority, other) = (Authority::new("a"), Authority::new("b"));
    let good = connector(Trust::Authorities(authority.roots()), None);
    connect(&good, pod(&authority), "shop.web.svc", Alpn::Http1).await.unwrap();
    connect(&good, pod(&authority), "10.0.0.1", Alpn::Http1).await.unwrap();
    let refused = async |connector: &UpstreamConnector, authority: &Authority, name: &str| {
        connect(connector, pod(authority), name, Alpn::Http1).await.unwrap_err().to_string()
    };
    let said = refused(&good, &authority, "cart.web.svc").await;
    assert!(said.contains("no TLS with the pod") && said.contains("not valid for name"), "{said}");
    let said = refused(&good, &other, "shop.web.svc").await;
    assert!(said.contains("UnknownIssuer") || said.contains("BadSignature"), "{said}");
    let expired = authority.issue_with(&["shop.web.svc"], |p| p.not_after = rcgen::date_time_ymd(2001, 1, 1));
    let said =
        connect(&good, server(&expired, &[]), "shop.web.svc", Alpn::Http1).await.unwrap_err().to_string();
    assert!(said.contains("expired"), "{said}");
}

#[tokio::test]
async fn what_is_not_verified_may_be_anyones_but_must_have_its_key() {
    let (stranger, other) = (Authority::new("b"), Authority::new("c"));
    let any = connector(Trust::Anyone, None);
    for versions in [[&TLS12], [&TLS13]] {
        let issued = stranger.issue(&["else.example"]);
        let builder =
            || ServerConfig::builder_with_provider(provider()).with_protocol_versions(&versions).unwrap();
        let honest =
            builder().with_no_client_auth().with_single_cert(issued.der(), issued.key_der()).unwrap();
        connect(&any, honest, "shop.web.svc", Alpn::Http1).await.unwrap();
        // Shows a certificate whose key it does not have.
        let key = provider().key_provider.load_private_key(other.issue(&["x"]).key_der()).unwrap();
        let stolen = rustls::sign::CertifiedKey::new(issued.der(), key);
        let resolver = Arc::new(rustls::sign::SingleCertAndKey::from(stolen));
        let thief = builder().with_no_client_auth().with_cert_resolver(resolver);
        let error = connect(&any, thief, "shop.web.svc", Alpn::Http1).await.unwrap_err();
        assert!(error.to_string().contains("BadSignature"), "{error}");
    }
}

#[tokio::test]
async fn http2_is_agreed_on_or_refused() {
    let authority = Authority::new("a");
    let connector = connector(Trust::Authorities(authority.roots()), None);
    let ask = async |offers: &[&str], alpn| {
        let pod = server(&authority.issue(&["shop.web.svc"]), offers);
        connect(&connector, pod, "shop.web.svc", alpn).await
    };
    let both = ["h2", "http/1.1"];
    assert_eq!(ask(&both, Alpn::Http2).await.unwrap().as_deref(), Some(b"h2".as_slice()));
    assert_eq!(ask(&both, Alpn::Http1).await.unwrap().as_deref(), Some(b"http/1.1".as_slice()));
    assert_eq!(ask(&[], Alpn::Http1).await.unwrap(), None);
    assert!(matches!(ask(&[], Alpn::Http2).await, Err(TlsError::NoHttp2)));
    assert!(matches!(ask(&["http/1.1"], Alpn::Http2).await, Err(TlsError::Handshake(_))));
}

#[tokio::test]
async fn a_pod_that_asks_is_shown_the_certificate() {
    let (authority, clients) = (Authority::new("a"), Authority::new("clients"));
    let identity = |issued: &Issued| {
        let (chain, key) = issued.texts();
        Identity::from_pem(&chain, &key).unwrap()
    };
    let pod = || {
        let issued = authority.issue(&["shop.web.svc"]);
        let verifier =
            WebPkiClientVerifier::builder_with_provider(clients.roots(), provider()).build().unwrap();
        let builder =
            ServerConfig::builder_with_provider(provider()).with_protocol_versions(&[&TLS12]).unwrap();
        builder.with_client_cert_verifier(verifier).with_single_cert(issued.der(), issued.key_der()).unwrap()
    };
    let own = identity(&clients.issue(&["serinus"]));
    let shows = connector(Trust::Authorities(authority.roots()), Some(&own));
    connect(&shows, pod(), "shop.web.svc", Alpn::Http1).await.unwrap();
    let shows_none = connector(Trust::Authorities(authority.roots()), None);
    assert!(connect(&shows_none, pod(), "shop.web.svc", Alpn::Http1).await.is_err());
    let others = identity(&authority.issue(&["serinus"]));
    let shows_another = connector(Trust::Authorities(authority.roots()), Some(&others));
    assert!(connect(&shows_another, pod(), "shop.web.svc", Alpn::Http1).await.is_err());
}

#[tokio::test]
async fn a_pod_that_speaks_no_tls_is_an_error() {
    use tokio::io::AsyncWriteExt as _;

    let connector = connector(Trust::Anyone, None);
    let (near, mut far) = tokio::io::duplex(64 * 1024);
    far.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await.unwrap();
    let name = ServerName::try_from("shop.web.svc").unwrap();
    let error = connector.connect(name, Alpn::Http1, near).await.unwrap_err();
    assert!(matches!(error, TlsError::Handshake(_)), "{error}");
}

#[test]
fn one_that_waits_says_for_what() {
    let connector = UpstreamConnector::waiting("secret:web/ca is not there".to_owned());
    let error = connector.config(Alpn::Http1).unwrap_err().to_string();
    assert_eq!(error, "no TLS towards pods: secret:web/ca is not there");
}

#[test]
fn the_name_is_one_that_a_certificate_could_have() {
    let name = |name: &str| {
        let tls = UpstreamTls { server_name: Some(name.to_owned()), ..UpstreamTls::default() };
        server_name(&tls).map(|name| name.to_str().into_owned())
    };
    assert_eq!(name("backend.internal").unwrap(), "backend.internal");
    assert_eq!((name("10.0.0.1").unwrap().as_str(), name("[::1]").unwrap().as_str()), ("10.0.0.1", "::1"));
    assert!(matches!(name("no name"), Err(TlsError::BadName(_))));
    assert!(server_name(&UpstreamTls::default()).is_err());
}
