//! The cluster: the only room that names kube and k8s_openapi.
//!
//! [`connect`] finds the API server, [`watch`] follows the Services, EndpointSlices and Pods of the Services that a
//! config names, and tells of them in the words of `model`: one watch for each namespace and kind, each in the files
//! `task` (its life), `known` (what it knows, synchronous), `kinds` and `convert` (objects → model), `faults`
//! (errors → problems with remedies). [`watch_secrets`] follows Secrets in the same way, with a watch for each one, so
//! that the right to read those is all it needs. [`record`] posts Events about what was done to routes.
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
mod supervisor;
mod task;

pub use access::{Client, ClusterAccess, ConnectError, Patience, connect, connect_with};
pub use events::record;
pub use permissions::{PERMISSIONS, Permission, SECRET_PERMISSION, permission};
pub use secrets::watch_secrets;
pub use supervisor::{ObjectProblem, SecretNews, WatchEvent, watch};

/// Log targets that say the same as Serinus's own lines, once for every attempt: for the default log filter.
pub const LOG_FILTER: &str = "kube_client=off,kube_runtime=off";
