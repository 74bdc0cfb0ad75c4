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
//! # The chance
//!
//! A request of the exact split goes to the canary with the chance of its share, and what is known of others near it changes
//! that: `windows` has the chance given all bad requests that were looked at before, in whatever order they ended. That is what
//! makes each bet fair. Where the chance is taken too large, the test is only more careful: for `λ ≥ 0` the factors above are
//! then less on average, as `p / p' ≤ 1` and `(1 - p) / (1 - p') ≥ 1`. So is a canary that is better than stable: it gets less of
//! what goes badly than its chance.
//!
//! # The margin
//!
//! Each request of a route is charged `1 - λ δ` once it has ended, and a bad one its `- λ δ` once more. That pays for what is not
//! known of requests that went well: where the canary may fail more often, they are the less likely its own, and the others
//! the more. It pays for more than that as long as no more than half of all requests go badly. A bad request that was placed at
//! another share than that in force stakes no more than what requests are charged for now.
//!
//! # Users
//!
//! Where users are dealt out, not requests, a user is one coin: what he meets first, once (semantics §5.3). All replicas meet the
//! same users, so that what they have seen of them does not multiply: the most convincing replica speaks for all, and its
//! e-value is divided by the number of replicas.
//!
//! # What it does not see
//!
//! Bad requests are counted when they end. Where the canary fails at once and stable fails, as often, only after a timeout, the
//! canary looks worse for as long as a timeout takes. After a restart, a user who had a bad request before may count once more.

use std::collections::HashSet;

use serde::{Deserialize, Serialize};

use crate::model::Placement;

use super::windows::{EPSILON, Windows};

/// The ratios of the canary's rate to stable's that are bet on, and the part of the stake that each gets. More on those that
/// a broken release has: they must be found in seconds.
pub const RATIOS: [(f64, f64); 5] = [(1.3, 0.05), (2.0, 0.15), (6.0, 0.27), (20.0, 0.35), (300.0, 0.18)];

/// How much of its wealth a bet stakes at most.
const MOST: f64 = 0.98;
/// How many users who had a bad request are remembered; those beyond are not judged, rather than counted twice.
const USERS: usize = 262_144;

/// The logarithm of a bet's worth is not beyond this: e to the 10^9.
const PLAUSIBLE: f64 = 1e9;

/// A test of one question, as far as it has come.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Test {
    /// The logarithm of what each bet is worth.
    bets: [f64; RATIOS.len()],
    /// The same of users.
    #[serde(default)]
    by_user: [f64; RATIOS.len()],
    /// The share in force.
    #[serde(skip)]
    share: f64,
    /// Which bad requests are known of a window. Not saved: a restart begins new windows.
    #[serde(skip)]
    windows: Windows,
    /// Who had a bad request already.
    #[serde(skip)]
    users: HashSet<u64>,
}

impl PartialEq for Test {
    fn eq(&self, other: &Self) -> bool {
        self.bets == other.bets && self.by_user == other.by_user
    }
}

impl Test {
    /// What was seen at another time, by the same replica, besides. A user who was met both times may count twice.
    pub fn add(&mut self, other: &Test) {
        let mine = self.bets.iter_mut().chain(&mut self.by_user);
        for (worth, more) in mine.zip(other.bets.iter().chain(&other.by_user)) {
            *worth += more;
        }
    }

    /// Whether each bet's worth is one that requests can bring about: more than that they would need years for.
    #[must_use]
    pub fn is_plausible(&self) -> bool {
        self.bets.iter().chain(&self.by_user).all(|worth| worth.is_finite() && worth.abs() < PLAUSIBLE)
    }

    /// A request went badly: at the canary, or at stable. `margin` is how much more of its requests the canary may have go
    /// badly, 0 to 1.
    pub fn bad(&mut self, canary: bool, at: Placement, margin: f64) {
        let (share, chance, bets) = match at {
            Placement::Split { window, before, share, .. } => {
                let Some(chance) = self.windows.chance(window, before, share, canary) else { return };
                (share, chance, &mut self.bets)
            }
            // A user counts once: he comes again, and fails again (semantics §5.3).
            Placement::User { point, share } => {
                let says = share > EPSILON && share < 1.0 - EPSILON && self.users.len() < USERS;
                if !says || !self.users.insert(point) {
                    return;
                }
                (share, share, &mut self.by_user)
            }
        };
        for (worth, (ratio, _)) in bets.iter_mut().zip(RATIOS) {
            let mut stake = stake(ratio, share, margin);
            if margin > 0.0 {
                stake = stake.min(self::stake(ratio, self.share, margin));
            }
            let loss = 1.0 / (1.0 - chance) + margin;
            // A bet that could lose all is not made.
            if stake * loss < 1.0 - EPSILON {
                let factor = if canary { 1.0 + stake * (1.0 / chance - margin) } else { 1.0 - stake * loss };
                *worth += factor.ln();
            }
        }
    }

    /// So many requests ended while this share of the canary was in force, well or badly: with a margin, each costs a little.
    pub fn passed(&mut self, requests: u64, share: f64, margin: f64) {
        self.share = share;
        if margin > 0.0 && share > 0.0 && share < 1.0 {
            for (worth, (ratio, _)) in self.bets.iter_mut().zip(RATIOS) {
                *worth += requests as f64 * (1.0 - stake(ratio, share, margin) * margin).ln();
            }
        }
    }

    /// The natural logarithm of the e-value: 0 without evidence, more the more it speaks against the canary.
    #[must_use]
    pub fn log_e_value(&self) -> f64 {
        Self::joined([self])
    }

    /// What several replicas have seen, as one: independent evidence multiplies, bet by bet (semantics §5.5); that of users, who
    /// come to all of them, does not.
    #[must_use]
    pub fn joined<'a>(tests: impl IntoIterator<Item = &'a Test> + Clone) -> f64 {
        let mut bets = [0.0; RATIOS.len()];
        let mut replicas = 0_u32;
        for test in tests.clone() {
            replicas += 1;
            for (sum, worth) in bets.iter_mut().zip(test.bets) {
                *sum += worth;
            }
        }
        let most = |most: Option<f64>, test: &Test| {
            let with_users: [f64; RATIOS.len()] = std::array::from_fn(|i| {
                bets.get(i).copied().unwrap_or_default() + test.by_user.get(i).copied().unwrap_or_default()
            });
            let log = log_mixture(&with_users);
            Some(most.map_or(log, |most| most.max(log)))
        };
        let with_users = |test: &&Test| test.by_user.iter().any(|worth| *worth != 0.0);
        match tests.into_iter().filter(with_users).fold(None, most) {
            // A replica that has seen no user may be the most convincing one.
            Some(log) => log.max(log_mixture(&bets)) - f64::from(replicas.max(1)).ln(),
            None => log_mixture(&bets),
        }
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

#[cfg(test)]
#[path = "test_tests.rs"]
mod tests;
