//! Where log lines go: text on a terminal, JSON elsewhere, always on stderr; written off the tasks that say them, so that a
//! reader who does not read holds nothing up.

use std::io::IsTerminal as _;
use std::sync::mpsc;
use std::time::Duration;

use tracing::{Level, Metadata};
use tracing_appender::non_blocking::{NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::Layer as _;
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

use super::log_filter::{changeable, keep, start};

/// How log lines are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// Text on a terminal, JSON elsewhere.
    #[default]
    Auto,
    /// Text for people.
    Text,
    /// One JSON object a line.
    Json,
}

/// How many lines may wait to be written; further ones are dropped.
const QUEUE: usize = 8_192;

/// Logging goes on as long as this is kept; what waits is written when it is dropped, in a second at most.
#[must_use = "what waits to be written is lost otherwise"]
#[derive(Debug)]
pub struct Logs(Option<WorkerGuard>);

impl Drop for Logs {
    fn drop(&mut self) {
        finish(self.0.take());
    }
}

/// How long what waits to be written may take at the end.
const LAST_LINES: Duration = Duration::from_millis(1_500);

/// Has written what waits to be, in the time there is. The guard alone waits no longer, but when it gives up it says so on
/// stdout, and for ever if nobody reads there.
pub(super) fn finish(guard: Option<WorkerGuard>) {
    let (tell, told) = mpsc::channel();
    let ending = std::thread::Builder::new().name("last-lines".to_owned()).spawn(move || {
        drop(guard);
        let _ = tell.send(());
    });
    if ending.is_ok() {
        let _ = told.recv_timeout(LAST_LINES);
    }
}

/// Whether a line could show what nobody may see: the client of webhooks and collectors writes down what it sends, with whole URLs
/// and fields, at `trace`, and where that is on at `debug` too.
fn shows_secrets(metadata: &Metadata<'_>) -> bool {
    *metadata.level() > Level::INFO && metadata.target().starts_with("ureq")
}

/// Starts logging; a second call does nothing. `RUST_LOG` decides what is written, `default` where it is not set, and from then on
/// [`set_log_filter`](super::set_log_filter).
pub fn init(format: LogFormat, default: &str) -> Logs {
    let (filter, text_of_filter) = start(default);
    let (filter, handle) = changeable(filter);
    let text = match format {
        LogFormat::Auto => std::io::stderr().is_terminal(),
        LogFormat::Text => true,
        LogFormat::Json => false,
    };
    let registry = tracing_subscriber::registry().with(filter);
    let (writer, guard) = NonBlockingBuilder::default()
        .buffered_lines_limit(QUEUE)
        .lossy(true)
        .thread_name("log")
        .finish(std::io::stderr());
    let layer = tracing_subscriber::fmt::layer().with_writer(writer);
    let open = || filter_fn(|metadata| !shows_secrets(metadata));
    // Fails only when logging was started before, as tests do.
    let started = if text {
        registry
            .with(layer.with_target(false).with_ansi(std::io::stderr().is_terminal()).with_filter(open()))
            .try_init()
    } else {
        registry.with(layer.json().flatten_event(true).with_filter(open())).try_init()
    };
    if started.is_ok() {
        keep(handle, text_of_filter);
    }
    Logs(Some(guard))
}
