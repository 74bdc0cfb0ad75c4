//! Who gets which version: the fields of rules and cohorts.

use super::{check_route, route};
use crate::model::{Audience, Cohort, Condition, HashKey, Part, Rule, Test, Verdict};

const TWO: &str = "versions: [{name: v1, selector: a}, {name: v2}]";

fn rules(rules: &str) -> Vec<Rule> {
    route(&format!("{TWO}, rules: [{rules}]")).audience.rules
}

fn to(version: &str) -> Verdict {
    Verdict::Version(version.parse().unwrap())
}

fn value(part: Part, test: Test) -> Condition {
    Condition::Value(part, test)
}

fn is(text: &str) -> Test {
    Test::Is(text.to_owned())
}

#[test]
fn s3_1_every_field_of_a_rule_means_what_it_says() {
    let header = |name: &str| Part::Header(name.to_owned());
    let (cookie, query) = (|n: &str| Part::Cookie(n.to_owned()), |n: &str| Part::Query(n.to_owned()));
    for (text, conditions, verdict) in [
        ("{header: X-Beta, version: v2}", vec![value(header("x-beta"), Test::Present)], to("v2")),
        ("{cookie: Beta, value: '', version: v1}", vec![value(cookie("Beta"), is(""))], to("v1")),
        (
            "{query: 'p[]', regex: 'a|b', version: v2}",
            vec![value(query("p[]"), Test::matches("a|b").unwrap())],
            to("v2"),
        ),
        (
            "{methods: [GET, PURGE], version: v2}",
            vec![Condition::Method(vec!["GET".to_owned(), "PURGE".to_owned()])],
            to("v2"),
        ),
        (
            "{clientCidrs: [10.1.2.3/8, '::1'], version: v2}",
            vec![Condition::Client(vec!["10.0.0.0/8".parse().unwrap(), "::1/128".parse().unwrap()])],
            to("v2"),
        ),
        (
            "{header: x, methods: [GET], and: [{cookie: c, value: '1'}, {query: q}], version: v2}",
            vec![
                value(header("x"), Test::Present),
                Condition::Method(vec!["GET".to_owned()]),
                value(cookie("c"), is("1")),
                value(query("q"), Test::Present),
            ],
            to("v2"),
        ),
        (
            "{header: X-Canary, canary: v2, methods: [GET]}",
            vec![Condition::Method(vec!["GET".to_owned()])],
            Verdict::Canary { by: header("x-canary"), version: "v2".parse().unwrap() },
        ),
    ] {
        assert_eq!(rules(text), [Rule { conditions, verdict }], "{text}");
    }
    assert_eq!(route(TWO).audience, Audience::default());
}

#[test]
fn s3_2_every_field_of_a_cohort_means_what_it_says() {
    let cohort = |text: &str| route(&format!("{TWO}, cohort: {text}")).audience.cohort.unwrap();
    let salt = |salt: &str| salt.to_owned();
    let (header, cookie) = (HashKey::Header("x-user".to_owned()), HashKey::Cookie("User".to_owned()));
    // The route is `r`.
    assert_eq!(cohort("{header: X-User}"), Cohort { key: header, set: false, salt: salt("r") });
    assert_eq!(
        cohort("{cookie: User, set: true, salt: 's 1'}"),
        Cohort { key: cookie.clone(), set: true, salt: salt("s 1") }
    );
    assert_eq!(
        cohort("{cookie: User, clientIp: false}"),
        Cohort { key: cookie, set: false, salt: salt("r") }
    );
    assert_eq!(cohort("{clientIp: true}"), Cohort { key: HashKey::ClientIp, set: false, salt: salt("r") });
}

#[test]
fn every_error_of_rules_is_said_at_once() {
    check_route(
        &format!(
            "{TWO}, rules: [
{{header: X Y, version: v3}},
{{header: x, cookie: c, version: v2}},
{{header: x, value: a, regex: b, version: v2}},
{{header: x, regex: '(', version: v2}},
{{value: a, methods: [get, TRACE, GET, GET], version: v2}},
{{version: v2}},
{{header: x}},
{{header: x, version: v1, canary: v2}},
{{header: x, canary: v1}},
{{methods: [GET], canary: v2}},
{{header: x, value: always, canary: v2}},
{{and: [{{}}, {{query: q, header: h}}, {{value: x}}], clientCidrs: [10.0.0.0/33], version: v}}]"
        ),
        &[
            "4:12: routes[0].rules[0].header: `X Y` cannot be the name of a header: use letters, digits and `-`, like `X-User`",
            "4:26: routes[0].rules[0].version: the route has no version `v3`: name one of `v1`, `v2`, or add it there",
            "5:3: routes[0].rules[1]: says more than one thing: give one of `header`, `cookie`, `query`, and the others under \
             `and`",
            "6:32: routes[0].rules[2].regex: cannot be used with `value`: remove one of them",
            "7:22: routes[0].rules[3].regex: `(` is not a regular expression that can be used: unclosed group",
            "8:11: routes[0].rules[4].value: does not say of what: add one of `header`, `cookie`, `query`",
            "8:24: routes[0].rules[4].methods[0]: `get` is another method than GET: write GET",
            "8:29: routes[0].rules[4].methods[1]: TRACE is answered 405 and never routed: remove it",
            "8:41: routes[0].rules[4].methods[3]: `GET` is given twice, first on line 8: change or remove one",
            "9:3: routes[0].rules[5]: says nothing of the request: give one of `header`, `cookie`, `query`, `methods`, \
             `clientCidrs`; what every request gets is the weight of a version",
            "10:3: routes[0].rules[6]: leads nowhere: add `version`, or `canary`",
            "11:36: routes[0].rules[7].canary: cannot be used with `version`: remove one of them",
            "12:23: routes[0].rules[8].canary: `v1` is the stable version: name one of the others",
            "13:28: routes[0].rules[9].canary: does not say where a request asks for it: add one of `header`, `cookie`, `query`",
            "14:22: routes[0].rules[10].value: cannot be used with `canary`, which looks for `always` and `never`: remove one of \
             them",
            "15:10: routes[0].rules[11].and[0]: says nothing: give one of `header`, `cookie`, `query`",
            "15:14: routes[0].rules[11].and[1]: says more than one thing: give one of `header`, `cookie`, `query`",
            "15:37: routes[0].rules[11].and[2]: says nothing: give one of `header`, `cookie`, `query`",
            "15:64: routes[0].rules[11].clientCidrs[0]: `10.0.0.0/33` is not a network: write ADDRESS/LENGTH, like 10.0.0.0/8 \
             or fd00::/8",
            "15:87: routes[0].rules[11].version: the route has no version `v`: name one of `v1`, `v2`, or add it there",
        ],
    );
}

/// The rules of which it is said that they would never fit.
#[track_caller]
fn never_fit(rules: &[&str], expected: &[usize]) {
    let text = format!("{TWO}, rules: [\n{}]", rules.join(",\n"));
    let said =
        super::errors(&format!("routes:\n- {{name: r, service: a/b,\n  {}}}", text.replace('\n', "\n  ")));
    let found: Vec<usize> = (0..rules.len())
        .filter(|i| {
            said.iter().any(|e| e.contains(&format!("rules[{i}]: would never fit: the rule on line")))
        })
        .collect();
    assert_eq!((found.as_slice(), said.len()), (expected, expected.len()), "{said:#?}");
}

#[test]
fn s3_1_a_rule_that_an_earlier_one_leaves_nothing_is_refused() {
    never_fit(&["{header: x, version: v2}", "{header: X, value: '1', version: v1}"], &[1]);
    never_fit(&["{header: x, value: '1', version: v2}", "{header: x, version: v1}"], &[]);
    never_fit(&["{header: x, regex: 'a.*', version: v2}", "{header: x, value: ab, version: v1}"], &[1]);
    never_fit(&["{header: x, regex: 'a.*', version: v2}", "{header: x, value: b, version: v1}"], &[]);
    never_fit(&["{header: x, regex: 'a.*', version: v2}", "{header: x, regex: 'a.*', version: v1}"], &[1]);
    never_fit(&["{header: x, version: v2}", "{cookie: x, version: v1}", "{query: x, version: v1}"], &[]);
    never_fit(&["{header: x, version: v2}", "{cookie: y, and: [{header: x}], version: v1}"], &[1]);
    never_fit(&["{header: x, methods: [GET], version: v2}", "{header: x, version: v1}"], &[]);
    never_fit(&["{methods: [GET, HEAD], version: v2}", "{header: x, methods: [GET], version: v1}"], &[1]);
    never_fit(&["{methods: [GET], version: v2}", "{methods: [GET, HEAD], version: v1}"], &[]);
    never_fit(
        &[
            "{clientCidrs: [10.0.0.0/8], version: v2}",
            "{clientCidrs: [10.1.0.0/16, 10.2.0.0/16], version: v1}",
        ],
        &[1],
    );
    never_fit(
        &["{clientCidrs: [10.1.0.0/16], version: v2}", "{clientCidrs: [10.0.0.0/8], version: v1}"],
        &[],
    );
    // What asks for the canary takes two words.
    never_fit(&["{header: x, canary: v2}", "{header: x, version: v1}"], &[]);
    never_fit(
        &["{header: x, canary: v2}", "{header: x, value: never, version: v2}", "{header: x, canary: v2}"],
        &[1, 2],
    );
    never_fit(&["{header: x, value: always, version: v1}", "{header: x, canary: v2}"], &[]);
    never_fit(
        &[
            "{header: x, value: always, version: v1}",
            "{header: x, value: never, version: v1}",
            "{header: x, canary: v2}",
        ],
        &[2],
    );
}

#[test]
fn nothing_is_concluded_from_what_is_wrong_already() {
    check_route(
        "versions: [{name: v1, selector: a}, {name: 2}], rules: [{header: x, version: '2'}, {header: y, canary: v1}]",
        &["3:46: routes[0].versions[1].name: must be a name, and is the number 2: put it into quotes, \"2\""],
    );
    check_route(
        &format!("{TWO}, rules: [{{canary: v2}}, {{header: x, canary: v9}}]"),
        &[
            "3:69: routes[0].rules[0].canary: does not say where a request asks for it: add one of `header`, `cookie`, `query`",
            "3:94: routes[0].rules[1].canary: the route has no version `v9`: name one of `v1`, `v2`, or add it there",
        ],
    );
}

#[test]
fn every_error_of_a_cohort_is_said_at_once() {
    for (cohort, expected) in [
        (
            "{header: x, cookie: y}",
            &["3:11: routes[0].cohort: must have one key: give one of `header`, `cookie`, `clientIp: true`"]
                [..],
        ),
        (
            "{clientIp: false}",
            &["3:11: routes[0].cohort: must have one key: give one of `header`, `cookie`, `clientIp: true`"],
        ),
        (
            "{salt: s}",
            &[
                "3:11: routes[0].cohort: does not say what tells users apart: give one of `header`, `cookie`, `clientIp: true`",
            ],
        ),
        (
            "{header: x, set: true, salt: ''}",
            &[
                "3:28: routes[0].cohort.set: sets a cookie, and there is none: add `cookie`, or remove this",
                "3:40: routes[0].cohort.salt: is empty: write a text, or leave the field out",
            ],
        ),
        (
            "{cookie: 'a b', percent: 3}",
            &[
                "3:20: routes[0].cohort.cookie: `a b` cannot be the name of a cookie: use letters, digits and `-`, like `session`",
                "3:27: routes[0].cohort.percent: unknown field: the fields here are `header`, `cookie`, `clientIp`, `set`, `salt`",
            ],
        ),
    ] {
        check_route(&format!("cohort: {cohort}, {TWO}"), expected);
    }
}

#[test]
fn what_is_looked_at_for_each_request_is_bounded() {
    let rule = |i: usize| format!("{{header: x, value: '{i}', version: v2}}");
    let many = (0..101).map(rule).collect::<Vec<_>>().join(", ");
    check_route(
        &format!("{TWO}, rules: [{many}]"),
        &["3:59: routes[0].rules: has 101 rules, and can have 100: leave some out"],
    );
    let conditions = ["{header: x}"; 11].join(", ");
    check_route(
        &format!("{TWO}, rules: [{{and: [{conditions}], version: v2}}]"),
        &["3:66: routes[0].rules[0].and: has 11 conditions, and can have 10: leave some out"],
    );
    let networks = (0..1_001).map(|i| format!("10.0.{}.{}", i / 256, i % 256)).collect::<Vec<_>>().join(", ");
    check_route(
        &format!("{TWO}, rules: [{{clientCidrs: [{networks}], version: v2}}]"),
        &["3:74: routes[0].rules[0].clientCidrs: has 1001 networks, and can have 1000: leave some out"],
    );
}
