//! A line of the access log as text: the combined format that web servers write and many programs read, then `key=value`.
//!
//! All of it is printable ASCII: what a client sent can neither end the line nor a field of it, nor move a terminal's cursor.

use std::fmt::Display;
use std::io::Write as _;

use super::AccessEntry;

/// How much of a `Referer` or a `User-Agent` is written, in bytes: the memory of lines that wait is bounded.
const LONGEST_FIELD: usize = 512;

/// Writes a request's line, without its end.
pub(super) fn write(entry: &AccessEntry<'_>, line: &mut Vec<u8>) {
    // Writing to memory does not fail.
    let _ = write!(line, "{} - - [", entry.client);
    time(entry, line);
    line.extend_from_slice(b"] \"");
    let request = [entry.method, entry.path, entry.protocol.unwrap_or_default()];
    for (i, part) in request.into_iter().enumerate() {
        if i > 0 {
            line.push(b' ');
        }
        escape(if part.is_empty() { b"-" } else { part.as_bytes() }, line);
    }
    let _ = write!(line, "\" {} {}", entry.status, entry.bytes);
    for field in [entry.referer, entry.user_agent] {
        line.extend_from_slice(b" \"");
        escape(field.map_or(b"-", |field| field.get(..LONGEST_FIELD).unwrap_or(field)), line);
        line.push(b'"');
    }
    more(entry, line);
}

/// What the combined format does not have. What is not known is left out.
fn more(entry: &AccessEntry<'_>, line: &mut Vec<u8>) {
    text("host", Some(entry.host).filter(|host| !host.is_empty()), line);
    text("route", entry.route, line);
    text("version", entry.version, line);
    text("reason", entry.reason, line);
    text("answer", entry.answer, line);
    plain("upstream", entry.upstream, line);
    if let Some(pod) = entry.pod {
        // Names of Kubernetes objects: nothing in them has to be escaped.
        plain("pod", Some(format_args!("{}/{}", pod.namespace, pod.name)), line);
    }
    for (i, tried) in entry.tried.iter().enumerate() {
        let _ = if i == 0 { write!(line, " tried={tried}") } else { write!(line, ",{tried}") };
    }
    plain("attempts", Some(entry.attempts), line);
    plain("durationMs", Some(entry.duration_ms), line);
    plain("connectMs", entry.connect_ms, line);
    plain("firstByteMs", entry.first_byte_ms, line);
    text("requestId", Some(entry.request_id), line);
    text("traceId", entry.trace_id, line);
    if let Some(tls) = entry.tls {
        text("tls", Some(tls.version), line);
        plain("resumed", Some(tls.resumed), line);
        text("serverName", tls.server_name, line);
    }
    text("failure", entry.failure, line);
}

/// The time as these servers write it: `27/Nov/2026:10:20:00 +0000`.
fn time(entry: &AccessEntry<'_>, line: &mut Vec<u8>) {
    const MONTHS: [&str; 12] =
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let rfc3339 = entry.time.to_string();
    let part = |range: std::ops::Range<usize>| rfc3339.get(range).unwrap_or_default();
    let month = part(5..7).parse::<usize>().ok().and_then(|month| MONTHS.get(month.checked_sub(1)?));
    let month = month.copied().unwrap_or_default();
    let _ = write!(line, "{}/{month}/{}:{} +0000", part(8..10), part(0..4), part(11..19));
}

fn plain(key: &str, value: Option<impl Display>, line: &mut Vec<u8>) {
    if let Some(value) = value {
        let _ = write!(line, " {key}={value}");
    }
}

/// A text is in quotes where it has anything that could be taken for something else.
fn text(key: &str, value: Option<&str>, line: &mut Vec<u8>) {
    let Some(value) = value else { return };
    line.push(b' ');
    line.extend_from_slice(key.as_bytes());
    line.push(b'=');
    let bare = |b: u8| b.is_ascii_alphanumeric() || b"._-:/[]*".contains(&b);
    if !value.is_empty() && value.bytes().all(bare) {
        line.extend_from_slice(value.as_bytes());
    } else {
        line.push(b'"');
        escape(value.as_bytes(), line);
        line.push(b'"');
    }
}

/// Writes bytes as nginx does: quotes, backslashes and all that is not printable ASCII as `\xHH`.
fn escape(bytes: &[u8], line: &mut Vec<u8>) {
    let mut rest = bytes;
    while let Some(at) = rest.iter().position(|b| !matches!(b, b' '..=b'~') || matches!(b, b'"' | b'\\')) {
        let (before, from) = rest.split_at(at);
        line.extend_from_slice(before);
        let Some((escaped, after)) = from.split_first() else { return };
        let _ = write!(line, "\\x{escaped:02X}");
        rest = after;
    }
    line.extend_from_slice(rest);
}
