//! What happens to certificates: each event is one log line and one metric.

use crate::model::Timestamp;

use super::Telemetry;

impl Telemetry {
    /// A certificate came into use, or took the place of another one from the same source. No listener for one that is
    /// shown to pods.
    pub fn certificate_loaded(&self, listener: &str, source: &str, names: &[String], not_after: Timestamp) {
        let seconds = i64::try_from(not_after.millis() / 1000).unwrap_or(i64::MAX);
        self.certificate_expiry.with_label_values(&[listener, source]).set(seconds);
        let names = names.join(" ");
        tracing::info!(listener, source, names, expires = %not_after, "certificate in use");
    }

    /// A certificate is not in use any more.
    pub fn certificate_dropped(&self, listener: &str, source: &str) {
        // Fails only for labels that were never set.
        let _ = self.certificate_expiry.remove_label_values(&[listener, source]);
        tracing::info!(listener, source, "certificate no longer in use");
    }
}
