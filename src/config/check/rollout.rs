//! A route's rollout.

use crate::config::errors::Errors;
use crate::config::file::{GuardFile, HookFile, RolloutFile, RouteFile};
use crate::config::input::Marked;
use crate::model::{
    ErrorLimit, Guard, Hook, LatencyGuard, RolloutSpec, RolloutStep, Share, VersionName, VersionSpec,
};

use std::collections::HashMap;
use std::time::Duration;

use super::once;

/// How many steps a rollout may have.
const MOST_STEPS: usize = 100;
/// How long a step is judged where it does not say.
const HOLD: Duration = Duration::from_secs(60);
/// How long connections to an aborted version may go on where it does not say.
const ABORT_DEADLINE: Duration = Duration::from_secs(30);
/// How many requests `maxErrorRate` needs where it does not say.
const LIMIT_REQUESTS: u64 = 50;
/// How many webhooks a rollout may have.
const MOST_HOOKS: usize = 10;
/// How long a webhook's answer may take where it does not say.
const HOOK_TIMEOUT: Duration = Duration::from_secs(5);
/// How often a webhook is told again where it does not say.
const HOOK_RETRIES: u8 = 3;

/// The rollout of a route, completed with the defaults; nothing where there is none, or it cannot be used.
pub(super) fn rollout(
    route: &RouteFile,
    versions: &[VersionSpec],
    errors: &mut Errors,
) -> Option<RolloutSpec> {
    let file = route.rollout.given()?;
    let canary = canary(file, route, versions, errors);
    let steps = steps(&file.value, errors);
    let hooks = hooks(&file.value, errors);
    let file = &file.value;
    Some(RolloutSpec {
        canary: canary?,
        steps: steps?,
        guard: file.guard.value().map(guard).unwrap_or_default(),
        on_fail: file.on_fail.value().copied().unwrap_or_default(),
        auto: file.auto.value().copied().unwrap_or_default(),
        abort_deadline: file.abort_deadline.value().map_or(ABORT_DEADLINE, |t| t.0),
        hooks,
    })
}

/// The version that is rolled out.
fn canary(
    file: &Marked<RolloutFile>,
    route: &RouteFile,
    versions: &[VersionSpec],
    errors: &mut Errors,
) -> Option<VersionName> {
    if file.value.version.is_bad() || route.versions.is_bad() {
        return None;
    }
    let (stable, others) = versions.split_first()?;
    let Some(asked) = file.value.version.given() else {
        return match others {
            [only] => Some(only.name.clone()),
            [] => {
                errors.add(&file.place, "has nothing to roll out: give the route a second version");
                None
            }
            _ => {
                let message = "does not say which of several versions it rolls out: add `version`";
                errors.add(&file.place, message);
                None
            }
        };
    };
    if asked.value == stable.name {
        let message = format!("`{}` is the stable version: name one of the others", asked.value);
        errors.add(&asked.place, message);
        return None;
    }
    let found = others.iter().find(|version| version.name == asked.value);
    if found.is_none() {
        errors.add(&asked.place, format!("the route has no version `{}`", asked.value));
    }
    found.map(|version| version.name.clone())
}

/// The steps, whose weights must grow.
fn steps(file: &RolloutFile, errors: &mut Errors) -> Option<Vec<RolloutStep>> {
    let files = file.steps.given()?;
    if files.value.len() > MOST_STEPS {
        errors.add(&files.place, format!("has more than {MOST_STEPS} steps: keep to that"));
        return None;
    }
    let mut before = Share::ZERO;
    let mut steps = Vec::new();
    for step in &files.value {
        let weight = step.value.weight.given()?;
        if weight.value <= before {
            let message = if before == Share::ZERO {
                "is nothing: begin with a weight above 0".to_owned()
            } else {
                format!("does not grow: the step before has {before}")
            };
            errors.add(&weight.place, message);
        }
        before = before.max(weight.value);
        steps.push(RolloutStep {
            weight: weight.value,
            hold: step.value.hold.value().map_or(HOLD, |t| t.0),
            pause: step.value.pause.value().copied().unwrap_or_default(),
        });
    }
    Some(steps)
}

/// The webhooks.
fn hooks(file: &RolloutFile, errors: &mut Errors) -> Vec<Hook> {
    let Some(files) = file.hooks.given() else { return Vec::new() };
    if files.value.len() > MOST_HOOKS {
        errors.add(&files.place, format!("has more than {MOST_HOOKS} hooks: keep to that"));
    }
    files.value.iter().filter_map(|file| hook(&file.value, errors)).collect()
}

fn hook(file: &HookFile, errors: &mut Errors) -> Option<Hook> {
    let mut seen = HashMap::new();
    let events = file.on.value().into_iter().flatten();
    let on = events.map(|event| {
        once(&mut seen, event.value, event.value.token(), &event.place, errors);
        event.value
    });
    let on = on.collect();
    Some(Hook {
        url: file.url.value()?.0.clone(),
        on,
        timeout: file.timeout.value().map_or(HOOK_TIMEOUT, |t| t.0),
        retries: file.retries.value().map_or(HOOK_RETRIES, |n| n.0),
    })
}

fn guard(file: &GuardFile) -> Guard {
    let default = Guard::default();
    Guard {
        alpha: file.alpha.value().map_or(default.alpha, |chance| chance.0),
        error_margin: file.error_margin.value().copied().unwrap_or(default.error_margin),
        latency: file.latency.value().and_then(|latency| {
            Some(LatencyGuard {
                limit: latency.limit.value()?.0,
                margin: latency.margin.value().copied().unwrap_or_default(),
            })
        }),
        min_requests: file.min_requests.value().map_or(default.min_requests, |n| n.0),
        limit: file.max_error_rate.value().map(|rate| ErrorLimit {
            rate: *rate,
            requests: file.max_error_rate_requests.value().map_or(LIMIT_REQUESTS, |n| n.0),
        }),
    }
}
