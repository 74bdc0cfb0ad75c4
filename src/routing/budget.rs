//! How many requests of a route may be repeated at once (semantics §4.3).

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::model::Retries;

/// The requests of a route that are being served, and the retries among them; outlives the tables.
///
/// Both counts are in one word, so that the check and the taking of a permit are one step: however many threads ask at
/// once, none gets a permit that the budget does not have.
#[derive(Debug, Default)]
pub struct RetryBudget(AtomicU64);

/// One active request, in the upper half of the word.
const REQUEST: u64 = 1 << 32;
/// One retry, in the lower half.
const RETRY: u64 = 1;

impl RetryBudget {
    /// A request begins; it is active until what is returned is dropped.
    #[must_use]
    pub fn begin(self: &Arc<Self>) -> ActiveRequest {
        // Relaxed, here and below: the word is all there is; nothing else is published through it.
        self.0.fetch_add(REQUEST, Ordering::Relaxed);
        ActiveRequest(Arc::clone(self))
    }

    /// How many requests are active.
    #[must_use]
    pub fn active(&self) -> u64 {
        self.0.load(Ordering::Relaxed) >> 32
    }

    /// How many of them are being repeated.
    #[must_use]
    pub fn retrying(&self) -> u64 {
        self.0.load(Ordering::Relaxed) & (REQUEST - 1)
    }
}

/// A request that is being served.
#[derive(Debug)]
pub struct ActiveRequest(Arc<RetryBudget>);

impl ActiveRequest {
    /// The leave to try once more on another endpoint: given while fewer than `budget` percent of the active requests, or
    /// fewer than `least`, are being repeated. It is held until that attempt has ended.
    ///
    /// The limit is that of the moment when it is asked for: permits that were given are not taken back when requests end.
    #[must_use]
    pub fn try_retry(&self, settings: &Retries) -> Option<RetryPermit> {
        let more = |word: u64| {
            let (active, retrying) = (word >> 32, word & (REQUEST - 1));
            let limit = (active * u64::from(settings.budget) / 100).max(u64::from(settings.least));
            (retrying < limit).then_some(word + RETRY)
        };
        self.0.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).ok()?;
        Some(RetryPermit(Arc::clone(&self.0)))
    }
}

impl Drop for ActiveRequest {
    fn drop(&mut self) {
        self.0.0.fetch_sub(REQUEST, Ordering::Relaxed);
    }
}

/// The leave to repeat a request; given back when it is dropped.
#[derive(Debug)]
pub struct RetryPermit(Arc<RetryBudget>);

impl Drop for RetryPermit {
    fn drop(&mut self) {
        self.0.0.fetch_sub(RETRY, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use proptest::prelude::*;

    use super::*;

    fn settings(budget: u8, least: u32) -> Retries {
        Retries { budget, least, ..Retries::default() }
    }

    #[test]
    fn s4_3_a_fifth_of_the_active_requests_and_never_fewer_than_three() {
        let budget = Arc::new(RetryBudget::default());
        let settings = Retries::default();
        let granted = |n: usize| {
            let active: Vec<_> = (0..n).map(|_| budget.begin()).collect();
            let permits: Vec<_> = active.iter().map_while(|a| a.try_retry(&settings)).collect();
            permits.len()
        };
        // Before a request there is none to be repeated, so that one of ten has at most as many as there are.
        assert_eq!([1, 3, 10, 15, 19, 20, 100].map(granted), [1, 3, 3, 3, 3, 4, 20]);
        assert_eq!((budget.active(), budget.retrying()), (0, 0), "all is given back");
    }

    #[test]
    fn s4_3_a_permit_is_for_one_attempt() {
        let budget = Arc::new(RetryBudget::default());
        let active = budget.begin();
        let settings = settings(0, 1);
        let permit = active.try_retry(&settings);
        assert!(permit.is_some() && active.try_retry(&settings).is_none());
        drop(permit);
        assert!(active.try_retry(&settings).is_some());
        assert!(active.try_retry(&Retries { least: 0, ..settings }).is_none(), "no budget, no retry");
    }

    #[test]
    fn s4_3_threads_never_overdraw_it() {
        let budget = Arc::new(RetryBudget::default());
        let settings = settings(20, 3);
        // Held all the while, so that the limit stands.
        let held: Vec<_> = (0..96).map(|_| budget.begin()).collect();
        let (together, most) = (AtomicUsize::new(0), AtomicUsize::new(0));
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    let mine = budget.begin();
                    for _ in 0..20_000 {
                        let permits: Vec<_> = (0..9).map_while(|_| mine.try_retry(&settings)).collect();
                        let now = together.fetch_add(permits.len(), Ordering::SeqCst) + permits.len();
                        most.fetch_max(now, Ordering::SeqCst);
                        together.fetch_sub(permits.len(), Ordering::SeqCst);
                        drop(permits);
                    }
                });
            }
        });
        let most = most.into_inner();
        assert!((9..=20).contains(&most), "{most} at once of at most a fifth of 100");
        drop(held);
        assert_eq!((budget.active(), budget.retrying()), (0, 0));
    }

    proptest! {
        #[test]
        fn s4_3_whatever_comes_and_goes(
            steps in proptest::collection::vec((0..4_u8, any::<prop::sample::Index>()), 1..200),
            percent in 0..=100_u8,
            least in 0..5_u32,
        ) {
            let budget = Arc::new(RetryBudget::default());
            let settings = settings(percent, least);
            let (mut active, mut permits) = (Vec::new(), Vec::new());
            for (step, which) in steps {
                match step {
                    0 => active.push(budget.begin()),
                    1 if !active.is_empty() => drop(active.swap_remove(which.index(active.len()))),
                    2 if !permits.is_empty() => drop(permits.swap_remove(which.index(permits.len()))),
                    3 if !active.is_empty() => {
                        let limit = (active.len() * usize::from(percent) / 100).max(least as usize);
                        let permit = active[0].try_retry(&settings);
                        prop_assert_eq!(permit.is_some(), permits.len() < limit);
                        permits.extend(permit);
                    }
                    _ => {}
                }
                prop_assert_eq!(budget.active(), active.len() as u64);
                prop_assert_eq!(budget.retrying(), permits.len() as u64);
            }
        }
    }
}
