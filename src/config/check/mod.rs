//! What one field alone cannot tell: names that repeat, weights that do not fit, Services that are not there.

mod audience;
mod certificates;
mod listeners;
mod mirror;
mod rollout;
mod routes;
mod traffic;

use std::collections::{BTreeMap, HashMap};
use std::fmt::Display;
use std::hash::Hash;
use std::sync::Arc;
use std::time::Duration;

use super::errors::{Errors, Place};
use super::file::{
    AdminFile, DiscoveryFile, DrainFile, EndpointFile, File, KubernetesFile, StateFile, TracingFile,
};
use super::input::{AnyLength, Field, Pairs};
use super::settings::{
    AccessLog, Admin, Discovery, Drain, HostPort, KubernetesSettings, Settings, StateStore, Tracing,
};
use crate::model::{ServiceKey, StaticEndpoint};

/// The settings that `file` means; nothing when something is wrong, which `errors` then says.
pub(super) fn settings(file: &File, errors: &mut Errors) -> Option<Settings> {
    let admin = admin(&file.admin);
    let discovery = discovery(&file.discovery, errors);
    let listeners = listeners::listeners(file, &admin, discovery.as_ref(), errors);
    listeners::not_among(&listeners, &file.discovery, errors);
    let routes = routes::routes(&file.routes, discovery.as_ref(), errors);
    let state = state(&file.state, discovery.as_ref(), errors);
    errors.is_empty().then_some(())?;
    Some(Settings {
        listeners,
        admin,
        state,
        discovery: discovery?,
        drain: drain(file.drain.value()),
        access_log: file.access_log.value().cloned().unwrap_or(AccessLog::Off),
        tracing: tracing(&file.tracing),
        trusted_proxies: file.trusted_proxies.value().into_iter().flatten().map(|net| net.value).collect(),
        routes,
    })
}

/// Says that `value` was given before, unless this is the first time.
fn once<T: Hash + Eq>(
    seen: &mut HashMap<T, Place>,
    value: T,
    shown: impl Display,
    place: &Place,
    errors: &mut Errors,
) {
    if let Some(first) = seen.get(&value) {
        let line = first.position.line;
        errors.add(place, format!("`{shown}` is given twice, first on line {line}: change or remove one"));
    } else {
        seen.insert(value, place.clone());
    }
}

fn tracing(file: &Field<TracingFile>) -> Option<Tracing> {
    let file = file.value()?;
    Some(Tracing {
        endpoint: file.endpoint.value()?.0.clone(),
        sample: file.sample.value().copied().unwrap_or(Tracing::SAMPLE),
    })
}

fn admin(file: &Field<AdminFile>) -> Admin {
    let file = file.value();
    Admin {
        address: file
            .and_then(|f| f.address.value().cloned())
            .unwrap_or_else(|| HostPort { host: "127.0.0.1".to_owned(), port: 9901 }),
        token_file: file.and_then(|f| f.token_file.value().cloned()),
    }
}

fn state(file: &Field<StateFile>, discovery: Option<&Discovery>, errors: &mut Errors) -> StateStore {
    let Some(given) = file.given() else { return StateStore::Memory };
    match (&given.value.file, &given.value.config_map) {
        (Field::Given(a), Field::Given(b)) => {
            let later = if a.place.position.line > b.place.position.line { &a.place } else { &b.place };
            errors.add(later, "`file` and `configMap` cannot be used at once: remove one of them");
        }
        (Field::Given(path), _) => return StateStore::File(path.value.clone()),
        (_, Field::Given(key)) if matches!(discovery, Some(Discovery::Static(_))) => {
            errors.add(&key.place, "needs a cluster, and `discovery.static` has none: use `file`");
        }
        (_, Field::Given(key)) => return StateStore::ConfigMap(key.value.clone()),
        (Field::Absent, Field::Absent) => {
            errors.add(
                &given.place,
                "says nothing: add `file` or `configMap`, for example `file: /var/lib/serinus/state.json`",
            );
        }
        (Field::Bad, _) | (_, Field::Bad) => {}
    }
    StateStore::Memory
}

fn discovery(file: &Field<DiscoveryFile>, errors: &mut Errors) -> Option<Discovery> {
    let file = match file {
        Field::Absent => return Some(Discovery::Kubernetes(KubernetesSettings::default())),
        Field::Bad => return None,
        Field::Given(file) => &file.value,
    };
    match (&file.kubernetes, &file.fixed) {
        (Field::Given(a), Field::Given(b)) => {
            let later = if a.place.position.line > b.place.position.line { &a.place } else { &b.place };
            let message = "`kubernetes` and `static` cannot be used at once: remove one of them";
            errors.add(later, message);
            None
        }
        (Field::Bad, _) | (_, Field::Bad) => None,
        (Field::Absent, Field::Given(pairs)) => Some(Discovery::Static(fixed(&pairs.value, errors))),
        (Field::Given(file), Field::Absent) => Some(Discovery::Kubernetes(kubernetes(&file.value, errors))),
        (Field::Absent, Field::Absent) => Some(Discovery::Kubernetes(KubernetesSettings::default())),
    }
}

fn kubernetes(file: &KubernetesFile, errors: &mut Errors) -> KubernetesSettings {
    let mut seen = HashMap::new();
    let namespaces = file.namespaces.value().into_iter().flatten();
    KubernetesSettings {
        kubeconfig: file.kubeconfig.value().cloned(),
        context: file.context.value().map(|context| context.0.clone()),
        namespaces: namespaces
            .map(|namespace| {
                once(&mut seen, &namespace.value, &namespace.value, &namespace.place, errors);
                namespace.value.clone()
            })
            .collect(),
    }
}

type StaticPods = BTreeMap<ServiceKey, Vec<StaticEndpoint>>;

fn fixed(pairs: &Pairs<ServiceKey, AnyLength<EndpointFile>>, errors: &mut Errors) -> StaticPods {
    let mut services = StaticPods::new();
    for (service, endpoints) in &pairs.0 {
        let mut addresses = HashMap::new();
        let mut pods = Vec::new();
        for endpoint in endpoints.value().map(|list| &list.0).into_iter().flatten() {
            let Field::Given(address) = &endpoint.value.address else { continue };
            once(&mut addresses, address.value, address.value, &address.place, errors);
            let labels = endpoint.value.labels.value().map(|labels| &labels.0).into_iter().flatten();
            let labels = labels.filter_map(|(key, value)| Some((key.0.clone(), value.value()?.0.clone())));
            pods.push(StaticEndpoint { address: address.value, labels: Arc::new(labels.collect()) });
        }
        services.insert(service.clone(), pods);
    }
    services
}

fn drain(file: Option<&DrainFile>) -> Drain {
    let or =
        |field: Option<&super::values::Span>, seconds| field.map_or(Duration::from_secs(seconds), |s| s.0);
    Drain {
        delay: or(file.and_then(|f| f.delay.value()), 5),
        timeout: or(file.and_then(|f| f.timeout.value()), 30),
    }
}
