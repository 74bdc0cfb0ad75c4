//! `serinus weight`: changes weights now.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::str::FromStr;

use ureq::http::Method;

use crate::admin::wire::{RouteStatus, WeightsChange};
use crate::model::{RouteName, Share, VersionName};

use super::client::{AdminArgs, Client, route_path};
use super::error::{CliError, reader_may_leave};
use super::text::{align_right, percent, plain, table, write_table};

/// Changes the weights of a route now
#[derive(Clone, Debug, clap::Args)]
#[command(
    after_help = "Versions left out keep theirs; the stable version takes the rest.\n\nExamples:\n  serinus weight shop v2=0.1\n  serinus weight shop v2=30% v3=5% --reason 'more of v2'\n  serinus weight shop v2=0"
)]
pub struct WeightArgs {
    /// The route
    pub route: RouteName,
    /// A version and its share: a percentage with at most four decimals
    #[arg(required = true, value_name = "VERSION=PERCENT")]
    pub weights: Vec<Assignment>,
    /// Why, for the history
    #[arg(long, value_name = "TEXT")]
    pub reason: Option<String>,
    /// Which router to ask.
    #[command(flatten)]
    pub admin: AdminArgs,
}

/// A version and its share: `v2=0.1` or `v2=0.1%`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Assignment {
    /// The version.
    pub version: VersionName,
    /// Its share.
    pub share: Share,
}

impl FromStr for Assignment {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let Some((version, share)) = text.split_once('=') else {
            return Err("write VERSION=PERCENT, like v2=0.1".to_owned());
        };
        let version = version.parse().map_err(|e: crate::model::NameError| e.to_string())?;
        let share = share.strip_suffix('%').unwrap_or(share).trim_end();
        let share = share.parse().map_err(|e: crate::model::ShareError| e.to_string())?;
        Ok(Self { version, share })
    }
}

/// Changes weights and shows what is in force then.
///
/// # Errors
/// When a version is given twice, the router cannot be reached, or it refuses.
pub fn weight(args: &WeightArgs, out: &mut dyn Write) -> Result<(), CliError> {
    let mut weights = BTreeMap::new();
    for Assignment { version, share } in &args.weights {
        if weights.insert(version.to_string(), *share).is_some() {
            return Err(CliError::Usage(format!("version `{version}` is given twice: give it one share")));
        }
    }
    let change = WeightsChange { weights, reason: args.reason.clone() };
    let path = route_path(&args.route);
    let client = Client::new(&args.admin)?;
    // Only to say more: a change must not wait for it, or fail with it.
    let before = client.get_text(&path).ok().and_then(|text| client.parse::<RouteStatus>(&text).ok());
    let route: RouteStatus = client.send(Method::PUT, &format!("{path}/weights"), &change)?;
    // What is asked for already is no revision.
    let unchanged = before.is_some_and(|before| before.revision == route.revision);
    let unchanged = unchanged.then(|| nothing_changed(&change));
    let written = unchanged.map_or(Ok(()), |said| writeln!(out, "{said}"));
    reader_may_leave(written.and_then(|()| write_weights(&route, out)).map_err(CliError::from))
}

/// `nothing changed: v2 is at 5 % already`.
fn nothing_changed(change: &WeightsChange) -> String {
    let at = |(version, share): (&String, &Share)| format!("{} is at {}", plain(version), percent(*share));
    let all: Vec<_> = change.weights.iter().map(at).collect();
    format!("nothing changed: {} already", all.join(", "))
}

/// A route's weights in a few lines, and that its rollout is paused, as weights that somebody sets have it.
pub(super) fn write_weights(route: &RouteStatus, out: &mut dyn Write) -> io::Result<()> {
    write_shares(route, out)?;
    if let Some(rollout) = route.rollout.as_ref().filter(|rollout| rollout.phase == "paused") {
        let reason = rollout.reason.strip_prefix("paused: ").unwrap_or(&rollout.reason);
        writeln!(out, "note: the rollout of {} is paused: {}", plain(&rollout.version), plain(reason))?;
    }
    out.flush()
}

/// A route's weights in a few lines.
pub(super) fn write_shares(route: &RouteStatus, out: &mut dyn Write) -> io::Result<()> {
    writeln!(out, "route {} is at revision {}", plain(&route.name), route.revision)?;
    let mut table = table(&["VERSION", "ASKED", "EFFECTIVE", "READY PODS"]);
    for version in &route.versions {
        table.add_row([
            plain(&version.name),
            percent(version.weight),
            percent(version.effective_weight),
            version.endpoints.ready.to_string(),
        ]);
    }
    align_right(&mut table, 1..4);
    write_table(&table, out)?;
    // What is in force sums to the whole unless something is given to nobody.
    let in_force: u64 = route.versions.iter().map(|v| u64::from(v.effective_weight.millionths())).sum();
    let fate = if in_force < u64::from(Share::DENOMINATOR) { "are answered 503" } else { "go to others" };
    for version in route.versions.iter().filter(|v| v.weight > v.effective_weight) {
        let (name, asked) = (plain(&version.name), percent(version.weight));
        writeln!(out, "note: {name} has no usable pod, so its {asked} {fate} (`serinus status` says more)")?;
    }
    out.flush()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn assignments() {
        let read =
            |text: &str| text.parse::<Assignment>().map(|a| (a.version.to_string(), a.share.millionths()));
        for (text, share) in [("v2=0.1", 1_000), ("v2=0.1%", 1_000), ("v2=100 %", 1_000_000), ("v2=0", 0)] {
            assert_eq!(read(text), Ok(("v2".to_owned(), share)), "{text}");
        }
        for (text, needle) in [
            ("v2", "VERSION=PERCENT"),
            ("v2=", "not a percentage"),
            ("v2=x", "not a percentage"),
            ("v2=101", "not between 0 and 100"),
            ("v2=0.00001", "finer than one in a million"),
            ("=5", "is not a name"),
            ("v2=5%%", "not a percentage"),
        ] {
            assert!(read(text).unwrap_err().contains(needle), "{text}: {:?}", read(text));
        }
    }
}
