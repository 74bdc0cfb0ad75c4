//! How the requests of a route are carried.

use std::collections::HashMap;

use super::{certificates, once};
use crate::config::errors::Errors;
use crate::config::file::{
    HealthCheckFile, OutliersFile, RetriesFile, RouteFile, TimeoutsFile, UpstreamTlsFile,
};
use crate::config::input::Marked;
use crate::config::settings::Discovery;
use crate::model::{HealthCheck, Outliers, Retries, Timeouts, Traffic, UpstreamTls};

/// What a route says of its traffic, completed with the defaults.
pub(super) fn traffic(route: &RouteFile, discovery: Option<&Discovery>, errors: &mut Errors) -> Traffic {
    let tls = route.upstream_tls.given();
    Traffic {
        timeouts: route.timeouts.value().map(timeouts).unwrap_or_default(),
        retries: route.retries.value().map(|file| retries(file, errors)).unwrap_or_default(),
        outliers: route.outliers.value().map(|file| outliers(file, errors)).unwrap_or_default(),
        health_check: route.health_check.value().map(health_check),
        slow_start: route.slow_start.value().map(|t| t.0),
        upstream_tls: tls.map(|file| upstream_tls(file, discovery, errors)),
        protocol: route.protocol.value().copied(),
        max_body: route.max_body.value().map(|n| n.0),
        shield: route.shield.value().copied().unwrap_or_default(),
        // What it names is known only once the versions are.
        mirror: None,
    }
}

fn timeouts(file: &TimeoutsFile) -> Timeouts {
    let default = Timeouts::default();
    Timeouts {
        connect: file.connect.value().map_or(default.connect, |t| t.0),
        request: file.request.value().map_or(default.request, |t| t.0),
        idle: file.idle.value().map_or(default.idle, |t| t.0),
        total: file.total.value().map(|t| t.0),
        upgraded_idle: file.upgraded_idle.value().map_or(default.upgraded_idle, |t| t.0),
    }
}

fn retries(file: &RetriesFile, errors: &mut Errors) -> Retries {
    let default = Retries::default();
    let mut seen = HashMap::new();
    let mut on = Vec::new();
    for status in file.on.value().into_iter().flatten() {
        once(&mut seen, status.value.0, status.value.0, &status.place, errors);
        on.push(status.value.0);
    }
    on.sort_unstable();
    Retries {
        attempts: file.attempts.value().map_or(default.attempts, |n| n.0),
        on,
        buffer: file.buffer.value().map_or(default.buffer, |n| n.0),
        budget: file.budget.value().map_or(default.budget, |n| n.0),
        least: file.least.value().map_or(default.least, |n| n.0),
    }
}

fn outliers(file: &OutliersFile, errors: &mut Errors) -> Outliers {
    let default = Outliers::default();
    let eject = file.eject.value().map_or(default.eject, |t| t.0);
    // A longer `eject` alone is no mistake.
    let longest = file.longest.value().map_or(default.longest.max(eject), |t| t.0);
    if let Some(place) = file.longest.given().filter(|_| longest < eject && !file.eject.is_bad()) {
        errors.add(&place.place, "is shorter than `eject`: make it longer, or `eject` shorter");
    }
    Outliers {
        consecutive_failures: file.consecutive_failures.value().map_or(default.consecutive_failures, |n| n.0),
        count_5xx: file.count_5xx.value().copied().unwrap_or(default.count_5xx),
        success_rate: file.success_rate.value().map(|share| share.ratio()),
        eject,
        longest,
        most: file.most.value().map_or(default.most, |n| n.0),
    }
}

fn health_check(file: &HealthCheckFile) -> HealthCheck {
    let default = HealthCheck::default();
    HealthCheck {
        path: file.path.value().map_or(default.path, |path| path.0.clone()),
        host: file.host.value().map(|host| host.0.clone()),
        port: file.port.value().map(|port| port.0),
        interval: file.interval.value().map_or(default.interval, |t| t.0),
        timeout: file.timeout.value().map_or(default.timeout, |t| t.0),
        unhealthy: file.unhealthy.value().map_or(default.unhealthy, |n| n.0),
        healthy: file.healthy.value().map_or(default.healthy, |n| n.0),
    }
}

fn upstream_tls(
    file: &Marked<UpstreamTlsFile>,
    discovery: Option<&Discovery>,
    errors: &mut Errors,
) -> UpstreamTls {
    let (place, file) = (&file.place, &file.value);
    let insecure = &file.insecure_skip_verify;
    if let Some(insecure) = insecure.given().filter(|insecure| insecure.value)
        && !(file.ca_file.is_absent() && file.ca_secret.is_absent())
    {
        let message = "nothing is checked against the authorities that are given here: remove this or them";
        errors.add(&insecure.place, message);
    }
    let certificate = file.certificate.given();
    UpstreamTls {
        server_name: file.server_name.value().map(|name| name.0.clone()),
        ca: certificates::authorities(&file.ca_file, &file.ca_secret, place, discovery, errors),
        client_certificate: certificate.and_then(|c| certificates::certificate(c, discovery, errors)),
        insecure_skip_verify: insecure.value().copied().unwrap_or_default(),
    }
}
