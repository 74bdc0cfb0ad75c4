//! The last quarter of an hour of each version that had requests: what the dashboard draws.
//!
//! A sampler reads the tallies every five seconds; no request knows of it. Only versions that had requests in that quarter of an
//! hour are kept, and [`MOST`] of them at most: some 4 KB each.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use crate::model::Timestamp;
use crate::routing::tally::Tally;
use crate::routing::{Route, RoutingTable};

use super::recent::{Counts, Recent, key};
use super::status::round;
use super::wire::{RouteSeries, VersionSeries};

/// How often a sample is taken.
pub(super) const INTERVAL: Duration = Duration::from_secs(5);
/// How many samples are kept: a quarter of an hour.
const SAMPLES: usize = 180;
/// How many versions are kept: 8 MB of them.
const MOST: usize = 2_048;

/// The samples of every version that is kept.
#[derive(Debug, Default)]
pub(super) struct Series {
    /// When each sample was taken, and how long after the one before; the newest last.
    ticks: VecDeque<(Instant, Duration)>,
    kept: HashMap<usize, Kept>,
    /// What every version that ever had a request had begun at the last sample, to see which one has more by now.
    begun: HashMap<usize, (Arc<Tally>, u64)>,
}

#[derive(Debug)]
struct Kept {
    tally: Arc<Tally>,
    counts: Counts,
    /// The newest last, at the newest tick; those before the first are of no requests.
    samples: VecDeque<Sample>,
    /// How many samples ago something last began or ended.
    quiet: usize,
}

/// What came between two ticks.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Sample {
    begun: u32,
    ended: u32,
    errors: u32,
    p50_ms: Option<f32>,
    p99_ms: Option<f32>,
}

impl Sample {
    fn between(before: &Counts, now: &Counts) -> Self {
        let count = |now: u64, before: u64| u32::try_from(now.saturating_sub(before)).unwrap_or(u32::MAX);
        let latency = now.latency.since(&before.latency);
        let millis = |part| latency.quantile(part, now.peak).map(|time| time.as_secs_f32() * 1000.0);
        Self {
            begun: count(now.begun, before.begun),
            ended: count(now.ended, before.ended),
            errors: count(now.errors, before.errors),
            p50_ms: millis(0.5),
            p99_ms: millis(0.99),
        }
    }
}

impl Series {
    /// Takes a sample of every version of the table.
    pub(super) fn sample(&mut self, table: &RoutingTable, recent: &Recent, now: Instant) {
        let took = self.ticks.back().map_or(INTERVAL, |(last, _)| now.saturating_duration_since(*last));
        push(&mut self.ticks, (now, took));
        let begun = std::mem::take(&mut self.begun);
        for version in table.routes().iter().flat_map(|route| &route.versions) {
            let (tally, has) = (&version.tally, version.tally.begun());
            if has == 0 {
                continue;
            }
            let had = begun.get(&key(tally)).map_or(0, |(_, had)| *had);
            self.begun.insert(key(tally), (Arc::clone(tally), has));
            if has > had && self.kept.len() < MOST {
                // Of one that comes back after a quarter of an hour, what came since the last sample is not known.
                let counts = if had == 0 { Counts::default() } else { recent.whole(tally) };
                self.kept.entry(key(tally)).or_insert_with(|| Kept {
                    tally: Arc::clone(tally),
                    counts,
                    samples: VecDeque::new(),
                    quiet: 0,
                });
            }
        }
        // One whose version is gone stays out: its tally is held by nobody else.
        let there = &self.begun;
        self.kept.retain(|key, kept| {
            let now = recent.whole(&kept.tally);
            let sample = Sample::between(&kept.counts, &now);
            kept.quiet = if (sample.begun, sample.ended) == (0, 0) { kept.quiet + 1 } else { 0 };
            kept.counts = now;
            push(&mut kept.samples, sample);
            kept.quiet < SAMPLES && there.contains_key(key)
        });
    }

    /// What the API shows of a route, at this moment.
    pub(super) fn of(&self, route: &Route, now: Instant, wall: SystemTime) -> RouteSeries {
        let time = |at: Instant| wall.checked_sub(now.saturating_duration_since(at)).unwrap_or(wall);
        let unix =
            |at: Instant| time(at).duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs_f64();
        RouteSeries {
            route: route.name().to_string(),
            interval_seconds: INTERVAL.as_secs_f64(),
            until: self.ticks.back().map(|(at, _)| Timestamp::from(time(*at)).to_string()),
            ends: self.ticks.iter().map(|(at, _)| (unix(*at) * 1000.0).round() / 1000.0).collect(),
            seconds: self.ticks.iter().map(|(_, took)| round(took.as_secs_f64())).collect(),
            versions: route.versions.iter().map(|v| self.version(v.name.as_str(), &v.tally)).collect(),
        }
    }

    fn version(&self, name: &str, tally: &Arc<Tally>) -> VersionSeries {
        let kept = self.kept.get(&key(tally));
        // One that has requests and no place is not the same as one that has none.
        let idle = kept.is_some() || self.kept.len() < MOST || tally.begun() == 0;
        let before = self.ticks.len() - kept.map_or(0, |kept| kept.samples.len()).min(self.ticks.len());
        let samples = || {
            let missing = std::iter::repeat_n(Sample::default(), before);
            missing.chain(kept.iter().flat_map(|kept| &kept.samples).copied())
        };
        let count = |of: fn(Sample) -> u32| samples().map(|sample| idle.then(|| of(sample))).collect();
        let millis = |of: fn(Sample) -> Option<f32>| {
            samples().map(|sample| of(sample).map(|ms| round(f64::from(ms)))).collect()
        };
        VersionSeries {
            name: name.to_owned(),
            requests: count(|sample| sample.begun),
            ended: count(|sample| sample.ended),
            errors: count(|sample| sample.errors),
            p50_ms: millis(|sample| sample.p50_ms),
            p99_ms: millis(|sample| sample.p99_ms),
        }
    }
}

/// One more, and the oldest goes.
fn push<T>(samples: &mut VecDeque<T>, sample: T) {
    if samples.len() >= SAMPLES {
        samples.pop_front();
    }
    samples.push_back(sample);
}

#[cfg(test)]
#[path = "series_tests.rs"]
mod tests;
