//! Which endpoint of a version gets a request (semantics §2.5).

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::model::{Balance, Moment};

use super::hash::Ring;
use super::slow_start::SlowStart;
use super::{Endpoint, Standing};

/// Chooses among the endpoints of a version; the turn outlives the tables.
#[derive(Clone, Debug, Default)]
pub(super) struct Balancer {
    pub(super) balance: Balance,
    pub(super) turn: Arc<AtomicUsize>,
    /// Of the candidates, where keys decide.
    pub(super) ring: Option<Arc<Ring>>,
    /// Where some of them have just come up.
    pub(super) slow_start: Option<SlowStart>,
    /// Too many are set aside, so that those get requests too.
    pub(super) all_used: bool,
}

/// What is known of a request that is to be sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Question {
    /// The hash of its key, where it has one.
    pub(super) key: Option<u64>,
    /// When it is; to a few milliseconds.
    pub(super) now: Moment,
}

/// How often a draw that fell on an endpoint already tried, or one that was set aside, is repeated. The table is compiled
/// anew without such endpoints within milliseconds, so that this is for the moment in between.
const REDRAWS: usize = 8;

impl Balancer {
    /// An endpoint that was not tried yet; if there is none, any. Nothing only when there are no endpoints.
    pub(super) fn pick<'a>(
        &self,
        candidates: &'a [Arc<Standing>],
        asked: Question,
        tried: impl Fn(&Endpoint) -> bool,
        mut random: impl FnMut() -> u64,
    ) -> Option<&'a Arc<Standing>> {
        let set_aside = |s: &Standing| !self.all_used && (s.is_ejected() || s.is_unhealthy());
        let unfit = |s: &Standing| s.endpoint().is_refused() || set_aside(s) || tried(s.endpoint());
        if let (Some(ring), Some(key)) = (&self.ring, asked.key) {
            let fit = |at: usize| candidates.get(at).is_some_and(|s| !unfit(s));
            if let Some(picked) = ring.pick(key, fit).and_then(|at| candidates.get(at)) {
                return Some(picked);
            }
        }
        let mut picked = self.draw(candidates, asked.now, &mut random)?;
        for _ in 0..REDRAWS {
            if !unfit(picked) {
                return Some(picked);
            }
            picked = self.draw(candidates, asked.now, &mut random)?;
        }
        // Many are unfit: look at each once, from a random one on.
        let start = index(random(), candidates.len());
        let (before, after) = candidates.split_at(start);
        let in_order = || after.iter().chain(before);
        in_order().find(|s| !unfit(s)).or_else(|| in_order().find(|s| !tried(s.endpoint()))).or(Some(picked))
    }

    fn draw<'a>(
        &self,
        candidates: &'a [Arc<Standing>],
        now: Moment,
        mut random: impl FnMut() -> u64,
    ) -> Option<&'a Arc<Standing>> {
        let all = candidates.len();
        if all < 2 {
            return candidates.first();
        }
        let slow_start = self.slow_start.filter(|s| s.is_on(now));
        if self.balance == Balance::RoundRobin {
            let next = |_| self.turn.fetch_add(1, Ordering::Relaxed) % all;
            let at = slow_start.map_or_else(|| next(0), |s| s.draw(candidates, now, next, random));
            return candidates.get(at);
        }
        let (first, second) = match slow_start {
            // Two that may be the same, so that one with a small part of a share stays one.
            Some(slow_start) => {
                let mut one = || slow_start.draw(candidates, now, |random| index(random, all), &mut random);
                (one(), one())
            }
            None => {
                // Two choices from one word: 32 bits are plenty for either (Mitzenmacher, 2001).
                let random = random();
                let first = index(random << 32, all);
                // The second among the others, so that the two differ.
                let second = index(random & !0xffff_ffff, all - 1);
                (first, if second >= first { second + 1 } else { second })
            }
        };
        let (a, b) = (candidates.get(first)?, candidates.get(second)?);
        Some(if self.prefers(b, a, now) { b } else { a })
    }

    /// Whether the second drawn is better than the first, which has it when they are alike.
    fn prefers(&self, second: &Standing, first: &Standing, now: Moment) -> bool {
        let in_flight = |s: &Standing| s.endpoint().in_flight();
        if self.balance == Balance::PeakEwma {
            let cost = |s: &Standing| s.latency.cost(in_flight(s), now);
            cost(second) < cost(first)
        } else {
            in_flight(second) < in_flight(first)
        }
    }
}

/// A place from 0 to `len - 1`, all about as likely, from 64 random bits.
pub(super) fn index(random: u64, len: usize) -> usize {
    ((u128::from(random) * len as u128) >> 64) as usize
}

#[cfg(test)]
#[path = "balance_tests.rs"]
mod tests;
