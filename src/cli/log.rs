//! `serinus log`: which lines a running router logs.

use std::io::Write;

use ureq::http::Method;

use crate::admin::wire::{LogChange, LogStatus};

use super::client::{AdminArgs, Client};
use super::error::CliError;
use super::text::plain;

const PATH: &str = "/api/v1/log";

/// Shows or changes which lines one running router logs, until it ends
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "Examples:
  serinus log                              # what it logs now
  serinus log serinus=debug                # more
  serinus log serinus::kubernetes=trace    # much more, of one part
  serinus log --reset                      # as it began

Of several replicas each has a log of its own.")]
pub struct LogArgs {
    /// The levels, as RUST_LOG has them: LEVEL or TARGET=LEVEL, with commas between
    #[arg(value_name = "LEVELS")]
    pub filter: Option<String>,
    /// Log what it began with
    #[arg(long, conflicts_with = "filter")]
    pub reset: bool,
    /// Which router to ask.
    #[command(flatten)]
    pub admin: AdminArgs,
}

/// Shows or changes which lines a router logs.
///
/// # Errors
/// When the router cannot be reached or refuses.
pub fn log(args: &LogArgs, out: &mut dyn Write) -> Result<(), CliError> {
    let client = Client::new(&args.admin)?;
    let status: LogStatus = if args.reset || args.filter.is_some() {
        client.send(Method::PUT, PATH, &LogChange { filter: args.filter.clone() })?
    } else {
        client.get(PATH)?
    };
    writeln!(out, "began with: {}", plain(&status.start))?;
    match &status.filter {
        Some(filter) => writeln!(out, "asked for:  {}", plain(filter))?,
        None => writeln!(out, "asked for:  nothing since")?,
    }
    Ok(())
}
