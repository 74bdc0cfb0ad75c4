//! What `serinus status --watch` says, line by line: the facts of `serinus status`, and what only who looks twice can know.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use ratatui::text::Line;

use crate::admin::wire::{RolloutStatus, RouteList, RouteStatus, VersionStatus};

use super::endpoints::{all, write_endpoints};
use super::error::CliError;
use super::mirror::write_mirror;
use super::status::{write_problems, write_replicas};
use super::text::{align_right, or_dash, percent, plain, table};

/// Over how long requests a second are counted: less jumps about, more comes late.
const WINDOW: Duration = Duration::from_secs(10);
/// How many looks are kept for that.
const LOOKS: usize = 16;
/// How long a bar is.
const BAR: usize = 10;

/// What a line is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Head,
    Text,
    Rollout,
    Problem,
    Remedy,
}

/// How many requests each version had, at the last few looks.
#[derive(Debug, Default)]
pub(super) struct Past(VecDeque<(Instant, Counts)>);

/// By route and version.
type Counts = HashMap<(String, String), Count>;

/// The revision, and the requests under it.
type Count = (u64, u64);

impl Past {
    /// Takes in another look.
    pub(super) fn take_in(&mut self, list: &RouteList, now: Instant) {
        let counts = list.routes.iter().flat_map(|route| {
            route.versions.iter().map(|version| {
                ((route.name.clone(), version.name.clone()), (route.revision, version.requests))
            })
        });
        self.0.push_back((now, counts.collect()));
        let old = |past: &VecDeque<(Instant, _)>| {
            past.get(1).is_some_and(|(at, _)| now.saturating_duration_since(*at) >= WINDOW)
        };
        while self.0.len() > LOOKS || old(&self.0) {
            self.0.pop_front();
        }
    }

    /// Requests a second, since the first look at which the same revision was in force; nothing before the second look, and where
    /// they were counted anew since.
    fn rate(&self, route: &str, version: &str) -> Option<f64> {
        let key = (route.to_owned(), version.to_owned());
        let (now, last) = self.0.back()?;
        let (revision, requests) = last.get(&key)?;
        let (then, before) = self.0.iter().find_map(|(at, counts)| {
            counts.get(&key).filter(|(r, n)| r == revision && n <= requests).map(|(_, n)| (at, n))
        })?;
        let seconds = now.saturating_duration_since(*then).as_secs_f64();
        (seconds > 0.0).then(|| (requests - before) as f64 / seconds)
    }
}

/// Everything, for a screen of this width.
pub(super) fn lines(list: &RouteList, past: &Past, single: bool, width: usize) -> Vec<(Kind, String)> {
    let mut lines = versions(list, past, width);
    for route in &list.routes {
        let Some(rollout) = &route.rollout else { continue };
        let first = !lines.iter().any(|(kind, _)| *kind == Kind::Rollout);
        lines.extend(first.then(|| (Kind::Text, String::new())));
        lines.extend(wrapped(&rollout_line(route, rollout), width).map(|line| (Kind::Rollout, line)));
    }
    let mut more = Vec::new();
    // To memory, which takes everything.
    let _ = rest(list, single, &mut more);
    let mut wrong = false;
    for line in String::from_utf8_lossy(&more).lines() {
        wrong |= line == "Problems:";
        let kind = match line {
            line if wrong && line.starts_with("    ->") => Kind::Remedy,
            line if wrong && line.starts_with("  ") => Kind::Problem,
            _ => Kind::Text,
        };
        if wrong || line.starts_with("Replicas") {
            lines.extend(wrapped(line, width).map(|line| (kind, line)));
        } else {
            // Columns stay columns.
            lines.push((kind, line.to_owned()));
        }
    }
    lines
}

/// What `serinus status` says below its table.
fn rest(list: &RouteList, single: bool, out: &mut Vec<u8>) -> Result<(), CliError> {
    for route in list.routes.iter().filter(|_| single) {
        write_endpoints(route, out)?;
        route.mirror.iter().try_for_each(|mirror| write_mirror(mirror, out))?;
    }
    write_replicas(&list.replicas, out)?;
    write_problems(&list.routes, &list.problems, out)?;
    Ok(())
}

const COLUMNS: [&str; 11] =
    ["ROUTE", "VERSION", "SHARE", "ASKED", "EFFECTIVE", "MEASURED", "REQ/S", "ERRORS", "P50", "P99", "READY"];
/// What is left out first where there is no room.
const LEFT_OUT: [&str; 4] = ["SHARE", "P50", "EFFECTIVE", "ERRORS"];
/// The first column of numbers, and the one among those before that is text.
const NUMBERS: [&str; 3] = ["ROUTE", "VERSION", "SHARE"];

/// A line a version, below their titles.
fn versions(list: &RouteList, past: &Past, width: usize) -> Vec<(Kind, String)> {
    if list.routes.is_empty() {
        return vec![(Kind::Text, "The config has no routes.".to_owned())];
    }
    let rows: Vec<_> = list
        .routes
        .iter()
        .flat_map(|route| route.versions.iter().map(move |version| row(route, version, past)))
        .collect();
    for missing in 0..=LEFT_OUT.len() {
        let gone = LEFT_OUT.get(..missing).unwrap_or_default();
        let text = laid_out(&rows, gone);
        if missing == LEFT_OUT.len() || text.iter().all(|line| Line::raw(line.as_str()).width() <= width) {
            let kinds = std::iter::once(Kind::Head).chain(std::iter::repeat(Kind::Text));
            return kinds.zip(text).collect();
        }
    }
    Vec::new()
}

fn laid_out(rows: &[[String; 11]], gone: &[&str]) -> Vec<String> {
    let kept: Vec<_> = COLUMNS.into_iter().filter(|column| !gone.contains(column)).collect();
    let mut table = table(&kept);
    for row in rows {
        let cells = COLUMNS.iter().zip(row).filter(|(column, _)| kept.contains(column));
        table.add_row(cells.map(|(_, cell)| cell));
    }
    let numbers = kept.iter().enumerate().filter(|(_, column)| !NUMBERS.contains(column));
    let numbers: Vec<_> = numbers.map(|(place, _)| place).collect();
    align_right(&mut table, numbers);
    table.lines().map(|line| line.trim_end().to_owned()).collect()
}

fn row(route: &RouteStatus, version: &VersionStatus, past: &Past) -> [String; 11] {
    let effective = version.effective_weight;
    [
        plain(&route.name),
        plain(&version.name),
        bar(version.measured_share.unwrap_or_else(|| effective.ratio() * 100.0)),
        percent(version.weight),
        percent(effective),
        or_dash(version.measured_share, "%"),
        past.rate(&route.name, &version.name).map_or_else(|| "-".to_owned(), |rate| format!("{rate:.1}")),
        or_dash(version.error_rate, "%"),
        or_dash(version.p50_ms, "ms"),
        or_dash(version.p99_ms, "ms"),
        format!("{}/{}", version.endpoints.ready, all(version)),
    ]
}

/// A percentage as a bar; what is not nothing is seen.
fn bar(percent: f64) -> String {
    let cells = (percent / 100.0 * BAR as f64).round();
    let full = if percent > 0.0 { cells.clamp(1.0, BAR as f64) } else { 0.0 } as usize;
    format!("{}{}", "█".repeat(full), "·".repeat(BAR - full))
}

/// Where a rollout is, and how long its step has yet to be held.
fn rollout_line(route: &RouteStatus, rollout: &RolloutStatus) -> String {
    let (name, version) = (plain(&route.name), plain(&rollout.version));
    let (phase, reason) = (plain(&rollout.phase), plain(&rollout.reason));
    let (step, steps) = (rollout.step, rollout.steps.len());
    let here = step.checked_sub(1).and_then(|place| rollout.steps.get(place));
    let weight = here.map(|step| format!(" ({})", percent(step.weight))).unwrap_or_default();
    let left = here.filter(|_| rollout.phase == "running").map(|step| {
        let left = Duration::try_from_secs_f64((step.hold_seconds - rollout.held_seconds).max(0.0));
        let left = Duration::from_secs(left.unwrap_or_default().as_secs());
        format!(", {} left", humantime::format_duration(left))
    });
    let left = left.unwrap_or_default();
    format!("{name}: {version} at step {step} of {steps}{weight}, {phase}{left}: {reason}")
}

/// A line in as many as it takes, the further ones indented; a word that is too long is left whole.
fn wrapped(line: &str, width: usize) -> impl Iterator<Item = String> {
    let indent = line.len() - line.trim_start().len();
    let mut lines = vec![" ".repeat(indent)];
    let mut empty = true;
    for word in line.split_whitespace() {
        if let Some(last) = lines.last_mut() {
            let more = format!("{last}{}{word}", if empty { "" } else { " " });
            if empty || Line::raw(more.as_str()).width() <= width {
                *last = more;
                empty = false;
                continue;
            }
        }
        lines.push(format!("{}{word}", " ".repeat(indent + 2)));
    }
    lines.into_iter()
}
