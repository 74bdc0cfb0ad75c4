//! What is seen of requests, for a verdict on a canary: counted where they pass, weighed by the rollout.

use serde::{Deserialize, Serialize};

/// The two that are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Side {
    /// The version that is there already.
    Stable,
    /// The one that is rolled out.
    Canary,
}

/// First attempts of requests that the split, or their users, placed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Counts {
    /// All of them.
    pub requests: u64,
    /// Those that failed: 5xx, a reset, a timeout, or what is not HTTP.
    pub errors: u64,
    /// Those that were answered well, and slowly.
    pub slow: u64,
}

impl Counts {
    /// The part that failed, 0 to 1; 0 of none.
    #[must_use]
    pub fn error_rate(&self) -> f64 {
        if self.requests == 0 { 0.0 } else { self.errors as f64 / self.requests as f64 }
    }

    /// Both together.
    #[must_use]
    pub fn plus(self, other: Counts) -> Counts {
        Counts {
            requests: self.requests.saturating_add(other.requests),
            errors: self.errors.saturating_add(other.errors),
            slow: self.slow.saturating_add(other.slow),
        }
    }

    /// What came after `earlier`.
    #[must_use]
    pub fn since(self, earlier: Counts) -> Counts {
        Counts {
            requests: self.requests.saturating_sub(earlier.requests),
            errors: self.errors.saturating_sub(earlier.errors),
            slow: self.slow.saturating_sub(earlier.slow),
        }
    }
}

/// The counts of both.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Sides {
    /// Stable's.
    pub stable: Counts,
    /// The canary's.
    pub canary: Counts,
}

impl Sides {
    /// Both together.
    #[must_use]
    pub fn plus(self, other: Sides) -> Sides {
        Sides { stable: self.stable.plus(other.stable), canary: self.canary.plus(other.canary) }
    }

    /// What came after `earlier`.
    #[must_use]
    pub fn since(self, earlier: Sides) -> Sides {
        Sides { stable: self.stable.since(earlier.stable), canary: self.canary.since(earlier.canary) }
    }

    /// All requests.
    #[must_use]
    pub fn requests(&self) -> u64 {
        self.stable.requests.saturating_add(self.canary.requests)
    }
}

/// Where a request was placed between stable and canary, by the split or by its user: what a verdict needs of a request that
/// went badly, to know how likely it was that the canary got it (semantics §5.2).
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Placement {
    /// By the exact split.
    Split {
        /// The number of the window, counted from an arbitrary one and modulo 2^22.
        window: u32,
        /// How much of the window lay before the request, in requests: 0 to 1.
        before: f64,
        /// The canary's share: 0 to 1.
        share: f64,
        /// The window's canary request had been chosen before.
        chosen: bool,
    },
    /// By its user's point among all users.
    User {
        /// The point.
        point: u64,
        /// The canary's share of the users: 0 to 1.
        share: f64,
    },
}

/// How the first attempt of a request went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AttemptClass {
    /// Well.
    Ok,
    /// Well, but slower than the route's latency limit.
    Slow,
    /// With 5xx, a reset, a timeout, or what is not HTTP.
    Error,
}

/// A first attempt that went badly, or slowly.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sighting {
    /// Whose it was.
    pub side: Side,
    /// How it went.
    pub class: AttemptClass,
    /// How likely it was that the canary got it.
    pub at: Placement,
}
