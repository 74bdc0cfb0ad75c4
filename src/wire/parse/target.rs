//! What is asked for: the target of a request, checked and made the one way to write it.

use crate::model::{Edge, EscapedSlashes};
use crate::wire::Refused;

/// 414, for HTTP/1 and HTTP/2.
pub(super) const TOO_LONG: Refused =
    Refused { status: 414, what: "the request line is longer than this listener allows" };

/// Puts the one way to write the target `raw` (a path, with or without a query) into `out`, and nothing else.
///
/// Who routes and who answers must see the same path, so what servers differ about is settled here (RFC 3986 §6.2.2): dot
/// segments are gone, also when they were escaped; letters, digits and `-._~` are not escaped, other escapes are in upper
/// case. An escaped slash or backslash is refused, or stays exactly as it came; repeated slashes are merged where the
/// listener asks. A path that leads above the root is refused, like one with a raw `\` (a `/` to some) or with `..;` (`..`
/// to who strips parameters).
///
/// The query is what the application's forms and scripts make of it: its characters are checked, and it is not touched.
/// Of the characters that should be escaped, those are taken which clients send as they are: `"[]^{|}`, and in queries `\`,
/// backticks and a single `%` (the URL standard escapes none of these there). Alone a `"` in a query is escaped: HTTP/2 is
/// not written with it here.
///
/// # Errors
/// 400 where it is no target or ambiguous, 414 where it is too long.
pub fn normalise_target(raw: &str, edge: &Edge, out: &mut String) -> Result<(), Refused> {
    out.clear();
    if raw.len() > edge.request_line {
        return Err(TOO_LONG);
    }
    if !raw.starts_with('/') {
        return Err(Refused::bad("the target does not begin with a slash"));
    }
    let query = memchr::memchr(b'?', raw.as_bytes());
    let (path, query) = query.and_then(|at| raw.split_at_checked(at)).unwrap_or((raw, ""));
    let mut quoted = false;
    for byte in query.bytes() {
        match byte {
            b'#' | b'<' | b'>' => return Err(NOT_ALLOWED),
            b'"' => quoted = true,
            b'!'..=b'~' => {}
            _ => return Err(NOT_ALLOWED),
        }
    }
    if is_as_it_should_be(path, edge)? {
        out.push_str(path);
    } else {
        rewrite(path, edge, out)?;
    }
    if quoted {
        out.push_str(&query.replace('"', "%22"));
    } else {
        out.push_str(query);
    }
    Ok(())
}

const NOT_ALLOWED: Refused = Refused::bad("the target has characters that are not allowed there");

/// Whether the path can stay: no escapes, no dot segments, no slashes to merge. May say no where it could.
fn is_as_it_should_be(path: &str, edge: &Edge) -> Result<bool, Refused> {
    let mut plain = true;
    let mut before = 0;
    for byte in path.bytes() {
        match byte {
            b'#' | b'\\' | b'<' | b'>' | b'`' => return Err(NOT_ALLOWED),
            b'%' => plain = false,
            b'.' if before == b'/' => plain = false,
            b'/' if before == b'/' && edge.merge_slashes => plain = false,
            b'!'..=b'~' => {}
            _ => return Err(NOT_ALLOWED),
        }
        before = byte;
    }
    Ok(plain)
}

fn rewrite(path: &str, edge: &Edge, out: &mut String) -> Result<(), Refused> {
    let mut segments = path.split('/').skip(1).peekable();
    while let Some(segment) = segments.next() {
        let last = segments.peek().is_none();
        if segment.is_empty() && edge.merge_slashes && !last {
            continue;
        }
        let start = out.len();
        out.push('/');
        unescape(segment, edge, out)?;
        match out.get(start + 1..).unwrap_or_default() {
            "." => out.truncate(start),
            ".." => {
                out.truncate(start);
                let parent = out.rfind('/').ok_or(Refused::bad("the path leads above the root"))?;
                out.truncate(parent);
            }
            other if other.starts_with(".;") || other.starts_with("..;") => {
                return Err(Refused::bad("the path has a dot segment with parameters"));
            }
            _ => continue,
        }
        // `/a/.` is the folder, not the file.
        if last {
            out.push('/');
        }
    }
    Ok(())
}

/// Adds a segment in which nothing is escaped that need not be. It is ASCII.
fn unescape(segment: &str, edge: &Edge, out: &mut String) -> Result<(), Refused> {
    let mut pieces = segment.split('%');
    out.push_str(pieces.next().unwrap_or_default());
    for piece in pieces {
        let (Some(escape), Some(rest)) = (piece.get(..2), piece.get(2..)) else { return Err(BAD_ESCAPE) };
        if !escape.bytes().all(|digit| digit.is_ascii_hexdigit()) {
            return Err(BAD_ESCAPE);
        }
        match u8::from_str_radix(escape, 16) {
            Err(_) => return Err(BAD_ESCAPE),
            Ok(0) => return Err(Refused::bad("the path has an escaped NUL")),
            Ok(b'/' | b'\\') => {
                if edge.escaped_slashes == EscapedSlashes::Reject {
                    return Err(Refused::bad("the path has an escaped slash or backslash"));
                }
                out.push('%');
                out.push_str(escape);
            }
            Ok(byte @ (b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~')) => {
                out.push(char::from(byte));
            }
            Ok(_) => {
                out.push('%');
                out.extend(escape.chars().map(|digit| digit.to_ascii_uppercase()));
            }
        }
        out.push_str(rest);
    }
    Ok(())
}

const BAD_ESCAPE: Refused = Refused::bad("the path has a % without two hexadecimal digits");

#[cfg(test)]
#[path = "target_tests.rs"]
mod tests;
