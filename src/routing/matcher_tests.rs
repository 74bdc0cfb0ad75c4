//! Precedence, hosts and paths, and the matcher against a plain reading of its rules.

use proptest::prelude::*;

use super::*;
use crate::model::{Balance, OnEmpty};
use crate::state::samples::backend;

/// A route in a line: `NAME HOST… PATH…`; `/a` is a prefix, `=/a` exact, `~/a.*` a regular expression.
fn spec(line: &str) -> Arc<RouteSpec> {
    let mut words = line.split_whitespace();
    let name = words.next().unwrap().parse().unwrap();
    let (mut hosts, mut paths) = (Vec::new(), Vec::new());
    for word in words {
        match word.as_bytes()[0] {
            b'=' => paths.push(PathMatch::exact(&word[1..]).unwrap()),
            b'~' => paths.push(PathMatch::regex(&word[1..]).unwrap()),
            b'/' => paths.push(PathMatch::prefix(word).unwrap()),
            _ => hosts.push(word.parse().unwrap()),
        }
    }
    Arc::new(RouteSpec {
        name,
        hosts,
        paths,
        backend: backend("svc"),
        versions: Vec::new(),
        audience: crate::model::Audience::default(),
        on_empty: OnEmpty::Spill,
        balance: Balance::LeastRequest,
        traffic: crate::model::Traffic::default(),
        rollout: None,
        debug_headers: false,
    })
}

/// Each case is host, path and the name of the route, `-` for none.
#[track_caller]
fn check(routes: &[&str], cases: &[(&str, &str, &str)]) {
    let specs: Vec<_> = routes.iter().map(|line| spec(line)).collect();
    let matcher = Matcher::new(&specs);
    for (host, path, expected) in cases {
        let found = matcher.find(host, path).map_or("-", |m| specs[m.route].name.as_str());
        assert_eq!(found, *expected, "{host} {path}");
    }
}

#[test]
fn the_most_specific_host_comes_first() {
    check(
        &["every", "com *.com", "suffix *.example.com", "long *.a.example.com", "exact b.a.example.com"],
        &[
            ("b.a.example.com", "/", "exact"),
            ("c.a.example.com", "/", "long"),
            ("c.b.a.example.com", "/", "long"),
            ("a.example.com", "/", "suffix"),
            ("example.com", "/", "com"),
            ("com", "/", "every"),
            ("badexample.com", "/", "com"),
            ("example.org", "/", "every"),
            ("", "/", "every"),
        ],
    );
}

#[test]
fn in_a_host_exact_comes_before_regex_before_the_longest_prefix() {
    check(
        &["root /", "a /a", "ab /a/b", "exact =/a/b", "long ~/a/b(/.*)?", "short ~/.*/c"],
        &[
            ("", "/", "root"),
            ("", "/x", "root"),
            ("", "/a", "a"),
            ("", "/a/", "a"),
            ("", "/a/x/y", "a"),
            ("", "/a/b", "exact"),
            ("", "/a/b/", "long"),
            ("", "/a/b/c", "long"),
            ("", "/a/c", "short"),
        ],
    );
    check(&["a /a", "ab /a/b"], &[("", "/a/b/c", "ab"), ("", "/a/bc", "a"), ("", "/b", "-")]);
}

#[test]
fn of_two_claims_to_the_same_the_first_in_the_config_has_it() {
    check(
        &["first h.com /a =/b ~/c", "second h.com /a =/b ~/c /d"],
        &[
            ("h.com", "/a", "first"),
            ("h.com", "/b", "first"),
            ("h.com", "/c", "first"),
            ("h.com", "/d", "second"),
        ],
    );
    check(&["first *.h.com", "second *.h.com"], &[("x.h.com", "/", "first")]);
    // Regular expressions of the same length, too.
    check(&["first ~/a.", "second ~/.b"], &[("", "/ab", "first"), ("", "/cb", "second")]);
}

#[test]
fn a_host_without_a_route_for_the_path_hands_on_to_the_less_specific() {
    check(
        &["every /a", "suffix *.example.com /b", "exact x.example.com /c"],
        &[
            ("x.example.com", "/c", "exact"),
            ("x.example.com", "/b", "suffix"),
            ("x.example.com", "/a", "every"),
            ("x.example.com", "/d", "-"),
            ("y.example.com", "/c", "-"),
        ],
    );
}

#[test]
fn case_port_and_trailing_dot_of_the_host_do_not_matter() {
    let cases: Vec<_> = [
        "shop.example.com",
        "Shop.EXAMPLE.com",
        "shop.example.com:8080",
        "SHOP.example.com:80",
        "shop.example.com.",
        "Shop.example.com.:443",
        "shop.example.com:",
    ]
    .map(|host| (host, "/", "shop"))
    .into();
    check(&["shop Shop.Example.com"], &cases);
    check(
        &["shop shop.example.com"],
        &[
            ("xshop.example.com", "/", "-"),
            ("shop.example.com.evil", "/", "-"),
            ("shop example.com", "/", "-"),
        ],
    );
    // The path's case does.
    check(&["a /Path"], &[("", "/Path", "a"), ("", "/path", "-")]);
}

#[test]
fn addresses_as_hosts() {
    check(
        &["four 127.0.0.1", "six [fd00::a]"],
        &[
            ("127.0.0.1", "/", "four"),
            ("127.0.0.1:8080", "/", "four"),
            ("[fd00::a]", "/", "six"),
            ("[FD00::A]:8080", "/", "six"),
            ("[fd00::b]", "/", "-"),
            ("[fd00::a", "/", "-"),
            ("fd00::a", "/", "-"),
            ("]", "/", "-"),
            ("[", "/", "-"),
            (":", "/", "-"),
        ],
    );
    // How IPv6 is written in the config does not matter.
    check(&["six fd00::a"], &[("[fd00::a]:80", "/", "six")]);
    check(&["six [FD00:0::000a]"], &[("[fd00::a]", "/", "six")]);
}

#[test]
fn a_host_too_long_to_be_one_belongs_to_those_who_take_every_host() {
    let label = "x".repeat(63);
    let longest = format!("{label}.{label}.{label}.{}", "y".repeat(61));
    assert_eq!(longest.len(), 253);
    let exact = format!("long {longest}");
    let routes = [exact.as_str(), "suffix *.com", "every"];
    for (host, expected) in [
        (longest.clone(), "long"),
        (longest.to_uppercase(), "long"),
        (format!("{longest}.:65535"), "long"),
        (format!("{}.com", "x".repeat(251)), "suffix"),
        (format!("{}.com", "x".repeat(252)), "every"),
        (format!("{}.COM", "x".repeat(252)), "every"),
        ("a.".repeat(100_000) + "com", "every"),
        ("É".repeat(200), "every"),
    ] {
        check(&routes, &[(&host, "/", expected)]);
    }
}

#[test]
fn prefixes_are_by_element() {
    check(
        &["a /a", "b /b/", "deep /c/d/e"],
        &[
            ("", "/a", "a"),
            ("", "/a/", "a"),
            ("", "/a/b", "a"),
            ("", "/a//b", "a"),
            ("", "/ab", "-"),
            ("", "/a.html", "-"),
            ("", "/b", "b"),
            ("", "/b/c", "b"),
            ("", "/c/d/e/f", "deep"),
            ("", "/c/d", "-"),
            ("", "//a", "-"),
            ("", "", "-"),
        ],
    );
}

#[test]
fn the_root_and_no_path_take_every_path() {
    let deep = "/x".repeat(50_000);
    let cases = ["/", "//", "/a/b", "", "*", "/é/ü", "a/b", deep.as_str()];
    for route in ["all /", "all"] {
        check(&[route], &cases.map(|path| ("h.com", path, "all")));
        check(&[route, "a /a /é/u"], &cases.map(|p| ("h.com", p, if p == "/a/b" { "a" } else { "all" })));
    }
    check(&["a /a"], &[("h.com", "*", "-"), ("h.com", "", "-")]);
}

#[test]
fn regexes_go_by_the_longest_pattern_and_match_the_whole_path() {
    check(
        &["short ~/v[0-9]", "long ~/v[0-9]+/users", "any ~.*s"],
        &[
            ("", "/v1", "short"),
            ("", "/v1/users", "long"),
            ("", "/v1/users/x", "-"),
            ("", "/cats", "any"),
            ("", "x/v1", "-"),
        ],
    );
}

#[test]
fn i2_regexes_too_large_for_one_automaton_are_tried_one_by_one() {
    let specs = [spec("short ~/v[0-9]"), spec("long ~/v[0-9]+/users|/v1")];
    let mut matcher = Matcher::new(&specs);
    assert!(matcher.every.regex_set.take().is_some());
    let found = |path: &str| matcher.find("", path).map(|m| m.route);
    assert_eq!(
        [found("/v1"), found("/v2"), found("/v2/users"), found("/")],
        [Some(1), Some(0), Some(1), None]
    );
}

#[test]
fn it_says_how_it_was_found() {
    let specs = [spec("a x.com =/e /p ~/r.*"), spec("b *.com"), spec("c /c")];
    let matcher = Matcher::new(&specs);
    let check = |host: &str, path: &str, by: (MatchedBy, MatchedBy)| {
        let matched = matcher.find(host, path).unwrap();
        assert_eq!((matched.host, matched.path), by, "{host}{path}");
    };
    check("x.com", "/e", (MatchedBy::Exact, MatchedBy::Exact));
    check("x.com:80", "/p/q", (MatchedBy::Exact, MatchedBy::Part(2)));
    check("x.com", "/rest", (MatchedBy::Exact, MatchedBy::Regex));
    check("x.com", "/z", (MatchedBy::Part(3), MatchedBy::Part(0)));
    check("x.org", "/c", (MatchedBy::Every, MatchedBy::Part(2)));
}

/// The rules read plainly: every claim of every route that fits, the best by rank.
fn reference(specs: &[Arc<RouteSpec>], host: &str, path: &str) -> Option<RouteIndex> {
    let host = host.rsplit_once(':').map_or(host, |(host, _)| host).trim_end_matches('.').to_lowercase();
    let mut best = None;
    for (index, spec) in specs.iter().enumerate() {
        let host_ranks = spec.hosts.iter().filter_map(|h| match h {
            HostMatch::Exact(exact) => (*exact == host).then_some((2, exact.len())),
            HostMatch::Suffix(suffix) => host.ends_with(&format!(".{suffix}")).then_some((1, suffix.len())),
        });
        let Some(host_rank) = host_ranks.chain(spec.hosts.is_empty().then_some((0, 0))).max() else {
            continue;
        };
        let path_ranks = spec.paths.iter().filter_map(|p| match p {
            PathMatch::Exact(exact) => (exact == path).then_some((2, 0)),
            PathMatch::Regex(regex) => regex.is_match(path).then_some((1, regex.as_str().len())),
            PathMatch::Prefix(prefix) => {
                (path == prefix || path.starts_with(&format!("{prefix}/"))).then_some((0, prefix.len()))
            }
        });
        let Some(path_rank) = path_ranks.chain(spec.paths.is_empty().then_some((0, 0))).max() else {
            continue;
        };
        let rank = (host_rank, path_rank);
        if best.as_ref().is_none_or(|(known, _)| rank > *known) {
            best = Some((rank, index));
        }
    }
    best.map(|(_, index)| index)
}

proptest! {
    #[test]
    fn is_what_the_rules_say(
        routes in proptest::collection::vec(
            (
                proptest::collection::vec("(\\*\\.)?([ab]\\.){0,2}[ab]", 0..3),
                proptest::collection::vec("=(/[ab]){1,3}|(/[ab]{1,2}){1,3}/?|/|~/[ab.](/|[ab]\\*)?[ab]?", 0..3),
            ),
            0..8,
        ),
        requests in proptest::collection::vec(("([abAB]\\.){0,3}[ab]\\.?(:80)?", "(/[ab]{0,2}){1,4}"), 1..20),
    ) {
        let lines = routes.iter().enumerate();
        let specs: Vec<_> =
            lines.map(|(i, (hosts, paths))| spec(&format!("r{i} {} {}", hosts.join(" "), paths.join(" ")))).collect();
        let matcher = Matcher::new(&specs);
        for (host, path) in &requests {
            let found = matcher.find(host, path).map(|m| m.route);
            prop_assert_eq!(found, reference(&specs, host, path), "{} {}", host, path);
        }
    }

    #[test]
    fn nothing_from_outside_panics(host in "\\PC{0,300}", path in "\\PC{0,300}") {
        let specs = [spec("a x.com /a"), spec("b *.com ~/é+.*"), spec("c"), spec("d [::1] =/é")];
        prop_assert!(Matcher::new(&specs).find(&host, &path).is_some());
    }
}
