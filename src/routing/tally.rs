//! What is counted where the requests pass: atomics only, no lock and no look-up by name.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::model::{AnswerReason, ChoiceReason, FailureKind, SetAsideReason};

/// The upper bounds of the latency buckets, in microseconds: 1, 1.5, 2, 3, 5, 7 of each decade from 100 µs to 100 s.
pub const LATENCY_BOUNDS: [u64; 37] = [
    100,
    150,
    200,
    300,
    500,
    700,
    1_000,
    1_500,
    2_000,
    3_000,
    5_000,
    7_000,
    10_000,
    15_000,
    20_000,
    30_000,
    50_000,
    70_000,
    100_000,
    150_000,
    200_000,
    300_000,
    500_000,
    700_000,
    1_000_000,
    1_500_000,
    2_000_000,
    3_000_000,
    5_000_000,
    7_000_000,
    10_000_000,
    15_000_000,
    20_000_000,
    30_000_000,
    50_000_000,
    70_000_000,
    100_000_000,
];

/// The counts of one version of one route; outlives the tables that use it.
#[derive(Debug, Default)]
pub struct Tally {
    requests: [CodeCounts; ChoiceReason::ALL.len()],
    failures: [AtomicU64; FailureKind::ALL.len()],
    set_aside: [AtomicU64; SetAsideReason::ALL.len()],
    retried_ok: AtomicU64,
    retried_failed: AtomicU64,
    begun: AtomicU64,
    ended: AtomicU64,
    /// Requests that another version began and failed, and that this one goes on with.
    taken_over: AtomicU64,
    shielded: AtomicU64,
    diverted: AtomicU64,
    latency: Latency,
}

/// How a request that was tried more than once ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RetryOutcome {
    /// Another endpoint answered.
    Success,
    /// No endpoint that was tried answered.
    Failure,
}

impl Tally {
    /// A request begins; its end is told with [`Self::end`].
    pub fn begin(&self) {
        self.begun.fetch_add(1, Ordering::Relaxed);
    }

    /// A request that began was given to another version, before any endpoint had seen it.
    pub fn give_away(&self) {
        self.begun.fetch_sub(1, Ordering::Relaxed);
    }

    /// A request begins, unless so many are being served already: false then, and it is counted as diverted.
    pub fn begin_within(&self, most: u64) -> bool {
        // Read first, and after whatever came before it: requests that end, or are diverted, in between make it look fuller than
        // it is, and none makes it look emptier.
        let ended = self.ended.load(Ordering::Acquire);
        let begun = self.begun.fetch_add(1, Ordering::Relaxed);
        if (begun + self.taken_over.load(Ordering::Relaxed)).saturating_sub(ended) < most {
            return true;
        }
        self.begun.fetch_sub(1, Ordering::Relaxed);
        self.diverted.fetch_add(1, Ordering::Relaxed);
        false
    }

    /// A request that began, and was failed, goes on at another version ([`Self::take_over`]), which will tell its end.
    pub fn hand_over(&self) {
        self.shielded.fetch_add(1, Ordering::Relaxed);
        self.ended.fetch_add(1, Ordering::Release);
    }

    /// A request that another version began goes on here. That one has got it: it is none of those that begin here.
    pub fn take_over(&self) {
        self.taken_over.fetch_add(1, Ordering::Relaxed);
    }

    /// A request that began has ended with this status after this time.
    pub fn end(&self, reason: ChoiceReason, status: u16, took: Duration) {
        self.ended.fetch_add(1, Ordering::Release);
        if let Some(counts) = self.requests.get(reason.index()) {
            counts.add(status);
        }
        self.latency.add(took);
    }

    /// An attempt failed.
    pub fn fail(&self, kind: FailureKind) {
        if let Some(count) = self.failures.get(kind.index()) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// An endpoint was set aside.
    pub fn set_aside(&self, reason: SetAsideReason) {
        if let Some(count) = self.set_aside.get(reason.index()) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// A request that was tried more than once has ended.
    pub fn retried(&self, outcome: RetryOutcome) {
        let count = match outcome {
            RetryOutcome::Success => &self.retried_ok,
            RetryOutcome::Failure => &self.retried_failed,
        };
        count.fetch_add(1, Ordering::Relaxed);
    }

    /// The longest time that a request has taken since [`Self::take_peak`]; 0 without any.
    #[must_use]
    pub fn peak(&self) -> Duration {
        Duration::from_micros(self.latency.peak_micros.load(Ordering::Relaxed))
    }

    /// As [`Self::peak`], which begins anew. For one caller alone: who looks at windows of time.
    #[must_use]
    pub fn take_peak(&self) -> Duration {
        Duration::from_micros(self.latency.peak_micros.swap(0, Ordering::Relaxed))
    }

    /// What has been counted so far.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        let load = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let mut requests = Vec::new();
        for (reason, counts) in ChoiceReason::ALL.iter().zip(&self.requests) {
            counts.each(|status, count| requests.push((*reason, status, count)));
        }
        Snapshot {
            requests,
            failures: FailureKind::ALL.iter().zip(&self.failures).map(|(kind, n)| (*kind, load(n))).collect(),
            set_aside: SetAsideReason::ALL
                .iter()
                .zip(&self.set_aside)
                .map(|(why, n)| (*why, load(n)))
                .collect(),
            retried_ok: load(&self.retried_ok),
            retried_failed: load(&self.retried_failed),
            begun: load(&self.begun),
            active: (load(&self.begun) + load(&self.taken_over)).saturating_sub(load(&self.ended)),
            shielded: load(&self.shielded),
            diverted: load(&self.diverted),
            latency: self.latency.snapshot(),
        }
    }

    /// How many requests have begun.
    #[must_use]
    pub fn begun(&self) -> u64 {
        self.begun.load(Ordering::Relaxed)
    }
}

/// The count of requests that Serinus answered before a version was chosen, by reason.
#[derive(Debug, Default)]
pub struct Unrouted([AtomicU64; AnswerReason::ALL.len()]);

impl Unrouted {
    /// One more.
    pub fn add(&self, reason: AnswerReason) {
        if let Some(count) = self.0.get(reason.index()) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Every reason that came up, and how often.
    pub fn counts(&self) -> impl Iterator<Item = (AnswerReason, u64)> {
        let counts = AnswerReason::ALL.iter().zip(&self.0);
        counts.map(|(reason, count)| (*reason, count.load(Ordering::Relaxed))).filter(|(_, count)| *count > 0)
    }
}

/// A tally at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// Reason, status, count; those of zero left out.
    pub requests: Vec<(ChoiceReason, u16, u64)>,
    /// Failed attempts by kind.
    pub failures: Vec<(FailureKind, u64)>,
    /// How often an endpoint was set aside, by reason.
    pub set_aside: Vec<(SetAsideReason, u64)>,
    /// Requests that another endpoint answered.
    pub retried_ok: u64,
    /// Requests that were tried more than once in vain.
    pub retried_failed: u64,
    /// How many requests have begun.
    pub begun: u64,
    /// Requests being served.
    pub active: u64,
    /// Requests that it failed, and that were repeated on another version.
    pub shielded: u64,
    /// Requests that were for it, and went to another version because it was full.
    pub diverted: u64,
    /// How long the ended ones took.
    pub latency: LatencySnapshot,
}

impl Snapshot {
    /// How many requests have ended.
    #[must_use]
    pub fn ended(&self) -> u64 {
        self.requests.iter().map(|(_, _, count)| count).sum()
    }

    /// How many were answered with 5xx.
    #[must_use]
    pub fn errors(&self) -> u64 {
        self.requests.iter().filter(|(_, status, _)| *status >= 500).map(|(_, _, count)| count).sum()
    }
}

/// Counts by status, made as classes of statuses come up: a version that answers 200 and 404 needs 1.6 KB.
#[derive(Debug, Default)]
struct CodeCounts([OnceLock<Box<[AtomicU64; 100]>>; 5]);

impl CodeCounts {
    fn add(&self, status: u16) {
        // Outside 100–599 there is no status: what came is counted as 599.
        let status = if (100..600).contains(&status) { usize::from(status) } else { 599 };
        let class = self.0.get(status / 100 - 1);
        let counts = class.map(|c| c.get_or_init(|| Box::new(std::array::from_fn(|_| AtomicU64::new(0)))));
        if let Some(count) = counts.and_then(|c| c.get(status % 100)) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn each(&self, mut see: impl FnMut(u16, u64)) {
        for (class, counts) in (1_u16..).zip(&self.0) {
            let Some(counts) = counts.get() else { continue };
            for (code, count) in (0_u16..).zip(counts.iter()) {
                let count = count.load(Ordering::Relaxed);
                if count > 0 {
                    see(class * 100 + code, count);
                }
            }
        }
    }
}

/// A histogram of latencies, as it is counted.
#[derive(Debug)]
pub(super) struct Latency {
    /// One for each bound, and one for all above the last.
    buckets: [AtomicU64; LATENCY_BOUNDS.len() + 1],
    sum_micros: AtomicU64,
    /// The longest since it was last asked for and forgotten ([`Tally::take_peak`]).
    peak_micros: AtomicU64,
}

impl Default for Latency {
    fn default() -> Self {
        Self {
            buckets: std::array::from_fn(|_| AtomicU64::new(0)),
            sum_micros: AtomicU64::new(0),
            peak_micros: AtomicU64::new(0),
        }
    }
}

impl Latency {
    pub(super) fn add(&self, took: Duration) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let bucket = LATENCY_BOUNDS.partition_point(|bound| *bound < micros);
        if let Some(count) = self.buckets.get(bucket) {
            count.fetch_add(1, Ordering::Relaxed);
        }
        self.sum_micros.fetch_add(micros, Ordering::Relaxed);
        // After its count, so that the peak of what was counted may be too high and not too low. Few are the longest so far.
        if self.peak_micros.load(Ordering::Relaxed) < micros {
            self.peak_micros.fetch_max(micros, Ordering::Relaxed);
        }
    }

    pub(super) fn snapshot(&self) -> LatencySnapshot {
        LatencySnapshot {
            buckets: self.buckets.iter().map(|b| b.load(Ordering::Relaxed)).collect(),
            sum_micros: self.sum_micros.load(Ordering::Relaxed),
        }
    }
}

/// A latency histogram at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LatencySnapshot {
    /// Counts between the bounds of [`LATENCY_BOUNDS`], and above the last.
    pub buckets: Vec<u64>,
    /// The sum of all, in microseconds.
    pub sum_micros: u64,
}

impl LatencySnapshot {
    /// How many were counted.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }

    /// The time under which this part (0–1) of them stayed, within its bucket by proportion, and not beyond `longest`, the
    /// longest that was measured; nothing without any. Times above the last bound are told as that bound.
    #[must_use]
    pub fn quantile(&self, part: f64, longest: Duration) -> Option<Duration> {
        let count = self.count();
        if count == 0 {
            return None;
        }
        let wanted = (part.clamp(0.0, 1.0) * count as f64).max(1.0);
        let longest = u64::try_from(longest.as_micros()).unwrap_or(u64::MAX);
        let mut before = 0.0;
        let mut lower = 0;
        for (bucket, in_bucket) in self.buckets.iter().enumerate() {
            let upper = LATENCY_BOUNDS.get(bucket).copied().unwrap_or(lower);
            let in_bucket = *in_bucket as f64;
            if before + in_bucket >= wanted && in_bucket > 0.0 {
                let micros = lower as f64 + (upper - lower) as f64 * (wanted - before) / in_bucket;
                // It is in this bucket, whatever else is known: the count and the peak are not read at one moment.
                let micros = micros.min(longest.max(lower) as f64);
                return Some(Duration::from_micros(micros as u64));
            }
            before += in_bucket;
            lower = upper;
        }
        Some(Duration::from_micros(lower))
    }

    /// What came after `earlier`.
    #[must_use]
    pub fn since(&self, earlier: &LatencySnapshot) -> LatencySnapshot {
        let before = |i: usize| earlier.buckets.get(i).copied().unwrap_or_default();
        LatencySnapshot {
            buckets: self.buckets.iter().enumerate().map(|(i, now)| now.saturating_sub(before(i))).collect(),
            sum_micros: self.sum_micros.saturating_sub(earlier.sum_micros),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_every_status_by_reason() {
        let tally = Tally::default();
        for status in [200, 200, 404, 503, 0, 999, 100, 599] {
            tally.begin();
            tally.end(ChoiceReason::Weight, status, Duration::from_millis(1));
        }
        tally.begin();
        tally.end(ChoiceReason::Fallback, 200, Duration::from_millis(1));
        tally.begin();
        let snapshot = tally.snapshot();
        use ChoiceReason::{Fallback, Weight};
        assert_eq!(
            snapshot.requests,
            [
                (Weight, 100, 1),
                (Weight, 200, 2),
                (Weight, 404, 1),
                (Weight, 503, 1),
                (Weight, 599, 3),
                (Fallback, 200, 1)
            ]
        );
        assert_eq!((snapshot.active, snapshot.ended(), snapshot.errors(), tally.begun()), (1, 9, 4, 10));
    }

    #[test]
    fn what_is_handed_over_has_begun_once_and_is_active_where_it_is() {
        let (canary, stable) = (Tally::default(), Tally::default());
        canary.begin();
        canary.hand_over();
        stable.take_over();
        assert_eq!((canary.snapshot().active, stable.snapshot().active), (0, 1));
        stable.end(ChoiceReason::Fallback, 200, Duration::ZERO);
        assert_eq!((canary.begun(), stable.begun()), (1, 0), "it was the canary's");
        let (canary, stable) = (canary.snapshot(), stable.snapshot());
        assert_eq!((canary.shielded, canary.ended()), (1, 0));
        assert_eq!((stable.shielded, stable.ended(), stable.active), (0, 1, 0));
    }

    #[test]
    fn no_more_begin_than_there_is_room_for_however_many_ask_at_once() {
        let tally = Tally::default();
        let most = 2;
        let inside = AtomicU64::new(0);
        std::thread::scope(|threads| {
            for _ in 0..4 {
                threads.spawn(|| {
                    for _ in 0..20_000 {
                        if tally.begin_within(most) {
                            assert!(inside.fetch_add(1, Ordering::SeqCst) < most);
                            inside.fetch_sub(1, Ordering::SeqCst);
                            tally.end(ChoiceReason::Weight, 200, Duration::ZERO);
                        }
                    }
                });
            }
        });
        let now = tally.snapshot();
        assert_eq!((now.active, now.begun, now.begun + now.diverted), (0, now.ended(), 80_000));
        for _ in 0..most {
            assert!(tally.begin_within(most));
        }
        assert!(!tally.begin_within(most));
        assert_eq!((tally.snapshot().active, tally.snapshot().diverted), (most, now.diverted + 1));
        tally.end(ChoiceReason::Weight, 200, Duration::ZERO);
        assert!(tally.begin_within(most));
    }

    #[test]
    fn quantiles_are_within_a_bucket() {
        let latency = Latency::default();
        assert_eq!(latency.snapshot().quantile(0.5, Duration::MAX), None);
        for millis in 1..=100 {
            latency.add(Duration::from_millis(millis));
        }
        let snapshot = latency.snapshot();
        let p50 = snapshot.quantile(0.5, Duration::MAX).unwrap().as_millis();
        let p99 = snapshot.quantile(0.99, Duration::MAX).unwrap().as_millis();
        assert!((45..=55).contains(&p50), "{p50}");
        assert!((95..=100).contains(&p99), "{p99}");
        latency.add(Duration::MAX);
        assert_eq!(latency.snapshot().quantile(1.0, Duration::MAX), Some(Duration::from_secs(100)));
        assert_eq!(latency.snapshot().since(&snapshot).count(), 1);
    }

    #[test]
    fn no_quantile_is_beyond_the_longest_that_was_measured() {
        let tally = Tally::default();
        let end = |micros| {
            tally.begin();
            tally.end(ChoiceReason::Weight, 200, Duration::from_micros(micros));
        };
        let quantile = |part| {
            let found = tally.snapshot().latency.quantile(part, tally.peak()).unwrap();
            u64::try_from(found.as_micros()).unwrap()
        };
        assert_eq!(tally.peak(), Duration::ZERO);
        // All in the bucket from 2 to 3 ms.
        end(2_100);
        assert_eq!((quantile(0.5), quantile(0.99)), (2_100, 2_100), "of one request both are its time");
        for _ in 0..99 {
            end(2_050);
        }
        assert!((2_000..=2_100).contains(&quantile(0.01)));
        assert_eq!((quantile(0.99), quantile(1.0)), (2_100, 2_100));
        end(2_900);
        assert_eq!(quantile(1.0), 2_900);
        assert!(quantile(0.5) <= 2_500, "others are where they were in the bucket");
        // The peak begins anew; a quantile never leaves its bucket for it.
        assert_eq!((tally.take_peak(), tally.peak()), (Duration::from_micros(2_900), Duration::ZERO));
        assert_eq!(quantile(1.0), 2_000);
        end(500);
        assert_eq!(tally.peak(), Duration::from_micros(500));
    }

    #[test]
    fn the_bounds_grow() {
        assert!(LATENCY_BOUNDS.is_sorted());
    }
}
