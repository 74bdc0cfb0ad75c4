//! What happens to endpoints: each event is one log line, as far as there are not too many.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::model::{EndpointId, Moment, RouteName, SetAsideReason, VersionName};

use super::Telemetry;

/// Which endpoint of which version, and why.
#[derive(Clone, Copy, Debug)]
pub struct EndpointNote<'a> {
    /// The route.
    pub route: &'a RouteName,
    /// The version.
    pub version: &'a VersionName,
    /// The endpoint.
    pub endpoint: &'a EndpointId,
    /// Why it is, or was, set aside.
    pub reason: SetAsideReason,
}

impl Telemetry {
    /// An endpoint was set aside: for so long, or until better is heard of it. Counted where the requests pass.
    pub fn endpoint_set_aside(&self, note: EndpointNote<'_>, time: Option<Duration>) {
        let EndpointNote { route, version, endpoint, reason } = note;
        if let Some(untold) = self.endpoint_lines.next() {
            let seconds = time.map(|time| time.as_secs_f64());
            tracing::warn!(%route, %version, %endpoint, %reason, seconds, untold, "endpoint set aside");
        }
    }

    /// An endpoint that was set aside gets requests again.
    pub fn endpoint_taken_back(&self, note: EndpointNote<'_>) {
        let EndpointNote { route, version, endpoint, reason } = note;
        if let Some(untold) = self.endpoint_lines.next() {
            tracing::info!(%route, %version, %endpoint, %reason, untold, "endpoint taken back");
        }
    }
}

/// How many lines there are in a second; what else happens is only counted.
const LINES_A_SECOND: u64 = 20;

/// Bounds the lines of a kind of event: pods that come and go, and clients that bring them to fail, do not fill the log.
#[derive(Debug, Default)]
pub(super) struct LineLimit {
    /// The second in the upper half, its lines in the lower.
    word: AtomicU64,
    untold: AtomicU64,
}

impl LineLimit {
    /// Whether an event may have a line now; then with how many before it had none.
    fn next(&self) -> Option<u64> {
        self.next_in(Moment::of(Instant::now()).millis() / 1_000)
    }

    fn next_in(&self, second: u64) -> Option<u64> {
        let second = second & u64::from(u32::MAX);
        let more = |word: u64| match (word >> 32 == second, word & u64::from(u32::MAX)) {
            (true, lines) if lines >= LINES_A_SECOND => None,
            (true, _) => Some(word + 1),
            (false, _) => Some(second << 32 | 1),
        };
        if self.word.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_ok() {
            Some(self.untold.swap(0, Ordering::Relaxed))
        } else {
            self.untold.fetch_add(1, Ordering::Relaxed);
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_bounded_and_the_rest_is_told_later() {
        let limit = LineLimit::default();
        let told = (0..50).filter_map(|_| limit.next_in(7)).collect::<Vec<_>>();
        assert_eq!(told, [0; 20]);
        assert_eq!((limit.next_in(8), limit.next_in(8)), (Some(30), Some(0)));
    }
}
