//! For tests: an authority that signs certificates, files that hold them, and handshakes in memory.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, KeyUsagePurpose};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore, ServerConfig, SupportedProtocolVersion};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};
use tokio_rustls::{TlsAcceptor, TlsConnector, client, server};

use crate::model::{CertificateSource, SecretData};

use super::provider;
use super::source::Text;

/// Signs certificates.
pub(super) struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

/// A certificate and its key, as PEM.
#[derive(Clone)]
pub(super) struct Issued {
    pub(super) chain: String,
    pub(super) key: String,
}

impl Authority {
    pub(super) fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        Self { issuer }
    }

    pub(super) fn pem(&self) -> String {
        self.issuer.pem()
    }

    pub(super) fn roots(&self) -> Arc<RootCertStore> {
        let mut roots = RootCertStore::empty();
        roots.add(self.issuer.der().clone()).unwrap();
        Arc::new(roots)
    }

    /// A certificate for names or addresses.
    pub(super) fn issue(&self, names: &[&str]) -> Issued {
        self.issue_with(names, |_| {})
    }

    pub(super) fn issue_with(&self, names: &[&str], change: impl FnOnce(&mut CertificateParams)) -> Issued {
        let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        params.distinguished_name = rcgen::DistinguishedName::new();
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        Issued { chain: certificate.pem(), key: key.serialize_pem() }
    }

    /// One that ends so long after a moment.
    pub(super) fn ending(&self, names: &[&str], moment: SystemTime, after: Duration) -> Issued {
        self.issue_with(names, |params| {
            let end = moment.duration_since(UNIX_EPOCH).unwrap() + after;
            params.not_after = rcgen::date_time_ymd(1970, 1, 1) + Duration::from_secs(end.as_secs());
        })
    }
}

impl Issued {
    pub(super) fn texts(&self) -> (Text, Text) {
        (text("a chain", &self.chain), text("a key", &self.key))
    }

    /// Writes it into `NAME.crt` and `NAME.key`.
    pub(super) fn write(&self, folder: &Path, name: &str) -> CertificateSource {
        let path = |end: &str| folder.join(format!("{name}.{end}"));
        std::fs::write(path("crt"), &self.chain).unwrap();
        std::fs::write(path("key"), &self.key).unwrap();
        CertificateSource::Files { cert: path("crt"), key: path("key") }
    }

    pub(super) fn secret(&self) -> Arc<SecretData> {
        Arc::new(SecretData {
            certificate: Some(self.chain.clone().into_bytes()),
            key: Some(self.key.clone().into_bytes().into()),
            authorities: None,
        })
    }

    pub(super) fn der(&self) -> Vec<CertificateDer<'static>> {
        CertificateDer::pem_slice_iter(self.chain.as_bytes()).map(Result::unwrap).collect()
    }

    pub(super) fn key_der(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::from_pem_slice(self.key.as_bytes()).unwrap()
    }
}

pub(super) fn text(place: &str, text: &str) -> Text {
    Text { place: place.to_owned(), bytes: text.as_bytes().to_vec().into() }
}

/// A client that trusts an authority, and is shown the certificate each time: it resumes no session.
pub(super) fn client(authority: &Authority) -> ClientConfig {
    let mut config = client_of(authority, rustls::ALL_VERSIONS, None);
    config.resumption = rustls::client::Resumption::disabled();
    config
}

pub(super) fn client_of(
    authority: &Authority,
    versions: &[&'static SupportedProtocolVersion],
    own: Option<&Issued>,
) -> ClientConfig {
    let builder = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(versions)
        .unwrap()
        .with_root_certificates(authority.roots());
    match own {
        Some(own) => builder.with_client_auth_cert(own.der(), own.key_der()).unwrap(),
        None => builder.with_no_client_auth(),
    }
}

/// A server with one certificate.
pub(super) fn server(issued: &Issued, alpn: &[&str]) -> ServerConfig {
    let builder =
        ServerConfig::builder_with_provider(provider()).with_safe_default_protocol_versions().unwrap();
    let mut config = builder.with_no_client_auth().with_single_cert(issued.der(), issued.key_der()).unwrap();
    config.alpn_protocols = alpn.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
    config
}

/// Both ends of a connection that is open.
pub(super) struct Open {
    pub(super) client: client::TlsStream<DuplexStream>,
    pub(super) server: server::TlsStream<DuplexStream>,
}

impl Open {
    /// Sends a byte each way: in TLS 1.3 a client hears only by this that its certificate was refused.
    pub(super) async fn talk(&mut self) -> io::Result<()> {
        self.client.write_all(b"?").await?;
        self.client.flush().await?;
        let mut byte = [0];
        self.server.read_exact(&mut byte).await?;
        self.server.write_all(b"!").await?;
        self.server.flush().await?;
        self.client.read_exact(&mut byte).await?;
        assert_eq!(&byte, b"!");
        Ok(())
    }

    /// The leaf that the client was shown.
    pub(super) fn shown(&self) -> CertificateDer<'static> {
        self.client.get_ref().1.peer_certificates().unwrap()[0].clone()
    }

    pub(super) fn alpn(&self) -> Option<&str> {
        self.client.get_ref().1.alpn_protocol().map(|name| std::str::from_utf8(name).unwrap())
    }
}

/// A handshake in memory, and a byte each way.
pub(super) async fn handshake(
    server: Arc<ServerConfig>,
    client: &Arc<ClientConfig>,
    name: &str,
) -> io::Result<Open> {
    let (near, far) = tokio::io::duplex(64 * 1024);
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let accepting = TlsAcceptor::from(server).accept(far);
    let connecting = TlsConnector::from(Arc::clone(client)).connect(name, near);
    let (server, client) = tokio::join!(accepting, connecting);
    let mut open = Open { client: client?, server: server? };
    open.talk().await?;
    Ok(open)
}
