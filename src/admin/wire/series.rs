//! The last quarter of an hour, as the admin API shows it.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// What a route's versions had in the last quarter of an hour, in samples of `intervalSeconds`, the newest last. All lists are as
/// long as `ends`.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct RouteSeries {
    /// The route's name.
    pub route: String,
    /// How often a sample is taken, in seconds.
    pub interval_seconds: f64,
    /// When the newest sample was taken (RFC 3339); null before the first.
    #[schema(required = true, format = DateTime)]
    pub until: Option<String>,
    /// The end of each sample, in seconds since 1970 UTC.
    pub ends: Vec<f64>,
    /// How long each sample is, in seconds.
    pub seconds: Vec<f64>,
    /// The versions, stable first.
    pub versions: Vec<VersionSeries>,
}

/// What a version had, sample by sample.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct VersionSeries {
    /// Its name.
    pub name: String,
    /// How many requests began; null where more versions have requests than the router keeps samples of.
    pub requests: Vec<Option<u32>>,
    /// How many ended.
    pub ended: Vec<Option<u32>>,
    /// How many of those that ended were answered with 5xx, or were failed and repeated on the stable version (`shield`).
    pub errors: Vec<Option<u32>>,
    /// The time in which half of those that ended were answered, in milliseconds; null without any.
    pub p50_ms: Vec<Option<f64>>,
    /// The time in which 99 % of those that ended were answered, in milliseconds; null without any.
    pub p99_ms: Vec<Option<f64>>,
}

/// What the one who asks may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct AccessStatus {
    /// Whether a change with the same headers would be let through.
    pub write: bool,
    /// What that needs: `nothing`, the `token`, or another `listener` (there is no token file, and this is not loopback).
    pub needs: WriteNeed,
}

/// What a change needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub enum WriteNeed {
    /// Nothing more than reads do.
    Nothing,
    /// The token in the router's `admin.tokenFile`.
    Token,
    /// Loopback, or a token file: changes are off here.
    Listener,
}
