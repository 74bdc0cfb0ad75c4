//! Traces on their way to the collector: what became of spans, and whether it can be reached.

use super::Telemetry;
use super::metrics::{DROPPED, FAILURE, SUCCESS};

impl Telemetry {
    /// So many spans have arrived at the collector.
    pub fn spans_sent(&self, spans: u64) {
        self.trace_spans.with_label_values(&[SUCCESS]).inc_by(spans);
    }

    /// So many spans could not be sent, and are gone.
    pub fn spans_lost(&self, spans: u64) {
        self.trace_spans.with_label_values(&[FAILURE]).inc_by(spans);
    }

    /// So many spans came faster than they could be sent.
    pub fn spans_dropped(&self, spans: u64) {
        self.trace_spans.with_label_values(&[DROPPED]).inc_by(spans);
    }

    /// The collector takes no spans any more.
    pub fn traces_failed(&self, collector: &str, error: &str) {
        let remedy = "check `tracing.endpoint`, and that the collector takes OTLP over HTTP there; requests are served all the same";
        tracing::warn!(collector, error, remedy, "traces cannot be sent");
    }

    /// It takes them again.
    pub fn traces_recovered(&self, collector: &str) {
        tracing::info!(collector, "traces are sent again");
    }
}
