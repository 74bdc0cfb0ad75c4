//! What happens in the life of a router: each event is one log line and one metric.

use std::time::Duration;

use crate::model::{Generation, Problem, RouteName, Share, VersionName};

use super::Telemetry;
use super::metrics::{FAILURE, SUCCESS};

impl Telemetry {
    /// A routing table was compiled and published.
    pub fn table_published(&self, generation: Generation, routes: usize, took: Duration) {
        self.generation.set(i64::try_from(generation.0).unwrap_or(i64::MAX));
        self.swaps.inc();
        self.compile_seconds.observe(took.as_secs_f64());
        tracing::debug!(%generation, routes, took_us = took.as_micros(), "routing table published");
    }

    /// The config file was read and is in force.
    pub fn config_loaded(&self, file: &str, routes: usize) {
        self.reloads.with_label_values(&[SUCCESS]).inc();
        tracing::info!(file, routes, "config loaded");
    }

    /// The config file was read and refused; what ran before goes on.
    pub fn config_refused(&self, file: &str, errors: &str) {
        self.reloads.with_label_values(&[FAILURE]).inc();
        tracing::error!(file, errors, "config refused; the one before stays in force: correct the file");
    }

    /// A route's weights changed.
    pub fn weights_changed(
        &self,
        route: &RouteName,
        source: &str,
        weights: &[(VersionName, Share)],
        reason: &str,
    ) {
        let weights = weights.iter().map(|(v, s)| format!("{v}={s}")).collect::<Vec<_>>().join(" ");
        tracing::info!(%route, source, weights, reason, "weights changed");
    }

    /// A route has a problem that it did not have before.
    pub fn problem_found(&self, problem: &Problem) {
        tracing::warn!(remedy = problem.remedy, "{}", problem.message);
    }

    /// A problem is gone.
    pub fn problem_solved(&self, problem: &Problem) {
        tracing::info!("solved: {}", problem.message);
    }

    /// The state was written.
    pub fn state_saved(&self) {
        self.state_saves.with_label_values(&[SUCCESS]).inc();
    }

    /// The state could not be written; it is tried again.
    pub fn state_not_saved(&self, error: &dyn std::fmt::Display) {
        self.state_saves.with_label_values(&[FAILURE]).inc();
        tracing::error!(%error, "the state was not saved and would be lost by a restart; trying again");
    }
}
