//! That users are where their keys put them, the same everywhere, and move only when weights make them.

use proptest::prelude::*;

use super::*;
use crate::routing::hash_key;
use crate::routing::request_view::Words;

const WHOLE: u32 = Share::DENOMINATOR;

fn share(millionths: u32) -> Share {
    Share::from_millionths(millionths).unwrap()
}

/// The shares of a route: these canaries', and before them what they leave for stable.
fn shares(canaries: &[u32]) -> Vec<Share> {
    let stable = WHOLE - canaries.iter().sum::<u32>();
    std::iter::once(&stable).chain(canaries).map(|s| share(*s)).collect()
}

fn by_header(salt: &str) -> Cohort {
    Cohort { key: HashKey::Header("x-user".to_owned()), set: false, salt: salt.to_owned() }
}

/// With all pods there.
fn cohort(salt: &str, canaries: &[u32]) -> CompiledCohort {
    let shares = shares(canaries);
    CompiledCohort::new(&by_header(salt), &shares, &shares, None)
}

impl CompiledCohort {
    fn of_key(&self, key: &str) -> u64 {
        self.point(format_args!("{key}"))
    }

    fn version(&self, point: u64) -> usize {
        self.at(point).unwrap().version
    }
}

/// Worked out apart from this code. Changing these would deal the users of every running system anew, and make replicas of two
/// releases disagree.
#[test]
fn s3_2_points_are_the_same_in_every_release() {
    let shop = cohort("shop", &[]);
    for (salt, key, point) in [
        ("shop", "user-42", 0xc9b0_49e3_9321_2d78),
        ("", "user-42", 0x216c_f6f6_0408_e4a5),
        ("autumn", "user-42", 0x3968_74c2_dea3_3050),
        ("shop", "2001:db8::1", 0x51cd_7b5f_8d5a_8f8e),
    ] {
        assert_eq!(cohort(salt, &[]).of_key(key), point, "{salt} {key}");
    }
    let mut request = Words::of(&["X-User: user-42", "X-User: user-43"]);
    assert_eq!(shop.known(&request), Some(0xc9b0_49e3_9321_2d78), "the first");
    request.headers[0].1.clear();
    assert_eq!(shop.known(&request), Some(shop.of_key("user-43")), "an empty key is nobody's");
    request.headers.clear();
    assert_eq!(shop.user(&request, || panic!("a draw")), None);

    let by = |key, set| CompiledCohort::new(&Cohort { key, set, salt: "shop".to_owned() }, &[], &[], None);
    let by_client = by(HashKey::ClientIp, false);
    for (client, point) in [
        (&["@203.0.113.7"][..], Some(0x4dea_73d3_7553_80f0)),
        (&["@::ffff:203.0.113.7"], Some(0x4dea_73d3_7553_80f0)),
        (&["@2001:DB8:0::1"], Some(0x51cd_7b5f_8d5a_8f8e)),
        (&[], None),
    ] {
        assert_eq!(by_client.known(&Words::of(client)), point, "{client:?}");
    }
    let by_cookie = by(HashKey::Cookie("user".to_owned()), false);
    assert_eq!(by_cookie.known(&Words::of(&["cookie: a=b; user=user-42"])), Some(0xc9b0_49e3_9321_2d78));
    assert_eq!(by_cookie.known(&Words::of(&["cookie: user="])), None);
    let own = by(HashKey::Cookie("user".to_owned()), true);
    assert_eq!(own.known(&Words::of(&["cookie: user=00000000000000ff"])), Some(0x3549_ab5e_5e41_405d));
    assert_eq!(
        own.user(&Words::of(&[]), || 0xff),
        Some(User { point: 0x3549_ab5e_5e41_405d, cookie: Some(0xff) }),
        "as when the cookie comes back"
    );
    for bad in ["cookie: user=x", "cookie: user=00000000000000FF", "cookie: user=00000000000000ff0"] {
        assert_eq!(own.known(&Words::of(&[bad])), None, "{bad}: not from here");
    }
}

#[test]
fn s3_2_where_the_intervals_are() {
    let line = |canaries: &[u32]| {
        let stretches = cohort("s", canaries).stretches;
        assert!(stretches.iter().all(|s| s.own));
        stretches.iter().map(|s| (s.version, s.end)).collect::<Vec<_>>()
    };
    assert_eq!(line(&[]), [(0, WHOLE)]);
    assert_eq!(line(&[1]), [(1, 1), (0, WHOLE)]);
    assert_eq!(line(&[100_000, 50_000]), [(1, 100_000), (0, 950_000), (2, WHOLE)]);
    assert_eq!(line(&[0, 50_000, 30_000, 20_000]), [(3, 30_000), (4, 50_000), (0, 950_000), (2, WHOLE)]);
    assert_eq!(line(&[WHOLE]), [(1, WHOLE)]);
    let edges = cohort("s", &[500_000]);
    assert_eq!([0, u64::MAX / 2, u64::MAX / 2 + 1, u64::MAX].map(|point| edges.version(point)), [1, 1, 0, 0]);
}

/// Each user's version for these weights.
fn dealt(salt: &str, canaries: &[u32], users: u64) -> Vec<usize> {
    let cohort = cohort(salt, canaries);
    (0..users).map(|user| cohort.version(cohort.of_key(&format!("user-{user}")))).collect()
}

/// Whether `found` of `users` is what chance makes of `share`, to five standard deviations.
#[track_caller]
fn check_share(found: usize, users: u64, share: f64) {
    let (found, expected) = (found as f64, users as f64 * share);
    let deviation = (users as f64 * share * (1.0 - share)).sqrt();
    assert!((found - expected).abs() <= 5.0 * deviation + 1.0, "{found} of {users} at {share}");
}

#[test]
fn s3_2_shares_of_users_are_those_asked_for_within_noise() {
    let users = 40_000;
    for (salt, canaries) in
        [("a", &[1_000, 100_000][..]), ("b", &[10_000]), ("", &[500_000, 1]), ("a", &[3, 0, 300_000])]
    {
        let dealt = dealt(salt, canaries, users);
        for (i, share) in canaries.iter().enumerate() {
            let found = dealt.iter().filter(|version| **version == i + 1).count();
            check_share(found, users, f64::from(*share) / f64::from(WHOLE));
        }
    }
}

#[test]
fn s3_2_another_salt_deals_the_users_anew() {
    let users = 40_000;
    let [one, other] = ["one", "other"].map(|salt| dealt(salt, &[200_000], users));
    let both = one.iter().zip(&other).filter(|(a, b)| **a == 1 && **b == 1).count();
    check_share(both, users, 0.04);
    // Nor is it by the pod that a key has (`balance: hash`), nor by another key of the same user.
    let cohort = cohort("one", &[200_000]);
    let low = |user: u64| hash_key(format!("user-{user}").as_bytes()) < u64::MAX / 5;
    check_share((0..users).filter(|user| one[*user as usize] == 1 && low(*user)).count(), users, 0.04);
    let twice = (0..users).filter(|user| cohort.version(cohort.of_key(&format!("USER-{user}"))) == 1);
    check_share(twice.filter(|user| one[*user as usize] == 1).count(), users, 0.04);
}

/// Weights of two to four canaries, and another weight for one of them.
fn weights() -> impl Strategy<Value = (Vec<u32>, usize, u32)> {
    (1..5_usize).prop_flat_map(|n| {
        let each = WHOLE / n as u32;
        (proptest::collection::vec(0..=each, n), 0..n, 0..=each)
    })
}

proptest! {
    #[test]
    fn s3_2_a_higher_weight_only_adds_users_and_a_lower_one_only_takes_some(
        (before, changed, weight) in weights(),
        points in proptest::collection::vec(any::<u64>(), 200),
    ) {
        let mut after = before.clone();
        after[changed] = weight;
        let (was, is) = (cohort("s", &before), cohort("s", &after));
        for point in points {
            let (was, is) = (was.version(point), is.version(point));
            if weight >= before[changed] {
                prop_assert!(was != changed + 1 || is == changed + 1, "it lost a user");
            }
            if weight <= before[changed] {
                prop_assert!(is != changed + 1 || was == changed + 1, "it got a user");
            }
            if before.len() <= 2 && was != is {
                prop_assert!([was, is].contains(&(changed + 1)) && [was, is].contains(&0), "{} {}", was, is);
            }
        }
    }

    /// Whatever versions have no pod, and whoever gets what is theirs.
    #[test]
    fn s2_4_users_of_an_empty_version_are_dealt_and_nobody_else_moves(
        (canaries, _, _) in weights(),
        empty in any::<u8>(),
        points in proptest::collection::vec(any::<u64>(), 100),
    ) {
        let asked = shares(&canaries);
        let usable: Vec<bool> = (0..asked.len()).map(|i| empty >> i & 1 == 0).collect();
        let drawn = crate::routing::compile::shares_drawn(&asked, &usable);
        let now = CompiledCohort::new(&by_header("s"), &asked, &drawn, None);
        let mut end = 0;
        let mut widths = vec![0; asked.len()];
        for stretch in &now.stretches {
            prop_assert_eq!(stretch.begin, end);
            widths[stretch.version] += stretch.end - stretch.begin;
            end = stretch.end;
        }
        prop_assert_eq!(end, WHOLE);
        prop_assert_eq!(widths, drawn.iter().map(|s| s.millionths()).collect::<Vec<_>>());
        let well = CompiledCohort::new(&by_header("s"), &asked, &asked, None);
        let spilled = asked != drawn;
        for point in points {
            let (was, is) = (well.version(point), now.at(point).unwrap());
            if usable[was] || !spilled {
                prop_assert_eq!((is.version, is.own), (was, true), "it has a pod");
            } else {
                prop_assert!(usable[is.version] && !is.own);
            }
        }
    }
}

#[test]
fn s5_3_a_rollout_is_judged_by_users_where_two_versions_have_some() {
    let judged = |asked: &[u32], drawn: &[u32], canary| {
        let shares = |of: &[u32]| of.iter().map(|s| share(*s)).collect::<Vec<_>>();
        CompiledCohort::new(&by_header("s"), &shares(asked), &shares(drawn), canary).judged
    };
    assert_eq!(judged(&[900_000, 100_000], &[900_000, 100_000], Some(1)), Some(share(100_000)));
    assert_eq!(judged(&[900_000, 0, 100_000], &[900_000, 0, 100_000], Some(2)), Some(share(100_000)));
    assert_eq!(judged(&[0, WHOLE], &[0, WHOLE], Some(1)), Some(Share::ALL), "its last step counts too");
    assert_eq!(judged(&[900_000, 100_000], &[900_000, 100_000], None), None, "no rollout");
    assert_eq!(judged(&[900_000, 100_000], &[WHOLE, 0], Some(1)), None, "the canary has no pod");
    assert_eq!(judged(&[800_000, 100_000, 100_000], &[800_000, 100_000, 100_000], Some(1)), None, "three");
}
