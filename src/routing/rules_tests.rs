//! What fits a rule, kind by kind.

use super::*;
use crate::model::Test;
use crate::routing::request_view::Words;

fn header(name: &str) -> Part {
    Part::Header(name.to_owned())
}

fn is(text: &str) -> Test {
    Test::Is(text.to_owned())
}

/// Whether a rule with these conditions fits, and leads to its version.
fn fits(conditions: &[Condition], lines: &[&'static str]) -> bool {
    let verdict = Verdict::Version("v2".parse().unwrap());
    let rule = CompiledRule::new(&Rule { conditions: conditions.to_vec(), verdict }, 1, false);
    let decided = rule.decide(&Words::of(lines));
    assert!(decided.is_none_or(|version| version == 1));
    decided.is_some()
}

#[test]
fn s3_1_values_are_there_or_equal_or_match_as_a_whole() {
    let there = [Condition::Value(header("x-beta"), Test::Present)];
    assert!(fits(&there, &["X-Beta: 0"]) && fits(&there, &["x-beta:"]) && !fits(&there, &["x-betas: 1"]));
    let equal = [Condition::Value(header("x-beta"), is("1"))];
    assert!(fits(&equal, &["x-beta: 1"]) && fits(&equal, &["x-beta: 0", "x-beta: 1"]));
    assert!(!fits(&equal, &["x-beta: 11"]) && !fits(&equal, &["x-beta: 1, 2"]) && !fits(&equal, &[]));
    let regex = [Condition::Value(Part::Cookie("group".to_owned()), Test::matches("beta-[0-9]+").unwrap())];
    assert!(fits(&regex, &["cookie: a=b; group=beta-12"]));
    assert!(!fits(&regex, &["cookie: group=beta-12x"]) && !fits(&regex, &["cookie: groups=beta-1"]));
    let query = [Condition::Value(Part::Query("preview".to_owned()), is("on & on"))];
    assert!(fits(&query, &["?a=1&preview=on+%26%20on"]) && !fits(&query, &["?preview=off"]));
}

#[test]
fn s3_1_methods_and_clients() {
    let methods = [Condition::Method(vec!["GET".to_owned(), "HEAD".to_owned()])];
    assert!(fits(&methods, &["!HEAD"]) && !fits(&methods, &["!POST"]));
    let clients = [Condition::Client(vec!["10.0.0.0/8".parse().unwrap(), "fd00::/8".parse().unwrap()])];
    assert!(
        fits(&clients, &["@10.1.2.3"])
            && fits(&clients, &["@::ffff:10.1.2.3"])
            && fits(&clients, &["@fd00::1"])
    );
    assert!(!fits(&clients, &["@11.1.2.3"]) && !fits(&clients, &[]));
}

#[test]
fn s3_1_all_conditions_of_a_rule_must_hold() {
    let all = [
        Condition::Value(header("x-beta"), Test::Present),
        Condition::Value(Part::Cookie("staff".to_owned()), is("yes")),
        Condition::Method(vec!["POST".to_owned()]),
    ];
    let lines = ["x-beta: 1", "cookie: staff=yes", "!POST"];
    assert!(fits(&all, &lines));
    for left_out in 0..lines.len() {
        let mut lines = lines.to_vec();
        lines.remove(left_out);
        assert!(!fits(&all, &lines), "{lines:?}");
    }
}

#[test]
fn s3_1_always_and_never_as_with_ingress_nginx() {
    let verdict = Verdict::Canary { by: header("x-canary"), version: "v2".parse().unwrap() };
    let conditions = vec![Condition::Method(vec!["GET".to_owned()])];
    let rule = CompiledRule::new(&Rule { conditions, verdict }, 1, false);
    let decide = |lines: &[&'static str]| rule.decide(&Words::of(lines));
    assert_eq!(decide(&["X-Canary: always"]), Some(1));
    assert_eq!(decide(&["X-Canary: never"]), Some(0));
    for other in ["X-Canary: Always", "X-Canary: true", "X-Canary:", "X-Canaries: always"] {
        assert_eq!(decide(&[other]), None, "{other}");
    }
    assert_eq!(decide(&[]), None);
    assert_eq!(
        decide(&["X-Canary: yes", "X-Canary: never", "X-Canary: always"]),
        Some(0),
        "the first that says it"
    );
    assert_eq!(decide(&["X-Canary: always", "!POST"]), None, "its other conditions must hold");
}

#[test]
fn s5_6_cookies_lead_no_more_to_a_version_that_was_taken_back() {
    let cookie = || Part::Cookie("beta".to_owned());
    let to = |version: &str| Verdict::Version(version.parse().unwrap());
    let asks = |by| Verdict::Canary { by, version: "v2".parse().unwrap() };
    let decide = |conditions: &[Condition], verdict, lines: &[&'static str]| {
        CompiledRule::new(&Rule { conditions: conditions.to_vec(), verdict }, 1, true)
            .decide(&Words::of(lines))
    };
    let by_cookie = [Condition::Value(cookie(), Test::Present)];
    let by_header = [Condition::Value(header("x"), Test::Present)];
    let both = ["cookie: beta=always", "x: always"];
    assert_eq!(decide(&by_cookie, to("v2"), &both), None);
    assert_eq!(decide(&[by_header[0].clone(), by_cookie[0].clone()], to("v2"), &both), None);
    assert_eq!(decide(&by_header, to("v2"), &both), Some(1), "no session: it is asked for each time");
    assert_eq!(decide(&[], asks(cookie()), &both), None);
    assert_eq!(decide(&[], asks(cookie()), &["cookie: beta=never"]), Some(0));
    assert_eq!(decide(&[], asks(header("x")), &both), Some(1));
}
