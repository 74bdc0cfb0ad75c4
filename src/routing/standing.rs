//! How an endpoint stands with a version of a route: what became of its attempts, and whether it is set aside
//! (semantics §2.2, §2.5).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use crate::model::{FailureKind, Moment, Outliers, SetAsideReason};

use super::Endpoint;
use super::latency::{Latency, Sample};
use super::outliers::{Crowd, Window};

/// How an attempt on an endpoint ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AttemptOutcome {
    /// It answered with this status.
    Answered(u16),
    /// It failed: no connection (but see [`Self::Refused`]), or no whole answer.
    Failed(FailureKind),
    /// It refused the connection: nothing listens there.
    Refused,
    /// The connection had been kept, and the endpoint had closed it meanwhile, which is its right: never counts against it.
    Stale,
    /// The client left before the answer had come: says nothing but that it took so long.
    Abandoned,
}

/// An endpoint as one version of one route sees it; outlives the tables as long as it is one of the version's.
///
/// That a connection is refused is a fact, which all routes share ([`Endpoint::is_refused`]). What counts as failing is a
/// judgement, by the route's own settings and on its own requests: `/report` may fail where `/cart` does not, and a route
/// that says `consecutiveFailures: 0` must not lose an endpoint because another says 5. So each has a record of its own.
#[derive(Debug)]
pub struct Standing {
    endpoint: Arc<Endpoint>,
    crowd: Arc<Crowd>,
    /// Failures in a row.
    streak: AtomicU32,
    /// Until when it is ejected, in milliseconds; 0 when it is not.
    ejected_until: AtomicU64,
    /// How often it was ejected since it was last well for long.
    ejections: AtomicU32,
    /// When it was last taken back, in milliseconds.
    readmitted: AtomicU64,
    unhealthy: AtomicBool,
    window: Window,
    pub(super) latency: Latency,
    /// When it last came into use after the route was known, in milliseconds; 0 for long ago.
    came_up: AtomicU64,
    compiled: Compiled,
}

/// What the compiler has made of it; nobody else writes it.
#[derive(Debug, Default)]
struct Compiled {
    /// The compile that came across it last.
    round: AtomicU64,
    /// Some compile before this one knew it.
    known: AtomicBool,
    /// It is a candidate.
    used: AtomicBool,
    /// The endpoint counts it among its users.
    in_service: AtomicBool,
}

impl Standing {
    pub(super) fn new(endpoint: Arc<Endpoint>, crowd: Arc<Crowd>) -> Self {
        Self {
            endpoint,
            crowd,
            streak: AtomicU32::new(0),
            ejected_until: AtomicU64::new(0),
            ejections: AtomicU32::new(0),
            readmitted: AtomicU64::new(0),
            unhealthy: AtomicBool::new(false),
            window: Window::default(),
            latency: Latency::default(),
            came_up: AtomicU64::new(0),
            compiled: Compiled::default(),
        }
    }

    /// The endpoint.
    #[must_use]
    pub fn endpoint(&self) -> &Arc<Endpoint> {
        &self.endpoint
    }

    /// Until when it is ejected; nothing when it is not. It stays so until somebody takes it back ([`Self::readmit`]).
    #[must_use]
    pub fn ejected_until(&self) -> Option<Moment> {
        Some(self.ejected_until.load(Ordering::Relaxed)).filter(|until| *until > 0).map(Moment::from_millis)
    }

    /// Whether it is ejected.
    #[must_use]
    pub fn is_ejected(&self) -> bool {
        self.ejected_until().is_some()
    }

    /// Whether it fails the route's health checks.
    #[must_use]
    pub fn is_unhealthy(&self) -> bool {
        self.unhealthy.load(Ordering::Relaxed)
    }

    /// What the health checks found. True when that is news.
    pub fn set_unhealthy(&self, unhealthy: bool) -> bool {
        self.unhealthy.swap(unhealthy, Ordering::Relaxed) != unhealthy
    }

    /// It is not ejected any more. True when it was.
    pub fn readmit(&self, now: Moment) -> bool {
        let was = self.ejected_until.swap(0, Ordering::Relaxed) > 0;
        if was {
            self.readmitted.store(now.millis(), Ordering::Relaxed);
            self.crowd.readmit();
        }
        was
    }

    /// An attempt ended. The reason when it is set aside for it from now on.
    pub(super) fn ended(
        &self,
        outcome: AttemptOutcome,
        settings: &Outliers,
        now: Moment,
    ) -> Option<SetAsideReason> {
        let good = match outcome {
            AttemptOutcome::Refused => return self.endpoint.refuse().then_some(SetAsideReason::Refused),
            AttemptOutcome::Stale | AttemptOutcome::Abandoned => return None,
            // A pod that is shutting down may fail as it likes; and who is set aside already needs no verdict.
            AttemptOutcome::Answered(_) | AttemptOutcome::Failed(_) if self.endpoint.is_leaving() => {
                return None;
            }
            AttemptOutcome::Answered(status) => status < 500 || !settings.count_5xx,
            AttemptOutcome::Failed(_) => false,
        };
        let reason = self.judge(good, settings, now)?;
        self.eject(settings, now).then_some(reason)
    }

    /// Counts an attempt; the reason to eject it, if there is one.
    fn judge(&self, good: bool, settings: &Outliers, now: Moment) -> Option<SetAsideReason> {
        let too_many = settings.consecutive_failures;
        let streak = if good {
            // Read first: where all is well, nothing is written.
            if self.streak.load(Ordering::Relaxed) > 0 {
                self.streak.store(0, Ordering::Relaxed);
            }
            0
        } else {
            self.streak.fetch_add(1, Ordering::Relaxed).saturating_add(1)
        };
        let rates = settings.success_rate.and_then(|part| {
            let (own, others) = self.crowd.count(&self.window, good, now)?;
            Some((own, part * others))
        });
        if too_many > 0 && streak >= too_many {
            Some(SetAsideReason::ConsecutiveFailures)
        } else {
            rates.filter(|(own, least)| own < least).map(|_| SetAsideReason::SuccessRate)
        }
    }

    /// Sets it aside, for longer each time. False when it is already, or when there is no room: the next failure asks again.
    fn eject(&self, settings: &Outliers, now: Moment) -> bool {
        if self.is_ejected() || !self.crowd.eject() {
            return false;
        }
        // One that was well for as long as it can be set aside begins anew.
        let readmitted = Moment::from_millis(self.readmitted.load(Ordering::Relaxed));
        let well = now.since(readmitted) >= settings.longest;
        let times = if well { 1 } else { self.ejections.load(Ordering::Relaxed).saturating_add(1) };
        let until = now.after(settings.eject.saturating_mul(times).min(settings.longest)).millis().max(1);
        if self.ejected_until.compare_exchange(0, until, Ordering::Relaxed, Ordering::Relaxed).is_err() {
            self.crowd.readmit();
            return false;
        }
        self.ejections.store(times, Ordering::Relaxed);
        self.streak.store(0, Ordering::Relaxed);
        true
    }

    /// An attempt took so long to the head of its answer, or to its end without one.
    pub(super) fn took(&self, outcome: AttemptOutcome, took: Duration, now: Moment) {
        let sample = match outcome {
            AttemptOutcome::Answered(..500) => Sample::Whole,
            AttemptOutcome::Answered(_) | AttemptOutcome::Failed(_) | AttemptOutcome::Abandoned => {
                Sample::AtLeast
            }
            AttemptOutcome::Refused | AttemptOutcome::Stale => return,
        };
        self.latency.add(took, sample, now);
    }

    /// When it came up; nothing for long ago.
    pub(super) fn came_up(&self) -> Option<Moment> {
        Some(self.came_up.load(Ordering::Relaxed)).filter(|at| *at > 0).map(Moment::from_millis)
    }

    /// How many of its version are ejected.
    #[cfg(test)]
    pub(super) fn ejected_with_it(&self) -> usize {
        self.crowd.ejected()
    }

    // For the compiler alone.

    pub(super) fn seen_in(&self, round: u64) {
        self.compiled.round.store(round, Ordering::Relaxed);
    }

    pub(super) fn was_seen_in(&self, round: u64) -> bool {
        self.compiled.round.load(Ordering::Relaxed) == round
    }

    /// Whether it is a candidate. If it becomes one at `just_up`, it has just come up; unless it is new to the version
    /// alone, and its endpoint is in service elsewhere: then it came up when that did.
    pub(super) fn set_used(&self, used: bool, just_up: Option<Moment>) {
        let known = self.compiled.known.swap(true, Ordering::Relaxed);
        if used && !self.compiled.used.swap(used, Ordering::Relaxed) {
            let elsewhere = !known && self.endpoint.is_in_service();
            let now = just_up.map_or(0, |now| now.millis().max(1));
            let came_up = if elsewhere { self.endpoint.in_service_since() } else { now };
            self.came_up.store(came_up, Ordering::Relaxed);
        } else {
            self.compiled.used.store(used, Ordering::Relaxed);
        }
    }

    /// It gets requests, and its connections are kept.
    pub(super) fn enter(&self) {
        if !self.compiled.in_service.swap(true, Ordering::Relaxed) {
            self.endpoint.enter(self.came_up.load(Ordering::Relaxed));
        }
    }

    /// It gets no requests, or none for which its connections would be kept.
    pub(super) fn exit(&self) {
        if self.compiled.in_service.swap(false, Ordering::Relaxed) {
            self.endpoint.exit();
        } else {
            self.endpoint.leave_unless_in_service();
        }
    }

    /// It is its version's no more.
    pub(super) fn retire(&self) {
        self.compiled.used.store(false, Ordering::Relaxed);
        self.exit();
    }
}

impl Drop for Standing {
    /// Its version may live on without it.
    fn drop(&mut self) {
        if self.is_ejected() {
            self.crowd.readmit();
        }
    }
}

#[cfg(test)]
#[path = "standing_tests.rs"]
mod tests;
