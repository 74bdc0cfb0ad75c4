//! Taking chunked bodies apart (RFC 9112 §7.1).

use bytes::{Bytes, BytesMut};
use memchr::memchr;

use super::control::{Kind, malformed};
use super::lines;
use crate::wire::{Fields, Refused};

/// How many bytes of chunk extensions one body may have. Nobody here makes anything of them.
const MOST_EXTENSION_BYTES: usize = 4 * 1024;

/// As many as 64 bits are written with.
const MOST_DIGITS: usize = 16;

/// What trailers may have, in bytes.
const TRAILER_BYTES: (usize, Refused) =
    (16 * 1024, Refused { status: 431, what: "the trailer fields are larger than 16 KiB" });

/// How many trailers there may be.
const MOST_TRAILERS: usize = 64;
const TRAILER_COUNT: (usize, Refused) =
    (MOST_TRAILERS, Refused { status: 431, what: "there are more than 64 trailer fields" });

/// What a [`Dechunker`] found.
#[derive(Debug)]
pub enum Decoded {
    /// Content; not empty.
    Data(Bytes),
    /// More bytes are needed.
    More,
    /// The end, with the trailer fields where there are any.
    End(Option<Fields>),
}

/// Takes chunked bodies apart (RFC 9112 §7.1), strictly.
#[derive(Debug, Default)]
pub struct Dechunker {
    state: State,
    extension_bytes: usize,
}

/// What comes next.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    /// The line that says how long the next chunk is.
    #[default]
    Size,
    /// This many bytes of content; not 0.
    Content(u64),
    /// The line end after the content of a chunk.
    LineEnd,
    /// The trailer fields and the empty line after them.
    Trailers,
    /// Nothing.
    Over,
}

impl Dechunker {
    /// Takes what can be taken from the front of `bytes`. After the end it takes nothing.
    ///
    /// # Errors
    /// When the bytes are no chunks, or more than a bounded number of them say nothing.
    pub fn decode(&mut self, bytes: &mut BytesMut) -> Result<Decoded, Refused> {
        loop {
            match self.state {
                State::Size => {
                    let Some((length, size, extension)) = size_line(bytes, self.extension_room())? else {
                        return Ok(Decoded::More);
                    };
                    self.extension_bytes += extension;
                    let _ = bytes.split_to(length);
                    self.state = if size == 0 { State::Trailers } else { State::Content(size) };
                }
                State::Content(_) if bytes.is_empty() => return Ok(Decoded::More),
                State::Content(left) => {
                    let here = usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len());
                    let left = left - here as u64;
                    self.state = if left == 0 { State::LineEnd } else { State::Content(left) };
                    return Ok(Decoded::Data(bytes.split_to(here).freeze()));
                }
                State::LineEnd => match bytes.as_ref() {
                    [b'\r', b'\n', ..] => {
                        let _ = bytes.split_to(2);
                        self.state = State::Size;
                    }
                    [] | [b'\r'] => return Ok(Decoded::More),
                    _ => return Err(Refused::bad("a chunk does not end where it said")),
                },
                State::Trailers => {
                    let Some(length) = lines::fields(bytes, TRAILER_BYTES, TRAILER_COUNT)? else {
                        return Ok(Decoded::More);
                    };
                    let fields = trailers(&bytes.split_to(length))?;
                    self.state = State::Over;
                    return Ok(Decoded::End(fields));
                }
                State::Over => return Ok(Decoded::End(None)),
            }
        }
    }

    fn extension_room(&self) -> usize {
        MOST_EXTENSION_BYTES.saturating_sub(self.extension_bytes)
    }
}

/// How long the line is with its end, the size of the chunk, and how long the extensions are; nothing while the line is
/// incomplete.
fn size_line(bytes: &[u8], room: usize) -> Result<Option<(usize, u64, usize)>, Refused> {
    let bad = Refused::bad("a chunk's size is not a hexadecimal number");
    let digits = bytes.iter().take(MOST_DIGITS + 1).take_while(|byte| byte.is_ascii_hexdigit()).count();
    if digits > MOST_DIGITS || (digits == 0 && !bytes.is_empty()) {
        return Err(bad);
    }
    let (number, rest) = bytes.split_at_checked(digits).unwrap_or_default();
    let extension = match rest {
        [] | [b'\r'] => return Ok(None),
        [b'\r', b'\n', ..] => 0,
        [b';', ..] => {
            let window = rest.get(..room.saturating_add(2)).unwrap_or(rest);
            let end = memchr(b'\r', window);
            if end.unwrap_or(window.len()) > room {
                return Err(Refused::bad("the chunk extensions of a body are larger than 4 KiB"));
            }
            let text = window.get(..end.unwrap_or(window.len())).unwrap_or_default();
            if text.iter().any(|byte| (*byte < b' ' && *byte != b'\t') || *byte == 0x7f) {
                return Err(Refused::bad("a chunk extension has characters that are not allowed there"));
            }
            let Some(end) = end else { return Ok(None) };
            match rest.get(end + 1) {
                None => return Ok(None),
                Some(b'\n') => end,
                Some(_) => return Err(Refused::bad("a chunk extension has a bare CR")),
            }
        }
        _ => return Err(bad),
    };
    let text = std::str::from_utf8(number).map_err(|_| bad)?;
    let size = u64::from_str_radix(text, 16).map_err(|_| bad)?;
    Ok(Some((digits + extension + 2, size, extension)))
}

/// The fields of a trailer section, less those that may not be there.
fn trailers(bytes: &[u8]) -> Result<Option<Fields>, Refused> {
    if bytes == b"\r\n" {
        return Ok(None);
    }
    let mut slots = [httparse::EMPTY_HEADER; MOST_TRAILERS];
    let found = match httparse::parse_headers(bytes, &mut slots).map_err(malformed)? {
        httparse::Status::Complete((length, found)) if length == bytes.len() => found,
        // The tokeniser and the search for line ends disagree. They cannot.
        httparse::Status::Complete(_) | httparse::Status::Partial => {
            return Err(Refused::bad("the trailer fields are malformed"));
        }
    };
    let mut fields = Fields::default();
    for field in found.iter().filter(|field| may_trail(field.name)) {
        fields.append(field.name, field.value);
    }
    Ok((!fields.is_empty()).then_some(fields))
}

/// Whether a field may come after the content. Not those by which messages are framed, routed, understood or trusted: some
/// servers merge trailers into the header fields (RFC 9110 §6.5.1).
pub(in crate::wire) fn may_trail(name: &str) -> bool {
    const NEVER: [&str; 39] = [
        "accept-encoding",
        "age",
        "authorization",
        "cache-control",
        "clear-site-data",
        "connection",
        "cookie",
        "cookie2",
        "expect",
        "expires",
        "forwarded",
        "host",
        "http2-settings",
        "if-match",
        "if-modified-since",
        "if-none-match",
        "if-range",
        "if-unmodified-since",
        "keep-alive",
        "location",
        "max-forwards",
        "origin",
        "pragma",
        "proxy",
        "range",
        "referer",
        "retry-after",
        "set-cookie",
        "set-cookie2",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
        "vary",
        "via",
        "warning",
        "www-authenticate",
        "x-http-method-override",
        "x-request-id",
    ];
    const NEVER_BEGINS: [&str; 8] = [
        "access-control-",
        "content-",
        "proxy-",
        "sec-",
        "x-forwarded",
        "x-original-",
        "x-real-",
        "x-serinus-",
    ];
    if name.eq_ignore_ascii_case("Content-Digest") {
        // Made to come at the end (RFC 9530 §2).
        return true;
    }
    // Some frameworks take an underscore for a hyphen.
    let same = |a: u8, b: u8| a.to_ascii_lowercase() == b || (a == b'_' && b == b'-');
    let begins =
        |other: &str| name.len() >= other.len() && name.bytes().zip(other.bytes()).all(|(a, b)| same(a, b));
    Kind::of(name.as_bytes()) == Kind::Other
        && !NEVER.iter().any(|other| other.len() == name.len() && begins(other))
        && !NEVER_BEGINS.iter().any(|other| begins(other))
}

#[cfg(test)]
#[path = "chunks_tests.rs"]
mod tests;
