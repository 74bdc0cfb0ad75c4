//! Which version a request gets, from a config's words to the choice: rules, then its user, then the weights.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::*;
use crate::model::{
    Audience, Balance, Cohort, Condition, Guard, HashKey, Moment, OnFail, Part, Placement, RolloutSpec,
    RolloutStep, Rule, StaticEndpoint, Test, Timestamp, Traffic, Verdict, VersionSpec,
};
use crate::rollout::Asked;
use crate::routing::request_view::Words;
use crate::routing::{Compiler, RoutingTable};
use crate::state::samples::{backend, key, pod};
use crate::state::{Desired, Proposal, Request, Source, Touched};

/// One route, `shop`, with v1, v2 and v3, as a router has it.
struct World {
    desired: Desired,
    compiler: Compiler,
    table: RoutingTable,
}

/// By the header `x-version`, then `X-Canary`, then the cookie `beta`.
fn rules() -> Vec<Rule> {
    let to = |part, test, version: &str| Rule {
        conditions: vec![Condition::Value(part, test)],
        verdict: Verdict::Version(version.parse().unwrap()),
    };
    let header = |name: &str| Part::Header(name.to_owned());
    vec![
        to(header("x-version"), Test::Is("2".to_owned()), "v2"),
        to(header("x-version"), Test::Present, "v3"),
        Rule {
            conditions: Vec::new(),
            verdict: Verdict::Canary { by: header("x-canary"), version: "v2".parse().unwrap() },
        },
        to(Part::Cookie("beta".to_owned()), Test::Present, "v2"),
    ]
}

fn by_user() -> Cohort {
    Cohort { key: HashKey::Header("x-user".to_owned()), set: false, salt: "shop".to_owned() }
}

fn spec(audience: Audience, on_empty: OnEmpty, weights: [&str; 2]) -> RouteSpec {
    let version = |name: &str, weight: Option<&str>| VersionSpec {
        name: name.parse().unwrap(),
        selector: Some(format!("version={name}").parse().unwrap()),
        backend: None,
        weight: weight.map(|weight| weight.parse().unwrap()),
        max_in_flight_per_pod: None,
    };
    let step = |percent| RolloutStep {
        weight: Share::from_percent(percent).unwrap(),
        hold: std::time::Duration::from_secs(60),
        pause: false,
    };
    RouteSpec {
        name: "shop".parse().unwrap(),
        hosts: Vec::new(),
        paths: Vec::new(),
        backend: backend("svc"),
        versions: vec![version("v1", None), version("v2", Some(weights[0])), version("v3", Some(weights[1]))],
        audience,
        on_empty,
        balance: Balance::LeastRequest,
        traffic: Traffic::default(),
        rollout: Some(RolloutSpec {
            canary: "v2".parse().unwrap(),
            steps: vec![step(10.0), step(50.0)],
            guard: Guard::default(),
            on_fail: OnFail::Rollback,
            auto: false,
            abort_deadline: std::time::Duration::ZERO,
            hooks: Vec::new(),
        }),
        debug_headers: false,
    }
}

impl World {
    /// With pods of these versions.
    fn new(spec: RouteSpec, pods: &[&str]) -> Self {
        let mut world = Self {
            desired: Desired::default(),
            compiler: Compiler::default(),
            table: RoutingTable::default(),
        };
        world.config(spec, pods);
        world
    }

    fn config(&mut self, spec: RouteSpec, pods: &[&str]) {
        let pods = pods.iter().zip(1..).map(|(version, n)| StaticEndpoint {
            address: ([127, 0, 1, n], 80).into(),
            labels: pod("x", &format!("version={version}")).labels,
        });
        let statics = BTreeMap::from([(key("svc"), pods.collect())]);
        let (touched, _) = self.desired.set_routes(vec![spec], Some(statics), Timestamp::default());
        self.compile(&touched);
    }

    fn compile(&mut self, touched: &Touched) {
        self.table = self.compiler.compile(&self.desired, touched, Moment::default());
    }

    fn weights(&mut self, weights: &[(&str, &str)]) {
        let asked = weights.iter().map(|(v, w)| ((*v).to_owned(), w.parse().unwrap())).collect();
        let touched = self.desired.set_weights("shop", &asked, request()).unwrap();
        self.compile(&touched);
    }

    fn rollout(&mut self, asked: Asked) {
        let touched = self.desired.change("shop", &Proposal::Ask(asked), request()).unwrap();
        self.compile(&touched);
    }

    fn route(&self) -> &Arc<Route> {
        self.table.route("shop").unwrap()
    }

    fn choose(&self, lines: &[&'static str]) -> Choice {
        let mut rng = fastrand::Rng::with_seed(7);
        self.route().choose_for(&Words::of(lines), || rng.u64(..)).unwrap()
    }

    /// Version and reason.
    fn gets(&self, lines: &[&'static str]) -> (usize, ChoiceReason) {
        let choice = self.choose(lines);
        (choice.version, choice.reason)
    }
}

fn request() -> Request {
    Request { source: Source::Admin, who: None, reason: None, expected: None, at: Timestamp::default() }
}

const ALL: [&str; 3] = ["v1", "v2", "v3"];

fn both() -> Audience {
    Audience { rules: rules(), cohort: Some(by_user()) }
}

#[test]
fn s3_rules_come_first_then_the_user_then_the_weight() {
    use ChoiceReason::{Cohort, Rule, Weight};
    // user-42 is at 0.79, and v3 is at the right end.
    let world = World::new(spec(both(), OnEmpty::Spill, ["0", "25"]), &ALL);
    assert_eq!(world.gets(&["x-user: user-42"]), (2, Cohort));
    assert_eq!(world.gets(&["x-user: user-42", "x-version: 2"]), (1, Rule), "weight 0 does not matter");
    assert_eq!(world.gets(&["x-version: 9"]), (2, Rule), "the next rule");
    assert_eq!(world.gets(&["x-canary: always", "x-user: user-42"]), (1, Rule));
    assert_eq!(world.gets(&["x-canary: never", "x-user: user-42"]), (0, Rule));
    assert_eq!(world.gets(&["x-canary: maybe", "x-user: user-42"]), (2, Cohort));
    assert_eq!(world.gets(&["x-canary: maybe", "cookie: beta="]), (1, Rule), "the rules after it are asked");
    assert_eq!(world.gets(&["x-canary: maybe"]).1, Weight);
    let narrow = World::new(spec(both(), OnEmpty::Spill, ["0", "21"]), &ALL);
    assert_eq!(narrow.gets(&["x-user: user-42"]), (0, Cohort));
    let plain = World::new(spec(Audience::default(), OnEmpty::Spill, ["0", "0"]), &ALL);
    assert!(plain.route().audience.is_none(), "it costs nothing there");
    assert_eq!(plain.gets(&["x-canary: always"]), (0, Weight));
}

#[test]
fn s3_3_requests_without_a_key_are_split_exactly() {
    let world = World::new(spec(both(), OnEmpty::Spill, ["30", "0"]), &ALL);
    let mut rng = fastrand::Rng::with_seed(3);
    let mut canary = 0;
    for n in 1..=2_000 {
        // Others in between move nothing.
        for lines in [&["x-version: 2"], &["x-user: user-1"]] {
            world.route().choose_for(&Words::of(lines), || rng.u64(..));
        }
        canary += world.route().choose_for(&Words::of(&[]), || rng.u64(..)).unwrap().version;
        assert!((f64::from(n) * 0.3 - canary as f64).abs() < 1.0, "{canary} of {n}");
    }
}

#[test]
fn s2_4_a_rule_whose_version_has_no_pod_leads_to_stable_or_is_answered_503() {
    use ChoiceReason::{Fallback, Rule};
    let spill = World::new(spec(both(), OnEmpty::Spill, ["0", "0"]), &["v1", "v3"]);
    assert_eq!(spill.gets(&["x-version: 2"]), (0, Fallback));
    assert_eq!(spill.gets(&["x-version: 3"]), (2, Rule));
    let fail = World::new(spec(both(), OnEmpty::Fail, ["0", "0"]), &["v1", "v3"]);
    assert_eq!(fail.gets(&["x-version: 2"]), (1, Rule));
    assert!(fail.route().versions[1].candidates().is_empty(), "which is answered 503");
    // Stable is empty too: those that have a weight.
    let others = World::new(spec(both(), OnEmpty::Spill, ["0", "5"]), &["v3"]);
    assert_eq!(others.gets(&["x-version: 2"]), (2, Fallback));
    assert_eq!(others.gets(&["x-canary: never"]), (2, Fallback));
    // One with weight 0 is given nothing.
    let nobody = World::new(spec(both(), OnEmpty::Spill, ["0", "0"]), &["v3"]);
    assert_eq!(nobody.gets(&["x-version: 2"]), (1, Rule));
    assert_eq!(nobody.gets(&["x-version: 3"]), (2, Rule), "a rule may lead there all the same");
}

#[test]
fn s2_4_users_of_a_version_without_a_pod_are_stables_until_it_is_back() {
    use ChoiceReason::{Cohort, Fallback};
    let with = |pods: &[&str]| World::new(spec(both(), OnEmpty::Spill, ["10", "25"]), pods);
    assert_eq!(with(&["v1", "v2"]).gets(&["x-user: user-42"]), (0, Fallback));
    assert_eq!(with(&ALL).gets(&["x-user: user-42"]), (2, Cohort));
    let fail = World::new(spec(both(), OnEmpty::Fail, ["10", "25"]), &["v1", "v2"]);
    assert_eq!(fail.gets(&["x-user: user-42"]), (2, Cohort));
    assert!(fail.route().versions[2].candidates().is_empty(), "which is answered 503");
}

/// Replicas share nothing, and may have come to the same weights by other ways.
#[test]
fn s3_2_replicas_agree_on_every_user() {
    let one = World::new(spec(both(), OnEmpty::Spill, ["20", "5"]), &ALL);
    let mut other = World::new(spec(both(), OnEmpty::Spill, ["1", "0"]), &["v1"]);
    other.weights(&[("v2", "90")]);
    other.config(spec(both(), OnEmpty::Spill, ["1", "0"]), &ALL);
    other.weights(&[("v3", "5"), ("v2", "20")]);
    let mut rng = fastrand::Rng::with_seed(5);
    for user in 0..5_000 {
        let request = Words { headers: vec![("X-User".to_owned(), format!("u{user}"))], ..Words::of(&[]) };
        let mut gets = |world: &World| world.route().choose_for(&request, || rng.u64(..)).unwrap();
        assert_eq!(gets(&one), gets(&other));
    }
}

#[test]
fn s5_1_a_user_is_recorded_with_its_point_while_a_rollout_is_under_way() {
    let mut world = World::new(spec(both(), OnEmpty::Spill, ["0", "0"]), &ALL);
    assert_eq!(world.choose(&["x-user: user-42"]).placed, None, "no rollout");
    world.rollout(Asked::Start);
    let placed = world.choose(&["x-user: user-42"]).placed.map(Placed::placement);
    assert_eq!(placed, Some(Placement::User { point: 0xc9b0_49e3_9321_2d78, share: 0.1 }));
    let drawn = world.choose(&[]).placed.map(Placed::placement);
    assert!(matches!(drawn, Some(Placement::Split { share: 0.1, .. })), "{drawn:?}");
    assert_eq!(world.choose(&["x-version: 2"]).placed, None, "nobody drew for what a rule gives");
    world.rollout(Asked::Promote);
    let placed = world.choose(&["x-user: user-42"]).placed.map(Placed::placement);
    assert_eq!(placed, Some(Placement::User { point: 0xc9b0_49e3_9321_2d78, share: 0.5 }));
}

#[test]
fn s5_6_an_aborted_rollout_leaves_no_user_and_no_cookie_behind() {
    use ChoiceReason::{Cohort, Rule};
    let mut world = World::new(spec(both(), OnEmpty::Spill, ["0", "0"]), &ALL);
    world.rollout(Asked::Start);
    let canary = (0..1_000)
        .map(|user| Words { headers: vec![("x-user".to_owned(), format!("u{user}"))], ..Words::of(&[]) })
        .find(|request| world.route().choose_for(request, || 0).unwrap().version == 1)
        .unwrap();
    assert_eq!(world.gets(&["cookie: beta=1"]), (1, Rule));
    world.rollout(Asked::Abort);
    let choice = world.route().choose_for(&canary, || 0).unwrap();
    assert_eq!((choice.version, choice.reason), (0, Cohort));
    assert_eq!(world.gets(&["cookie: beta=1"]).0, 0, "what a browser keeps is a session");
    assert_eq!(world.gets(&["x-canary: always"]), (1, Rule), "what is asked for each time is none");
    // Until the next rollout, or a weight of its own.
    world.weights(&[("v3", "1")]);
    assert_eq!(world.gets(&["cookie: beta=1"]).0, 0);
    world.weights(&[("v2", "0.5"), ("v3", "0")]);
    assert_eq!(world.gets(&["cookie: beta=1"]), (1, Rule));
    world.weights(&[("v2", "0")]);
    assert_eq!(world.gets(&["cookie: beta=1"]).0, 0);
    world.rollout(Asked::Start);
    assert_eq!(world.gets(&["cookie: beta=1"]), (1, Rule));
}

#[test]
fn users_are_counted_apart_from_requests_and_anew_with_each_revision() {
    let mut world = World::new(spec(both(), OnEmpty::Spill, ["50", "0"]), &ALL);
    let users = |world: &World| -> Vec<f64> {
        world.route().versions.iter().map(|v| v.users_of_revision().unwrap().round()).collect()
    };
    assert_eq!(users(&world), [0.0, 0.0, 0.0]);
    for _ in 0..50 {
        for lines in [&["x-user: user-42"], &["x-user: user-43"], &["x-version: 2"]] {
            world.choose(lines);
        }
    }
    // 0.79 and 0.75.
    assert_eq!(users(&world), [2.0, 0.0, 0.0]);
    world.compile(&Touched { everything: true, ..Touched::default() });
    assert_eq!(users(&world), [2.0, 0.0, 0.0], "they outlive the table");
    world.weights(&[("v2", "60")]);
    assert_eq!(users(&world), [0.0, 0.0, 0.0]);
    world.choose(&["x-user: user-42"]);
    let salted = Audience { rules: Vec::new(), cohort: Some(Cohort { salt: "x".to_owned(), ..by_user() }) };
    world.config(spec(salted, OnEmpty::Spill, ["50", "0"]), &ALL);
    assert_eq!(users(&world), [0.0, 0.0, 0.0], "they were dealt anew");
    world.config(spec(Audience::default(), OnEmpty::Spill, ["50", "0"]), &ALL);
    assert!(world.route().versions.iter().all(|v| v.users_of_revision().is_none()));
}

/// A browser's request: with the cookie that it has.
struct Browser {
    cookie: Option<String>,
}

impl RequestView for Browser {
    fn method(&self) -> &str {
        "GET"
    }

    fn header(&self, name: &str, see: &mut dyn FnMut(&[u8]) -> bool) -> bool {
        name == "cookie" && self.cookie.as_ref().is_some_and(|cookie| see(cookie.as_bytes()))
    }

    fn query(&self) -> &str {
        ""
    }

    fn client(&self) -> Option<std::net::IpAddr> {
        None
    }
}

/// Schemes that pin a browser to a version drift to the canary, to which each new draw can only add.
#[test]
fn s3_2_cookie_mode_does_not_drift_over_a_million_requests_of_ten_thousand_users() {
    const USERS: usize = 10_000;
    let key = HashKey::Cookie("serinus".to_owned());
    let cohort = Cohort { key, set: true, salt: "shop".to_owned() };
    let audience = Audience { rules: Vec::new(), cohort: Some(cohort) };
    let mut world = World::new(spec(audience, OnEmpty::Spill, ["5", "0"]), &ALL);
    let mut rng = fastrand::Rng::with_seed(11);
    let mut browsers: Vec<_> = (0..USERS).map(|_| (Browser { cookie: None }, None)).collect();
    let mut of_canary = Vec::new();
    for tenth in 0..10 {
        let mut requests = 0;
        for _ in 0..100_000 {
            let (browser, version) = &mut browsers[rng.usize(..USERS)];
            let choice = world.route().choose_for(browser, || rng.u64(..)).unwrap();
            assert_eq!(choice.reason, ChoiceReason::Cohort);
            match choice.new_user {
                Some(value) => browser.cookie = Some(format!("a=b; serinus={value:016x}")),
                None => assert_eq!(*version, Some(choice.version), "a user stays where he is"),
            }
            *version = Some(choice.version);
            requests += choice.version;
        }
        let canary = browsers.iter().filter(|(_, version)| *version == Some(1)).count();
        of_canary.push((canary, requests));
        // All browsers have come by now, but for a handful.
        assert!(browsers.iter().filter(|(browser, _)| browser.cookie.is_none()).count() < 5 * (10 - tenth));
    }
    let (users, _) = of_canary[9];
    assert!((400..600).contains(&users), "5 % of the users: {of_canary:?}");
    for (canary, requests) in &of_canary {
        // Its users are the same all along, and so are their requests, within noise.
        assert!(canary.abs_diff(users) <= 3, "{of_canary:?}");
        let expected = 10.0 * users as f64;
        assert!((*requests as f64 - expected).abs() < 6.0 * expected.sqrt(), "{of_canary:?}");
    }
    let measured = world.route().versions[1].users_of_revision().unwrap() / users as f64;
    assert!((0.85..1.15).contains(&measured), "{measured}");
    // More of it only adds users.
    world.weights(&[("v2", "10")]);
    for (browser, version) in browsers.iter().filter(|(browser, _)| browser.cookie.is_some()) {
        let now = world.route().choose_for(browser, || rng.u64(..)).unwrap().version;
        assert!(*version == Some(0) || now == 1);
    }
}
