//! What came of many simulated rollouts.

use std::io::{self, Write};
use std::time::Duration;

use serde::Serialize;

use crate::cli::text::{align_right, percent, plain, table, write_table};
use crate::model::{RolloutSpec, RouteSpec, Share};
use crate::simulation::{Ending, Interval, Played, exact_interval};

use super::{Dealt, SimulateArgs};

/// How sure the bounds are: wrong once in twenty.
const DOUBT: f64 = 0.05;

/// What came of many simulated rollouts.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Report {
    route: String,
    version: String,
    stable: String,
    rps: f64,
    /// `users` or `requests`: what is dealt out to the versions, and why it is that.
    dealt_out: &'static str,
    dealt_out_because: &'static str,
    runs: u64,
    seed: u64,
    /// Percent.
    errors: Errors,
    /// What is asked of false alarms: percent.
    alpha: f64,
    worse: Worse,
    no_worse: NoWorse,
}

/// Percent.
#[derive(Clone, Copy, Debug, Serialize)]
struct Errors {
    stable: f64,
    canary: f64,
}

/// Rollouts of the version that was assumed.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Worse {
    caught: u64,
    succeeded: u64,
    undecided: u64,
    /// Seconds, of those that were caught.
    until_caught: Option<Spread>,
    /// Of those that were caught.
    failed_requests: Option<Spread>,
    /// The same.
    failed_users: Option<Spread>,
    steps: Vec<Step>,
}

/// Rollouts of a version that answers as stable does.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct NoWorse {
    caught: u64,
    succeeded: u64,
    undecided: u64,
    /// The chance of a false alarm: percent, with 95 % confidence.
    false_alarms: Interval,
    /// Seconds, of those that succeeded.
    took: Option<Spread>,
}

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Step {
    weight: Share,
    /// Seconds.
    hold: f64,
    reached: u64,
    caught: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Spread {
    median: f64,
    ninety_percent: f64,
    most: f64,
}

impl Report {
    pub(super) fn new(
        args: &SimulateArgs,
        (route, spec): (&RouteSpec, &RolloutSpec),
        dealt: Dealt,
        worse: &[Played],
        no_worse: &[Played],
    ) -> Self {
        let all = no_worse.len() as u64;
        let false_alarms = exact_interval(count(no_worse, Ending::Caught), all, DOUBT);
        Self {
            route: route.name.to_string(),
            version: spec.canary.to_string(),
            stable: route.versions.first().map(|stable| stable.name.to_string()).unwrap_or_default(),
            rps: args.rps,
            dealt_out: if dealt.users { "users" } else { "requests" },
            dealt_out_because: dealt.why,
            runs: args.runs,
            seed: args.seed,
            errors: Errors { stable: 100.0 * args.stable_error.0, canary: 100.0 * args.canary_error.0 },
            alpha: 100.0 * spec.guard.alpha,
            worse: Worse::of(spec, worse),
            no_worse: NoWorse {
                caught: count(no_worse, Ending::Caught),
                succeeded: count(no_worse, Ending::Succeeded),
                undecided: count(no_worse, Ending::Undecided),
                false_alarms: Interval { low: 100.0 * false_alarms.low, high: 100.0 * false_alarms.high },
                took: spread(no_worse, Ending::Succeeded, |played| Some(played.took.as_secs_f64())),
            },
        }
    }
}

impl Worse {
    fn of(spec: &RolloutSpec, played: &[Played]) -> Self {
        let caught = |of: fn(&Played) -> Option<f64>| spread(played, Ending::Caught, of);
        let steps = spec.steps.iter().enumerate().map(|(i, step)| Step {
            weight: step.weight,
            hold: step.hold.as_secs_f64(),
            reached: played.iter().filter(|played| played.step >= i).count() as u64,
            caught: played.iter().filter(|p| p.step == i && p.ending == Ending::Caught).count() as u64,
        });
        Self {
            caught: count(played, Ending::Caught),
            succeeded: count(played, Ending::Succeeded),
            undecided: count(played, Ending::Undecided),
            until_caught: caught(|played| Some(played.took.as_secs_f64())),
            failed_requests: caught(|played| Some(played.failed_requests() as f64)),
            failed_users: caught(|played| played.failed_users.map(|users| users as f64)),
            steps: steps.collect(),
        }
    }
}

fn count(played: &[Played], ending: Ending) -> u64 {
    played.iter().filter(|played| played.ending == ending).count() as u64
}

/// The spread of a number over the rollouts that ended so; nothing when none did.
fn spread(played: &[Played], ending: Ending, of: impl Fn(&Played) -> Option<f64>) -> Option<Spread> {
    let mut values: Vec<f64> =
        played.iter().filter(|played| played.ending == ending).filter_map(of).collect();
    values.sort_by(f64::total_cmp);
    let at =
        |part: f64| values.get(((values.len() as f64 * part).ceil() as usize).saturating_sub(1)).copied();
    Some(Spread { median: at(0.5)?, ninety_percent: at(0.9)?, most: at(1.0)? })
}

/// Writes it for people.
pub(super) fn write_report(report: &Report, out: &mut dyn Write) -> io::Result<()> {
    let Report { runs, rps, seed, .. } = report;
    let (route, version, stable) = (plain(&report.route), plain(&report.version), plain(&report.stable));
    writeln!(out, "route {route}: {runs} rollouts of {version} at {rps} requests/s (seed {seed})")?;
    writeln!(out, "the weights deal out {} ({})\n", report.dealt_out, report.dealt_out_because)?;
    let Worse { caught, succeeded, undecided, .. } = report.worse;
    writeln!(
        out,
        "{version} fails {} % of its requests, {stable} {} %:",
        short(report.errors.canary),
        short(report.errors.stable)
    )?;
    writeln!(out, "  caught           {caught} of {runs}{}", others(succeeded, undecided))?;
    if let Some(spread) = report.worse.until_caught {
        writeln!(out, "  until caught     {}", in_words(spread, time))?;
    }
    for (what, spread) in
        [("requests failed", report.worse.failed_requests), ("users met one", report.worse.failed_users)]
    {
        if let Some(spread) = spread {
            writeln!(out, "  {what:<15}  {}", in_words(spread, |number| format!("{number}")))?;
        }
    }
    writeln!(out)?;
    let mut steps = table(&["STEP", "WEIGHT", "HOLD", "REACHED", "CAUGHT"]);
    for (i, step) in report.worse.steps.iter().enumerate() {
        let (reached, caught) = (step.reached.to_string(), step.caught.to_string());
        steps.add_row([(i + 1).to_string(), percent(step.weight), time(step.hold), reached, caught]);
    }
    align_right(&mut steps, 0..5);
    write_table(&steps, out)?;
    let NoWorse { caught, succeeded, undecided, false_alarms, took } = report.no_worse;
    writeln!(out, "\n{version} fails as {stable} does:")?;
    writeln!(
        out,
        "  false alarms     {caught} of {runs}: a chance of {} % to {} % (95 % sure); alpha is {} %",
        short(false_alarms.low),
        short(false_alarms.high),
        short(report.alpha)
    )?;
    if let Some(took) = took {
        writeln!(out, "  takes            {}", in_words(took, time))?;
    }
    if undecided > 0 {
        writeln!(
            out,
            "  ended well       {succeeded} of {runs}, {undecided} were not decided in the time given"
        )?;
    }
    out.flush()
}

fn others(succeeded: u64, undecided: u64) -> String {
    let succeeded = (succeeded > 0).then(|| format!("; {succeeded} came to the end"));
    let undecided = (undecided > 0).then(|| format!("; {undecided} were not decided in the time given"));
    succeeded.into_iter().chain(undecided).collect()
}

fn in_words(spread: Spread, unit: impl Fn(f64) -> String) -> String {
    let Spread { median, ninety_percent, most } = spread;
    format!("{} in the median, {} in 90 %, {} at most", unit(median), unit(ninety_percent), unit(most))
}

/// A number with no more digits than mean something.
fn short(number: f64) -> String {
    let digits = if number >= 0.1 || number == 0.0 { 2 } else { 4 };
    let text = format!("{number:.digits$}");
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
}

/// Seconds, in words.
fn time(seconds: f64) -> String {
    let millis = (seconds * 1_000.0).round() as u64;
    // Tenths below ten seconds, seconds above.
    let whole = if millis < 1_000 {
        50
    } else if millis < 10_000 {
        100
    } else {
        1_000
    };
    humantime::format_duration(Duration::from_millis((millis + whole / 2) / whole * whole)).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_for_people() {
        assert_eq!([0.35, 7.16, 71.6, 1_812.0].map(time), ["350ms", "7s 200ms", "1m 12s", "30m 12s"]);
        assert_eq!([0.0, 2.0, 0.1, 0.368_2, 0.012_34].map(short), ["0", "2", "0.1", "0.37", "0.0123"]);
    }
}
