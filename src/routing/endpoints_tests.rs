//! What compiling makes of endpoints: which get requests, which start slowly, which are told to leave.

use std::time::Duration;

use super::*;
use crate::model::{FailureKind, HashKey, HealthCheck, SetAsideReason, UpstreamTls};
use crate::routing::EndpointState;
use crate::routing::{AttemptOutcome, Connections, Endpoint, Standing, hash_key};

/// What an attempt on an endpoint of `shop` came to, so many times.
fn attempts(world: &World, address: &str, outcome: AttemptOutcome, times: u32) -> Vec<SetAsideReason> {
    let version = |v: &&Version| v.members.iter().any(|m| m.endpoint.id.to_string() == address);
    let version = world.route("shop").versions.iter().find(version).unwrap();
    let member = version.members.iter().find(|m| m.endpoint.id.to_string() == address).unwrap();
    let at = InFlight::begin(&member.standing);
    (0..times).filter_map(|_| version.ended(&at, outcome, Duration::ZERO, world.now)).collect()
}

const FAILED: AttemptOutcome = AttemptOutcome::Failed(FailureKind::Reset);

impl World {
    fn again(&mut self) {
        let routes = self.table.routes.iter().map(|r| r.name().clone()).collect();
        self.compile(&Touched { routes, ..Touched::default() });
    }

    fn standing(&self, address: &str) -> Arc<Standing> {
        let mut members = self.route("shop").versions.iter().flat_map(|v| &v.members);
        Arc::clone(&members.find(|m| m.endpoint.id.to_string() == address).unwrap().standing)
    }

    /// Reads the routes anew, with the same change to each.
    fn traffic(&mut self, lines: &[&str], change: impl Fn(&mut RouteSpec)) {
        let mut specs: Vec<_> = lines.iter().map(|line| route(line)).collect();
        specs.iter_mut().for_each(change);
        let (touched, _) = self.desired.set_routes(specs, None, Timestamp::default());
        self.compile(&touched);
    }
}

const FOUR: &str = "10.0.0.1 a, 10.0.0.2 b, 10.0.0.3 c, 10.0.0.4 d";

#[test]
fn s2_5_an_ejected_endpoint_gets_nothing_until_it_is_taken_back() {
    let mut world = World::with("shop svc v1", FOUR, "");
    assert_eq!(attempts(&world, "10.0.0.2:8080", FAILED, 4), []);
    assert_eq!(attempts(&world, "10.0.0.2:8080", FAILED, 1), [SetAsideReason::ConsecutiveFailures]);
    world.again();
    assert_eq!(world.show(), ["v1 100->100 [10.0.0.1:8080 10.0.0.3:8080 10.0.0.4:8080]"]);
    let version = &world.route("shop").versions[0];
    assert_eq!(version.members[1].state(), EndpointState::Ejected);
    assert_eq!(version.tally.snapshot().set_aside[1], (SetAsideReason::ConsecutiveFailures, 1));
    // It is carried through whatever happens, and time alone does not end it.
    world.slice(&format!("{FOUR}, 10.0.0.5 e"));
    world.routes(&["first svc v1", "shop svc v1"]);
    world.now = world.now.after(Duration::from_secs(100));
    world.again();
    assert_eq!(world.route("shop").versions[0].candidates().len(), 4);
    assert!(world.standing("10.0.0.2:8080").readmit(world.now));
    world.again();
    assert_eq!(world.route("shop").versions[0].candidates().len(), 5);
}

#[test]
fn s2_5_what_one_route_holds_of_an_endpoint_is_nothing_to_another() {
    let mut world = World::with("shop svc v1", FOUR, "");
    world.traffic(&["shop svc v1", "other svc v1"], |spec| {
        spec.traffic.outliers.consecutive_failures = u32::from(spec.name.as_str() == "shop");
    });
    assert_eq!(attempts(&world, "10.0.0.1:8080", FAILED, 1).len(), 1);
    world.again();
    assert_eq!(world.route("shop").versions[0].candidates().len(), 3);
    assert_eq!(world.route("other").versions[0].candidates().len(), 4);
    assert!(!world.standing("10.0.0.1:8080").endpoint().is_leaving(), "the other keeps its connections");
}

#[test]
fn s2_5_never_more_than_a_set_part_of_a_version_and_never_the_last() {
    for (endpoints, most, expected) in [
        (FOUR, 50, 2),
        (FOUR, 49, 1),
        (FOUR, 20, 0),
        (FOUR, 100, 3),
        ("10.0.0.1 a", 100, 0),
        ("10.0.0.1 a, 10.0.0.2 b", 50, 1),
        ("10.0.0.1 a, 10.0.0.2 b draining, 10.0.0.3 c unready", 100, 0),
    ] {
        let mut world = World::with("shop svc v1", endpoints, "");
        world.traffic(&["shop svc v1"], |spec| spec.traffic.outliers.most = most);
        let addresses: Vec<_> =
            world.route("shop").versions[0].members.iter().map(|m| m.endpoint.id.to_string()).collect();
        let ejected: usize = addresses.iter().map(|a| attempts(&world, a, FAILED, 20).len()).sum();
        assert_eq!(ejected, expected, "{most} % of {endpoints}");
        world.again();
        assert!(!world.route("shop").versions[0].candidates().is_empty());
        assert_eq!(world.problems(), Vec::<String>::new(), "nothing panics");
    }
}

#[test]
fn s2_5_a_leaving_pod_takes_nobodys_place_among_the_ejected() {
    let mut world = World::with("shop svc v1", FOUR, "");
    world.slice("10.0.0.1 a draining, 10.0.0.2 b draining, 10.0.0.3 c, 10.0.0.4 d");
    assert_eq!(attempts(&world, "10.0.0.1:8080", FAILED, 99), []);
    assert_eq!(attempts(&world, "10.0.0.2:8080", AttemptOutcome::Refused, 1), [SetAsideReason::Refused]);
    assert_eq!(attempts(&world, "10.0.0.3:8080", FAILED, 5), [SetAsideReason::ConsecutiveFailures]);
}

#[test]
fn s2_5_each_version_has_a_part_of_its_own() {
    let mut world = World::with(SHOP, FOUR, "a, b, c version=v2, d version=v2");
    for address in ["10.0.0.1:8080", "10.0.0.2:8080", "10.0.0.3:8080", "10.0.0.4:8080"] {
        attempts(&world, address, FAILED, 9);
    }
    world.again();
    assert_eq!(world.show(), ["v1 90->90 [10.0.0.2:8080]", "v2 10->10 [10.0.0.4:8080]"]);
}

#[test]
fn s2_5_when_too_many_are_set_aside_all_are_used_and_status_says_so() {
    let mut world = World::with("shop svc v1", FOUR, "");
    world.traffic(&["shop svc v1"], |spec| spec.traffic.health_check = Some(HealthCheck::default()));
    let unhealthy =
        |world: &World, last: u8| world.standing(&format!("10.0.0.{last}:8080")).set_unhealthy(true);
    attempts(&world, "10.0.0.1:8080", FAILED, 9);
    unhealthy(&world, 2);
    world.again();
    assert_eq!(world.show(), ["v1 100->100 [10.0.0.3:8080 10.0.0.4:8080]"]);
    assert_eq!(
        attempts(&world, "10.0.0.3:8080", FAILED, 9),
        [],
        "no room beside those set aside for other reasons"
    );
    // One more: those that take no connection are left out all the same.
    world.refuse("10.0.0.4:8080");
    assert_eq!(world.show(), ["v1 100->100 [10.0.0.1:8080 10.0.0.2:8080 10.0.0.3:8080]"]);
    assert!(world.route("shop").versions[0].uses_all());
    let told = world.problems();
    assert!(
        told.len() == 1 && told[0].starts_with("more than 50 % of the pods of version v1 of route shop"),
        "{told:?}"
    );
    assert!(world.standing("10.0.0.1:8080").readmit(world.now));
    world.again();
    assert_eq!(world.show(), ["v1 100->100 [10.0.0.1:8080 10.0.0.3:8080]"]);
    assert_eq!(world.problems(), Vec::<String>::new());
}

#[test]
fn s2_5_health_checks_may_empty_a_version_where_most_is_100() {
    let mut world = World::with(SHOP, "10.0.0.1 a, 10.0.0.2 b", "a, b version=v2");
    let check = |spec: &mut RouteSpec, most| {
        spec.traffic.health_check = Some(HealthCheck::default());
        spec.traffic.outliers.most = most;
    };
    world.traffic(&[SHOP], |spec| check(spec, 100));
    world.standing("10.0.0.2:8080").set_unhealthy(true);
    world.again();
    assert_eq!(world.show(), ["v1 90->100 [10.0.0.1:8080]", "v2 10->0 []"]);
    let told = |world: &World, what: &str, remedy: &str| {
        let problem = &world.route("shop").problems[0];
        assert!(problem.message.contains(what) && problem.remedy.contains(remedy), "{problem:?}");
        assert!(!problem.remedy.contains("listens on the port"), "nobody refused a connection: {problem:?}");
    };
    told(
        &world,
        "(its only pod web/b fails its health checks): its share goes to v1",
        "GET / of `healthCheck`",
    );
    world.standing("10.0.0.1:8080").set_unhealthy(true);
    world.again();
    assert_eq!(
        world.show(),
        ["v1 90->90 [10.0.0.1:8080]", "v2 10->10 [10.0.0.2:8080]"],
        "rather any than none"
    );
    told(
        &world,
        "every pod of route shop fails its health checks (web/a and web/b): requests are sent",
        "`healthCheck`",
    );
    world.traffic(&[SHOP], |spec| check(spec, 50));
    assert_eq!(world.show(), ["v1 90->90 [10.0.0.1:8080]", "v2 10->10 [10.0.0.2:8080]"]);
    told(
        &world,
        "more than 50 % of the pods of version v1 of route shop are set aside (web/a fails its",
        "`healthCheck`",
    );
    world.traffic(&[SHOP], |_| ());
    assert_eq!(world.problems(), Vec::<String>::new(), "nothing is unhealthy without health checks");
}

/// Which endpoints of `shop` are starting slowly.
fn starting(world: &World) -> Vec<String> {
    starting_of(world, "shop")
}

fn starting_of(world: &World, route: &str) -> Vec<String> {
    let slow = Duration::from_secs(30);
    let candidates = world.route(route).versions.iter().flat_map(Version::candidates);
    let young = |s: &&Arc<Standing>| s.came_up().is_some_and(|at| world.now.since(at) < slow);
    candidates.filter(young).map(|s| s.endpoint().id.address.ip().to_string()).collect()
}

#[test]
fn s2_5_slow_start_is_for_those_that_come_up_while_the_route_is_known() {
    let mut world = World::with(SHOP, "10.0.0.1 a, 10.0.0.2 b unready", "a, b, c, d version=v2");
    assert_eq!(starting(&world), Vec::<String>::new(), "not at the start of the process");
    world.now = world.now.after(Duration::from_secs(1));
    world.slice("10.0.0.1 a, 10.0.0.2 b, 10.0.0.3 c");
    assert_eq!(starting(&world), ["10.0.0.2", "10.0.0.3"], "one that is new, one that was not ready");
    world.routes(&["first svc v1", SHOP]);
    assert_eq!(starting(&world), ["10.0.0.2", "10.0.0.3"], "it goes on");
    assert_eq!(starting_of(&world, "first"), ["10.0.0.2", "10.0.0.3"], "a new route finds them as they are");
    world.now = world.now.after(Duration::from_secs(30));
    assert_eq!(starting(&world), Vec::<String>::new());
    world.hear([ClusterChange::PodApplied(pod("c", "version=v2"))]);
    assert_eq!(starting(&world), Vec::<String>::new(), "another version has it, and it is as warm as it was");
    world.now = world.now.after(Duration::from_secs(1));
    world.slice("10.0.0.1 a, 10.0.0.2 b, 10.0.0.3 c, 10.0.0.4 d");
    assert_eq!(starting(&world), ["10.0.0.4"]);
    assert_eq!(starting_of(&world, "first"), ["10.0.0.4"], "new to both");
    world.now = world.now.after(Duration::from_secs(60));
    world.routes(&["first svc v1", SHOP, "last svc v1"]);
    assert_eq!(starting_of(&world, "last"), Vec::<String>::new(), "new is the route, not its endpoints");
}

#[test]
fn s2_5_slow_start_is_for_those_that_come_back() {
    let mut world = World::with("shop svc v1", FOUR, "");
    world.traffic(&["shop svc v1"], |spec| spec.traffic.health_check = Some(HealthCheck::default()));
    attempts(&world, "10.0.0.1:8080", FAILED, 9);
    world.again();
    assert!(world.standing("10.0.0.1:8080").readmit(world.now));
    world.again();
    assert_eq!(starting(&world), ["10.0.0.1"], "ejected");
    world.now = world.now.after(Duration::from_secs(60));
    world.refuse("10.0.0.2:8080");
    world.standing("10.0.0.2:8080").endpoint().forgive();
    world.again();
    assert_eq!(starting(&world), ["10.0.0.2"], "refused");
    world.now = world.now.after(Duration::from_secs(60));
    world.standing("10.0.0.3:8080").set_unhealthy(true);
    world.again();
    world.standing("10.0.0.3:8080").set_unhealthy(false);
    world.again();
    assert_eq!(starting(&world), ["10.0.0.3"], "unhealthy");
}

#[derive(Debug, Default)]
struct Pool(std::sync::atomic::AtomicU32);

impl Connections for Pool {
    fn close_idle(&self) {
        self.0.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    }
}

/// How often the idle connections were closed, and whether it is leaving.
fn closed(endpoint: &Endpoint) -> (u32, bool) {
    let pool = endpoint.connections(Pool::default).unwrap();
    (pool.0.load(std::sync::atomic::Ordering::Relaxed), endpoint.is_leaving())
}

#[test]
fn s2_3_idle_connections_of_a_leaving_pod_are_closed_once() {
    let mut world = World::with("shop svc v1", FOUR, "");
    world.routes(&["shop svc v1", "other svc v1"]);
    let endpoint = Arc::clone(world.standing("10.0.0.1:8080").endpoint());
    assert_eq!(closed(&endpoint), (0, false));
    let rest = "10.0.0.2 b, 10.0.0.3 c, 10.0.0.4 d";
    world.slice(&format!("10.0.0.1 a draining, {rest}"));
    assert_eq!(closed(&endpoint), (1, true), "draining");
    world.slice(&format!("10.0.0.1 a unready, {rest}"));
    world.slice(rest);
    assert_eq!(closed(&endpoint), (1, true), "once");
    world.slice(FOUR);
    assert!(Arc::ptr_eq(&endpoint, world.standing("10.0.0.1:8080").endpoint()));
    assert_eq!(closed(&endpoint), (1, false), "it is back");
    world.slice(rest);
    assert_eq!(closed(&endpoint), (2, true), "gone");
    world.slice(FOUR);
    world.refuse("10.0.0.1:8080");
    assert_eq!(closed(&endpoint), (3, true), "refused");
    endpoint.forgive();
    world.again();
    assert_eq!(closed(&endpoint), (3, false));
    attempts(&world, "10.0.0.1:8080", FAILED, 9);
    world.again();
    assert_eq!(closed(&endpoint), (3, false), "one route alone holds it for bad");
    world.routes(&["shop svc v1"]);
    assert_eq!(closed(&endpoint), (4, true), "and it is the only one now");
}

#[test]
fn s2_3_connections_stay_open_while_versions_and_routes_change_hands() {
    let mut world = World::with(SHOP, FOUR, "a, b, c, d version=v2");
    let endpoint = Arc::clone(world.standing("10.0.0.1:8080").endpoint());
    world.hear([ClusterChange::PodApplied(pod("a", "version=v2"))]);
    world.hear([ClusterChange::PodApplied(pod("a", ""))]);
    world.routes(&["renamed svc v1?version!=v2 v2=10?version=v2"]);
    world.routes(&["shop svc stable?version!=v2 v2=10?version=v2"]);
    world.traffic(&[SHOP], |spec| spec.balance = Balance::RoundRobin);
    assert_eq!(closed(&endpoint), (0, false));
    world.routes(&[]);
    assert_eq!(closed(&endpoint), (1, true));
}

#[test]
fn s2_3_a_draining_pod_of_the_last_resort_is_leaving_all_the_same() {
    let mut world = World::with("shop svc v1", "10.0.0.1 a draining", "");
    let endpoint = Arc::clone(world.standing("10.0.0.1:8080").endpoint());
    assert_eq!((world.show()[0].as_str(), endpoint.is_leaving()), ("v1 100->100 [10.0.0.1:8080]", true));
    world.slice("10.0.0.1 a");
    assert!(!endpoint.is_leaving());
}

#[test]
fn i3_routes_that_speak_differently_share_no_endpoint() {
    let mut world = World::with("shop svc v1", "10.0.0.1", "");
    let lines = ["shop svc v1", "same svc v1", "other svc v1", "h2 svc v1", "plain svc v1", "again svc v1"];
    let change = |spec: &mut RouteSpec| {
        let tls = |name: Option<&str>| UpstreamTls {
            server_name: name.map(str::to_owned),
            ..UpstreamTls::default()
        };
        spec.traffic.upstream_tls = match spec.name.as_str() {
            "shop" | "same" => Some(tls(Some("pods"))),
            "other" => Some(tls(None)),
            _ => None,
        };
        spec.traffic.protocol = (spec.name.as_str() == "h2").then_some(Protocol::H2c);
    };
    world.traffic(&lines, change);
    let of = |world: &World, name: &str| Arc::clone(&world.route(name).versions[0].members[0].endpoint);
    let all: Vec<_> = lines.iter().map(|line| of(&world, route_name(line))).collect();
    for (a, first) in all.iter().enumerate() {
        for (b, second) in all.iter().enumerate() {
            let same = a == b || matches!((a, b), (0, 1) | (1, 0) | (4, 5) | (5, 4));
            assert_eq!(Arc::ptr_eq(first, second), same, "{} and {}", lines[a], lines[b]);
        }
    }
    let name = |e: &Endpoint| e.tls.as_ref().and_then(|tls| tls.server_name.clone());
    assert_eq!(name(&all[0]).as_deref(), Some("pods"));
    assert_eq!(name(&all[2]).as_deref(), Some("other"), "the host of the route");
    assert_eq!((all[3].protocol, all[4].protocol), (Protocol::H2c, Protocol::Http1));
    // A change of settings is another endpoint, and the old one lets its connections go.
    assert_eq!(closed(&all[2]), (0, false));
    world.traffic(&lines, |spec| {
        change(spec);
        if spec.name.as_str() == "other" {
            spec.hosts.clear();
        }
    });
    let renamed = of(&world, "other");
    assert_eq!(name(&renamed).as_deref(), Some("svc.web.svc"), "without a host, the Service");
    assert_eq!((closed(&all[2]), Arc::ptr_eq(&all[2], &renamed)), ((1, true), false));
    assert!(Arc::ptr_eq(&all[0], &of(&world, "shop")));
}

#[test]
fn s2_5_a_key_stays_where_it_is_while_pods_come_and_go() {
    let mut world = World::with("shop svc v1", FOUR, "");
    let hash = |spec: &mut RouteSpec| spec.balance = Balance::Hash(HashKey::Header("x-user".to_owned()));
    world.traffic(&["shop svc v1"], hash);
    let owners = |world: &World| -> Vec<String> {
        let version = &world.route("shop").versions[0];
        let of =
            |key: u64| version.pick(Some(key), world.now, |_| false, || 0).unwrap().endpoint().id.to_string();
        (0..400_u64).map(|key| of(hash_key(&key.to_le_bytes()))).collect()
    };
    let before = owners(&world);
    let ring = |world: &World| Arc::clone(world.route("shop").versions[0].balancer.ring.as_ref().unwrap());
    let first = ring(&world);
    world.again();
    assert!(Arc::ptr_eq(&first, &ring(&world)), "compiled anew only when the endpoints change");
    world.slice(&format!("{FOUR}, 10.0.0.5 e"));
    let after = owners(&world);
    let mut moved = 0;
    for (before, after) in before.iter().zip(&after).filter(|(b, a)| b != a) {
        assert_eq!(after, "10.0.0.5:8080", "from {before} to the new one alone");
        moved += 1;
    }
    assert!((40..130).contains(&moved), "{moved} of 400 to one of 5");
    world.slice(FOUR);
    assert_eq!(owners(&world), before, "and back");
}

#[test]
fn s4_3_the_retry_budget_outlives_the_tables() {
    let mut world = World::with(SHOP, FOUR, "a, b, c, d version=v2");
    let active = world.route("shop").budget.begin();
    world.slice("10.0.0.1 a");
    world.routes(&["first svc v1", SHOP]);
    assert_eq!((world.route("shop").budget.active(), world.route("first").budget.active()), (1, 0));
    drop(active);
    assert_eq!(world.route("shop").budget.active(), 0);
}

#[derive(Clone, Debug)]
enum Event {
    Fails(u8),
    Refuses(u8),
    IsForgiven(u8),
    Unhealthy(u8, bool),
    IsTakenBack(u8),
    /// The state of each of four pods: there and ready, draining, unready, or not there.
    Slice([u8; 4]),
    Compile,
}

fn any_event() -> impl Strategy<Value = Event> {
    prop_oneof![
        6 => (1..5_u8).prop_map(Event::Fails),
        1 => (1..5_u8).prop_map(Event::Refuses),
        1 => (1..5_u8).prop_map(Event::IsForgiven),
        2 => (1..5_u8, any::<bool>()).prop_map(|(pod, unhealthy)| Event::Unhealthy(pod, unhealthy)),
        3 => (1..5_u8).prop_map(Event::IsTakenBack),
        2 => proptest::array::uniform4(0..6_u8).prop_map(Event::Slice),
        4 => Just(Event::Compile),
    ]
}

proptest! {
    #[test]
    fn s2_5_whatever_happens_to_endpoints(
        events in proptest::collection::vec(any_event(), 1..60),
        most in 0..=100_u8,
    ) {
        let mut world = World::with("shop svc v1", FOUR, "");
        world.traffic(&["shop svc v1"], |spec| {
            spec.traffic.outliers.most = most;
            spec.traffic.outliers.consecutive_failures = 2;
            spec.traffic.health_check = Some(HealthCheck::default());
        });
        let find = |world: &World, pod: u8| {
            let members = &world.route("shop").versions[0].members;
            members.iter().find(|m| m.endpoint.id.to_string() == format!("10.0.0.{pod}:8080")).cloned()
        };
        for event in events {
            match event {
                Event::Fails(pod) if find(&world, pod).is_some() => {
                    attempts(&world, &format!("10.0.0.{pod}:8080"), FAILED, 1);
                }
                Event::Refuses(pod) => drop(find(&world, pod).map(|m| m.endpoint.refuse())),
                Event::IsForgiven(pod) => drop(find(&world, pod).map(|m| m.endpoint.forgive())),
                Event::Unhealthy(pod, is) => drop(find(&world, pod).map(|m| m.standing.set_unhealthy(is))),
                Event::IsTakenBack(pod) => drop(find(&world, pod).map(|m| m.standing.readmit(world.now))),
                Event::Slice(pods) => {
                    let states = ["ready", "ready", "ready", "draining", "unready"];
                    let pods = pods.iter().zip(["1 a", "2 b", "3 c", "4 d"]);
                    let pods = pods.filter_map(|(state, pod)| Some(format!("10.0.0.{pod} {}", states.get(usize::from(*state))?)));
                    world.slice(&pods.collect::<Vec<_>>().join(", "));
                }
                Event::Fails(_) | Event::Compile => {}
            }
            world.now = world.now.after(Duration::from_secs(1));
            world.again();
            let version = &world.route("shop").versions[0];
            let ejected = version.members.iter().filter(|m| m.standing.is_ejected()).count();
            prop_assert_eq!(version.members.first().map_or(0, |m| m.standing.ejected_with_it()), ejected);
            let ready = |m: &&Member| m.phase == crate::model::EndpointPhase::Ready;
            let takes = version.members.iter().filter(ready).any(|m| !m.endpoint.is_refused());
            prop_assert!(!takes || !version.candidates().is_empty(), "a version is never set aside whole: {:?}", version);
            for member in &version.members {
                let used = version.candidates().iter().any(|c| Arc::ptr_eq(c, &member.standing));
                prop_assert_eq!(member.endpoint.is_leaving(), !(used && ready(&member)));
                prop_assert!(!used || version.uses_all() || !member.endpoint.is_refused());
                let set_aside = member.standing.is_ejected() || member.standing.is_unhealthy();
                prop_assert!(!used || version.uses_all() || !ready(&member) || !set_aside);
            }
        }
    }
}
