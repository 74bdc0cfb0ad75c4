//! Objects of the API → what `model` keeps of them (semantics §1).

use std::net::IpAddr;
use std::sync::Arc;

use k8s_openapi::api::core::v1 as core;
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointPort, EndpointSlice};
use kube::core::PartialObjectMeta;

use crate::model::{
    AddressType, Conditions, Namespace, Pod, PodKey, Problem, Service, ServiceKey, ServicePort, Slice,
    SliceEndpoint, SlicePort, TargetRef,
};

/// The label that ties an EndpointSlice to its Service (semantics §1.1).
pub(super) const SERVICE_NAME: &str = "kubernetes.io/service-name";

/// Only TCP carries HTTP here; no protocol means TCP.
fn is_tcp(protocol: Option<&str>) -> bool {
    protocol.is_none_or(|protocol| protocol == "TCP")
}

fn text(text: Option<&str>) -> Arc<str> {
    text.unwrap_or_default().into()
}

/// A Service: its uid and its TCP ports.
pub(super) fn service(object: &core::Service) -> Service {
    let ports = object.spec.as_ref().and_then(|spec| spec.ports.as_deref()).unwrap_or_default();
    let ports = ports.iter().filter(|port| is_tcp(port.protocol.as_deref())).filter_map(|port| {
        Some(ServicePort {
            name: text(port.name.as_deref()),
            port: u16::try_from(port.port).ok()?,
            app_protocol: port.app_protocol.as_deref().map(Into::into),
        })
    });
    Service { uid: text(object.metadata.uid.as_deref()), ports: ports.collect() }
}

/// A slice, and what of it cannot be used; no slice where its address type is none that is known.
pub(super) fn slice(
    namespace: &Namespace,
    service: ServiceKey,
    object: &EndpointSlice,
) -> (Option<Slice>, Option<Problem>) {
    let name = text(object.metadata.name.as_deref());
    let place = format!("EndpointSlice {namespace}/{name} of Service {service}");
    let address_type = match object.address_type.as_str() {
        "IPv4" => AddressType::Ipv4,
        "IPv6" => AddressType::Ipv6,
        "FQDN" => AddressType::Fqdn,
        other => {
            let problem = Problem::new(
                format!("{place} has the address type `{other}`, which is not known"),
                "use IPv4 or IPv6 addresses",
            );
            return (None, Some(problem));
        }
    };
    let mut faults = Vec::new();
    let ports = object.ports.as_deref().unwrap_or_default();
    let ports = ports
        .iter()
        .filter(|port| is_tcp(port.protocol.as_deref()))
        .filter_map(|port| slice_port(port).map_err(|fault| faults.push(fault)).ok());
    let ports = ports.collect();
    if address_type == AddressType::Fqdn {
        let problem = Problem::new(
            format!(
                "{place} holds names (FQDN) instead of addresses, which Serinus does not resolve (semantics §1.4)"
            ),
            "give the Service a selector, so that its EndpointSlices hold the addresses of pods",
        );
        return (Some(Slice { name, service, address_type, ports, endpoints: Vec::new() }), Some(problem));
    }
    let endpoints = object.endpoints.as_deref().unwrap_or_default();
    let endpoints = endpoints.iter().filter_map(|endpoint| {
        slice_endpoint(namespace, address_type, endpoint).map_err(|fault| faults.push(fault)).ok()
    });
    let endpoints = endpoints.collect();
    let problem = faults.first().map(|first| {
        let more = if faults.len() > 1 { format!(" and {} more", faults.len() - 1) } else { String::new() };
        Problem::new(
            format!("{place} has what cannot be used: {first}{more}; left out"),
            "correct what writes this EndpointSlice (its label endpointslice.kubernetes.io/managed-by says what does)",
        )
    });
    (Some(Slice { name, service, address_type, ports, endpoints }), problem)
}

fn slice_port(port: &EndpointPort) -> Result<SlicePort, String> {
    let number = port.port.map(|number| match u16::try_from(number) {
        Ok(number) if number > 0 => Ok(number),
        _ => Err(format!("the port {number}")),
    });
    Ok(SlicePort {
        name: text(port.name.as_deref()),
        port: number.transpose()?,
        app_protocol: port.app_protocol.as_deref().map(Into::into),
    })
}

fn slice_endpoint(
    namespace: &Namespace,
    address_type: AddressType,
    endpoint: &Endpoint,
) -> Result<SliceEndpoint, String> {
    let Some(first) = endpoint.addresses.first() else {
        return Err("an endpoint without an address".to_owned());
    };
    let address: IpAddr = first.parse().map_err(|_| format!("the address `{first}`"))?;
    if address.is_ipv4() != (address_type == AddressType::Ipv4) {
        return Err(format!("the address `{address}`, which is of another type than the slice"));
    }
    let conditions = endpoint.conditions.as_ref().map_or_else(
        || Conditions::from_api(None, None, None),
        |c| Conditions::from_api(c.ready, c.serving, c.terminating),
    );
    let target = endpoint.target_ref.as_ref().and_then(|target| target_ref(namespace, target));
    Ok(SliceEndpoint { address, target, conditions })
}

/// The pod behind an endpoint; nothing where it is something else than a pod.
fn target_ref(namespace: &Namespace, target: &ObjectReference) -> Option<TargetRef> {
    if target.kind.as_deref() != Some("Pod") {
        return None;
    }
    let name = target.name.as_deref().filter(|name| !name.is_empty())?;
    let namespace = match target.namespace.as_deref() {
        Some(other) if !other.is_empty() && other != namespace.as_ref() => other.into(),
        _ => Arc::clone(namespace),
    };
    let uid = target.uid.as_deref().filter(|uid| !uid.is_empty()).map(Into::into);
    Some(TargetRef { pod: PodKey { namespace, name: name.into() }, uid })
}

/// A pod's metadata.
pub(super) fn pod(namespace: &Namespace, object: PartialObjectMeta<core::Pod>) -> Pod {
    let metadata = object.metadata;
    Pod {
        key: PodKey { namespace: Arc::clone(namespace), name: text(metadata.name.as_deref()) },
        uid: text(metadata.uid.as_deref()),
        labels: Arc::new(metadata.labels.unwrap_or_default()),
        deleting: metadata.deletion_timestamp.is_some(),
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::ServiceSpec;
    use k8s_openapi::api::discovery::v1::EndpointConditions;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};

    use super::*;

    fn metadata(name: &str, labels: &[(&str, &str)]) -> ObjectMeta {
        ObjectMeta {
            name: Some(name.into()),
            labels: Some(labels.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()),
            ..ObjectMeta::default()
        }
    }

    fn eps(address_type: &str, endpoints: Vec<Endpoint>, ports: Vec<EndpointPort>) -> EndpointSlice {
        EndpointSlice {
            address_type: address_type.into(),
            endpoints: Some(endpoints),
            ports: Some(ports),
            metadata: metadata("shop-abc", &[(SERVICE_NAME, "shop")]),
        }
    }

    fn at(address: &str) -> Endpoint {
        Endpoint { addresses: vec![address.into()], ..Endpoint::default() }
    }

    fn convert(object: &EndpointSlice) -> (Option<Slice>, Option<Problem>) {
        let namespace: Namespace = "web".into();
        slice(&namespace, ServiceKey::new("web", "shop"), object)
    }

    #[test]
    fn s1_5_nil_conditions_have_defaults() {
        let check = |ready, serving, terminating, expected: (bool, bool, bool)| {
            let mut endpoint = at("10.0.0.1");
            endpoint.conditions = Some(EndpointConditions { ready, serving, terminating });
            let (slice, problem) = convert(&eps("IPv4", vec![endpoint], vec![]));
            let conditions = slice.unwrap().endpoints[0].conditions;
            assert_eq!((conditions.ready, conditions.serving, conditions.terminating), expected);
            assert_eq!(problem, None);
        };
        check(None, None, None, (true, true, false));
        check(Some(false), None, None, (false, false, false));
        check(Some(false), Some(true), Some(true), (false, true, true));
        check(Some(true), Some(false), None, (true, false, false));
        let (slice, _) = convert(&eps("IPv4", vec![at("10.0.0.1")], vec![]));
        assert_eq!(slice.unwrap().endpoints[0].conditions, Conditions::from_api(None, None, None));
    }

    #[test]
    fn s1_4_fqdn_slices_carry_nothing_and_a_problem() {
        let (slice, problem) = convert(&eps("FQDN", vec![at("shop.example.com")], vec![]));
        let slice = slice.unwrap();
        assert_eq!((slice.address_type, slice.endpoints), (AddressType::Fqdn, vec![]));
        let problem = problem.unwrap();
        assert!(problem.message.contains("web/shop-abc") && problem.message.contains("FQDN"), "{problem}");
    }

    #[test]
    fn an_unknown_address_type_is_left_out() {
        let (slice, problem) = convert(&eps("IPv9", vec![at("10.0.0.1")], vec![]));
        assert_eq!(slice, None);
        assert!(problem.unwrap().message.contains("`IPv9`"));
    }

    #[test]
    fn a_bad_endpoint_costs_only_itself() {
        let endpoints = vec![at("10.0.0.1"), at("10.0.0"), at("::1"), Endpoint::default(), at("10.0.0.2")];
        let (slice, problem) = convert(&eps("IPv4", endpoints, vec![]));
        let addresses: Vec<_> = slice.unwrap().endpoints.iter().map(|e| e.address.to_string()).collect();
        assert_eq!(addresses, ["10.0.0.1", "10.0.0.2"]);
        let message = problem.unwrap().message;
        assert!(message.contains("the address `10.0.0` and 2 more"), "{message}");
    }

    #[test]
    fn s1_4_the_first_address_of_an_endpoint_counts() {
        let mut endpoint = at("fd00::1");
        endpoint.addresses.push("fd00::2".into());
        let (slice, problem) = convert(&eps("IPv6", vec![endpoint], vec![]));
        assert_eq!(slice.unwrap().endpoints[0].address.to_string(), "fd00::1");
        assert_eq!(problem, None);
    }

    #[test]
    fn s1_4_slice_ports_are_tcp_and_named() {
        let port = |name: Option<&str>, port, protocol: Option<&str>, app: Option<&str>| EndpointPort {
            name: name.map(Into::into),
            port,
            protocol: protocol.map(Into::into),
            app_protocol: app.map(Into::into),
        };
        let ports = vec![
            port(None, Some(80), None, None),
            port(Some("h2"), Some(81), Some("TCP"), Some("kubernetes.io/h2c")),
            port(Some("dns"), Some(53), Some("UDP"), None),
            port(Some("s"), Some(54), Some("SCTP"), None),
            port(Some("all"), None, None, None),
            port(Some("bad"), Some(70_000), None, None),
        ];
        let (slice, problem) = convert(&eps("IPv4", vec![], ports));
        let slice = slice.unwrap();
        let ports: Vec<_> =
            slice.ports.iter().map(|p| (p.name.as_ref(), p.port, p.app_protocol.as_deref())).collect();
        assert_eq!(
            ports,
            [("", Some(80), None), ("h2", Some(81), Some("kubernetes.io/h2c")), ("all", None, None)]
        );
        assert!(problem.unwrap().message.contains("the port 70000"));
    }

    #[test]
    fn s1_2_a_target_is_a_pod_by_default_of_the_same_namespace() {
        let target = |kind: &str, namespace: Option<&str>, name: Option<&str>, uid: Option<&str>| {
            let mut endpoint = at("10.0.0.1");
            endpoint.target_ref = Some(ObjectReference {
                kind: Some(kind.into()),
                namespace: namespace.map(Into::into),
                name: name.map(Into::into),
                uid: uid.map(Into::into),
                ..ObjectReference::default()
            });
            let (slice, _) = convert(&eps("IPv4", vec![endpoint], vec![]));
            slice.unwrap().endpoints[0].target.clone()
        };
        let expected = |namespace: &str, uid: Option<&str>| {
            let pod = PodKey { namespace: namespace.into(), name: "p".into() };
            Some(TargetRef { pod, uid: uid.map(Into::into) })
        };
        assert_eq!(target("Pod", None, Some("p"), None), expected("web", None));
        assert_eq!(target("Pod", Some("far"), Some("p"), Some("u1")), expected("far", Some("u1")));
        assert_eq!(target("Node", None, Some("p"), None), None);
        assert_eq!(target("Pod", None, None, None), None);
    }

    #[test]
    fn s1_4_service_ports_are_tcp_and_named() {
        let port = |name: Option<&str>, port, protocol: Option<&str>| core::ServicePort {
            name: name.map(Into::into),
            port,
            protocol: protocol.map(Into::into),
            ..core::ServicePort::default()
        };
        let ports = vec![port(None, 80, None), port(Some("dns"), 53, Some("UDP")), port(Some("x"), -1, None)];
        let spec = Some(ServiceSpec { ports: Some(ports), ..ServiceSpec::default() });
        let mut metadata = metadata("shop", &[]);
        metadata.uid = Some("u1".into());
        let read = service(&core::Service { spec, metadata, ..core::Service::default() });
        assert_eq!(read.uid.as_ref(), "u1");
        assert_eq!(read.ports, [ServicePort { name: "".into(), port: 80, app_protocol: None }]);
        assert_eq!(service(&core::Service::default()), Service::default());
    }

    #[test]
    fn s2_2_a_pod_with_a_deletion_timestamp_is_leaving() {
        let mut metadata = metadata("p", &[("name", "nginx")]);
        metadata.uid = Some("u1".into());
        let read = |metadata: &ObjectMeta| {
            let object =
                PartialObjectMeta { types: None, metadata: metadata.clone(), _phantom: Default::default() };
            pod(&"web".into(), object)
        };
        let there = read(&metadata);
        assert_eq!((there.uid.as_ref(), there.deleting), ("u1", false));
        assert_eq!(there.labels.get("name").map(String::as_str), Some("nginx"));
        metadata.deletion_timestamp = Some(Time(Default::default()));
        assert!(read(&metadata).deleting);
    }

    #[test]
    fn what_go_writes_for_an_empty_list_decodes() {
        let json = serde_json::json!({"addressType": "IPv4", "metadata": {"name": "a"}, "endpoints": null, "ports": null});
        let object: EndpointSlice = serde_json::from_value(json).unwrap();
        assert!(object.endpoints.unwrap_or_default().is_empty() && object.ports.is_none());
    }
}
