//! The cluster: the only room that names kube and k8s_openapi.
//!
//! [`connect`] finds the API server, [`watch`] follows the Services, EndpointSlices and Pods of the Services that a
//! config names, and tells of them in the words of `model`: one watch for each namespace and kind, each in the files
//! `task` (its life), `known` (what it knows, synchronous), `kinds` and `convert` (objects → model), `faults`
//! (errors → problems with remedies). [`watch_secrets`] follows Secrets in the same way, with a watch for each one, so
//! that the right to read those is all it needs. [`share`] keeps the state that several replicas have in common, and [`record`]
//! posts Events about what was done to routes.
//!
//! The API server's absence never stops traffic: nothing here ever says that an object is gone unless the API server
//! said so, and a relist is told whole, once it is complete.

mod access;
mod convert;
mod events;
mod faults;
mod kinds;
mod known;
mod lenient;
mod link;
mod permissions;
mod secrets;
mod store;
mod supervisor;
mod task;

use std::sync::Arc;

pub use access::{Client, ClusterAccess, ConnectError, Patience, connect, connect_with};
pub use events::record;
pub use permissions::{PERMISSIONS, Permission, SECRET_PERMISSION, STATE_PERMISSIONS, permission};
pub use secrets::watch_secrets;
pub use store::{Common, Ends, LeaseRecord, Release, Store, share};
pub use supervisor::{LeaseNews, ObjectProblem, SecretNews, WatchEvent, watch};

/// The name of this replica: that of its pod, which `$POD_NAME` has or, without a host network, the host's name is.
#[must_use]
pub fn replica() -> Arc<str> {
    let given = std::env::var("POD_NAME").ok().filter(|name| !name.is_empty());
    let host =
        || hostname::get().ok().and_then(|host| host.into_string().ok()).filter(|name| !name.is_empty());
    given.or_else(host).unwrap_or_else(|| "serinus".to_owned()).into()
}

/// Log targets that say the same as Serinus's own lines, once for every attempt: for the default log filter.
pub const LOG_FILTER: &str = "kube_client=off,kube_runtime=off";
