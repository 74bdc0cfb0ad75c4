//! One rollout, from its first step to its end.

use std::time::Duration;

use crate::model::{Counts, RolloutSpec, Share, Sides, Timestamp, VersionName};
use crate::rollout::{Asked, Facts, Judge, LOOK, PausedBy, Phase, Rollout, Transition, step};

use super::traffic::{Assumed, Traffic};

/// How a rollout ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// The canary was found worse: rolled back, or paused where the config asks for that.
    Caught,
    /// All steps ended well.
    Succeeded,
    /// Neither in the time it was given.
    Undecided,
}

/// How a rollout went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Played {
    /// How it ended.
    pub ending: Ending,
    /// The place of its last step, from 0.
    pub step: usize,
    /// How long it took.
    pub took: Duration,
    /// What was counted on both sides.
    pub counts: Sides,
    /// How many users met an error of the canary, where users are assumed.
    pub failed_users: Option<u64>,
}

/// Plays the rollout for at most `most`; `random` gives 64 random bits a call. Steps that wait for a `promote` get it at once.
pub fn play(
    spec: &RolloutSpec,
    assumed: &Assumed,
    most: Duration,
    random: &mut impl FnMut() -> u64,
) -> Played {
    play_looking(spec, assumed, most, Looks::Telling, random)
}

/// Which looks are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Looks {
    /// Those that can change something.
    Telling,
    /// All, as a router does.
    #[cfg(test)]
    All,
}

pub(super) fn play_looking(
    spec: &RolloutSpec,
    assumed: &Assumed,
    most: Duration,
    looks: Looks,
    random: &mut impl FnMut() -> u64,
) -> Played {
    let mut game = Game::new(spec, assumed, random);
    let look = LOOK.as_secs_f64();
    let ending = loop {
        if game.took >= most {
            break Ending::Undecided;
        }
        game.of_canary += game.traffic.pass(look, random);
        game.took += LOOK;
        game.rollout.held_ms += LOOK.as_millis() as u64;
        let told = match looks {
            Looks::Telling => game.may_tell(),
            #[cfg(test)]
            Looks::All => true,
        };
        if told && let Some(ending) = game.look() {
            break ending;
        }
    };
    let judges = std::iter::once(&game.rollout.judge).chain(&game.peers);
    let told = judges.fold(Sides::default(), |sum, judge| sum.plus(judge.findings(&spec.guard, []).total));
    let counts = game.traffic.replicas.iter().fold(told, |sum, replica| sum.plus(replica.counts));
    Played {
        ending,
        step: game.rollout.step,
        took: game.took,
        counts,
        failed_users: game.traffic.failed_users(),
    }
}

/// A rollout under way.
struct Game<'a> {
    spec: &'a RolloutSpec,
    stable: VersionName,
    rollout: Rollout,
    /// The judges of the other replicas.
    peers: Vec<Judge>,
    traffic: Traffic,
    took: Duration,
    /// Requests of the canary in this step.
    of_canary: u64,
    /// The requests that `guard.limit` needs were there at a look.
    limit_looked: bool,
}

impl<'a> Game<'a> {
    fn new(spec: &'a RolloutSpec, assumed: &Assumed, random: &mut impl FnMut() -> u64) -> Self {
        let traffic = Traffic::new(assumed, random);
        let peers = vec![Judge::default(); traffic.replicas.len().saturating_sub(1)];
        let mut game = Self {
            spec,
            // Only for words that nobody reads here.
            stable: spec.canary.clone(),
            rollout: Rollout::begin(spec, Timestamp::default()),
            peers,
            traffic,
            took: Duration::ZERO,
            of_canary: 0,
            limit_looked: false,
        };
        game.traffic.set_share(game.weight());
        game
    }

    fn weight(&self) -> Share {
        self.spec.steps.get(self.rollout.step).map_or(Share::ZERO, |step| step.weight)
    }

    /// Whether a look now can bring about what the last one did not: others change nothing, and cost time.
    fn may_tell(&self) -> bool {
        let hold = self.spec.steps.get(self.rollout.step).map(|step| step.hold).unwrap_or_default();
        let may_end = self.rollout.held() >= hold && self.of_canary >= self.spec.guard.min_requests;
        let may_limit = self.spec.guard.limit.is_some_and(|limit| self.of_canary >= limit.requests);
        may_end || (may_limit && !self.limit_looked) || self.traffic.has_news()
    }

    /// The judges take in what was seen; what follows.
    fn look(&mut self) -> Option<Ending> {
        self.limit_looked = self.spec.guard.limit.is_some_and(|limit| self.of_canary >= limit.requests);
        let share = self.weight().ratio();
        let judges = std::iter::once(&mut self.rollout.judge).chain(&mut self.peers);
        for (judge, replica) in judges.zip(&mut self.traffic.replicas) {
            let counts = std::mem::take(&mut replica.counts);
            judge.take(&self.spec.guard, counts, share, replica.bad.drain(..));
        }
        loop {
            let findings = self.rollout.judge.findings(&self.spec.guard, &self.peers);
            let facts = Facts {
                stable: &self.stable,
                findings: &findings,
                ready: true,
                behind: None,
                leads: true,
                gate: None,
            };
            let next = step(&self.rollout, self.spec, &facts);
            self.go(&next);
            match self.rollout.phase {
                Phase::RolledBack | Phase::Aborted | Phase::Paused(PausedBy::Verdict) => {
                    return Some(Ending::Caught);
                }
                Phase::Succeeded => return Some(Ending::Succeeded),
                Phase::Running => return None,
                Phase::Paused(_) => match Rollout::ask(Some(&self.rollout), self.spec, Asked::Promote) {
                    Ok(promoted) => self.go(&promoted),
                    Err(_) => return Some(Ending::Undecided),
                },
            }
            if self.rollout.phase == Phase::Succeeded {
                return Some(Ending::Succeeded);
            }
        }
    }

    fn go(&mut self, next: &Transition) {
        let before = self.rollout.step;
        self.rollout.become_of(next, Timestamp::default());
        if self.rollout.step != before {
            self.peers.iter_mut().for_each(Judge::begin_step);
            self.of_canary = 0;
            self.limit_looked = false;
            self.traffic.set_share(self.weight());
        }
    }
}

impl Played {
    /// How many requests met an error of the canary.
    #[must_use]
    pub fn failed_requests(&self) -> u64 {
        let Counts { errors, .. } = self.counts.canary;
        errors
    }
}

#[cfg(test)]
#[path = "play_tests.rs"]
mod tests;
