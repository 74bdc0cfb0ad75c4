//! From a backend to its endpoints (semantics §1).

use std::collections::{BTreeMap, HashSet};
use std::net::SocketAddr;
use std::sync::Arc;

use crate::model::{
    AddressType, BackendRef, ClusterKind, Conditions, EndpointId, EndpointPhase, Labels, Pod, PodKey,
    PortRef, Problem, Protocol, Service, ServiceKey, ServicePort, Slice, SliceEndpoint, SlicePort,
    StaticEndpoint,
};

use super::Cluster;

/// The endpoints of a backend.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Resolved {
    /// Each once, in the order of their addresses.
    pub endpoints: Vec<ResolvedEndpoint>,
    /// What is wrong with the backend.
    pub problems: Vec<Problem>,
}

/// One endpoint of a backend.
#[derive(Clone, Debug, PartialEq)]
pub struct ResolvedEndpoint {
    /// Its identity.
    pub id: EndpointId,
    /// Its pod.
    pub pod: Option<PodKey>,
    /// The labels of its pod; nothing while they have not arrived, or where there is no pod.
    pub labels: Option<Labels>,
    /// Where it is in its life.
    pub phase: EndpointPhase,
    /// What it speaks.
    pub protocol: Protocol,
    /// Its labels are still to come (semantics §1.2): it belongs to no version yet.
    pub labels_pending: bool,
}

pub(super) fn from_statics(
    statics: &BTreeMap<ServiceKey, Vec<StaticEndpoint>>,
    backend: &BackendRef,
) -> Resolved {
    let Some(endpoints) = statics.get(&backend.service) else {
        return Resolved {
            endpoints: Vec::new(),
            problems: vec![Problem::new(
                format!("Service {} is not in discovery.static", backend.service),
                "list its pods there",
            )],
        };
    };
    let mut seen = HashSet::new();
    let endpoints = endpoints.iter().filter(|e| seen.insert(e.address)).map(|e| ResolvedEndpoint {
        id: EndpointId { address: e.address, pod_uid: Arc::from("") },
        pod: None,
        labels: Some(Arc::clone(&e.labels)),
        phase: EndpointPhase::Ready,
        protocol: Protocol::Http1,
        labels_pending: false,
    });
    Resolved { endpoints: endpoints.collect(), problems: Vec::new() }
}

impl Cluster {
    pub(super) fn resolve(&self, backend: &BackendRef) -> Resolved {
        let key = &backend.service;
        let Some(service) = self.services.get(key) else {
            let problems = if self.has_listed(ClusterKind::Services, &key.namespace) {
                vec![Problem::new(
                    format!("Service {key} does not exist"),
                    format!("create it, or correct `service` (kubectl -n {} get services)", key.namespace),
                )]
            } else {
                Vec::new()
            };
            return Resolved { endpoints: Vec::new(), problems };
        };
        let port = match find_port(key, service, backend.port.as_ref()) {
            Ok(port) => port,
            Err(problem) => return Resolved { endpoints: Vec::new(), problems: vec![problem] },
        };
        let empty = BTreeMap::new();
        let slices = self.slices.get(key).unwrap_or(&empty);
        let problems = slices
            .values()
            .filter(|s| s.address_type == AddressType::Fqdn)
            .map(|s| {
                Problem::new(
                    format!(
                        "EndpointSlice {}/{} has names (FQDN) for addresses, which get no traffic",
                        key.namespace, s.name
                    ),
                    "use a Service with IP endpoints",
                )
            })
            .collect();
        Resolved { endpoints: self.join(slices, port), problems }
    }

    /// Every endpoint of the slices for this port, once, joined with its pod.
    fn join(&self, slices: &BTreeMap<Arc<str>, Slice>, port: &ServicePort) -> Vec<ResolvedEndpoint> {
        let of = |family| slices.values().filter(move |s| s.address_type == family);
        // Under dual stack a pod is in slices of both families: its IPv4 address is used.
        let dual = of(AddressType::Ipv4).next().is_some() && of(AddressType::Ipv6).next().is_some();
        let mut have_ipv4: HashSet<&PodKey> = HashSet::new();
        let mut found = Vec::new();
        for family in [AddressType::Ipv4, AddressType::Ipv6] {
            for slice in of(family) {
                for slice_port in slice.ports.iter().filter(|p| p.name == port.name) {
                    let Some(number) = slice_port.port else { continue };
                    for endpoint in &slice.endpoints {
                        if let Some(target) = endpoint.target.as_ref().filter(|_| dual) {
                            if family == AddressType::Ipv4 {
                                have_ipv4.insert(&target.pod);
                            } else if have_ipv4.contains(&target.pod) {
                                continue;
                            }
                        }
                        let address = SocketAddr::new(endpoint.address, number);
                        found.push(self.endpoint(address, endpoint, protocol(port, slice_port)));
                    }
                }
            }
        }
        // The better state wins where two slices name the same address (semantics §1.1); then the one whose pod is known.
        found.sort_by_key(|e| (e.id.address, e.phase, e.labels_pending));
        found.dedup_by_key(|e| e.id.address);
        found
    }

    fn endpoint(
        &self,
        address: SocketAddr,
        endpoint: &SliceEndpoint,
        protocol: Protocol,
    ) -> ResolvedEndpoint {
        let Some(target) = &endpoint.target else {
            return ResolvedEndpoint {
                id: EndpointId { address, pod_uid: Arc::from("") },
                pod: None,
                labels: None,
                phase: phase(endpoint.conditions, None),
                protocol,
                labels_pending: false,
            };
        };
        // The same name with another uid is another pod, whose labels say nothing about this one.
        let same = |pod: &&Pod| target.uid.as_ref().is_none_or(|uid| *uid == pod.uid);
        let pod = self.pods.get(&target.pod).filter(same);
        let uid = target.uid.clone().or_else(|| pod.map(|p| Arc::clone(&p.uid)));
        ResolvedEndpoint {
            id: EndpointId { address, pod_uid: uid.unwrap_or_else(|| Arc::from("")) },
            pod: Some(target.pod.clone()),
            labels: pod.map(|p| Arc::clone(&p.labels)),
            phase: match pod {
                None if self.is_departed(target) => EndpointPhase::Unready,
                pod => phase(endpoint.conditions, pod),
            },
            protocol,
            labels_pending: pod.is_none(),
        }
    }
}

fn phase(conditions: Conditions, pod: Option<&Pod>) -> EndpointPhase {
    let Conditions { ready, serving, terminating } = conditions;
    let leaving = terminating || pod.is_some_and(|p| p.deleting);
    match (leaving, serving) {
        (true, true) => EndpointPhase::Draining,
        (true, false) => EndpointPhase::Unready,
        // `ready` without `serving`: the Service publishes pods that are not ready.
        (false, _) if ready || serving => EndpointPhase::Ready,
        (false, _) => EndpointPhase::Unready,
    }
}

fn protocol(service: &ServicePort, slice: &SlicePort) -> Protocol {
    Protocol::from_app_protocol(slice.app_protocol.as_deref().or(service.app_protocol.as_deref()))
}

fn find_port<'a>(
    key: &ServiceKey,
    service: &'a Service,
    asked: Option<&PortRef>,
) -> Result<&'a ServicePort, Problem> {
    let known = || {
        let port = |p: &ServicePort| {
            if p.name.is_empty() { p.port.to_string() } else { format!("{} ({})", p.port, p.name) }
        };
        let ports = service.ports.iter().map(port).collect::<Vec<_>>();
        if ports.is_empty() {
            "it has no TCP port".to_owned()
        } else {
            format!("it has {}", ports.join(", "))
        }
    };
    match asked {
        Some(asked) => service
            .ports
            .iter()
            .find(|p| match asked {
                PortRef::Number(number) => p.port == *number,
                PortRef::Name(name) => *p.name == **name,
            })
            .ok_or_else(|| {
                Problem::new(
                    format!("Service {key} has no port {asked}"),
                    format!("correct `port`: {}", known()),
                )
            }),
        None => match service.ports.as_slice() {
            [port] => Ok(port),
            _ => Err(Problem::new(
                format!("the route does not say which port of Service {key} it means"),
                format!("set `port`: {}", known()),
            )),
        },
    }
}

#[cfg(test)]
#[path = "resolve_tests.rs"]
mod tests;
