//! What Serinus does to a route, for those who look at its Service.

use std::sync::Arc;

use super::{RouteName, ServiceKey, Timestamp};

/// Something that Serinus did to a route: an Event on the route's Service, where there is a cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceEvent {
    /// The route's Service.
    pub service: ServiceKey,
    /// Its uid, where it is known.
    pub uid: Option<Arc<str>>,
    /// The route.
    pub route: RouteName,
    /// What was done.
    pub deed: Deed,
    /// What came of it, and why, in words.
    pub note: String,
    /// When.
    pub time: Timestamp,
}

/// What Serinus did to a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deed {
    /// A rollout began.
    RolloutStarted,
    /// It came to another step.
    RolloutStep,
    /// It stays where it is.
    RolloutPaused {
        /// For a bad verdict.
        by_verdict: bool,
    },
    /// It goes on.
    RolloutResumed,
    /// It ended well.
    RolloutSucceeded,
    /// A verdict took its version back.
    RolloutRolledBack,
    /// Somebody ended it.
    RolloutAborted,
    /// Weights that somebody set came into force.
    WeightsChanged,
}

impl Deed {
    /// The word for it: the `reason` of an Event. These do not change, for people search by them.
    #[must_use]
    pub const fn reason(self) -> &'static str {
        match self {
            Self::RolloutStarted => "RolloutStarted",
            Self::RolloutStep => "RolloutStep",
            Self::RolloutPaused { .. } => "RolloutPaused",
            Self::RolloutResumed => "RolloutResumed",
            Self::RolloutSucceeded => "RolloutSucceeded",
            Self::RolloutRolledBack => "RolloutRolledBack",
            Self::RolloutAborted => "RolloutAborted",
            Self::WeightsChanged => "WeightsChanged",
        }
    }

    /// What was done to bring it about: the `action` of an Event.
    #[must_use]
    pub const fn action(self) -> &'static str {
        match self {
            Self::RolloutStarted => "Start",
            Self::RolloutStep => "Step",
            Self::RolloutPaused { .. } => "Pause",
            Self::RolloutResumed => "Resume",
            Self::RolloutSucceeded => "Succeed",
            Self::RolloutRolledBack => "RollBack",
            Self::RolloutAborted => "Abort",
            Self::WeightsChanged => "SetWeights",
        }
    }

    /// Whether something is wrong with a version: nobody asked for this.
    #[must_use]
    pub const fn is_warning(self) -> bool {
        matches!(self, Self::RolloutRolledBack | Self::RolloutPaused { by_verdict: true })
    }
}
