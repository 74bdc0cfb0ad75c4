//! Where the lines of a head end, before anything is made of them.

use httparse::Header;
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

/// Whether `bytes`, which begin with a first line of this length and in which the tokeniser found these fields and the head's end,
/// are what [`fields`] takes, and end where it says. Then they need not be gone through once more.
pub(super) fn are_plain(
    bytes: &[u8],
    (first, end): (usize, usize),
    fields: &[Header<'_>],
    (most, lines): (usize, usize),
) -> bool {
    let ends = |at: usize| at.checked_sub(2).and_then(|begin| bytes.get(begin..at)) == Some(b"\r\n");
    // Each line begins where the one before has ended, by CRLF; what is between them is in neither.
    let mut begins =
        fields.iter().map(|field| field.name.as_ptr().addr().wrapping_sub(bytes.as_ptr().addr()));
    let within = fields.len() <= lines && end.saturating_sub(first + 2 + 2) <= most;
    within && begins.all(ends) && ends(end) && ends(end - 2)
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

#[cfg(test)]
mod tests {
    use httparse::Status;
    use proptest::prelude::*;

    use super::*;

    const FIRST: &str = "GET / HTTP/1.1";
    const OVER: Refused = Refused::bad("over");
    const TOO_MANY: Refused = Refused::bad("too many");
    /// Of these there are whole heads, and what is wrong with heads.
    const PARTS: [&str; 12] = [
        "a: b\r\n",
        "Host: x\r\n",
        "c:\r\n",
        "\r\n",
        "\r\n\r\n",
        "d: e \n",
        "\n",
        "f:\tg",
        "\r",
        " ",
        "h",
        ": ",
    ];

    proptest! {
        #[test]
        fn what_is_plain_is_what_is_taken_line_by_line(
            parts in proptest::collection::vec(proptest::sample::select(&PARTS[..]), 0..8),
            most in 0..50_usize,
            lines in 0..4_usize,
        ) {
            let head = format!("{FIRST}\r\n{}", parts.concat());
            let mut slots = [httparse::EMPTY_HEADER; 16];
            let mut found = httparse::Request::new(&mut slots);
            if let Ok(Status::Complete(end)) = found.parse(head.as_bytes()) {
                let after = &head.as_bytes()[FIRST.len() + 2..];
                let taken = fields(after, (most, OVER), (lines, TOO_MANY));
                let plain =
                    are_plain(head.as_bytes(), (FIRST.len(), end), found.headers, (most, lines));
                prop_assert_eq!(plain, taken == Ok(Some(end - FIRST.len() - 2)), "{:?}: {:?}", head, taken);
            }
        }
    }
}
