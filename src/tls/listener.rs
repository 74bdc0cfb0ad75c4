//! TLS towards clients.

use std::fmt;
use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::server::{NoServerSessionStorage, ServerConfig, WebPkiClientVerifier};
use rustls::version::{TLS12, TLS13};
use rustls::{RootCertStore, SupportedProtocolVersion};

use crate::model::{MinTls, Problem};

use super::chooser::Chooser;
use super::identity::Identity;
use super::provider;

/// What a listener needs to take TLS connections; it changes by itself when certificates are renewed.
pub struct ListenerCertificates {
    chooser: Arc<Chooser>,
    configs: ArcSwap<Configs>,
}

/// With and without HTTP/2.
struct Configs {
    http2: Arc<ServerConfig>,
    http1: Arc<ServerConfig>,
}

/// Who may sign clients' certificates.
pub(super) enum Clients {
    /// They are not asked for one.
    NotAsked,
    /// They are asked, and may come without one.
    Asked(Arc<RootCertStore>),
    /// They must have one.
    Required(Arc<RootCertStore>),
    /// Those who may sign are not known yet: nobody gets in.
    NotYet,
}

impl ListenerCertificates {
    /// Refuses every handshake until certificates are published.
    pub(super) fn new(min: MinTls, clients: &Clients) -> Result<Self, Problem> {
        let chooser = Arc::new(Chooser::default());
        let configs = Configs::new(min, clients, &chooser)?;
        Ok(Self { chooser, configs: ArcSwap::from_pointee(configs) })
    }

    /// The settings for the next connection: ask for each, for they change. `http2` says whether HTTP/2 may be agreed on
    /// (ALPN, RFC 7301); a client that speaks of nothing gets HTTP/1.1.
    ///
    /// Where the certificate for a client is not there yet (a Secret that has not arrived), its handshake is refused.
    #[must_use]
    pub fn server_config(&self, http2: bool) -> Arc<ServerConfig> {
        let configs = self.configs.load();
        Arc::clone(if http2 { &configs.http2 } else { &configs.http1 })
    }

    /// Whether `host` (of a request, without a port) would be shown the same certificate as a connection that began with
    /// this SNI. If not, the request belongs on another connection: 421 (RFC 9110 §15.5.20).
    #[must_use]
    pub fn same_certificate(&self, sni: Option<&str>, host: &str) -> bool {
        self.chooser.is_same(sni, Some(host))
    }

    /// Puts certificates into force, in the order of the settings.
    pub(super) fn publish(&self, identities: &[Option<Arc<Identity>>]) {
        self.chooser.publish(identities);
    }

    /// Puts other authorities of clients into force.
    pub(super) fn publish_clients(&self, min: MinTls, clients: &Clients) -> Result<(), Problem> {
        self.configs.store(Arc::new(Configs::new(min, clients, &self.chooser)?));
        Ok(())
    }
}

impl fmt::Debug for ListenerCertificates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ListenerCertificates").field("chooser", &self.chooser).finish_non_exhaustive()
    }
}

impl Configs {
    fn new(min: MinTls, clients: &Clients, chooser: &Arc<Chooser>) -> Result<Self, Problem> {
        let versions: &[&SupportedProtocolVersion] = match min {
            MinTls::Tls12 => &[&TLS13, &TLS12],
            MinTls::Tls13 => &[&TLS13],
        };
        let unusable = |what: &dyn fmt::Display| {
            Problem::new(format!("TLS cannot be set up: {what}"), "this is a fault of Serinus: report it")
        };
        let builder = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(versions)
            .map_err(|error| unusable(&error))?;
        let verifier = |roots: &Arc<RootCertStore>| {
            WebPkiClientVerifier::builder_with_provider(Arc::clone(roots), provider())
        };
        let verifier = match clients {
            Clients::NotAsked | Clients::NotYet => WebPkiClientVerifier::no_client_auth(),
            Clients::Asked(roots) => {
                verifier(roots).allow_unauthenticated().build().map_err(|error| unusable(&error))?
            }
            Clients::Required(roots) => verifier(roots).build().map_err(|error| unusable(&error))?,
        };
        let chooser = match clients {
            // An empty one refuses everybody.
            Clients::NotYet => Arc::new(Chooser::default()),
            Clients::NotAsked | Clients::Asked(_) | Clients::Required(_) => Arc::clone(chooser),
        };
        let mut config = builder.with_client_cert_verifier(verifier).with_cert_resolver(chooser);
        // Sessions are resumed by tickets alone, which need no memory and no lock here. Their keys are new with each config: a
        // resumed session is not asked for its certificate again, so that none may outlive the authority that it was let
        // in by. 0-RTT is off, as it comes: it could be replayed (RFC 8446 §8).
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.ticketer = rustls::crypto::ring::Ticketer::new().map_err(|error| unusable(&error))?;
        let mut http1 = config.clone();
        http1.alpn_protocols = vec![b"http/1.1".to_vec()];
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Self { http2: Arc::new(config), http1: Arc::new(http1) })
    }
}
