//! Reading the head of a request.

use std::mem::MaybeUninit;

use http::Method;
use httparse::{Header, Status};

use super::control::{Control, DROPS, Kind, Options, add_protocols, is_token, malformed};
use super::host::check_authority;
use super::lines;
use super::target::{TOO_LONG, normalise_target};
use super::{Framing, LONGEST_METHOD, MOST_FIELDS, Parsed};
use crate::model::{Edge, Underscores};
use crate::wire::{Refused, RequestHead, Version};

/// How many empty lines may stand before a request (RFC 9112 §2.2).
const MOST_EMPTY_LINES: usize = 4;

const TOO_LARGE: Refused =
    Refused { status: 431, what: "the header fields are larger than this listener allows" };
const TOO_MANY: Refused =
    Refused { status: 431, what: "there are more header fields than this listener allows" };

/// Reads the head of a request from the front of `bytes`; nothing while it is incomplete. Only where something comes back,
/// `head` means something.
///
/// # Errors
/// When it is malformed, ambiguous, or over a limit.
pub fn request(bytes: &[u8], edge: &Edge, head: &mut RequestHead) -> Result<Option<Parsed>, Refused> {
    let Some(skipped) = skip_empty_lines(bytes)? else { return Ok(None) };
    let bytes = bytes.get(skipped..).unwrap_or_default();
    check_method(bytes)?;
    let Some(first) = lines::line(bytes, edge.request_line, TOO_LONG)? else { return Ok(None) };
    check_version(bytes.get(..first).unwrap_or_default())?;
    let most = edge.header_count.min(MOST_FIELDS);
    let mut slots = [MaybeUninit::uninit(); MOST_FIELDS];
    let mut found = httparse::Request::new(&mut []);
    if let Ok(Status::Complete(end)) = found.parse_with_uninit_headers(bytes, &mut slots)
        && lines::are_plain(bytes, (first, end), found.headers, (edge.header_bytes, most))
    {
        let (framing, close) = understand(&found, edge, head)?;
        return Ok(Some(Parsed { consumed: skipped + end, framing, close }));
    }
    // It is not all there, or something is to be said against it: line by line, then.
    let after = bytes.get(first + 2..).unwrap_or_default();
    let fields = lines::fields(after, (edge.header_bytes, TOO_LARGE), (most, TOO_MANY))?;
    let Some(end) = fields.map(|length| first + 2 + length) else { return Ok(None) };
    let mut slots = [MaybeUninit::uninit(); MOST_FIELDS];
    let mut found = httparse::Request::new(&mut []);
    let whole = bytes.get(..end).unwrap_or_default();
    match found.parse_with_uninit_headers(whole, &mut slots).map_err(malformed)? {
        Status::Complete(length) if length == end => {}
        // The tokeniser and the search for line ends disagree. They cannot.
        Status::Complete(_) | Status::Partial => return Err(Refused::bad("the head is malformed")),
    }
    let (framing, close) = understand(&found, edge, head)?;
    Ok(Some(Parsed { consumed: skipped + end, framing, close }))
}

/// How many bytes of empty lines stand before the request; nothing while there is nothing else.
pub(super) fn skip_empty_lines(bytes: &[u8]) -> Result<Option<usize>, Refused> {
    let mut rest = bytes;
    for _ in 0..=MOST_EMPTY_LINES {
        match rest {
            [] | [b'\r'] => return Ok(None),
            [b'\r', b'\n', after @ ..] => rest = after,
            _ => return Ok(Some(bytes.len() - rest.len())),
        }
    }
    Err(Refused::bad("there are too many empty lines before the request"))
}

/// Refuses at once what cannot become a request, such as TLS or an endless word.
pub(super) fn check_method(bytes: &[u8]) -> Result<(), Refused> {
    let begin = bytes.get(..=LONGEST_METHOD).unwrap_or(bytes);
    match begin.iter().position(|byte| !is_token(*byte)) {
        Some(at) if at > 0 && begin.get(at) == Some(&b' ') => Ok(()),
        None if begin.len() <= LONGEST_METHOD => Ok(()),
        _ => Err(Refused::bad("the request does not begin with a method")),
    }
}

/// Refuses at once a line that does not end in a version that is spoken here.
pub(super) fn check_version(line: &[u8]) -> Result<(), Refused> {
    match line.last_chunk::<9>() {
        Some(b" HTTP/1.1" | b" HTTP/1.0") => Ok(()),
        Some([b' ', b'H', b'T', b'T', b'P', b'/', b'0'..=b'9', b'.', b'0'..=b'9']) => {
            Err(Refused { status: 505, what: "only HTTP/1.1 and HTTP/1.0 are spoken here" })
        }
        _ => Err(Refused::bad("the request line does not end in a version")),
    }
}

/// Makes a head of what the tokeniser found.
fn understand(
    found: &httparse::Request<'_, '_>,
    edge: &Edge,
    head: &mut RequestHead,
) -> Result<(Framing, bool), Refused> {
    head.clear();
    head.version = if found.version == Some(0) { Version::Http10 } else { Version::Http11 };
    head.method = method(found.method.unwrap_or_default())?;
    let control = Control::of(found.headers)?;
    check_connection(&control.options)?;
    authority(&control, head)?;
    target(found.path.unwrap_or_default(), edge, head)?;
    let framing = control.framing(head.version)?.unwrap_or(Framing::None);
    take_fields(found.headers, &control, edge, head)?;
    if framing != Framing::None {
        // What would follow the body is not known.
        head.upgrade.clear();
    } else {
        // There is nothing to wait for.
        head.expects_continue = false;
    }
    Ok((framing, control.options.ends(head.version)))
}

fn method(text: &str) -> Result<Method, Refused> {
    // Methods have a case, and some servers do not know it.
    if text.eq_ignore_ascii_case("CONNECT") || text.eq_ignore_ascii_case("TRACE") {
        return Err(Refused { status: 405, what: "CONNECT and TRACE are not carried on" });
    }
    Method::from_bytes(text.as_bytes()).map_err(|_| Refused::bad("the request does not begin with a method"))
}

/// To have a proxy take out what servers behind rely on, attackers name it as a field of one hop.
fn check_connection(options: &Options<'_>) -> Result<(), Refused> {
    const KEPT: [&str; 10] = [
        "Authorization",
        "Cache-Control",
        "Content-Encoding",
        "Content-Type",
        "Cookie",
        "Forwarded",
        "Origin",
        "Traceparent",
        "X-Real-IP",
        "X-Request-Id",
    ];
    if let Some(wrong) = options.wrong {
        return Err(wrong);
    }
    for name in options.named() {
        let forwarded = name.get(..11).is_some_and(|begin| begin.eq_ignore_ascii_case(b"X-Forwarded"));
        if forwarded || KEPT.iter().any(|kept| name.eq_ignore_ascii_case(kept.as_bytes())) {
            return Err(DROPS);
        }
    }
    Ok(())
}

/// Exactly one `Host`, save in HTTP/1.0 (RFC 9112 §3.2).
fn authority(control: &Control<'_>, head: &mut RequestHead) -> Result<(), Refused> {
    let Some(host) = control.host else {
        return if head.version == Version::Http10 { Ok(()) } else { Err(Refused::bad("there is no Host")) };
    };
    check_authority(host)?;
    head.authority.push_str(std::str::from_utf8(host).unwrap_or_default());
    Ok(())
}

/// The four forms of a target (RFC 9112 §3.2), less that of CONNECT.
pub(super) fn target(raw: &str, edge: &Edge, head: &mut RequestHead) -> Result<(), Refused> {
    if raw.starts_with('/') {
        return normalise_target(raw, edge, &mut head.target);
    }
    if raw == "*" && head.method == Method::OPTIONS {
        head.target.push('*');
        return Ok(());
    }
    let after = ["http://", "https://"].iter().find_map(|scheme| {
        let begin = raw.get(..scheme.len())?;
        begin.eq_ignore_ascii_case(scheme).then(|| raw.get(scheme.len()..)).flatten()
    });
    let after = after.ok_or(Refused::bad("the target is neither a path nor an address of HTTP"))?;
    let end = after.find(['/', '?', '#']).unwrap_or(after.len());
    let (authority, rest) = after.split_at_checked(end).unwrap_or((after, ""));
    check_authority(authority.as_bytes())?;
    if head.authority.is_empty() {
        // HTTP/1.0 without a Host.
        head.authority.push_str(authority);
        head.fields.append("Host", authority);
    } else if !head.authority.eq_ignore_ascii_case(authority) {
        return Err(Refused::bad("the target names another host than Host"));
    }
    match rest.as_bytes().first() {
        Some(b'/') => normalise_target(rest, edge, &mut head.target),
        None if head.method == Method::OPTIONS => {
            head.target.push('*');
            Ok(())
        }
        _ => normalise_target(&format!("/{rest}"), edge, &mut head.target),
    }
}

/// Takes over the fields that are not of this hop.
fn take_fields(
    fields: &[Header<'_>],
    control: &Control<'_>,
    edge: &Edge,
    head: &mut RequestHead,
) -> Result<(), Refused> {
    let (mut trailers, mut expects) = (false, false);
    for Header { name, value } in fields {
        match Kind::of(name.as_bytes()) {
            Kind::Connection | Kind::ContentLength | Kind::Hop | Kind::TransferEncoding => {}
            Kind::Expect if value.eq_ignore_ascii_case(b"100-continue") => expects = true,
            Kind::Expect => return Err(Refused { status: 417, what: "only 100-continue can be expected" }),
            Kind::Te => {
                let mut codings = value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii);
                trailers |= codings.any(|coding| coding.eq_ignore_ascii_case(b"trailers"));
            }
            Kind::Upgrade if control.options.upgrade && head.version == Version::Http11 => {
                add_protocols(value, &mut head.upgrade)?;
            }
            Kind::Upgrade => {}
            Kind::Host | Kind::Other if control.options.names(name.as_bytes()) => {}
            Kind::Host | Kind::Other => match edge.underscores {
                Underscores::Pass => head.fields.append(name, value),
                _ if !name.bytes().any(|byte| byte == b'_') => head.fields.append(name, value),
                Underscores::Drop => {}
                Underscores::Reject => return Err(Refused::bad("a field's name has an underscore")),
            },
        }
    }
    if trailers {
        // gRPC servers look for it.
        head.fields.append("TE", "trailers");
    }
    // HTTP/1.0 has no interim answers.
    head.expects_continue = expects && head.version == Version::Http11;
    Ok(())
}

#[cfg(test)]
#[path = "request_tests.rs"]
mod tests;
