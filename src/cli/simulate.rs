//! `serinus simulate`: a config's rollout against assumed rates, before production.

mod report;

use std::io::Write;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use crate::config;
use crate::model::{RolloutSpec, RouteName, RouteSpec};
use crate::simulation::{Assumed, Played, Rates, Users, play};

use super::error::{CliError, reader_may_leave};
use super::status::OutputForm;
use report::{Report, write_report};

/// How much may be simulated: requests of all rollouts together, some minutes of work.
const MOST_REQUESTS: f64 = 2e10;
/// How many requests a look costs at least.
const LOOK_COSTS: f64 = 0.25;
/// The longest rollout: 30 days.
const LONGEST: Duration = Duration::from_secs(30 * 24 * 3600);

/// Plays the rollout of a config against assumed rates, many times: how long until a bad version is caught, how many requests
/// and users it fails, and how often one that is no worse is taken back
#[derive(Clone, Debug, clap::Args)]
#[command(
    after_help = "Requests come evenly and are answered at once; steps that wait for a `promote` get it at once.
The same seed gives the same answer.

Examples:
  serinus simulate serinus.yaml --rps 100 --stable-error 0.1% --canary-error 2%
  serinus simulate serinus.yaml shop --rps 1000 --canary-error 0.5% --replicas 2 --users 10000
  serinus simulate serinus.yaml shop --users 10000 --by-user=false
  serinus simulate serinus.yaml --rps 50 --stable-slow 1% --canary-slow 5% -o json | jq .worse.untilCaught"
)]
pub(super) struct SimulateArgs {
    /// The config file
    #[arg(value_name = "FILE")]
    pub(super) file: PathBuf,
    /// The route; left out, the only one with a rollout
    pub(super) route: Option<RouteName>,
    /// How many requests the route gets a second
    #[arg(long, default_value = "100", value_parser = rps)]
    pub(super) rps: f64,
    /// The part of its requests that the stable version fails
    #[arg(long, value_name = "PERCENT", default_value = "0.1%")]
    pub(super) stable_error: Percent,
    /// The part that the new version fails
    #[arg(long, value_name = "PERCENT", default_value = "2%")]
    pub(super) canary_error: Percent,
    /// The part that the stable version answers well, but slower than `guard.latency.limit`
    #[arg(long, value_name = "PERCENT", default_value = "0%")]
    pub(super) stable_slow: Percent,
    /// The part that the new version answers well, but slower than `guard.latency.limit`
    #[arg(long, value_name = "PERCENT", default_value = "0%")]
    pub(super) canary_slow: Percent,
    /// How many replicas of the router share the requests
    #[arg(long, default_value = "1", value_parser = clap::value_parser!(u32).range(1..=100))]
    pub(super) replicas: u32,
    /// How many users the requests come from, everybody as often as the others
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=1_000_000_000))]
    pub(super) users: Option<u64>,
    /// Whether the users are dealt out to the versions, or their requests (`--by-user=false`); left out, as the config has it: the
    /// users where the route has a `cohort`
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL")]
    pub(super) by_user: Option<bool>,
    /// How many rollouts are played, of each kind
    #[arg(long, default_value = "1000", value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    pub(super) runs: u64,
    /// What the chance begins with
    #[arg(long, default_value = "1")]
    pub(super) seed: u64,
    /// How to write it: `table` for people, `json` or `yaml` for programs
    #[arg(long, short, value_enum, default_value = "table", hide_possible_values = true)]
    pub(super) output: OutputForm,
}

/// A part of requests, as people write it: `2%`, `0.05`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Percent(
    /// 0 to 1.
    pub(super) f64,
);

impl FromStr for Percent {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let number = text.strip_suffix('%').unwrap_or(text).trim_end();
        match number.parse::<f64>() {
            Ok(percent) if (0.0..=100.0).contains(&percent) => Ok(Percent(percent / 100.0)),
            _ => Err("write a percentage from 0 to 100, like 0.1%".to_owned()),
        }
    }
}

fn rps(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(rps) if (0.001..=1e6).contains(&rps) => Ok(rps),
        _ => Err("write how many requests come a second, from 0.001 to 1000000".to_owned()),
    }
}

/// Plays a config's rollout and shows what came of it.
///
/// # Errors
/// When the config is refused, it has no such rollout, or there is too much to simulate.
pub(super) fn simulate(args: &SimulateArgs, out: &mut dyn Write) -> Result<(), CliError> {
    let settings = config::load(&args.file).map_err(|errors| CliError::Failed(errors.to_string()))?;
    let (route, spec) = chosen(&settings.routes, args.route.as_ref())?;
    let dealt = Dealt::of(args, route);
    let assumed = assumed(args, route, spec, dealt)?;
    let longest = longest(args, spec, &assumed)?;
    let as_stable = Assumed { canary: assumed.stable, ..assumed };
    let worse = many(args.seed, args.runs, |chance| play(spec, &assumed, longest, &mut || chance.u64(..)));
    // Other chances than those above.
    let seed = args.seed ^ 0x9e37_79b9_7f4a_7c15;
    let no_worse = many(seed, args.runs, |chance| play(spec, &as_stable, longest, &mut || chance.u64(..)));
    let report = Report::new(args, (route, spec), dealt, &worse, &no_worse);
    let written = match args.output {
        OutputForm::Table => write_report(&report, out).map_err(CliError::from),
        OutputForm::Json => serde_json::to_string_pretty(&report)
            .map_err(|e| CliError::Failed(e.to_string()))
            .and_then(|json| Ok(writeln!(out, "{json}")?)),
        OutputForm::Yaml => yaml_serde::to_string(&report)
            .map_err(|e| CliError::Failed(e.to_string()))
            .and_then(|yaml| Ok(write!(out, "{yaml}")?)),
    };
    reader_may_leave(written)
}

/// The route that is asked for, and its rollout.
fn chosen<'a>(
    routes: &'a [RouteSpec],
    asked: Option<&RouteName>,
) -> Result<(&'a RouteSpec, &'a RolloutSpec), CliError> {
    let with: Vec<_> = routes.iter().filter_map(|route| Some((route, route.rollout.as_ref()?))).collect();
    let names = || with.iter().map(|(route, _)| route.name.as_str()).collect::<Vec<_>>().join(", ");
    match (asked, with.as_slice()) {
        (Some(name), _) => with.iter().find(|(route, _)| route.name == *name).copied().ok_or_else(|| {
            let known = routes.iter().any(|route| route.name == *name);
            CliError::Failed(match known {
                true => format!("route {name} has no rollout: give it `rollout` with `steps`"),
                false => format!("the config has no route {name}; with a rollout: {}", or_none(names())),
            })
        }),
        (None, [only]) => Ok(*only),
        (None, []) => Err(CliError::Failed(
            "no route of the config has a rollout: give one `rollout` with `steps`".into(),
        )),
        (None, _) => Err(CliError::Usage(format!("several routes have a rollout, name one: {}", names()))),
    }
}

fn or_none(names: String) -> String {
    if names.is_empty() { "none".to_owned() } else { names }
}

/// What is dealt out to the versions, and who says so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Dealt {
    /// The users, not their requests.
    users: bool,
    why: &'static str,
}

impl Dealt {
    fn of(args: &SimulateArgs, route: &RouteSpec) -> Self {
        match (args.by_user, &route.audience.cohort) {
            (Some(users), _) => Self { users, why: if users { "--by-user" } else { "--by-user=false" } },
            (None, Some(_)) => Self { users: true, why: "the route has a `cohort`" },
            (None, None) => Self { users: false, why: "the route has no `cohort`" },
        }
    }
}

/// What is assumed, as far as it can be.
fn assumed(
    args: &SimulateArgs,
    route: &RouteSpec,
    spec: &RolloutSpec,
    dealt: Dealt,
) -> Result<Assumed, CliError> {
    let rates = |errors: Percent, slow: Percent| Rates { errors: errors.0, slow: slow.0 };
    let stable = rates(args.stable_error, args.stable_slow);
    let canary = rates(args.canary_error, args.canary_slow);
    for (name, rates) in [("stable", stable), ("canary", canary)] {
        if rates.errors + rates.slow > 1.0 {
            return Err(CliError::Usage(format!(
                "--{name}-error and --{name}-slow are more than 100 % together: an answer is one or the other"
            )));
        }
    }
    if stable.slow + canary.slow > 0.0 && spec.guard.latency.is_none() {
        return Err(CliError::Usage(
            "the rollout's guard does not judge how fast answers are: give it `latency` with a `limit`, or leave \
             --stable-slow and --canary-slow out"
                .to_owned(),
        ));
    }
    if dealt.users && args.users.is_none() {
        return Err(CliError::Usage(format!(
            "users of route {} are dealt out to its versions, not requests ({}): say how many there are with --users, or deal \
             out requests with --by-user=false",
            route.name, dealt.why
        )));
    }
    let users = args.users.map(|number| Users { number, dealt: dealt.users });
    Ok(Assumed { rps: args.rps, stable, canary, replicas: args.replicas, users })
}

/// How long a rollout is played at most.
fn longest(args: &SimulateArgs, spec: &RolloutSpec, assumed: &Assumed) -> Result<Duration, CliError> {
    let seconds: f64 = spec
        .steps
        .iter()
        .map(|step| {
            let needed = spec.guard.min_requests as f64 / (assumed.rps * step.weight.ratio());
            step.hold.as_secs_f64().max(needed)
        })
        .sum();
    if seconds > LONGEST.as_secs_f64() {
        let days = seconds / 86_400.0;
        return Err(CliError::Failed(format!(
            "the rollout takes {days:.0} days at {} requests/s, longer than the 30 that can be simulated: with `minRequests: \
             {}` it waits for the requests that its steps need; ask for more --rps, fewer `minRequests` or a higher first weight",
            args.rps, spec.guard.min_requests
        )));
    }
    let looks = seconds / crate::rollout::LOOK.as_secs_f64();
    let requests = 2.0 * args.runs as f64 * (seconds * args.rps + looks * LOOK_COSTS);
    if requests > MOST_REQUESTS {
        let fewer = (args.runs as f64 * MOST_REQUESTS / requests).floor().max(1.0);
        return Err(CliError::Failed(format!(
            "that is {requests:.1e} requests to simulate, more than {MOST_REQUESTS:.0e}: ask for fewer --runs (up to {fewer}) \
             or less --rps"
        )));
    }
    // One that waits, because the new version looks worse, waits as long again.
    Ok(Duration::from_secs_f64(2.0 * seconds + 600.0))
}

/// Plays many rollouts on all cores. Each has chances of its own, so that neither cores nor order change anything.
fn many(seed: u64, runs: u64, one: impl Fn(&mut fastrand::Rng) -> Played + Sync) -> Vec<Played> {
    let cores = std::thread::available_parallelism().map_or(1, NonZeroUsize::get) as u64;
    let one = &one;
    let part = move |core: u64| {
        let runs = (core..runs).step_by(usize::try_from(cores).unwrap_or(1));
        runs.map(|run| {
            let mut chance =
                fastrand::Rng::with_seed(seed.wrapping_add(run.wrapping_mul(0xd134_2543_de82_ef95)));
            one(&mut chance)
        })
        .collect::<Vec<_>>()
    };
    std::thread::scope(|scope| {
        let others: Vec<_> = (1..cores).map(|core| scope.spawn(move || part(core))).collect();
        let mut all = part(0);
        all.extend(others.into_iter().flat_map(|other| other.join().unwrap_or_default()));
        all
    })
}

#[cfg(test)]
#[path = "simulate/simulate_tests.rs"]
mod tests;
