//! The same endpoint for the same key (semantics §2.5).
//!
//! Multi-probe consistent hashing (B. Appleton and M. O'Reilly, arXiv:1505.00062): each endpoint has a few points on a
//! ring, a key has [`PROBES`], and the point that lies nearest after any of them has it. An endpoint that goes gives away
//! its own keys and no others; one that comes takes only its own. Against rendezvous hashing, a request costs the same
//! however many endpoints there are; against a ring of hundreds of points for each, or Maglev's table, compiling costs a
//! hundredth and the shares are as even.

use std::fmt::Write as _;
use std::sync::Arc;

use crate::model::HashKey;

use super::request_view::{RequestView, any_key};
use super::standing::Standing;

/// How many points each endpoint has. One keeps the busiest near its part, but leaves others with little of theirs.
const POINTS: u64 = 8;
/// How many probes each key has. With this, of 100 endpoints the busiest has about 1.1 times its part of the keys, the
/// least busy 0.85 times.
const PROBES: u64 = 21;
/// How many points a probe looks at before it gives up finding an endpoint that is fit.
const WALK: usize = 64;
/// 2^64 divided by the golden ratio: multiples of it are spread evenly (Knuth).
const STEP: u64 = 0x9e37_79b9_7f4a_7c15;

/// The hash of a request's key, or of anything else that must fall on the same endpoint everywhere: 64-bit FNV-1a with the
/// finalizer of SplitMix64.
///
/// Stable: the same in every process, on every machine and in every release, so that replicas agree on an endpoint, also
/// during an upgrade. The hashed name of an endpoint is `ADDRESS:PORT/POD-UID`.
#[must_use]
pub fn hash_key(bytes: &[u8]) -> u64 {
    let mut hash = KeyHash::default();
    hash.add(bytes);
    hash.end()
}

/// The hash of what a request is balanced by: of the first value that is not empty, or of its client's address. Nothing where the
/// request does not have it.
#[must_use]
pub fn request_key(request: &dyn RequestView, key: &HashKey) -> Option<u64> {
    if *key == HashKey::ClientIp {
        let mut hash = KeyHash::default();
        // A hash takes everything.
        let _ = write!(hash, "{}", request.client()?);
        return Some(hash.end());
    }
    let mut hash = None;
    any_key(request, key, &mut |value| {
        hash = (!value.is_empty()).then(|| hash_key(value));
        hash.is_some()
    });
    hash
}

/// [`hash_key`] of what comes in parts.
#[derive(Clone, Copy, Debug)]
pub(super) struct KeyHash(u64);

impl Default for KeyHash {
    fn default() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }
}

impl KeyHash {
    /// The next part.
    pub(super) fn add(&mut self, bytes: &[u8]) {
        let fnv = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
        self.0 = bytes.iter().fold(self.0, fnv);
    }

    /// The hash of all parts.
    pub(super) fn end(self) -> u64 {
        mix(self.0)
    }
}

/// What is written is a part.
impl std::fmt::Write for KeyHash {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        self.add(text.as_bytes());
        Ok(())
    }
}

/// Spreads what is near each other: the finalizer of SplitMix64 (Steele, Lea and Flood, 2014).
pub(super) fn mix(mut x: u64) -> u64 {
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// The endpoints of a version on a ring, compiled with the table.
#[derive(Debug, Default)]
pub(super) struct Ring {
    /// Where, and whose: by its place among the candidates. In order.
    points: Vec<(u64, u32)>,
    /// For each value of a point's first bits, where in `points` those begin: what comes next is found in one step.
    begins: Vec<u32>,
    /// How far a point is shifted to leave its first bits.
    shift: u32,
}

impl Ring {
    /// The ring of these endpoints.
    pub(super) fn new(candidates: &[Arc<Standing>]) -> Self {
        let names = candidates.iter().map(|c| {
            let id = &c.endpoint().id;
            hash_key(format!("{}/{}", id.address, id.pod_uid).as_bytes())
        });
        let point = |name: u64, i: u64| mix(name.wrapping_add(i.wrapping_mul(STEP)));
        let mut points: Vec<_> = names
            .zip(0_u32..)
            .flat_map(|(name, at)| (0..POINTS).map(move |i| (point(name, i), at)))
            .collect();
        points.sort_unstable();
        let bits = points.len().next_power_of_two().trailing_zeros().max(1);
        let shift = u64::BITS - bits;
        let mut begins = Vec::with_capacity(1 << bits);
        for first_bits in 0..1_u64 << bits {
            begins.push(points.partition_point(|(point, _)| point >> shift < first_bits) as u32);
        }
        Self { points, begins, shift }
    }

    /// The place of the candidate that has this key, of those that are fit; nothing where none is found in a bounded search.
    pub(super) fn pick(&self, key: u64, fit: impl Fn(usize) -> bool) -> Option<usize> {
        let first = self.nearest(key, 1, |_| true)?;
        if fit(first) { Some(first) } else { self.nearest(key, WALK, fit) }
    }

    /// The owner of the point that lies nearest after any of the key's probes, of those that are fit.
    fn nearest(&self, key: u64, walk: usize, fit: impl Fn(usize) -> bool) -> Option<usize> {
        let mut best: Option<(u64, u32)> = None;
        for i in 0..PROBES {
            let probe = mix(key.wrapping_add(i.wrapping_mul(STEP)));
            let found = self.from(probe).take(walk).find(|(_, at)| fit(*at as usize));
            let Some((point, at)) = found else { continue };
            let distance = point.wrapping_sub(probe);
            if best.is_none_or(|(nearest, _)| distance < nearest) {
                best = Some((distance, *at));
            }
        }
        best.map(|(_, at)| at as usize)
    }

    /// The points from this one on, once round the ring.
    fn from(&self, probe: u64) -> impl Iterator<Item = &(u64, u32)> {
        let begin = self.begins.get((probe >> self.shift) as usize).copied().unwrap_or_default() as usize;
        let (before, after) = self.points.split_at_checked(begin).unwrap_or((&[], &[]));
        // In one part of the ring there is about one point, so that this ends at once.
        let behind = after.iter().take_while(|(point, _)| *point < probe).count();
        after.iter().skip(behind).chain(before).chain(after.iter().take(behind))
    }
}

#[cfg(test)]
#[path = "hash_tests.rs"]
mod tests;
