//! Users on a line: each has a point from 0 to 1, each version an interval (semantics §3.2).
//!
//! A user's point is the [`hash_key`](super::hash_key) of the salt, a zero byte and the key, as a fraction of 2^64: nothing is
//! remembered, so that replicas agree and a restart changes nothing. From the left the intervals are those of
//!
//! ```text
//! 0 | first canary | third | fourth | …            stable            … | second canary | 1
//! ```
//!
//! and a canary's outer end stays where it is when its weight changes: a higher weight only adds users to it, a lower one only
//! takes users from it. With up to two canaries those come from stable and go to it, and nobody else moves. From the third
//! canary on, a change of weight by some users also pushes the intervals between it and stable along by as many.

use std::collections::VecDeque;
use std::fmt::Write as _;

use crate::model::{Cohort, HashKey, Share};

use super::hash::KeyHash;
use super::request_view::{RequestView, any_key};

/// A cohort with the intervals of a route's versions.
#[derive(Clone, Debug)]
pub(super) struct CompiledCohort {
    pub(super) cohort: Cohort,
    /// The hash of all that comes before a key.
    salted: KeyHash,
    /// From the left.
    stretches: Vec<Stretch>,
    /// The canary's share of the users, where a rollout is judged by them.
    pub(super) judged: Option<Share>,
}

/// A part of the line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stretch {
    /// Where it begins, in millionths of the line.
    pub(super) begin: u32,
    /// Where it ends; just beyond it.
    pub(super) end: u32,
    /// The place of the version whose users these are.
    pub(super) version: usize,
    /// They are its own, not those of a version without a usable pod (semantics §2.4).
    pub(super) own: bool,
}

/// A user.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct User {
    /// Where on the line, in 2^-64.
    pub(super) point: u64,
    /// What the cookie of a new browser is to hold.
    pub(super) cookie: Option<u64>,
}

impl CompiledCohort {
    /// The cohort of a route whose versions were asked to have, and do have, these shares. `canary` is the place of the version
    /// that a rollout is judged of.
    pub(super) fn new(cohort: &Cohort, asked: &[Share], drawn: &[Share], canary: Option<usize>) -> Self {
        let mut salted = KeyHash::default();
        salted.add(cohort.salt.as_bytes());
        salted.add(&[0]);
        let share = |version: usize| drawn.get(version).copied().unwrap_or_default();
        // Only two are compared; also where one of them has all, which says nothing of it but counts.
        let third = |canary: usize| {
            drawn
                .iter()
                .enumerate()
                .any(|(place, share)| place != 0 && place != canary && *share > Share::ZERO)
        };
        let judged = canary.filter(|canary| share(*canary) > Share::ZERO && !third(*canary)).map(share);
        Self { cohort: cohort.clone(), salted, stretches: stretches(asked, drawn), judged }
    }

    /// The user of this request; a new one where browsers are given a cookie and this one has none. Nobody where there is no
    /// key.
    pub(super) fn user(&self, request: &dyn RequestView, random: impl FnOnce() -> u64) -> Option<User> {
        match self.known(request) {
            Some(point) => Some(User { point, cookie: None }),
            None if self.cohort.set => {
                let value = random();
                Some(User { point: self.point(format_args!("{value:016x}")), cookie: Some(value) })
            }
            None => None,
        }
    }

    /// The point of the user of this request, where it has the key.
    pub(super) fn known(&self, request: &dyn RequestView) -> Option<u64> {
        let mut point = None;
        let mut see = |value: &[u8]| {
            // An empty key is nobody's, and a cookie that Serinus did not make is none.
            let fit = if self.cohort.set { is_own(value) } else { !value.is_empty() };
            if fit {
                let mut hash = self.salted;
                hash.add(value);
                point = Some(hash.end());
            }
            fit
        };
        if self.cohort.key == HashKey::ClientIp {
            return request.client().map(|client| self.point(format_args!("{}", client.to_canonical())));
        }
        any_key(request, &self.cohort.key, &mut see);
        point
    }

    fn point(&self, key: std::fmt::Arguments<'_>) -> u64 {
        let mut hash = self.salted;
        // A hash takes everything.
        let _ = hash.write_fmt(key);
        hash.end()
    }

    /// Where this point lies.
    pub(super) fn at(&self, point: u64) -> Option<Stretch> {
        let at = ((u128::from(point) * u128::from(Share::DENOMINATOR)) >> u64::BITS) as u32;
        let next = self.stretches.partition_point(|stretch| stretch.end <= at);
        self.stretches.get(next).or(self.stretches.last()).copied()
    }
}

/// Whether this is what Serinus puts into a cookie: a number of 64 bits, as 16 hexadecimal digits.
fn is_own(value: &[u8]) -> bool {
    value.len() == 16 && value.iter().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

/// The intervals by the shares that were asked for; what a version does not get of its own is dealt from the left to those that
/// get more than they were asked to.
fn stretches(asked: &[Share], drawn: &[Share]) -> Vec<Stretch> {
    let share = |of: &[Share], version: usize| of.get(version).map_or(0, |share| share.millionths());
    let from_left = || std::iter::once(1).chain(3..asked.len()).chain([0, 2]).filter(|v| *v < asked.len());
    let more = |version: usize| share(drawn, version).saturating_sub(share(asked, version));
    let mut heirs: VecDeque<(usize, u32)> =
        from_left().map(|version| (version, more(version))).filter(|(_, more)| *more > 0).collect();
    let mut stretches = Vec::new();
    let mut begin = 0;
    let mut add = |version: usize, own: bool, width: u32| {
        if width > 0 {
            stretches.push(Stretch { begin, end: begin + width, version, own });
            begin += width;
        }
    };
    for version in from_left() {
        let own = share(asked, version).min(share(drawn, version));
        let mut given = share(asked, version) - own;
        // The own part lies at the outer end: on the right for the second canary.
        if version != 2 {
            add(version, true, own);
        }
        while given > 0 {
            let Some((heir, room)) = heirs.front_mut() else { break };
            let part = given.min(*room);
            add(*heir, false, part);
            (given, *room) = (given - part, *room - part);
            if *room == 0 {
                heirs.pop_front();
            }
        }
        // Nobody takes it: answered 503.
        add(version, true, given);
        if version == 2 {
            add(version, true, own);
        }
    }
    stretches
}

#[cfg(test)]
#[path = "cohort_tests.rs"]
mod tests;
