//! Requests that are copied to a version, whose answers to the copies are dropped.

use std::time::Duration;

use http::Method;

use super::{Share, VersionName};

/// The header by which a pod knows a copy.
pub const MIRROR_HEADER: &str = "X-Serinus-Mirror";

/// Which requests of a route are copied, and to which of its versions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mirror {
    /// The version that gets the copies.
    pub version: VersionName,
    /// How many of the requests that may be copied are: those with one of `methods` that do not go to the version themselves.
    pub share: Share,
    /// The methods of the requests that are copied.
    pub methods: Vec<Method>,
    /// The longest body that is copied, in bytes.
    pub max_body: u64,
    /// How many copies are kept ready or under way at once at most; what is beyond is dropped.
    pub max_in_flight: u32,
    /// How long a copy may take, from its begin to the end of its answer.
    pub timeout: Duration,
    /// Whether the answers to the copies are compared with those that the clients got.
    pub compare: bool,
}
