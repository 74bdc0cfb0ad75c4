//! Cluster objects in a line each, for tests. All are in the namespace `web`.

use std::collections::BTreeMap;
use std::sync::Arc;

use proptest::prelude::*;

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
    (key(name), Service { uid: format!("uid-{name}").into(), ports: ports.collect() })
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

/// A random change over three Services, four slices and four pods.
pub(crate) fn any_change() -> impl Strategy<Value = ClusterChange> {
    let any_service = || (0..3_usize).prop_map(|i| ["svc", "other", "third"][i]);
    let any_ports = || (0..3_usize).prop_map(|i| ["=80", "=80/grpc", "=80 x=81"][i]);
    let any_pod = || {
        (0..4_usize, 0..2_u8, 0..3_usize, any::<bool>()).prop_map(|(name, uid, labels, is_deleting)| {
            let labels = ["", "version=v1", "version=v2"][labels];
            let pod = pod(&format!("{}/{uid}", ["a", "b", "c", "d"][name]), labels);
            if is_deleting { deleting(pod) } else { pod }
        })
    };
    let any_endpoint = || {
        (1..5_u8, 0..5_usize, 0..2_u8, 0..4_usize).prop_map(|(ip, pod, uid, state)| {
            let state = ["ready", "ready", "draining", "unready"][state];
            match ["a", "b", "c", "d"].get(pod) {
                Some(pod) => format!("10.0.0.{ip} {pod}/{uid} {state}"),
                None => format!("10.0.0.{ip} {state}"),
            }
        })
    };
    let any_slice = || {
        (0..4_usize, any_service(), 0..2_usize, proptest::collection::vec(any_endpoint(), 0..4)).prop_map(
            |(name, service, port, endpoints)| {
                let name = format!("{service}-{}", ["p", "q", "r", "s"][name]);
                slice(&name, service, ["=8080", "=9090"][port], &endpoints.join(","))
            },
        )
    };
    let distinct = |slices: Vec<Slice>| {
        let named: BTreeMap<_, _> = slices.into_iter().map(|s| (Arc::clone(&s.name), s)).collect();
        named.into_values().collect()
    };
    let distinct_pods = |pods: Vec<Pod>| {
        let named: BTreeMap<_, _> = pods.into_iter().map(|p| (p.key.clone(), p)).collect();
        named.into_values().collect()
    };
    let name = |s: &Slice| (s.service.clone(), Arc::clone(&s.name));
    prop_oneof![
        2 => (any_service(), any_ports()).prop_map(|(s, p)| {
            let (key, service) = service(s, p);
            ClusterChange::ServiceApplied(key, service)
        }),
        1 => any_service().prop_map(|s| ClusterChange::ServiceDeleted(key(s))),
        6 => any_slice().prop_map(ClusterChange::SliceApplied),
        2 => any_slice().prop_map(move |s| { let (service, name) = name(&s); ClusterChange::SliceDeleted(service, name) }),
        6 => any_pod().prop_map(ClusterChange::PodApplied),
        2 => any_pod().prop_map(|pod| ClusterChange::PodDeleted(pod.key)),
        1 => proptest::collection::vec(any_slice(), 0..4).prop_map(move |s| ClusterChange::Slices(web(), distinct(s))),
        1 => proptest::collection::vec(any_pod(), 0..4).prop_map(move |p| ClusterChange::Pods(web(), distinct_pods(p))),
        1 => Just(ClusterChange::Services(web(), vec![service("svc", "=80"), service("other", "=80")])),
        1 => Just(ClusterChange::NamespaceForgotten(web())),
    ]
}

fn port(text: &str) -> (Arc<str>, Option<u16>, Option<Arc<str>>) {
    let (name, rest) = text.split_once('=').unwrap();
    let (number, app_protocol) = rest.split_once('/').map_or((rest, None), |(n, p)| (n, Some(Arc::from(p))));
    (Arc::from(name), number.parse().ok(), app_protocol)
}
