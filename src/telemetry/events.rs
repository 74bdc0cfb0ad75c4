//! What happens in the life of a router: each event is one log line and one metric.

use std::time::Duration;

use crate::model::{Generation, Problem, Revision, RouteName, Share, VersionName};

use super::Telemetry;
use super::metrics::{CONFLICT, FAILURE, SUCCESS};
use super::news::News;

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
        self.tell(|| News::Config { accepted: true, routes: Some(routes), errors: None });
    }

    /// The config file was read and refused; what ran before goes on.
    pub fn config_refused(&self, file: &str, errors: &str) {
        self.reloads.with_label_values(&[FAILURE]).inc();
        tracing::error!(file, errors, "config refused; the one before stays in force: correct the file");
        self.tell(|| News::Config { accepted: false, routes: None, errors: Some(errors.to_owned()) });
    }

    /// A route's weights changed.
    pub fn weights_changed(
        &self,
        route: &RouteName,
        revision: Revision,
        source: &dyn std::fmt::Display,
        weights: &[(VersionName, Share)],
        who: Option<&str>,
        reason: Option<&str>,
    ) {
        let shown = show(weights);
        tracing::info!(%route, %revision, weights = shown, %source, who, reason, "weights changed");
        self.tell(|| News::Weights {
            route: route.clone(),
            revision,
            source: source.to_string(),
            who: who.map(ToOwned::to_owned),
            weights: weights.to_vec(),
            reason: reason.map(ToOwned::to_owned),
        });
    }

    /// A route came with the config, and has weights from before that differ from the file's.
    pub fn weights_restored(
        &self,
        route: &RouteName,
        revision: Revision,
        weights: &[(VersionName, Share)],
        in_file: &[(VersionName, Share)],
    ) {
        let (weights, in_file) = (show(weights), show(in_file));
        tracing::info!(%route, %revision, weights, in_file, "weights of an earlier change are in force, not the file's");
    }

    /// There is a problem that was not there before.
    pub fn problem_found(&self, problem: &Problem) {
        self.problem(None, problem, true);
    }

    /// A problem is gone.
    pub fn problem_gone(&self, problem: &Problem) {
        self.problem(None, problem, false);
    }

    /// A route has a problem that it did not have before, or has it no more.
    pub fn route_problem(&self, route: &RouteName, problem: &Problem, there: bool) {
        self.problem(Some(route), problem, there);
    }

    fn problem(&self, route: Option<&RouteName>, problem: &Problem, there: bool) {
        let Problem { message, remedy } = problem;
        if there {
            tracing::warn!(remedy, "{message}");
        } else {
            tracing::info!("no longer: {message}");
        }
        self.tell(|| News::Problem {
            route: route.cloned(),
            there,
            message: message.clone(),
            remedy: remedy.clone(),
        });
    }

    /// A listener cannot accept connections, for something is lacking.
    pub fn cannot_accept(&self, listener: &str, error: &dyn std::fmt::Display) {
        tracing::warn!(
            listener,
            %error,
            "connections cannot be accepted, and wait; idle ones are closed to make room: raise the limit of open files, or \
             add replicas"
        );
    }

    /// A listener accepts connections again, after it could not.
    pub fn accepting_again(&self, listener: &str) {
        tracing::info!(listener, "connections are accepted again");
    }

    /// Every place for a connection of a listener is taken; further ones wait.
    pub fn connection_limit_reached(&self, listener: &str, open: i64) {
        self.connection_limits.with_label_values(&[listener]).inc();
        tracing::warn!(
            listener,
            open,
            "no more connections are taken at once: further ones wait, and idle ones are closed; raise the listener's limit \
             or that of open files, or add replicas"
        );
    }

    /// There are places again.
    pub fn below_connection_limit(&self, listener: &str) {
        tracing::info!(listener, "there is room for connections again");
    }

    /// The state was written.
    pub fn state_saved(&self) {
        self.state_saves.with_label_values(&[SUCCESS]).inc();
    }

    /// Another replica had changed the common state meanwhile; it is tried again on what that has now.
    pub fn state_conflict(&self) {
        self.state_saves.with_label_values(&[CONFLICT]).inc();
    }

    /// The common state could not be written; it is tried again. Told as a problem.
    pub fn state_not_shared(&self) {
        self.state_saves.with_label_values(&[FAILURE]).inc();
    }

    /// The state could not be written; it is tried again.
    pub fn state_not_saved(&self, error: &dyn std::fmt::Display) {
        self.state_saves.with_label_values(&[FAILURE]).inc();
        tracing::error!(%error, "the state was not saved and would be lost by a restart; trying again");
    }
}

fn show(weights: &[(VersionName, Share)]) -> String {
    weights.iter().map(|(version, share)| format!("{version}={share}")).collect::<Vec<_>>().join(" ")
}
