//! What one field alone cannot tell: names that repeat, weights that do not fit, Services that are not there.

mod routes;

use std::collections::{BTreeMap, HashMap};
use std::fmt::Display;
use std::hash::Hash;
use std::sync::Arc;
use std::time::Duration;

use super::errors::{Errors, Place};
use super::file::{AdminFile, DiscoveryFile, DrainFile, EndpointFile, File, KubernetesFile, ListenerFile};
use super::input::{AnyLength, Field, Marked, Pairs};
use super::settings::{
    AccessLog, Admin, Discovery, Drain, HostPort, KubernetesSettings, Listener, Settings, StateStore,
};
use crate::model::{ServiceKey, StaticEndpoint};

/// The settings that `file` means; nothing when something is wrong, which `errors` then says.
pub(super) fn settings(file: &File, errors: &mut Errors) -> Option<Settings> {
    let admin = admin(&file.admin);
    let listeners = listeners(&file.listeners, &file.admin, &admin, errors);
    let discovery = discovery(&file.discovery, errors);
    let routes = routes::routes(&file.routes, discovery.as_ref(), errors);
    let state = match file.state.value().map(|state| &state.file) {
        Some(Field::Given(path)) => StateStore::File(path.value.clone()),
        Some(Field::Absent | Field::Bad) | None => StateStore::Memory,
    };
    errors.is_empty().then_some(())?;
    Some(Settings {
        listeners,
        admin,
        state,
        discovery: discovery?,
        drain: drain(file.drain.value()),
        access_log: file.access_log.value().cloned().unwrap_or(AccessLog::Off),
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

/// How many listeners there may be.
const MAX_LISTENERS: usize = 100;

fn admin(file: &Field<AdminFile>) -> Admin {
    let file = file.value();
    Admin {
        address: file
            .and_then(|f| f.address.value().cloned())
            .unwrap_or_else(|| HostPort { host: "127.0.0.1".to_owned(), port: 9901 }),
        token_file: file.and_then(|f| f.token_file.value().cloned()),
    }
}

fn listeners(
    file: &Field<Vec<Marked<ListenerFile>>>,
    admin_file: &Field<AdminFile>,
    admin: &Admin,
    errors: &mut Errors,
) -> Vec<Listener> {
    let mut names = HashMap::new();
    let mut taken = Vec::new();
    let mut listeners = Vec::new();
    for (i, listener) in file.value().into_iter().flatten().enumerate() {
        if i == MAX_LISTENERS {
            errors.add(&listener.place, format!("is one too many: keep to {MAX_LISTENERS} listeners"));
            break;
        }
        let (name, address) = (&listener.value.name, &listener.value.address);
        if let Some(name) = name.given() {
            once(&mut names, &name.value, &name.value.0, &name.place, errors);
        }
        if let Some(address) = address.given() {
            let by = format!("`{}`", address.place.path());
            free(&mut taken, &address.value, by, &address.place, errors);
        }
        if let (Some(name), Some(address)) = (name.value(), address.value()) {
            listeners.push(Listener { name: name.0.clone(), address: address.clone() });
        }
    }
    if file.is_absent() {
        let address = HostPort { host: "0.0.0.0".to_owned(), port: 8080 };
        taken.push((address.clone(), "the default listener".to_owned(), &Place::WHOLE));
        listeners.push(Listener { name: "web".to_owned(), address });
    }
    match admin_file.value().map(|admin| &admin.address) {
        Some(Field::Bad) => {}
        Some(Field::Given(address)) => {
            free(&mut taken, &address.value, String::new(), &address.place, errors);
        }
        Some(Field::Absent) | None => {
            // Nothing is written where the admin API is; the listener is what can be changed.
            if let Some((_, _, place)) = taken.iter().find(|(other, ..)| overlap(other, &admin.address)) {
                let message = format!("the admin API listens on {}: choose another port", admin.address);
                errors.add(place, message);
            }
        }
    }
    listeners
}

/// Says that only one can listen on `address`, unless nobody before does.
fn free<'p>(
    taken: &mut Vec<(HostPort, String, &'p Place)>,
    address: &HostPort,
    name: String,
    place: &'p Place,
    errors: &mut Errors,
) {
    match taken.iter().find(|(other, ..)| overlap(other, address)) {
        Some((other, by, _)) => {
            errors.add(place, format!("{by} listens on {other} already: choose another port"));
        }
        None => taken.push((address.clone(), name, place)),
    }
}

/// Whether only one of the two can listen: the same port on the same address, or on every address.
fn overlap(a: &HostPort, b: &HostPort) -> bool {
    let everywhere = |address: &HostPort| address.ip().is_some_and(|ip| ip.is_unspecified());
    let same_family = match (a.ip(), b.ip()) {
        (Some(a), Some(b)) => a.is_ipv4() == b.is_ipv4(),
        _ => true,
    };
    a.port == b.port && a.port != 0 && (a.host == b.host || (same_family && (everywhere(a) || everywhere(b))))
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
