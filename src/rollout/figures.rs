//! Numbers in the words of a verdict.

use std::fmt;

/// A number for people: `30,690`.
pub(super) struct Thousands(pub(super) u64);

impl fmt::Display for Thousands {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits = self.0.to_string();
        for (place, digit) in digits.chars().enumerate() {
            if place > 0 && (digits.len() - place).is_multiple_of(3) {
                f.write_str(",")?;
            }
            write!(f, "{digit}")?;
        }
        Ok(())
    }
}

/// An e-value by its natural logarithm, for people: `3.2`, `2.1e4`.
pub(super) struct EValue(pub(super) f64);

impl fmt::Display for EValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tens = self.0 / std::f64::consts::LN_10;
        if (-2.0..4.0).contains(&tens) {
            let value = self.0.exp();
            // No more digits than mean something.
            if value >= 100.0 { write!(f, "{value:.0}") } else { write!(f, "{value:.2}") }
        } else {
            let exponent = tens.floor();
            write!(f, "{:.1}e{exponent:.0}", 10_f64.powf(tens - exponent))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_for_people() {
        let shown = [0, 999, 1_000, 30_690, 1_234_567].map(|n| Thousands(n).to_string());
        assert_eq!(shown, ["0", "999", "1,000", "30,690", "1,234,567"]);
        let values = [1.0, 0.05, 20.0, 1_000.0, 21_000.0, 0.000_12].map(|e: f64| EValue(e.ln()).to_string());
        assert_eq!(values, ["1.00", "0.05", "20.00", "1000", "2.1e4", "1.2e-4"]);
        assert_eq!(EValue(5_000.0).to_string(), "3.0e2171", "far beyond what a float holds");
    }
}
