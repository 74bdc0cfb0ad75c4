//! What the router calls by itself over HTTP, other than pods and the Kubernetes API: webhooks, and a collector of traces.

use std::sync::Arc;
use std::time::Duration;

use ureq::Agent;
use ureq::tls::{Certificate, RootCerts, TlsConfig};
use url::{Host, Url};

/// Makes calls to this URL that end after `timeout`, and never follow a redirect. An answer of any status is an answer.
///
/// # Errors
/// Where this system has no certificate authorities for HTTPS, in words that go after the name of who is called.
pub fn agent(url: &Url, timeout: Duration) -> Result<Agent, String> {
    let mut config = Agent::config_builder()
        .http_status_as_error(false)
        .timeout_global(Some(timeout))
        .max_redirects(0)
        .user_agent(concat!("serinus/", env!("CARGO_PKG_VERSION")));
    if is_loopback(url) {
        // A proxy that is set for other things cannot reach this machine's loopback.
        config = config.proxy(None);
    }
    if url.scheme() == "https" {
        // Read each time, for they may be renewed while the router runs.
        let found = rustls_native_certs::load_native_certs();
        let roots: Vec<_> =
            found.certs.iter().map(|root| Certificate::from_der(root.as_ref()).to_owned()).collect();
        if roots.is_empty() {
            let why = found.errors.first().map(|error| format!(": {error}")).unwrap_or_default();
            return Err(format!("cannot be trusted, for this system has no certificate authorities{why}"));
        }
        let tls = TlsConfig::builder().root_certs(RootCerts::Specific(Arc::new(roots)));
        config = config.tls_config(tls.build());
    }
    Ok(config.build().into())
}

/// Whether a URL is of this machine's loopback.
#[must_use]
pub fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        Some(Host::Domain(name)) => name == "localhost",
        None => false,
    }
}
