//! What a version's endpoints have in common when one of them is judged: how many may be ejected at once, and how the
//! attempts of all of them went (semantics §2.5).

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use crate::model::Moment;

/// How long a window of attempts is.
const WINDOW: Duration = Duration::from_secs(10);
/// How many windows are remembered of a version: an endpoint's window is judged when its next one begins.
const REMEMBERED: usize = 4;
/// How many attempts an endpoint, and the others together, must have had in a window to be compared. With fewer, chance
/// would eject: of 100 attempts with 5 % failures, 15 fail in one of 4,000 windows.
pub(super) const ENOUGH: u32 = 100;

/// The endpoints of one version of one route, seen together; outlives the tables.
#[derive(Debug, Default)]
pub(super) struct Crowd {
    ejected: AtomicU32,
    /// How many may be ejected at once: what the last compile made of `most`.
    room: AtomicU32,
    windows: [Window; REMEMBERED],
}

impl Crowd {
    /// At most so many may be ejected at once from now on. Those that are stay so.
    pub(super) fn set_room(&self, room: usize) {
        self.room.store(u32::try_from(room).unwrap_or(u32::MAX), Ordering::Relaxed);
    }

    /// One more is to be ejected: whether there is room. One word, so that threads that ask at once never get too much.
    pub(super) fn eject(&self) -> bool {
        let room = self.room.load(Ordering::Relaxed);
        let more = |ejected: u32| (ejected < room).then_some(ejected + 1);
        self.ejected.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_ok()
    }

    /// One that was ejected is not any more.
    pub(super) fn readmit(&self) {
        self.ejected.fetch_sub(1, Ordering::Relaxed);
    }

    #[cfg(test)]
    pub(super) fn ejected(&self) -> usize {
        self.ejected.load(Ordering::Relaxed) as usize
    }

    /// Counts an attempt of `own` and of all; the success rates of `own` and of the others in the window before, when this
    /// attempt begins a new one and both had enough attempts.
    ///
    /// An endpoint is compared with the others of its version together, not, as Envoy does it, with the mean less so many
    /// standard deviations of single endpoints: among a few endpoints no single one can be that far from the mean, and a
    /// canary often has but a few. Nor is anybody ejected when all fail alike, for then the fault is not an endpoint's.
    pub(super) fn count(&self, own: &Window, good: bool, now: Moment) -> Option<(f64, f64)> {
        let number = now.millis() / WINDOW.as_millis() as u64;
        if let Some(window) = self.windows.get(number as usize % REMEMBERED) {
            window.count(number, good);
        }
        let closed = own.count(number, good)?;
        let all = self.windows.get(closed.number as usize % REMEMBERED)?.load();
        if all.number != closed.number {
            return None;
        }
        let others = Counts {
            number: closed.number,
            good: all.good.saturating_sub(closed.good),
            bad: all.bad.saturating_sub(closed.bad),
        };
        Some((closed.rate()?, others.rate()?))
    }
}

/// The attempts of one window, in one word: 12 bits for its number, 26 each for those that went well and those that did not.
#[derive(Debug, Default)]
pub(super) struct Window(AtomicU64);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Counts {
    number: u64,
    good: u32,
    bad: u32,
}

/// The number of a window is kept as far as it differs among those of 11 hours.
const NUMBERS: u64 = 1 << 12;
/// More attempts than these are not counted.
const MOST: u64 = (1 << 26) - 1;

impl Window {
    fn load(&self) -> Counts {
        Counts::read(self.0.load(Ordering::Relaxed))
    }

    /// Counts an attempt; the window before when this one begins a new window.
    fn count(&self, number: u64, good: bool) -> Option<Counts> {
        let number = number % NUMBERS;
        let next = |word: u64| {
            let same = word >> 52 == number;
            let word = if same { word } else { number << 52 };
            let (shift, full) = if good { (26, word >> 26 & MOST == MOST) } else { (0, word & MOST == MOST) };
            Some(if full { word } else { word + (1 << shift) })
        };
        // Relaxed: the word is all there is. Exactly one thread begins a window.
        let before = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next);
        let before = Counts::read(before.unwrap_or_default());
        (before.number != number).then_some(before)
    }
}

impl Counts {
    fn read(word: u64) -> Self {
        Self { number: word >> 52, good: (word >> 26 & MOST) as u32, bad: (word & MOST) as u32 }
    }

    /// The part that went well; nothing while there are too few to say.
    fn rate(&self) -> Option<f64> {
        let all = self.good.saturating_add(self.bad);
        (all >= ENOUGH).then(|| f64::from(self.good) / f64::from(all))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(seconds: u64) -> Moment {
        Moment::from_millis(1_000 * seconds)
    }

    #[test]
    fn s2_5_success_rates_are_of_the_window_before_and_need_enough_attempts() {
        let crowd = Crowd::default();
        let (own, other) = (Window::default(), Window::default());
        // 40,000 s on, for the first window has the number that an empty word has.
        let begin = 40_000;
        for i in 0..200 {
            assert_eq!(crowd.count(&own, i % 4 != 0, at(begin + 3)), None, "the window is not over");
            assert_eq!(crowd.count(&other, i % 100 != 0, at(begin + 9)), None);
        }
        assert_eq!(crowd.count(&own, true, at(begin + 10)), Some((0.75, 0.99)));
        assert_eq!(crowd.count(&own, true, at(begin + 20)), None, "one attempt is not enough");
        for _ in 0..150 {
            crowd.count(&own, true, at(begin + 30));
        }
        assert_eq!(crowd.count(&own, true, at(begin + 40)), None, "nobody to compare it with");
        for _ in 0..150 {
            crowd.count(&own, true, at(begin + 50));
            crowd.count(&other, false, at(begin + 50));
        }
        // The others went on, and the window is forgotten.
        crowd.count(&other, true, at(begin + 90));
        assert_eq!(crowd.count(&own, true, at(begin + 90)), None);
    }

    #[test]
    fn s2_5_threads_never_eject_more_than_there_is_room() {
        let crowd = Crowd::default();
        assert!(!crowd.eject(), "none before a table was compiled");
        crowd.set_room(7);
        let ejected: usize = std::thread::scope(|scope| {
            let threads: Vec<_> =
                (0..4).map(|_| scope.spawn(|| (0..1_000).filter(|_| crowd.eject()).count())).collect();
            threads.into_iter().map(|t| t.join().unwrap()).sum()
        });
        assert_eq!(ejected, 7);
        crowd.readmit();
        assert!(crowd.eject() && !crowd.eject());
        crowd.set_room(3);
        crowd.readmit();
        assert!(!crowd.eject(), "those that are stay so");
    }

    proptest! {
        #[test]
        fn a_window_counts_what_it_is_told(steps in proptest::collection::vec((0..2_u64, any::<bool>()), 1..300)) {
            let window = Window::default();
            let (mut number, mut good, mut bad) = (0, 0, 0);
            for (passed, well) in steps {
                let expected = (passed > 0).then_some(Counts { number, good, bad });
                if passed > 0 {
                    (number, good, bad) = ((number + passed) % NUMBERS, 0, 0);
                }
                if well { good += 1 } else { bad += 1 }
                prop_assert_eq!(window.count(number, well), expected);
                prop_assert_eq!(window.load(), Counts { number, good, bad });
            }
        }
    }

    #[test]
    fn a_full_window_does_not_run_over() {
        let window = Window(AtomicU64::new(5 << 52 | MOST << 26 | MOST));
        assert_eq!((window.count(5, true), window.count(5, false)), (None, None));
        assert_eq!(window.load(), Counts { number: 5, good: MOST as u32, bad: MOST as u32 });
    }
}
