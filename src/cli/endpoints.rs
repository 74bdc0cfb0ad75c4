//! The endpoints in `serinus status`: each of a route's, and in what is wrong those that do not get what they should.

use std::io::{self, Write};

use crate::admin::wire::{EndpointStatus, Phase, RouteStatus, VersionStatus};

use super::text::{align_right, plain, table, write_table};

/// How many of a version are named in what is wrong.
const NAMED: usize = 5;

/// What an endpoint is to its version; of several, the first that holds, as it is counted.
pub(super) fn state(endpoint: &EndpointStatus) -> &'static str {
    match endpoint.phase {
        _ if endpoint.refused => "refused",
        Phase::Unready => "unready",
        Phase::Draining => "draining",
        Phase::Ready if endpoint.ejected => "ejected",
        Phase::Ready if endpoint.unhealthy => "unhealthy",
        Phase::Ready => "ready",
    }
}

/// What a state means for who reads what is wrong; nothing for those that are as they should be.
fn ails(endpoint: &EndpointStatus) -> Option<&'static str> {
    match state(endpoint) {
        // A pod that leaves may have closed its port before.
        _ if endpoint.phase == Phase::Draining => None,
        "refused" => Some("refuses connections"),
        "unready" => Some("is not ready"),
        "ejected" => Some("is ejected"),
        "unhealthy" => Some("fails its health checks"),
        _ => None,
    }
}

/// A line for each endpoint of a route.
pub(super) fn write_endpoints(route: &RouteStatus, out: &mut dyn Write) -> io::Result<()> {
    let mut endpoints = table(&["VERSION", "ADDRESS", "POD", "STATE", "IN FLIGHT"]);
    let mut unlisted = Vec::new();
    for version in &route.versions {
        for endpoint in &version.endpoints.addresses {
            endpoints.add_row([
                plain(&version.name),
                plain(&endpoint.address),
                endpoint.pod.as_deref().map_or_else(|| "-".to_owned(), plain),
                state(endpoint).to_owned(),
                endpoint.in_flight.to_string(),
            ]);
        }
        let more = all(version).saturating_sub(version.endpoints.addresses.len());
        if more > 0 {
            unlisted.push(format!("and {more} more of {}", plain(&version.name)));
        }
    }
    if endpoints.is_empty() {
        return writeln!(out, "\nIts versions have no endpoints.");
    }
    align_right(&mut endpoints, [4]);
    writeln!(out)?;
    write_table(&endpoints, out)?;
    unlisted.iter().try_for_each(|more| writeln!(out, "{more}"))
}

/// How many endpoints a version has.
pub(super) fn all(version: &VersionStatus) -> usize {
    let endpoints = &version.endpoints;
    endpoints.ready + endpoints.draining + endpoints.unready + not_used(version)
}

fn not_used(version: &VersionStatus) -> usize {
    let endpoints = &version.endpoints;
    endpoints.refused + endpoints.ejected + endpoints.unhealthy
}

/// For each version with endpoints that are not as they should be, which, and what ails them: message and remedy. Nothing that the
/// problems of the route have named already.
pub(super) fn ailing(route: &RouteStatus) -> impl Iterator<Item = (String, String)> {
    route.versions.iter().filter_map(|version| {
        let named = |endpoint: &EndpointStatus| {
            let name = endpoint.pod.as_deref().unwrap_or(&endpoint.address);
            let words =
                |text: &str| text.split([' ', '(']).any(|w| w.trim_end_matches([',', ')', ';', ':']) == name);
            route.problems.iter().any(|p| words(&p.message))
        };
        let listed = version.endpoints.addresses.iter();
        let found: Vec<_> = listed.filter_map(|endpoint| Some((endpoint, ails(endpoint)?))).collect();
        let leaves = |endpoint: &&EndpointStatus| endpoint.refused && endpoint.phase == Phase::Draining;
        let leaving = version.endpoints.addresses.iter().filter(leaves).count();
        let count = (not_used(version) + version.endpoints.unready).saturating_sub(leaving).max(found.len());
        if count == 0 || (count == found.len() && found.iter().all(|(endpoint, _)| named(endpoint))) {
            return None;
        }
        let mut said: Vec<_> = found
            .iter()
            .take(NAMED)
            .map(|(endpoint, ails)| {
                format!("{} {ails}", plain(endpoint.pod.as_deref().unwrap_or(&endpoint.address)))
            })
            .collect();
        if let more @ 1.. = count - said.len() {
            said.push(format!("and {more} more"));
        }
        let message = format!(
            "{}: {count} of the {} endpoints of {} {} not as they should be: {}",
            plain(&route.name),
            all(version),
            plain(&version.name),
            if count == 1 { "is" } else { "are" },
            said.join(", ")
        );
        let remedy = format!(
            "`serinus status {}` lists each; `kubectl describe pod` and `kubectl logs` say more of a pod",
            plain(&route.name)
        );
        Some((message, remedy))
    })
}
