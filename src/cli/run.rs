//! `serinus run`: the router, until it is told to stop.

use std::path::PathBuf;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};

use crate::config::{self, Settings};
use crate::telemetry::{LogFormat, Logs, init_logs};

use super::app::{End, Router};
use super::handover::Place;
use super::{CliError, limits, takeover};

/// How long the end may take after a second signal: for the lines of the requests that are cut.
const AT_ONCE: Duration = Duration::from_secs(5);

/// Runs the router.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "Examples:
  serinus run                                   # /etc/serinus/serinus.yaml
  serinus run --config config/static.yaml       # without a cluster
  serinus run -v                                # say more
  serinus run --handover /run/serinus/handover  # and again, to replace the router that runs

Stops cleanly on SIGTERM and Ctrl-C: unready at once, accepting for `drain.delay`, then
requests get until `drain.timeout`. A second signal stops at once.")]
pub(super) struct RunArgs {
    /// The config file, watched for changes.
    #[arg(long, short, value_name = "FILE", default_value = "/etc/serinus/serinus.yaml")]
    config: PathBuf,
    /// Take over from the router that was started with the same path, without losing a connection, if one runs; and let the
    /// next one take over. The path of a Unix socket, in a directory where only Serinus' user may write.
    #[arg(long, value_name = "PATH", env = "SERINUS_HANDOVER")]
    handover: Option<PathBuf>,
    /// Log more: -v each change, -vv each request that fails. RUST_LOG, where set, decides instead.
    #[arg(short, long, action = clap::ArgAction::Count)]
    verbose: u8,
    /// How to write log lines: text, json, or text on a terminal and JSON elsewhere.
    #[arg(long, value_name = "FORMAT", default_value = "auto", value_enum)]
    log_format: LogFormatArg,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum LogFormatArg {
    Auto,
    Text,
    Json,
}

impl From<LogFormatArg> for LogFormat {
    fn from(arg: LogFormatArg) -> Self {
        match arg {
            LogFormatArg::Auto => LogFormat::Auto,
            LogFormatArg::Text => LogFormat::Text,
            LogFormatArg::Json => LogFormat::Json,
        }
    }
}

/// What these libraries warn of is what any client can bring about, as often as it likes: frames and handshakes that are not
/// as they should be.
const CLIENTS_LOG_FILTER: &str = "h2=off,rustls=off";

/// Starts logging at a level: what Serinus says, and of its libraries only what is worth waking for.
pub(super) fn start_logs(format: LogFormat, verbose: u8) -> Logs {
    let level = match verbose {
        0 => "info",
        1 => "debug",
        _ => "trace",
    };
    init_logs(format, &format!("warn,serinus={level},{CLIENTS_LOG_FILTER},{}", crate::kubernetes::LOG_FILTER))
}

/// Runs the router until SIGTERM or Ctrl-C, or until the next process has taken over.
///
/// # Errors
/// When the config is refused, or the router cannot start.
pub(super) fn run(args: &RunArgs) -> Result<(), CliError> {
    let _logs = start_logs(args.log_format.into(), args.verbose);
    let settings = config::load(&args.config).map_err(|errors| CliError::Failed(errors.to_string()))?;
    limits::raise();
    super::block_on(async {
        // Before anything listens: from the first connection on a signal must find somebody who stops cleanly, and the
        // first process of a container does not even hear one that nobody waits for.
        let mut signals = Signals::new()?;
        let mut router = tokio::select! {
            router = start(args, settings) => {
                router.map_err(|error| CliError::Failed(format!("{error:#}")))?
            }
            () = signals.next() => return Ok(()),
        };
        let ended = tokio::select! {
            () = signals.next() => None,
            ended = router.ended() => Some(ended),
        };
        if let Some(End::HandedOver(pid)) = ended {
            tracing::info!(
                pid,
                "handed over: no connection is accepted from now on, requests end within drain.timeout"
            );
        }
        stop(router, &mut signals).await;
        match ended {
            Some(End::Broken(part)) => Err(CliError::Failed(format!(
                "{part} broke off, which is a fault of Serinus; its log says more"
            ))),
            Some(End::HandedOver(_)) | None => Ok(()),
        }
    })
}

async fn start(args: &RunArgs, settings: Settings) -> anyhow::Result<Router> {
    match &args.handover {
        Some(path) => takeover::start(settings, args.config.clone(), &Place::at(path)?).await,
        None => Router::start(settings, Some(args.config.clone())).await,
    }
}

/// Stops the router; a signal that comes meanwhile has it wait for nothing any more.
async fn stop(router: Router, signals: &mut Signals) {
    let hurry = router.hurry();
    let mut stopping = std::pin::pin!(router.stop());
    tokio::select! {
        _ = &mut stopping => return,
        () = signals.next() => {}
    }
    tracing::warn!("second signal: stopped at once");
    hurry();
    tokio::select! {
        _ = tokio::time::timeout(AT_ONCE, stopping) => {}
        () = signals.next() => {}
    }
}

/// SIGTERM and Ctrl-C.
pub(super) struct Signals {
    terminate: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
}

impl Signals {
    pub(super) fn new() -> Result<Self, CliError> {
        let failed =
            |error: std::io::Error| CliError::Failed(format!("signals cannot be listened for: {error}"));
        Ok(Self {
            terminate: signal(SignalKind::terminate()).map_err(failed)?,
            interrupt: signal(SignalKind::interrupt()).map_err(failed)?,
        })
    }

    pub(super) async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}
