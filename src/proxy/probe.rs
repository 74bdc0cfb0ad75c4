//! Endpoints that were set aside are taken back: one that refused a connection when it takes one (semantics §2.2), one that
//! was ejected when its time is over (semantics §2.5).

use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::model::{Moment, RouteName, ServiceKey, SetAsideReason, VersionName};
use crate::routing::{Endpoint, InFlight, Route, Standing, Version};
use crate::telemetry::{EndpointNote, Telemetry};

/// How long after a refusal the first probe comes; each further one after twice as long.
const FIRST_PROBE: Duration = Duration::from_millis(100);
/// The longest time between two probes.
const SLOWEST_PROBE: Duration = Duration::from_secs(5);
/// How long a probe may take.
const PROBE_TIMEOUT: Duration = Duration::from_secs(1);

/// An endpoint that was set aside by what became of a request.
#[derive(Debug)]
pub struct SetAside {
    standing: Weak<Standing>,
    services: Arc<[ServiceKey]>,
    route: RouteName,
    version: VersionName,
    reason: SetAsideReason,
}

impl SetAside {
    /// The endpoint of `at` was set aside by [`Version::ended`], for this reason.
    #[must_use]
    pub fn new(at: &InFlight, route: &Route, version: &Version, reason: SetAsideReason) -> Self {
        Self {
            standing: Arc::downgrade(at.standing()),
            services: route.spec.services().cloned().collect(),
            route: route.name().clone(),
            version: version.name.clone(),
            reason,
        }
    }

    /// Tells of it without waiting. Where nobody can be told, nobody would take it back: then it is not set aside, and the
    /// next failure finds out anew.
    pub fn tell(self, to: &mpsc::Sender<SetAside>) {
        if let Err(error) = to.try_send(self) {
            error.into_inner().undo();
        }
    }

    fn undo(&self) -> bool {
        let Some(standing) = self.standing.upgrade() else { return false };
        match self.reason {
            SetAsideReason::Refused => standing.endpoint().forgive(),
            SetAsideReason::ConsecutiveFailures | SetAsideReason::SuccessRate => standing.readmit(now()),
            SetAsideReason::HealthCheck => false,
        }
    }

    fn note<'a>(&'a self, endpoint: &'a Endpoint) -> EndpointNote<'a> {
        EndpointNote {
            route: &self.route,
            version: &self.version,
            endpoint: &endpoint.id,
            reason: self.reason,
        }
    }
}

/// Takes word of endpoints that were set aside until the senders are gone: tells of each with `changed`, waits until it may
/// be taken back, does so, and tells again. An endpoint that no table has any more is let go of.
pub async fn watch_set_aside<F>(mut heard: mpsc::Receiver<SetAside>, telemetry: Arc<Telemetry>, changed: F)
where
    F: Fn(&[ServiceKey]) + Clone + Send + 'static,
{
    while let Some(set_aside) = heard.recv().await {
        changed(&set_aside.services);
        let (changed, telemetry) = (changed.clone(), Arc::clone(&telemetry));
        let Some(standing) = set_aside.standing.upgrade() else { continue };
        let until = standing.ejected_until().map(|until| until.since(now()));
        telemetry.endpoint_set_aside(set_aside.note(standing.endpoint()), until);
        let endpoint = Arc::downgrade(standing.endpoint());
        drop(standing);
        tokio::spawn(async move {
            match set_aside.reason {
                SetAsideReason::Refused => probe(&endpoint).await,
                SetAsideReason::ConsecutiveFailures
                | SetAsideReason::SuccessRate
                | SetAsideReason::HealthCheck => tokio::time::sleep(until.unwrap_or_default()).await,
            }
            if set_aside.undo()
                && let Some(endpoint) = endpoint.upgrade()
            {
                telemetry.endpoint_taken_back(set_aside.note(&endpoint));
                changed(&set_aside.services);
            }
        });
    }
}

/// Probes until the endpoint takes a connection, or is forgiven or forgotten otherwise.
async fn probe(endpoint: &Weak<Endpoint>) {
    let mut wait = FIRST_PROBE;
    loop {
        tokio::time::sleep(wait).await;
        wait = (2 * wait).min(SLOWEST_PROBE);
        let Some(address) = endpoint.upgrade().filter(|e| e.is_refused()).map(|e| e.id.address) else {
            return;
        };
        let connected = tokio::time::timeout(PROBE_TIMEOUT, TcpStream::connect(address)).await;
        if matches!(connected, Ok(Ok(_))) {
            return;
        }
    }
}

fn now() -> Moment {
    Moment::of(Instant::now().into_std())
}

#[cfg(test)]
#[path = "probe_tests.rs"]
mod tests;
