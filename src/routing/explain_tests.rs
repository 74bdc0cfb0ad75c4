//! What `serinus explain` says, word for word.

use std::collections::BTreeMap;

use crate::model::{
    Audience, Balance, Cohort, Condition, HashKey, Mirror, OnEmpty, Part, PathMatch, RouteSpec, Rule,
    StaticEndpoint, Test, Timestamp, Verdict, VersionSpec,
};
use crate::routing::request_view::Words;
use crate::routing::{Compiler, RoutingTable};
use crate::state::Desired;
use crate::state::samples::{backend, key, pod};

fn spec(name: &str, hosts: &[&str], paths: &[PathMatch], weight: &str) -> RouteSpec {
    let version = |name: &str, selector: &str, weight: Option<&str>| VersionSpec {
        name: name.parse().unwrap(),
        selector: Some(selector.parse().unwrap()),
        backend: None,
        weight: weight.map(|w| w.parse().unwrap()),
        max_in_flight_per_pod: None,
    };
    RouteSpec {
        name: name.parse().unwrap(),
        hosts: hosts.iter().map(|h| h.parse().unwrap()).collect(),
        paths: paths.to_vec(),
        backend: backend("svc"),
        versions: vec![version("v1", "version!=v2", None), version("v2", "version=v2", Some(weight))],
        audience: crate::model::Audience::default(),
        on_empty: OnEmpty::Spill,
        balance: Balance::LeastRequest,
        traffic: crate::model::Traffic::default(),
        rollout: None,
        debug_headers: false,
    }
}

/// Pods as `127.0.1.1:80 version=v2`.
fn table(routes: Vec<RouteSpec>, pods: &[&str]) -> RoutingTable {
    let pods = pods.iter().map(|text| {
        let (address, labels) = text.split_once(' ').unwrap_or((text, ""));
        StaticEndpoint { address: address.parse().unwrap(), labels: pod("x", labels).labels }
    });
    let mut desired = Desired::default();
    let statics = BTreeMap::from([(key("svc"), pods.collect())]);
    let (touched, _) = desired.set_routes(routes, Some(statics), Timestamp::default());
    Compiler::default().compile(&desired, &touched, crate::model::Moment::default())
}

/// An explanation as lines: route, version, rule and endpoint where there is just one; the odds; the reasons.
#[track_caller]
fn check(table: &RoutingTable, host: &str, path: &str, expected: &[&str]) {
    let told = table.explain(host, path, &Words::of(&[]));
    let or_none = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
    let mut lines = vec![format!(
        "{} {} {} {}",
        or_none(told.route.map(|r| r.to_string())),
        or_none(told.version.map(|v| v.to_string())),
        or_none(told.rule.map(|r| r.to_string())),
        or_none(told.endpoint),
    )];
    lines
        .extend(told.versions.iter().map(|v| format!("{} {}% {}", v.name, v.percent, v.endpoints.join(","))));
    lines.extend(told.why);
    assert_eq!(lines, expected);
}

#[test]
fn s3_6_what_the_mirror_makes_of_it() {
    let mut copied = spec("shop", &[], &[], "0");
    copied.traffic.mirror = Some(Mirror {
        version: "v2".parse().unwrap(),
        share: "12.5".parse().unwrap(),
        methods: vec![http::Method::GET, http::Method::POST],
        max_body: 1_000,
        max_in_flight: 1,
        timeout: std::time::Duration::from_secs(1),
        compare: false,
    });
    let mut both = RouteSpec { name: "both".parse().unwrap(), ..copied.clone() };
    both.hosts = vec!["both.example.com".parse().unwrap()];
    both.versions[1].weight = Some("10".parse().unwrap());
    let mut there = RouteSpec { name: "there".parse().unwrap(), ..both.clone() };
    there.hosts = vec!["there.example.com".parse().unwrap()];
    there.versions[1].weight = Some("100".parse().unwrap());
    let routes = vec![copied, both, there, spec("none", &["none.example.com"], &[], "10")];
    let with_pods = table(routes.clone(), &["127.0.1.1:80", "127.0.1.7:80 version=v2"]);
    let said = |table: &RoutingTable, host: &str, lines: &[&'static str]| {
        let why = table.explain(host, "/", &Words::of(lines)).why;
        let mirror: Vec<_> = why.into_iter().filter(|line| line.starts_with("mirror: ")).collect();
        mirror.join("; ")
    };
    let not = |why: &str| format!("mirror: not copied to version `v2`: {why}");
    let copied = "mirror: of such requests 12.5 % are copied to version `v2`";
    for (lines, wanted) in [
        (&[][..], copied.to_owned()),
        (&["!POST", "Content-Length: 1000"], copied.to_owned()),
        (
            &["!POST", "Transfer-Encoding: chunked"],
            format!("{copied}, unless the body comes to more than 1000 bytes"),
        ),
        (&["!POST", "Content-Length: 1001"], not("its body has 1001 bytes, more than the 1000 of `maxBody`")),
        (&["!PUT"], not("the method is not GET or POST")),
        (
            &["Connection: keep-alive, Upgrade", "Upgrade: websocket"],
            not("it asks for another protocol (`Upgrade`)"),
        ),
        (&["Upgrade: websocket"], copied.to_owned()),
        (&["X-Serinus-Mirror: true"], not("it is a copy itself (`X-Serinus-Mirror`)")),
    ] {
        assert_eq!(said(&with_pods, "shop.example.com", lines), wanted, "{lines:?}");
    }
    assert_eq!(said(&with_pods, "there.example.com", &[]), not("it goes there itself"));
    assert_eq!(
        said(&with_pods, "both.example.com", &[]),
        "mirror: of such requests, where they do not go there themselves, 12.5 % are copied to version `v2`"
    );
    assert_eq!(said(&with_pods, "none.example.com", &[]), "");
    assert_eq!(said(&table(routes, &[]), "shop.example.com", &[]), not("it gets no answer of a pod"));
}

const REMEDY: &str = "check its pods, labels and readiness with `kubectl get pods --show-labels`";

#[test]
fn both_versions_are_possible() {
    let table = table(
        vec![spec("shop", &["shop.example.com"], &[PathMatch::prefix("/cart").unwrap()], "0.1")],
        &["127.0.1.1:80", "127.0.1.2:80", "127.0.1.7:80 version=v2"],
    );
    check(
        &table,
        "Shop.example.com:8080",
        "/cart/1",
        &[
            "shop - weight -",
            "v1 99.9% 127.0.1.1:80,127.0.1.2:80",
            "v2 0.1% 127.0.1.7:80",
            "route `shop`: host `Shop.example.com:8080` is its own; path `/cart/1` is under its prefix `/cart`",
            "version `v1`: 99.9 % by weight, among 2 endpoints",
            "version `v2`: 0.1 % by weight, among 1 endpoint",
        ],
    );
    check(
        &table,
        "shop.example.com",
        "/",
        &["- - - -", "no route takes host `shop.example.com` with path `/`: answered 404 (no-route)"],
    );
}

#[test]
fn how_host_and_path_were_found() {
    let regex = PathMatch::regex("/v[0-9]").unwrap();
    let table = table(
        vec![
            spec("exact", &["*.example.com"], &[PathMatch::exact("/login").unwrap(), regex], "0"),
            spec("every", &[], &[], "0"),
        ],
        &["127.0.1.1:80"],
    );
    let why = |host: &str, path: &str| table.explain(host, path, &Words::of(&[])).why[0].clone();
    assert_eq!(
        why("a.example.com", "/login"),
        "route `exact`: host `a.example.com` is under its suffix; path `/login` is exactly its own"
    );
    assert_eq!(
        why("a.example.com", "/v1"),
        "route `exact`: host `a.example.com` is under its suffix; path `/v1` matches its regular expression"
    );
    assert_eq!(
        why("a.example.com", "/x"),
        "route `every`: it takes every host that no other route names; path `/x` is under its prefix `/`"
    );
}

#[test]
fn one_version_and_one_endpoint() {
    let table = table(vec![spec("shop", &[], &[], "100")], &["127.0.1.1:80", "127.0.1.7:80 version=v2"]);
    let told = table.explain("", "/", &Words::of(&[]));
    assert_eq!(told.version.map(|v| v.to_string()).as_deref(), Some("v2"));
    assert_eq!(told.endpoint.as_deref(), Some("127.0.1.7:80"));
    assert_eq!(told.revision.map(|r| r.0), Some(1));
}

#[test]
fn s2_4_shares_of_versions_without_pods() {
    let explained = |weight: &str, expected: &[&str]| {
        let table = table(vec![spec("shop", &[], &[], weight)], &["127.0.1.1:80"]);
        let host =
            "route `shop`: it takes every host that no other route names; path `/` is under its prefix `/`";
        let problem = format!(
            "version v2 of route shop has no usable pod (no pod of the Service matches `version=v2`): its share goes to \
             v1: {REMEDY}"
        );
        let lines: Vec<&str> = expected
            .iter()
            .map(|line| match *line {
                "HOST" => host,
                "PROBLEM" => problem.as_str(),
                line => line,
            })
            .collect();
        check(&table, "", "/", &lines);
    };
    explained(
        "10",
        &[
            "shop v1 weight 127.0.1.1:80",
            "v1 100% 127.0.1.1:80",
            "HOST",
            "version `v1`: 90 % by weight, 100 % with the share of versions without pods, among 1 endpoint",
            "version `v2`: 10 % by weight, but it has no usable pod: given away",
            "PROBLEM",
        ],
    );
    explained(
        "100",
        &[
            "shop v1 fallback 127.0.1.1:80",
            "v1 100% 127.0.1.1:80",
            "HOST",
            "version `v1`: 0 % by weight, 100 % with the share of versions without pods, among 1 endpoint",
            "version `v2`: 100 % by weight, but it has no usable pod: given away",
            "PROBLEM",
        ],
    );
}

#[test]
fn nobody_can_answer() {
    let table = table(vec![spec("shop", &[], &[], "0")], &[]);
    let told = table.explain("", "/", &Words::of(&[]));
    assert_eq!(told.why.last().unwrap(), "no endpoint is usable: answered 503 (no-endpoints)");
    assert_eq!(told.endpoint, None);
}

#[test]
fn asking_changes_nothing() {
    let table = table(vec![spec("shop", &[], &[], "50")], &["127.0.1.1:80", "127.0.1.7:80 version=v2"]);
    let route = table.route("shop").unwrap();
    let mut rng = fastrand::Rng::with_seed(1);
    // In each window of two there is one of each; asking in between must not shift the windows.
    for _ in 0..100 {
        let mut versions = [0; 2].map(|_: i32| {
            assert_eq!(table.explain("", "/", &Words::of(&[])), table.explain("", "/", &Words::of(&[])));
            route.choose(|| rng.u64(..)).unwrap().version
        });
        versions.sort_unstable();
        assert_eq!(versions, [0, 1]);
    }
    assert!(route.versions.iter().all(|v| v.tally.begun() == 0));
}

/// A route with each kind of rule, and users.
fn with_audience() -> RouteSpec {
    let header = |name: &str| Part::Header(name.to_owned());
    let to = |version: &str| Verdict::Version(version.parse().unwrap());
    let rules = vec![
        Rule {
            conditions: vec![
                Condition::Value(header("x-beta"), Test::Is("yes".to_owned())),
                Condition::Method(vec!["GET".to_owned(), "HEAD".to_owned()]),
            ],
            verdict: to("v2"),
        },
        Rule {
            conditions: vec![Condition::Value(
                Part::Query("preview".to_owned()),
                Test::matches("v[0-9]").unwrap(),
            )],
            verdict: to("v2"),
        },
        Rule { conditions: vec![Condition::Client(vec!["10.0.0.0/8".parse().unwrap()])], verdict: to("v1") },
        Rule {
            conditions: Vec::new(),
            verdict: Verdict::Canary { by: header("x-canary"), version: "v2".parse().unwrap() },
        },
    ];
    let cohort = Cohort { key: HashKey::Header("x-user".to_owned()), set: false, salt: "shop".to_owned() };
    RouteSpec { audience: Audience { rules, cohort: Some(cohort) }, ..spec("shop", &[], &[], "80") }
}

/// The answer for this request: what decides and who gets it, and why, less the line about host and path.
fn told(table: &RoutingTable, lines: &[&'static str]) -> Vec<String> {
    let told = table.explain("", "/", &Words::of(lines));
    let odds: Vec<_> = told.versions.iter().map(|v| format!("{} {}%", v.name, v.percent)).collect();
    let head = format!("{}: {}", told.rule.map(|r| r.token()).unwrap_or_default(), odds.join(", "));
    std::iter::once(head).chain(told.why.into_iter().skip(1)).collect()
}

const PODS: [&str; 3] = ["127.0.1.1:80", "127.0.1.2:80", "127.0.1.7:80 version=v2"];

#[test]
fn s3_1_which_rule_decides_and_why_the_ones_before_do_not() {
    let table = table(vec![with_audience()], &PODS);
    assert_eq!(
        told(&table, &["X-Beta: yes"]),
        ["rule: v2 100%", "rule 1 fits: version `v2`", "version `v2`: among 1 endpoint"]
    );
    assert_eq!(
        told(&table, &["!POST", "x-beta: yes", "?preview=9", "@11.0.0.1", "x-canary: never"]),
        [
            "rule: v1 100%",
            "rule 1 does not fit: the method is not GET or HEAD",
            "rule 2 does not fit: query parameter `preview` does not match `v[0-9]`",
            "rule 3 does not fit: the client 11.0.0.1 is not in 10.0.0.0/8",
            "rule 4 fits: header `x-canary` is `never`: version `v1`",
            "version `v1`: among 2 endpoints",
        ]
    );
    assert_eq!(
        told(&table, &["x-beta: no", "x-canary: sometimes", "x-user: user-42"]),
        [
            "cohort: v2 100%",
            "rule 1 does not fit: header `x-beta` is not `yes`",
            "rule 2 does not fit: there is no query parameter `preview`",
            "rule 3 does not fit: the client's address is not known",
            "rule 4 does not fit: header `x-canary` is neither `always` nor `never`",
            "cohort: header `x-user` is a user at 0.787846 of 1, and those from 0 to 0.8 are version `v2`'s",
            "version `v2`: among 1 endpoint",
        ]
    );
}

#[test]
fn s3_2_what_becomes_of_who_has_no_key() {
    let route = |cohort: Cohort| {
        let audience = Audience { rules: Vec::new(), cohort: Some(cohort) };
        table(vec![RouteSpec { audience, ..spec("shop", &[], &[], "30") }], &PODS)
    };
    let salt = || "shop".to_owned();
    let weights =
        ["version `v1`: 70 % by weight, among 2 endpoints", "version `v2`: 30 % by weight, among 1 endpoint"];
    let user = HashKey::Cookie("user".to_owned());
    for (cohort, decides, why) in [
        (
            Cohort { key: user.clone(), set: false, salt: salt() },
            "weight",
            "cohort: there is no cookie `user`: by weight",
        ),
        (
            Cohort { key: HashKey::ClientIp, set: false, salt: salt() },
            "weight",
            "cohort: the client's address is not known: by weight",
        ),
        (
            Cohort { key: user, set: true, salt: salt() },
            "cohort",
            "cohort: a browser without cookie `user` is given one, with a point of its own: by chance, as weighted",
        ),
    ] {
        let head = format!("{decides}: v1 70%, v2 30%");
        assert_eq!(told(&route(cohort), &[]), [head.as_str(), why, weights[0], weights[1]]);
    }
}

#[test]
fn s2_4_rules_and_users_of_versions_without_pods() {
    let without = |pods: &[&str]| table(vec![with_audience()], pods);
    let starts = |lines: Vec<String>, expected: &[&str]| {
        assert_eq!(lines.iter().take(expected.len()).collect::<Vec<_>>(), expected, "{lines:#?}");
    };
    starts(
        told(&without(&PODS[..1]), &["x-beta: yes"]),
        &[
            "fallback: v1 100%",
            "rule 1 fits: version `v2`",
            "version `v2` has no usable pod: its requests go to `v1`",
            "version `v1`: among 1 endpoint",
        ],
    );
    let lines = told(&without(&PODS[..1]), &["x-user: user-42"]);
    assert_eq!(lines[0], "fallback: v1 100%");
    assert_eq!(
        lines[5],
        "cohort: header `x-user` is a user at 0.787846 of 1, and those from 0 to 0.8 are version `v1`'s, as those of a version \
         without a usable pod"
    );
    let lines = told(&without(&PODS[2..]), &["x-canary: never"]);
    assert_eq!(lines[0], "fallback: v2 100%");
    assert_eq!(lines[5], "version `v1` has no usable pod: its requests go to the others, by weight");
    let lines = told(&without(&[]), &["x-beta: yes"]);
    assert_eq!(lines[..2], ["rule: v2 100%", "rule 1 fits: version `v2`"]);
    assert_eq!(lines[2], "version `v2` has no usable pod: answered 503 (no-endpoints)");
}
