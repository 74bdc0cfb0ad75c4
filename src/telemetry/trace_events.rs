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
        let remedy = "check `tracing.endpoint`: the collector must take OTLP over HTTP there (port 4318; 4317 is gRPC). A key for it is given in \
                      OTEL_EXPORTER_OTLP_HEADERS, who signed its certificate in SSL_CERT_FILE. Requests are served all the same";
        tracing::warn!(collector, error, remedy, "traces cannot be sent");
    }

    /// It takes them again.
    pub fn traces_recovered(&self, collector: &str) {
        tracing::info!(collector, "traces are sent again");
    }
}
