//! Every metric: its name, its help text, its labels.

use std::sync::OnceLock;

use prometheus::{
    Encoder, Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
    TextEncoder,
};
use tracing_appender::non_blocking::ErrorCounter;

use super::AccessLog;
use super::connection_events::RefusalLines;
use super::line_limit::LineLimit;
use super::news::Teller;
use crate::model::ConnectionRefusal;

/// `serinus_requests_total`: route, version, code, reason.
pub const REQUESTS: Name =
    Name("serinus_requests_total", "Requests that got a version, by answer and by why it was chosen.");
/// `serinus_request_duration_seconds`: route, version.
pub const REQUEST_DURATION: Name =
    Name("serinus_request_duration_seconds", "From the request's head to the end of its answer, in seconds.");
/// `serinus_unrouted_requests_total`: reason.
pub const UNROUTED: Name =
    Name("serinus_unrouted_requests_total", "Requests that Serinus answered before a version was chosen.");
/// `serinus_upstream_failures_total`: route, version, kind.
pub const UPSTREAM_FAILURES: Name =
    Name("serinus_upstream_failures_total", "Attempts that an upstream failed.");
/// `serinus_retries_total`: route, version, outcome.
pub const RETRIES: Name =
    Name("serinus_retries_total", "Requests that were tried on another pod, by how that ended.");
/// `serinus_shielded_requests_total`: route, version.
pub const SHIELDED: Name = Name(
    "serinus_shielded_requests_total",
    "Requests that a version failed, and that were repeated on the stable one.",
);
/// `serinus_requests_diverted_total`: route, version, reason.
pub const DIVERTED: Name = Name(
    "serinus_requests_diverted_total",
    "Requests that were a version's, and went to the stable one because it was full.",
);
/// `serinus_mirrored_requests_total`: route, version, outcome.
pub const MIRRORED: Name =
    Name("serinus_mirrored_requests_total", "Copies of requests, by what became of them.");
/// `serinus_version_weight_ratio`: route, version.
pub const WEIGHT: Name = Name("serinus_version_weight_ratio", "The share asked for, from 0 to 1.");
/// `serinus_version_effective_weight_ratio`: route, version.
pub const EFFECTIVE_WEIGHT: Name = Name(
    "serinus_version_effective_weight_ratio",
    "The share that its pods get after versions without a usable one gave theirs away: 0 without a usable pod.",
);
/// `serinus_endpoints`: route, version, state.
pub const ENDPOINTS: Name = Name("serinus_endpoints", "Endpoints of a version, by state.");
/// `serinus_ejections_total`: route, version, reason.
pub const EJECTIONS: Name = Name("serinus_ejections_total", "Times an endpoint was set aside, by reason.");
/// `serinus_active_requests`: route, version.
pub const ACTIVE_REQUESTS: Name = Name("serinus_active_requests", "Requests being served.");
/// `serinus_rollout_phase`: route, phase.
pub const ROLLOUT_PHASE: Name =
    Name("serinus_rollout_phase", "1 for the phase that the route's last rollout is in, 0 for the others.");
/// `serinus_rollout_step`: route.
pub const ROLLOUT_STEP: Name = Name("serinus_rollout_step", "The step of the route's last rollout, from 1.");
/// `serinus_rollout_e_value_log10`: route, test.
pub const ROLLOUT_E_VALUE: Name = Name(
    "serinus_rollout_e_value_log10",
    "The decimal logarithm of the e-value: how strongly what was seen speaks against the version.",
);
/// `serinus_rollout_e_value_threshold_log10`: route.
pub const ROLLOUT_THRESHOLD: Name = Name(
    "serinus_rollout_e_value_threshold_log10",
    "The version fails when the decimal logarithm of an e-value is beyond this.",
);
/// `serinus_route_problems`: route.
pub const PROBLEMS: Name = Name("serinus_route_problems", "Problems of a route that `status` shows.");
/// `serinus_problems`: no label.
pub const OWN_PROBLEMS: Name =
    Name("serinus_problems", "Problems that `status` shows and that belong to no single route.");
/// `serinus_route_revision`: route.
pub const REVISION: Name = Name("serinus_route_revision", "The revision of the weights in force.");
/// `serinus_version_stable`: route, version.
pub const STABLE: Name =
    Name("serinus_version_stable", "1 for the stable version of a route, 0 for its others.");
/// `serinus_replicas`: state.
pub const REPLICAS: Name = Name(
    "serinus_replicas",
    "Replicas that share their state, as this one sees them, itself among them: with a sign of life lately, or without.",
);

/// `serinus_accept_errors_total`: listener.
const ACCEPT_ERRORS: Name = Name(
    "serinus_accept_errors_total",
    "Connections that could not be accepted (out of file descriptors, for one).",
);
/// `serinus_connection_limit_reached_total`: listener.
const LIMIT_REACHED: Name = Name(
    "serinus_connection_limit_reached_total",
    "Times that every place for a client's connection was taken.",
);

/// `serinus_connections_refused_total`: listener, reason.
const REFUSED: Name = Name(
    "serinus_connections_refused_total",
    "Connections that ended before their first request: no TLS, or no PROXY header, that could be used.",
);

/// How many lines about endpoints there are in a second.
const ENDPOINT_LINES: u32 = 20;

/// A metric's name and help text.
#[derive(Clone, Copy, Debug)]
pub struct Name(pub &'static str, pub &'static str);

/// A router's own counters and gauges, and the events that move them.
#[derive(Debug)]
pub struct Telemetry {
    registry: Registry,
    pub(super) generation: IntGauge,
    pub(super) swaps: IntCounter,
    pub(super) compile_seconds: Histogram,
    pub(super) reloads: IntCounterVec,
    pub(super) watch_events: IntCounterVec,
    pub(super) watch_connected: IntGaugeVec,
    pub(super) state_saves: IntCounterVec,
    pub(super) certificate_expiry: IntGaugeVec,
    connections: IntGaugeVec,
    accept_errors: IntCounterVec,
    pub(super) connection_limits: IntCounterVec,
    connections_refused: IntCounterVec,
    dropped_lines: IntCounter,
    access_log: OnceLock<ErrorCounter>,
    pub(super) endpoint_lines: LineLimit,
    pub(super) refusal_lines: RefusalLines,
    pub(super) hooks: IntCounterVec,
    pub(super) service_events: IntCounterVec,
    pub(super) trace_spans: IntCounterVec,
    pub(super) teller: Teller,
}

/// The `result` of what went well.
pub(super) const SUCCESS: &str = "success";
/// The `result` of what did not.
pub(super) const FAILURE: &str = "failure";
/// The `result` where another replica was first.
pub(super) const CONFLICT: &str = "conflict";
/// The `result` of what was never sent.
pub(super) const DROPPED: &str = "dropped";

/// Seconds that a compile takes: 100 µs to 1.6 s.
const COMPILE_BUCKETS: [f64; 8] = [0.000_1, 0.000_4, 0.001_6, 0.005, 0.025, 0.1, 0.4, 1.6];

fn compile_seconds() -> Result<Histogram, prometheus::Error> {
    let help = "Time to compile a routing table, in seconds.";
    Histogram::with_opts(
        HistogramOpts::new("serinus_table_compile_seconds", help).buckets(COMPILE_BUCKETS.to_vec()),
    )
}

fn hook_calls(registry: &Registry) -> Result<IntCounterVec, prometheus::Error> {
    let help = "Calls of the webhooks of rollouts, by what for and by how they ended.";
    let calls = IntCounterVec::new(Opts::new("serinus_rollout_hooks_total", help), &["event", "result"])?;
    registry.register(Box::new(calls.clone()))?;
    Ok(calls)
}

fn service_events(registry: &Registry) -> Result<IntCounterVec, prometheus::Error> {
    let help = "Kubernetes Events about what was done to routes, by what became of them.";
    let events = IntCounterVec::new(Opts::new("serinus_kubernetes_events_total", help), &["result"])?;
    registry.register(Box::new(events.clone()))?;
    for result in [SUCCESS, FAILURE, DROPPED] {
        events.with_label_values(&[result]);
    }
    Ok(events)
}

fn trace_spans(registry: &Registry) -> Result<IntCounterVec, prometheus::Error> {
    let help = "Spans of traced requests, by what became of them.";
    let spans = IntCounterVec::new(Opts::new("serinus_trace_spans_total", help), &["result"])?;
    registry.register(Box::new(spans.clone()))?;
    for result in [SUCCESS, FAILURE, DROPPED] {
        spans.with_label_values(&[result]);
    }
    Ok(spans)
}

fn dropped_lines() -> Result<IntCounter, prometheus::Error> {
    let help =
        "Lines of the access log that were dropped because they came faster than they could be written.";
    IntCounter::new("serinus_access_log_dropped_total", help)
}

impl Telemetry {
    /// Counters at zero.
    ///
    /// # Errors
    /// When two metrics have the same name: a fault of this file.
    pub fn new() -> Result<Self, prometheus::Error> {
        let registry = Registry::new();
        let counters =
            |name: &str, help: &str, labels: &[&str]| -> Result<IntCounterVec, prometheus::Error> {
                let counters = IntCounterVec::new(Opts::new(name, help), labels)?;
                registry.register(Box::new(counters.clone()))?;
                Ok(counters)
            };
        let gauges = |name: &str, help: &str, labels: &[&str]| -> Result<IntGaugeVec, prometheus::Error> {
            let gauges = IntGaugeVec::new(Opts::new(name, help), labels)?;
            registry.register(Box::new(gauges.clone()))?;
            Ok(gauges)
        };
        let generation =
            IntGauge::new("serinus_table_generation", "The number of the routing table in force.")?;
        let swaps = IntCounter::new("serinus_table_swaps_total", "Routing tables published.")?;
        let compile_seconds = compile_seconds()?;
        registry.register(Box::new(generation.clone()))?;
        registry.register(Box::new(swaps.clone()))?;
        registry.register(Box::new(compile_seconds.clone()))?;
        let dropped_lines = dropped_lines()?;
        registry.register(Box::new(dropped_lines.clone()))?;
        let build = gauges("serinus_build_info", "1, with the version of Serinus.", &["version"])?;
        build.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
        #[cfg(target_os = "linux")]
        registry.register(Box::new(prometheus::process_collector::ProcessCollector::for_self()))?;
        let reloads = counters(
            "serinus_config_reloads_total",
            "Times the config file was read, by result.",
            &["result"],
        )?;
        let state_saves =
            counters("serinus_state_saves_total", "Times the state was written, by result.", &["result"])?;
        // There from the start, so that an alert on the first failure sees it grow.
        [SUCCESS, FAILURE].iter().for_each(|result| drop(reloads.with_label_values(&[result])));
        [SUCCESS, FAILURE, CONFLICT].iter().for_each(|result| drop(state_saves.with_label_values(&[result])));
        Ok(Self {
            generation,
            swaps,
            compile_seconds,
            reloads,
            watch_events: counters(
                "serinus_watch_events_total",
                "Objects heard of from the Kubernetes API, by kind.",
                &["kind"],
            )?,
            watch_connected: gauges(
                "serinus_watch_connected",
                "1 while every watch of this kind is connected, else 0.",
                &["kind"],
            )?,
            state_saves,
            certificate_expiry: gauges(
                "serinus_certificate_expiry_seconds",
                "When a certificate in use ends, in seconds since 1970; no listener for one that is shown to pods.",
                &["listener", "source"],
            )?,
            connections: gauges("serinus_active_connections", "Client connections open.", &["listener"])?,
            accept_errors: counters(ACCEPT_ERRORS.0, ACCEPT_ERRORS.1, &["listener"])?,
            connection_limits: counters(LIMIT_REACHED.0, LIMIT_REACHED.1, &["listener"])?,
            connections_refused: counters(REFUSED.0, REFUSED.1, &["listener", "reason"])?,
            dropped_lines,
            access_log: OnceLock::new(),
            endpoint_lines: LineLimit::of(ENDPOINT_LINES),
            refusal_lines: RefusalLines::default(),
            hooks: hook_calls(&registry)?,
            service_events: service_events(&registry)?,
            trace_spans: trace_spans(&registry)?,
            teller: Teller::default(),
            registry,
        })
    }

    /// The gauge of a listener's open client connections. With it come the counters of those that are refused, could not be accepted
    /// or found no place, so that an alert on the first one sees it grow.
    #[must_use]
    pub fn connections(&self, listener: &str) -> IntGauge {
        for reason in ConnectionRefusal::ALL {
            self.refused_connections(listener, *reason);
        }
        self.accept_errors.with_label_values(&[listener]);
        self.connection_limits.with_label_values(&[listener]);
        self.connections.with_label_values(&[listener])
    }

    /// The counter of a listener's failed accepts.
    #[must_use]
    pub fn accept_errors(&self, listener: &str) -> IntCounter {
        self.accept_errors.with_label_values(&[listener])
    }

    /// The counter of a listener's connections that ended for this reason before their first request.
    pub(super) fn refused_connections(&self, listener: &str, reason: ConnectionRefusal) -> IntCounter {
        self.connections_refused.with_label_values(&[listener, reason.token()])
    }

    /// Takes the access log's dropped lines into the metrics; a router has at most one.
    pub fn count_dropped_lines(&self, log: &AccessLog) {
        let _ = self.access_log.set(log.dropped());
    }

    /// The Prometheus text of the router's own metrics.
    #[must_use]
    pub fn text(&self) -> String {
        if let Some(log) = self.access_log.get() {
            let dropped = u64::try_from(log.dropped_lines()).unwrap_or(u64::MAX);
            self.dropped_lines.inc_by(dropped.saturating_sub(self.dropped_lines.get()));
        }
        let mut text = Vec::new();
        // Writing to memory fails only for a metric without samples, which a registry does not gather.
        if let Err(error) = TextEncoder::new().encode(&self.registry.gather(), &mut text) {
            tracing::error!(%error, "metrics could not be written");
        }
        String::from_utf8(text).unwrap_or_default()
    }
}
