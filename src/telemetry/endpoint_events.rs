//! What happens to endpoints: each event is one log line, as far as there are not too many.

use std::net::SocketAddr;
use std::time::Duration;

use crate::model::{EndpointId, EndpointPhase, RouteName, SetAsideReason, VersionName};

use super::Telemetry;
use super::news::News;

/// Which endpoint of which version, and why.
#[derive(Clone, Copy, Debug)]
pub struct EndpointNote<'a> {
    /// The route.
    pub route: &'a RouteName,
    /// The version.
    pub version: &'a VersionName,
    /// The endpoint.
    pub endpoint: &'a EndpointId,
    /// Why it is, or was, set aside.
    pub reason: SetAsideReason,
}

impl Telemetry {
    /// An endpoint was set aside: for so long, or until better is heard of it. Counted where the requests pass.
    pub fn endpoint_set_aside(&self, note: EndpointNote<'_>, time: Option<Duration>) {
        let EndpointNote { route, version, endpoint, reason } = note;
        if let Some(untold) = self.endpoint_lines.next() {
            let seconds = time.map(|time| time.as_secs_f64());
            tracing::warn!(%route, %version, %endpoint, %reason, seconds, untold, "endpoint set aside");
        }
        self.tell(|| note.news("set-aside"));
    }

    /// An endpoint that was set aside gets requests again.
    pub fn endpoint_taken_back(&self, note: EndpointNote<'_>) {
        let EndpointNote { route, version, endpoint, reason } = note;
        if let Some(untold) = self.endpoint_lines.next() {
            tracing::info!(%route, %version, %endpoint, %reason, untold, "endpoint taken back");
        }
        self.tell(|| note.news("taken-back"));
    }

    /// The cluster, or the config, says something else of an endpoint: where it is in its life now; nothing when it is gone. Told
    /// to those who listen alone.
    pub fn endpoint_changed(
        &self,
        route: &RouteName,
        version: &VersionName,
        address: SocketAddr,
        phase: Option<EndpointPhase>,
    ) {
        let state = match phase {
            Some(EndpointPhase::Ready) => "ready",
            Some(EndpointPhase::Draining) => "draining",
            Some(EndpointPhase::Unready) => "unready",
            None => "gone",
        };
        let (route, version) = (route.clone(), version.clone());
        self.tell(|| News::Endpoint { route, version, address, state, reason: None });
    }
}

impl EndpointNote<'_> {
    fn news(&self, state: &'static str) -> News {
        News::Endpoint {
            route: self.route.clone(),
            version: self.version.clone(),
            address: self.endpoint.address,
            state,
            reason: Some(self.reason.token()),
        }
    }
}
