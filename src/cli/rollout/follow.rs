//! `serinus rollout status`: a rollout as it goes, until it ends.

use std::fmt::Write as _;
use std::io::{self, IsTerminal as _, Write};
use std::time::{Duration, Instant};

use crate::admin::wire::{AttemptCounts, RolloutStatus, RouteStatus};
use crate::cli::client::{AdminArgs, Client, route_path};
use crate::cli::error::CliError;
use crate::cli::text::{or_dash, percent, plain};
use crate::model::RouteName;

/// How often the router is asked.
const PERIOD: Duration = Duration::from_millis(500);
/// How long it is asked without an answer before that is an error.
const PATIENCE: Duration = Duration::from_secs(60);
/// How wide the bar of a step is.
const BAR: usize = 30;

/// What `serinus rollout status` is asked for.
#[derive(Clone, Debug, clap::Args)]
pub struct FollowArgs {
    /// The route
    pub route: RouteName,
    /// Whether to wait until the rollout ends
    #[arg(long, value_name = "BOOL", default_value_t = true, default_missing_value = "true", num_args = 0..=1,
        require_equals = true, action = clap::ArgAction::Set)]
    pub watch: bool,
    /// Which router to ask.
    #[command(flatten)]
    pub admin: AdminArgs,
}

/// Shows a rollout, until it ends.
///
/// # Errors
/// When the router cannot be reached at first, there is no rollout, or it was rolled back or aborted.
pub(super) fn follow(args: &FollowArgs, out: &mut dyn Write) -> Result<(), CliError> {
    let on_terminal = io::stdout().is_terminal();
    let mut shown = Shown::default();
    let mut silent: Option<Instant> = None;
    loop {
        let asked =
            Client::new(&args.admin).and_then(|client| client.get::<RouteStatus>(&route_path(&args.route)));
        let route = match asked {
            Ok(route) => route,
            // A router that restarts goes on with its rollout.
            Err(CliError::Unreachable(error))
                if shown.something && silent.is_none_or(|since| since.elapsed() < PATIENCE) =>
            {
                if silent.is_none() {
                    writeln!(out, "{error}\nasking again for {} s", PATIENCE.as_secs())?;
                    out.flush()?;
                    shown.lines = 0;
                }
                silent.get_or_insert_with(Instant::now);
                std::thread::sleep(PERIOD);
                continue;
            }
            Err(error) => return Err(error),
        };
        silent = None;
        let Some(rollout) = &route.rollout else {
            let name = plain(&route.name);
            return Err(CliError::Failed(format!(
                "route {name} has had no rollout: `rollout start {name}` begins one"
            )));
        };
        shown.show(&route, rollout, on_terminal && args.watch, out)?;
        match rollout.phase.as_str() {
            "succeeded" => return Ok(()),
            "running" | "paused" if !args.watch => return Ok(()),
            "running" | "paused" => std::thread::sleep(PERIOD),
            phase => {
                return Err(CliError::Failed(format!(
                    "the rollout ended {phase}: {}",
                    plain(&rollout.reason)
                )));
            }
        }
    }
}

/// What was written last.
#[derive(Default)]
struct Shown {
    something: bool,
    lines: usize,
    last: (usize, String),
}

impl Shown {
    fn show(
        &mut self,
        route: &RouteStatus,
        rollout: &RolloutStatus,
        in_place: bool,
        out: &mut dyn Write,
    ) -> io::Result<()> {
        let now = (rollout.step, rollout.phase.clone());
        if !in_place && self.something && self.last == now {
            return Ok(());
        }
        let text = text(route, rollout);
        if in_place && self.lines > 0 {
            // Up to where it was begun, and nothing from there on.
            write!(out, "\x1b[{}A\x1b[J", self.lines)?;
        }
        out.write_all(text.as_bytes())?;
        out.flush()?;
        *self = Self { something: true, lines: text.lines().count(), last: now };
        Ok(())
    }
}

/// A rollout in a few lines.
fn text(route: &RouteStatus, rollout: &RolloutStatus) -> String {
    let (canary, steps) = (plain(&rollout.version), rollout.steps.len());
    let mut text = String::new();
    // Writing to a String cannot fail.
    let _ = writeln!(
        text,
        "route {}: {canary} at step {} of {steps}, {}: {}",
        plain(&route.name),
        rollout.step,
        plain(&rollout.phase),
        plain(&rollout.reason)
    );
    if let Some(step) = rollout.steps.get(rollout.step.saturating_sub(1)) {
        let part =
            if step.hold_seconds > 0.0 { (rollout.held_seconds / step.hold_seconds).min(1.0) } else { 1.0 };
        let full = (part * BAR as f64) as usize;
        let left = (step.hold_seconds - rollout.held_seconds).max(0.0);
        let left = humantime::format_duration(Duration::from_secs(left.ceil() as u64));
        let _ = writeln!(text, "  [{}{}] {left} left of the step", "#".repeat(full), ".".repeat(BAR - full));
    }
    for version in route.versions.iter().filter(|v| v.stable || v.name == rollout.version) {
        let counts = if version.stable { rollout.evidence.stable } else { rollout.evidence.canary };
        let _ = writeln!(
            text,
            "  {}: asked {}, measured {}; {}",
            plain(&version.name),
            percent(version.weight),
            or_dash(version.measured_share, "%"),
            attempts(counts)
        );
    }
    let evidence = &rollout.evidence;
    let _ = write!(text, "  e-value {}", e_value(evidence.log10_errors));
    if let Some(slowness) = evidence.log10_slowness {
        let _ = write!(text, ", of slow answers {}", e_value(slowness));
    }
    let _ = writeln!(text, "; {canary} fails at {}", e_value(evidence.log10_threshold));
    text
}

fn attempts(counts: AttemptCounts) -> String {
    let AttemptCounts { requests, errors, slow } = counts;
    let slow = if slow > 0 { format!(", {slow} slow") } else { String::new() };
    format!("{requests} first attempts, {errors} failed{slow}")
}

/// An e-value by its decimal logarithm.
fn e_value(log10: f64) -> String {
    if (-2.0..6.0).contains(&log10) {
        let value = 10_f64.powf(log10);
        if value >= 10.0 { format!("{value:.0}") } else { format!("{value:.2}") }
    } else {
        format!("10^{log10:.1}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn route(phase: &str, step: usize) -> RouteStatus {
        let version = |name: &str, stable: bool, weight: f64| {
            json!({
                "name": name, "stable": stable, "weight": weight, "effectiveWeight": weight, "measuredShare": weight,
                "requests": 1, "errorRate": null, "p50Ms": null, "p99Ms": null, "activeRequests": 0,
                "endpoints": {"ready": 1, "draining": 0, "unready": 0, "refused": 0, "ejected": 0, "unhealthy": 0,
                    "addresses": []},
            })
        };
        let counts = |requests, errors| json!({"requests": requests, "errors": errors, "slow": 0});
        serde_json::from_value(json!({
            "name": "shop", "revision": 3, "service": "web/shop", "hosts": [], "paths": [],
            "versions": [version("v1", true, 95.0), version("v2", false, 5.0)],
            "unassignedCount": 0, "unassigned": [], "problems": [],
            "rollout": {
                "version": "v2", "phase": phase, "reason": "at 5 % for 5m more", "step": step,
                "steps": [{"weight": 1, "holdSeconds": 60.0, "pause": false},
                    {"weight": 5, "holdSeconds": 600.0, "pause": false}],
                "heldSeconds": 300.0, "started": "2026-03-20T09:46:40.123Z", "changed": "2026-03-20T09:46:40.123Z",
                "evidence": {
                    "canary": counts(310, 14), "stable": counts(30_690, 22), "stepRequests": 310, "minRequests": 100,
                    "log10Errors": 0.5, "log10Slowness": null, "log10Threshold": 3.0,
                },
            },
        }))
        .unwrap()
    }

    #[test]
    fn a_rollout_in_a_few_lines() {
        let route = route("running", 2);
        let said = text(&route, route.rollout.as_ref().unwrap());
        assert_eq!(
            said,
            "route shop: v2 at step 2 of 2, running: at 5 % for 5m more\n  \
             [###############...............] 5m left of the step\n  \
             v1: asked 95 %, measured 95 %; 30690 first attempts, 22 failed\n  \
             v2: asked 5 %, measured 5 %; 310 first attempts, 14 failed\n  \
             e-value 3.16; v2 fails at 1000\n"
        );
    }

    #[test]
    fn without_a_terminal_only_news_is_written() {
        let mut shown = Shown::default();
        let mut out = Vec::new();
        for (phase, step) in [("running", 1), ("running", 1), ("running", 2), ("paused", 2)] {
            let route = route(phase, step);
            shown.show(&route, route.rollout.as_ref().unwrap(), false, &mut out).unwrap();
        }
        let out = String::from_utf8(out).unwrap();
        assert_eq!(out.matches("route shop").count(), 3, "{out}");
        assert!(!out.contains('\x1b'), "{out}");
    }
}
