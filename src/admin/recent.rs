//! How the versions did of late: what they counted, less what they had counted half a minute to a minute ago.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;

use crate::routing::RoutingTable;
use crate::routing::tally::{LatencySnapshot, Snapshot, Tally};

/// How often the snapshots are rotated: the window is one to two of these.
pub(super) const ROTATION: Duration = Duration::from_secs(30);

/// Two generations of snapshots of every version that has had traffic. What is held is bounded by the versions of the
/// tables of the last minute.
#[derive(Debug, Default)]
pub(super) struct Recent(ArcSwap<Snapshots>);

#[derive(Debug, Default)]
struct Snapshots {
    older: Arc<ByTally>,
    newer: Arc<ByTally>,
}

/// By the tally's address, which cannot come up anew as long as the tally is held.
type ByTally = HashMap<usize, Before>;

#[derive(Debug)]
struct Before {
    _held: Arc<Tally>,
    counts: Counts,
}

/// What became of requests.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    /// How many ended.
    pub(super) ended: u64,
    /// How many of them with 5xx.
    pub(super) errors: u64,
    /// How long they took.
    pub(super) latency: LatencySnapshot,
}

impl Counts {
    fn of(snapshot: &Snapshot) -> Self {
        Self { ended: snapshot.ended(), errors: snapshot.errors(), latency: snapshot.latency.clone() }
    }

    /// The part that was answered with 5xx, in percent; nothing without any.
    pub(super) fn error_percent(&self) -> Option<f64> {
        (self.ended > 0).then(|| 100.0 * self.errors.min(self.ended) as f64 / self.ended as f64)
    }
}

impl Recent {
    /// What came in the window, of all that `now` counts of this tally.
    pub(super) fn of(&self, tally: &Arc<Tally>, now: &Snapshot) -> Counts {
        let now = Counts::of(now);
        match self.0.load().older.get(&key(tally)) {
            // It had no traffic then.
            None => now,
            Some(before) => Counts {
                ended: now.ended.saturating_sub(before.counts.ended),
                errors: now.errors.saturating_sub(before.counts.errors),
                latency: now.latency.since(&before.counts.latency),
            },
        }
    }

    /// Takes a new generation of snapshots, and forgets the oldest.
    pub(super) fn rotate(&self, table: &RoutingTable) {
        let busy = table.routes().iter().flat_map(|r| &r.versions).filter(|v| v.tally.begun() > 0);
        let newer: ByTally = busy
            .map(|version| {
                let counts = Counts::of(&version.tally.snapshot());
                (key(&version.tally), Before { _held: Arc::clone(&version.tally), counts })
            })
            .collect();
        let older = Arc::clone(&self.0.load().newer);
        self.0.store(Arc::new(Snapshots { older, newer: Arc::new(newer) }));
    }
}

fn key(tally: &Arc<Tally>) -> usize {
    Arc::as_ptr(tally).addr()
}
