//! `serinus rollout`: the history of a route's weights, and the way back.

use std::io::{self, Write};

use ureq::http::Method;

use crate::admin::wire::{History, RevisionStatus, RouteStatus, Undo};
use crate::model::RouteName;

use super::client::{AdminArgs, Client, route_path};
use super::error::{CliError, reader_may_leave};
use super::text::{plain, table, write_table};
use super::weight::write_weights;

/// Shows the revisions of a route's weights, and goes back to one
#[derive(Clone, Debug, clap::Args)]
pub struct RolloutArgs {
    /// What to do.
    #[command(subcommand)]
    pub verb: RolloutVerb,
}

/// What to do with the revisions of a route.
#[derive(Clone, Debug, clap::Subcommand)]
pub enum RolloutVerb {
    /// Shows the last revisions of a route's weights, the newest last
    #[command(after_help = "Examples:\n  serinus rollout history shop")]
    History(HistoryArgs),
    /// Goes back to the weights of the revision before, or of another one
    #[command(
        after_help = "Examples:\n  serinus rollout undo shop\n  serinus rollout undo shop --to-revision 3"
    )]
    Undo(UndoArgs),
}

/// What `serinus rollout history` is asked for.
#[derive(Clone, Debug, clap::Args)]
pub struct HistoryArgs {
    /// The route
    pub route: RouteName,
    /// Which router to ask.
    #[command(flatten)]
    pub admin: AdminArgs,
}

/// What `serinus rollout undo` is asked for.
#[derive(Clone, Debug, clap::Args)]
pub struct UndoArgs {
    /// The route
    pub route: RouteName,
    /// The revision whose weights come back; left out, the one before the one in force
    #[arg(long, value_name = "N")]
    pub to_revision: Option<u64>,
    /// Why, for the history
    #[arg(long, value_name = "TEXT")]
    pub reason: Option<String>,
    /// Which router to ask.
    #[command(flatten)]
    pub admin: AdminArgs,
}

/// Shows a route's revisions, or goes back to one.
///
/// # Errors
/// When the router cannot be reached, or it refuses.
pub fn rollout(args: &RolloutArgs, out: &mut dyn Write) -> Result<(), CliError> {
    let written = match &args.verb {
        RolloutVerb::History(args) => {
            let path = format!("{}/history", route_path(&args.route));
            let history: History = Client::new(&args.admin)?.get(&path)?;
            write_history(&history, out)
        }
        RolloutVerb::Undo(args) => {
            let path = format!("{}/undo", route_path(&args.route));
            let undo = Undo { to_revision: args.to_revision, reason: args.reason.clone() };
            let route: RouteStatus = Client::new(&args.admin)?.send(Method::POST, &path, &undo)?;
            write_weights(&route, out)
        }
    };
    reader_may_leave(written.map_err(CliError::from))
}

fn write_history(history: &History, out: &mut dyn Write) -> io::Result<()> {
    writeln!(out, "route {}", plain(&history.route))?;
    let mut table = table(&["REVISION", "TIME", "SOURCE", "WHO", "WEIGHTS", "REASON"]);
    for entry in &history.revisions {
        table.add_row([
            entry.revision.to_string(),
            plain(&entry.time),
            plain(&entry.source),
            entry.who.as_deref().map_or_else(|| "-".to_owned(), plain),
            weights(entry),
            entry.reason.as_deref().map_or_else(|| "-".to_owned(), plain),
        ]);
    }
    write_table(&table, out)?;
    out.flush()
}

fn weights(entry: &RevisionStatus) -> String {
    let each = entry.after.iter().map(|(name, share)| format!("{}={share}", plain(name)));
    each.collect::<Vec<_>>().join(" ")
}
