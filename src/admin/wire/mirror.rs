//! What the admin API says of a route's mirror.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::model::Share;

/// Which requests of a route are copied, and what became of the copies since the start, or since another version was named.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct MirrorStatus {
    /// The version that gets the copies.
    pub version: String,
    /// How many of the requests that may be copied are, in percent.
    #[schema(value_type = f64, minimum = 0, maximum = 100)]
    pub percent: Share,
    /// How many copies were answered.
    pub sent: u64,
    /// How many were sent, or should have been, and not answered in time.
    pub failed: u64,
    /// How many were not sent: too many were under way, no pod was there to get it, or its request had not come whole.
    pub dropped: u64,
    /// How many were not sent because their body is longer than is copied.
    pub too_large: u64,
    /// How many are kept ready or under way.
    pub in_flight: u32,
    /// How the answers to the copies compare with those that the clients got; null where they are not compared.
    #[serde(default)]
    #[schema(required = true)]
    pub compared: Option<MirrorComparison>,
}

/// How the answers to copies compare with those to their requests.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct MirrorComparison {
    /// How many had the same status and the same body (its first MiB).
    pub same: u64,
    /// How many had another status.
    pub other_status: u64,
    /// How many had the same status, and another body or a broken one.
    pub other_body: u64,
    /// The time in which half of the requests that were compared had the head of their answer, in milliseconds; null without any.
    #[schema(required = true)]
    pub original_p50_ms: Option<f64>,
    /// The same of their copies.
    #[schema(required = true)]
    pub copy_p50_ms: Option<f64>,
}
