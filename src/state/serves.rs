//! Which revisions a replica serves, of every route and in bounded space: so that each replica can tell whether the others serve
//! what it serves.
//!
//! A replica names the routes whose weights changed last, with their revisions, and has a digest of all. Who is behind is so by
//! what changed last, so that the names are mostly there; where they are not, the digest says that there is a difference.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::model::{Revision, RouteName, Timestamp};

/// How many bytes the names and revisions may take as JSON: of 2,000 routes, as many as the replicas' state carries, some hundreds.
const LARGEST: usize = 16 * 1024;

/// What one replica says of the revisions that it serves.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Serves {
    /// The routes whose weights changed last, with their revisions: as many as fit.
    routes: BTreeMap<RouteName, Revision>,
    /// How many routes it serves.
    count: usize,
    /// The digest of all.
    digest: Digest,
}

/// In what another replica serves something else.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Difference {
    /// By route, the other's revision; nothing where it does not have the route.
    pub routes: BTreeMap<RouteName, Option<Revision>>,
    /// There are more, and which is not known.
    pub more: bool,
}

impl Serves {
    /// Of all routes that are served: each with its revision, and when that changed.
    pub fn of<'a>(routes: impl Iterator<Item = (&'a RouteName, Revision, Timestamp)>) -> Self {
        let mut all: Vec<_> = routes.collect();
        let mut digest = Digest::default();
        for (name, revision, _) in &all {
            digest.put(name, *revision);
        }
        all.sort_by(|(a, _, then), (b, _, now)| now.cmp(then).then_with(|| a.cmp(b)));
        let mut size = 2;
        let fits = |(name, revision, _): &&(&RouteName, Revision, Timestamp)| {
            // Quotes, a colon and a comma.
            size += name.as_str().len() + revision.0.to_string().len() + 4;
            size <= LARGEST
        };
        let named = all.iter().take_while(fits).map(|(name, revision, _)| ((*name).clone(), *revision));
        Self { routes: named.collect(), count: all.len(), digest }
    }

    /// In what this, another's, differs from what is served here.
    #[must_use]
    pub fn differs(&self, here: &BTreeMap<&RouteName, Revision>) -> Difference {
        let mut routes = BTreeMap::new();
        // What is served here, but for what is named of the other.
        let mut rest = Digest::default();
        here.iter().for_each(|(name, revision)| rest.put(name, *revision));
        for (name, theirs) in &self.routes {
            let ours = here.get(name).copied();
            if ours != Some(*theirs) {
                if let Some(ours) = ours {
                    rest.take(name, ours);
                }
                rest.put(name, *theirs);
                routes.insert(name.clone(), Some(*theirs));
            }
        }
        if self.routes.len() < self.count {
            return Difference { routes, more: rest != self.digest };
        }
        let lacking = here.keys().filter(|name| !self.routes.contains_key(**name));
        routes.extend(lacking.map(|name| ((*name).clone(), None)));
        Difference { routes, more: false }
    }
}

/// A digest of routes and revisions, in whatever order they come: the sum of a hash of each, which is the same in every release.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
struct Digest(u64);

impl Digest {
    fn put(&mut self, route: &RouteName, revision: Revision) {
        self.0 = self.0.wrapping_add(hash(route, revision));
    }

    fn take(&mut self, route: &RouteName, revision: Revision) {
        self.0 = self.0.wrapping_sub(hash(route, revision));
    }
}

/// 64-bit FNV-1a with the finalizer of SplitMix64, of the name, a zero byte and the revision.
fn hash(route: &RouteName, revision: Revision) -> u64 {
    let name = route.as_str().bytes().chain([0]).chain(revision.0.to_le_bytes());
    let fnv = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
    let mut x = name.fold(0xcbf2_9ce4_8422_2325, fnv);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

#[cfg(test)]
#[path = "serves_tests.rs"]
mod tests;
