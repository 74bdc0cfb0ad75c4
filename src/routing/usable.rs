//! Which endpoints of a route's versions get requests (semantics §2.1, §2.2, §2.5).

use std::sync::Arc;

use crate::model::{EndpointPhase, Traffic};

use super::Standing;
use super::table::{EndpointState, Member};

/// The endpoints of a version that get requests.
#[derive(Debug, Default)]
pub(super) struct Usable {
    pub(super) candidates: Vec<Arc<Standing>>,
    /// Too many are set aside, so that those get requests too.
    pub(super) all_used: bool,
    /// How many may be ejected at once.
    pub(super) room: usize,
}

/// The endpoints of each version that get requests: those ready that are not set aside, else those draining.
///
/// When more of a version than `outliers.most` is set aside, it is not the endpoints' fault, or there is nobody left to
/// bear it: those that were ejected or failed health checks are used then as well. One that refuses connections is not,
/// for it would take nothing; unless nothing else is left in the whole route: then all are tried, rather than answering
/// a certain 503, and the second value says so.
pub(super) fn usable(members: &[Vec<Member>], traffic: &Traffic) -> (Vec<Usable>, bool) {
    let mut found: Vec<_> = members.iter().map(|members| of_version(members, traffic)).collect();
    let nothing = found.iter().all(|usable| usable.candidates.is_empty());
    if nothing {
        for (usable, members) in found.iter_mut().zip(members) {
            let in_phase =
                |phase| standings(members.iter().filter(move |m: &&Member| m.phase == phase)).collect();
            let ready: Vec<_> = in_phase(EndpointPhase::Ready);
            usable.candidates = if ready.is_empty() { in_phase(EndpointPhase::Draining) } else { ready };
            usable.all_used = !usable.candidates.is_empty();
        }
    }
    let any = found.iter().any(|usable| !usable.candidates.is_empty());
    (found, nothing && any)
}

fn of_version(members: &[Member], traffic: &Traffic) -> Usable {
    let most = usize::from(traffic.outliers.most);
    let (mut ready, mut ejected, mut doubtful) = (0, 0, 0);
    let mut fit = Vec::new();
    for member in members.iter().filter(|m| m.phase == EndpointPhase::Ready) {
        ready += 1;
        match member.state_for(traffic) {
            EndpointState::Ejected => ejected += 1,
            EndpointState::Unhealthy => doubtful += 1,
            EndpointState::Ready => fit.push(Arc::clone(&member.standing)),
            EndpointState::Refused | EndpointState::Draining | EndpointState::Unready => {}
        }
    }
    let set_aside = ready - fit.len();
    let all_used = ejected + doubtful > 0 && 100 * set_aside > most * ready;
    if all_used {
        let take = |m: &&Member| m.phase == EndpointPhase::Ready && !m.endpoint.is_refused();
        fit = standings(members.iter().filter(take)).collect();
    }
    if fit.is_empty() {
        let take = |m: &&Member| m.phase == EndpointPhase::Draining && !m.endpoint.is_refused();
        fit = standings(members.iter().filter(take)).collect();
    }
    // Those that are set aside for other reasons leave less room; and the last one is never ejected.
    let room = (most * ready / 100).min(ready.saturating_sub(1)).saturating_sub(set_aside - ejected);
    Usable { candidates: fit, all_used, room }
}

fn standings<'a>(members: impl Iterator<Item = &'a Member>) -> impl Iterator<Item = Arc<Standing>> {
    members.map(|m| Arc::clone(&m.standing))
}
