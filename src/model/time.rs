//! Moments: on the wall clock, and on the process's own, which never goes back.

use std::sync::OnceLock;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A moment on the wall clock, in milliseconds since 1970; RFC 3339 in JSON.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(u64);

impl Timestamp {
    /// The moment `millis` milliseconds after 1970 began.
    #[must_use]
    pub const fn from_millis(millis: u64) -> Self {
        Self(millis)
    }

    /// Milliseconds since 1970.
    #[must_use]
    pub const fn millis(self) -> u64 {
        self.0
    }
}

impl From<SystemTime> for Timestamp {
    fn from(time: SystemTime) -> Self {
        let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
        Self(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
    }
}

/// 9999-12-31T23:59:59Z, the last second that RFC 3339 can write.
const LAST: u64 = 253_402_300_799_000;

impl std::fmt::Display for Timestamp {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let time = UNIX_EPOCH + Duration::from_millis(self.0.min(LAST));
        humantime::format_rfc3339_millis(time).fmt(f)
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        humantime::parse_rfc3339_weak(&text).map(Self::from).map_err(serde::de::Error::custom)
    }
}

/// A moment on the process's own clock, which never goes back: how long after the first that was looked at.
///
/// Atomics hold it as a number, and the core is told it as an argument: it reads no clock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Moment(Duration);

/// The first instant that was ever made a [`Moment`].
static ORIGIN: OnceLock<Instant> = OnceLock::new();

impl Moment {
    /// The moment of this instant. What lies before the first one counts as the first.
    #[must_use]
    pub fn of(instant: Instant) -> Self {
        Self(instant.saturating_duration_since(*ORIGIN.get_or_init(|| instant)))
    }

    /// The moment so many milliseconds after the first.
    #[must_use]
    pub const fn from_millis(millis: u64) -> Self {
        Self(Duration::from_millis(millis))
    }

    /// Milliseconds since the first.
    #[must_use]
    pub fn millis(self) -> u64 {
        u64::try_from(self.0.as_millis()).unwrap_or(u64::MAX)
    }

    /// How long after `earlier` it is; nothing when it is before that.
    #[must_use]
    pub fn since(self, earlier: Moment) -> Duration {
        self.0.saturating_sub(earlier.0)
    }

    /// The moment so much later.
    #[must_use]
    pub fn after(self, time: Duration) -> Moment {
        Self(self.0.saturating_add(time))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_counted_from_the_first() {
        let first = Instant::now();
        let (a, b) = (Moment::of(first), Moment::of(first + Duration::from_millis(1_500)));
        assert_eq!(b.since(a), Duration::from_millis(1_500));
        assert_eq!(a.since(b), Duration::ZERO);
        assert_eq!(a.after(Duration::from_millis(1_500)), b);
        assert_eq!(Moment::from_millis(7).millis(), 7);
        assert_eq!(Moment::from_millis(1).after(Duration::MAX).millis(), u64::MAX);
    }

    #[test]
    fn is_rfc3339_in_json() {
        let json = serde_json::to_string(&Timestamp::from_millis(1_774_000_000_123)).unwrap();
        assert_eq!(json, "\"2026-03-20T09:46:40.123Z\"");
        assert_eq!(serde_json::from_str::<Timestamp>(&json).unwrap(), Timestamp(1_774_000_000_123));
        assert_eq!(Timestamp(u64::MAX).to_string(), "9999-12-31T23:59:59.000Z");
    }
}
