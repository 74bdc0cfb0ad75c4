//! So many lines a second, and no more, of what others can bring about.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use crate::model::Moment;

/// Bounds the lines of a kind of event: pods that come and go, and clients that bring them to fail, do not fill the log.
#[derive(Debug)]
pub(super) struct LineLimit {
    /// How many lines there are in a second; what else happens is only counted.
    most: u32,
    /// The second in the upper half, its lines in the lower.
    word: AtomicU64,
    untold: AtomicU64,
}

impl LineLimit {
    /// So many lines a second.
    pub(super) const fn of(most: u32) -> Self {
        Self { most, word: AtomicU64::new(0), untold: AtomicU64::new(0) }
    }

    /// Whether an event may have a line now; then with how many before it had none.
    pub(super) fn next(&self) -> Option<u64> {
        self.next_in(Moment::of(Instant::now()).millis() / 1_000)
    }

    fn next_in(&self, second: u64) -> Option<u64> {
        let second = second & u64::from(u32::MAX);
        // A thread that looked at the clock a moment earlier is no new second.
        let more = |word: u64| match (word >> 32 >= second, word & u64::from(u32::MAX)) {
            (true, lines) if lines >= u64::from(self.most) => None,
            (true, _) => Some(word + 1),
            (false, _) => Some(second << 32 | 1),
        };
        if self.word.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_ok() {
            Some(self.untold.swap(0, Ordering::Relaxed))
        } else {
            self.untold.fetch_add(1, Ordering::Relaxed);
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_bounded_and_the_rest_is_told_later() {
        let limit = LineLimit::of(20);
        let told = (0..50).filter_map(|_| limit.next_in(7)).collect::<Vec<_>>();
        assert_eq!(told, [0; 20]);
        assert_eq!((limit.next_in(8), limit.next_in(8)), (Some(30), Some(0)));
        let late = (0..50).filter_map(|i| limit.next_in(7 + i % 2)).count();
        assert_eq!(late, 18, "two threads that do not agree about the second share its lines");
    }
}
