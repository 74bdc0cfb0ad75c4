//! What can be said of a request that is refused, or never came whole: for those who want to know whose it was.

use http::Method;
use memchr::memchr;

use super::check_authority;
use super::lines;
use super::request::{check_method, check_version, skip_empty_lines, target};
use super::target::TOO_LONG;
use super::{LONGEST_METHOD, MOST_FIELDS};
use crate::model::Edge;
use crate::wire::RequestHead;

/// What was read of a request that is refused, each part only where it is whole and valid. Nothing is routed by it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Glimpse {
    /// The method.
    pub method: Option<Method>,
    /// Who is asked; empty where that is not known.
    pub authority: String,
    /// Path and query, as in [`RequestHead`]; empty where they are not known.
    pub target: String,
}

/// Looks at the bytes of a request that is refused: costs as much as reading it did, once, since its connection ends.
#[must_use]
pub fn glimpse(bytes: &[u8], edge: &Edge) -> Glimpse {
    look(bytes, edge).unwrap_or_default()
}

fn look(bytes: &[u8], edge: &Edge) -> Option<Glimpse> {
    let bytes = bytes.get(skip_empty_lines(bytes).ok()??..)?;
    check_method(bytes).ok()?;
    // A method is whole where a space follows.
    let space = memchr(b' ', bytes.get(..=LONGEST_METHOD).unwrap_or(bytes))?;
    let method = Method::from_bytes(bytes.get(..space)?).ok()?;
    let mut seen = Glimpse { method: Some(method.clone()), ..Glimpse::default() };
    let Ok(Some(first)) = lines::line(bytes, edge.request_line, TOO_LONG) else {
        // It is too long, or has not come whole.
        return Some(seen);
    };
    let line = bytes.get(..first)?;
    // Another version of HTTP has its request line all the same.
    if check_version(line).is_err_and(|refused| refused.status != 505) {
        return None;
    }
    let raw = line.get(space + 1..first.checked_sub(" HTTP/1.1".len())?);
    let raw = raw.and_then(|raw| std::str::from_utf8(raw).ok()).unwrap_or_default();
    let host = host(bytes.get(first + 2..).unwrap_or_default(), edge).unwrap_or_default();
    let mut head = RequestHead { method, authority: host.to_owned(), ..RequestHead::default() };
    if target(raw, edge, &mut head).is_ok() {
        (seen.authority, seen.target) = (head.authority, head.target);
    } else {
        host.clone_into(&mut seen.authority);
    }
    Some(seen)
}

/// The value of the one `Host` among the lines that have come whole; nothing where it is no host, or there are more, or one is
/// folded.
fn host<'a>(fields: &'a [u8], edge: &Edge) -> Option<&'a str> {
    let mut rest = fields.get(..edge.header_bytes).unwrap_or(fields);
    let mut found = None;
    for _ in 0..MOST_FIELDS {
        let Some((line, after)) = memchr(b'\n', rest).and_then(|end| rest.split_at_checked(end + 1)) else {
            break;
        };
        rest = after;
        let line = line.strip_suffix(b"\r\n")?;
        if line.is_empty() {
            break;
        }
        if matches!(line.first(), Some(b' ' | b'\t')) {
            return None;
        }
        let Some((name, value)) = memchr(b':', line).and_then(|colon| line.split_at_checked(colon)) else {
            continue;
        };
        if name.eq_ignore_ascii_case(b"Host") && found.replace(value.get(1..)?.trim_ascii()).is_some() {
            return None;
        }
    }
    let host = found.filter(|host| check_authority(host).is_ok())?;
    std::str::from_utf8(host).ok()
}

#[cfg(test)]
#[path = "glimpse_tests.rs"]
mod tests;
