//! The capacity guard: no canary has more requests at once than its usable pods may have (`maxInFlightPerPod`).
//!
//! The split deals as it always does, so that what is asked stays exact; a request that finds its version full goes to stable.
//! No lock and no walk over pods: the two counts that the tally has anyway, and a limit that the compiler worked out.

use super::{Choice, Route};

impl Route {
    /// Where a request that got this version goes: there, or, where that is full, to stable; it is counted as begun there, and
    /// its end must be told to that version's tally.
    ///
    /// Not where stable has no usable endpoint: an answer that is late is better than none.
    #[must_use]
    pub fn admit(&self, choice: Choice) -> Choice {
        let (Some(version), Some(stable)) = (self.versions.get(choice.version), self.versions.first()) else {
            return choice;
        };
        match version.most_in_flight {
            Some(most) if choice.version > 0 && !stable.candidates.is_empty() => {
                if version.tally.begin_within(most) {
                    return choice;
                }
                stable.tally.begin();
                // It says nothing of either version: whoever came then would have gone there (semantics §5.2).
                choice.given_to(0)
            }
            _ => {
                version.tally.begin();
                choice
            }
        }
    }
}
