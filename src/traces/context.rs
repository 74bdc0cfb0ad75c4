//! The place of a request in its trace, as `traceparent` says it (W3C Trace Context, §3.2).

use std::fmt;

/// A `traceparent` that is valid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceParent<'a> {
    trace_id: &'a str,
    parent: &'a str,
    flags: u8,
}

/// The flag of §3.2.3.1: whoever asked records the trace.
const SAMPLED: u8 = 1;
/// The flags that are known, and passed on: beside that one, whether the trace's id is random (Level 2, §3.2.3.2).
const KNOWN: u8 = SAMPLED | 2;

impl<'a> TraceParent<'a> {
    /// `VERSION-TRACE-PARENT-FLAGS`; nothing where it is not valid. Later versions may have more behind it (§3.2.4), and there is no
    /// version `ff`.
    #[must_use]
    pub fn read(text: &'a str) -> Option<Self> {
        let mut parts = text.splitn(5, '-');
        let mut digits = |length| {
            let part = parts.next()?;
            let fits = part.len() == length && part.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
            fits.then_some(part)
        };
        let (version, trace_id, parent) = (digits(2)?, digits(32)?, digits(16)?);
        let flags = u8::from_str_radix(digits(2)?, 16).ok()?;
        let valid = |id: &str| id.bytes().any(|b| b != b'0');
        let ends = version != "00" || parts.next().is_none();
        (version != "ff" && ends && valid(trace_id) && valid(parent)).then_some(Self {
            trace_id,
            parent,
            flags,
        })
    }

    /// The trace's id: 32 lower-case hexadecimal digits.
    #[must_use]
    pub fn trace_id(&self) -> &'a str {
        self.trace_id
    }

    /// Whether whoever asked records the trace.
    #[must_use]
    pub fn is_sampled(&self) -> bool {
        self.flags & SAMPLED != 0
    }
}

/// A trace, and who asked in it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Context {
    pub(super) trace: u128,
    /// The span that asked; nothing where the trace begins here.
    pub(super) parent: Option<u64>,
    pub(super) flags: u8,
}

impl Context {
    /// A trace that begins here.
    pub(super) fn root() -> Self {
        Self { trace: id(|| fastrand::u128(..)), parent: None, flags: SAMPLED }
    }

    /// What `parent` says.
    pub(super) fn within(parent: TraceParent<'_>) -> Self {
        // It was read: these are digits.
        let trace = u128::from_str_radix(parent.trace_id, 16).unwrap_or_default();
        let span = u64::from_str_radix(parent.parent, 16).unwrap_or_default();
        Self { trace, parent: Some(span), flags: parent.flags & KNOWN }
    }

    /// What is sent to who is asked by this span.
    pub(super) fn traceparent(&self, span: u64) -> Traceparent {
        let mut text = *b"00-00000000000000000000000000000000-0000000000000000-00";
        let parts = [(3..35, self.trace), (36..52, span.into()), (53..55, self.flags.into())];
        for (place, value) in parts {
            hexadecimal(text.get_mut(place).unwrap_or_default(), value);
        }
        Traceparent(text)
    }
}

/// A `traceparent` as it is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Traceparent([u8; 55]);

impl AsRef<[u8]> for Traceparent {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Display for Traceparent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(std::str::from_utf8(&self.0).unwrap_or_default())
    }
}

/// As many digits of a number as there is room for, the last ones.
fn hexadecimal(room: &mut [u8], value: u128) {
    let mut bytes = value.to_be_bytes().into_iter().rev();
    for two in room.rchunks_mut(2) {
        let byte = bytes.next().unwrap_or_default();
        for (digit, half) in two.iter_mut().zip([byte >> 4, byte & 0xf]) {
            *digit = if half < 10 { b'0' + half } else { b'a' - 10 + half };
        }
    }
}

/// The id of a span.
pub(super) fn span_id() -> u64 {
    id(|| fastrand::u64(..))
}

/// An id that is not zero, which is none (§3.2.2.3, §3.2.2.4).
fn id<T: Default + PartialEq>(mut draw: impl FnMut() -> T) -> T {
    loop {
        let id = draw();
        if id != T::default() {
            return id;
        }
    }
}

/// What is sent where a trace begins here and is not recorded, so that nobody behind records a part of it.
#[must_use]
pub(super) fn not_recorded() -> Traceparent {
    Context { flags: 0, ..Context::root() }.traceparent(span_id())
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
            let read = TraceParent::read(&text);
            assert_eq!(read.map(|parent| parent.trace_id()), valid.then_some(TRACE), "{text}");
            assert_eq!(
                read.is_some_and(|parent| parent.is_sampled()),
                valid && !text.ends_with("00"),
                "{text}"
            );
        }
    }

    #[test]
    fn what_is_passed_on_is_of_the_same_trace_and_has_the_flags_that_are_known() {
        for (flags, passed_on) in [("00", "00"), ("01", "01"), ("03", "03"), ("ff", "03")] {
            let text = format!("00-{TRACE}-00f067aa0ba902b7-{flags}");
            let context = Context::within(TraceParent::read(&text).unwrap());
            assert_eq!(context.parent, Some(0x00f0_67aa_0ba9_02b7));
            assert_eq!(
                context.traceparent(0xab).to_string(),
                format!("00-{TRACE}-00000000000000ab-{passed_on}")
            );
        }
    }

    #[test]
    fn what_begins_here_is_valid() {
        let (root, span) = (Context::root(), span_id());
        let text = root.traceparent(span).to_string();
        let read = TraceParent::read(&text).unwrap();
        assert!(read.is_sampled() && root.parent.is_none(), "{text}");
        let text = not_recorded().to_string();
        assert!(!TraceParent::read(&text).unwrap().is_sampled(), "{text}");
        let mut draws = [0, 0, 7].into_iter();
        assert_eq!(id(|| draws.next().unwrap()), 7, "zero is no id");
    }
}
