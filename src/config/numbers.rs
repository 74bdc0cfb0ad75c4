//! Values with bounds: whole numbers, lengths of time, sizes. Their schema and every error about them say the bounds.

use std::fmt::Display;
use std::time::Duration;

use serde_json::json;

use super::errors::{Errors, Place, shorten};
use super::input::{Input, read_text, wrong_type};
use super::values::duration;
use super::yaml::{Node, Value};
use crate::model::Share;

/// A whole number from `MIN` to `MAX`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Whole<T, const MIN: u64, const MAX: u64>(pub(super) T);

/// The port of a server.
pub(super) type Port = Whole<u16, 1, 65_535>;
/// A part of something, in whole percent.
pub(super) type Percent = Whole<u8, 0, 100>;

/// A length of time from `MIN` to `MAX` milliseconds.
#[derive(Clone, Copy, Debug)]
pub(super) struct Within<const MIN: u64, const MAX: u64>(pub(super) Duration);

/// A limit on time.
pub(super) type Limit = Within<1, DAY>;
/// A pause between two things that are done again and again.
pub(super) type Pause = Within<100, DAY>;

const DAY: u64 = 24 * 3_600_000;

/// A number of bytes from `MIN` to `MAX`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Size<T, const MIN: u64, const MAX: u64>(pub(super) T);

impl<T: TryFrom<u64>, const MIN: u64, const MAX: u64> Input for Whole<T, MIN, MAX> {
    fn schema() -> serde_json::Value {
        json!({"title": format!("number, {MIN} to {MAX}"), "type": "integer", "minimum": MIN, "maximum": MAX})
    }

    fn read(node: &Node, place: &Place, errors: &mut Errors) -> Option<Self> {
        let wanted = format!("a whole number from {MIN} to {MAX}");
        let number = match &node.value {
            Value::Number(number) => {
                whole(number, &wanted).and_then(|n| bounded::<T, MIN, MAX>(n, n, &wanted))
            }
            Value::Text(text) if is_whole(text) => Err(in_quotes(text)),
            Value::Text(text) if text.strip_suffix('%').is_some_and(|n| is_whole(n.trim_end())) => {
                Err(percent_sign(text, "20"))
            }
            Value::Text(_)
            | Value::Bool(_)
            | Value::List(_)
            | Value::Map(_)
            | Value::Null
            | Value::Refused(_) => {
                wrong_type(node, &wanted, place, errors);
                return None;
            }
        };
        number.map(Self).map_err(|message| errors.add(place, message)).ok()
    }
}

impl<const MIN: u64, const MAX: u64> Input for Within<MIN, MAX> {
    fn schema() -> serde_json::Value {
        let title = format!("duration, {} to {}", time(MIN), time(MAX));
        json!({"title": title, "type": "string", "pattern": super::values::DURATION})
    }

    fn read(node: &Node, place: &Place, errors: &mut Errors) -> Option<Self> {
        read_text(node, "a duration with its unit, like 250ms, 10s, 5m or 1h", place, errors, |text| {
            let length = duration(text)?;
            let wanted = format!("a duration from {} to {}", time(MIN), time(MAX));
            let millis = u64::try_from(length.as_millis()).unwrap_or(u64::MAX);
            let fits = bounded::<u64, MIN, MAX>(millis, text, &wanted).map(|_| Self(length));
            fits.map_err(|e| e.replace("too small", "too short").replace("too large", "too long"))
        })
    }
}

impl<T: TryFrom<u64>, const MIN: u64, const MAX: u64> Input for Size<T, MIN, MAX> {
    fn schema() -> serde_json::Value {
        json!({
            "title": format!("size, {} to {}", bytes(MIN), bytes(MAX)),
            "anyOf": [
                {"type": "integer", "minimum": MIN, "maximum": MAX},
                {"type": "string", "pattern": "^[0-9]{1,15}(KiB|MiB|GiB|TiB)$"},
            ],
        })
    }

    fn read(node: &Node, place: &Place, errors: &mut Errors) -> Option<Self> {
        let wanted = format!("a size from {} to {}", bytes(MIN), bytes(MAX));
        let size = match &node.value {
            Value::Number(number) => {
                whole(number, &wanted).and_then(|n| bounded::<T, MIN, MAX>(n, n, &wanted))
            }
            Value::Text(text) if is_whole(text) => Err(in_quotes(text)),
            Value::Text(text) => {
                size(text, &wanted).and_then(|n| bounded::<T, MIN, MAX>(n, shorten(text, 40), &wanted))
            }
            Value::Bool(_) | Value::List(_) | Value::Map(_) | Value::Null | Value::Refused(_) => {
                wrong_type(node, &wanted, place, errors);
                return None;
            }
        };
        size.map(Self).map_err(|message| errors.add(place, message)).ok()
    }
}

/// `number` as it is used, or that it is out of bounds.
fn bounded<T: TryFrom<u64>, const MIN: u64, const MAX: u64>(
    number: u64,
    shown: impl Display,
    wanted: &str,
) -> Result<T, String> {
    if number < MIN {
        return Err(format!("{shown} is too small: write {wanted}"));
    }
    let fits = Some(number).filter(|number| *number <= MAX).and_then(|number| T::try_from(number).ok());
    fits.ok_or_else(|| format!("{shown} is too large: write {wanted}"))
}

fn is_whole(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit())
}

/// A number of the core schema as a whole one; what does not fit is larger than every bound.
fn whole(text: &str, wanted: &str) -> Result<u64, String> {
    let negative = text.strip_prefix('-').is_some_and(is_whole);
    if is_whole(text) {
        Ok(text.parse().unwrap_or(u64::MAX))
    } else if negative {
        Err(format!("{} is too small: write {wanted}", shorten(text, 40)))
    } else {
        Err(format!("{} is not a whole number: write {wanted}", shorten(text, 40)))
    }
}

fn percent_sign(text: &str, like: &str) -> String {
    format!("`{}` has a percent sign: write the number alone, like {like}", shorten(text, 40))
}

fn in_quotes(text: &str) -> String {
    format!("`{}` is in quotes: write the number without them", shorten(text, 40))
}

/// The units of sizes, each 1024 of the one before it.
const SIZES: [(&str, u32); 4] = [("KiB", 10), ("MiB", 20), ("GiB", 30), ("TiB", 40)];

fn size(text: &str, wanted: &str) -> Result<u64, String> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    if (1..=15).contains(&digits)
        && let Some((_, shift)) = SIZES.iter().find(|(name, _)| *name == unit)
        && let Ok(number) = number.parse::<u64>()
    {
        return Ok(number.saturating_mul(1 << shift));
    }
    let shown = shorten(text, 40);
    // `64K`, `64kB`, `64Ki`, `64 kb`: which of the two meanings is not guessed in silence.
    let letter = unit.trim_start().chars().next().map(|c| c.to_ascii_uppercase());
    let near = SIZES.iter().find(|(name, _)| digits > 0 && name.chars().next() == letter);
    Err(match near {
        Some((name, _)) => format!("`{shown}` is not a size: did you mean {}{name}?", shorten(number, 15)),
        None => format!("`{shown}` is not a size: write {wanted}, in bytes or with KiB, MiB, GiB or TiB"),
    })
}

/// A size as it is written in a config.
pub(super) fn bytes(size: u64) -> String {
    let fits = |(_, shift): &&(&str, u32)| size > 0 && size.is_multiple_of(1 << shift);
    match SIZES.iter().rev().find(fits) {
        Some((unit, shift)) => format!("{}{unit}", size >> shift),
        None => size.to_string(),
    }
}

/// Milliseconds as they are written in a config.
fn time(millis: u64) -> String {
    let units = [("h", 3_600_000), ("m", 60_000), ("s", 1_000)];
    match units.iter().find(|(_, unit)| millis > 0 && millis.is_multiple_of(*unit)) {
        Some((name, unit)) => format!("{}{name}", millis / unit),
        None => format!("{millis}ms"),
    }
}

/// A status that a redirect may have.
#[derive(Clone, Copy, Debug)]
pub(super) struct RedirectStatus(pub(super) u16);

impl Input for RedirectStatus {
    fn schema() -> serde_json::Value {
        json!({"title": "301 | 302 | 307 | 308", "enum": [301, 302, 307, 308]})
    }

    fn read(node: &Node, place: &Place, errors: &mut Errors) -> Option<Self> {
        status(node, "one of 301, 302, 307, 308", |n| matches!(n, 301 | 302 | 307 | 308), place, errors)
            .map(Self)
    }
}

/// A status after which a request may be tried again.
#[derive(Clone, Copy, Debug)]
pub(super) struct RetryStatus(pub(super) u16);

impl Input for RetryStatus {
    fn schema() -> serde_json::Value {
        json!({
            "title": "429, or 500 to 599",
            "anyOf": [{"const": 429}, {"type": "integer", "minimum": 500, "maximum": 599}],
        })
    }

    fn read(node: &Node, place: &Place, errors: &mut Errors) -> Option<Self> {
        status(node, "429, or 500 to 599", |n| matches!(n, 429 | 500..=599), place, errors).map(Self)
    }
}

fn status(
    node: &Node,
    wanted: &str,
    fits: fn(u16) -> bool,
    place: &Place,
    errors: &mut Errors,
) -> Option<u16> {
    let message = match &node.value {
        Value::Number(number) => match number.parse().ok().filter(|n| fits(*n)) {
            Some(status) => return Some(status),
            None => format!("{} cannot be used here: write {wanted}", shorten(number, 40)),
        },
        Value::Text(text) if is_whole(text) => in_quotes(text),
        Value::Text(_)
        | Value::Bool(_)
        | Value::List(_)
        | Value::Map(_)
        | Value::Null
        | Value::Refused(_) => {
            wrong_type(node, &format!("a status, {wanted}"), place, errors);
            return None;
        }
    };
    errors.add(place, message);
    None
}

impl Input for Share {
    fn schema() -> serde_json::Value {
        // Not `multipleOf`: 0.0001 has no exact binary form, and validators disagree about it.
        json!({"title": "percent", "type": "number", "minimum": 0, "maximum": 100})
    }

    fn read(node: &Node, place: &Place, errors: &mut Errors) -> Option<Self> {
        let with_point = |text: &str| text.replacen(',', ".", 1);
        match &node.value {
            // The text, not a float: a share is exact.
            Value::Number(number) => number.parse().map_err(|e: crate::model::ShareError| e.to_string()),
            Value::Text(text) if text.parse::<Share>().is_ok() => Err(in_quotes(text)),
            Value::Text(text) if text.trim_end().ends_with('%') => Err(percent_sign(text, "0.1")),
            Value::Text(text) if text.contains(',') && with_point(text).parse::<Share>().is_ok() => {
                let point = shorten(&with_point(text), 40);
                Err(format!("`{}` has a comma: write it with a point, {point}", shorten(text, 40)))
            }
            Value::Text(_)
            | Value::Bool(_)
            | Value::List(_)
            | Value::Map(_)
            | Value::Null
            | Value::Refused(_) => {
                wrong_type(node, "a percentage: a number from 0 to 100, like 0.1", place, errors);
                return None;
            }
        }
        .map_err(|message| errors.add(place, message))
        .ok()
    }
}

/// A chance: more than 0, less than 1.
#[derive(Clone, Copy, Debug)]
pub(super) struct Chance(pub(super) f64);

impl Input for Chance {
    fn schema() -> serde_json::Value {
        let title = "chance, more than 0 and less than 1";
        json!({"title": title, "type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1})
    }

    fn read(node: &Node, place: &Place, errors: &mut Errors) -> Option<Self> {
        let message = match &node.value {
            Value::Number(number) => match number.parse::<f64>() {
                // The least that a float tells from nothing would never be reached.
                Ok(chance) if (1e-12..1.0).contains(&chance) => return Some(Self(chance)),
                _ => format!(
                    "{} is not a chance that can be used: write a number above 0 and below 1, like 0.001",
                    shorten(number, 40)
                ),
            },
            Value::Text(text) if text.parse::<f64>().is_ok() => in_quotes(text),
            Value::Text(text) if text.trim_end().ends_with('%') => {
                format!(
                    "`{}` has a percent sign: write the chance itself, like 0.001 for 0.1 %",
                    shorten(text, 40)
                )
            }
            Value::Text(_)
            | Value::Bool(_)
            | Value::List(_)
            | Value::Map(_)
            | Value::Null
            | Value::Refused(_) => {
                wrong_type(node, "a chance: a number above 0 and below 1, like 0.001", place, errors);
                return None;
            }
        };
        errors.add(place, message);
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_binary_units() {
        for (text, size_is) in [
            ("0KiB", 0),
            ("64KiB", 65_536),
            ("10MiB", 10_485_760),
            ("1GiB", 1 << 30),
            ("1TiB", 1 << 40),
            ("999999999999999TiB", u64::MAX),
        ] {
            assert_eq!(size(text, ""), Ok(size_is), "{text}");
        }
        for (text, needle) in [
            ("64kB", "did you mean 64KiB?"),
            ("64K", "did you mean 64KiB?"),
            ("64 kib", "did you mean 64KiB?"),
            ("10MB", "did you mean 10MiB?"),
            ("1.5MiB", "in bytes or with KiB"),
            ("MiB", "in bytes or with KiB"),
            ("much", "in bytes or with KiB"),
            ("", "in bytes or with KiB"),
            ("-1KiB", "in bytes or with KiB"),
            ("٥KiB", "in bytes or with KiB"),
            ("1000000000000000KiB", "did you mean"),
        ] {
            let error = size(text, "a size").unwrap_err();
            assert!(error.contains(needle), "{text}: {error}");
        }
    }

    #[test]
    fn bounds_are_shown_as_they_are_written() {
        assert_eq!(
            [0, 1, 1_024, 1_536, 10 << 20, 1 << 40].map(bytes),
            ["0", "1", "1KiB", "1536", "10MiB", "1TiB"]
        );
        assert_eq!([0, 1, 100, 1_000, 90_000, DAY].map(time), ["0ms", "1ms", "100ms", "1s", "90s", "24h"]);
        for size_is in [0, 1, 1_000, 1 << 10, 3 << 20, u64::MAX] {
            let text = bytes(size_is);
            let read = if is_whole(&text) { text.parse().ok() } else { size(&text, "").ok() };
            assert_eq!(read, Some(size_is), "{text}");
        }
    }

    #[test]
    fn bounds_hold_at_both_ends() {
        let at = |n| bounded::<u8, 1, 300>(n, n, "it").is_ok();
        assert_eq!([0, 1, 255, 256, 300, 301].map(at), [false, true, true, false, false, false]);
    }
}
