//! Whether a canary is worse than stable, from what was seen of both so far.

use serde::{Deserialize, Serialize};

use crate::model::{AttemptClass, Counts, Guard, Side, Sides, Sighting, VersionName};

use super::figures::{EValue, Thousands};
use super::test::Test;

/// What is thought of a canary (semantics §5.4).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is worse, and why, in words.
    Fail(String),
    /// Not enough is known to go on, and what is missing.
    Inconclusive(String),
    /// Nothing speaks against it.
    Pass,
}

/// Weighs what is seen in one rollout, in one process.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Judge {
    errors: Test,
    slowness: Test,
    /// Since the rollout began.
    total: Sides,
    /// Since its step began.
    step: Sides,
}

/// What a judge, or several as one, has found: for people and dashboards.
#[derive(Clone, Debug, PartialEq)]
pub struct Findings {
    /// Since the rollout began.
    pub total: Sides,
    /// Since its step began.
    pub step: Sides,
    /// The natural logarithm of the e-value of failures.
    pub log_errors: f64,
    /// The same of slow answers, where those are judged.
    pub log_slowness: Option<f64>,
    /// The canary fails when one of them is beyond this.
    pub log_threshold: f64,
}

impl Judge {
    /// Takes in what was seen since the last call, at this share of the canary (0 to 1): the counts of all first attempts, and
    /// each that went badly.
    pub fn take(
        &mut self,
        guard: &Guard,
        counts: Sides,
        share: f64,
        seen: impl IntoIterator<Item = Sighting>,
    ) {
        self.total = self.total.plus(counts);
        self.step = self.step.plus(counts);
        let margin = guard.error_margin.ratio();
        let slow_margin = guard.latency.map_or(0.0, |latency| latency.margin.ratio());
        self.errors.passed(counts.requests(), share, margin);
        self.slowness.passed(counts.requests(), share, slow_margin);
        for Sighting { side, class, at } in seen {
            let canary = side == Side::Canary;
            match class {
                AttemptClass::Error => self.errors.bad(canary, at, margin),
                AttemptClass::Slow => self.slowness.bad(canary, at, slow_margin),
                AttemptClass::Ok => {}
            }
        }
    }

    /// Whether it has seen nothing.
    #[must_use]
    pub fn is_untouched(&self) -> bool {
        *self == Self::default()
    }

    /// What the same replica saw at another time, besides.
    pub fn add(&mut self, other: &Judge) {
        self.errors.add(&other.errors);
        self.slowness.add(&other.slowness);
        self.total = self.total.plus(other.total);
        self.step = self.step.plus(other.step);
    }

    /// Whether it can have come about by requests: what others say may be anything.
    #[must_use]
    pub fn is_plausible(&self) -> bool {
        let most = 1 << 53;
        let few = |sides: Sides| sides.stable.requests.max(sides.canary.requests) < most;
        let fit = |sides: Sides| {
            [sides.stable, sides.canary].iter().all(|counts| counts.errors.max(counts.slow) < most)
        };
        let counts = [self.total, self.step].into_iter().all(|sides| few(sides) && fit(sides));
        counts && self.errors.is_plausible() && self.slowness.is_plausible()
    }

    /// A step begins: what was counted for the one before does not count for it. What speaks against the canary goes on
    /// doing so: the chance of a false alarm is that of the whole rollout.
    pub fn begin_step(&mut self) {
        self.step = Sides::default();
    }

    /// What this process's judge and those of the other replicas have found together (semantics §5.5).
    #[must_use]
    pub fn findings<'a>(&'a self, guard: &Guard, peers: impl IntoIterator<Item = &'a Judge>) -> Findings {
        let all: Vec<&Judge> = std::iter::once(self).chain(peers).collect();
        let sum =
            |of: fn(&Judge) -> Sides| all.iter().fold(Sides::default(), |sum, judge| sum.plus(of(judge)));
        let tests = if guard.latency.is_some() { 2.0 } else { 1.0 };
        Findings {
            total: sum(|judge| judge.total),
            step: sum(|judge| judge.step),
            log_errors: Test::joined(all.iter().map(|judge| &judge.errors)),
            log_slowness: guard.latency.map(|_| Test::joined(all.iter().map(|judge| &judge.slowness))),
            // Either may be a false alarm: each gets its part of the chance.
            log_threshold: (tests / guard.alpha).ln(),
        }
    }
}

impl Findings {
    /// What is to be thought of the canary.
    #[must_use]
    pub fn verdict(&self, guard: &Guard, canary: &VersionName, stable: &VersionName) -> Verdict {
        let errors = |counts: &Counts| (counts.errors, counts.requests);
        let compared = |word: &str, of: fn(&Counts) -> u64, log: f64| {
            format!(
                "{canary} {word} {} of {} first attempts, {stable} {} of {}; e-value {} > {}",
                Thousands(of(&self.total.canary)),
                Thousands(self.total.canary.requests),
                Thousands(of(&self.total.stable)),
                Thousands(self.total.stable.requests),
                EValue(log),
                EValue(self.log_threshold),
            )
        };
        if self.log_errors > self.log_threshold {
            return Verdict::Fail(compared("failed", |counts| counts.errors, self.log_errors));
        }
        if let (Some(log), Some(latency)) = (self.log_slowness, guard.latency)
            && log > self.log_threshold
        {
            let limit = humantime::format_duration(latency.limit);
            let word = format!("answered slower than {limit} in");
            return Verdict::Fail(compared(&word, |counts| counts.slow, log));
        }
        if let Some(limit) = guard.limit
            && self.step.canary.requests >= limit.requests
            && self.step.canary.error_rate() > limit.rate.ratio()
        {
            let (failed, requests) = errors(&self.step.canary);
            return Verdict::Fail(format!(
                "{canary} failed {} of {} first attempts in this step, more than the limit of {} %",
                Thousands(failed),
                Thousands(requests),
                limit.rate
            ));
        }
        self.inconclusive(guard, canary).map_or(Verdict::Pass, Verdict::Inconclusive)
    }

    /// What is missing for going on; nothing when nothing is.
    fn inconclusive(&self, guard: &Guard, canary: &VersionName) -> Option<String> {
        let had = self.step.canary.requests;
        if had < guard.min_requests {
            let wanted = Thousands(guard.min_requests);
            return Some(format!(
                "{canary} has had {} of the {wanted} requests that a step needs",
                Thousands(had)
            ));
        }
        // Half-way, by the logarithm: a canary that looks worse gets no more until it looks better, or fails.
        let worst = self.log_slowness.map_or(self.log_errors, |log| log.max(self.log_errors));
        (worst > self.log_threshold / 2.0).then(|| {
            format!(
                "{canary} looks worse, which is not certain yet: e-value {} (it fails at {})",
                EValue(worst),
                EValue(self.log_threshold)
            )
        })
    }
}

#[cfg(test)]
#[path = "judge_tests.rs"]
mod tests;
