//! That keys stay where they are, are spread evenly, and hash to the same everywhere.

use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::routing::samples::standings;

/// Who has each of so many keys.
fn owners(candidates: &[Arc<Standing>], keys: u64) -> Vec<u16> {
    let ring = Ring::new(candidates);
    let owner = |key: u64| {
        let at = ring.pick(hash_key(&key.to_le_bytes()), |_| true).unwrap();
        candidates[at].endpoint().id.address.port()
    };
    (0..keys).map(owner).collect()
}

/// Worked out apart from this code. Changing these would send every key of a running system elsewhere, and make replicas of two releases disagree.
#[test]
fn s2_5_hashes_are_the_same_in_every_release() {
    assert_eq!(hash_key(b""), 0xf52a_15e9_a9b5_e89b);
    assert_eq!(hash_key(b"a"), 0x02c0_bdbf_4814_20f8);
    assert_eq!(hash_key(b"user-42"), 0x7a15_96f0_e94b_5793);
    assert_eq!(owners(&standings(5), 12), [2, 4, 5, 3, 3, 1, 3, 5, 1, 2, 4, 4]);
}

#[test]
fn s2_5_keys_are_spread_evenly() {
    for n in [2_u16, 3, 10, 100] {
        let keys = 2_000 * u64::from(n);
        let mut counts = vec![0_u64; usize::from(n)];
        owners(&standings(n), keys).iter().for_each(|port| counts[usize::from(*port) - 1] += 1);
        for count in counts {
            assert!((1_500..2_400).contains(&count), "{count} of 2000 at one of {n}");
        }
    }
}

#[test]
fn s2_5_a_key_moves_only_with_its_own_endpoint() {
    let all = standings(20);
    let before = owners(&all, 5_000);
    let without: Vec<_> =
        all.iter().enumerate().filter(|(i, _)| *i != 7).map(|(_, s)| Arc::clone(s)).collect();
    let after = owners(&without, 5_000);
    let mut moved = 0;
    for (before, after) in before.iter().zip(&after) {
        if *before == 8 {
            moved += 1;
            assert_ne!(*after, 8);
        } else {
            assert_eq!(before, after, "it was not on the one that left");
        }
    }
    assert!((150..350).contains(&moved), "{moved} of 5000 were on one of 20");
}

proptest! {
    #[test]
    fn s2_5_an_unfit_endpoint_is_as_good_as_gone(
        n in 1..40_u16,
        unfit in proptest::collection::btree_set(0..40_usize, 0..8),
        key in any::<u64>(),
    ) {
        let all = standings(n);
        let picked = Ring::new(&all).pick(key, |at| !unfit.contains(&at));
        let left: Vec<_> =
            all.iter().enumerate().filter(|(i, _)| !unfit.contains(i)).map(|(_, s)| Arc::clone(s)).collect();
        let expected = Ring::new(&left).pick(key, |_| true);
        let port = |of: &[Arc<Standing>], at: usize| of[at].endpoint().id.address.port();
        prop_assert_eq!(picked.map(|at| port(&all, at)), expected.map(|at| port(&left, at)));
    }

    #[test]
    fn s2_5_a_probe_finds_the_next_point(n in 0..50_u16, probe in any::<u64>()) {
        let ring = Ring::new(&standings(n));
        let next = ring.points.iter().find(|(point, _)| *point >= probe).or(ring.points.first());
        prop_assert_eq!(ring.from(probe).next(), next);
        prop_assert_eq!(ring.from(probe).count(), ring.points.len());
    }
}
