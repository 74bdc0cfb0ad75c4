//! Reading the head of an answer.

use std::mem::MaybeUninit;

use http::{Method, StatusCode};
use httparse::{Header, Status};

use super::control::{Control, Kind, add_protocols, malformed};
use super::lines;
use super::{Framing, MOST_FIELDS, Parsed};
use crate::wire::{Refused, ResponseHead, Version};

/// The longest status line, without its end.
const STATUS_LINE: (usize, Refused) = (8 * 1024, Refused::bad("the status line is longer than 8 KiB"));

/// What all fields may have, in bytes.
const FIELD_BYTES: (usize, Refused) =
    (64 * 1024, Refused::bad("the header fields of the answer are larger than 64 KiB"));

/// How many fields there may be.
const FIELD_COUNT: (usize, Refused) =
    (MOST_FIELDS, Refused::bad("the answer has more than 256 header fields"));

/// Reads the head of an answer to a request of this method from the front of `bytes`; nothing while it is incomplete.
/// `asked` are the protocols that the request would like to change to ([`RequestHead::upgrade`](crate::wire::RequestHead)).
/// Only where something comes back, `head` means something.
///
/// # Errors
/// When it is malformed, ambiguous, over a limit, or a 101 that was not asked for.
pub fn response(
    bytes: &[u8],
    to: &Method,
    asked: &str,
    head: &mut ResponseHead,
) -> Result<Option<Parsed>, Refused> {
    check_begin(bytes)?;
    let Some(first) = lines::line(bytes, STATUS_LINE.0, STATUS_LINE.1)? else { return Ok(None) };
    let mut slots = [MaybeUninit::uninit(); MOST_FIELDS];
    let mut found = httparse::Response::new(&mut []);
    let tokeniser = httparse::ParserConfig::default();
    if let Ok(Status::Complete(end)) =
        tokeniser.parse_response_with_uninit_headers(&mut found, bytes, &mut slots)
        && lines::are_plain(bytes, (first, end), found.headers, (FIELD_BYTES.0, FIELD_COUNT.0))
    {
        let (framing, close) = understand(&found, to, asked, head)?;
        return Ok(Some(Parsed { consumed: end, framing, close }));
    }
    // It is not all there, or something is to be said against it: line by line, then.
    let fields = lines::fields(bytes.get(first + 2..).unwrap_or_default(), FIELD_BYTES, FIELD_COUNT)?;
    let Some(end) = fields.map(|length| first + 2 + length) else { return Ok(None) };
    let mut slots = [MaybeUninit::uninit(); MOST_FIELDS];
    let mut found = httparse::Response::new(&mut []);
    let whole = bytes.get(..end).unwrap_or_default();
    match tokeniser.parse_response_with_uninit_headers(&mut found, whole, &mut slots).map_err(malformed)? {
        Status::Complete(length) if length == end => {}
        // The tokeniser and the search for line ends disagree. They cannot.
        Status::Complete(_) | Status::Partial => return Err(Refused::bad("the head is malformed")),
    }
    let (framing, close) = understand(&found, to, asked, head)?;
    Ok(Some(Parsed { consumed: end, framing, close }))
}

/// Refuses at once what cannot become an answer.
fn check_begin(bytes: &[u8]) -> Result<(), Refused> {
    let differs = bytes.iter().zip(b"HTTP/1.").any(|(is, should)| is != should);
    if differs { Err(Refused::bad("the answer is not one of HTTP/1")) } else { Ok(()) }
}

fn understand(
    found: &httparse::Response<'_, '_>,
    to: &Method,
    asked: &str,
    head: &mut ResponseHead,
) -> Result<(Framing, bool), Refused> {
    head.fields.clear();
    head.upgrade.clear();
    head.version = if found.version == Some(0) { Version::Http10 } else { Version::Http11 };
    head.status = found
        .code
        .filter(|code| (100..600).contains(code))
        .and_then(|code| StatusCode::from_u16(code).ok())
        .ok_or(Refused::bad("the status is not a number from 100 to 599"))?;
    let control = Control::of(found.headers)?;
    let mut close = control.options.ends(head.version);
    let framed = control.framing(head.version)?;
    let framing = if head.status.is_informational() {
        if control.announces_a_body() {
            return Err(Refused::bad("an interim answer announces a body"));
        }
        Framing::None
    } else if head.status == StatusCode::NO_CONTENT {
        // It has no body, and here it says that it has. Whatever comes is not taken for the next answer.
        close |= control.announces_a_body();
        Framing::None
    } else if to == Method::HEAD || head.status == StatusCode::NOT_MODIFIED {
        // A 304 that announces chunks may well send them.
        close |= head.status == StatusCode::NOT_MODIFIED && framed == Some(Framing::Chunked);
        Framing::None
    } else {
        framed.unwrap_or(Framing::UntilClose)
    };
    take_fields(found.headers, &control, to, head)?;
    check_upgrade(asked, &control, head)?;
    Ok((framing, close || framing == Framing::UntilClose))
}

/// Takes over the fields that are not of this hop. What is wrong in `Connection` costs no answer: old servers write what is no
/// option there, and known ones name `Transfer-Encoding`.
fn take_fields(
    fields: &[Header<'_>],
    control: &Control<'_>,
    to: &Method,
    head: &mut ResponseHead,
) -> Result<(), Refused> {
    let says_a_length = head.status == StatusCode::NOT_MODIFIED
        || (to == Method::HEAD && !head.status.is_informational() && head.status != StatusCode::NO_CONTENT);
    let switching = head.status == StatusCode::SWITCHING_PROTOCOLS && control.options.upgrade;
    let bytes = fields.iter().map(|field| field.name.len() + field.value.len()).sum();
    head.fields.reserve(fields.len(), bytes);
    for Header { name, value } in fields {
        match Kind::of(name.as_bytes()) {
            Kind::ContentLength if !says_a_length => {}
            Kind::Connection | Kind::Hop | Kind::Te | Kind::TransferEncoding => {}
            Kind::Upgrade if switching => add_protocols(value, &mut head.upgrade)?,
            Kind::Upgrade => {}
            Kind::ContentLength | Kind::Expect | Kind::Host | Kind::Other => {
                if !control.options.names(name.as_bytes()) {
                    head.fields.append(name, value);
                }
            }
        }
    }
    Ok(())
}

/// A 101 says to what is switched, and comes to who asked for that.
fn check_upgrade(asked: &str, control: &Control<'_>, head: &ResponseHead) -> Result<(), Refused> {
    if head.status != StatusCode::SWITCHING_PROTOCOLS {
        return Ok(());
    }
    if asked.is_empty() {
        return Err(Refused::bad("the answer switches protocols, which nobody asked for"));
    }
    if head.version == Version::Http10 || !control.options.upgrade {
        return Err(Refused::bad("the answer switches protocols and does not say so in Connection"));
    }
    if !asked.split(", ").any(|protocol| protocol.eq_ignore_ascii_case(&head.upgrade)) {
        return Err(Refused::bad("the answer does not switch to one of the protocols that were asked for"));
    }
    Ok(())
}

#[cfg(test)]
#[path = "response_tests.rs"]
mod tests;
