//! What a rollout's judge gets to know: first attempts, counted where they end (semantics §5.1).

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crossbeam_queue::ArrayQueue;

use crate::model::{AttemptClass, Counts, FailureKind, Placement, Side, Sides, Sighting};

use super::AttemptOutcome;

/// How many bad requests wait for the judge at most: some seconds of a release that fails whole. What is beyond is counted and
/// not weighed, whichever side it is of.
const WAITING: usize = 16_384;

/// What was seen of one rollout's requests, in this process; the judge takes it out.
#[derive(Debug)]
pub struct Evidence {
    /// The canary's place among the versions; stable's is 0.
    canary: usize,
    /// Answers whose head takes longer are slow; nothing where that is not judged.
    slow: Option<Duration>,
    stable_counts: Counters,
    canary_counts: Counters,
    bad: ArrayQueue<Sighting>,
}

#[derive(Debug, Default)]
struct Counters {
    ok: AtomicU64,
    slow: AtomicU64,
    errors: AtomicU64,
}

impl Evidence {
    /// Of the rollout of the version at this place.
    #[must_use]
    pub fn new(canary: usize, slow: Option<Duration>) -> Self {
        Self {
            canary,
            slow,
            stable_counts: Counters::default(),
            canary_counts: Counters::default(),
            bad: ArrayQueue::new(WAITING),
        }
    }

    /// The place of its canary among the versions.
    #[must_use]
    pub fn canary(&self) -> usize {
        self.canary
    }

    /// The limit of what is slow.
    #[must_use]
    pub fn slow(&self) -> Option<Duration> {
        self.slow
    }

    /// A first attempt at this version ended, `took` after its begin. `at` is only asked for where it went badly.
    pub fn record(
        &self,
        version: usize,
        outcome: AttemptOutcome,
        took: Duration,
        at: impl FnOnce() -> Placement,
    ) {
        let side = match version {
            0 => Side::Stable,
            version if version == self.canary => Side::Canary,
            _ => return,
        };
        let Some(class) = self.class(outcome, took) else { return };
        let counters = match side {
            Side::Stable => &self.stable_counts,
            Side::Canary => &self.canary_counts,
        };
        let counter = match class {
            AttemptClass::Ok => &counters.ok,
            AttemptClass::Slow => &counters.slow,
            AttemptClass::Error => &counters.errors,
        };
        counter.fetch_add(1, Ordering::Relaxed);
        if class != AttemptClass::Ok {
            // When nobody takes them out in time, the counts still have it.
            let _ = self.bad.push(Sighting { side, class, at: at() });
        }
    }

    /// How an attempt counts; nothing where it says nothing of the version: a client that left, a connection that was refused
    /// or had been closed before (pods come and go: semantics §2.2, §4.1).
    fn class(&self, outcome: AttemptOutcome, took: Duration) -> Option<AttemptClass> {
        match outcome {
            AttemptOutcome::Answered(500..) => Some(AttemptClass::Error),
            AttemptOutcome::Answered(_) if self.slow.is_some_and(|limit| took > limit) => {
                Some(AttemptClass::Slow)
            }
            AttemptOutcome::Answered(_) => Some(AttemptClass::Ok),
            AttemptOutcome::Failed(FailureKind::Connect) => None,
            AttemptOutcome::Failed(FailureKind::Reset | FailureKind::Timeout | FailureKind::Protocol) => {
                Some(AttemptClass::Error)
            }
            AttemptOutcome::Refused | AttemptOutcome::Stale | AttemptOutcome::Abandoned => None,
        }
    }

    /// All that was counted so far.
    #[must_use]
    pub fn counts(&self) -> Sides {
        let counts = |counters: &Counters| {
            let load = |count: &AtomicU64| count.load(Ordering::Relaxed);
            let (slow, errors) = (load(&counters.slow), load(&counters.errors));
            Counts { requests: load(&counters.ok) + slow + errors, errors, slow }
        };
        Sides { stable: counts(&self.stable_counts), canary: counts(&self.canary_counts) }
    }

    /// What went badly since the last call, as far as it is there now; for one judge.
    pub fn take(&self) -> impl Iterator<Item = Sighting> + '_ {
        // No more than were there: what comes in meanwhile is for the next time.
        let waiting = self.bad.len();
        std::iter::from_fn(|| self.bad.pop()).take(waiting)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AT: Placement = Placement::User { point: 1, share: 0.5 };

    #[test]
    fn s5_1_first_attempts_are_counted_by_class() {
        let evidence = Evidence::new(1, Some(Duration::from_millis(500)));
        let fast = Duration::from_millis(500);
        let slow = Duration::from_millis(501);
        use AttemptOutcome::{Abandoned, Answered, Failed, Refused, Stale};
        for (version, outcome, took) in [
            (0, Answered(200), fast),
            (0, Answered(404), slow),
            (0, Answered(503), fast),
            (1, Answered(499), fast),
            (1, Failed(FailureKind::Reset), fast),
            (1, Failed(FailureKind::Timeout), slow),
            (1, Failed(FailureKind::Protocol), fast),
            // These say nothing of the version.
            (1, Failed(FailureKind::Connect), fast),
            (1, Refused, fast),
            (1, Stale, fast),
            (1, Abandoned, slow),
            // Neither of the two.
            (2, Answered(500), fast),
        ] {
            evidence.record(version, outcome, took, || AT);
        }
        let counts = evidence.counts();
        assert_eq!(counts.stable, Counts { requests: 3, errors: 1, slow: 1 });
        assert_eq!(counts.canary, Counts { requests: 4, errors: 3, slow: 0 });
        let bad: Vec<_> = evidence.take().map(|seen| (seen.side, seen.class)).collect();
        let (stable, canary) = (Side::Stable, Side::Canary);
        let error = AttemptClass::Error;
        assert_eq!(
            bad,
            [
                (stable, AttemptClass::Slow),
                (stable, error),
                (canary, error),
                (canary, error),
                (canary, error)
            ]
        );
        assert_eq!(evidence.take().count(), 0);
    }

    #[test]
    fn what_nobody_takes_out_is_bounded() {
        let evidence = Evidence::new(1, None);
        for _ in 0..2 * WAITING {
            evidence.record(1, AttemptOutcome::Answered(500), Duration::ZERO, || AT);
        }
        assert_eq!((evidence.counts().canary.errors, evidence.take().count()), (2 * WAITING as u64, WAITING));
    }
}
