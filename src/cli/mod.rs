//! The command line: a file for each command, and `app`, which wires the rooms.

pub mod app;
mod certificates;
mod check;
mod client;
mod demo;
mod endpoints;
mod error;
mod explain;
mod handover;
mod limits;
mod live;
mod live_lines;
mod live_screen;
mod log;
mod mirror;
mod rollout;
mod run;
mod scenario;
mod service_events;
mod simulate;
mod sockets;
mod state;
mod status;
mod takeover;
mod text;
mod weight;

pub use client::{AdminArgs, AdminUrl};
pub use error::CliError;
pub use explain::{ExplainArgs, explain, explain_table, write_explained};
pub use log::{LogArgs, log};
pub use rollout::{
    ActionArgs, FollowArgs, HistoryArgs, PromoteArgs, RolloutArgs, RolloutVerb, UndoArgs, rollout,
};
pub use status::{OutputForm, StatusArgs, status};
pub use weight::{Assignment, WeightArgs, weight};

use std::io::Write;
use std::process::ExitCode;

use clap::{CommandFactory as _, Parser, Subcommand};

/// Sends exactly the share of requests that you ask for to a new version, and takes it back at once.
#[derive(Debug, Parser)]
#[command(name = "serinus", version, max_term_width = 110)]
#[command(after_help = "Start with `serinus demo`: the whole thing on this machine, without a cluster.

Exit status: 0 done, 1 refused or failed (the reason on stderr), 2 wrong usage.")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the router.
    Run(run::RunArgs),
    /// Run the whole thing on this machine, without a cluster.
    Demo(demo::DemoArgs),
    /// Validate a config file and print its routes.
    Check(check::CheckArgs),
    /// Say which route and version a request would get, and why.
    Explain(explain::ExplainArgs),
    /// Show routes, versions, shares, pods and problems.
    Status(status::StatusArgs),
    /// Change weights now.
    Weight(weight::WeightArgs),
    /// Look at the revisions of a route's weights, and go back.
    Rollout(rollout::RolloutArgs),
    /// Show or change which lines a running router logs.
    Log(log::LogArgs),
    /// Play a config's rollout against assumed rates, before production.
    Simulate(simulate::SimulateArgs),
    /// Print the JSON Schema of the config file.
    Schema,
    /// Print completions for a shell.
    #[command(after_help = "Examples:
  source <(serinus completions bash)
  serinus completions zsh > ~/.zfunc/_serinus")]
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
}

/// Runs the command that the process was started with.
#[must_use]
pub fn main() -> ExitCode {
    limits::small_pages();
    let cli = Cli::parse();
    // Not locked: while the router runs, the access log's thread writes to it.
    let mut out = std::io::stdout();
    let mut done = run_command(&cli.command, &mut out);
    // `run` writes nothing itself, and the access log's thread may wait in a write, for a reader who never reads.
    if done.is_ok() && !matches!(cli.command, Command::Run(_)) {
        done = out.flush().map_err(CliError::from);
    }
    match error::reader_may_leave(done) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Nothing is left to tell when stderr is gone as well.
            let _ = writeln!(std::io::stderr(), "{error}");
            ExitCode::from(error.exit_status())
        }
    }
}

fn run_command(command: &Command, out: &mut dyn Write) -> Result<(), CliError> {
    match command {
        Command::Run(args) => run::run(args),
        Command::Demo(args) => demo::demo(args, out),
        Command::Check(args) => check::check(args, out),
        Command::Explain(args) => explain::explain(args, check::compile, out),
        Command::Status(args) if live::is_wanted(args) => live::watch(args),
        Command::Status(args) => status::status(args, out),
        Command::Weight(args) => weight::weight(args, out),
        Command::Rollout(args) => rollout::rollout(args, out),
        Command::Log(args) => log::log(args, out),
        Command::Simulate(args) => simulate::simulate(args, out),
        Command::Schema => check::schema(out),
        Command::Completions { shell } => {
            // To memory first: it panics when it cannot write.
            let mut script = Vec::new();
            clap_complete::generate(*shell, &mut Cli::command(), "serinus", &mut script);
            Ok(out.write_all(&script)?)
        }
    }
}

/// Runs a future on a runtime of all cores.
fn block_on<T>(future: impl Future<Output = Result<T, CliError>>) -> Result<T, CliError> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.map_err(|e| CliError::Failed(format!("threads cannot be started: {e}")))?;
    let result = runtime.block_on(future);
    // Work that blocks is not waited for: what must be kept was waited for before.
    runtime.shutdown_background();
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }
}
