//! What of the state survives a restart, as it is written.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::model::{Revision, RouteName, Share, Timestamp, VersionName};
use crate::rollout::Rollout;

use super::RevisionEntry;

/// The number of the format that this version writes.
pub const SAVED_FORMAT: u32 = 1;

/// What of the state survives a restart: JSON in a file or a ConfigMap.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SavedState {
    /// [`SAVED_FORMAT`] of the version that wrote it.
    pub format: u32,
    /// Each route's weights and history, those that left the config lately included.
    pub routes: BTreeMap<RouteName, Arc<SavedRoute>>,
}

impl Default for SavedState {
    fn default() -> Self {
        Self { format: SAVED_FORMAT, routes: BTreeMap::new() }
    }
}

/// A route's weights and history.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SavedRoute {
    /// The revision in force.
    pub revision: Revision,
    /// The weights in force, in percent.
    pub weights: BTreeMap<VersionName, Share>,
    /// The weights last seen in the file, those of zero left out.
    pub file: BTreeMap<VersionName, Share>,
    /// The last revisions, oldest first.
    pub history: Vec<RevisionEntry>,
    /// The last rollout.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rollout: Option<Rollout>,
    /// Since that ended, its version had no pod at all: pods that come now are another release's.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub canary_left: bool,
}

impl SavedRoute {
    /// When the weights last changed.
    #[must_use]
    pub fn changed_at(&self) -> Timestamp {
        self.history.last().map_or(Timestamp::default(), |entry| entry.time)
    }
}
