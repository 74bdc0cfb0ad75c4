//! Where the lines of a head end, before anything is made of them.

use memchr::memchr;

use crate::wire::Refused;

/// The length of the first line, without its end; nothing while that has not come.
///
/// # Errors
/// When it is longer, and when it ends in a bare LF.
pub(super) fn line(bytes: &[u8], longest: usize, over: Refused) -> Result<Option<usize>, Refused> {
    let window = bytes.get(..longest.saturating_add(2)).unwrap_or(bytes);
    match memchr(b'\n', window) {
        Some(lf) => match lf.checked_sub(1) {
            Some(cr) if bytes.get(cr) == Some(&b'\r') => Ok(Some(cr)),
            _ => Err(Refused::bad("a line ends in a bare LF")),
        },
        None if window.len() > longest.saturating_add(1) => Err(over),
        None => Ok(None),
    }
}

/// The length of a block of field lines with the empty line that ends it; nothing while that has not come.
///
/// # Errors
/// When a limit is passed, a line ends in a bare LF, or a line is folded.
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
