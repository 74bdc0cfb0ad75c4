//! The access log: one JSON object a request, written off the request path.

use std::path::Path;

use serde::Serialize;
use tracing_appender::non_blocking::{ErrorCounter, NonBlocking, WorkerGuard};

use crate::model::Timestamp;

/// One request, as the access log shows it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct AccessEntry<'a> {
    /// When the answer had ended.
    pub time: Timestamp,
    /// The client's address, without its port.
    pub client: &'a str,
    /// The method.
    pub method: &'a str,
    /// The host that was asked for.
    pub host: &'a str,
    /// Path and query as the client sent them.
    pub path: &'a str,
    /// The status of the answer; 499 when the client had gone before one could be sent.
    pub status: u16,
    /// The route, if one matched.
    pub route: Option<&'a str>,
    /// The version it went to.
    pub version: Option<&'a str>,
    /// Why that version.
    pub reason: Option<&'a str>,
    /// The token of an answer that Serinus gave itself (`X-Serinus-Reason`).
    pub answer: Option<&'a str>,
    /// Why the last attempt failed, in words; left out where none did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failure: Option<&'a str>,
    /// The endpoint that was tried last.
    pub upstream: Option<String>,
    /// The endpoints that were tried in vain before; left out where there were none.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tried: Vec<String>,
    /// How many attempts there were.
    pub attempts: u32,
    /// From the request's head to the end of the answer, in milliseconds.
    pub duration_ms: f64,
    /// Bytes of the answer's body.
    pub bytes: usize,
    /// The request's id (`X-Request-Id`).
    pub request_id: &'a str,
}

/// Why an access log could not be opened.
#[derive(Debug, thiserror::Error)]
#[error(
    "the access log {path} cannot be written: {error}; check the directory's existence, rights and free space"
)]
pub struct AccessLogError {
    path: String,
    error: std::io::Error,
}

/// How many lines may wait to be written: some 10 MB at their usual length.
const QUEUE: usize = 16_384;

/// A writer with a bounded queue: when it is full, lines are dropped and counted rather than a request held up.
#[derive(Debug)]
pub struct AccessLog {
    writer: NonBlocking,
    guard: Option<WorkerGuard>,
}

impl Drop for AccessLog {
    fn drop(&mut self) {
        super::logs::finish(self.guard.take());
    }
}

impl AccessLog {
    /// Lines to standard output.
    #[must_use]
    pub fn stdout() -> Self {
        Self::new(std::io::stdout())
    }

    /// Lines appended to a file.
    ///
    /// # Errors
    /// When the file cannot be opened for appending.
    pub fn file(path: &Path) -> Result<Self, AccessLogError> {
        std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(path)
            .map(Self::new)
            .map_err(|error| AccessLogError { path: path.display().to_string(), error })
    }

    fn new(target: impl std::io::Write + Send + 'static) -> Self {
        let (writer, guard) = tracing_appender::non_blocking::NonBlockingBuilder::default()
            .lossy(true)
            .buffered_lines_limit(QUEUE)
            .thread_name("access-log")
            .finish(target);
        Self { writer, guard: Some(guard) }
    }

    /// Queues one line.
    pub fn write(&self, entry: &AccessEntry<'_>) {
        use std::io::Write as _;
        if let Ok(mut line) = serde_json::to_vec(entry) {
            line.push(b'\n');
            // A full queue is counted by the writer; nothing else can fail here.
            let _ = self.writer.clone().write_all(&line);
        }
    }

    /// Counts the lines that are dropped because the queue is full.
    pub(super) fn dropped(&self) -> ErrorCounter {
        self.writer.error_counter()
    }
}
