//! What becomes of the Kubernetes Events on Services: each is counted, and trouble with them is a log line.

use crate::model::{Problem, ServiceEvent};

use super::Telemetry;
use super::metrics::{DROPPED, FAILURE, SUCCESS};

impl Telemetry {
    /// The API server has taken an Event.
    pub fn service_event_posted(&self, event: &ServiceEvent) {
        self.service_events.with_label_values(&[SUCCESS]).inc();
        let ServiceEvent { service, route, deed, .. } = event;
        tracing::debug!(%service, %route, reason = deed.reason(), "Kubernetes Event posted");
    }

    /// The API server has not taken an Event.
    pub fn service_event_failed(&self, event: &ServiceEvent) {
        self.service_events.with_label_values(&[FAILURE]).inc();
        let ServiceEvent { service, route, deed, .. } = event;
        tracing::debug!(%service, %route, reason = deed.reason(), "Kubernetes Event not posted");
    }

    /// An Event is not posted, for too many wait.
    pub fn service_event_dropped(&self, event: &ServiceEvent) {
        self.service_events.with_label_values(&[DROPPED]).inc();
        let ServiceEvent { service, route, deed, .. } = event;
        tracing::warn!(%service, %route, reason = deed.reason(), "Kubernetes Event not posted: too many wait");
    }

    /// Events of a namespace are not taken. Logged when the reason changes, not per attempt.
    pub fn service_events_troubled(&self, namespace: &str, problem: &Problem) {
        tracing::warn!(namespace, remedy = problem.remedy, "{}", problem.message);
    }

    /// Events of a namespace are taken again.
    pub fn service_events_recovered(&self, namespace: &str) {
        tracing::info!(namespace, "Kubernetes Events are posted again");
    }
}
