//! Cluster objects in a line each, for tests. All are in the namespace `web`.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::model::{
    AddressType, BackendRef, ClusterChange, Conditions, Namespace, Pod, PodKey, PortRef, Service, ServiceKey,
    ServicePort, Slice, SliceEndpoint, SlicePort, TargetRef,
};

pub(crate) fn web() -> Namespace {
    Arc::from("web")
}

pub(crate) fn key(service: &str) -> ServiceKey {
    ServiceKey::new("web", service)
}

pub(crate) fn pod_key(name: &str) -> PodKey {
    PodKey { namespace: web(), name: Arc::from(name) }
}

/// `svc`, `svc:80` or `svc:http`.
pub(crate) fn backend(text: &str) -> BackendRef {
    let (service, port) = text.split_once(':').map_or((text, None), |(s, p)| (s, Some(p)));
    let port = port.map(|p| p.parse().map_or_else(|_| PortRef::Name(p.to_owned()), PortRef::Number));
    BackendRef { service: key(service), port }
}

/// Ports as `http=80 admin=9000/kubernetes.io/h2c`; `=80` has no name.
pub(crate) fn service(name: &str, ports: &str) -> (ServiceKey, Service) {
    let ports = ports.split_whitespace().map(|text| {
        let (name, number, app_protocol) = port(text);
        ServicePort { name, port: number.unwrap(), app_protocol }
    });
    (key(name), Service { ports: ports.collect() })
}

/// Ports as for [`service`], where `http=*` is every port; endpoints as for [`endpoint`], with commas between.
pub(crate) fn slice(name: &str, service: &str, ports: &str, endpoints: &str) -> Slice {
    let ports = ports.split_whitespace().map(|text| {
        let (name, port, app_protocol) = port(text);
        SlicePort { name, port, app_protocol }
    });
    let endpoints: Vec<_> =
        endpoints.split(',').map(str::trim).filter(|e| !e.is_empty()).map(endpoint).collect();
    Slice {
        name: Arc::from(name),
        service: key(service),
        address_type: match endpoints.first() {
            Some(first) if first.address.is_ipv6() => AddressType::Ipv6,
            _ => AddressType::Ipv4,
        },
        ports: ports.collect(),
        endpoints,
    }
}

/// `10.0.0.1`, `10.0.0.1 a`, `10.0.0.1 a/uid`, then `ready` (the default), `draining`, `unready`, `dying` (terminating
/// and not serving) or `published` (ready and not serving). The uid of pod `a` is `uid-a` where none is given.
pub(crate) fn endpoint(text: &str) -> SliceEndpoint {
    let mut words = text.split_whitespace();
    let address = words.next().unwrap().parse().unwrap();
    let (mut target, mut conditions) = (None, Conditions::from_api(None, None, None));
    for word in words {
        conditions = match word {
            "ready" => Conditions { ready: true, serving: true, terminating: false },
            "draining" => Conditions { ready: false, serving: true, terminating: true },
            "unready" => Conditions { ready: false, serving: false, terminating: false },
            "dying" => Conditions { ready: false, serving: false, terminating: true },
            "published" => Conditions { ready: true, serving: false, terminating: false },
            pod => {
                let (name, uid) =
                    pod.split_once('/').map_or((pod, format!("uid-{pod}")), |(n, u)| (n, u.to_owned()));
                target = Some(TargetRef { pod: pod_key(name), uid: Some(uid.into()) });
                continue;
            }
        };
    }
    SliceEndpoint { address, target, conditions }
}

/// A pod `a` or `a/uid` with labels as `version=v2 tier=web`.
pub(crate) fn pod(name: &str, labels: &str) -> Pod {
    let (name, uid) = name.split_once('/').map_or((name, format!("uid-{name}")), |(n, u)| (n, u.to_owned()));
    let labels = labels.split_whitespace().map(|l| l.split_once('=').unwrap());
    let labels: BTreeMap<_, _> = labels.map(|(k, v)| (k.to_owned(), v.to_owned())).collect();
    Pod { key: pod_key(name), uid: uid.into(), labels: Arc::new(labels), deleting: false }
}

/// The pod once it has a `deletionTimestamp`.
pub(crate) fn deleting(pod: Pod) -> Pod {
    Pod { deleting: true, ..pod }
}

/// The three first lists.
pub(crate) fn lists(
    services: Vec<(ServiceKey, Service)>,
    slices: Vec<Slice>,
    pods: Vec<Pod>,
) -> Vec<ClusterChange> {
    vec![
        ClusterChange::Services(web(), services),
        ClusterChange::Slices(web(), slices),
        ClusterChange::Pods(web(), pods),
    ]
}

fn port(text: &str) -> (Arc<str>, Option<u16>, Option<Arc<str>>) {
    let (name, rest) = text.split_once('=').unwrap();
    let (number, app_protocol) = rest.split_once('/').map_or((rest, None), |(n, p)| (n, Some(Arc::from(p))));
    (Arc::from(name), number.parse().ok(), app_protocol)
}
