//! Certificates: read, checked, chosen by SNI, and swapped while connections are open; towards clients and towards pods.
//!
//! [`Store`] owns what the settings name (files and Secrets), reads it, and reads it again when it changes. What is good is
//! put into force at once: for new handshakes, that is, since an open connection has no more use for a certificate. What is
//! not good changes nothing and is told as a problem. [`ListenerCertificates`] is what a listener asks for each
//! connection, [`UpstreamConnectors`] what a connection to a pod is made with; neither takes a lock.

mod authorities;
mod chooser;
mod files;
mod identity;
mod inspect;
mod listener;
mod material;
mod refusal;
mod report;
mod source;
mod store;
mod upstream;

use std::sync::{Arc, LazyLock};

use rustls::crypto::{CryptoProvider, ring};

pub use files::FileWatch;
pub use inspect::{Finding, FindingKind, inspect_authorities, inspect_certificate};
pub use listener::ListenerCertificates;
pub use refusal::{BEGIN, explain_refusal};
pub use report::{Hindrance, Loaded, Report, TlsErrors};
pub use store::Store;
pub use upstream::{Alpn, TlsError, UpstreamConnector, UpstreamConnectors, server_name};

/// The cryptography of every connection: *ring*. Said each time, so that nothing depends on what a process installed.
fn provider() -> Arc<CryptoProvider> {
    static PROVIDER: LazyLock<Arc<CryptoProvider>> = LazyLock::new(|| Arc::new(ring::default_provider()));
    Arc::clone(&PROVIDER)
}

#[cfg(test)]
mod authority_tests;
