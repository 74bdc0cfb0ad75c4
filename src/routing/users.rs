//! How many different users a version has had, about: without a list of them.
//!
//! HyperLogLog (P. Flajolet et al., 2007) with the estimator of O. Ertl ("New cardinality estimation algorithms for HyperLogLog
//! sketches", arXiv:1702.01284, algorithm 6), which needs no tables and is not biased for few users either. A kilobyte for each
//! version, whatever the number of users, and an estimate that is off by 3.3 % (one standard deviation). Linear counting would
//! need a bit for about each user; a list of hashes as much as there are users.

use std::sync::atomic::{AtomicU8, Ordering};

use super::hash::mix;

/// The bits of a hash that tell its register.
const BITS: u32 = 10;
const REGISTERS: usize = 1 << BITS;
/// The most that a register can hold.
const LAST: usize = (u64::BITS - BITS + 1) as usize;

/// An estimate of how many different users there were.
pub(super) struct Users([AtomicU8; REGISTERS]);

impl Default for Users {
    fn default() -> Self {
        Self(std::array::from_fn(|_| AtomicU8::new(0)))
    }
}

impl Users {
    /// One was there, again or for the first time: by its point.
    pub(super) fn add(&self, point: u64) {
        // The points of one version lie beside each other: they are spread anew.
        let hash = mix(point ^ 0x5bd1_e995_9d1b_58d3);
        let register = self.0.get((hash >> (u64::BITS - BITS)) as usize);
        // How many zeros the rest begins with, and one; the bit put after it is the bound.
        let rank = ((hash << BITS) | (1 << (BITS - 1))).leading_zeros() as u8 + 1;
        if let Some(register) = register
            && register.load(Ordering::Relaxed) < rank
        {
            register.fetch_max(rank, Ordering::Relaxed);
        }
    }

    /// How many there were, about.
    pub(super) fn estimate(&self) -> f64 {
        let mut counts = [0_u32; LAST + 1];
        for register in &self.0 {
            if let Some(count) = counts.get_mut(usize::from(register.load(Ordering::Relaxed))) {
                *count += 1;
            }
        }
        let part = |count: u32| f64::from(count) / REGISTERS as f64;
        let [none, between @ .., full] = counts;
        if none as usize == REGISTERS {
            return 0.0;
        }
        let mut sum = tau(1.0 - part(full));
        for count in between.iter().rev() {
            sum = 0.5 * (sum + part(*count));
        }
        sum += sigma(part(none));
        REGISTERS as f64 / (2.0 * std::f64::consts::LN_2 * sum)
    }
}

impl std::fmt::Debug for Users {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Users").field(&self.estimate()).finish()
    }
}

/// The sum of `x^(2^k) 2^(k-1)` over all k, and x: the part of the registers that are empty. Less than 1.
fn sigma(mut x: f64) -> f64 {
    let (mut weight, mut sum) = (1.0, x);
    loop {
        x *= x;
        let before = sum;
        sum += x * weight;
        weight += weight;
        if sum == before {
            return sum;
        }
    }
}

/// A third of `1 - x - the sum of (1 - x^(2^-k))^2 2^-k` over all k: the part of the registers that are full.
fn tau(mut x: f64) -> f64 {
    if x <= 0.0 || x >= 1.0 {
        return 0.0;
    }
    let (mut weight, mut sum) = (1.0, 1.0 - x);
    loop {
        x = x.sqrt();
        let before = sum;
        weight *= 0.5;
        sum -= (1.0 - x).powi(2) * weight;
        if sum == before {
            return sum / 3.0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::hash_key;
    use super::*;

    fn estimate(users: impl Iterator<Item = u64>) -> f64 {
        let seen = Users::default();
        users.for_each(|user| seen.add(user));
        seen.estimate()
    }

    #[test]
    fn counts_each_user_once_to_a_few_percent() {
        assert_eq!(estimate(std::iter::empty()), 0.0);
        for (count, off) in
            [(1_u64, 0.01), (10, 0.1), (100, 0.1), (2_500, 0.1), (10_000, 0.1), (300_000, 0.1)]
        {
            let users = (0..count).chain(0..count.min(1_000)).map(|n| hash_key(&n.to_le_bytes()));
            let found = estimate(users);
            assert!((found / count as f64 - 1.0).abs() < off, "{found} of {count}");
        }
    }

    /// 3.3 % is the standard error: over many sets of users, the error is that and its mean is 0.
    #[test]
    fn is_as_good_as_it_says_and_not_biased() {
        for count in [50_u64, 700, 3_000, 20_000] {
            let sets = 100;
            let error = |set: u64| {
                let users = (0..count).map(|n| hash_key(&(set << 32 | n).to_le_bytes()));
                estimate(users) / count as f64 - 1.0
            };
            let errors: Vec<f64> = (0..sets).map(error).collect();
            let mean = errors.iter().sum::<f64>() / sets as f64;
            let deviation = (errors.iter().map(|e| e * e).sum::<f64>() / sets as f64).sqrt();
            assert!(mean.abs() < 0.013 && deviation < 0.043, "{count}: {mean} {deviation}");
        }
    }

    #[test]
    fn the_users_of_one_short_interval_are_told_apart() {
        // All points of a version with a millionth of the line.
        let points = (0..5_000_u64).map(|n| hash_key(&n.to_le_bytes()) / 1_000_000);
        let found = estimate(points);
        assert!((found / 5_000.0 - 1.0).abs() < 0.1, "{found}");
    }

    #[test]
    fn no_hash_is_beyond_the_registers() {
        for point in 0..100_000 {
            assert!(estimate(std::iter::once(point)).is_finite());
        }
    }
}
