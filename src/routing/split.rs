//! The exact split (semantics §3.3): which version the next request goes to.
//!
//! # One canary against the rest
//!
//! Let `s_t` be the share asked for at request `t`, `S_t` the sum of the shares so far and `N_t` the number of requests
//! chosen so far. A [`Place`] keeps `f = frac(S)` and one bit `b = N - floor(S)`: whether the request due in this window
//! was chosen ahead of time. The next request is chosen with the probability
//!
//! | | `f + s < 1` | `f + s ≥ 1`: a window ends here |
//! |---|---|---|
//! | `b = 0` | `s / (1 - f)` | 1 |
//! | `b = 1` | 0 | `(f + s - 1) / f` |
//!
//! which keeps `N` at `floor(S)` or `ceil(S)`, so that it is never a whole request away from what was asked, whatever the
//! shares do in between; and which keeps `P(b = 1) = f`, so that each single request is chosen with a probability of
//! exactly its own share, wherever it stands in a client's pattern. This is ordered pivotal sampling (J.-C. Deville and
//! Y. Tillé, "Unequal probability sampling without replacement through a splitting method", Biometrika 85, 1998), run as
//! a stream. Everything is integers: nothing is rounded and nothing drifts.
//!
//! # More than two versions
//!
//! Stable against the rest, then the first of the rest against those after it, and so on; each level has a place of its
//! own. Stable is exact as above, whatever happens. The version at place `k` of those after it is off by less than `k + 1`
//! requests, and by at most one more for each change of the weights among them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::model::{Placement, Share};

/// One, in the units of a place: a millionth has 2^20 of them, so that every [`Share`] is a whole number of them.
const ONE: u64 = (Share::DENOMINATOR as u64) << 20;
/// The lowest bit of the number of the window; below it is room for `ONE`, and for `b`.
const WINDOW: u32 = 42;

/// How far a split has come: outlives the tables that use it.
///
/// The lowest bit is `b`, those above it are `f` in units of `ONE`, and the highest 22 are the number of the window
/// (`floor(S)`, as far as it fits), which no draw depends on: verdicts tell by it which requests were in one window.
#[derive(Debug, Default)]
pub struct Place(AtomicU64);

/// One step of a place: where it stood, and the share that was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Drawn {
    before: u64,
    /// In units of `ONE`.
    share: u64,
}

impl Drawn {
    /// What a verdict has to know of it.
    #[must_use]
    pub fn placement(self) -> Placement {
        let (f, chosen) = parts(self.before);
        Placement::Split {
            window: (self.before >> WINDOW) as u32,
            before: f as f64 / ONE as f64,
            share: self.share as f64 / ONE as f64,
            chosen,
        }
    }
}

/// `f` and `b` of a word.
fn parts(word: u64) -> (u64, bool) {
    ((word & ((1 << WINDOW) - 1)) >> 1, word & 1 == 1)
}

impl Place {
    /// The same place as the other side sees it: for when the canary and the rest change roles.
    pub(super) fn turned(&self) -> Place {
        let word = self.0.load(Ordering::Relaxed);
        let (f, ahead) = parts(word);
        // With n requests so far, S becomes n - S and N becomes n - N. Where f is 0, nothing is chosen ahead.
        Place(AtomicU64::new(if f == 0 { 0 } else { (ONE - f) << 1 | u64::from(!ahead) }))
    }

    /// Whether the next request is one of `share` (in units of `ONE`), and where the place stood before it; takes that step.
    fn step(&self, share: u64, random: u64) -> (bool, u64) {
        let mut before = self.0.load(Ordering::Relaxed);
        loop {
            let (after, chosen) = advance(before, share, random);
            // Relaxed: the word is all there is; nothing else is published through it.
            match self.0.compare_exchange_weak(before, after, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return (chosen, before),
                Err(now) => before = now,
            }
        }
    }
}

/// The word after a request of this share, and whether that request is chosen.
fn advance(word: u64, share: u64, random: u64) -> (u64, bool) {
    let (f, ahead) = parts(word);
    let window = word >> WINDOW;
    let sum = f + share;
    let window = if sum >= ONE { window + 1 } else { window };
    let (f, chosen, ahead) = match (sum.checked_sub(ONE), ahead) {
        (None, true) => (sum, false, true),
        (None, false) => {
            let chosen = below(random, ONE - f) < share;
            (sum, chosen, chosen)
        }
        (Some(over), false) => (over, true, false),
        (Some(over), true) => {
            let chosen = below(random, f) < over;
            (over, chosen, chosen)
        }
    };
    // The number of the window goes round: what is shifted out is lost.
    (window << WINDOW | f << 1 | u64::from(ahead), chosen)
}

/// A whole number from 0 to `n - 1` from 64 random bits; each is as likely as the others to within 2^-64.
fn below(random: u64, n: u64) -> u64 {
    ((u128::from(random) * u128::from(n)) >> 64) as u64
}

/// How the requests of a route are split between its versions.
#[derive(Clone, Debug, Default)]
pub struct Split {
    levels: Vec<Level>,
    /// The version of all that no level keeps; nothing when no version has a share.
    last: Option<usize>,
}

#[derive(Clone, Debug)]
struct Level {
    version: usize,
    /// The share, at this level, of the versions after this one, in units of `ONE`.
    pass_on: u64,
    place: Arc<Place>,
}

impl Split {
    /// A split by these weights: version, weight (in any unit), and the place where that version stands against those
    /// after it. Versions of weight 0 get nothing and draw nothing; a single version with a weight gets all undrawn.
    pub fn new(weights: impl IntoIterator<Item = (usize, u64, Arc<Place>)>) -> Self {
        let weights: Vec<_> = weights.into_iter().filter(|(_, weight, _)| *weight > 0).collect();
        let mut left: u64 = weights.iter().map(|(_, weight, _)| weight).sum();
        let mut split = Split::default();
        for (version, weight, place) in weights {
            let rest = left - weight;
            if rest == 0 {
                split.last = Some(version);
            } else {
                // Exact for the first level, whose whole is a million; to 2^-40 for those below.
                let pass_on = u128::from(rest) * u128::from(ONE) / u128::from(left);
                split.levels.push(Level { version, pass_on: pass_on as u64, place });
            }
            left = rest;
        }
        split
    }

    /// The version of the next request; nothing when no version has a share. `random` gives 64 random bits a call.
    pub fn draw(&self, mut random: impl FnMut() -> u64) -> Option<usize> {
        for level in &self.levels {
            if !level.place.step(level.pass_on, random()).0 {
                return Some(level.version);
            }
        }
        self.last
    }

    /// The same, with the step that decided, where the split is between two versions alone. Where one of them gets all, nothing is
    /// drawn, and its requests are counted all the same.
    pub fn draw_of_two(&self, mut random: impl FnMut() -> u64) -> (Option<usize>, Option<Drawn>) {
        let [level] = self.levels.as_slice() else {
            let whole = |version| Drawn { before: 0, share: if version == 0 { 0 } else { ONE } };
            return (self.draw(random), self.only().map(whole));
        };
        let (passed_on, before) = level.place.step(level.pass_on, random());
        let version = if passed_on { self.last } else { Some(level.version) };
        (version, Some(Drawn { before, share: level.pass_on }))
    }

    /// The version that every request gets, if one does.
    #[must_use]
    pub fn only(&self) -> Option<usize> {
        if self.levels.is_empty() { self.last } else { None }
    }
}

#[cfg(test)]
#[path = "split_tests.rs"]
mod tests;
