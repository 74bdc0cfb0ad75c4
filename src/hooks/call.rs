//! One call of a webhook.

use std::sync::Arc;

use ureq::Agent;
use ureq::tls::{Certificate, RootCerts, TlsConfig};
use url::{Host, Url};

use crate::model::Hook;

use super::Note;

/// Sends the note; a failure when the answer is not 2xx, in words that go after the hook's name.
pub(super) async fn post(hook: &Hook, note: &Arc<Note>) -> Result<(), String> {
    let (called, note) = (hook.clone(), Arc::clone(note));
    let answer = tokio::task::spawn_blocking(move || send(&called, &note)).await;
    answer.unwrap_or_else(|_| Err("was not called: the call broke off".to_owned()))
}

fn send(hook: &Hook, note: &Note) -> Result<(), String> {
    // The rest of the URL may be a secret.
    let hidden = |error: &dyn std::fmt::Display| error.to_string().replace(&hook.url, hook.shown());
    let url: Url =
        hook.url.parse().map_err(|error| format!("has no URL that can be used: {}", hidden(&error)))?;
    let body = serde_json::to_vec(note).map_err(|error| format!("was not called: {error}"))?;
    let agent = agent(hook, &url)?;
    let request = agent.post(&hook.url).header("Content-Type", "application/json");
    let answer = request.send(&body[..]).map_err(|error| format!("cannot be reached: {}", hidden(&error)))?;
    let status = answer.status();
    if status.is_success() {
        Ok(())
    } else if status.is_redirection() {
        Err(format!("answered {}, and redirects are not followed", status.as_u16()))
    } else {
        Err(format!("answered {}", status.as_u16()))
    }
}

fn agent(hook: &Hook, url: &Url) -> Result<Agent, String> {
    let mut config = Agent::config_builder()
        .http_status_as_error(false)
        .timeout_global(Some(hook.timeout))
        .max_redirects(0)
        .user_agent(concat!("serinus/", env!("CARGO_PKG_VERSION")));
    if is_loopback(url) {
        // A proxy that is set for other things cannot reach this machine's loopback.
        config = config.proxy(None);
    }
    if url.scheme() == "https" {
        // Read for each call, which are few: they may be renewed while the router runs.
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

fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        Some(Host::Domain(name)) => name == "localhost",
        None => false,
    }
}
