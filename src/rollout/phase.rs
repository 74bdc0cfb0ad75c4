//! A rollout as far as it has come, and what people may ask of it.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::model::{RolloutSpec, Share, Timestamp, VersionName};

use super::Judge;

/// Where a rollout is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "name", content = "by")]
pub enum Phase {
    /// It goes forward as the verdicts allow.
    Running,
    /// It stays where it is; a bad verdict still takes it back.
    Paused(PausedBy),
    /// Its last step ended well.
    Succeeded,
    /// A verdict took it back.
    RolledBack,
    /// Somebody ended it.
    Aborted,
}

/// What paused a rollout.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum PausedBy {
    /// Somebody.
    Somebody,
    /// Its step, which asks for a `promote` at its end.
    Step,
    /// A bad verdict, with `onFail: pause`.
    Verdict,
    /// Weights that somebody set.
    Weights,
}

impl Phase {
    /// What [`Self::token`] may be.
    pub const TOKENS: [&str; 5] = ["running", "paused", "succeeded", "rolled-back", "aborted"];

    /// The word for it in the API, in `status` and in metrics.
    #[must_use]
    pub fn token(self) -> &'static str {
        match self {
            Phase::Running => "running",
            Phase::Paused(_) => "paused",
            Phase::Succeeded => "succeeded",
            Phase::RolledBack => "rolled-back",
            Phase::Aborted => "aborted",
        }
    }

    /// Whether it can still change.
    #[must_use]
    pub fn is_active(self) -> bool {
        matches!(self, Phase::Running | Phase::Paused(_))
    }
}

/// A rollout as far as it has come; survives a restart.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Rollout {
    /// The version that is rolled out: the config may name another by now.
    pub version: VersionName,
    /// Where it is.
    pub phase: Phase,
    /// The place of its step among the steps, from 0.
    pub step: usize,
    /// How long the step has been judged, in milliseconds.
    pub held_ms: u64,
    /// How often its evidence began anew: somebody went on after a bad verdict.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub attempt: u32,
    /// When it began.
    pub started: Timestamp,
    /// When it last came to another step or phase.
    pub changed: Timestamp,
    /// Why it is where it is, in words.
    pub reason: String,
    /// What speaks for and against the canary.
    #[serde(default, skip_serializing_if = "Judge::is_untouched")]
    pub judge: Judge,
}

fn is_zero(attempt: &u32) -> bool {
    *attempt == 0
}

/// Where a rollout was when something was decided of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// When it began: which rollout it is.
    pub started: Timestamp,
    /// How often its evidence began anew.
    pub attempt: u32,
    /// Its step.
    pub step: usize,
}

/// What people ask of a rollout.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Asked {
    /// To begin.
    Start,
    /// To stay where it is.
    Pause,
    /// To go on.
    Resume,
    /// To end its step now.
    Promote,
    /// To come to its last step now.
    PromoteFull,
    /// To end, with nothing for the canary.
    Abort,
}

/// Why a rollout does not do what was asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AskedError {
    /// There is none under way.
    #[error("no rollout is under way: `rollout start` begins one")]
    NotActive,
    /// One is under way.
    #[error("a rollout is under way already, at step {step} of {steps}: `rollout abort` ends it")]
    UnderWay {
        /// Its step, from 1.
        step: usize,
        /// How many there are.
        steps: usize,
    },
    /// It is not paused.
    #[error("the rollout is not paused")]
    NotPaused,
    /// It is paused already.
    #[error("the rollout is paused already: `rollout resume` lets it go on")]
    Paused,
    /// Its step asks for a promote at its end, which has come.
    #[error("step {step} has ended and waits for a promote: `rollout promote` goes on")]
    WaitsForPromote {
        /// Its step, from 1.
        step: usize,
    },
}

/// What a rollout does next. Whoever carries it out makes a revision of it, with these words as its reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Transition {
    /// It stays where it is, and what it waits for.
    Stay(String),
    /// It comes to this step.
    Step {
        /// Its place, from 0.
        step: usize,
        /// The canary's weight in it.
        weight: Share,
        /// Why.
        reason: String,
    },
    /// It ended well; the weights stay.
    Succeed(String),
    /// It pauses; the weights stay.
    Pause(PausedBy, String),
    /// The canary gets nothing any more.
    RollBack(String),
    /// Somebody ended it: the canary gets nothing any more, its sessions end too.
    Abort(String),
}

impl Transition {
    /// Why; nothing where nothing changes.
    #[must_use]
    pub fn reason(&self) -> Option<&str> {
        match self {
            Transition::Stay(_) => None,
            Transition::Step { reason, .. }
            | Transition::Succeed(reason)
            | Transition::Pause(_, reason)
            | Transition::RollBack(reason)
            | Transition::Abort(reason) => Some(reason),
        }
    }

    /// Whether a bad verdict brought it about: that takes back what the canary has, or holds it.
    #[must_use]
    pub fn is_verdict_against(&self) -> bool {
        matches!(self, Transition::RollBack(_) | Transition::Pause(PausedBy::Verdict, _))
    }

    /// The canary's weight from then on; nothing where it stays as it is.
    #[must_use]
    pub fn weight(&self) -> Option<Share> {
        match self {
            Transition::Step { weight, .. } => Some(*weight),
            Transition::RollBack(_) | Transition::Abort(_) => Some(Share::ZERO),
            Transition::Stay(_) | Transition::Succeed(_) | Transition::Pause(..) => None,
        }
    }
}

impl Rollout {
    /// A rollout at its first step.
    #[must_use]
    pub fn begin(spec: &RolloutSpec, at: Timestamp) -> Self {
        Self {
            version: spec.canary.clone(),
            phase: Phase::Running,
            step: 0,
            held_ms: 0,
            attempt: 0,
            started: at,
            changed: at,
            reason: format!("step 1 of {}", spec.steps.len()),
            judge: Judge::default(),
        }
    }

    /// Where it is.
    #[must_use]
    pub fn place(&self) -> Place {
        Place { started: self.started, attempt: self.attempt, step: self.step }
    }

    /// Whether it is where this was decided, so that it still holds: a bad verdict does in every step and phase, all else in the
    /// step it was of, while that goes on.
    #[must_use]
    pub fn still_takes(&self, of: Place, transition: &Transition) -> bool {
        let here = self.place();
        if (here.started, here.attempt) != (of.started, of.attempt) {
            return false;
        }
        match transition {
            // Also where another replica came to its end, and did not know of it.
            Transition::RollBack(_) => !self.was_taken_back(),
            _ if !self.phase.is_active() => false,
            Transition::Pause(PausedBy::Verdict, _) => self.phase != Phase::Paused(PausedBy::Verdict),
            Transition::Stay(_)
            | Transition::Step { .. }
            | Transition::Succeed(_)
            | Transition::Pause(..)
            | Transition::Abort(_) => self.phase == Phase::Running && here.step == of.step,
        }
    }

    /// The same without what was seen of it: what replicas share.
    #[must_use]
    pub fn without_evidence(&self) -> Self {
        Self { judge: Judge::default(), held_ms: 0, ..self.clone() }
    }

    /// Takes over what this process, or the one before it, knew of the same rollout.
    pub fn inherit(&mut self, before: &Rollout) {
        if self.version != before.version {
            return;
        }
        let (here, there) = (self.place(), before.place());
        if (here.started, here.attempt) != (there.started, there.attempt) {
            return;
        }
        self.judge = before.judge.clone();
        if here.step == there.step {
            self.held_ms = before.held_ms;
        } else {
            self.judge.begin_step();
        }
        if here == there && self.phase == before.phase {
            // What it waits for.
            self.reason.clone_from(&before.reason);
        }
    }

    /// What was seen in an earlier life counts, too, if it is of this rollout; for its step only if that is the same.
    pub fn recall(&mut self, there: Place, held_ms: u64, judge: &Judge) {
        let here = self.place();
        if (here.started, here.attempt) != (there.started, there.attempt) {
            return;
        }
        let mut judge = judge.clone();
        if here.step == there.step {
            self.held_ms = self.held_ms.saturating_add(held_ms);
        } else {
            judge.begin_step();
        }
        self.judge.add(&judge);
    }

    /// Whether this config knows it: its version, and its step.
    #[must_use]
    pub fn is_known_to(&self, spec: Option<&RolloutSpec>) -> bool {
        spec.is_some_and(|spec| spec.canary == self.version && self.step < spec.steps.len())
    }

    /// Whether it ended with nothing for its version, whose sessions end too (semantics §5.6).
    #[must_use]
    pub fn was_taken_back(&self) -> bool {
        matches!(self.phase, Phase::RolledBack | Phase::Aborted)
    }

    /// How long its step has been judged.
    #[must_use]
    pub fn held(&self) -> Duration {
        Duration::from_millis(self.held_ms)
    }

    /// What follows from what somebody asked.
    ///
    /// # Errors
    /// When that is not to be had in its phase.
    pub fn ask(
        current: Option<&Rollout>,
        spec: &RolloutSpec,
        asked: Asked,
    ) -> Result<Transition, AskedError> {
        let active = current.filter(|rollout| rollout.phase.is_active());
        let steps = spec.steps.len();
        let to = |step: usize, reason: String| {
            let weight = spec.steps.get(step).map_or(Share::ZERO, |step| step.weight);
            Transition::Step { step, weight, reason }
        };
        match (asked, active) {
            (Asked::Start, None) => Ok(to(0, format!("rollout started: step 1 of {steps}"))),
            (Asked::Start, Some(rollout)) => Err(AskedError::UnderWay { step: rollout.step + 1, steps }),
            (_, None) => Err(AskedError::NotActive),
            (Asked::Pause, Some(rollout)) => match rollout.phase {
                Phase::Paused(_) => Err(AskedError::Paused),
                Phase::Running | Phase::Succeeded | Phase::RolledBack | Phase::Aborted => {
                    Ok(Transition::Pause(PausedBy::Somebody, "paused".to_owned()))
                }
            },
            (Asked::Resume, Some(rollout)) => match rollout.phase {
                Phase::Paused(PausedBy::Step) => Err(AskedError::WaitsForPromote { step: rollout.step + 1 }),
                Phase::Paused(_) => {
                    Ok(to(rollout.step, format!("resumed: step {} of {steps}", rollout.step + 1)))
                }
                Phase::Running | Phase::Succeeded | Phase::RolledBack | Phase::Aborted => {
                    Err(AskedError::NotPaused)
                }
            },
            (Asked::Promote, Some(rollout)) => Ok(match rollout.step + 1 {
                next if next < steps => to(next, format!("promoted: step {} of {steps}", next + 1)),
                _ => Transition::Succeed(format!("promoted: step {steps} of {steps} ended")),
            }),
            (Asked::PromoteFull, Some(rollout)) => {
                let last = steps.saturating_sub(1);
                Ok(if rollout.step < last {
                    to(last, format!("promoted to the last step, {steps} of {steps}"))
                } else {
                    Transition::Succeed(format!("promoted: step {steps} of {steps} ended"))
                })
            }
            (Asked::Abort, Some(_)) => Ok(Transition::Abort("aborted".to_owned())),
        }
    }

    /// Is where the transition leads; the weights are somebody else's to change.
    pub fn become_of(&mut self, transition: &Transition, at: Timestamp) {
        let (phase, reason) = match transition {
            // What it waits for is shown; it is no change.
            Transition::Stay(waits) => {
                self.reason.clone_from(waits);
                return;
            }
            Transition::Step { step, reason, .. } => {
                if self.phase == Phase::Paused(PausedBy::Verdict) {
                    // Somebody saw the verdict and goes on all the same: with it in mind it would pause again at once.
                    self.judge = Judge::default();
                    self.held_ms = 0;
                    self.attempt = self.attempt.saturating_add(1);
                }
                if *step != self.step {
                    self.step = *step;
                    self.held_ms = 0;
                    self.judge.begin_step();
                }
                (Phase::Running, reason)
            }
            Transition::Succeed(reason) => (Phase::Succeeded, reason),
            Transition::Pause(by, reason) => (Phase::Paused(*by), reason),
            Transition::RollBack(reason) => (Phase::RolledBack, reason),
            Transition::Abort(reason) => (Phase::Aborted, reason),
        };
        self.phase = phase;
        self.changed = at;
        self.reason.clone_from(reason);
    }
}
