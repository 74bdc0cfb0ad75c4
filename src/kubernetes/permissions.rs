//! What the API server must allow.

use crate::model::ClusterKind;

/// One rule of a Role: verbs on a resource, in each namespace that a config names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Permission {
    /// The API group; empty for the core group.
    pub api_group: &'static str,
    /// The resource, in the plural.
    pub resource: &'static str,
    /// The verbs.
    pub verbs: &'static [&'static str],
}

const WATCH: &[&str] = &["list", "watch"];

/// Exactly what watching Services, and telling of what is done to them, needs. The Role in `deploy/` grants these and no
/// others; tests compare both with the requests that are made.
pub const PERMISSIONS: &[Permission] = &[SERVICES, ENDPOINT_SLICES, PODS, EVENTS];

/// What the watch of a Secret needs besides, where a config names one: of that Secret alone (`resourceNames`).
pub const SECRET_PERMISSION: Permission = Permission { api_group: "", resource: "secrets", verbs: WATCH };

/// What replicas with a common state need besides, where a config has `state.configMap`, in its namespace.
pub const STATE_PERMISSIONS: &[Permission] = &[CONFIG_MAPS, LEASES];

const CONFIG_MAPS: Permission = Permission {
    api_group: "",
    resource: "configmaps",
    verbs: &["create", "get", "list", "patch", "update", "watch"],
};
const LEASES: Permission = Permission {
    api_group: "coordination.k8s.io",
    resource: "leases",
    verbs: &["create", "delete", "get", "list", "patch", "watch"],
};
const SERVICES: Permission = Permission { api_group: "", resource: "services", verbs: WATCH };
const ENDPOINT_SLICES: Permission =
    Permission { api_group: "discovery.k8s.io", resource: "endpointslices", verbs: WATCH };
const PODS: Permission = Permission { api_group: "", resource: "pods", verbs: WATCH };
/// Each Event is a new one: none is read, and none is changed.
pub(super) const EVENTS: Permission =
    Permission { api_group: "events.k8s.io", resource: "events", verbs: &["create"] };

/// What watching a kind of object needs.
#[must_use]
pub const fn permission(kind: ClusterKind) -> Permission {
    match kind {
        ClusterKind::Services => SERVICES,
        ClusterKind::EndpointSlices => ENDPOINT_SLICES,
        ClusterKind::Pods => PODS,
        ClusterKind::Secrets => SECRET_PERMISSION,
        ClusterKind::ConfigMaps => CONFIG_MAPS,
        ClusterKind::Leases => LEASES,
    }
}
