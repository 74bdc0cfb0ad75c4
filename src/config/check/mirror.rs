//! Which requests of a route are copied.

use std::collections::HashMap;
use std::time::Duration;

use http::Method;

use super::once;
use crate::config::errors::Errors;
use crate::config::file::{MirrorFile, RouteFile};
use crate::model::{Mirror, Share, VersionSpec};

/// How long a body may be where it does not say.
const MAX_BODY: u64 = 64 << 10;
/// How many copies there may be at once where it does not say.
const MAX_IN_FLIGHT: u32 = 100;
/// How long a copy may take where it does not say.
const TIMEOUT: Duration = Duration::from_secs(5);

/// The mirror of a route, completed with the defaults; nothing where there is none, or it cannot be used.
pub(super) fn mirror(route: &RouteFile, versions: &[VersionSpec], errors: &mut Errors) -> Option<Mirror> {
    let file = &route.mirror.given()?.value;
    if let Some(percent) = file.percent.given().filter(|percent| percent.value == Share::ZERO) {
        errors.add(&percent.place, "copies nothing: write more than 0, or leave `mirror` out");
    }
    let methods = methods(file, errors);
    let version = file.version.given()?;
    let known = versions.iter().any(|of| of.name == version.value);
    if !known && !route.versions.is_bad() {
        errors.add(&version.place, format!("the route has no version `{}`", version.value));
    }
    Some(Mirror {
        version: version.value.clone(),
        share: file.percent.value().copied().unwrap_or(Share::ALL),
        methods,
        max_body: file.max_body.value().map_or(MAX_BODY, |n| n.0),
        max_in_flight: file.max_in_flight.value().map_or(MAX_IN_FLIGHT, |n| n.0),
        timeout: file.timeout.value().map_or(TIMEOUT, |t| t.0),
        compare: file.compare.value().copied().unwrap_or_default(),
    })
}

fn methods(file: &MirrorFile, errors: &mut Errors) -> Vec<Method> {
    let Some(given) = file.methods.value() else { return vec![Method::GET, Method::HEAD] };
    let mut seen = HashMap::new();
    given
        .iter()
        .map(|method| {
            once(&mut seen, &method.value.0, &method.value.0, &method.place, errors);
            method.value.0.clone()
        })
        .collect()
}
