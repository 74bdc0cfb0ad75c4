//! The Prometheus text of what is counted where the requests pass.
//!
//! Written straight from the tallies, so that a request's count is one atomic addition and nothing is looked up by name.

use std::fmt::Write as _;

use crate::control::RolloutViews;
use crate::rollout::Phase;
use crate::routing::tally::{LATENCY_BOUNDS, LatencySnapshot, Snapshot, Unrouted};
use crate::routing::{EndpointState, Route, RoutingTable, Version};
use crate::state::Replicas;
use crate::telemetry::metrics::{
    ACTIVE_REQUESTS, DIVERTED, EFFECTIVE_WEIGHT, EJECTIONS, ENDPOINTS, MIRRORED, Name, OWN_PROBLEMS,
    PROBLEMS, REPLICAS, REQUEST_DURATION, REQUESTS, RETRIES, REVISION, ROLLOUT_E_VALUE, ROLLOUT_PHASE,
    ROLLOUT_STEP, ROLLOUT_THRESHOLD, SHIELDED, STABLE, UNROUTED, UPSTREAM_FAILURES, WEIGHT,
};

/// The media type of the Prometheus text format.
pub(super) const MEDIA_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// A version, the labels that name it, and its counts at one moment.
struct Row<'a> {
    labels: String,
    version: &'a Version,
    counts: Snapshot,
    stable: bool,
    /// What it fails may be repeated on the stable one.
    shielded: bool,
}

/// Every family that belongs to a route, in the Prometheus text format.
pub(super) fn text(table: &RoutingTable, rollouts: &RolloutViews, unrouted: &Unrouted) -> String {
    let rows: Vec<Row<'_>> = table
        .routes()
        .iter()
        .flat_map(|route| {
            let name = escaped(route.name().as_str());
            let shield = route.spec.traffic.shield;
            route.versions.iter().enumerate().map(move |(place, version)| Row {
                stable: place == 0,
                shielded: shield && place > 0,
                labels: format!("route=\"{name}\",version=\"{}\"", escaped(version.name.as_str())),
                version,
                counts: version.tally.snapshot(),
            })
        })
        .collect();
    let mut text = Text(String::with_capacity(4096 + 2048 * rows.len()));
    requests(&mut text, &rows);
    durations(&mut text, &rows);
    failures(&mut text, &rows);
    ejections(&mut text, &rows);
    elsewhere(&mut text, &rows);
    copies(&mut text, table);
    gauges(&mut text, &rows);
    routes(&mut text, table);
    self::rollouts(&mut text, table, rollouts);
    text.family(UNROUTED, "counter");
    for (reason, count) in unrouted.counts() {
        text.sample(UNROUTED.0, &format!("reason=\"{reason}\""), count);
    }
    text.0
}

fn requests(text: &mut Text, rows: &[Row<'_>]) {
    text.family(REQUESTS, "counter");
    for Row { labels, counts, .. } in rows {
        for (reason, code, count) in &counts.requests {
            text.sample(REQUESTS.0, &format!("{labels},code=\"{code}\",reason=\"{reason}\""), count);
        }
    }
}

fn durations(text: &mut Text, rows: &[Row<'_>]) {
    text.family(REQUEST_DURATION, "histogram");
    for Row { labels, counts, .. } in rows {
        histogram(text, labels, &counts.latency);
    }
}

/// Of the bounds that are counted, those that begin with 1, 2 or 5: a third of the series at half the resolution.
fn histogram(text: &mut Text, labels: &str, latency: &LatencySnapshot) {
    let name = REQUEST_DURATION.0;
    let mut below = 0;
    for (bound, count) in LATENCY_BOUNDS.iter().zip(&latency.buckets) {
        below += count;
        if is_1_2_5(*bound) {
            let seconds = *bound as f64 / 1e6;
            text.sample(&format!("{name}_bucket"), &format!("{labels},le=\"{seconds}\""), below);
        }
    }
    let count = latency.count();
    text.sample(&format!("{name}_bucket"), &format!("{labels},le=\"+Inf\""), count);
    text.sample(&format!("{name}_sum"), labels, latency.sum_micros as f64 / 1e6);
    text.sample(&format!("{name}_count"), labels, count);
}

fn is_1_2_5(mut bound: u64) -> bool {
    while bound >= 10 && bound.is_multiple_of(10) {
        bound /= 10;
    }
    matches!(bound, 1 | 2 | 5)
}

fn failures(text: &mut Text, rows: &[Row<'_>]) {
    text.family(UPSTREAM_FAILURES, "counter");
    for Row { labels, counts, .. } in rows {
        for (kind, count) in &counts.failures {
            text.sample(UPSTREAM_FAILURES.0, &format!("{labels},kind=\"{kind}\""), count);
        }
    }
    text.family(RETRIES, "counter");
    for Row { labels, counts, .. } in rows {
        text.sample(RETRIES.0, &format!("{labels},outcome=\"success\""), counts.retried_ok);
        text.sample(RETRIES.0, &format!("{labels},outcome=\"failure\""), counts.retried_failed);
    }
}

fn ejections(text: &mut Text, rows: &[Row<'_>]) {
    text.family(EJECTIONS, "counter");
    for Row { labels, counts, .. } in rows {
        for (reason, count) in &counts.set_aside {
            text.sample(EJECTIONS.0, &format!("{labels},reason=\"{reason}\""), count);
        }
    }
}

/// What another version did for one: there where it can be, or was.
fn elsewhere(text: &mut Text, rows: &[Row<'_>]) {
    text.family(SHIELDED, "counter");
    for Row { labels, counts, .. } in rows.iter().filter(|row| row.shielded || row.counts.shielded > 0) {
        text.sample(SHIELDED.0, labels, counts.shielded);
    }
    text.family(DIVERTED, "counter");
    for Row { labels, version, counts, .. } in rows {
        if version.most_in_flight().is_some() || counts.diverted > 0 {
            text.sample(DIVERTED.0, &format!("{labels},reason=\"capacity\""), counts.diverted);
        }
    }
}

fn copies(text: &mut Text, table: &RoutingTable) {
    text.family(MIRRORED, "counter");
    for (route, mirror) in table.routes().iter().filter_map(|route| Some((route, route.mirror.as_ref()?))) {
        let (route, version) = (escaped(route.name().as_str()), escaped(mirror.spec.version.as_str()));
        for (outcome, count) in mirror.tally.snapshot().outcomes {
            let labels = format!("route=\"{route}\",version=\"{version}\",outcome=\"{outcome}\"");
            text.sample(MIRRORED.0, &labels, count);
        }
    }
}

fn gauges(text: &mut Text, rows: &[Row<'_>]) {
    text.family(WEIGHT, "gauge");
    for Row { labels, version, .. } in rows {
        text.sample(WEIGHT.0, labels, version.asked.ratio());
    }
    text.family(EFFECTIVE_WEIGHT, "gauge");
    for Row { labels, version, .. } in rows {
        text.sample(EFFECTIVE_WEIGHT.0, labels, version.effective.ratio());
    }
    text.family(STABLE, "gauge");
    for Row { labels, stable, .. } in rows {
        text.sample(STABLE.0, labels, u8::from(*stable));
    }
    text.family(ACTIVE_REQUESTS, "gauge");
    for Row { labels, counts, .. } in rows {
        text.sample(ACTIVE_REQUESTS.0, labels, counts.active);
    }
    text.family(ENDPOINTS, "gauge");
    for Row { labels, version, .. } in rows {
        let of = |state| version.members.iter().filter(|m| m.state() == state).count();
        for (state, count) in [
            ("ready", of(EndpointState::Ready)),
            ("draining", of(EndpointState::Draining)),
            // By what became of requests.
            ("ejected", of(EndpointState::Ejected) + of(EndpointState::Refused)),
            // By what was asked of it: its readiness probe, or the route's health checks.
            ("unhealthy", of(EndpointState::Unhealthy) + of(EndpointState::Unready)),
        ] {
            text.sample(ENDPOINTS.0, &format!("{labels},state=\"{state}\""), count);
        }
    }
}

fn routes(text: &mut Text, table: &RoutingTable) {
    let of_each = |text: &mut Text, name: Name, value: &dyn Fn(&Route) -> u64| {
        text.family(name, "gauge");
        for route in table.routes() {
            text.sample(name.0, &format!("route=\"{}\"", escaped(route.name().as_str())), value(route));
        }
    };
    of_each(text, PROBLEMS, &|route| u64::try_from(route.problems.len()).unwrap_or(u64::MAX));
    of_each(text, REVISION, &|route| route.revision.0);
}

/// What belongs to no route: the router's own problems, and the replicas where they share their state.
pub(super) fn own(problems: usize, replicas: Option<&Replicas>) -> String {
    let mut text = Text(String::new());
    text.family(OWN_PROBLEMS, "gauge");
    text.plain(OWN_PROBLEMS.0, problems);
    if let Some(replicas) = replicas {
        text.family(REPLICAS, "gauge");
        let live = replicas.peers.iter().filter(|peer| peer.live).count();
        for (state, count) in [("live", 1 + live), ("silent", replicas.peers.len() - live)] {
            text.sample(REPLICAS.0, &format!("state=\"{state}\""), count);
        }
    }
    text.0
}

/// Of the last rollout of each route that had one.
fn rollouts(text: &mut Text, table: &RoutingTable, rollouts: &RolloutViews) {
    let views: Vec<_> = table
        .routes()
        .iter()
        .filter_map(|route| {
            let labels = format!("route=\"{}\"", escaped(route.name().as_str()));
            Some((labels, rollouts.get(route.name().as_str())?))
        })
        .collect();
    text.family(ROLLOUT_PHASE, "gauge");
    for (labels, view) in &views {
        for phase in Phase::TOKENS {
            let is = u8::from(view.rollout.phase.token() == phase);
            text.sample(ROLLOUT_PHASE.0, &format!("{labels},phase=\"{phase}\""), is);
        }
    }
    text.family(ROLLOUT_STEP, "gauge");
    for (labels, view) in &views {
        text.sample(ROLLOUT_STEP.0, labels, view.rollout.step + 1);
    }
    let tens = |log: f64| log / std::f64::consts::LN_10;
    text.family(ROLLOUT_E_VALUE, "gauge");
    for (labels, view) in &views {
        text.sample(ROLLOUT_E_VALUE.0, &format!("{labels},test=\"errors\""), tens(view.findings.log_errors));
        if let Some(slowness) = view.findings.log_slowness {
            text.sample(ROLLOUT_E_VALUE.0, &format!("{labels},test=\"slowness\""), tens(slowness));
        }
    }
    text.family(ROLLOUT_THRESHOLD, "gauge");
    for (labels, view) in &views {
        text.sample(ROLLOUT_THRESHOLD.0, labels, tens(view.findings.log_threshold));
    }
}

struct Text(String);

impl Text {
    fn family(&mut self, Name(name, help): Name, kind: &str) {
        let help = help.replace('\\', "\\\\").replace('\n', "\\n");
        // Writing to a string cannot fail.
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    fn sample(&mut self, name: &str, labels: &str, value: impl std::fmt::Display) {
        let _ = writeln!(self.0, "{name}{{{labels}}} {value}");
    }

    fn plain(&mut self, name: &str, value: impl std::fmt::Display) {
        let _ = writeln!(self.0, "{name} {value}");
    }
}

/// A label's value as the format wants it.
fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::state::Peer;

    #[test]
    fn bounds_are_1_2_5_of_every_decade() {
        let bounds: Vec<u64> = LATENCY_BOUNDS.into_iter().filter(|b| is_1_2_5(*b)).collect();
        let mut wanted: Vec<u64> = (2..8).flat_map(|e| [1, 2, 5].map(|n| n * 10_u64.pow(e))).collect();
        wanted.push(100_000_000);
        assert_eq!(bounds, wanted);
    }

    #[test]
    fn a_histogram_is_cumulative_and_whole() {
        let mut latency =
            LatencySnapshot { buckets: vec![0; LATENCY_BOUNDS.len() + 1], sum_micros: 1_500_000 };
        for (at, count) in [(0, 2), (1, 3), (2, 4), (LATENCY_BOUNDS.len(), 1)] {
            latency.buckets[at] = count;
        }
        let mut text = Text(String::new());
        histogram(&mut text, "route=\"r\",version=\"v\"", &latency);
        let lines: Vec<&str> = text.0.lines().collect();
        let name = "serinus_request_duration_seconds";
        assert_eq!(lines[0], format!(r#"{name}_bucket{{route="r",version="v",le="0.0001"}} 2"#));
        assert_eq!(lines[1], format!(r#"{name}_bucket{{route="r",version="v",le="0.0002"}} 9"#));
        assert_eq!(lines[18], format!(r#"{name}_bucket{{route="r",version="v",le="100"}} 9"#));
        assert_eq!(lines[19], format!(r#"{name}_bucket{{route="r",version="v",le="+Inf"}} 10"#));
        assert_eq!(lines[20], format!(r#"{name}_sum{{route="r",version="v"}} 1.5"#));
        assert_eq!(lines[21], format!(r#"{name}_count{{route="r",version="v"}} 10"#));
    }

    #[test]
    fn replicas_are_counted_with_the_one_that_is_asked() {
        let peer =
            |name: &str, live| Peer { name: name.into(), live, standings: Arc::default(), serves: None };
        let replicas = Replicas {
            me: "a".into(),
            peers: vec![peer("b", true), peer("c", false), peer("d", true)],
            ..Replicas::default()
        };
        let samples = |text: String| -> Vec<String> {
            text.lines().filter(|line| !line.starts_with('#')).map(str::to_owned).collect()
        };
        assert_eq!(
            samples(own(2, Some(&replicas))),
            [
                "serinus_problems 2",
                "serinus_replicas{state=\"live\"} 3",
                "serinus_replicas{state=\"silent\"} 1"
            ]
        );
        assert_eq!(samples(own(0, None)), ["serinus_problems 0"]);
    }

    #[test]
    fn labels_are_escaped() {
        assert_eq!(escaped("a\"b\\c\nd"), r#"a\"b\\c\nd"#);
    }
}
