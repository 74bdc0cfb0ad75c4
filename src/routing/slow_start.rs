//! A growing share for endpoints that have just come up (semantics §2.5, `slowStart`).

use std::sync::Arc;
use std::time::Duration;

use crate::model::Moment;

use super::standing::Standing;

/// The share that it begins with, as a part of a whole one: with none at all it could not show itself.
const LEAST: f64 = 0.1;
/// How often a draw that fell on an endpoint that is not due yet is repeated.
const REDRAWS: usize = 16;

/// That some endpoints of a version have just come up.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct SlowStart {
    over: Duration,
    /// When all have their whole share.
    until: Moment,
    /// When the one came up that is furthest on; nothing when that one has its whole share.
    first: Option<Moment>,
}

impl SlowStart {
    /// Nothing where all candidates have their whole share, and no request needs to look at the time.
    pub(super) fn of(over: Option<Duration>, candidates: &[Arc<Standing>], now: Moment) -> Option<Self> {
        let over = over.filter(|over| *over > Duration::ZERO)?;
        let young = |standing: &Standing| standing.came_up().filter(|at| now.since(*at) < over);
        let last = candidates.iter().filter_map(|c| young(c)).max()?;
        // `None` is less than any moment.
        let first = candidates.iter().map(|c| young(c)).min().flatten();
        Some(Self { over, until: last.after(over), first })
    }

    /// Whether it still matters.
    pub(super) fn is_on(&self, now: Moment) -> bool {
        now < self.until
    }

    /// Draws until one is due: each is as likely as its share is large. `one` draws a candidate's place from 64 random bits.
    pub(super) fn draw(
        &self,
        candidates: &[Arc<Standing>],
        now: Moment,
        mut one: impl FnMut(u64) -> usize,
        mut random: impl FnMut() -> u64,
    ) -> usize {
        // Where all are new, they are equals.
        let whole = self.part(self.first, now);
        let mut drawn = one(random());
        for _ in 0..REDRAWS {
            let part = candidates.get(drawn).map_or(1.0, |c| self.part(c.came_up(), now));
            // 53 bits are as many as the number has.
            if part >= whole || ((random() >> 11) as f64) < part / whole * (1_u64 << 53) as f64 {
                break;
            }
            drawn = one(random());
        }
        drawn
    }

    /// The part of a whole share that one has that came up then.
    fn part(&self, came_up: Option<Moment>, now: Moment) -> f64 {
        let grown = |at: Moment| now.since(at).as_secs_f64() / self.over.as_secs_f64();
        came_up.map_or(1.0, grown).clamp(LEAST, 1.0)
    }
}
