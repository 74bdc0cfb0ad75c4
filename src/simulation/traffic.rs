//! Requests as they are assumed to come and to go.

use std::collections::HashSet;
use std::sync::Arc;

use crate::model::{AttemptClass, Counts, Placement, Share, Side, Sides, Sighting};
use crate::routing::{Place, Split};

/// What is assumed of a route's requests and of both versions. They come evenly, and are answered at once.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Assumed {
    /// Requests a second, of all replicas of the router together.
    pub rps: f64,
    /// How stable answers.
    pub stable: Rates,
    /// How the canary answers.
    pub canary: Rates,
    /// How many replicas the router has, at least 1: each gets as many requests as the others.
    pub replicas: u32,
    /// Who the requests come from; nothing where that is not asked.
    pub users: Option<Users>,
}

/// The parts of a version's requests that go badly, each 0 to 1, together at most 1.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Rates {
    /// Fails.
    pub errors: f64,
    /// Is answered well, and slower than the latency limit.
    pub slow: f64,
}

/// Who the requests come from: everybody as often as the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Users {
    /// How many they are, at least 1.
    pub number: u64,
    /// Whether they are dealt out to the versions, instead of their requests.
    pub dealt: bool,
}

/// What one replica of the router has seen and not yet told.
#[derive(Clone, Debug, Default)]
pub(super) struct Replica {
    place: Arc<Place>,
    split: Split,
    pub(super) counts: Sides,
    pub(super) bad: Vec<Sighting>,
}

/// The requests of one rollout.
#[derive(Debug)]
pub(super) struct Traffic {
    assumed: Assumed,
    share: Share,
    pub(super) replicas: Vec<Replica>,
    /// Deals the users out.
    salt: u64,
    /// Whom the canary has failed.
    failed_users: HashSet<u64>,
    /// Requests that were placed so far, and what of the next is due.
    due: f64,
    next: usize,
}

/// A rate as a bound for 64 random bits.
fn bound(rate: f64) -> u64 {
    (rate.clamp(0.0, 1.0) * u64::MAX as f64) as u64
}

/// Mixes 64 bits (the finaliser of SplitMix64).
fn mixed(mut bits: u64) -> u64 {
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

impl Traffic {
    pub(super) fn new(assumed: &Assumed, random: &mut impl FnMut() -> u64) -> Self {
        let replicas = (0..assumed.replicas.max(1)).map(|_| Replica::default()).collect();
        let salt = random();
        Self {
            assumed: *assumed,
            share: Share::ZERO,
            replicas,
            salt,
            failed_users: HashSet::new(),
            due: 0.0,
            next: 0,
        }
    }

    /// From now on the canary gets this share.
    pub(super) fn set_share(&mut self, share: Share) {
        self.share = share;
        for replica in &mut self.replicas {
            let weights = [
                (0, u64::from(share.rest().millionths()), Arc::clone(&replica.place)),
                (1, u64::from(share.millionths()), Arc::default()),
            ];
            replica.split = Split::new(weights);
        }
    }

    /// Lets so many seconds pass; how many requests came to the canary in them.
    pub(super) fn pass(&mut self, seconds: f64, random: &mut impl FnMut() -> u64) -> u64 {
        self.due += self.assumed.rps * seconds;
        let requests = self.due.floor();
        self.due -= requests;
        let mut of_canary = 0;
        for _ in 0..requests as u64 {
            of_canary += u64::from(self.request(random));
        }
        of_canary
    }

    /// A request comes; whether it was the canary's.
    fn request(&mut self, random: &mut impl FnMut() -> u64) -> bool {
        let replicas = self.replicas.len();
        let turn = self.next;
        self.next = if turn + 1 == replicas { 0 } else { turn + 1 };
        let Some(replica) = self.replicas.get_mut(turn) else { return false };
        let user = self.assumed.users.map(|users| (below(random(), users.number), users.dealt));
        let (canary, at) = match user {
            Some((user, true)) => {
                let (point, share) = (mixed(user ^ self.salt), self.share.ratio());
                (point < bound(share), Some(Placement::User { point, share }))
            }
            _ => {
                let (version, drawn) = replica.split.draw_of_two(&mut *random);
                (version == Some(1), drawn.map(|drawn| drawn.placement()))
            }
        };
        let (side, rates) =
            if canary { (Side::Canary, self.assumed.canary) } else { (Side::Stable, self.assumed.stable) };
        let counts = if canary { &mut replica.counts.canary } else { &mut replica.counts.stable };
        counts.requests += 1;
        let chance = random();
        if chance >= bound(rates.errors + rates.slow) {
            return canary;
        }
        let class = if chance < bound(rates.errors) { AttemptClass::Error } else { AttemptClass::Slow };
        if class == AttemptClass::Error {
            counts.errors += 1;
            if let (true, Some((user, _))) = (canary, user) {
                self.failed_users.insert(user);
            }
        } else {
            counts.slow += 1;
        }
        if let Some(at) = at {
            replica.bad.push(Sighting { side, class, at });
        }
        canary
    }

    /// How many users the canary has failed, where users are assumed.
    pub(super) fn failed_users(&self) -> Option<u64> {
        self.assumed.users.map(|_| self.failed_users.len() as u64)
    }

    /// Whether anything went badly that was not told yet.
    pub(super) fn has_news(&self) -> bool {
        let bad = |counts: &Counts| counts.errors + counts.slow > 0;
        self.replicas.iter().any(|replica| bad(&replica.counts.stable) || bad(&replica.counts.canary))
    }
}

/// A whole number from 0 to `n - 1` from 64 random bits.
fn below(random: u64, n: u64) -> u64 {
    ((u128::from(random) * u128::from(n)) >> 64) as u64
}
