//! What the API shows of requests that are copied, or diverted from a version that is full.

use std::time::Duration;

use crate::model::{MirrorOutcome, Share};
use crate::routing::{Mirroring, Route, Version};

use super::recent::Counts;
use super::status::round;
use super::wire::{MirrorComparison, MirrorStatus, ProblemNote};

/// What the API shows of a mirror.
pub(super) fn mirror(mirror: &Mirroring) -> MirrorStatus {
    let counts = mirror.tally.snapshot();
    let p50 = |latency: &crate::routing::tally::LatencySnapshot| {
        latency.quantile(0.5, Duration::MAX).map(|time| round(time.as_secs_f64() * 1000.0))
    };
    let compared = mirror.spec.compare.then(|| MirrorComparison {
        same: counts.count(MirrorOutcome::Same),
        other_status: counts.other_status,
        other_body: counts.count(MirrorOutcome::Different).saturating_sub(counts.other_status),
        original_p50_ms: p50(&counts.originals),
        copy_p50_ms: p50(&counts.copies),
    });
    MirrorStatus {
        version: mirror.spec.version.to_string(),
        percent: mirror.spec.share,
        sent: counts.count(MirrorOutcome::Sent),
        failed: counts.count(MirrorOutcome::Failed),
        dropped: counts.count(MirrorOutcome::Dropped),
        too_large: counts.count(MirrorOutcome::TooLarge),
        in_flight: counts.in_flight,
        compared,
    }
}

/// The share that each version really gets: what was diverted of late, because a version was full, is stable's.
pub(super) fn effective(route: &Route, windows: &[Counts]) -> Vec<Share> {
    let mut shares: Vec<Share> = route.versions.iter().map(|version| version.effective).collect();
    let mut given = 0;
    for (share, window) in shares.iter_mut().zip(windows).skip(1) {
        let dealt = window.begun + window.diverted;
        let of = u64::from(share.millionths());
        let Some(lost) = (of * window.diverted).checked_div(dealt) else { continue };
        given += lost;
        *share = millionths(of - lost);
    }
    if let Some(stable) = shares.first_mut() {
        *stable = millionths(u64::from(stable.millionths()) + given);
    }
    shares
}

fn millionths(share: u64) -> Share {
    u32::try_from(share).ok().and_then(Share::from_millionths).unwrap_or(Share::ALL)
}

/// For each version that was full of late: what that did, and what to do.
pub(super) fn full(route: &Route, windows: &[Counts]) -> impl Iterator<Item = ProblemNote> {
    let versions = route.versions.iter().zip(windows).filter(|(_, window)| window.diverted > 0);
    versions.map(|(version, window)| {
        let limit = limit(version);
        let stable = route.versions.first().map_or("", |stable| stable.name.as_str());
        ProblemNote {
            message: format!(
                "version {} of route {} was full{limit}: {} of its {} requests of the last minute went to {stable} instead",
                version.name,
                route.name(),
                window.diverted,
                window.begun + window.diverted,
            ),
            remedy: format!(
                "give version {} more pods, raise its `maxInFlightPerPod` if they bear more, or lower its weight",
                version.name
            ),
        }
    })
}

/// How many requests it may have at once, in words.
fn limit(version: &Version) -> String {
    let pods = version.candidates().len();
    version.most_in_flight().map_or_else(String::new, |most| {
        format!(" ({most} requests at once on {pods} pod{})", if pods == 1 { "" } else { "s" })
    })
}
