//! Listeners: where they listen, and what they take from their clients.

use std::collections::HashMap;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use super::{certificates, once};
use crate::config::errors::{Errors, Place};
use crate::config::file::{DiscoveryFile, File, ListenerFile, ListenerTlsFile};
use crate::config::input::Field;
use crate::config::settings::{Admin, Discovery, HostPort, Listener};
use crate::config::words::Https;
use crate::model::{ClientAuth, Edge, ListenerTls, Redirect};

/// How many listeners there may be.
const MAX_LISTENERS: usize = 100;

/// The listeners of the file; those with an error may be missing.
pub(super) fn listeners(
    file: &File,
    admin: &Admin,
    discovery: Option<&Discovery>,
    errors: &mut Errors,
) -> Vec<Listener> {
    let mut names = HashMap::new();
    let mut taken = Vec::new();
    let mut listeners = Vec::new();
    for (i, listener) in file.listeners.value().into_iter().flatten().enumerate() {
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
        let tls = tls(&listener.value.tls, discovery, errors);
        let edge = edge(&listener.value, errors);
        if let (Some(name), Some(address)) = (name.value(), address.value()) {
            listeners.push(Listener { name: name.0.clone(), address: address.clone(), tls, edge });
        }
    }
    if file.listeners.is_absent() {
        let address = HostPort { host: "0.0.0.0".to_owned(), port: 8080 };
        taken.push((address.clone(), "the default listener".to_owned(), &Place::WHOLE));
        listeners.push(Listener { name: "web".to_owned(), address, tls: None, edge: Edge::default() });
    }
    match file.admin.value().map(|admin| &admin.address) {
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

/// Says which pods by hand are a listener of Serinus itself: requests sent there would come back for ever.
pub(super) fn not_among(listeners: &[Listener], discovery: &Field<DiscoveryFile>, errors: &mut Errors) {
    let services = discovery.value().and_then(|file| file.fixed.value());
    let endpoints =
        services.into_iter().flat_map(|services| &services.0).filter_map(|(_, list)| list.value());
    for address in endpoints.flat_map(|list| &list.0).filter_map(|endpoint| endpoint.value.address.given()) {
        if let Some(listener) = listeners.iter().find(|listener| is_at(listener, address.value)) {
            let message = format!(
                "the listener `{}` of Serinus itself listens on {}: requests would come back for ever; write the pod's address",
                listener.name, listener.address
            );
            errors.add(&address.place, message);
        }
    }
}

/// Whether a listener takes the connections to this address, whatever machine it runs on. A router that runs sees more of them.
fn is_at(listener: &Listener, address: SocketAddr) -> bool {
    let ip = match listener.address.host.as_str() {
        "localhost" => Some(Ipv4Addr::LOCALHOST.into()),
        _ => listener.address.ip(),
    };
    let every = ip.is_some_and(|ip| ip.is_unspecified() && ip.is_ipv4() == address.is_ipv4());
    let here = [Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()].contains(&address.ip());
    listener.address.port == address.port() && (ip == Some(address.ip()) || (every && here))
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

/// The TLS of a listener; nothing also when something is wrong with it.
fn tls(
    file: &Field<ListenerTlsFile>,
    discovery: Option<&Discovery>,
    errors: &mut Errors,
) -> Option<ListenerTls> {
    let file = file.value()?;
    let mut seen = HashMap::new();
    let mut certificates = Vec::new();
    for certificate in file.certificates.value().into_iter().flatten() {
        if let Some(source) = certificates::certificate(certificate, discovery, errors) {
            let shown = certificates::shown(&source);
            once(&mut seen, source.clone(), shown, &certificate.place, errors);
            certificates.push(source);
        }
    }
    let client_auth = file.client_certificates.given().and_then(|clients| {
        let (place, clients) = (&clients.place, &clients.value);
        let ca = certificates::authorities(&clients.ca_file, &clients.ca_secret, place, discovery, errors);
        if clients.ca_file.is_absent() && clients.ca_secret.is_absent() {
            errors.add(place, "does not say who may sign them: give one of `caFile`, `caSecret`");
        }
        Some(ClientAuth { ca: ca?, required: clients.required.value().copied().unwrap_or(true) })
    });
    let min_version = file.min_version.value().copied().unwrap_or_default();
    Some(ListenerTls { certificates, min_version, client_auth })
}

/// What a listener takes from its clients.
fn edge(file: &ListenerFile, errors: &mut Errors) -> Edge {
    let mut edge = Edge { redirect: redirect(file, errors), ..Edge::default() };
    if let Some(limits) = file.limits.value() {
        edge.request_line = limits.request_line.value().map_or(edge.request_line, |n| n.0);
        edge.header_bytes = limits.header_bytes.value().map_or(edge.header_bytes, |n| n.0);
        edge.header_count = limits.header_count.value().map_or(edge.header_count, |n| n.0);
        edge.connections = limits.connections.value().map_or(edge.connections, |n| n.0);
        edge.streams = limits.streams.value().map_or(edge.streams, |n| n.0);
    }
    if let Some(timeouts) = file.timeouts.value() {
        edge.header_timeout = timeouts.header.value().map_or(edge.header_timeout, |t| t.0);
        edge.body_timeout = timeouts.body.value().map_or(edge.body_timeout, |t| t.0);
        edge.write_timeout = timeouts.write.value().map_or(edge.write_timeout, |t| t.0);
        edge.idle_timeout = timeouts.idle.value().map_or(edge.idle_timeout, |t| t.0);
    }
    edge.escaped_slashes = file.escaped_slashes.value().copied().unwrap_or(edge.escaped_slashes);
    edge.merge_slashes = file.merge_slashes.value().copied().unwrap_or(edge.merge_slashes);
    edge.underscores = file.underscores.value().copied().unwrap_or(edge.underscores);
    edge.proxy_protocol = file.proxy_protocol.value().copied().unwrap_or(edge.proxy_protocol);
    edge.http2 = file.http2.value().copied().unwrap_or(edge.http2);
    edge
}

fn redirect(file: &ListenerFile, errors: &mut Errors) -> Option<Redirect> {
    let redirect = file.redirect.given()?;
    if !file.tls.is_absent() {
        let message =
            "would send HTTPS to HTTPS, since this listener has `tls`: put it on a listener without";
        errors.add(&redirect.place, message);
    }
    let Https = redirect.value.scheme.value()?;
    Some(Redirect {
        port: redirect.value.port.value().map_or(443, |port| port.0),
        status: redirect.value.status.value().map_or(308, |status| status.0),
    })
}
