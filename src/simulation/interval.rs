//! How sure a count of simulated rollouts makes of a chance.

use serde::Serialize;

/// A chance between two bounds, each 0 to 1.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Interval {
    /// The lower bound.
    pub low: f64,
    /// The upper bound.
    pub high: f64,
}

/// The bounds between which the chance of an event lies that happened `hits` times of `all`: wrong with at most `doubt` (0 to
/// 1), half of it on each side (C. J. Clopper and E. S. Pearson, Biometrika 26, 1934).
#[must_use]
pub fn exact_interval(hits: u64, all: u64, doubt: f64) -> Interval {
    let hits = hits.min(all);
    let low = if hits == 0 { 0.0 } else { 1.0 - highest(all - hits, all, doubt / 2.0) };
    let high = if hits == all { 1.0 } else { highest(hits, all, doubt / 2.0) };
    Interval { low, high }
}

/// The chance at which no more than `hits` of `all` have the chance `doubt`.
fn highest(hits: u64, all: u64, doubt: f64) -> f64 {
    let (mut low, mut high) = (0.0_f64, 1.0_f64);
    for _ in 0..60 {
        let middle = f64::midpoint(low, high);
        if at_most(hits, all, middle) > doubt { low = middle } else { high = middle }
    }
    high
}

/// The chance that an event of this chance happens at most `hits` times of `all`.
fn at_most(hits: u64, all: u64, chance: f64) -> f64 {
    let (ln_hit, ln_miss) = (chance.ln(), (-chance).ln_1p());
    // In logarithms: the first terms may be smaller than a float can be.
    let mut term = all as f64 * ln_miss;
    let mut sum = term.exp();
    for k in 0..hits {
        term += ((all - k) as f64 / (k + 1) as f64).ln() + ln_hit - ln_miss;
        sum += term.exp();
    }
    sum.min(1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_are_those_of_the_tables() {
        // From tables of exact limits at 95 %.
        for (hits, all, low, high) in [
            (0, 10, 0.0, 0.3085),
            (1, 10, 0.0025, 0.4450),
            (5, 10, 0.1871, 0.8129),
            (10, 10, 0.6915, 1.0),
            (10, 100, 0.0490, 0.1762),
        ] {
            let found = exact_interval(hits, all, 0.05);
            assert!(
                (found.low - low).abs() < 1e-4 && (found.high - high).abs() < 1e-4,
                "{hits} of {all}: {found:?}"
            );
        }
        let rule_of_three = exact_interval(0, 1_000, 0.05);
        assert!((rule_of_three.high - 0.003_682).abs() < 1e-5, "{rule_of_three:?}");
        assert!(exact_interval(3_000, 100_000, 0.05).low > 0.0289, "far from what a float holds");
        assert_eq!(exact_interval(0, 0, 0.05), Interval { low: 0.0, high: 1.0 });
    }
}
