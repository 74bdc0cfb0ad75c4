//! Endpoints that refused a connection are tried again until they take one (semantics §2.2).

use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::sync::mpsc;

use crate::model::ServiceKey;
use crate::routing::{Endpoint, Route};

/// How long after a refusal the first probe comes; each further one after twice as long.
const FIRST_PROBE: Duration = Duration::from_millis(100);
/// The longest time between two probes.
const SLOWEST_PROBE: Duration = Duration::from_secs(5);
/// How long a probe may take.
const PROBE_TIMEOUT: Duration = Duration::from_secs(1);

/// An endpoint that refused a connection.
#[derive(Debug)]
pub struct Refusal {
    endpoint: Weak<Endpoint>,
    services: Arc<[ServiceKey]>,
}

impl Refusal {
    /// `endpoint` refused a connection to serve a request of `route`.
    #[must_use]
    pub fn new(endpoint: &Arc<Endpoint>, route: &Route) -> Self {
        Self { endpoint: Arc::downgrade(endpoint), services: route.spec.services().cloned().collect() }
    }
}

/// Takes refusals until their senders are gone: tells of each with `changed`, probes the endpoint, and tells again when it
/// takes a connection. An endpoint that no table has any more is let go of.
pub async fn watch_refusals<F>(mut refusals: mpsc::Receiver<Refusal>, changed: F)
where
    F: Fn(&[ServiceKey]) + Clone + Send + 'static,
{
    while let Some(Refusal { endpoint, services }) = refusals.recv().await {
        changed(&services);
        let changed = changed.clone();
        tokio::spawn(async move {
            if probe(endpoint).await {
                changed(&services);
            }
        });
    }
}

/// Probes until the endpoint takes a connection (true), or is forgiven or forgotten otherwise (false).
async fn probe(endpoint: Weak<Endpoint>) -> bool {
    let mut wait = FIRST_PROBE;
    loop {
        tokio::time::sleep(wait).await;
        wait = (2 * wait).min(SLOWEST_PROBE);
        let Some(address) = endpoint.upgrade().filter(|e| e.is_refused()).map(|e| e.id.address) else {
            return false;
        };
        let connected = tokio::time::timeout(PROBE_TIMEOUT, TcpStream::connect(address)).await;
        if matches!(connected, Ok(Ok(_))) {
            return endpoint.upgrade().is_some_and(|e| e.forgive());
        }
    }
}
