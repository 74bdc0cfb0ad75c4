//! What is known of a request that is traced: while it is served, and when it has ended.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, SystemTime};

use crate::model::PodKey;
use crate::telemetry::AccessEntry;

use super::context::{self, Context, TraceParent, Traceparent};

/// A text of a request that is longer is cut, in bytes.
const LONGEST: usize = 1_024;

/// A request that is traced, while it is served.
#[derive(Debug)]
pub struct Trace {
    pub(super) context: Context,
    /// The span of the request itself.
    pub(super) span: u64,
    pub(super) attempts: Vec<Attempt>,
}

/// A pod that a request was tried on.
#[derive(Debug)]
pub(super) struct Attempt {
    pub(super) span: u64,
    /// When it began, from the request's head on.
    pub(super) began: Duration,
    pub(super) address: SocketAddr,
    pub(super) pod: Option<PodKey>,
    pub(super) tls: bool,
    pub(super) version: Option<String>,
    pub(super) end: Option<AttemptEnd>,
}

/// An attempt begins.
#[derive(Debug)]
pub struct AttemptStart<'a> {
    /// When, from the request's head on.
    pub after: Duration,
    /// The endpoint.
    pub address: SocketAddr,
    /// Its pod, where it has one that is known.
    pub pod: Option<&'a PodKey>,
    /// Whether it is spoken to in TLS.
    pub tls: bool,
    /// The version that it is of.
    pub version: Option<&'a str>,
}

/// An attempt was in vain.
#[derive(Debug)]
pub struct AttemptEnd {
    /// When, from the request's head on.
    pub after: Duration,
    /// The status of its answer, where there was one: it broke off, or another pod's is wanted instead.
    pub status: Option<u16>,
    /// What kind of failure it was, in a fixed word; `None` where the status says it.
    pub kind: Option<&'static str>,
    /// The same, in words for people.
    pub why: String,
}

impl Trace {
    /// A request with which a trace begins.
    pub(super) fn root() -> Self {
        Self { context: Context::root(), span: context::span_id(), attempts: Vec::new() }
    }

    /// A request of whoever asked.
    pub(super) fn within(parent: TraceParent<'_>) -> Self {
        Self { context: Context::within(parent), span: context::span_id(), attempts: Vec::new() }
    }

    /// The `traceparent` of what belongs to the request as a whole.
    #[must_use]
    pub fn traceparent(&self) -> Traceparent {
        self.context.traceparent(self.span)
    }

    /// An attempt begins; returns the `traceparent` that its pod is sent.
    pub fn attempt(&mut self, start: AttemptStart<'_>) -> Traceparent {
        let span = context::span_id();
        self.attempts.push(Attempt {
            span,
            began: start.after,
            address: start.address,
            pod: start.pod.cloned(),
            tls: start.tls,
            version: start.version.map(str::to_owned),
            end: None,
        });
        self.context.traceparent(span)
    }

    /// How many spans it makes.
    pub(super) fn spans(&self) -> u64 {
        1 + self.attempts.len() as u64
    }

    /// The last attempt was in vain; nothing where it was not begun, or has been said to be.
    pub fn failed(&mut self, end: AttemptEnd) {
        if let Some(attempt) = self.attempts.last_mut() {
            attempt.end.get_or_insert(end);
        }
    }
}

/// A request that is traced, and has ended: all that its spans say.
#[derive(Debug)]
pub(super) struct Ended {
    pub(super) trace: Box<Trace>,
    pub(super) at: SystemTime,
    pub(super) took: Duration,
    /// How long the last attempt's connection took to be had, where none waited.
    pub(super) connected: Option<Duration>,
    pub(super) client: IpAddr,
    pub(super) method: String,
    pub(super) host: String,
    pub(super) path: String,
    pub(super) protocol: Option<&'static str>,
    pub(super) https: bool,
    pub(super) status: u16,
    pub(super) route: Option<String>,
    pub(super) version: Option<String>,
    pub(super) reason: Option<String>,
    pub(super) answer: Option<String>,
    pub(super) failure: Option<String>,
    pub(super) request_id: String,
    pub(super) user_agent: Option<String>,
}

impl Ended {
    pub(super) fn new(trace: Box<Trace>, entry: &AccessEntry<'_>, at: SystemTime) -> Self {
        let text = |text: Option<&str>| text.map(cut);
        Self {
            trace,
            at,
            took: millis(entry.duration_ms),
            connected: entry.connect_ms.map(millis),
            client: entry.client,
            method: cut(entry.method),
            host: cut(entry.host),
            path: cut(entry.path),
            protocol: entry.protocol,
            https: entry.tls.is_some(),
            status: entry.status,
            route: text(entry.route),
            version: text(entry.version),
            reason: text(entry.reason),
            answer: text(entry.answer),
            failure: text(entry.failure),
            request_id: cut(entry.request_id),
            user_agent: entry.user_agent.map(|agent| cut(&String::from_utf8_lossy(agent))),
        }
    }
}

/// As much of a text as there is room for.
pub(super) fn cut(text: &str) -> String {
    let mut end = text.len().min(LONGEST);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.get(..end).unwrap_or_default().to_owned()
}

fn millis(millis: f64) -> Duration {
    Duration::try_from_secs_f64(millis / 1_000.0).unwrap_or_default()
}
