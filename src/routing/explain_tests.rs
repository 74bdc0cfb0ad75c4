//! What `serinus explain` says, word for word.

use std::collections::BTreeMap;

use crate::model::{Balance, OnEmpty, PathMatch, RouteSpec, StaticEndpoint, Timestamp, VersionSpec};
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
    let told = table.explain(host, path);
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
    let why = |host: &str, path: &str| table.explain(host, path).why[0].clone();
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
    let told = table.explain("", "/");
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
    let told = table.explain("", "/");
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
            assert_eq!(table.explain("", "/"), table.explain("", "/"));
            route.choose(|| rng.u64(..)).unwrap().version
        });
        versions.sort_unstable();
        assert_eq!(versions, [0, 1]);
    }
    assert!(route.versions.iter().all(|v| v.tally.begun() == 0));
}
