//! A route's rollout: what its fields mean, and what is wrong with one.

use std::time::Duration;

use super::super::parse;
use super::{check_route, errors, route};
use crate::model::{
    ErrorLimit, Guard, Hook, HookEvent, LatencyGuard, OnFail, RolloutSpec, RolloutStep, Share,
};

const ROLLOUT: &str = include_str!("../../../config/rollout.yaml");
const VERSIONS: &str = "versions: [{name: v1, selector: a}, {name: v2, selector: b}]";

fn share(text: &str) -> Share {
    text.parse().unwrap()
}

fn seconds(n: u64) -> Duration {
    Duration::from_secs(n)
}

#[test]
fn every_field_of_a_rollout_means_what_it_says() {
    let found = route(
        "versions: [{name: v1, selector: a}, {name: v2, selector: b}, {name: v3, selector: c}], rollout: {version: v3, \
         steps: [{weight: 0.1, hold: 5m}, {weight: 100, hold: 0s, pause: true}], guard: {alpha: 0.01, errorMargin: 0.5, \
         latency: {limit: 500ms, margin: 1}, minRequests: 7, maxErrorRate: 20, maxErrorRateRequests: 8}, onFail: pause, \
         auto: true, abortDeadline: 1m, hooks: [{url: 'https://h.example/x?y=1', on: [gate, step, promoted, rolledBack], \
         timeout: 2s, retries: 0}]}",
    );
    let step = |weight, hold, pause| RolloutStep { weight: share(weight), hold: seconds(hold), pause };
    let wanted = RolloutSpec {
        canary: "v3".parse().unwrap(),
        steps: vec![step("0.1", 300, false), step("100", 0, true)],
        guard: Guard {
            alpha: 0.01,
            error_margin: share("0.5"),
            latency: Some(LatencyGuard { limit: Duration::from_millis(500), margin: share("1") }),
            min_requests: 7,
            limit: Some(ErrorLimit { rate: share("20"), requests: 8 }),
        },
        on_fail: OnFail::Pause,
        auto: true,
        abort_deadline: seconds(60),
        hooks: vec![Hook {
            url: "https://h.example/x?y=1".to_owned(),
            on: vec![HookEvent::Gate, HookEvent::Step, HookEvent::Promoted, HookEvent::RolledBack],
            timeout: seconds(2),
            retries: 0,
        }],
    };
    assert_eq!(found.rollout, Some(wanted));
    let least = route(&format!("{VERSIONS}, rollout: {{steps: [{{weight: 1}}]}}")).rollout.unwrap();
    assert_eq!((least.canary.as_str(), least.steps), ("v2", vec![step("1", 60, false)]));
    assert_eq!(least.guard, Guard::default());
    assert_eq!((least.auto, least.abort_deadline, least.hooks.len()), (false, seconds(30), 0));
}

#[test]
fn the_sample_of_a_rollout_is_what_it_says() {
    let settings = parse("rollout.yaml", ROLLOUT).unwrap();
    let rollout = settings.routes[0].rollout.as_ref().unwrap();
    assert_eq!((rollout.steps.len(), rollout.hooks.len(), rollout.auto), (4, 2, true));
    let default = Guard::default();
    assert_eq!((rollout.guard.alpha, rollout.guard.error_margin), (default.alpha, default.error_margin));
    assert_eq!(settings.routes[0].weights()[0].1, Share::ALL, "v2 gets nothing until it begins");
}

#[test]
fn a_rollout_must_have_something_to_roll_out() {
    let steps = "steps: [{weight: 1}]";
    for (fields, wanted) in [
        ("versions: [{name: v1}], rollout: {STEPS}".to_owned(), "has nothing to roll out"),
        (
            "versions: [{name: v1, selector: a}, {name: v2, selector: b}, {name: v3, selector: c}], rollout: {STEPS}".to_owned(),
            "does not say which of several versions it rolls out: add `version`",
        ),
        (format!("{VERSIONS}, rollout: {{version: v1, STEPS}}"), "`v1` is the stable version: name one of the others"),
        (format!("{VERSIONS}, rollout: {{version: v9, STEPS}}"), "the route has no version `v9`"),
        (format!("{VERSIONS}, rollout: {{}}"), "steps: is missing"),
        (format!("{VERSIONS}, rollout: {{steps: []}}"), "steps: is an empty list"),
    ] {
        let text = format!("routes: [{{name: r, service: a/b, {}}}]", fields.replace("STEPS", steps));
        let said = errors(&text);
        assert!(said.len() == 1 && said[0].contains(wanted), "{text}: {said:?}");
    }
}

#[test]
fn steps_must_grow() {
    check_route(
        &format!("{VERSIONS},\nrollout: {{steps: [{{weight: 0}}, {{weight: 5}},\n{{weight: 5}}]}}"),
        &[
            "4:30: routes[0].rollout.steps[0].weight: is nothing: begin with a weight above 0",
            "5:12: routes[0].rollout.steps[2].weight: does not grow: the step before has 5",
        ],
    );
}

#[test]
fn hooks_that_cannot_be_called_are_refused_and_not_repeated() {
    for (url, wanted) in [
        ("hooks.example.com/s3cret", "is not a URL"),
        ("ftp://h.example/s3cret", "is not one of http or https"),
        ("https://me:s3cret@h.example/", "has a user or a password"),
        ("https://h.example/s3cret#x", "has a `#`"),
        ("https://h.example/s3cret and more", "has a `#`, or what must be written as %XX"),
    ] {
        let hooks = format!("hooks: [{{url: '{url}', on: [step]}}]");
        let text = format!(
            "routes: [{{name: r, service: a/b, {VERSIONS}, rollout: {{steps: [{{weight: 1}}], {hooks}}}}}]"
        );
        let said = errors(&text);
        assert!(
            said.len() == 1 && said[0].contains(wanted) && !said[0].contains("s3cret"),
            "{url}: {said:?}"
        );
    }
    let more = |hooks: &str| format!("{VERSIONS},\nrollout: {{steps: [{{weight: 1}}],\n{hooks}}}");
    check_route(
        &more("hooks: [{url: 'http://h', on: [step, stepp, step], timeout: 2m, retries: 11}]"),
        &[
            "5:40: routes[0].rollout.hooks[0].on[1]: `stepp` is not known: did you mean `step`?",
            "5:47: routes[0].rollout.hooks[0].on[2]: `step` is given twice, first on line 5: change or remove one",
            "5:63: routes[0].rollout.hooks[0].timeout: 2m is too long: write a duration from 1ms to 1m",
            "5:76: routes[0].rollout.hooks[0].retries: 11 is too large: write a whole number from 0 to 10",
        ],
    );
    let many = ["{url: 'http://h', on: [step]}"; 11].join(", ");
    check_route(
        &more(&format!("hooks: [{many}]")),
        &["5:10: routes[0].rollout.hooks: has more than 10 hooks: keep to that"],
    );
}
