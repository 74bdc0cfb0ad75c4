//! `serinus status`: what is asked, what is in force, what is measured.

use std::io::{self, IsTerminal as _, Write};
use std::time::{Duration, SystemTime};

use crate::admin::wire::{ProblemNote, ReplicaStatus, RouteList, RouteStatus, VersionStatus};
use crate::model::{RouteName, Timestamp};

use super::client::{AdminArgs, Client, route_path};
use super::endpoints::{ailing, all, write_endpoints};
use super::error::{CliError, reader_may_leave};
use super::mirror::write_mirror;
use super::text::{align_right, or_dash, percent, plain, table, write_table};

/// How often `--watch` asks.
pub(super) const PERIOD: Duration = Duration::from_secs(1);
/// How many endpoints without a version are named, and routes in which a replica differs.
const NAMED: usize = 5;

/// Shows the routes, what is asked of their versions, and how they do
#[derive(Clone, Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  serinus status\n  serinus status shop --watch\n  serinus status shop -o json | jq '.versions[].measuredShare'"
)]
pub struct StatusArgs {
    /// Only this route
    pub route: Option<RouteName>,
    /// Show it anew every second, until Ctrl-C; on a terminal as a screen that scrolls, until q
    #[arg(long, short)]
    pub watch: bool,
    /// How to write it: `json` is what the admin API answers
    #[arg(long, short, value_enum, default_value = "table")]
    pub output: OutputForm,
    /// Which router to ask.
    #[command(flatten)]
    pub admin: AdminArgs,
}

/// How to write a status.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum OutputForm {
    /// For people.
    Table,
    /// As the admin API answers it.
    Json,
    /// The same as YAML.
    Yaml,
}

/// Shows routes and how their versions do.
///
/// # Errors
/// When the router cannot be reached or refuses, or there is no such route. With `--watch`, only when that is so at first, or
/// for a reason that waiting cannot cure.
pub fn status(args: &StatusArgs, out: &mut dyn Write) -> Result<(), CliError> {
    let shown = if args.watch {
        watch(args, out, io::stdout().is_terminal(), || {
            std::thread::sleep(PERIOD);
            true
        })
    } else {
        Client::new(&args.admin).and_then(|client| {
            let text = show(args, &client)?;
            Ok(out.write_all(&text)?)
        })
    };
    reader_may_leave(shown.and_then(|()| Ok(out.flush()?)))
}

/// Shows it anew as long as `again` (which takes its time) says so.
fn watch(
    args: &StatusArgs,
    out: &mut dyn Write,
    on_terminal: bool,
    mut again: impl FnMut() -> bool,
) -> Result<(), CliError> {
    let mut text = show(args, &Client::new(&args.admin)?)?;
    loop {
        if on_terminal {
            // To the upper left, and nothing from there on.
            write!(out, "\x1b[H\x1b[J")?;
        }
        out.write_all(&text)?;
        if args.output == OutputForm::Table && !on_terminal {
            writeln!(out)?;
        }
        out.flush()?;
        if !again() {
            return Ok(());
        }
        // The token file is read anew as well, so that a rotated one does not end the watch.
        text = match Client::new(&args.admin).and_then(|client| show(args, &client)) {
            Ok(text) => text,
            Err(CliError::Unreachable(error)) if args.output == OutputForm::Table => {
                let now = Timestamp::from(SystemTime::now());
                format!("{now}: {error}\nasking again every second\n").into_bytes()
            }
            // Others read objects: nothing rather than something else.
            Err(CliError::Unreachable(_)) => Vec::new(),
            Err(error) => return Err(error),
        };
    }
}

/// What is to be written.
fn show(args: &StatusArgs, client: &Client) -> Result<Vec<u8>, CliError> {
    let path = args.route.as_ref().map_or_else(|| "/api/v1/routes".to_owned(), route_path);
    let answer = client.get_text(&path)?;
    let mut text = Vec::new();
    match args.output {
        OutputForm::Json => writeln!(text, "{}", answer.trim_end())?,
        OutputForm::Yaml => {
            // Not by way of the types, which would leave out what a newer router adds.
            let value: yaml_serde::Value = client.parse(&answer)?;
            let yaml = yaml_serde::to_string(&value).map_err(|e| CliError::Failed(e.to_string()))?;
            write!(text, "{yaml}")?;
        }
        OutputForm::Table if args.route.is_some() => {
            let route: RouteStatus = client.parse(&answer)?;
            write_versions(std::slice::from_ref(&route), &mut text)?;
            write_rollouts(std::slice::from_ref(&route), &mut text)?;
            write_endpoints(&route, &mut text)?;
            route.mirror.iter().try_for_each(|mirror| write_mirror(mirror, &mut text))?;
            write_problems(std::slice::from_ref(&route), &[], &mut text)?;
        }
        OutputForm::Table => {
            let list: RouteList = client.parse(&answer)?;
            write_versions(&list.routes, &mut text)?;
            write_rollouts(&list.routes, &mut text)?;
            write_replicas(&list.replicas, &mut text)?;
            write_problems(&list.routes, &list.problems, &mut text)?;
        }
    }
    Ok(text)
}

const USERS: &str = "USERS";
const COLUMNS: [&str; 12] = [
    "ROUTE",
    "VERSION",
    "ASKED",
    "EFFECTIVE",
    "MEASURED",
    "REQUESTS",
    USERS,
    "READY",
    "ERRORS",
    "P50",
    "P99",
    "REVISION",
];

/// A line a version.
fn write_versions(routes: &[RouteStatus], out: &mut dyn Write) -> io::Result<()> {
    if routes.is_empty() {
        writeln!(out, "The config has no routes.")
    } else {
        // Users are a column only where somebody counts them.
        let by_user = routes.iter().flat_map(|route| &route.versions).any(|version| version.users.is_some());
        let header: Vec<_> = COLUMNS.into_iter().filter(|column| by_user || *column != USERS).collect();
        let mut table = table(&header);
        for route in routes {
            for version in &route.versions {
                let cells = COLUMNS.into_iter().zip(row(route, version));
                table.add_row(cells.filter(|(column, _)| header.contains(column)).map(|(_, cell)| cell));
            }
        }
        align_right(&mut table, 2..header.len());
        write_table(&table, out)
    }
}

/// The part of the users, and how many that are.
fn users(version: &VersionStatus) -> String {
    match (version.measured_user_share, version.users) {
        (Some(share), Some(users)) => format!("{share} % ({users})"),
        _ => "-".to_owned(),
    }
}

fn row(route: &RouteStatus, version: &VersionStatus) -> [String; 12] {
    [
        plain(&route.name),
        plain(&version.name),
        percent(version.weight),
        percent(version.effective_weight),
        or_dash(version.measured_share, "%"),
        version.requests.to_string(),
        users(version),
        format!("{}/{}", version.endpoints.ready, all(version)),
        or_dash(version.error_rate, "%"),
        or_dash(version.p50_ms, "ms"),
        or_dash(version.p99_ms, "ms"),
        route.revision.to_string(),
    ]
}

/// The last rollout of each route that had one.
fn write_rollouts(routes: &[RouteStatus], out: &mut dyn Write) -> io::Result<()> {
    let mut title = "\nRollouts:\n";
    for route in routes {
        let Some(rollout) = &route.rollout else { continue };
        let (name, version) = (plain(&route.name), plain(&rollout.version));
        let (step, steps) = (rollout.step, rollout.steps.len());
        let (phase, reason) = (plain(&rollout.phase), plain(&rollout.reason));
        writeln!(out, "{title}  {name}: {version} at step {step} of {steps}, {phase}: {reason}")?;
        title = "";
    }
    Ok(())
}

/// Who else has these weights.
pub(super) fn write_replicas(replicas: &[ReplicaStatus], out: &mut dyn Write) -> io::Result<()> {
    let shown = |replica: &ReplicaStatus| {
        let marks =
            [(replica.asked, "this one"), (replica.leads, "leads"), (!replica.live, "no sign of life")];
        let marks: Vec<_> = marks.iter().filter(|(so, _)| *so).map(|(_, word)| *word).collect();
        let said = [marks.join(", "), differs(replica)];
        let said: Vec<_> = said.into_iter().filter(|said| !said.is_empty()).collect();
        let marks = if said.is_empty() { String::new() } else { format!(" ({})", said.join("; ")) };
        format!("{}{marks}", plain(&replica.name))
    };
    let all: Vec<_> = replicas.iter().map(shown).collect();
    if all.is_empty() { Ok(()) } else { writeln!(out, "\nReplicas: {}", all.join(", ")) }
}

/// Of which routes it serves something else, as far as the one that was asked has heard.
fn differs(replica: &ReplicaStatus) -> String {
    let named: Vec<_> = replica.differs.iter().take(NAMED).map(|route| plain(route)).collect();
    let more = replica.differs_more || replica.differs.len() > named.len();
    match (named.as_slice(), more) {
        ([], false) => String::new(),
        ([], true) => "other revisions of some routes".to_owned(),
        ([only], false) => format!("another revision of {only}"),
        (named, false) => format!("other revisions of {}", named.join(", ")),
        (named, true) => format!("other revisions of {} and more", named.join(", ")),
    }
}

/// What is wrong.
pub(super) fn write_problems(
    routes: &[RouteStatus],
    problems: &[ProblemNote],
    out: &mut dyn Write,
) -> io::Result<()> {
    let of_routes = routes.iter().flat_map(|route| {
        let unassigned = (route.unassigned_count > 0).then(|| unassigned(route));
        let named = move |p: &ProblemNote| {
            (format!("{}: {}", plain(&route.name), plain(&p.message)), plain(&p.remedy))
        };
        route.problems.iter().map(named).chain(ailing(route)).chain(unassigned)
    });
    let general = problems.iter().map(|p| (plain(&p.message), plain(&p.remedy)));
    let all: Vec<_> = general.chain(of_routes).collect();
    if !all.is_empty() {
        writeln!(out, "\nProblems:")?;
    }
    for (message, remedy) in all {
        writeln!(out, "  {message}\n    -> {remedy}")?;
    }
    Ok(())
}

fn unassigned(route: &RouteStatus) -> (String, String) {
    let named: Vec<String> = route
        .unassigned
        .iter()
        .take(NAMED)
        .map(|u| match (&u.pod, u.labels_pending) {
            (_, true) => format!("{} (its labels are awaited)", plain(&u.address)),
            (Some(pod), false) => format!("{} ({})", plain(&u.address), plain(pod)),
            (None, false) => plain(&u.address),
        })
        .collect();
    let more = route.unassigned_count.saturating_sub(named.len());
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    (
        format!(
            "{}: {} endpoints belong to no version and get no traffic: {}{more}",
            plain(&route.name),
            route.unassigned_count,
            named.join(", ")
        ),
        "if they should, let a version's selector match their labels".to_owned(),
    )
}

#[cfg(test)]
#[path = "status_tests.rs"]
mod tests;
