//! What Serinus keeps of the cluster's objects: no more than routing needs.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use super::{Labels, Namespace, ServiceKey};

/// A kind of object that is watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ClusterKind {
    /// `v1` Services.
    Services,
    /// `discovery.k8s.io/v1` EndpointSlices.
    EndpointSlices,
    /// `v1` Pods, metadata only.
    Pods,
    /// `v1` Secrets, each by its name.
    Secrets,
    /// The `v1` ConfigMap of the replicas' common state, by its name.
    ConfigMaps,
    /// `coordination.k8s.io/v1` Leases of the replicas, by their labels.
    Leases,
}

impl ClusterKind {
    /// Those that a Service has to be known by, whole, before it can be routed to.
    pub const ALL: [ClusterKind; 3] = [Self::Services, Self::EndpointSlices, Self::Pods];

    /// The plural that RBAC rules and URLs use; also the `kind` label in metrics.
    #[must_use]
    pub const fn plural(self) -> &'static str {
        match self {
            Self::Services => "services",
            Self::EndpointSlices => "endpointslices",
            Self::Pods => "pods",
            Self::Secrets => "secrets",
            Self::ConfigMaps => "configmaps",
            Self::Leases => "leases",
        }
    }
}

/// What Serinus keeps of a Service.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Service {
    /// Its uid: what is told of it names it, for another may come to have its name. Empty where it is not known.
    pub uid: Arc<str>,
    /// Its TCP ports.
    pub ports: Vec<ServicePort>,
}

/// One port of a Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServicePort {
    /// Its name; empty where the only port has none. EndpointSlice ports are found by it.
    pub name: Arc<str>,
    /// Its number.
    pub port: u16,
    /// Its `appProtocol`.
    pub app_protocol: Option<Arc<str>>,
}

/// The address type of an EndpointSlice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum AddressType {
    /// IPv4 addresses.
    Ipv4,
    /// IPv6 addresses.
    Ipv6,
    /// Names; refused (semantics §1.4).
    Fqdn,
}

/// One EndpointSlice of a Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Slice {
    /// Its own name, unique in the namespace.
    pub name: Arc<str>,
    /// The Service it belongs to (label `kubernetes.io/service-name`).
    pub service: ServiceKey,
    /// What its addresses are.
    pub address_type: AddressType,
    /// Its ports.
    pub ports: Vec<SlicePort>,
    /// Its endpoints; those of an FQDN slice are left out.
    pub endpoints: Vec<SliceEndpoint>,
}

/// One port of an EndpointSlice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SlicePort {
    /// The name of the Service's port; empty where it has none.
    pub name: Arc<str>,
    /// The number on the pods; nothing means every port.
    pub port: Option<u16>,
    /// Its `appProtocol`.
    pub app_protocol: Option<Arc<str>>,
}

/// One endpoint of an EndpointSlice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SliceEndpoint {
    /// Its address: the first one, by the API's rule that all addresses of an endpoint are the same thing.
    pub address: IpAddr,
    /// The pod behind it.
    pub target: Option<TargetRef>,
    /// Its conditions, with the defaults of semantics §1.5 filled in.
    pub conditions: Conditions,
}

/// The pod that an endpoint points to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TargetRef {
    /// Namespace and name.
    pub pod: PodKey,
    /// Its uid, where the slice tells.
    pub uid: Option<Arc<str>>,
}

/// The conditions of an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Conditions {
    /// Passes its readiness probe (or the Service publishes unready addresses), and is not terminating.
    pub ready: bool,
    /// Passes its readiness probe.
    pub serving: bool,
    /// Its pod is being deleted.
    pub terminating: bool,
}

impl Conditions {
    /// Conditions as the API gives them: nil `ready` → ready, nil `serving` → ready's value, nil `terminating` →
    /// false (semantics §1.5).
    #[must_use]
    pub fn from_api(ready: Option<bool>, serving: Option<bool>, terminating: Option<bool>) -> Self {
        let ready = ready.unwrap_or(true);
        Self { ready, serving: serving.unwrap_or(ready), terminating: terminating.unwrap_or(false) }
    }
}

/// A pod's namespace and name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PodKey {
    /// The namespace.
    pub namespace: Namespace,
    /// The name in that namespace.
    pub name: Arc<str>,
}

/// What Serinus keeps of a pod's metadata.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pod {
    /// Namespace and name.
    pub key: PodKey,
    /// Its uid.
    pub uid: Arc<str>,
    /// Its labels.
    pub labels: Labels,
    /// It has a `deletionTimestamp`: no new requests (semantics §2.2).
    pub deleting: bool,
}

/// A pod given by hand (`discovery.static`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StaticEndpoint {
    /// IP and port.
    pub address: SocketAddr,
    /// Its labels.
    pub labels: Labels,
}

/// One thing that was heard from the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClusterChange {
    /// A whole list of the Services of a namespace: what is not in it is gone.
    Services(Namespace, Vec<(ServiceKey, Service)>),
    /// One Service was added or changed.
    ServiceApplied(ServiceKey, Service),
    /// One Service was deleted.
    ServiceDeleted(ServiceKey),
    /// A whole list of the EndpointSlices of a namespace: what is not in it is gone.
    Slices(Namespace, Vec<Slice>),
    /// One EndpointSlice was added or changed.
    SliceApplied(Slice),
    /// One EndpointSlice was deleted.
    SliceDeleted(ServiceKey, Arc<str>),
    /// A whole list of the Pods of a namespace: what is not in it is gone.
    Pods(Namespace, Vec<Pod>),
    /// One Pod was added or changed.
    PodApplied(Pod),
    /// One Pod was deleted.
    PodDeleted(PodKey),
    /// The namespace is not watched any more.
    NamespaceForgotten(Namespace),
}
