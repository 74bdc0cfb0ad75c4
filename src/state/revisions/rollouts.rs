//! A route's rollout: what it makes of the weights.

use std::sync::Arc;

use crate::model::{RolloutSpec, RouteSpec, Share, Timestamp, VersionName};
use crate::rollout::{Asked, PausedBy, Phase, Rollout, Transition};

use super::{Outcome, RouteWeights, Source, WeightsError};
use crate::state::shared::Proposal;
use crate::state::{Request, SavedRoute};

/// Why a rollout ended that the config does not know any more.
pub(super) const DROPPED: &str = "aborted: the config has no such rollout any more";

/// Gives this version this share, and stable what is left; what others have is theirs.
pub(super) fn give(split: &mut [(VersionName, Share)], version: &VersionName, share: Share) {
    let others = split.iter().skip(1).filter(|(name, _)| name != version);
    let others: u32 = others.map(|(_, share)| share.millionths()).sum();
    let mut left = Share::DENOMINATOR.saturating_sub(others);
    if let Some((_, has)) = split.iter_mut().skip(1).find(|(name, _)| name == version) {
        *has = share.min(Share::from_millionths(left).unwrap_or_default());
        left -= has.millionths();
    }
    if let Some((_, stable)) = split.first_mut() {
        *stable = Share::from_millionths(left).unwrap_or_default();
    }
}

/// A version with a share that is neither stable nor the canary.
fn third<'a>(split: &'a [(VersionName, Share)], canary: &VersionName) -> Option<&'a VersionName> {
    let mut others = split.iter().skip(1).filter(|(name, _)| name != canary);
    others.find(|(_, share)| *share > Share::ZERO).map(|(name, _)| name)
}

impl RouteWeights {
    /// The last rollout: the one under way, if one is.
    #[must_use]
    pub fn rollout(&self) -> Option<&Rollout> {
        self.rollout.as_ref()
    }

    /// The rollout under way, to be told what was seen.
    pub(in crate::state) fn judged(&mut self) -> Option<&mut Rollout> {
        let rollout = self.rollout.as_mut().filter(|rollout| rollout.phase.is_active())?;
        self.last_saved = None;
        Some(rollout)
    }

    /// Becomes what is proposed, where that still makes sense.
    pub(in crate::state) fn apply(
        &mut self,
        spec: &RouteSpec,
        proposal: &Proposal,
        request: Request,
    ) -> Result<Outcome, WeightsError> {
        match proposal {
            Proposal::Set(asked) => self.set(spec, asked, request),
            Proposal::Undo(to) => self.undo(spec, *to, request),
            Proposal::Ask(asked) => self.ask(spec, *asked, request),
            Proposal::GoOn(of, transition) => {
                let holds = self.rollout.as_ref().is_some_and(|now| now.still_takes(*of, transition));
                Ok(if holds { self.go_on(spec, transition, request.at) } else { Outcome::Unchanged })
            }
            Proposal::Begin => Ok(self.begin_by_itself(spec, request.at)),
            Proposal::CanaryIsGone => {
                self.canary_is_gone(spec);
                Ok(Outcome::Unchanged)
            }
            Proposal::AdoptFile => Ok(self.adopt_file(spec, request.at)),
        }
    }

    /// As replicas share it: without what one of them has seen.
    pub(in crate::state) fn shared(&self) -> Arc<SavedRoute> {
        let mut saved = self.to_saved();
        saved.rollout = saved.rollout.as_ref().map(Rollout::without_evidence);
        Arc::new(saved)
    }

    /// Becomes what the replicas share, fitted to this one's config; what this one has seen of the rollout is kept.
    pub(in crate::state) fn adopt(&mut self, spec: &RouteSpec, shared: &Arc<SavedRoute>) -> Outcome {
        let mut new = Self::from_saved(shared);
        new.split = new.fitted(spec).0;
        if let (Some(rollout), Some(before)) = (&mut new.rollout, &self.rollout) {
            rollout.inherit(before);
        }
        let place = |weights: &Self| weights.rollout.as_ref().map(|rollout| (rollout.place(), rollout.phase));
        let same = (new.revision, &new.split, place(&new)) == (self.revision, &self.split, place(self));
        *self = new;
        if same { Outcome::Unchanged } else { Outcome::Changed }
    }

    /// Does what somebody asks of the rollout.
    pub(in crate::state) fn ask(
        &mut self,
        spec: &RouteSpec,
        asked: Asked,
        mut request: Request,
    ) -> Result<Outcome, WeightsError> {
        self.expect(&request)?;
        let rollout = spec.rollout.as_ref().ok_or_else(|| WeightsError::NoRollout(spec.name.clone()))?;
        let transition = Rollout::ask(self.rollout.as_ref(), rollout, asked)?;
        if matches!(transition, Transition::Step { .. } | Transition::Succeed(_)) {
            self.only_two(spec, rollout)?;
        }
        if let (Some(reason), Some(words)) = (request.reason.take(), transition.reason()) {
            request.reason = Some(format!("{words}: {reason}"));
        }
        if asked == Asked::Start {
            self.begin(rollout, request.at);
        }
        Ok(self.go(spec, rollout, &transition, request))
    }

    fn begin(&mut self, rollout: &RolloutSpec, at: Timestamp) {
        self.rollout = Some(Rollout::begin(rollout, at));
        self.canary_left = false;
    }

    /// Whether a rollout begins by itself once pods of its version are ready: if it is one that does, and has not done so for
    /// these pods already. One that ended is not begun again because its pods come and go: first they must all have
    /// been gone.
    #[must_use]
    pub fn begins_by_itself(&self, spec: &RouteSpec) -> bool {
        let Some(rollout) = spec.rollout.as_ref().filter(|rollout| rollout.auto) else { return false };
        let done = self.rollout.as_ref().is_some_and(|last| {
            last.phase.is_active() || (last.version == rollout.canary && !self.canary_left)
        });
        let has = self.split.iter().any(|(name, share)| *name == rollout.canary && *share > Share::ZERO);
        !done && !has && self.only_two(spec, rollout).is_ok()
    }

    /// Begins by itself.
    pub(in crate::state) fn begin_by_itself(&mut self, spec: &RouteSpec, at: Timestamp) -> Outcome {
        let Some(rollout) = spec.rollout.as_ref().filter(|_| self.begins_by_itself(spec)) else {
            return Outcome::Unchanged;
        };
        self.begin(rollout, at);
        let (steps, weight) =
            (rollout.steps.len(), rollout.steps.first().map_or(Share::ZERO, |step| step.weight));
        let reason =
            format!("rollout started by itself, for {} has ready pods: step 1 of {steps}", rollout.canary);
        self.go_on(spec, &Transition::Step { step: 0, weight, reason }, at)
    }

    /// Whether it would be news, and matter, that the version that is to be rolled out has no pod.
    #[must_use]
    pub fn misses_that_canary_left(&self, spec: &RouteSpec) -> bool {
        let over = |last: &Rollout| {
            !last.phase.is_active()
                && spec.rollout.as_ref().is_some_and(|rollout| rollout.canary == last.version)
        };
        !self.canary_left && self.rollout.as_ref().is_some_and(over)
    }

    /// The version that is to be rolled out has no pod.
    pub(in crate::state) fn canary_is_gone(&mut self, spec: &RouteSpec) {
        if self.misses_that_canary_left(spec) {
            self.canary_left = true;
            self.last_saved = None;
        }
    }

    /// Makes the transition that a verdict or the time brought about.
    pub(in crate::state) fn go_on(
        &mut self,
        spec: &RouteSpec,
        transition: &Transition,
        at: Timestamp,
    ) -> Outcome {
        let Some(rollout) = &spec.rollout else { return Outcome::Unchanged };
        let request = Request { source: Source::Rollout, who: None, reason: None, expected: None, at };
        self.go(spec, rollout, transition, request)
    }

    /// Another version with a share would make the two of a rollout hard to compare.
    fn only_two(&self, spec: &RouteSpec, rollout: &RolloutSpec) -> Result<(), WeightsError> {
        let (split, _) = self.fitted(spec);
        third(&split, &rollout.canary).map_or(Ok(()), |name| Err(WeightsError::ThirdVersion(name.clone())))
    }

    /// Weights that somebody sets while a rollout is under way: the latest change wins, and the rollout waits. It also waits
    /// where a third version has a share, from wherever that came (the file, a saved state): without evidence its step would
    /// wait for ever, and say nothing of why.
    pub(super) fn change_by_hand(&mut self, split: Vec<(VersionName, Share)>, request: Request) -> Outcome {
        let (at, again) = (request.at, request.clone());
        let outcome = self.change_to(split, request);
        let open = |rollout: &&mut Rollout| {
            matches!(rollout.phase, Phase::Running | Phase::Paused(PausedBy::Weights))
        };
        let Some(rollout) = self.rollout.as_mut().filter(open) else { return outcome };
        let words = match (third(&self.split, &rollout.version), outcome) {
            (Some(third), _) => format!("paused: {}", WeightsError::ThirdVersion(third.clone())),
            (None, Outcome::Changed) => {
                "paused: somebody set the weights; `rollout resume` goes back to those of the step".to_owned()
            }
            (None, Outcome::Unchanged) => return outcome,
        };
        if rollout.phase != Phase::Running && rollout.reason == words {
            return outcome;
        }
        rollout.become_of(&Transition::Pause(PausedBy::Weights, words.clone()), at);
        if outcome == Outcome::Unchanged {
            // A transition is a revision, also where the weights stay.
            self.revise(self.split.clone(), Request { reason: Some(words), ..again });
        }
        Outcome::Changed
    }

    /// While a rollout is under way, no third version gets a share, or a larger one; what it has may be taken from it.
    pub(super) fn no_more_for_a_third(
        &self,
        spec: &RouteSpec,
        split: &[(VersionName, Share)],
    ) -> Result<(), WeightsError> {
        let Some(rollout) = self.rollout.as_ref().filter(|rollout| rollout.phase.is_active()) else {
            return Ok(());
        };
        let (now, _) = self.fitted(spec);
        let more = split
            .iter()
            .zip(&now)
            .skip(1)
            .find(|((name, share), (_, has))| *name != rollout.version && share > has);
        more.map_or(Ok(()), |((name, _), _)| {
            Err(WeightsError::ThirdMeanwhile { third: name.clone(), canary: rollout.version.clone() })
        })
    }

    fn go(
        &mut self,
        spec: &RouteSpec,
        rollout: &RolloutSpec,
        transition: &Transition,
        mut request: Request,
    ) -> Outcome {
        let Some(current) = self.rollout.as_mut() else { return Outcome::Unchanged };
        current.become_of(transition, request.at);
        self.last_saved = None;
        let Some(words) = transition.reason() else { return Outcome::Unchanged };
        request.reason = request.reason.or_else(|| Some(words.to_owned()));
        let (mut split, _) = self.fitted(spec);
        if let Some(weight) = transition.weight() {
            give(&mut split, &rollout.canary, weight);
        }
        // Each transition is a revision, also where the weights stay.
        self.revise(split, request);
        Outcome::Changed
    }

    /// The config changed: a rollout that it does not know any more ends. The version that was rolled out, if that is so.
    pub(super) fn drop_rollout(&mut self, spec: &RouteSpec, at: Timestamp) -> Option<VersionName> {
        let current = self.rollout.as_mut().filter(|rollout| rollout.phase.is_active())?;
        let known = spec
            .rollout
            .as_ref()
            .is_some_and(|rollout| rollout.canary == current.version && current.step < rollout.steps.len());
        if known {
            return None;
        }
        current.become_of(&Transition::Abort(DROPPED.to_owned()), at);
        self.last_saved = None;
        Some(current.version.clone())
    }
}

#[cfg(test)]
#[path = "rollouts_tests.rs"]
mod tests;
