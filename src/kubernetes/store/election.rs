//! Who takes rollouts forward: the holder of a Lease, as client-go's leader election has it
//! (`k8s.io/client-go/tools/leaderelection`), decided without a clock or a request.
//!
//! Another's Lease has run out when it was not seen to be renewed for [`DURATION`], by this process's own clock: the clocks of
//! two machines are not compared. One's own leadership ends [`DEADLINE`] after the begin of the last renewal that went well,
//! which is earlier: two never lead at once, as long as their clocks run equally fast.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::leases::LeaseRecord;

/// How long a Lease holds.
pub(super) const DURATION: Duration = Duration::from_secs(15);
/// How long a leader leads without a renewal.
pub(super) const DEADLINE: Duration = Duration::from_secs(10);
/// How often it is renewed, and looked at.
pub(super) const RENEW: Duration = Duration::from_secs(3);

/// A Lease, and since when it is known to be as it is.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    pub(super) record: LeaseRecord,
    pub(super) since: Instant,
}

impl Seen {
    /// Whether somebody holds it, and has shown it lately.
    pub(super) fn holds(&self, now: Instant) -> bool {
        self.record.holder.is_some() && now.saturating_duration_since(self.since) < DURATION
    }
}

/// What a candidate does.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Act {
    /// There is no Lease: it makes one.
    Create,
    /// It is the holder: it says so again.
    Renew,
    /// The holder is gone: it takes the Lease.
    Take,
    /// Somebody else leads.
    Wait,
}

/// What `me` does about the Lease.
pub(super) fn act(me: &Arc<str>, lease: Option<&Seen>, now: Instant) -> Act {
    match lease {
        None => Act::Create,
        Some(seen) if seen.record.holder.as_ref() == Some(me) => Act::Renew,
        Some(seen) if seen.holds(now) => Act::Wait,
        Some(_) => Act::Take,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::Version;

    fn seen(holder: Option<&str>, since: Instant) -> Seen {
        let record = LeaseRecord {
            name: "serinus-state".into(),
            version: Version("1".into()),
            holder: holder.map(Into::into),
            renewed: None,
            transitions: 0,
            standings: Arc::default(),
            serves: None,
        };
        Seen { record, since }
    }

    #[test]
    fn a_lease_is_taken_when_its_holder_was_not_seen_for_its_duration() {
        let (me, now): (Arc<str>, _) = ("a".into(), Instant::now());
        let at = |seconds| now + Duration::from_secs(seconds);
        assert_eq!(act(&me, None, now), Act::Create);
        assert_eq!(act(&me, Some(&seen(Some("a"), now)), at(100)), Act::Renew);
        assert_eq!(act(&me, Some(&seen(Some("b"), now)), at(14)), Act::Wait);
        assert_eq!(act(&me, Some(&seen(Some("b"), now)), at(15)), Act::Take);
        assert_eq!(act(&me, Some(&seen(None, now)), now), Act::Take, "it was let go");
    }

    #[test]
    fn nobody_leads_while_another_may_take_it() {
        // The last renewal began before it could be seen.
        assert!(DEADLINE < DURATION && RENEW * 3 < DEADLINE + RENEW);
    }
}
