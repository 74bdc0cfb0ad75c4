//! What a replica says of the revisions that it serves, and what another makes of it.

use super::*;

fn name(text: &str) -> RouteName {
    text.parse().unwrap()
}

/// So many routes, of which each has changed later than the one before.
fn routes(count: u64) -> BTreeMap<RouteName, (Revision, Timestamp)> {
    let route = |number| (name(&format!("route-{number:04}")), (Revision(1), Timestamp::from_millis(number)));
    (0..count).map(route).collect()
}

fn serves(routes: &BTreeMap<RouteName, (Revision, Timestamp)>) -> Serves {
    let said = Serves::of(routes.iter().map(|(name, (revision, at))| (name, *revision, *at)));
    let text = serde_json::to_string(&said).unwrap();
    assert!(text.len() < LARGEST + 100, "it is bounded: {}", text.len());
    serde_json::from_str(&text).unwrap()
}

fn differs(
    theirs: &BTreeMap<RouteName, (Revision, Timestamp)>,
    ours: &BTreeMap<RouteName, (Revision, Timestamp)>,
) -> Difference {
    serves(theirs).differs(&ours.iter().map(|(name, (revision, _))| (name, *revision)).collect())
}

#[test]
fn those_who_serve_the_same_do_not_differ() {
    for count in [0, 1, 50, 2_000] {
        assert_eq!(differs(&routes(count), &routes(count)), Difference::default(), "{count}");
    }
}

#[test]
fn a_few_routes_are_all_named() {
    let (mut theirs, mut ours) = (routes(3), routes(3));
    ours.insert(name("route-0001"), (Revision(2), Timestamp::from_millis(9)));
    ours.insert(name("new"), (Revision(1), Timestamp::from_millis(9)));
    theirs.insert(name("old"), (Revision(4), Timestamp::from_millis(1)));
    let expected =
        [(name("new"), None), (name("old"), Some(Revision(4))), (name("route-0001"), Some(Revision(1)))];
    assert_eq!(differs(&theirs, &ours), Difference { routes: expected.into(), more: false });
}

#[test]
fn of_many_those_that_changed_last_are_named_and_of_the_others_it_is_known_that_they_differ() {
    let same = routes(2_000);
    assert!(serves(&same).routes.len() > 500 && serves(&same).routes.len() < 2_000);
    // The one that is ahead names what changed last, and so what it is ahead in.
    let mut ahead = same.clone();
    ahead.insert(name("route-0000"), (Revision(2), Timestamp::from_millis(9_000)));
    let named = Difference { routes: [(name("route-0000"), Some(Revision(2)))].into(), more: false };
    assert_eq!(differs(&ahead, &same), named);
    // The one that is behind names others; that it differs is known all the same.
    assert_eq!(differs(&same, &ahead), Difference { routes: BTreeMap::new(), more: true });
    // Some are named, and there is another.
    let mut both = same.clone();
    both.insert(name("route-0000"), (Revision(2), Timestamp::from_millis(0)));
    both.insert(name("route-1999"), (Revision(3), Timestamp::from_millis(9_000)));
    let found = differs(&same, &both);
    assert_eq!(found, Difference { routes: [(name("route-1999"), Some(Revision(1)))].into(), more: true });
    // One that has no such route at all.
    let mut fewer = same.clone();
    fewer.remove(&name("route-0000"));
    assert!(differs(&fewer, &same).more && differs(&same, &fewer).more);
}

/// Replicas of two releases compare them.
#[test]
fn the_digest_is_the_same_in_every_release() {
    let said = Serves::of([(&name("shop"), Revision(7), Timestamp::from_millis(0))].into_iter());
    let text = serde_json::to_string(&said).unwrap();
    assert_eq!(text, r#"{"routes":{"shop":7},"count":1,"digest":623626206665008508}"#);
}
