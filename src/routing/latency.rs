//! How long an endpoint takes of late: the peak-sensitive average of `peakEwma` (semantics §2.5).
//!
//! As in Finagle, from where linkerd and tower have it: an exponentially weighted moving average over time that believes a
//! slower answer at once and a faster one little by little. An endpoint costs its average times the requests that would be
//! there with one more. What is not heard of for a while is forgotten, so that a slow one is tried again.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::model::Moment;

/// After so long an old average counts for 1/e (37 %): linkerd's and tower's default.
const DECAY: Duration = Duration::from_secs(10);
/// What an endpoint costs that has requests and never answered one: more than any that did. It gets one to show itself.
const UNKNOWN: f64 = 1e18;

/// The average, in one word: in the upper half when it was taken, in milliseconds; in the lower the average in
/// microseconds, 0 for none yet.
#[derive(Debug, Default)]
pub(super) struct Latency(AtomicU64);

/// What a time says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sample {
    /// It took so long.
    Whole,
    /// It would have taken at least so long: it was broken off, or failed, and that fast failures are no good answers.
    AtLeast,
}

impl Latency {
    /// An attempt took so long.
    pub(super) fn add(&self, took: Duration, sample: Sample, now: Moment) {
        let took = took.as_micros().clamp(1, u128::from(u32::MAX)) as f64;
        let next = |word: u64| {
            let before = decayed(word, now);
            let next = match before {
                None if sample == Sample::Whole => took,
                None => return None,
                Some((average, _)) if took >= average => took,
                Some(_) if sample == Sample::AtLeast => return None,
                // `average` is decayed already: what is missing of the weight is the new one's.
                Some((average, weight)) => average + took * (1.0 - weight),
            };
            Some(stamp(now) << 32 | (next as u64).clamp(1, u64::from(u32::MAX)))
        };
        // Relaxed: the word is all there is. Nothing is stored where nothing is learnt.
        let _ = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next);
    }

    /// What one more request there would cost; only to be compared.
    pub(super) fn cost(&self, in_flight: u32, now: Moment) -> f64 {
        match (decayed(self.0.load(Ordering::Relaxed), now), in_flight) {
            (Some((average, _)), _) => average * (f64::from(in_flight) + 1.0),
            (None, 0) => 0.0,
            (None, _) => UNKNOWN + f64::from(in_flight) * UNKNOWN,
        }
    }
}

/// Milliseconds, of which 32 bits suffice to tell how long ago something was: they come round after 49 days.
fn stamp(now: Moment) -> u64 {
    now.millis() & u64::from(u32::MAX)
}

/// What is left of the average by now, and which part that is; nothing where there is none.
fn decayed(word: u64, now: Moment) -> Option<(f64, f64)> {
    let (at, average) = ((word >> 32) as u32, word as u32);
    if average == 0 {
        return None;
    }
    let passed = (stamp(now) as u32).wrapping_sub(at);
    // Clocks that are read at different places may be a little apart: what seems to come is now.
    let passed = if passed > u32::MAX / 2 { 0.0 } else { f64::from(passed) };
    let weight = (-passed / DECAY.as_millis() as f64).exp();
    Some((f64::from(average) * weight, weight))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Moment {
        Moment::from_millis(millis)
    }

    fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    fn about(cost: f64, micros: f64) -> bool {
        (cost - micros).abs() <= micros * 0.001 + 2.0
    }

    #[test]
    fn s2_5_peak_ewma_believes_the_slow_at_once_and_the_fast_in_time() {
        let latency = Latency::default();
        latency.add(ms(10), Sample::Whole, at(0));
        assert!(about(latency.cost(0, at(0)), 10_000.0));
        assert!(about(latency.cost(3, at(0)), 40_000.0), "times the requests with one more");
        latency.add(ms(500), Sample::Whole, at(1));
        assert!(about(latency.cost(0, at(1)), 500_000.0), "a peak counts at once");
        latency.add(ms(10), Sample::Whole, at(2));
        assert!(latency.cost(0, at(2)) > 499_000.0, "one fast answer after it hardly");
        // After its time constant: 1/e of the old, the rest of the new.
        latency.add(ms(10), Sample::Whole, at(10_002));
        let expected = 499_950.0 * (-1.0_f64).exp() + 10_000.0 * (1.0 - (-1.0_f64).exp());
        assert!(about(latency.cost(0, at(10_002)), expected), "{}", latency.cost(0, at(10_002)));
        assert!(latency.cost(0, at(60_002)) < expected / 100.0, "what is not heard of is forgotten");
    }

    #[test]
    fn s2_5_peak_ewma_a_failure_never_makes_an_endpoint_look_fast() {
        let latency = Latency::default();
        latency.add(ms(1), Sample::AtLeast, at(0));
        assert!(latency.cost(1, at(0)) > 1e17, "it is still unknown");
        latency.add(ms(100), Sample::Whole, at(0));
        latency.add(ms(1), Sample::AtLeast, at(20_000));
        assert!(about(latency.cost(0, at(20_000)), 100_000.0 * (-2.0_f64).exp()));
        latency.add(ms(1_000), Sample::AtLeast, at(20_000));
        assert!(about(latency.cost(0, at(20_000)), 1_000_000.0), "slow it may look");
    }

    #[test]
    fn s2_5_peak_ewma_an_unknown_endpoint_gets_one_request_to_show_itself() {
        let (unknown, known) = (Latency::default(), Latency::default());
        known.add(ms(100), Sample::Whole, at(0));
        assert!(unknown.cost(0, at(0)) < known.cost(0, at(0)));
        assert!(unknown.cost(1, at(0)) > known.cost(1_000_000, at(0)));
        assert!(unknown.cost(1, at(0)) < unknown.cost(2, at(0)));
    }

    #[test]
    fn s2_5_peak_ewma_bears_clocks_that_differ_and_come_round() {
        let latency = Latency::default();
        let round = u64::from(u32::MAX) + 1;
        latency.add(ms(10), Sample::Whole, at(round - 1));
        assert!(about(latency.cost(0, at(round - 500)), 10_000.0), "earlier is now");
        assert!(about(latency.cost(0, at(round + 9_999)), 10_000.0 * (-1.0_f64).exp()));
        latency.add(Duration::MAX, Sample::Whole, at(round));
        assert!(about(latency.cost(0, at(round)), f64::from(u32::MAX)));
    }
}
