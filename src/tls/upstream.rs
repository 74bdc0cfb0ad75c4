//! TLS towards pods.

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::model::{Problem, UpstreamTls};

use super::identity::Identity;
use super::provider;

/// What a connection to a pod is to speak (ALPN, RFC 7301).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Alpn {
    /// HTTP/1.1; also with a pod that says nothing of it.
    Http1,
    /// HTTP/2, which the pod has to agree to (RFC 9113 §3.3).
    Http2,
}

/// Why there is no TLS with a pod.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// What it needs (a CA, a client certificate) is not there, or cannot be used.
    #[error("no TLS towards pods: {0}")]
    NotReady(String),
    /// The text is neither a DNS name nor an address, so that no certificate can have it.
    #[error("`{0}` is no name that a pod's certificate could have: set `upstreamTls.serverName`")]
    BadName(String),
    /// The handshake failed: the pod's certificate was not accepted, or it speaks no TLS, or it left.
    #[error("no TLS with the pod: {0}")]
    Handshake(io::Error),
    /// It speaks TLS, and not HTTP/2.
    #[error("the pod does not speak HTTP/2: its TLS does not offer `h2`")]
    NoHttp2,
}

/// What connections to pods are made with, for each way that routes want them; it changes by itself when files or Secrets do.
#[derive(Debug, Default)]
pub struct UpstreamConnectors {
    by_settings: ArcSwap<HashMap<UpstreamTls, Arc<UpstreamConnector>>>,
}

impl UpstreamConnectors {
    /// The connector for the settings of a route. It stays the same one while some route has these settings, so it may be kept.
    /// Nothing for settings that the store was never told of.
    #[must_use]
    pub fn get(&self, tls: &UpstreamTls) -> Option<Arc<UpstreamConnector>> {
        self.by_settings.load().get(&nameless(tls)).cloned()
    }

    /// Does the handshake on a connection to a pod. Limits no time: whoever calls does.
    ///
    /// # Errors
    /// When there is no TLS with this pod.
    pub async fn connect<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        tls: &UpstreamTls,
        name: ServerName<'static>,
        alpn: Alpn,
        stream: S,
    ) -> Result<TlsStream<S>, TlsError> {
        let connector = self.get(tls);
        let connector = connector
            .ok_or_else(|| TlsError::NotReady("these settings are not in force any more".to_owned()))?;
        connector.connect(name, alpn, stream).await
    }

    pub(super) fn publish(&self, connectors: HashMap<UpstreamTls, Arc<UpstreamConnector>>) {
        self.by_settings.store(Arc::new(connectors));
    }
}

/// What connections to pods are made with, in one way.
pub struct UpstreamConnector {
    state: ArcSwap<Result<Configs, String>>,
}

struct Configs {
    http1: Arc<ClientConfig>,
    http2: Arc<ClientConfig>,
}

/// How a pod's certificate is checked.
pub(super) enum Trust {
    /// By these authorities.
    Authorities(Arc<RootCertStore>),
    /// Not at all.
    Anyone,
}

impl UpstreamConnector {
    /// One that cannot connect, and says why.
    pub(super) fn waiting(why: String) -> Self {
        Self { state: ArcSwap::from_pointee(Err(why)) }
    }

    /// The settings for the next connection: ask for each, for they change.
    ///
    /// # Errors
    /// When something that they need is not there.
    pub fn config(&self, alpn: Alpn) -> Result<Arc<ClientConfig>, TlsError> {
        match (self.state.load().as_ref(), alpn) {
            (Ok(configs), Alpn::Http1) => Ok(Arc::clone(&configs.http1)),
            (Ok(configs), Alpn::Http2) => Ok(Arc::clone(&configs.http2)),
            (Err(why), _) => Err(TlsError::NotReady(why.clone())),
        }
    }

    /// Does the handshake on a connection to a pod. Limits no time: whoever calls does.
    ///
    /// # Errors
    /// When there is no TLS with this pod.
    pub async fn connect<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        name: ServerName<'static>,
        alpn: Alpn,
        stream: S,
    ) -> Result<TlsStream<S>, TlsError> {
        let connector = TlsConnector::from(self.config(alpn)?);
        let stream = connector.connect(name, stream).await.map_err(TlsError::Handshake)?;
        let agreed = stream.get_ref().1.alpn_protocol();
        match alpn {
            Alpn::Http2 if agreed != Some(b"h2") => Err(TlsError::NoHttp2),
            Alpn::Http1 | Alpn::Http2 => Ok(stream),
        }
    }

    /// Whether it can connect.
    pub(super) fn is_ready(&self) -> bool {
        self.state.load().is_ok()
    }

    /// Puts other means into force.
    pub(super) fn publish(&self, trust: &Trust, identity: Option<&Identity>) -> Result<(), Problem> {
        self.state.store(Arc::new(Ok(Configs::new(trust, identity)?)));
        Ok(())
    }

    /// It cannot connect for now.
    pub(super) fn wait(&self, why: String) {
        self.state.store(Arc::new(Err(why)));
    }
}

impl fmt::Debug for UpstreamConnector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UpstreamConnector").field("ready", &self.is_ready()).finish_non_exhaustive()
    }
}

impl Configs {
    fn new(trust: &Trust, identity: Option<&Identity>) -> Result<Self, Problem> {
        let unusable = |what: &dyn fmt::Display| {
            Problem::new(
                format!("TLS towards pods cannot be set up: {what}"),
                "check the certificates of `upstreamTls`",
            )
        };
        // Made twice, so that sessions of one are never resumed by the other.
        let config = |alpn: &[u8]| -> Result<Arc<ClientConfig>, Problem> {
            let builder = ClientConfig::builder_with_provider(provider())
                .with_protocol_versions(&[&TLS13, &TLS12])
                .map_err(|error| unusable(&error))?;
            let verifier: Arc<dyn ServerCertVerifier> = match trust {
                Trust::Authorities(roots) => {
                    WebPkiServerVerifier::builder_with_provider(Arc::clone(roots), provider())
                        .build()
                        .map_err(|error| unusable(&error))?
                }
                Trust::Anyone => Arc::new(NotVerified { provider: provider() }),
            };
            let builder = builder.dangerous().with_custom_certificate_verifier(verifier);
            let mut config = match identity {
                Some(identity) => builder.with_client_cert_resolver(Arc::new(
                    rustls::sign::SingleCertAndKey::from(Arc::clone(&identity.key)),
                )),
                None => builder.with_no_client_auth(),
            };
            config.alpn_protocols = vec![alpn.to_vec()];
            Ok(Arc::new(config))
        };
        Ok(Self { http1: config(b"http/1.1")?, http2: config(b"h2")? })
    }
}

/// Takes any certificate (`insecureSkipVerify`), and still checks that the pod has its key.
#[derive(Debug)]
struct NotVerified {
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for NotVerified {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// The same settings without a name: which pod's certificate is checked makes no difference to how.
pub(super) fn nameless(tls: &UpstreamTls) -> UpstreamTls {
    UpstreamTls { server_name: None, ..tls.clone() }
}

/// The name that a pod's certificate must have, of settings that say it.
///
/// # Errors
/// When there is none, or it is no name that a certificate could have.
pub fn server_name(tls: &UpstreamTls) -> Result<ServerName<'static>, TlsError> {
    let name = tls.server_name.as_deref().unwrap_or_default();
    // An IPv6 address is written in brackets in a host.
    let bare = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name);
    ServerName::try_from(bare.to_owned()).map_err(|_| TlsError::BadName(name.chars().take(300).collect()))
}

#[cfg(test)]
#[path = "upstream_tests.rs"]
mod tests;
