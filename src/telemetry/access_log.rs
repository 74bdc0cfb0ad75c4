//! The access log: a line a request, written off the request path.
//!
//! Whether a request has a line is drawn first: one that has none is not even looked at. Those that went wrong always have one.

use std::cell::RefCell;
use std::io::{self, BufWriter, Write};
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::thread;
use std::time::Duration;

use serde::Serialize;
use tracing_appender::non_blocking::{ErrorCounter, NonBlocking, WorkerGuard};

use crate::model::{AccessFormat, PodKey, Share, Timestamp};

use super::access_text;

/// One request, as the access log shows it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct AccessEntry<'a> {
    /// When the answer had ended.
    pub time: Timestamp,
    /// The client's address, without its port.
    pub client: IpAddr,
    /// The method.
    pub method: &'a str,
    /// The host that was asked for.
    pub host: &'a str,
    /// Path and query as the client sent them.
    pub path: &'a str,
    /// The version of HTTP, as its specifications write it; left out where the head was not read whole.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub protocol: Option<&'static str>,
    /// The client's TLS; left out where there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<AccessTls<'a>>,
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
    pub upstream: Option<SocketAddr>,
    /// Its pod; left out where it has none that is known.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "pod")]
    pub pod: Option<&'a PodKey>,
    /// The endpoints that were tried in vain before; left out where there were none.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tried: Vec<SocketAddr>,
    /// How many attempts there were.
    pub attempts: u32,
    /// From the request's head to the end of the answer, in milliseconds.
    pub duration_ms: f64,
    /// How long it took to have the last attempt's connection, in milliseconds; left out where one that waited was used.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connect_ms: Option<f64>,
    /// From the request's head to that of a pod's answer, in milliseconds; left out where no pod's was passed on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first_byte_ms: Option<f64>,
    /// Bytes of the answer's body.
    pub bytes: u64,
    /// The request's id (`X-Request-Id`).
    pub request_id: &'a str,
    /// The trace that it is a part of (`traceparent`); left out where it says none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trace_id: Option<&'a str>,
    /// `Referer`: a part of the combined format, and of no other.
    #[serde(skip)]
    pub referer: Option<&'a [u8]>,
    /// `User-Agent`: the same.
    #[serde(skip)]
    pub user_agent: Option<&'a [u8]>,
}

/// TLS of a client's connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct AccessTls<'a> {
    /// Its version, as OpenSSL writes it: `TLSv1.3`.
    pub version: &'a str,
    /// Whether it went on with an earlier session.
    pub resumed: bool,
    /// The host that it is for (SNI); left out where the client did not say so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server_name: Option<&'a str>,
}

fn pod<S: serde::Serializer>(pod: &Option<&PodKey>, serializer: S) -> Result<S::Ok, S::Error> {
    match pod {
        Some(pod) => serializer.collect_str(&format_args!("{}/{}", pod.namespace, pod.name)),
        None => serializer.serialize_none(),
    }
}

/// Why an access log could not be opened.
#[derive(Debug, thiserror::Error)]
#[error(
    "the access log {path} cannot be written: {error}; check the directory's existence, rights and free space"
)]
pub struct AccessLogError {
    path: String,
    error: io::Error,
}

/// How many lines may wait to be written: some 10 MB at their usual length.
const QUEUE: usize = 16_384;
/// How much memory a thread keeps for its next line, in bytes.
const KEPT: usize = 16 * 1024;
/// How many bytes of lines are written at once.
const GATHERED: usize = 64 * 1024;
/// How long lines gather after others were written.
const PAUSE: Duration = Duration::from_millis(20);

thread_local! {
    /// The line that is being made.
    static LINE: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Lines that are written together. The writer's thread flushes when none waits any more, and would be woken for the next one: for each
/// request, with a call of the system on either side. So it rests then, while others come.
struct Gathered<W: Write>(BufWriter<W>);

impl<W: Write> Write for Gathered<W> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.0.write(line)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()?;
        thread::sleep(PAUSE);
        Ok(())
    }
}

/// A writer with a bounded queue: when it is full, lines are dropped and counted rather than a request held up.
#[derive(Debug)]
pub struct AccessLog {
    writer: NonBlocking,
    guard: Option<WorkerGuard>,
    format: AccessFormat,
    sample: Share,
}

impl Drop for AccessLog {
    fn drop(&mut self) {
        super::logs::finish(self.guard.take());
    }
}

impl AccessLog {
    /// Lines to standard output; `sample` is the share of the requests that went well.
    #[must_use]
    pub fn stdout(format: AccessFormat, sample: Share) -> Self {
        Self::new(io::stdout(), format, sample)
    }

    /// Lines appended to a file; `sample` is the share of the requests that went well.
    ///
    /// # Errors
    /// When the file cannot be opened for appending.
    pub fn file(path: &Path, format: AccessFormat, sample: Share) -> Result<Self, AccessLogError> {
        std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(path)
            .map(|file| Self::new(file, format, sample))
            .map_err(|error| AccessLogError { path: path.display().to_string(), error })
    }

    fn new(target: impl Write + Send + 'static, format: AccessFormat, sample: Share) -> Self {
        let target = Gathered(BufWriter::with_capacity(GATHERED, target));
        let (writer, guard) = tracing_appender::non_blocking::NonBlockingBuilder::default()
            .lossy(true)
            .buffered_lines_limit(QUEUE)
            .thread_name("access-log")
            .finish(target);
        Self { writer, guard: Some(guard), format, sample }
    }

    /// Whether a request has a line: each that went wrong, and of the others each with the same chance.
    #[must_use]
    pub fn takes(&self, went_wrong: bool) -> bool {
        went_wrong
            || self.sample == Share::ALL
            || fastrand::u32(..Share::DENOMINATOR) < self.sample.millionths()
    }

    /// Queues one line.
    pub fn write(&self, entry: &AccessEntry<'_>) {
        // A thread that is ending has no memory of its own any more; the line is lost with what it was of.
        let _ = LINE.try_with(|line| {
            if let Ok(mut line) = line.try_borrow_mut() {
                self.write_by(entry, &mut line);
            }
        });
    }

    /// The same, made in `line`.
    fn write_by(&self, entry: &AccessEntry<'_>, line: &mut Vec<u8>) {
        line.clear();
        line.shrink_to(KEPT);
        match self.format {
            AccessFormat::Json if serde_json::to_writer(&mut *line, entry).is_err() => return,
            AccessFormat::Json => {}
            AccessFormat::Text => access_text::write(entry, line),
        }
        line.push(b'\n');
        // A full queue is counted by the writer; nothing else can fail here.
        let _ = self.writer.clone().write_all(line);
    }

    /// Counts the lines that are dropped because the queue is full.
    pub(super) fn dropped(&self) -> ErrorCounter {
        self.writer.error_counter()
    }
}

#[cfg(test)]
#[path = "access_log_tests.rs"]
mod tests;
