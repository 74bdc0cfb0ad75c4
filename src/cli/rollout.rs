//! `serinus rollout`: rollouts that judge themselves, the history of a route's weights, and the way back.

mod follow;

use std::io::{self, Write};

use ureq::http::Method;

use crate::admin::wire::{History, RevisionStatus, RolloutAction, RolloutChange, RouteStatus, Undo};
use crate::model::RouteName;

use super::client::{AdminArgs, Client, route_path};
use super::error::{CliError, reader_may_leave};
use super::text::{plain, table, write_table};
use super::weight::{write_shares, write_weights};

pub use follow::FollowArgs;

/// Rolls a version out step by step, judged by its requests; shows the revisions of a route's weights, and goes back to one
#[derive(Clone, Debug, clap::Args)]
pub struct RolloutArgs {
    /// What to do.
    #[command(subcommand)]
    pub verb: RolloutVerb,
}

/// What to do with the rollout or the revisions of a route.
#[derive(Clone, Debug, clap::Subcommand)]
pub enum RolloutVerb {
    /// Starts the rollout that the config gives the route
    #[command(after_help = "Examples:\n  serinus rollout start shop --reason 'release 1.18'")]
    Start(ActionArgs),
    /// Shows the rollout until it ends; exits with 1 if it was rolled back or aborted
    #[command(
        after_help = "Examples:\n  serinus rollout status shop\n  serinus rollout status shop --watch=false"
    )]
    Status(FollowArgs),
    /// Keeps the rollout at its step; a bad verdict still takes it back
    Pause(ActionArgs),
    /// Lets a paused rollout go on
    Resume(ActionArgs),
    /// Ends the step of the rollout now
    #[command(
        after_help = "Examples:\n  serinus rollout promote shop\n  serinus rollout promote shop --full"
    )]
    Promote(PromoteArgs),
    /// Ends the rollout, with nothing for its version
    Abort(ActionArgs),
    /// Shows the last revisions of a route's weights, the newest last
    #[command(after_help = "Examples:\n  serinus rollout history shop")]
    History(HistoryArgs),
    /// Goes back to the weights of the revision before, or of another one
    #[command(
        after_help = "Examples:\n  serinus rollout undo shop\n  serinus rollout undo shop --to-revision 3"
    )]
    Undo(UndoArgs),
}

/// What is asked of a rollout.
#[derive(Clone, Debug, clap::Args)]
pub struct ActionArgs {
    /// The route
    pub route: RouteName,
    /// Why, for the history
    #[arg(long, value_name = "TEXT")]
    pub reason: Option<String>,
    /// Which router to ask.
    #[command(flatten)]
    pub admin: AdminArgs,
}

/// What `serinus rollout promote` is asked for.
#[derive(Clone, Debug, clap::Args)]
pub struct PromoteArgs {
    /// To the last step, instead of the next
    #[arg(long)]
    pub full: bool,
    /// What any action is asked for.
    #[command(flatten)]
    pub action: ActionArgs,
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
    let act = |args: &ActionArgs, action, full, out: &mut dyn Write| -> Result<(), CliError> {
        let change = RolloutChange { action, full, reason: args.reason.clone() };
        let path = format!("{}/rollout", route_path(&args.route));
        let route: RouteStatus = Client::new(&args.admin)?.send(Method::POST, &path, &change)?;
        if let Some(rollout) = &route.rollout {
            let (name, reason) = (plain(&route.name), plain(&rollout.reason));
            let (version, phase) = (plain(&rollout.version), plain(&rollout.phase));
            writeln!(out, "route {name}: the rollout of {version} is {phase}: {reason}")?;
        }
        Ok(write_shares(&route, out)?)
    };
    let written = match &args.verb {
        RolloutVerb::Start(args) => return reader_may_leave(act(args, RolloutAction::Start, false, out)),
        RolloutVerb::Pause(args) => return reader_may_leave(act(args, RolloutAction::Pause, false, out)),
        RolloutVerb::Resume(args) => return reader_may_leave(act(args, RolloutAction::Resume, false, out)),
        RolloutVerb::Abort(args) => return reader_may_leave(act(args, RolloutAction::Abort, false, out)),
        RolloutVerb::Promote(PromoteArgs { full, action }) => {
            return reader_may_leave(act(action, RolloutAction::Promote, *full, out));
        }
        RolloutVerb::Status(args) => return reader_may_leave(follow::follow(args, out)),
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
