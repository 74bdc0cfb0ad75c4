//! The trace that a request is a part of, as `traceparent` says it (W3C Trace Context, §3.2).

use crate::wire::Fields;

/// The field that carries it.
pub(super) const TRACEPARENT: &str = "traceparent";

/// A `traceparent` that is valid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TraceParent<'a> {
    /// 32 lower-case hexadecimal digits.
    pub(super) trace_id: &'a str,
}

impl<'a> TraceParent<'a> {
    /// What a request says; nothing where it says none, more than one, or one that is not valid.
    pub(super) fn of(fields: &'a Fields) -> Option<Self> {
        let mut all = fields.all(TRACEPARENT);
        let (value, None) = (all.next()?, all.next()) else { return None };
        Self::read(std::str::from_utf8(value).ok()?)
    }

    /// `VERSION-TRACE-PARENT-FLAGS`. Later versions may have more behind it (§3.2.4), and there is no version `ff`.
    fn read(text: &'a str) -> Option<Self> {
        let mut parts = text.splitn(5, '-');
        let mut digits = |length| {
            let part = parts.next()?;
            let fits = part.len() == length && part.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
            fits.then_some(part)
        };
        let (version, trace_id, parent) = (digits(2)?, digits(32)?, digits(16)?);
        digits(2)?;
        let valid = |id: &str| id.bytes().any(|b| b != b'0');
        let ends = version != "00" || parts.next().is_none();
        (version != "ff" && ends && valid(trace_id) && valid(parent)).then_some(Self { trace_id })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

    #[test]
    fn a_trace_is_known_where_traceparent_is_valid() {
        let parent = "00f067aa0ba902b7";
        for (text, valid) in [
            (format!("00-{TRACE}-{parent}-01"), true),
            (format!("00-{TRACE}-{parent}-00"), true),
            (format!("cc-{TRACE}-{parent}-01-what-is-to-come"), true),
            (format!("00-{TRACE}-{parent}-01-more"), false),
            (format!("ff-{TRACE}-{parent}-01"), false),
            (format!("00-{}-{parent}-01", TRACE.to_uppercase()), false),
            (format!("00-{}-{parent}-01", "0".repeat(32)), false),
            (format!("00-{TRACE}-{}-01", "0".repeat(16)), false),
            (format!("00-{TRACE}-{parent}"), false),
            (format!("00-{TRACE}-{parent}-1"), false),
            (format!("00-{TRACE}é-{parent}-01"), false),
            (format!("00-{TRACE}0-{parent}-01"), false),
            (String::new(), false),
        ] {
            let mut fields = Fields::default();
            fields.append("TraceParent", &text);
            let found = TraceParent::of(&fields).map(|parent| parent.trace_id.to_owned());
            assert_eq!(found, valid.then(|| TRACE.to_owned()), "{text}");
            fields.append("traceparent", &text);
            assert_eq!(TraceParent::of(&fields), None, "two are none: {text}");
        }
    }
}
