//! Hosts and paths: no panic, and the route that a plain reading of the rules finds.

use std::cmp::Reverse;
use std::sync::Arc;

use serinus::model::{BackendRef, Balance, HostMatch, OnEmpty, PathMatch, RouteSpec, ServiceKey, Traffic};
use serinus::routing::Matcher;

/// Checks `data` as lines. `HOST… PATH…` is a route: `/a` a prefix, `=/a` exact, `~/a.*` a regular expression; `?HOST PATH` a
/// request.
pub(crate) fn check(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let (requests, routes): (Vec<_>, Vec<_>) = text.lines().take(32).partition(|line| line.starts_with('?'));
    let routes: Vec<Arc<RouteSpec>> = routes.into_iter().filter_map(route).collect();
    let matcher = Matcher::new(&routes);
    for request in requests {
        let (host, path) = request[1..].split_once(' ').unwrap_or((&request[1..], "/"));
        let found = matcher.find(host, path).map(|matched| matched.route);
        assert_eq!(found, plain(&routes, host, path), "{host:?} {path:?}");
    }
}

fn route(line: &str) -> Option<Arc<RouteSpec>> {
    let (mut hosts, mut paths) = (Vec::new(), Vec::new());
    for word in line.split_whitespace().take(8) {
        if let Some(path) = word.strip_prefix('=') {
            paths.push(PathMatch::exact(path).ok()?);
        } else if let Some(pattern) = word.strip_prefix('~') {
            // Compiling is what takes the time; what it costs is bounded by the config's reader. Repetitions multiply.
            if pattern.len() > 24 || pattern.contains('{') {
                return None;
            }
            paths.push(PathMatch::regex(pattern).ok()?);
        } else if word.starts_with('/') {
            paths.push(PathMatch::prefix(word).ok()?);
        } else {
            hosts.push(word.parse().ok()?);
        }
    }
    Some(Arc::new(RouteSpec {
        name: "r".parse().ok()?,
        hosts,
        paths,
        backend: BackendRef { service: ServiceKey::new("a", "b"), port: None },
        versions: Vec::new(),
        audience: serinus::model::Audience::default(),
        on_empty: OnEmpty::Spill,
        balance: Balance::LeastRequest,
        traffic: Traffic::default(),
        rollout: None,
        debug_headers: false,
    }))
}

/// The rules, read one after the other over every route.
fn plain(routes: &[Arc<RouteSpec>], host: &str, path: &str) -> Option<usize> {
    let host = bare(host);
    let mut best = None;
    for (index, route) in routes.iter().enumerate() {
        let hosts = if route.hosts.is_empty() {
            vec![(0, 0)]
        } else {
            route.hosts.iter().filter_map(|host_match| host_rank(host_match, host.as_deref()?)).collect()
        };
        let paths = if route.paths.is_empty() {
            vec![(0, 0)]
        } else {
            route.paths.iter().filter_map(|path_match| path_rank(path_match, path)).collect()
        };
        for host in &hosts {
            for path in &paths {
                let rank = (*host, *path, Reverse(index));
                if best.is_none_or(|best| rank > best) {
                    best = Some(rank);
                }
            }
        }
    }
    best.map(|(_, _, Reverse(index))| index)
}

/// Exact before suffix, the longer suffix first.
fn host_rank(wanted: &HostMatch, host: &str) -> Option<(u8, usize)> {
    match wanted {
        HostMatch::Exact(exact) => (exact == host).then_some((2, 0)),
        HostMatch::Suffix(suffix) => {
            let under = host.strip_suffix(suffix.as_str()).is_some_and(|rest| rest.ends_with('.'));
            under.then_some((1, suffix.len()))
        }
    }
}

/// Exact before regular expression, the longer pattern first, before prefix, the longer first.
fn path_rank(wanted: &PathMatch, path: &str) -> Option<(u8, usize)> {
    match wanted {
        PathMatch::Exact(exact) => (exact == path).then_some((2, 0)),
        PathMatch::Regex(regex) => regex.is_match(path).then_some((1, regex.as_str().len())),
        PathMatch::Prefix(prefix) => {
            let rest = path.strip_prefix(prefix.as_str())?;
            (rest.is_empty() || rest.starts_with('/') || prefix.is_empty()).then_some((0, prefix.len()))
        }
    }
}

/// The host without its port and trailing dot, in lower case; nothing when it is longer than a host can be.
fn bare(host: &str) -> Option<String> {
    let end = match host.find(']') {
        Some(end) if host.starts_with('[') => end + 1,
        _ => host.rfind(':').unwrap_or(host.len()),
    };
    let host = &host[..end];
    let host = host.strip_suffix('.').unwrap_or(host);
    (host.len() <= 255).then(|| host.to_ascii_lowercase())
}
