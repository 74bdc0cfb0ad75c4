//! What happens between Serinus and the Kubernetes API: each event is one log line and one metric.

use crate::model::{ClusterKind, Problem};

use super::Telemetry;

impl Telemetry {
    /// Objects were heard of: added, changed, deleted or listed.
    pub fn watch_heard(&self, kind: ClusterKind, objects: u64) {
        self.watch_events.with_label_values(&[kind.plural()]).inc_by(objects);
    }

    /// Whether every watch of a kind is connected.
    pub fn watch_connected(&self, kind: ClusterKind, connected: bool) {
        self.watch_connected.with_label_values(&[kind.plural()]).set(i64::from(connected));
    }

    /// A whole list of a kind arrived.
    pub fn watch_listed(&self, namespace: &str, kind: ClusterKind, objects: usize) {
        tracing::debug!(namespace, kind = kind.plural(), objects, "listed");
    }

    /// A watch is open for the first time, or again after trouble.
    pub fn watch_open(&self, namespace: &str, kind: ClusterKind) {
        tracing::info!(namespace, kind = kind.plural(), "watching");
    }

    /// A watch broke off; it is opened again.
    pub fn watch_cut(&self, namespace: &str, kind: ClusterKind, reason: &str) {
        tracing::debug!(namespace, kind = kind.plural(), reason, "watch broke off; opening it again");
    }

    /// A watch cannot be opened; it is tried again until it can. Logged when the reason changes, not per attempt.
    pub fn watch_troubled(&self, namespace: &str, kind: ClusterKind, problem: &Problem) {
        tracing::warn!(
            namespace,
            kind = kind.plural(),
            remedy = problem.remedy,
            "{}; what was known before stays in force, and it is tried again",
            problem.message
        );
    }

    /// An object cannot be used as it is.
    pub fn object_refused(&self, namespace: &str, kind: ClusterKind, problem: &Problem) {
        tracing::warn!(namespace, kind = kind.plural(), remedy = problem.remedy, "{}", problem.message);
    }

    /// A namespace is not watched any more.
    pub fn namespace_forgotten(&self, namespace: &str) {
        tracing::info!(namespace, "not watched any more: no route names it");
    }
}
