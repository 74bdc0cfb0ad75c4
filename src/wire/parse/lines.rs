//! Where the lines of a head end, before anything is made of them.

use memchr::memchr;

use crate::wire::Refused;

/// How much there may be, and what is said when there is more.
pub(super) struct Limits {
    /// Of the first line, without its end.
    pub(super) first: (usize, Refused),
    /// Of all field lines together, with their ends.
    pub(super) fields: (usize, Refused),
    /// Of field lines.
    pub(super) count: (usize, Refused),
}

/// What of a head has come.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Head {
    /// Not even its first line.
    Begun,
    /// Its first line, of this length, without its end.
    First(usize),
    /// All: the length of its first line, and its own.
    Whole(usize, usize),
}

/// Looks for the end of a head.
///
/// # Errors
/// When a limit is passed, a line ends in a bare LF, or a line is folded.
pub(super) fn head(bytes: &[u8], limits: &Limits) -> Result<Head, Refused> {
    let (longest, over) = limits.first;
    let Some(first) = line(bytes, longest, over)? else { return Ok(Head::Begun) };
    let begin = first + 2;
    let rest = bytes.get(begin..).unwrap_or_default();
    Ok(match fields(rest, limits.fields, limits.count)? {
        Some(length) => Head::Whole(first, begin + length),
        None => Head::First(first),
    })
}

/// The length of a block of field lines with the empty line that ends it; nothing while that has not come.
///
/// # Errors
/// Like [`head`].
pub(super) fn fields(
    bytes: &[u8],
    (most, over): (usize, Refused),
    (lines, too_many): (usize, Refused),
) -> Result<Option<usize>, Refused> {
    let (mut at, mut count) = (0, 0);
    loop {
        let rest = bytes.get(at..).unwrap_or_default();
        // The end of the last line is counted with it; the empty line is not counted.
        let Some(length) = line(rest, most - at, over)? else { return Ok(None) };
        if length == 0 {
            return Ok(Some(at + 2));
        }
        if matches!(rest.first(), Some(b' ' | b'\t')) {
            return Err(Refused::bad("a line begins with a space: folded lines are not taken"));
        }
        at += length + 2;
        count += 1;
        if at > most {
            return Err(over);
        }
        if count > lines {
            return Err(too_many);
        }
    }
}

/// The length of the first line, without its end; nothing while that has not come.
fn line(bytes: &[u8], longest: usize, over: Refused) -> Result<Option<usize>, Refused> {
    let window = bytes.get(..longest.saturating_add(2)).unwrap_or(bytes);
    match memchr(b'\n', window) {
        Some(0) => Err(Refused::bad("a line ends in a bare LF")),
        Some(lf) if bytes.get(lf - 1) == Some(&b'\r') => Ok(Some(lf - 1)),
        Some(_) => Err(Refused::bad("a line ends in a bare LF")),
        None if window.len() < bytes.len() || window.len() == longest.saturating_add(2) => Err(over),
        None => Ok(None),
    }
}
