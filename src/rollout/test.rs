//! A sequential test of one question: does the canary do this (fail, be slow) more often than stable?
//!
//! # The bet
//!
//! Let a request go to the canary with the chance `p`. If it goes badly, that is a coin with a known bias: a canary that is no
//! worse gets at most `p` of what goes badly. The test bets on more. For an assumed ratio `r` of the canary's rate to
//! stable's it stakes `λ = c (1 - p)` with `c = p (r - 1) / (1 + p (r - 1))`, and its wealth is multiplied by
//!
//! | the request | by |
//! |---|---|
//! | went badly at the canary | `1 + λ (1 / p - δ)` |
//! | went badly at stable | `1 - λ (1 / (1 - p) + δ)` |
//! | went well | `1 - λ δ` |
//!
//! where `δ` is the margin: how much more of its requests the canary may have go badly. Without a margin these are just the
//! likelihood ratios `r / (1 + p (r - 1))`, `1 / (1 + p (r - 1))` and 1, so that only what goes badly is looked at.
//! If the canary is no worse, each factor is at most 1 on average whatever came before: the wealth is a supermartingale,
//! an e-process, and the chance that it ever passes `1 / α` is at most `α`, however often one looks (Ville's inequality; I.
//! Waudby-Smith and A. Ramdas, "Estimating means of bounded random variables by betting", JRSS B 2024; the sequential tests
//! that M. Lindon et al. described for rollouts, arXiv 2205.14762). Several ratios are bet on at once, with a part of the
//! stake each ([`RATIOS`]): the sum is an e-process too.
//!
//! # The chance of a request of the exact split
//!
//! The split is not a coin: each window of requests has exactly one canary request. Given all that was drawn before, the
//! chance of the next is often 0 or near 1, and a test with that chance learns little. But the test looks at bad requests
//! alone, in any order, and so may know less: of a window with the canary at a uniformly random place, and of its bad requests
//! seen so far, all of them stable's, the next bad one was the canary's with the chance `s / (1 - over - seen)`: `s` its share,
//! `seen` the sum of theirs, and `over` what the last request of the window before had of this one. Once the canary's request
//! is seen, no other of that window can be it. Requests that lie in two windows are left out. A chance that is taken too
//! large only makes the test more careful, so that `over` may be too large, and is where the weight has just changed.
//! Above a half, where windows are a request long, the chance given all before is used.
//!
//! # What it does not see
//!
//! Bad requests are counted when they end. Where the canary fails at once and stable fails, as often, only after a timeout, the
//! canary looks worse for as long as a timeout takes.

use std::collections::{HashMap, HashSet, VecDeque};

use serde::{Deserialize, Serialize};

use crate::model::Placement;

/// The ratios of the canary's rate to stable's that are bet on, and the part of the stake that each gets. More on those that
/// a broken release has: they must be found in seconds.
pub const RATIOS: [(f64, f64); 5] = [(1.3, 0.05), (2.0, 0.15), (6.0, 0.3), (20.0, 0.3), (300.0, 0.2)];

/// How much of its wealth a bet stakes at most.
const MOST: f64 = 0.98;
/// How many windows with a bad request are remembered: requests end in another order than they began in.
const WINDOWS: usize = 8_192;
/// How many users who had a bad request are remembered; those beyond are not judged, rather than counted twice.
const USERS: usize = 262_144;
/// A place on the border of two windows, give or take a rounding.
const EPSILON: f64 = 1e-9;

/// A test of one question, as far as it has come.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Test {
    /// The logarithm of what each bet is worth.
    bets: [f64; RATIOS.len()],
    /// Which bad requests are known of a window. Not saved: a restart begins new windows.
    #[serde(skip)]
    windows: Windows,
    /// Who had a bad request already.
    #[serde(skip)]
    users: HashSet<u64>,
}

impl PartialEq for Test {
    fn eq(&self, other: &Self) -> bool {
        self.bets == other.bets
    }
}

impl Test {
    /// A request went badly: at the canary, or at stable. `margin` is how much more of its requests the canary may have go
    /// badly, 0 to 1.
    pub fn bad(&mut self, canary: bool, at: Placement, margin: f64) {
        let (share, chance) = match at {
            Placement::Split { window, before, share, .. } if share <= 0.5 => {
                match self.windows.chance(window, before, share, canary) {
                    Some(chance) => (share, chance),
                    None => return,
                }
            }
            Placement::Split { before, share, chosen, .. } => match known(before, share, chosen) {
                chance if chance > EPSILON && chance < 1.0 - EPSILON => (chance, chance),
                _ => return,
            },
            // A user counts once: he comes again, and fails again (semantics §5.3).
            Placement::User { point, share } => {
                if !(share > 0.0 && share < 1.0) || self.users.len() >= USERS {
                    return;
                }
                if !self.users.insert(point) {
                    return;
                }
                (share, share)
            }
        };
        for (worth, (ratio, _)) in self.bets.iter_mut().zip(RATIOS) {
            let stake = stake(ratio, share, margin);
            let loss = 1.0 / (1.0 - chance) + margin;
            // A bet that could lose all is not made.
            if stake * loss < 1.0 - EPSILON {
                let factor = if canary { 1.0 + stake * (1.0 / chance - margin) } else { 1.0 - stake * loss };
                *worth += factor.ln();
            }
        }
    }

    /// So many requests were placed at this share of the canary, well or badly: with a margin, each costs a little.
    pub fn passed(&mut self, requests: u64, share: f64, margin: f64) {
        if margin > 0.0 && share > 0.0 && share < 1.0 {
            for (worth, (ratio, _)) in self.bets.iter_mut().zip(RATIOS) {
                *worth += requests as f64 * (1.0 - stake(ratio, share, margin) * margin).ln();
            }
        }
    }

    /// The natural logarithm of the e-value: 0 without evidence, more the more it speaks against the canary.
    #[must_use]
    pub fn log_e_value(&self) -> f64 {
        log_mixture(&self.bets)
    }

    /// What several replicas have seen, as one: independent evidence multiplies, bet by bet (semantics §5.5).
    #[must_use]
    pub fn joined<'a>(tests: impl IntoIterator<Item = &'a Test>) -> f64 {
        let mut bets = [0.0; RATIOS.len()];
        for test in tests {
            for (sum, worth) in bets.iter_mut().zip(test.bets) {
                *sum += worth;
            }
        }
        log_mixture(&bets)
    }
}

/// What is staked on this ratio: see the head of this file.
fn stake(ratio: f64, share: f64, margin: f64) -> f64 {
    let c = share * (ratio - 1.0) / (1.0 + share * (ratio - 1.0));
    c.min(MOST / (1.0 + margin)) * (1.0 - share)
}

fn log_mixture(bets: &[f64; RATIOS.len()]) -> f64 {
    let most = bets.iter().fold(f64::NEG_INFINITY, |most, worth| most.max(*worth));
    let sum: f64 = bets.iter().zip(RATIOS).map(|(worth, (_, part))| part * (worth - most).exp()).sum();
    most + sum.ln()
}

/// The chance of a request of the exact split given all that were drawn before it: the table in `routing::split`.
fn known(before: f64, share: f64, chosen: bool) -> f64 {
    let over = before + share - 1.0;
    match (over < 0.0, chosen) {
        (true, true) => 0.0,
        (true, false) => share / (1.0 - before),
        (false, true) => over / before,
        (false, false) => 1.0,
    }
}

/// The windows that had a bad request of late.
#[derive(Clone, Debug, Default)]
struct Windows {
    seen: HashMap<u32, Window>,
    order: VecDeque<u32>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Window {
    /// The sum of the shares of the bad requests that are known.
    mass: f64,
    /// One of them was the canary's.
    canary: bool,
}

impl Windows {
    /// The chance that a bad request of this window is the canary's, given those that are known; nothing where it says
    /// nothing. From then on it is known too.
    fn chance(&mut self, number: u32, before: f64, share: f64, canary: bool) -> Option<f64> {
        if share <= 0.0 || before + share > 1.0 + EPSILON {
            return None;
        }
        let window = self.seen.entry(number).or_insert_with(|| {
            self.order.push_back(number);
            Window::default()
        });
        let over = before % share;
        let over = if over < EPSILON || share - over < EPSILON { 0.0 } else { over };
        let chance = share / (1.0 - over - window.mass);
        let says = !window.canary && chance > 0.0 && chance < 1.0 - EPSILON;
        window.mass += share;
        window.canary |= canary;
        if self.order.len() > WINDOWS
            && let Some(oldest) = self.order.pop_front()
        {
            self.seen.remove(&oldest);
        }
        says.then_some(chance)
    }
}

#[cfg(test)]
#[path = "test_tests.rs"]
mod tests;
