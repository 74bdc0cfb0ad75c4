//! The fields that say how a message is carried: framing, and those of one hop.

use httparse::Header;

use super::Framing;
use crate::wire::{Refused, Version};

/// How many fields a message's `Connection` may name. Each is looked for among all fields.
const MOST_NAMED: usize = 16;

/// What a field is to who carries the message on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::wire) enum Kind {
    Connection,
    ContentLength,
    Expect,
    /// Of this hop alone, and of no use here. `Proxy` is of no hop at all: CGI makes it `HTTP_PROXY`, where libraries
    /// look for their proxy.
    Hop,
    Host,
    Te,
    TransferEncoding,
    Upgrade,
    /// For whoever is at the end.
    Other,
}

impl Kind {
    pub(in crate::wire) fn of(name: &[u8]) -> Self {
        let Some(first) = name.first() else { return Self::Other };
        // Most are told from these by their length and their first letter.
        match (name.len(), first.to_ascii_lowercase()) {
            (2, b't') if is(name, b"te") => Self::Te,
            (4, b'h') if is(name, b"host") => Self::Host,
            (5, b'p') if is(name, b"proxy") => Self::Hop,
            (6, b'e') if is(name, b"expect") => Self::Expect,
            (7, b'u') if is(name, b"upgrade") => Self::Upgrade,
            (10, b'c') if is(name, b"connection") => Self::Connection,
            (10, b'k') if is(name, b"keep-alive") => Self::Hop,
            (14, b'c') if is(name, b"content-length") => Self::ContentLength,
            (14, b'h') if is(name, b"http2-settings") => Self::Hop,
            (16, b'p') if is(name, b"proxy-connection") => Self::Hop,
            (17, b't') if is(name, b"transfer-encoding") => Self::TransferEncoding,
            (18, b'p') if is(name, b"proxy-authenticate") => Self::Hop,
            (19, b'p') if is(name, b"proxy-authorization") => Self::Hop,
            _ => Self::Other,
        }
    }
}

/// Whether a field's name is this one, which is written in lower case, whatever case it has: all bytes at once, for the compiler
/// knows how many they are.
fn is<const N: usize>(name: &[u8], other: &[u8; N]) -> bool {
    let differ = |name: &[u8; N]| {
        name.iter().zip(other).fold(0, |differ, (a, b)| differ | (a.to_ascii_lowercase() ^ b))
    };
    name.try_into().is_ok_and(|name| differ(name) == 0)
}

/// What the fields of a message say about its carriage.
#[derive(Default)]
pub(super) struct Control<'a> {
    pub(super) host: Option<&'a [u8]>,
    pub(super) options: Options<'a>,
    length: Option<&'a [u8]>,
    coding: Option<&'a [u8]>,
}

impl<'a> Control<'a> {
    /// # Errors
    /// When one of them is there twice, or `Connection` names too much.
    pub(super) fn of(fields: &[Header<'a>]) -> Result<Self, Refused> {
        let mut found = Self::default();
        for field in fields {
            let (place, twice) = match Kind::of(field.name.as_bytes()) {
                Kind::Connection => {
                    found.options.add(field.value)?;
                    continue;
                }
                Kind::Host => (&mut found.host, "there is more than one Host"),
                Kind::ContentLength => (&mut found.length, "there is more than one Content-Length"),
                Kind::TransferEncoding => (&mut found.coding, "there is more than one Transfer-Encoding"),
                Kind::Expect | Kind::Hop | Kind::Te | Kind::Upgrade | Kind::Other => continue,
            };
            if place.replace(field.value).is_some() {
                return Err(Refused::bad(twice));
            }
        }
        Ok(found)
    }

    /// The framing that the fields ask for; nothing where they ask for none.
    ///
    /// # Errors
    /// When it can be understood in more than one way, or not at all.
    pub(super) fn framing(&self, version: Version) -> Result<Option<Framing>, Refused> {
        match (self.coding, self.length) {
            (None, None) => Ok(None),
            (Some(_), Some(_)) => {
                Err(Refused::bad("there are both a Content-Length and a Transfer-Encoding"))
            }
            (Some(_), None) if version == Version::Http10 => {
                Err(Refused::bad("HTTP/1.0 has no Transfer-Encoding"))
            }
            (Some(coding), None) => check_coding(coding).map(|()| Some(Framing::Chunked)),
            (None, Some(length)) => Ok(Some(match content_length(length)? {
                0 => Framing::None,
                length => Framing::Length(length),
            })),
        }
    }

    /// Whether there is a Transfer-Encoding, or a Content-Length other than 0.
    pub(super) fn announces_a_body(&self) -> bool {
        self.coding.is_some() || self.length.is_some_and(|length| content_length(length) != Ok(0))
    }
}

/// Digits alone, few enough for every reader: neither sign nor list nor more than 63 bits.
fn content_length(value: &[u8]) -> Result<u64, Refused> {
    let bad = Refused::bad("the Content-Length is not one number");
    if value.is_empty() || value.len() > 19 {
        return Err(bad);
    }
    let add = |sum: u64, byte: &u8| byte.is_ascii_digit().then(|| 10 * sum + u64::from(byte - b'0'));
    value.iter().try_fold(0, add).ok_or(bad)
}

/// `chunked` alone. What is well formed and could be carried by somebody else is told apart from what wants to be taken for
/// something that it is not.
fn check_coding(value: &[u8]) -> Result<(), Refused> {
    if value.eq_ignore_ascii_case(b"chunked") {
        return Ok(());
    }
    let mut codings = value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii);
    let chunked_last = codings.next_back().is_some_and(|last| last.eq_ignore_ascii_case(b"chunked"));
    let known: [&[u8]; 5] = [b"gzip", b"x-gzip", b"deflate", b"compress", b"x-compress"];
    let real = codings.all(|coding| known.iter().any(|name| coding.eq_ignore_ascii_case(name)));
    if chunked_last && real {
        return Err(Refused { status: 501, what: "of the transfer codings only chunked is spoken here" });
    }
    Err(Refused::bad("the Transfer-Encoding is not chunked"))
}

/// What `Connection` may not do.
pub(super) const DROPS: Refused = Refused::bad("the Connection field names a field that no hop may drop");

/// What `Connection` says.
#[derive(Default)]
pub(super) struct Options<'a> {
    pub(super) close: bool,
    pub(super) keep_alive: bool,
    pub(super) upgrade: bool,
    /// What is wrong with it, where that was passed over.
    pub(super) wrong: Option<Refused>,
    /// Hardly any message names one.
    named: Vec<&'a [u8]>,
}

impl<'a> Options<'a> {
    fn add(&mut self, value: &'a [u8]) -> Result<(), Refused> {
        for option in value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii) {
            let is = |other: &str| option.eq_ignore_ascii_case(other.as_bytes());
            if is("close") {
                self.close = true;
            } else if is("keep-alive") {
                self.keep_alive = true;
            } else if is("upgrade") {
                self.upgrade = true;
            } else if !option.is_empty() {
                self.name(option)?;
            }
        }
        Ok(())
    }

    fn name(&mut self, option: &'a [u8]) -> Result<(), Refused> {
        if !option.iter().all(|byte| is_token(*byte)) {
            self.wrong = Some(Refused::bad("the Connection field names what cannot be a field"));
            return Ok(());
        }
        // Framing and routing are never of one hop: whoever names them wants somebody to lose them on the way.
        if matches!(Kind::of(option), Kind::Host | Kind::ContentLength | Kind::TransferEncoding) {
            self.wrong = Some(DROPS);
            return Ok(());
        }
        if self.named.len() == MOST_NAMED {
            return Err(Refused::bad("Connection names too many fields"));
        }
        self.named.push(option);
        Ok(())
    }

    /// The fields that are named.
    pub(super) fn named(&self) -> &[&'a [u8]] {
        &self.named
    }

    /// Whether this field is named.
    pub(super) fn names(&self, field: &[u8]) -> bool {
        self.named().iter().any(|name| name.eq_ignore_ascii_case(field))
    }

    /// Whether the connection ends after a message of this version (RFC 9112 §9.3).
    pub(super) fn ends(&self, version: Version) -> bool {
        self.close || (version == Version::Http10 && !self.keep_alive)
    }
}

/// Adds the protocols of an `Upgrade` to the list in `out`. HTTP/2 is not one that is changed to in this way (RFC 9113 §3.1).
///
/// # Errors
/// When one is not a token with or without a version.
pub(super) fn add_protocols(value: &[u8], out: &mut String) -> Result<(), Refused> {
    let bad = Refused::bad("the Upgrade field names what cannot be a protocol");
    for protocol in value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii) {
        if protocol.is_empty()
            || protocol.eq_ignore_ascii_case(b"h2c")
            || protocol.eq_ignore_ascii_case(b"h2")
        {
            continue;
        }
        let slashes = protocol.iter().filter(|byte| **byte == b'/').count();
        let text = std::str::from_utf8(protocol).map_err(|_| bad)?;
        if slashes > 1 || !protocol.iter().all(|byte| is_token(*byte) || *byte == b'/') {
            return Err(bad);
        }
        if !out.is_empty() {
            out.push_str(", ");
        }
        out.push_str(text);
    }
    Ok(())
}

/// What names are written with (RFC 9110 §5.6.2).
pub(super) fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
        || matches!(
            byte,
            b'!' | b'#'
                | b'$'
                | b'%'
                | b'&'
                | b'\''
                | b'*'
                | b'+'
                | b'-'
                | b'.'
                | b'^'
                | b'_'
                | b'`'
                | b'|'
                | b'~'
        )
}

/// What the tokeniser found, in words.
pub(super) fn malformed(error: httparse::Error) -> Refused {
    Refused::bad(match error {
        httparse::Error::HeaderName => "a field's name has characters that are not allowed there",
        httparse::Error::HeaderValue => "a field's value has characters that are not allowed there",
        httparse::Error::NewLine => "a line does not end in CRLF",
        httparse::Error::Status => "the status line is malformed",
        httparse::Error::Token => "the request line is malformed",
        httparse::Error::TooManyHeaders => "there are too many fields",
        httparse::Error::Version => "the version is malformed",
    })
}
