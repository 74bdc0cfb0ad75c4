//! Routes and their versions.

use std::collections::{HashMap, HashSet};

use super::audience::audience;
use super::mirror::mirror;
use super::once;
use super::rollout::rollout;
use super::traffic::traffic;
use crate::config::errors::{Errors, Place, shorten};
use crate::config::file::{PathFile, RouteFile, VersionFile};
use crate::config::hints::nearest;
use crate::config::input::{AnyLength, Field, Marked};
use crate::config::names::ValueRegex;
use crate::config::settings::Discovery;
use crate::config::values::RegexPath;
use crate::model::{
    BackendRef, HostMatch, PathMatch, PathMatchError, PortRef, RouteSpec, ServiceKey, Share, Test, Traffic,
    VersionSpec,
};

/// How many pairs of host and path the routes may have in all.
const MAX_MATCHES: usize = 500_000;

/// The routes of the file; those with an error may be missing.
pub(super) fn routes(
    file: &Field<AnyLength<RouteFile>>,
    discovery: Option<&Discovery>,
    errors: &mut Errors,
) -> Vec<RouteSpec> {
    let mut names = HashMap::new();
    let mut taken = Taken::default();
    let mut regexes = Regexes::default();
    let mut specs = Vec::new();
    for route in file.value().map(|routes| &routes.0).into_iter().flatten() {
        if let Some(name) = route.value.name.given() {
            once(&mut names, &name.value, &name.value, &name.place, errors);
        }
        let hosts = hosts(&route.value, errors);
        let paths = paths(&route.value, &mut regexes, errors);
        if !route.value.hosts.is_bad() && !route.value.paths.is_bad() {
            taken.add(route, &hosts, &paths, errors);
        }
        let backend = backend(&route.value, discovery, errors);
        let versions = versions(&route.value, backend.as_ref(), discovery, errors);
        let audience = audience(&route.value, &versions, &mut regexes, errors);
        let mirror = mirror(&route.value, &versions, errors);
        let traffic = Traffic { mirror, ..traffic(&route.value, discovery, errors) };
        let rollout = rollout(&route.value, &versions, errors);
        if let (Some(name), Some(backend)) = (route.value.name.value(), backend) {
            specs.push(RouteSpec {
                name: name.clone(),
                hosts,
                paths,
                backend,
                versions,
                audience,
                on_empty: route.value.on_empty.value().copied().unwrap_or_default(),
                balance: route.value.balance.value().cloned().unwrap_or_default(),
                traffic,
                rollout,
                debug_headers: route.value.debug_headers.value().copied().unwrap_or_default(),
            });
        }
    }
    specs
}

fn hosts(route: &RouteFile, errors: &mut Errors) -> Vec<HostMatch> {
    let mut seen = HashMap::new();
    let hosts = route.hosts.value().into_iter().flatten();
    hosts
        .map(|host| {
            once(&mut seen, &host.value, &host.value, &host.place, errors);
            host.value.clone()
        })
        .collect()
}

fn paths(route: &RouteFile, regexes: &mut Regexes, errors: &mut Errors) -> Vec<PathMatch> {
    let mut seen = HashMap::new();
    let paths = route.paths.value().into_iter().flatten();
    paths
        .filter_map(|path| {
            let found = path_match(path, regexes, errors)?;
            once(&mut seen, found.to_string(), &found, &path.place, errors);
            Some(found)
        })
        .collect()
}

fn path_match(path: &Marked<PathFile>, regexes: &mut Regexes, errors: &mut Errors) -> Option<PathMatch> {
    let PathFile { prefix, exact, regex } = &path.value;
    match (prefix, exact, regex) {
        (Field::Given(prefix), Field::Absent, Field::Absent) => Some(prefix.value.0.clone()),
        (Field::Absent, Field::Given(exact), Field::Absent) => Some(exact.value.0.clone()),
        (Field::Absent, Field::Absent, Field::Given(regex)) => regexes.compile(regex, errors),
        // What is wrong with it has been said.
        (Field::Bad, _, _) | (_, Field::Bad, _) | (_, _, Field::Bad) => None,
        (Field::Absent, Field::Absent, Field::Absent) => {
            errors.add(&path.place, "says nothing: give one of `prefix`, `exact`, `regex`");
            None
        }
        (
            Field::Given(_) | Field::Absent,
            Field::Given(_) | Field::Absent,
            Field::Given(_) | Field::Absent,
        ) => {
            errors.add(&path.place, "says more than one thing: give one of `prefix`, `exact`, `regex`");
            None
        }
    }
}

/// How many regular expressions a file may have: each can take a megabyte.
const MAX_REGEXES: usize = 1_000;

/// Compiles regular expressions, up to a number.
#[derive(Default)]
pub(super) struct Regexes {
    compiled: usize,
}

impl Regexes {
    fn compile(&mut self, regex: &Marked<RegexPath>, errors: &mut Errors) -> Option<PathMatch> {
        self.made(&regex.value.0, &regex.place, "prefixes", PathMatch::regex, errors)
    }

    /// A test of values.
    pub(super) fn of_value(&mut self, regex: &Marked<ValueRegex>, errors: &mut Errors) -> Option<Test> {
        self.made(&regex.value.0, &regex.place, "values", Test::matches, errors)
    }

    fn made<T>(
        &mut self,
        text: &str,
        place: &Place,
        instead: &str,
        make: fn(&str) -> Result<T, PathMatchError>,
        errors: &mut Errors,
    ) -> Option<T> {
        self.compiled += 1;
        if self.compiled > MAX_REGEXES {
            // Said once.
            if self.compiled == MAX_REGEXES + 1 {
                let message =
                    format!("is one too many: keep to {MAX_REGEXES} regular expressions, or use {instead}");
                errors.add(place, message);
            }
            return None;
        }
        let explain = |error: PathMatchError| match error {
            // The regex crate draws the pattern over several lines; the last one says what is wrong.
            PathMatchError::BadRegex(drawing) => {
                let reason = drawing.lines().last().unwrap_or_default().trim_start_matches("error: ");
                let text = shorten(text, 80);
                format!("`{text}` is not a regular expression that can be used: {reason}")
            }
            PathMatchError::NotAbsolute(_) | PathMatchError::NotAPath(_) => error.to_string(),
        };
        make(text).map_err(|e| errors.add(place, explain(e))).ok()
    }
}

/// Which hosts and paths have a route already: a second one would never get a request.
#[derive(Default)]
struct Taken {
    /// By host and path: the number of the route.
    by: HashMap<(String, String), usize>,
    /// What to call the routes so far.
    names: Vec<String>,
    full: bool,
}

impl Taken {
    fn add(
        &mut self,
        route: &Marked<RouteFile>,
        hosts: &[HostMatch],
        paths: &[PathMatch],
        errors: &mut Errors,
    ) {
        let every =
            |texts: Vec<String>, every: &str| if texts.is_empty() { vec![every.to_owned()] } else { texts };
        let hosts = every(hosts.iter().map(ToString::to_string).collect(), "*");
        let paths = every(paths.iter().map(ToString::to_string).collect(), "prefix /");
        if self.full {
            return;
        }
        if hosts.len().saturating_mul(paths.len()) > MAX_MATCHES - self.by.len() {
            self.full = true;
            let message = format!(
                "here the routes reach {MAX_MATCHES} pairs of host and path: list fewer, or use prefixes"
            );
            errors.add(&route.place, message);
            return;
        }
        let line = route.place.position.line;
        let this = self.names.len();
        self.names.push(match route.value.name.value() {
            Some(name) => format!("the route `{name}` on line {line}"),
            None => format!("the route on line {line}"),
        });
        let mut complained = HashSet::new();
        for host in &hosts {
            for path in &paths {
                let by = *self.by.entry((host.clone(), path.clone())).or_insert(this);
                // Once for each other route: one cause, one complaint. A repeat within this route has been said.
                if by == this || !complained.insert(by) {
                    continue;
                }
                let first = self.names.get(by).map(String::as_str).unwrap_or_default();
                let host = if host == "*" { "every host" } else { host };
                let message = format!(
                    "would never get a request: {first} has the same host and path ({host}, {path}): change or remove one"
                );
                let place = route.value.name.given().map_or(&route.place, |name| &name.place);
                errors.add(place, message);
            }
        }
    }
}

/// The route's Service and port.
fn backend(route: &RouteFile, discovery: Option<&Discovery>, errors: &mut Errors) -> Option<BackendRef> {
    let port = port(&route.port, discovery, errors);
    let service = route.service.given()?;
    check_service(service, discovery, errors);
    Some(BackendRef { service: service.value.clone(), port })
}

fn port(field: &Field<PortRef>, discovery: Option<&Discovery>, errors: &mut Errors) -> Option<PortRef> {
    let port = field.given()?;
    if let Some(Discovery::Static(_)) = discovery {
        let message =
            "has no meaning with `discovery.static`, where each address has its own port: leave it out";
        errors.add(&port.place, message);
    }
    Some(port.value.clone())
}

/// A Service must be one that discovery can find.
fn check_service(service: &Marked<ServiceKey>, discovery: Option<&Discovery>, errors: &mut Errors) {
    let key = &service.value;
    match discovery {
        Some(Discovery::Static(services)) if !services.contains_key(key) => {
            let looked_at = if errors.many() { 0 } else { 1_000 };
            let names: Vec<String> = services.keys().take(looked_at).map(ToString::to_string).collect();
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            let remedy = match nearest(&key.to_string(), &names) {
                Some(near) => format!("did you mean `{near}`?"),
                None => "add it there with its pods".to_owned(),
            };
            errors.add(&service.place, format!("the Service `{key}` is not in `discovery.static`: {remedy}"));
        }
        Some(Discovery::Kubernetes(kubernetes))
            if !kubernetes.namespaces.is_empty() && !kubernetes.namespaces.contains(&key.namespace) =>
        {
            let message = format!(
                "the namespace `{}` is not in `discovery.kubernetes.namespaces`: add it there, or use another Service",
                key.namespace
            );
            errors.add(&service.place, message);
        }
        Some(Discovery::Static(_) | Discovery::Kubernetes(_)) | None => {}
    }
}

fn versions(
    route: &RouteFile,
    backend: Option<&BackendRef>,
    discovery: Option<&Discovery>,
    errors: &mut Errors,
) -> Vec<VersionSpec> {
    let mut names = HashMap::new();
    let mut reach = Reach::default();
    let mut specs = Vec::new();
    let files = route.versions.value().map(Vec::as_slice).unwrap_or_default();
    for version in files {
        let file = &version.value;
        if let Some(name) = file.name.given() {
            once(&mut names, &name.value, &name.value, &name.place, errors);
        }
        let own = own_backend(file, backend, discovery, errors);
        let usable = !file.selector.is_bad() && !file.service.is_bad() && !file.port.is_bad();
        if let Some(effective) = own.as_ref().or(backend).filter(|_| usable) {
            reach.add(version, effective, errors);
        }
        if let Some(name) = file.name.value() {
            specs.push(VersionSpec {
                name: name.clone(),
                selector: file.selector.value().cloned(),
                backend: own,
                weight: file.weight.value().copied(),
                max_in_flight_per_pod: file.max_in_flight_per_pod.value().map(|n| n.0),
            });
        }
    }
    weights(files, errors);
    if let Some(most) = files.first().and_then(|stable| stable.value.max_in_flight_per_pod.given()) {
        let message = "has no meaning for the first version, which takes what the others leave: leave it out";
        errors.add(&most.place, message);
    }
    specs
}

/// The version's own Service or port, completed from the route's.
fn own_backend(
    file: &VersionFile,
    route: Option<&BackendRef>,
    discovery: Option<&Discovery>,
    errors: &mut Errors,
) -> Option<BackendRef> {
    let port = port(&file.port, discovery, errors);
    if let Some(service) = file.service.given() {
        check_service(service, discovery, errors);
    }
    if file.service.is_absent() && port.is_none() {
        return None;
    }
    let service = file.service.value().cloned().or_else(|| route.map(|r| r.service.clone()))?;
    Some(BackendRef { service, port: port.or_else(|| route.and_then(|r| r.port.clone())) })
}

/// Which pods earlier versions have taken: a pod belongs to the first version that lists it.
#[derive(Default)]
struct Reach {
    taken: HashMap<BackendRef, Selectors>,
}

/// The selectors on one Service and port so far, each with its version.
#[derive(Default)]
struct Selectors {
    by_text: HashMap<String, String>,
    /// The version without a selector, which takes all that is left.
    rest: Option<String>,
    complained: bool,
}

impl Reach {
    fn add(&mut self, version: &Marked<VersionFile>, backend: &BackendRef, errors: &mut Errors) {
        let name =
            version.value.name.value().map_or("an earlier version".to_owned(), |name| format!("`{name}`"));
        let taken = self.taken.entry(backend.clone()).or_default();
        let never = "can never have a pod";
        if let Some(rest) = &taken.rest {
            // One cause, one complaint, however many versions follow.
            if !std::mem::replace(&mut taken.complained, true) {
                let message = format!(
                    "{never}: {rest}, before it, has no selector and takes every pod of {}: give {rest} a selector \
                     that leaves the pods of this version out",
                    backend.service
                );
                errors.add(&version.place, message);
            }
            return;
        }
        let Some(selector) = version.value.selector.given() else {
            taken.rest = Some(name);
            return;
        };
        let text = selector.value.to_string();
        if let Some(first) = taken.by_text.get(&text) {
            let message = format!("{never}: {first}, before it, has the same selector: change one");
            errors.add(&selector.place, message);
        } else {
            taken.by_text.insert(text, name);
        }
    }
}

/// The weights must fit into the whole, and a weight of the stable version must be what the others leave.
fn weights(versions: &[Marked<VersionFile>], errors: &mut Errors) {
    let Some((stable, others)) = versions.split_first() else { return };
    let mut sum = Share::ZERO;
    for version in others {
        let weight = match &version.value.weight {
            Field::Absent => continue,
            // What is unknown cannot be added up.
            Field::Bad => return,
            Field::Given(weight) => weight,
        };
        let Some(total) = sum.checked_add(weight.value) else {
            let message = format!(
                "the weights add up to more than 100: {sum} before this one, so at most {} is left for it",
                sum.rest()
            );
            errors.add(&weight.place, message);
            return;
        };
        sum = total;
    }
    if let Some(weight) = stable.value.weight.given().filter(|weight| weight.value != sum.rest()) {
        let message = format!(
            "does not fit: the first version gets what the others leave, which is {}: write that, or leave it out",
            sum.rest()
        );
        errors.add(&weight.place, message);
    }
}
