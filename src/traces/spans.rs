//! A request that has ended, as spans: one for itself, and one for each attempt (OpenTelemetry Semantic Conventions, "HTTP
//! spans").

use std::borrow::Cow;
use std::time::{Duration, SystemTime};

use opentelemetry::trace::{SpanContext, SpanId, SpanKind, Status, TraceFlags, TraceId, TraceState};
use opentelemetry::{InstrumentationScope, KeyValue, Value};
use opentelemetry_sdk::trace::{SpanData, SpanEvents, SpanLinks};

use super::trace::{Attempt, AttemptEnd, Ended, cut};

/// The methods that are written as they are; any other one is `_OTHER`, so that nobody makes up names of spans.
const METHODS: [&str; 10] =
    ["GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH", "QUERY"];

/// The status of a request whose client left before there was one: it was never sent.
const CLIENT_CLOSED: u16 = 499;

/// The spans of a request, its own first.
pub(super) fn of(ended: &Ended, scope: &InstrumentationScope) -> Vec<SpanData> {
    let began = ended.at.checked_sub(ended.took).unwrap_or(ended.at);
    let mut spans = vec![request(ended, began, scope)];
    let last = ended.trace.attempts.len().saturating_sub(1);
    for (i, attempt) in ended.trace.attempts.iter().enumerate() {
        spans.push(self::attempt(ended, attempt, i, i == last, began, scope));
    }
    spans
}

fn request(ended: &Ended, began: SystemTime, scope: &InstrumentationScope) -> SpanData {
    let method = known(&ended.method);
    let mut of = Attributes::default();
    of.method(&ended.method);
    of.add("url.scheme", if ended.https { "https" } else { "http" });
    let (path, query) = ended.path.split_once('?').map_or((&*ended.path, None), |(p, q)| (p, Some(q)));
    of.add("url.path", path.to_owned());
    of.some("url.query", query.map(redacted));
    let (host, port) = host_and_port(&ended.host);
    of.some("server.address", (!host.is_empty()).then(|| host.to_owned()));
    of.some("server.port", port.map(i64::from));
    of.add("client.address", ended.client.to_string());
    of.some("network.protocol.version", ended.protocol.and_then(|name| name.strip_prefix("HTTP/")));
    of.some("user_agent.original", ended.user_agent.clone());
    of.some("http.response.status_code", sent(ended.status));
    of.some("serinus.route", ended.route.clone());
    of.some("serinus.version", ended.version.clone());
    of.some("serinus.reason", ended.reason.clone());
    of.some("serinus.answer", ended.answer.clone());
    of.add("serinus.attempts", i64::try_from(ended.trace.attempts.len()).unwrap_or(i64::MAX));
    of.add("serinus.request_id", ended.request_id.clone());
    let status = match fault(ended) {
        Some(kind) => {
            of.add("error.type", kind);
            error(ended.failure.clone().unwrap_or_default())
        }
        None => Status::Unset,
    };
    let name = match &ended.route {
        Some(route) => Cow::Owned(format!("{method} {route}")),
        None => Cow::Borrowed(method),
    };
    let context = ended.trace.context;
    SpanData {
        span_context: own(ended, ended.trace.span),
        parent_span_id: context.parent.map_or(SpanId::INVALID, |id| SpanId::from_bytes(id.to_be_bytes())),
        parent_span_is_remote: context.parent.is_some(),
        span_kind: SpanKind::Server,
        name,
        start_time: began,
        end_time: ended.at,
        attributes: of.0,
        status,
        ..empty(scope)
    }
}

/// What went wrong with a request, in a word. Not what its client got wrong (4xx), nor that he left an answer that had begun: so end
/// event streams, and downloads that are no longer wanted.
fn fault(ended: &Ended) -> Option<String> {
    let last = ended.trace.attempts.last().and_then(|attempt| attempt.end.as_ref());
    let broke_off = ended.status < 300 && ended.answer.is_some();
    (ended.status >= CLIENT_CLOSED || broke_off).then(|| {
        let kind = last.and_then(|end| end.kind).map(str::to_owned);
        ended.answer.clone().or(kind).unwrap_or_else(|| ended.status.to_string())
    })
}

/// A status that was sent.
fn sent(status: u16) -> Option<i64> {
    (status != CLIENT_CLOSED).then(|| i64::from(status))
}

/// What went wrong with an attempt: a word, and more words.
fn attempts_fault(ended: &Ended, attempt: &Attempt, status: Option<u16>) -> Option<(String, String)> {
    match &attempt.end {
        Some(AttemptEnd { kind: Some("client"), .. }) if ended.status != CLIENT_CLOSED => None,
        Some(AttemptEnd { kind: Some(kind), why, .. }) => Some(((*kind).to_owned(), why.clone())),
        // Of a client's span 4xx is an error too.
        Some(_) | None => match (status, &ended.answer) {
            (Some(status), _) => (status >= 400).then(|| (status.to_string(), String::new())),
            // It was cut.
            (None, Some(answer)) => Some((answer.clone(), String::new())),
            (None, None) => None,
        },
    }
}

/// `number` is 0 for the first, 1 for the attempt after it, and so on.
fn attempt(
    ended: &Ended,
    attempt: &Attempt,
    number: usize,
    is_last: bool,
    request_began: SystemTime,
    scope: &InstrumentationScope,
) -> SpanData {
    // A pod answered where Serinus did not, and then the last one.
    let answered = (is_last && attempt.end.is_none() && ended.answer.is_none()).then_some(ended.status);
    let status = attempt.end.as_ref().map_or(answered, |end| end.status);
    let (host, port) = host_and_port(&ended.host);
    let mut of = Attributes::default();
    of.method(&ended.method);
    of.some("url.full", url(ended, attempt));
    of.some("server.address", (!host.is_empty()).then(|| host.to_owned()));
    of.some("server.port", port.map(i64::from));
    of.add("network.peer.address", attempt.address.ip().to_string());
    of.add("network.peer.port", i64::from(attempt.address.port()));
    of.some("http.request.resend_count", (number > 0).then(|| i64::try_from(number).unwrap_or(i64::MAX)));
    of.some("http.response.status_code", status.and_then(sent));
    of.some("k8s.namespace.name", attempt.pod.as_ref().map(|pod| pod.namespace.to_string()));
    of.some("k8s.pod.name", attempt.pod.as_ref().map(|pod| pod.name.to_string()));
    of.some("serinus.version", attempt.version.clone());
    if let (true, Some(connected)) = (is_last, ended.connected) {
        of.add("serinus.connect_ms", connected.as_micros() as f64 / 1_000.0);
    }
    let status = attempts_fault(ended, attempt, status).map_or(Status::Unset, |(kind, why)| {
        of.add("error.type", kind);
        error(why)
    });
    let after = |time: Duration| request_began.checked_add(time.min(ended.took)).unwrap_or(request_began);
    SpanData {
        span_context: own(ended, attempt.span),
        parent_span_id: SpanId::from_bytes(ended.trace.span.to_be_bytes()),
        span_kind: SpanKind::Client,
        name: Cow::Borrowed(known(&ended.method)),
        start_time: after(attempt.began),
        end_time: after(attempt.end.as_ref().map_or(ended.took, |end| end.after)),
        attributes: of.0,
        status,
        ..empty(scope)
    }
}

fn own(ended: &Ended, span: u64) -> SpanContext {
    let context = ended.trace.context;
    SpanContext::new(
        TraceId::from_bytes(context.trace.to_be_bytes()),
        SpanId::from_bytes(span.to_be_bytes()),
        TraceFlags::new(context.flags),
        false,
        TraceState::NONE,
    )
}

fn error(description: String) -> Status {
    Status::Error { description: Cow::Owned(description) }
}

fn empty(scope: &InstrumentationScope) -> SpanData {
    SpanData {
        span_context: SpanContext::NONE,
        parent_span_id: SpanId::INVALID,
        parent_span_is_remote: false,
        span_kind: SpanKind::Internal,
        name: Cow::Borrowed(""),
        start_time: SystemTime::UNIX_EPOCH,
        end_time: SystemTime::UNIX_EPOCH,
        attributes: Vec::new(),
        dropped_attributes_count: 0,
        events: SpanEvents::default(),
        links: SpanLinks::default(),
        status: Status::Unset,
        instrumentation_scope: scope.clone(),
    }
}

#[derive(Default)]
struct Attributes(Vec<KeyValue>);

impl Attributes {
    fn add(&mut self, name: &'static str, value: impl Into<Value>) {
        self.0.push(KeyValue::new(name, value));
    }

    fn some<V: Into<Value>>(&mut self, name: &'static str, value: Option<V>) {
        if let Some(value) = value {
            self.add(name, value);
        }
    }

    fn method(&mut self, method: &str) {
        let known = METHODS.into_iter().find(|known| *known == method);
        self.add("http.request.method", known.unwrap_or("_OTHER"));
        if known.is_none() {
            self.add("http.request.method_original", method.to_owned());
        }
    }
}

/// A method as it begins the name of a span.
fn known(method: &str) -> &'static str {
    METHODS.into_iter().find(|known| *known == method).unwrap_or("HTTP")
}

/// Where an attempt went, as a URL; nothing for `OPTIONS *`, which has none.
fn url(ended: &Ended, attempt: &Attempt) -> Option<String> {
    let scheme = if attempt.tls { "https" } else { "http" };
    let address = attempt.address.to_string();
    let host = if ended.host.is_empty() { &address } else { &ended.host };
    let (path, query) = match ended.path.split_once('?') {
        Some((path, query)) => (path, format!("?{}", redacted(query))),
        None => (&*ended.path, String::new()),
    };
    path.starts_with('/').then(|| cut(&format!("{scheme}://{host}{path}{query}")))
}

/// Parameters of a query whose values give rights to whoever has them: signatures of URLs.
const SECRET: [&str; 4] = ["AWSAccessKeyId", "Signature", "sig", "X-Goog-Signature"];

/// A query without those values.
fn redacted(query: &str) -> String {
    let part = |part: &str| match part.split_once('=') {
        Some((name, _)) if SECRET.contains(&name) => format!("{name}=REDACTED"),
        _ => part.to_owned(),
    };
    query.split('&').map(part).collect::<Vec<_>>().join("&")
}

/// `host:port`, `host`, `[v6]:port` and `[v6]`, the brackets left out.
fn host_and_port(authority: &str) -> (&str, Option<u16>) {
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, port.parse().ok()),
        _ => (authority, None),
    };
    (host.trim_start_matches('[').trim_end_matches(']'), port)
}

#[cfg(test)]
#[path = "spans_tests.rs"]
pub(super) mod tests;
