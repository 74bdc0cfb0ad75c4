//! Shares, pods, problems, and what is carried from table to table.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::model::{Balance, ClusterChange, Protocol, StaticEndpoint, Timestamp, VersionSpec};
use crate::routing::InFlight;
use crate::state::samples::{any_change, backend, deleting, key, lists, pod, pod_key, service, slice, web};
use crate::state::{Request, Source};

/// A route in a line: `NAME SERVICE VERSION[@SERVICE][=WEIGHT][?SELECTOR]…`, and `!fail` for `onEmpty: fail`. The
/// host is the name.
fn route(line: &str) -> RouteSpec {
    let mut words = line.split_whitespace();
    let (name, service) = (words.next().unwrap(), words.next().unwrap());
    let (mut versions, mut on_empty) = (Vec::new(), OnEmpty::Spill);
    for word in words {
        if word == "!fail" {
            on_empty = OnEmpty::Fail;
            continue;
        }
        let (rest, selector) = word.split_once('?').map_or((word, None), |(r, s)| (r, Some(s)));
        let (rest, weight) = rest.split_once('=').map_or((rest, None), |(r, w)| (r, Some(w)));
        let (name, own) = rest.split_once('@').map_or((rest, None), |(n, s)| (n, Some(s)));
        versions.push(VersionSpec {
            name: name.parse().unwrap(),
            selector: selector.map(|s| s.parse().unwrap()),
            backend: own.map(backend),
            weight: weight.map(|w| w.parse().unwrap()),
            max_in_flight_per_pod: None,
        });
    }
    RouteSpec {
        name: name.parse().unwrap(),
        hosts: vec![name.parse().unwrap()],
        paths: Vec::new(),
        backend: backend(service),
        versions,
        audience: crate::model::Audience::default(),
        on_empty,
        balance: Balance::LeastRequest,
        traffic: crate::model::Traffic::default(),
        rollout: None,
        debug_headers: false,
    }
}

/// What is desired, its compiler, and the last table.
struct World {
    desired: Desired,
    compiler: Compiler,
    table: RoutingTable,
    now: Moment,
}

impl World {
    fn new(routes: &[&str]) -> Self {
        let mut world = World {
            desired: Desired::default(),
            compiler: Compiler::default(),
            table: RoutingTable::default(),
            now: Moment::from_millis(1_000_000),
        };
        world.routes(routes);
        world
    }

    /// Service `svc` with these endpoints and pods (`a version=v1, b`), and one route.
    fn with(route: &str, endpoints: &str, pods: &str) -> Self {
        let mut world = World::new(&[route]);
        let pods = pods.split(',').map(str::trim).filter(|p| !p.is_empty());
        let pods =
            pods.map(|p| p.split_once(' ').map_or_else(|| pod(p, ""), |(name, labels)| pod(name, labels)));
        let slices = vec![slice("s1", "svc", "=8080", endpoints)];
        world.hear(lists(vec![service("svc", "=80")], slices, pods.collect()));
        world
    }

    fn compile(&mut self, touched: &Touched) {
        self.table = self.compiler.compile(&self.desired, touched, self.now);
    }

    fn routes(&mut self, routes: &[&str]) {
        let specs = routes.iter().map(|line| route(line)).collect();
        let (touched, _) = self.desired.set_routes(specs, None, Timestamp::default());
        self.compile(&touched);
    }

    fn hear(&mut self, changes: impl IntoIterator<Item = ClusterChange>) {
        let mut touched = Touched::default();
        changes.into_iter().for_each(|change| touched.merge(self.desired.apply_cluster(change)));
        self.compile(&touched);
    }

    fn slice(&mut self, endpoints: &str) {
        self.hear([ClusterChange::SliceApplied(slice("s1", "svc", "=8080", endpoints))]);
    }

    fn weights(&mut self, route: &str, weights: &[(&str, &str)]) {
        let asked = weights.iter().map(|(v, w)| ((*v).to_owned(), w.parse().unwrap())).collect();
        let (source, at) = (Source::Admin, Timestamp::default());
        let request = Request { source, who: None, reason: None, expected: None, at };
        let touched = self.desired.set_weights(route, &asked, request).unwrap();
        self.compile(&touched);
    }

    fn refuse(&mut self, address: &str) {
        let members = self.table.routes.iter().flat_map(|r| &r.versions).flat_map(|v| &v.members);
        let found = members.filter(|m| m.endpoint.id.to_string() == address);
        for member in found {
            member.endpoint.refuse();
        }
        let routes = self.table.routes.iter().map(|r| r.name().clone()).collect();
        self.compile(&Touched { routes, ..Touched::default() });
    }

    fn route(&self, name: &str) -> &Arc<Route> {
        self.table.route(name).unwrap()
    }

    /// The route `shop`, a version a line: `v1 90->100 [10.0.0.1:8080]`, then those unassigned.
    fn show(&self) -> Vec<String> {
        show(self.route("shop"))
    }

    /// How many of `n` requests to `shop` each version got, and for what reason.
    fn requests(&self, n: u64) -> BTreeMap<String, u64> {
        let mut rng = fastrand::Rng::with_seed(n);
        let mut counts = BTreeMap::new();
        for _ in 0..n {
            let choice = self.route("shop").choose(|| rng.u64(..)).unwrap();
            let version = &self.route("shop").versions[choice.version];
            version.tally.begin();
            *counts.entry(format!("{} by {}", version.name, choice.reason)).or_default() += 1;
        }
        counts
    }

    fn problems(&self) -> Vec<String> {
        self.route("shop").problems.iter().map(ToString::to_string).collect()
    }
}

fn show(route: &Route) -> Vec<String> {
    let version = |v: &Version| {
        let candidates: Vec<_> = v.candidates().iter().map(|s| s.endpoint().id.to_string()).collect();
        format!("{} {}->{} [{}]", v.name, v.asked, v.effective, candidates.join(" "))
    };
    let unassigned = |u: &Unassigned| {
        format!("unassigned {}{}", u.address, if u.labels_pending { " pending" } else { "" })
    };
    route.versions.iter().map(version).chain(route.unassigned.iter().map(unassigned)).collect()
}

fn counts(expected: &[(&str, u64)]) -> BTreeMap<String, u64> {
    expected.iter().map(|(what, n)| ((*what).to_owned(), *n)).collect()
}

const SHOP: &str = "shop svc v1?version!=v2 v2=10?version=v2";

#[test]
fn s1_2_pods_go_to_versions_by_label_and_wait_for_it() {
    let mut world = World::with(SHOP, "10.0.0.1 a, 10.0.0.2 b, 10.0.0.3 c, 10.0.0.4", "a, b version=v2");
    let pending = ["v1 90->90 [10.0.0.1:8080]", "v2 10->10 [10.0.0.2:8080]"];
    let rest = ["unassigned 10.0.0.3:8080 pending", "unassigned 10.0.0.4:8080"];
    assert_eq!(world.show(), [&pending[..], &rest[..]].concat());
    world.hear([ClusterChange::PodApplied(pod("c", "version=v2"))]);
    assert_eq!(
        world.show(),
        ["v1 90->90 [10.0.0.1:8080]", "v2 10->10 [10.0.0.2:8080 10.0.0.3:8080]", "unassigned 10.0.0.4:8080"]
    );
    world.hear([ClusterChange::PodDeleted(pod_key("b")), ClusterChange::PodApplied(pod("c", "version=v1"))]);
    assert_eq!(
        world.show(),
        [
            "v1 90->100 [10.0.0.1:8080 10.0.0.3:8080]",
            "v2 10->0 []",
            "unassigned 10.0.0.2:8080 pending",
            "unassigned 10.0.0.4:8080"
        ]
    );
}

#[test]
fn s1_2_a_pod_without_labels_yet_gets_nothing_and_one_without_target_goes_to_a_version_without_selector() {
    let endpoints = "10.0.0.1, 10.0.0.2 a, 10.0.0.3 b";
    let world = World::with("shop svc v1 v2=10?version=v2", endpoints, "a");
    let expected =
        ["v1 90->100 [10.0.0.1:8080 10.0.0.2:8080]", "v2 10->0 []", "unassigned 10.0.0.3:8080 pending"];
    assert_eq!(world.show(), expected);
    // Where no version looks at labels, nothing waits for them.
    let world = World::with("shop svc v1", endpoints, "a");
    assert_eq!(world.show(), ["v1 100->100 [10.0.0.1:8080 10.0.0.2:8080 10.0.0.3:8080]"]);
}

#[test]
fn s1_3_of_selectors_that_overlap_the_first_has_the_pod() {
    let endpoints = "10.0.0.1 a, 10.0.0.2 b, 10.0.0.3 c";
    let pods = "a version=v2 track=beta, b track=beta, c x=y";
    let world = World::with("shop svc v1?version=v1 v2=10?version=v2 beta=20?track=beta", endpoints, pods);
    let empty_stable = ["v1 70->0 []", "v2 10->33.3333 [10.0.0.1:8080]", "beta 20->66.6667 [10.0.0.2:8080]"];
    assert_eq!(world.show(), [&empty_stable[..], &["unassigned 10.0.0.3:8080"]].concat());
    let world = World::with("shop svc beta?track=beta v2=10?version=v2 rest=20", endpoints, pods);
    assert_eq!(
        world.show(),
        ["beta 70->80 [10.0.0.1:8080 10.0.0.2:8080]", "v2 10->0 []", "rest 20->20 [10.0.0.3:8080]"]
    );
}

#[test]
fn a_version_may_have_a_service_of_its_own() {
    let mut world = World::new(&["shop svc v1 v2@canary:http=10 v3@canary:http=20?version=v3"]);
    world.hear(lists(
        vec![service("svc", "=80"), service("canary", "http=80 admin=81")],
        vec![
            slice("s1", "svc", "=8080", "10.0.0.1 a"),
            slice("s2", "canary", "http=9090", "10.0.0.1 a, 10.0.0.2 b, 10.0.0.3 c"),
        ],
        vec![pod("b", "version=v2"), pod("c", "version=v3")],
    ));
    let expected = ["v1 70->90 [10.0.0.1:8080]", "v2 10->10 [10.0.0.2:9090 10.0.0.3:9090]", "v3 20->0 []"];
    // On `canary` a label matters, on `svc` none does.
    assert_eq!(world.show(), [&expected[..], &["unassigned 10.0.0.1:9090 pending"]].concat());
    let own = &world.route("shop").spec.services().map(|s| s.name.to_string()).collect::<Vec<_>>();
    assert_eq!(*own, ["svc", "canary", "canary"]);
    world.hear([ClusterChange::ServiceDeleted(key("canary"))]);
    assert_eq!(world.show(), ["v1 70->100 [10.0.0.1:8080]", "v2 10->0 []", "v3 20->0 []"]);
}

#[test]
fn s2_1_draining_pods_only_as_a_last_resort() {
    let mut world = World::with("shop svc v1", "10.0.0.1 a, 10.0.0.2 b draining, 10.0.0.3 c unready", "");
    assert_eq!(world.show(), ["v1 100->100 [10.0.0.1:8080]"]);
    world.slice("10.0.0.1 a unready, 10.0.0.2 b draining, 10.0.0.3 c unready");
    assert_eq!(world.show(), ["v1 100->100 [10.0.0.2:8080]"]);
    world.slice("10.0.0.2 b dying, 10.0.0.3 c unready");
    assert_eq!(world.show(), ["v1 100->0 []"]);
    assert_eq!(world.route("shop").versions[0].members.len(), 2, "they are shown all the same");
}

#[test]
fn s2_1_a_draining_pod_of_a_version_comes_before_another_version() {
    let world = World::with(SHOP, "10.0.0.1 a, 10.0.0.2 b draining", "a, b version=v2");
    assert_eq!(world.show(), ["v1 90->90 [10.0.0.1:8080]", "v2 10->10 [10.0.0.2:8080]"]);
}

#[test]
fn s2_2_deletion_timestamp_counts_before_the_slice() {
    let mut world = World::with("shop svc v1?!x", "10.0.0.1 a, 10.0.0.2 b", "a, b");
    world.hear([ClusterChange::PodApplied(deleting(pod("a", "")))]);
    assert_eq!(world.show(), ["v1 100->100 [10.0.0.2:8080]"]);
    world.hear([ClusterChange::PodApplied(deleting(pod("b", "")))]);
    assert_eq!(world.show(), ["v1 100->100 [10.0.0.1:8080 10.0.0.2:8080]"], "the last resort");
}

#[test]
fn s2_2_a_pod_that_refused_gets_nothing_until_the_cluster_speaks_of_it() {
    let mut world = World::with(SHOP, "10.0.0.1 a, 10.0.0.2 b, 10.0.0.3 c", "a, b, c version=v2");
    world.refuse("10.0.0.1:8080");
    assert_eq!(world.show()[0], "v1 90->90 [10.0.0.2:8080]");
    // News of others, also of its own labels, is no word about it.
    world.slice("10.0.0.1 a, 10.0.0.2 b, 10.0.0.3 c, 10.0.0.4 d");
    world.hear([ClusterChange::PodApplied(pod("a", "x=y"))]);
    assert_eq!(world.show()[0], "v1 90->90 [10.0.0.2:8080]");
    world.slice("10.0.0.1 a unready, 10.0.0.2 b, 10.0.0.3 c");
    world.slice("10.0.0.1 a, 10.0.0.2 b, 10.0.0.3 c");
    assert_eq!(world.show()[0], "v1 90->90 [10.0.0.1:8080 10.0.0.2:8080]");
}

#[test]
fn s2_2_a_version_whose_pods_all_refused_is_empty_unless_all_are() {
    let mut world = World::with(SHOP, "10.0.0.1 a, 10.0.0.2 b draining, 10.0.0.3 c", "a, b, c version=v2");
    world.refuse("10.0.0.3:8080");
    assert_eq!(world.show(), ["v1 90->100 [10.0.0.1:8080]", "v2 10->0 []"]);
    world.refuse("10.0.0.1:8080");
    assert_eq!(world.show(), ["v1 90->100 [10.0.0.2:8080]", "v2 10->0 []"], "draining before refused");
    world.refuse("10.0.0.2:8080");
    assert_eq!(
        world.show(),
        ["v1 90->90 [10.0.0.1:8080]", "v2 10->10 [10.0.0.3:8080]"],
        "rather any than none"
    );
}

#[test]
fn s2_4_spill_gives_the_share_to_stable() {
    let mut world = World::with(SHOP, "10.0.0.1 a, 10.0.0.2 b unready", "a, b version=v2");
    assert_eq!(world.show(), ["v1 90->100 [10.0.0.1:8080]", "v2 10->0 []"]);
    assert_eq!(world.requests(1_000), counts(&[("v1 by weight", 900), ("v1 by fallback", 100)]));
    world.weights("shop", &[("v2", "100")]);
    assert_eq!(world.show(), ["v1 0->100 [10.0.0.1:8080]", "v2 100->0 []"]);
    assert_eq!(world.requests(1_000), counts(&[("v1 by fallback", 1_000)]));
    world.slice("10.0.0.1 a, 10.0.0.2 b");
    assert_eq!(world.requests(1_000), counts(&[("v2 by weight", 1_000)]));
}

#[test]
fn s2_4_spill_of_an_empty_stable_goes_to_the_others_in_proportion() {
    let route = "shop svc v1?!version v2=10?version=v2 v3=20?version=v3 v4=0?version=v4";
    let endpoints = "10.0.0.2 b, 10.0.0.3 c, 10.0.0.4 d";
    let mut world = World::with(route, endpoints, "b version=v2, c version=v3, d version=v4");
    assert_eq!(
        world.show(),
        [
            "v1 70->0 []",
            "v2 10->33.3333 [10.0.0.2:8080]",
            "v3 20->66.6667 [10.0.0.3:8080]",
            "v4 0->0 [10.0.0.4:8080]"
        ]
    );
    let expected =
        [("v2 by weight", 100), ("v2 by fallback", 233), ("v3 by weight", 200), ("v3 by fallback", 467)];
    for (what, n) in world.requests(1_000) {
        let expected = counts(&expected)[&what];
        assert!(n.abs_diff(expected) <= 2, "{what}: {n} of {expected}");
    }
    // Also the share of a second empty one; but nothing goes to a version that was given nothing.
    world.slice("10.0.0.2 b unready, 10.0.0.3 c, 10.0.0.4 d");
    assert_eq!(world.show()[2], "v3 20->100 [10.0.0.3:8080]");
    world.slice("10.0.0.4 d");
    assert_eq!(world.show(), ["v1 70->0 []", "v2 10->0 []", "v3 20->0 []", "v4 0->0 [10.0.0.4:8080]"]);
}

#[test]
fn s2_4_fail_answers_503_for_the_share_of_an_empty_version() {
    let route = format!("{SHOP} !fail");
    let world = World::with(&route, "10.0.0.1 a", "a");
    assert_eq!(world.show(), ["v1 90->90 [10.0.0.1:8080]", "v2 10->0 []"]);
    assert_eq!(world.requests(1_000), counts(&[("v1 by weight", 900), ("v2 by weight", 100)]));
    let empty = &world.route("shop").versions[1];
    assert!(empty.pick(None, Moment::default(), |_| false, || 0).is_none());
}

#[test]
fn s3_3_at_0_and_100_percent_nothing_is_drawn() {
    let mut world = World::with(SHOP, "10.0.0.1 a, 10.0.0.2 b", "a, b version=v2");
    for (weight, version) in [("0", 0), ("100", 1)] {
        world.weights("shop", &[("v2", weight)]);
        let choice = world.route("shop").choose(|| panic!("a draw")).unwrap();
        assert_eq!((choice.version, choice.reason.token()), (version, "weight"));
    }
}

#[test]
fn s3_3_off_by_less_than_one_though_versions_come_and_go() {
    let mut world = World::with(SHOP, "10.0.0.1 a", "a, b version=v2");
    let mut rng = fastrand::Rng::with_seed(7);
    let (mut due, mut got) = (0_i64, 0_i64);
    for _ in 0..2_000 {
        match rng.u8(0..4) {
            0 => world.slice("10.0.0.1 a"),
            1 => world.slice("10.0.0.2 b"),
            2 => world.weights("shop", &[("v2", &rng.u8(0..=100).to_string())]),
            _ => world.slice("10.0.0.1 a, 10.0.0.2 b"),
        }
        for _ in 0..rng.u8(0..30) {
            let route = world.route("shop");
            due += i64::from(route.versions[1].drawn.millionths());
            let choice = route.choose(|| rng.u64(..)).unwrap();
            got += if choice.version == 1 { 1_000_000 } else { 0 };
            assert!((due - got).abs() < 1_000_000, "due {due}, got {got} millionths");
        }
    }
}

#[test]
fn s3_3_off_by_less_than_one_though_stable_and_canary_change_roles() {
    let orders =
        ["shop svc v1?version!=v2 v2=WEIGHT?version=v2", "shop svc v2?version=v2 v1=WEIGHT?version!=v2"];
    let mut world = World::with(SHOP, "10.0.0.1 a, 10.0.0.2 b", "a, b version=v2");
    let mut rng = fastrand::Rng::with_seed(5);
    let (mut due, mut got) = (0_i64, 0_i64);
    for _ in 0..1_000 {
        world.routes(&[&orders[rng.usize(0..2)].replace("WEIGHT", &rng.u8(0..=100).to_string())]);
        for _ in 0..rng.u8(0..10) {
            let route = world.route("shop");
            let v2 = route.versions.iter().position(|v| v.name.as_str() == "v2").unwrap();
            due += i64::from(route.versions[v2].drawn.millionths());
            let choice = route.choose(|| rng.u64(..)).unwrap();
            got += if choice.version == v2 { 1_000_000 } else { 0 };
            assert!((due - got).abs() < 1_000_000, "due {due}, got {got} millionths");
        }
    }
}

#[test]
fn i3_what_is_counted_and_known_is_carried_by_identity() {
    let mut world = World::with(SHOP, "10.0.0.1 a, 10.0.0.2 b", "a, b version=v2");
    let before = Arc::clone(world.route("shop"));
    let in_flight = before.versions[0].pick(None, Moment::default(), |_| false, || 0).unwrap();
    before.versions[1].members[0].endpoint.refuse();
    // A weight, another config with another order, a relist, and pods that come and go.
    world.weights("shop", &[("v2", "20")]);
    world.routes(&["first svc v1", SHOP, "last svc v1"]);
    world.slice("10.0.0.1 a draining, 10.0.0.2 b, 10.0.0.3 c");
    let after = world.route("shop");
    for (before, after) in before.versions.iter().zip(&after.versions) {
        assert!(Arc::ptr_eq(&before.tally, &after.tally));
        assert!(Arc::ptr_eq(&before.balancer.turn, &after.balancer.turn));
        assert!(Arc::ptr_eq(&before.members[0].endpoint, &after.members[0].endpoint));
    }
    assert_eq!(after.versions[0].members[0].endpoint.in_flight(), 1);
    assert!(after.versions[1].members[0].endpoint.is_refused());
    // The same endpoint in other routes, too.
    let elsewhere = &world.route("last").versions[0].members[0].endpoint;
    assert!(Arc::ptr_eq(in_flight.endpoint(), elsewhere));
    drop(in_flight);
    assert_eq!(elsewhere.in_flight(), 0);
    // A new pod at an old address starts clean.
    world.slice("10.0.0.2 successor");
    world.hear([ClusterChange::PodApplied(pod("successor", "version=v2"))]);
    let successor = &world.route("shop").versions[1].members[0].endpoint;
    assert_eq!((successor.id.to_string().as_str(), successor.is_refused()), ("10.0.0.2:8080", false));
}

#[test]
fn i3_an_address_that_speaks_two_protocols_is_carried_as_two_endpoints() {
    let mut world = World::new(&["shop svc:http v1 v2@svc:grpc=10"]);
    let ports = "http=8080 grpc=8080/grpc";
    let slices = |endpoints| slice("s1", "svc", ports, endpoints);
    world.hear(lists(vec![service("svc", "http=80 grpc=81")], vec![slices("10.0.0.1")], vec![]));
    let endpoint = |world: &World, version: usize| {
        Arc::clone(&world.route("shop").versions[version].members[0].endpoint)
    };
    let (http, grpc) = (endpoint(&world, 0), endpoint(&world, 1));
    assert_eq!((http.protocol, grpc.protocol), (Protocol::Http1, Protocol::H2c));
    http.refuse();
    grpc.refuse();
    world.hear([ClusterChange::SliceApplied(slices("10.0.0.1, 10.0.0.2"))]);
    assert!(Arc::ptr_eq(&http, &endpoint(&world, 0)) && Arc::ptr_eq(&grpc, &endpoint(&world, 1)));
    world.hear([ClusterChange::SliceApplied(slices("10.0.0.1 draining"))]);
    assert!(!http.is_refused() && !grpc.is_refused(), "both are forgiven");
}

#[test]
fn i3_the_splits_place_is_carried() {
    let mut world = World::with(SHOP, "10.0.0.1 a, 10.0.0.2 b", "a, b version=v2");
    world.weights("shop", &[("v2", "0.1")]);
    // A new table for every request: peers that start their split anew would give v2 none, or anything.
    let mut rng = fastrand::Rng::with_seed(3);
    let mut canary = 0;
    for i in 0..5_000 {
        world.slice(if i % 2 == 0 { "10.0.0.1 a, 10.0.0.2 b, 10.0.0.3 c" } else { "10.0.0.1 a, 10.0.0.2 b" });
        canary += world.route("shop").choose(|| rng.u64(..)).unwrap().version;
    }
    assert_eq!(canary, 5);
}

#[test]
fn requests_of_a_revision_are_counted_from_its_beginning() {
    let mut world = World::with(SHOP, "10.0.0.1 a, 10.0.0.2 b", "a, b version=v2");
    let counted = |world: &World| -> Vec<u64> {
        world.route("shop").versions.iter().map(Version::requests_of_revision).collect()
    };
    world.requests(100);
    world.slice("10.0.0.1 a, 10.0.0.2 b, 10.0.0.3 c");
    assert_eq!(counted(&world), [90, 10], "pods do not begin a revision");
    // Nor do other routes, whatever they were counted and wherever they stand.
    world.routes(&["first svc v1?!x v2=10?x", SHOP]);
    assert_eq!(counted(&world), [90, 10]);
    world.weights("shop", &[("v2", "50")]);
    assert_eq!(counted(&world), [0, 0]);
    world.requests(10);
    world.routes(&[SHOP]);
    assert_eq!(counted(&world), [5, 5]);
    world.routes(&[&format!("{SHOP} v3=1")]);
    assert_eq!(counted(&world), [0, 0, 0]);
}

#[test]
fn i2_a_bad_route_costs_only_itself() {
    let mut world = World::new(&["gone nowhere v1 v2=10", "port svc:99 v1", "shop svc v1", "empty svc"]);
    world.hear(lists(vec![service("svc", "=80")], vec![slice("s1", "svc", "=8080", "10.0.0.1")], vec![]));
    assert_eq!(world.show(), ["v1 100->100 [10.0.0.1:8080]"]);
    assert!(world.problems().is_empty());
    let of = |name: &str| world.route(name).problems.iter().map(|p| p.message.clone()).collect::<Vec<_>>();
    assert_eq!(
        of("gone"),
        [
            "Service web/nowhere does not exist",
            "version v1 of route gone has no usable pod (the Service has no pod left for it): its requests are \
             answered 503",
            "version v2 of route gone has no usable pod (the Service has no pod left for it): its requests are \
             answered 503",
        ]
    );
    assert_eq!(of("port")[0], "Service web/svc has no port 99");
    assert!(world.route("empty").choose(|| 0).is_none(), "a route without versions is refused by the config");
}

#[test]
fn the_wording_of_empty_versions() {
    let mut world = World::with(SHOP, "10.0.0.1 a, 10.0.0.2 b unready", "a, b");
    let empty = "version v2 of route shop has no usable pod";
    let told = |world: &World| match world.route("shop").problems.as_slice() {
        [] => ("no problem".to_owned(), String::new()),
        [problem] => (problem.message.clone(), problem.remedy.clone()),
        more => panic!("{more:?}"),
    };
    let (message, remedy) = told(&world);
    assert_eq!(
        message,
        format!("{empty} (no pod of the Service matches `version=v2`): its share goes to v1")
    );
    assert!(remedy.contains("kubectl get pods --show-labels"), "{remedy}");
    world.hear([ClusterChange::PodApplied(pod("b", "version=v2"))]);
    let (message, remedy) = told(&world);
    assert_eq!(message, format!("{empty} (its only pod web/b is not ready): its share goes to v1"));
    assert!(remedy.contains("readiness probe") && !remedy.contains("listens"), "{remedy}");
    world.slice("10.0.0.1 a, 10.0.0.2 b, 10.0.0.3 c unready");
    world.hear([ClusterChange::PodApplied(pod("c", "version=v2"))]);
    assert_eq!(told(&world).0, "no problem");
    world.refuse("10.0.0.2:8080");
    let (message, remedy) = told(&world);
    assert_eq!(
        message,
        format!(
            "{empty} (of its 2 pods web/c is not ready; web/b refuses connections): its share goes to v1"
        )
    );
    assert!(remedy.contains("readiness probe") && remedy.contains("listens on the port"), "{remedy}");
    world.slice("10.0.0.1 a, 10.0.0.2 b");
    world.refuse("10.0.0.2:8080");
    let (message, remedy) = told(&world);
    assert_eq!(message, format!("{empty} (its only pod web/b refuses connections): its share goes to v1"));
    assert!(remedy.contains("listens on the port") && !remedy.contains("readiness"), "{remedy}");
    world.weights("shop", &[("v2", "0")]);
    assert_eq!(told(&world).0, "no problem", "nobody asked for it");
    world.routes(&[&format!("{SHOP} !fail")]);
    world.weights("shop", &[("v2", "10")]);
    world.slice("10.0.0.1 a, 10.0.0.2 b unready, 10.0.0.3 c unready");
    assert_eq!(
        told(&world).0,
        format!("{empty} (none of its 2 pods is ready: web/b and web/c): its requests are answered 503")
    );
    world.slice("10.0.0.1 a, 10.0.0.2 b unready, 10.0.0.3 c unready, 10.0.0.4 d unready, 10.0.0.5 e unready");
    world.hear(["d", "e"].map(|name| ClusterChange::PodApplied(pod(name, "version=v2"))));
    assert!(
        told(&world).0.contains("none of its 4 pods is ready: web/b, web/c and 2 more"),
        "{:?}",
        told(&world)
    );
}

#[test]
fn s2_4_what_is_answered_503_is_no_share_in_force() {
    // Nobody may have what stable cannot take: that canary has no weight.
    let mut world = World::with(
        "shop svc v1?version!=v2 v2=0?version=v2",
        "10.0.0.1 a unready, 10.0.0.2 b",
        "a, b version=v2",
    );
    assert_eq!(world.show(), ["v1 100->0 []", "v2 0->0 [10.0.0.2:8080]"]);
    assert_eq!(world.requests(10), counts(&[("v1 by weight", 10)]), "they are drawn, and answered 503");
    let told = "version v1 of route shop has no usable pod (its only pod web/a is not ready): its requests are answered \
                503, for v2 has no weight that would let it have them";
    assert_eq!(world.route("shop").problems[0].message, told);
    world.weights("shop", &[("v2", "1")]);
    assert_eq!(world.show(), ["v1 99->0 []", "v2 1->100 [10.0.0.2:8080]"]);
}

#[test]
fn pods_by_hand_need_no_port() {
    let mut world = World::new(&[]);
    let hand = |address: &str, labels| StaticEndpoint {
        address: address.parse().unwrap(),
        labels: pod("x", labels).labels,
    };
    let statics =
        BTreeMap::from([(key("svc"), vec![hand("127.0.1.1:80", ""), hand("127.0.1.7:81", "version=v2")])]);
    let routes = vec![route(SHOP), route("other elsewhere v1")];
    let (touched, _) = world.desired.set_routes(routes, Some(statics), Timestamp::default());
    world.compile(&touched);
    assert_eq!(world.show(), ["v1 90->90 [127.0.1.1:80]", "v2 10->10 [127.0.1.7:81]"]);
    assert_eq!(world.route("other").problems[0].message, "Service web/elsewhere is not in discovery.static");
}

/// Routes on three Services, one of them with versions from two.
const ROUTES: [&str; 4] = [
    SHOP,
    "other other:80 v1 v2@third:80=30?version=v2 v3@third:80=20",
    "fails third:80 v1?version=v1 v2=50?version=v2 !fail",
    "again svc:80 v1?version!=v2 v2=0.1",
];

#[test]
fn a_compile_touches_only_what_it_must() {
    let mut world = World::new(&ROUTES);
    world.hear(lists(
        vec![service("svc", "=80"), service("other", "=80"), service("third", "=80")],
        vec![slice("s1", "svc", "=8080", "10.0.0.1 a"), slice("s2", "third", "=8080", "10.0.0.2 b")],
        vec![pod("a", ""), pod("b", "")],
    ));
    let mut check = |act: &dyn Fn(&mut World), expected: &[&str]| {
        let before = world.table.clone();
        act(&mut world);
        let pairs = before.routes.iter().zip(&world.table.routes);
        let changed: Vec<_> =
            pairs.filter(|(b, a)| !Arc::ptr_eq(b, a)).map(|(_, a)| a.name().as_str()).collect();
        assert_eq!(changed, expected);
        assert!(Arc::ptr_eq(&before.matcher, &world.table.matcher));
        assert!(Arc::ptr_eq(&before.by_name, &world.table.by_name));
        assert_eq!(world.table.generation.0, before.generation.0 + 1);
    };
    check(&|world| world.hear([ClusterChange::PodApplied(pod("a", "version=v2"))]), &["shop", "again"]);
    check(&|world| world.hear([ClusterChange::PodApplied(pod("b", "version=v2"))]), &["other", "fails"]);
    check(&|world| world.hear([ClusterChange::PodApplied(pod("nobody", "version=v2"))]), &[]);
    check(&|world| world.weights("fails", &[("v2", "1")]), &["fails"]);
    check(&|world| world.slice("10.0.0.1 a, 10.0.0.3"), &["shop", "again"]);
    check(&|world| world.hear([ClusterChange::ServiceDeleted(key("other"))]), &["other"]);
    // A first list of a namespace changes what is a problem anywhere, but neither hosts nor names.
    check(
        &|world| world.hear([ClusterChange::Pods("new".into(), vec![])]),
        &["shop", "other", "fails", "again"],
    );
}

/// Everything of a table that requests or `status` see, counters apart.
fn content(table: &RoutingTable) -> Vec<String> {
    let mut lines = Vec::new();
    for route in table.routes() {
        lines.push(format!("{} r{}", route.name(), route.revision));
        lines.extend(show(route));
        lines.extend(route.problems.iter().map(ToString::to_string));
        for version in &route.versions {
            lines.extend(version.members.iter().map(|m| format!("{:?} {:?}", m.phase, m.endpoint.id)));
        }
        lines.push(format!("{:?}", route.split.only()));
    }
    lines
}

#[derive(Clone, Debug)]
enum Event {
    Cluster(ClusterChange),
    Weight(usize, u32),
    Config(usize),
}

fn any_event() -> impl Strategy<Value = Event> {
    prop_oneof![
        12 => any_change().prop_map(Event::Cluster),
        2 => (0..ROUTES.len(), 0..=100_u32).prop_map(|(route, weight)| Event::Weight(route, weight)),
        1 => (0..ROUTES.len()).prop_map(Event::Config),
    ]
}

proptest! {
    #[test]
    fn compiled_step_by_step_is_compiled_from_scratch(events in proptest::collection::vec(any_event(), 1..30)) {
        let mut world = World::new(&ROUTES);
        let start = lists(
            vec![service("svc", "=80"), service("other", "=80")],
            vec![],
            vec![pod("a", "version=v1"), pod("b", "version=v2")],
        );
        world.hear(start);
        for event in events {
            match event {
                Event::Cluster(change) => world.hear([change]),
                Event::Weight(route, weight) => {
                    let name = route_name(ROUTES[route]);
                    if world.table.route(name).is_some_and(|r| r.versions.len() == 2) {
                        world.weights(name, &[("v2", &weight.to_string())]);
                    }
                }
                Event::Config(first) => world.routes(&ROUTES[first..]),
            }
            let everything = Touched { everything: true, ..Touched::default() };
            let scratch = Compiler::default().compile(&world.desired, &everything, world.now);
            prop_assert_eq!(content(&world.table), content(&scratch));
            for route in world.table.routes() {
                let sum: u32 = route.versions.iter().map(|v| v.drawn.millionths()).sum();
                prop_assert_eq!(sum, 1_000_000);
                let in_force = |v: &Version| if v.candidates().is_empty() { Share::ZERO } else { v.drawn };
                prop_assert!(route.versions.iter().all(|v| v.effective == in_force(v)));
            }
        }
    }

    #[test]
    fn s2_4_shares_that_are_drawn_sum_to_a_million(
        asked in proptest::collection::vec((0..=1_000_000_u32, any::<bool>()), 1..8),
        fail in any::<bool>(),
    ) {
        // Scaled so that stable gets what the others leave.
        let whole: u64 = asked.iter().map(|(a, _)| u64::from(*a)).sum::<u64>().max(1);
        let mut shares: Vec<u32> =
            asked.iter().map(|(a, _)| u32::try_from(u64::from(*a) * 1_000_000 / whole).unwrap()).collect();
        shares[0] += 1_000_000 - shares.iter().sum::<u32>();
        let shares: Vec<Share> = shares.into_iter().map(|s| Share::from_millionths(s).unwrap()).collect();
        let usable: Vec<bool> = asked.iter().map(|(_, usable)| *usable).collect();
        let on_empty = if fail { OnEmpty::Fail } else { OnEmpty::Spill };
        let heirs = heirs(on_empty, &shares, &usable);
        let drawn = drawn(&shares, &usable, &heirs);
        prop_assert_eq!(drawn.iter().map(|s| s.millionths()).sum::<u32>(), 1_000_000);
        match heirs {
            None => {
                let someone = shares.iter().zip(&usable).any(|(s, u)| *u && *s > Share::ZERO) || usable[0];
                prop_assert!(fail || !someone);
                prop_assert_eq!(drawn, shares);
            }
            Some(_) => {
                for ((asked, drawn), usable) in shares.iter().zip(&drawn).zip(&usable) {
                    if *usable {
                        prop_assert!(drawn >= asked);
                    } else {
                        prop_assert_eq!(*drawn, Share::ZERO);
                    }
                }
                // In proportion: within a millionth of the exact part.
                let own: u64 = shares.iter().zip(&usable).filter(|(_, u)| **u).map(|(s, _)| u64::from(s.millionths())).sum();
                for (asked, drawn) in shares.iter().zip(&drawn).zip(&usable).filter(|(_, u)| **u && !usable[0]).map(|(s, _)| s) {
                    let exact = u64::from(asked.millionths()) * 1_000_000 / own.max(1);
                    prop_assert!(exact.abs_diff(u64::from(drawn.millionths())) <= 1);
                }
            }
        }
    }
}

fn route_name(line: &str) -> &str {
    line.split_once(' ').map_or(line, |(name, _)| name)
}

#[test]
fn endpoints_that_no_table_has_are_forgotten() {
    let mut world = World::with("shop svc v1", "", "");
    for i in 0..2_000_u16 {
        world.slice(&format!("10.0.{}.{}", i / 256, i % 256));
    }
    assert!(world.compiler.endpoints.len() <= 200, "{}", world.compiler.endpoints.len());
    world.hear([ClusterChange::Slices(web(), vec![])]);
    assert_eq!(world.show(), ["v1 100->0 []"]);
}

#[test]
fn s2_3_a_request_in_flight_on_a_leaving_pod_is_counted_to_its_end() {
    let mut world = World::with("shop svc v1", "10.0.0.1", "");
    let in_flight = InFlight::begin(&world.route("shop").versions[0].candidates[0]);
    world.slice("");
    (0..500_u16).for_each(|i| world.slice(&format!("10.0.{}.{}", 1 + i / 256, i % 256)));
    world.slice("10.0.0.1");
    assert_eq!(world.route("shop").versions[0].candidates[0].endpoint().in_flight(), 1);
    drop(in_flight);
    assert_eq!(world.route("shop").versions[0].candidates[0].endpoint().in_flight(), 0);
}

#[path = "endpoints_tests.rs"]
mod endpoints_tests;
