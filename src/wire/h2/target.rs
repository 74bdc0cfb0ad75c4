//! The target of a request, as it is routed by and sent on.

use crate::model::{Edge, EscapedSlashes};
use crate::wire::Refused;

/// Writes `raw` (path and query, or `*`) in its one form to `out`: no dot segments, escapes in upper case and only where they
/// are needed (RFC 3986 §6.2.2), slashes as the listener wants them.
///
/// # Errors
/// When it is not a path, has bytes that do not belong into one, or an escaped slash that the listener rejects.
pub(crate) fn normalise_target(raw: &str, edge: &Edge, out: &mut String) -> Result<(), Refused> {
    if raw == "*" {
        out.push('*');
        return Ok(());
    }
    if !raw.starts_with('/') {
        return Err(Refused::bad("the target is no path"));
    }
    let (path, query) = raw.split_once('?').map_or((raw, None), |(path, query)| (path, Some(query)));
    let mut unescaped = String::with_capacity(raw.len());
    unescape(path, edge, &mut unescaped)?;
    let first = out.len();
    let mut segments = unescaped.split('/').skip(1).peekable();
    while let Some(segment) = segments.next() {
        let last = segments.peek().is_none();
        match segment {
            "." | ".." => {
                if segment == ".." {
                    let parent = out.get(first..).and_then(|so_far| so_far.rfind('/')).unwrap_or(0);
                    out.truncate(first + parent);
                }
                if last {
                    out.push('/');
                }
            }
            "" if edge.merge_slashes && !last => {}
            _ => {
                out.push('/');
                out.push_str(segment);
            }
        }
    }
    if let Some(query) = query {
        if !query.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'#') {
            return Err(Refused::bad("the query has bytes that do not belong into one"));
        }
        out.push('?');
        out.push_str(query);
    }
    Ok(())
}

/// Takes escapes away where they stand for what needs none.
fn unescape(path: &str, edge: &Edge, out: &mut String) -> Result<(), Refused> {
    let mut bytes = path.bytes();
    while let Some(byte) = bytes.next() {
        match byte {
            b'%' => {
                let hex = |byte: Option<u8>| byte.and_then(|b| char::from(b).to_digit(16));
                let (Some(high), Some(low)) = (hex(bytes.next()), hex(bytes.next())) else {
                    return Err(Refused::bad("the path has a `%` that is no escape"));
                };
                escaped((high * 16 + low) as u8, edge, out)?;
            }
            b'#' | b'\\' => return Err(Refused::bad("the path has bytes that do not belong into one")),
            _ if byte.is_ascii_graphic() => out.push(char::from(byte)),
            _ => return Err(Refused::bad("the path has bytes that do not belong into one")),
        }
    }
    Ok(())
}

fn escaped(byte: u8, edge: &Edge, out: &mut String) -> Result<(), Refused> {
    match byte {
        0 => return Err(Refused::bad("the path has an escaped NUL")),
        b'/' | b'\\' if edge.escaped_slashes == EscapedSlashes::Reject => {
            return Err(Refused::bad("the path has an escaped slash"));
        }
        b'-' | b'.' | b'_' | b'~' => out.push(char::from(byte)),
        _ if byte.is_ascii_alphanumeric() => out.push(char::from(byte)),
        _ => {
            const HEX: &[u8; 16] = b"0123456789ABCDEF";
            let digit = |n: u8| char::from(HEX.get(usize::from(n)).copied().unwrap_or(b'0'));
            out.extend(['%', digit(byte >> 4), digit(byte & 15)]);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_have_one_form() {
        let edge = Edge::default();
        let merge = Edge { merge_slashes: true, ..Edge::default() };
        for (raw, edge, expected) in [
            ("/", &edge, Some("/")),
            ("*", &edge, Some("*")),
            ("/a/./b/../c?x=/../y", &edge, Some("/a/c?x=/../y")),
            ("/../../a/..", &edge, Some("/")),
            ("/a/%2e%2E/b%7e%c3%a9", &edge, Some("/b~%C3%A9")),
            ("/a//b/", &edge, Some("/a//b/")),
            ("/a//b///", &merge, Some("/a/b/")),
            ("a", &edge, None),
            ("", &edge, None),
            ("/a%2fb", &edge, None),
            ("/a%5Cb", &edge, None),
            ("/a%00", &edge, None),
            ("/a%4", &edge, None),
            ("/a\\b", &edge, None),
            ("/a#b", &edge, None),
            ("/é", &edge, None),
        ] {
            let mut out = String::new();
            let done = normalise_target(raw, edge, &mut out);
            assert_eq!(done.ok().map(|()| out.as_str()), expected, "{raw}");
        }
    }
}
