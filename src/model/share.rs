//! A part of the requests, in millionths: the finest step that Serinus can ask for.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A part of the requests, from none to all, in steps of one in a million (0.0001 %).
///
/// People write and read it as a percentage: `0.1` is one request in a thousand.
///
/// ```
/// use serinus::model::Share;
/// let share: Share = "0.1".parse()?;
/// assert_eq!(share.millionths(), 1_000);
/// assert_eq!(share.to_string(), "0.1");
/// assert!("0.00001".parse::<Share>().is_err(), "finer than a millionth is refused, not rounded");
/// # Ok::<(), serinus::model::ShareError>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Share(u32);

/// Why a text or a number is not a [`Share`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ShareError {
    /// Not a decimal number.
    #[error("`{0}` is not a percentage: write a decimal from 0 to 100, like 0.1")]
    NotANumber(String),
    /// Below 0 or above 100.
    #[error("{0} is not between 0 and 100 percent")]
    OutOfRange(String),
    /// More than four decimals of a percent.
    #[error("{0} percent is finer than one in a million: use at most four decimals, like 0.0001")]
    TooFine(String),
}

impl Share {
    /// No request.
    pub const ZERO: Share = Share(0);
    /// Every request.
    pub const ALL: Share = Share(Self::DENOMINATOR);
    /// How many parts the whole has.
    pub const DENOMINATOR: u32 = 1_000_000;

    /// A share of `millionths`, or nothing when that is more than the whole.
    #[must_use]
    pub const fn from_millionths(millionths: u32) -> Option<Share> {
        if millionths <= Self::DENOMINATOR { Some(Share(millionths)) } else { None }
    }

    /// A share from a percentage, as JSON and YAML carry it.
    ///
    /// # Errors
    /// When it is not a number from 0 to 100 with at most four decimals.
    pub fn from_percent(percent: f64) -> Result<Share, ShareError> {
        // The shortest text that reads back as this number is what its author wrote.
        percent.to_string().parse()
    }

    /// How many of a million requests.
    #[must_use]
    pub const fn millionths(self) -> u32 {
        self.0
    }

    /// As a percentage from 0 to 100.
    #[must_use]
    pub fn percent(self) -> f64 {
        f64::from(self.0) / 10_000.0
    }

    /// As a ratio from 0 to 1.
    #[must_use]
    pub fn ratio(self) -> f64 {
        f64::from(self.0) / f64::from(Self::DENOMINATOR)
    }

    /// What is left of the whole.
    #[must_use]
    pub const fn rest(self) -> Share {
        Share(Self::DENOMINATOR - self.0)
    }

    /// The sum, or nothing when it is more than the whole.
    #[must_use]
    pub const fn checked_add(self, other: Share) -> Option<Share> {
        Share::from_millionths(self.0 + other.0)
    }
}

impl FromStr for Share {
    type Err = ShareError;

    fn from_str(text: &str) -> Result<Share, ShareError> {
        let not_a_number = || ShareError::NotANumber(text.chars().take(40).collect());
        let (whole, decimals) = text.split_once('.').unwrap_or((text, ""));
        let negative = whole.starts_with('-');
        let whole = whole.strip_prefix(['+', '-']).unwrap_or(whole);
        let digits = |part: &str| part.bytes().all(|b| b.is_ascii_digit());
        if (whole.is_empty() && decimals.is_empty()) || !digits(whole) || !digits(decimals) {
            return Err(not_a_number());
        }
        let decimals = decimals.trim_end_matches('0');
        let whole = whole.trim_start_matches('0');
        let out_of_range = || ShareError::OutOfRange(text.chars().take(40).collect());
        if (negative && !(whole.is_empty() && decimals.is_empty())) || whole.len() > 3 {
            return Err(out_of_range());
        }
        if decimals.len() > 4 {
            return Err(ShareError::TooFine(text.chars().take(40).collect()));
        }
        let number = |part: &str| if part.is_empty() { Ok(0) } else { part.parse::<u32>() };
        let whole = number(whole).map_err(|_| not_a_number())?;
        let decimals = number(&format!("{decimals:0<4}")).map_err(|_| not_a_number())?;
        Share::from_millionths(whole * 10_000 + decimals).ok_or_else(out_of_range)
    }
}

impl fmt::Display for Share {
    /// The percentage with no more decimals than it needs, without the sign.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.percent().to_string())
    }
}

impl Serialize for Share {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        // Whole percents as integers: `5`, not `5.0`.
        if self.0.is_multiple_of(10_000) {
            serializer.serialize_u32(self.0 / 10_000)
        } else {
            serializer.serialize_f64(self.percent())
        }
    }
}

impl<'de> Deserialize<'de> for Share {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Share, D::Error> {
        Share::from_percent(f64::deserialize(deserializer)?).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_percentages() {
        let share = |text: &str| text.parse::<Share>().map(Share::millionths).map_err(|e| e.to_string());
        for (text, millionths) in [
            ("0", 0),
            ("-0", 0),
            ("0.0001", 1),
            ("0.1", 1_000),
            (".5", 5_000),
            ("5.", 50_000),
            ("1", 10_000),
            ("99.9", 999_000),
            ("99.9999", 999_999),
            ("099.50000", 995_000),
            ("100", 1_000_000),
            ("100.000", 1_000_000),
        ] {
            assert_eq!(share(text), Ok(millionths), "{text}");
        }
        for text in ["", ".", "-", "1e-3", "NaN", "inf", "0x1", "1,5", "1 ", "5%", "١"] {
            assert!(share(text).is_err_and(|e| e.contains("is not a percentage")), "{text}");
        }
        for text in ["100.0001", "101", "-1", "-0.0001", "4294967296"] {
            assert!(share(text).is_err_and(|e| e.contains("not between 0 and 100")), "{text}");
        }
        for text in ["0.00001", "99.99999", "0.10001"] {
            assert!(share(text).is_err_and(|e| e.contains("finer than one in a million")), "{text}");
        }
    }

    #[test]
    fn numbers_and_texts_agree_for_every_share() {
        for millionths in (0..=1_000_000).step_by(7) {
            let share = Share::from_millionths(millionths).unwrap();
            assert_eq!(Share::from_percent(share.percent()), Ok(share));
            assert_eq!(share.to_string().parse(), Ok(share));
            let json = serde_json::to_string(&share).unwrap();
            assert_eq!(serde_json::from_str::<Share>(&json).unwrap(), share);
        }
        assert!(Share::from_percent(f64::NAN).is_err());
        assert!(Share::from_percent(f64::INFINITY).is_err());
        assert!(Share::from_percent(1e-300).is_err());
    }
}
