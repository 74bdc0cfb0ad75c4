//! Which requests are copied to a version, and what became of the copies.
//!
//! Nothing here is of the version's own tally, of its endpoints' records or of a rollout's evidence: a copy is nobody's request.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use crate::model::{Mirror, MirrorOutcome, Problem, RouteSpec};

use super::balance::index;
use super::split::{Place, Split};
use super::tally::{Latency, LatencySnapshot};
use super::{Endpoint, Version};

/// The mirror of a route.
#[derive(Debug)]
pub struct Mirroring {
    /// What was asked for.
    pub spec: Mirror,
    /// The place of the version that gets the copies.
    pub version: usize,
    /// What became of them.
    pub tally: Arc<MirrorTally>,
    split: Split,
}

/// What is carried from table to table: the same as long as the version is.
#[derive(Debug, Default)]
pub(super) struct CarriedMirror {
    version: Option<crate::model::VersionName>,
    place: Arc<Place>,
    tally: Arc<MirrorTally>,
}

impl CarriedMirror {
    /// The mirror that this spec asks for.
    pub(super) fn mirroring(&mut self, spec: &RouteSpec) -> Option<Mirroring> {
        let Some(mirror) = &spec.traffic.mirror else {
            *self = Self::default();
            return None;
        };
        if self.version.as_ref() != Some(&mirror.version) {
            *self = Self { version: Some(mirror.version.clone()), ..Self::default() };
        }
        let version = spec.versions.iter().position(|version| version.name == mirror.version)?;
        Some(Mirroring {
            spec: mirror.clone(),
            version,
            tally: Arc::clone(&self.tally),
            split: split(mirror, &self.place),
        })
    }
}

/// The version of what is not copied, in the split, and of what is.
const LEFT: usize = 0;
const COPIED: usize = 1;

fn split(mirror: &Mirror, place: &Arc<Place>) -> Split {
    let share = u64::from(mirror.share.millionths());
    let rest = u64::from(mirror.share.rest().millionths());
    Split::new([(LEFT, rest, Arc::clone(place)), (COPIED, share, Arc::default())])
}

/// Why a request is never copied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NeverCopied {
    /// It goes to the version of the copies itself.
    GoesThere,
    /// Its method is none of those that are copied.
    Method,
    /// It asks for another protocol.
    Upgrade,
    /// It is a copy: two routers that lead to each other would never end.
    IsCopy,
}

impl Mirroring {
    /// Why such a request is never copied; nothing where it may be.
    pub fn never(
        &self,
        goes_there: bool,
        method: &str,
        upgrades: bool,
        is_copy: impl FnOnce() -> bool,
    ) -> Option<NeverCopied> {
        if goes_there {
            Some(NeverCopied::GoesThere)
        } else if !self.spec.methods.iter().any(|copied| copied.as_str() == method) {
            Some(NeverCopied::Method)
        } else if upgrades {
            Some(NeverCopied::Upgrade)
        } else {
            is_copy().then_some(NeverCopied::IsCopy)
        }
    }

    /// Whether the next request that may be copied is: exactly as many as the share says, as for versions (semantics §3.3).
    /// `random` gives 64 random bits a call.
    pub fn draw(&self, random: impl FnMut() -> u64) -> bool {
        self.split.draw(random) == Some(COPIED)
    }

    /// What is wrong with it: nobody is there to get its copies.
    pub(super) fn problem(&self, spec: &RouteSpec, usable: &[bool]) -> Option<Problem> {
        if usable.get(self.version).copied().unwrap_or_default() {
            return None;
        }
        let version = &self.spec.version;
        Some(Problem::new(
            format!("the mirror of route {} copies to version {version}, which has no usable pod", spec.name),
            format!(
                "see why version {version} has none, or leave `mirror` out; until then the copies are dropped"
            ),
        ))
    }
}

impl Version {
    /// An endpoint for a copy: any that gets requests, without one being counted there. `random` is 64 random bits.
    #[must_use]
    pub fn pick_for_copy(&self, random: u64) -> Option<&Arc<Endpoint>> {
        let start = index(random, self.candidates.len());
        let (before, after) = self.candidates.split_at_checked(start)?;
        let fit = |standing: &&Arc<super::Standing>| {
            let set_aside = standing.is_ejected() || standing.is_unhealthy();
            !standing.endpoint().is_refused() && (self.uses_all() || !set_aside)
        };
        after.iter().chain(before).find(fit).map(|standing| standing.endpoint())
    }
}

/// What became of the copies of a route's requests; outlives the tables that use it.
#[derive(Debug, Default)]
pub struct MirrorTally {
    outcomes: [AtomicU64; MirrorOutcome::ALL.len()],
    /// Of those that differ, those whose status does; the others have another body.
    other_status: AtomicU64,
    in_flight: AtomicU32,
    originals: Latency,
    copies: Latency,
}

/// How the answer to a copy compares with that to the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Likeness {
    /// Status and body are the same.
    Same,
    /// The status is another.
    OtherStatus,
    /// The status is the same, the body another.
    OtherBody,
}

/// The counts of a mirror at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MirrorSnapshot {
    /// How many copies had each outcome.
    pub outcomes: Vec<(MirrorOutcome, u64)>,
    /// How many were answered with another status.
    pub other_status: u64,
    /// How many are kept ready or under way.
    pub in_flight: u32,
    /// How long the requests that were compared took, to the head of their answer.
    pub originals: LatencySnapshot,
    /// How long their copies took, likewise.
    pub copies: LatencySnapshot,
}

impl MirrorSnapshot {
    /// How many copies had this outcome.
    #[must_use]
    pub fn count(&self, outcome: MirrorOutcome) -> u64 {
        self.outcomes.iter().find(|(of, _)| *of == outcome).map_or(0, |(_, count)| *count)
    }
}

impl MirrorTally {
    /// A place among the copies, of which there may be so many; it is given back when it is dropped.
    #[must_use]
    pub fn place(self: &Arc<Self>, most: u32) -> Option<MirrorPlace> {
        let more = |taken: u32| (taken < most).then_some(taken + 1);
        self.in_flight.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).ok()?;
        Some(MirrorPlace(Arc::clone(self)))
    }

    /// One more with this outcome.
    pub fn count(&self, outcome: MirrorOutcome) {
        if let Some(count) = self.outcomes.get(outcome.index()) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// The answer to a copy was compared with that to its request; each took so long to its head.
    pub fn compared(&self, likeness: Likeness, original: Duration, copy: Duration) {
        self.count(match likeness {
            Likeness::Same => MirrorOutcome::Same,
            Likeness::OtherStatus | Likeness::OtherBody => MirrorOutcome::Different,
        });
        if likeness == Likeness::OtherStatus {
            self.other_status.fetch_add(1, Ordering::Relaxed);
        }
        self.originals.add(original);
        self.copies.add(copy);
    }

    /// What has been counted so far.
    #[must_use]
    pub fn snapshot(&self) -> MirrorSnapshot {
        let load = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let other_status = load(&self.other_status);
        let outcomes = MirrorOutcome::ALL.iter().zip(&self.outcomes);
        MirrorSnapshot {
            outcomes: outcomes.map(|(outcome, count)| (*outcome, load(count))).collect(),
            other_status,
            in_flight: self.in_flight.load(Ordering::Relaxed),
            originals: self.originals.snapshot(),
            copies: self.copies.snapshot(),
        }
    }
}

/// A place among the copies of a route; it is free again when this is dropped.
#[derive(Debug)]
pub struct MirrorPlace(Arc<MirrorTally>);

impl Drop for MirrorPlace {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
#[path = "mirror_tests.rs"]
mod tests;
