//! What comes in on a connection: no panic, nothing taken that did not come, the same verdict however it is cut, and what is
//! accepted is written so that a strict reader finds the same in it.

use bytes::BytesMut;
use http::Method;

use serinus::model::{Edge, EscapedSlashes, Underscores};
use serinus::wire::parse::{self, write_request, write_response};
use serinus::wire::{Dechunker, Decoded, Fields, Framing, Parsed, Refused, RequestHead, ResponseHead};

/// Checks `data`: the first byte says how it is to be read, the rest is what came.
pub(crate) fn check(data: &[u8]) {
    let Some((how, bytes)) = data.split_first() else { return };
    match how % 4 {
        0 | 1 => request(bytes, &edge(*how)),
        2 => response(bytes, *how),
        _ => chunks(bytes, *how),
    }
}

/// A listener's settings, by the bits of `how`.
fn edge(how: u8) -> Edge {
    Edge {
        escaped_slashes: if how & 4 == 0 { EscapedSlashes::Reject } else { EscapedSlashes::Pass },
        merge_slashes: how & 8 != 0,
        underscores: match how >> 4 & 3 {
            0 | 3 => Underscores::Drop,
            1 => Underscores::Reject,
            _ => Underscores::Pass,
        },
        // Limits that are met.
        header_count: 20,
        header_bytes: 1_000,
        request_line: 300,
        ..Edge::default()
    }
}

type Read = Result<Option<Parsed>, Refused>;

/// What must hold of a reader of heads: early refusals are refusals, and what is whole needs nothing of what follows.
fn consistent(bytes: &[u8], read: impl Fn(&[u8]) -> Read) -> Option<Parsed> {
    let whole = read(bytes);
    // Each cut would make it quadratic.
    let cuts = [bytes.len() / 3, bytes.len() / 2, bytes.len().saturating_sub(1)];
    for begin in cuts.iter().filter_map(|cut| bytes.get(..*cut)) {
        match (read(begin), &whole) {
            (Err(refused), whole) => assert!(whole.is_err(), "refused early ({refused}), and then {whole:?}"),
            (Ok(Some(early)), whole) => assert_eq!(Ok(Some(early)), *whole, "what follows a head changes it"),
            (Ok(None), _) => {}
        }
    }
    if let Err(refused) = &whole {
        assert!([400, 405, 413, 414, 417, 431, 501, 505].contains(&refused.status), "{refused:?}");
    }
    let parsed = whole.ok().flatten()?;
    assert!(parsed.consumed > 0 && parsed.consumed <= bytes.len(), "{parsed:?}");
    assert_eq!(read(&bytes[..parsed.consumed]), Ok(Some(parsed)), "a head needs nothing of what follows it");
    assert_eq!(read(&bytes[..parsed.consumed - 1]), Ok(None), "a head needs its last byte");
    Some(parsed)
}

fn request(bytes: &[u8], edge: &Edge) {
    glimpse(bytes, edge);
    let Some(parsed) = consistent(bytes, |bytes| parse::request(bytes, edge, &mut RequestHead::default()))
    else {
        return;
    };
    // A head that was used before must not show.
    let mut head = RequestHead::default();
    let before =
        b"PUT /before?x HTTP/1.1\r\nHost: before\r\nUpgrade: x\r\nConnection: upgrade\r\nB: b\r\n\r\n";
    parse::request(before, edge, &mut head).expect("a plain request");
    parse::request(bytes, edge, &mut head).expect("as before");

    assert!(head.method != Method::CONNECT && head.method != Method::TRACE);
    assert!(parsed.framing != Framing::UntilClose && parsed.framing != Framing::Length(0));
    target(&head.target, edge);
    for (name, value) in head.fields.iter() {
        assert!(!name.is_empty() && !value.iter().any(|b| matches!(b, b'\r' | b'\n' | 0)), "{head:?}");
        let hop = [
            "Connection",
            "Content-Length",
            "Transfer-Encoding",
            "Upgrade",
            "Keep-Alive",
            "Proxy-Connection",
        ];
        assert!(!hop.iter().any(|hop| name.eq_ignore_ascii_case(hop.as_bytes())), "{head:?}");
        assert!(edge.underscores == Underscores::Pass || !name.contains(&b'_'), "{head:?}");
    }
    assert!(head.fields.all("Host").count() <= 1);
    if head.authority.is_empty() {
        // HTTP/1.0 without a Host: an empty one is written, which a listener refuses in HTTP/1.1.
        return;
    }

    let mut out = BytesMut::new();
    write_request(&head, parsed.framing, &mut out);
    let mut again = RequestHead::default();
    // What is written is put in order, and may be a little longer.
    let roomy = Edge {
        request_line: edge.request_line + 64,
        header_bytes: edge.header_bytes * 2 + 256,
        header_count: edge.header_count + 4,
        ..edge.clone()
    };
    let reread = parse::request(&out, &roomy, &mut again).expect("what is written is strict");
    let reread = reread.expect("what is written is whole");
    assert_eq!((reread.consumed, reread.framing), (out.len(), parsed.framing));
    assert_eq!((&again.method, &again.target, &again.upgrade), (&head.method, &head.target, &head.upgrade));
    assert_eq!(again.authority, head.authority);
    assert_eq!(list(&again.fields), list(&head.fields));
}

/// What is logged of a request, refused or not, is what a request could have.
fn glimpse(bytes: &[u8], edge: &Edge) {
    let seen = parse::glimpse(bytes, edge);
    if !seen.target.is_empty() {
        target(&seen.target, edge);
    }
    assert!(seen.target.len() <= 3 * edge.request_line && seen.authority.len() <= 300, "{seen:?}");
    assert!(seen.authority.bytes().all(|b| b.is_ascii_graphic()), "{seen:?}");
    assert!(seen.method.as_ref().is_none_or(|method| method.as_str().len() <= 32), "{seen:?}");
    let mut head = RequestHead::default();
    if let Ok(Some(_)) = parse::request(bytes, edge, &mut head) {
        // Of what is served it is the same that is served.
        assert_eq!((seen.method, seen.target), (Some(head.method), head.target));
        assert_eq!(seen.authority, head.authority);
    }
}

/// What is routed by and sent on is the one way to write it.
fn target(target: &str, edge: &Edge) {
    if target == "*" {
        return;
    }
    assert!(
        target.starts_with('/') && target.bytes().all(|b| b.is_ascii_graphic() && b != b'#'),
        "{target:?}"
    );
    let path = target.split('?').next().unwrap_or_default();
    assert!(!path.split('/').any(|part| part == "." || part == ".."), "{target:?}");
    let upper = path.to_ascii_uppercase();
    if edge.escaped_slashes == EscapedSlashes::Reject {
        assert!(!upper.contains("%2F") && !upper.contains("%5C"), "{target:?}");
    }
    assert!(!upper.contains("%2E") && !upper.contains("%00") && !path.contains('\\'), "{target:?}");
    assert!(!edge.merge_slashes || !path.contains("//"), "{target:?}");
    let mut again = String::new();
    let roomy = Edge { request_line: edge.request_line + 64, ..edge.clone() };
    parse::normalise_target(target, &roomy, &mut again).expect("what was accepted is accepted again");
    assert_eq!(again, target, "normalised once is normalised");
}

fn response(bytes: &[u8], how: u8) {
    let to = [Method::GET, Method::HEAD, Method::POST, Method::OPTIONS][usize::from(how >> 2 & 3)].clone();
    let upgrade = if how & 16 == 0 { "" } else { "websocket, chat/1" };
    let Some(parsed) =
        consistent(bytes, |bytes| parse::response(bytes, &to, upgrade, &mut ResponseHead::default()))
    else {
        return;
    };
    let mut head = ResponseHead::default();
    parse::response(bytes, &to, upgrade, &mut head).expect("as before");
    let bodiless =
        to == Method::HEAD || head.status.is_informational() || matches!(head.status.as_u16(), 204 | 304);
    assert!(!bodiless || parsed.framing == Framing::None, "{head:?} {parsed:?}");
    assert!(parsed.framing != Framing::UntilClose || parsed.close);

    // As a server writes an answer of which it does not know the length.
    let unknown = to == Method::HEAD && head.fields.get("Content-Length").is_none();
    let framing =
        if unknown && parsed.framing == Framing::None { Framing::UntilClose } else { parsed.framing };
    let mut out = BytesMut::new();
    write_response(&head, framing, parsed.close, &mut out);
    let mut again = ResponseHead::default();
    let reread = parse::response(&out, &to, upgrade, &mut again);
    if matches!(reread, Err(Refused { status: 431, .. } | Refused { what: _, status: 400 }))
        && bytes.len() > 60 * 1024
    {
        // At the limit it may be longer than it was.
        return;
    }
    let reread = reread.expect("what is written is strict").expect("what is written is whole");
    assert_eq!((reread.consumed, reread.framing), (out.len(), parsed.framing));
    assert_eq!((again.status, &again.upgrade), (head.status, &head.upgrade));
    assert_eq!(list(&again.fields), list(&head.fields), "{head:?}");
}

/// Names and values.
type List = Vec<(Vec<u8>, Vec<u8>)>;

fn list(fields: &Fields) -> List {
    fields.iter().map(|(name, value)| (name.to_vec(), value.to_vec())).collect()
}

/// What became of a body that came in pieces.
#[derive(Debug, PartialEq)]
struct Body {
    content: Vec<u8>,
    /// Where it ended: how many bytes were left over; the trailers.
    end: Option<(usize, List)>,
    refused: bool,
}

fn chunks(bytes: &[u8], how: u8) {
    let whole = dechunk(bytes, bytes.len().max(1));
    let pieces = dechunk(bytes, usize::from(how >> 2).max(1));
    assert_eq!(whole.end.is_some(), pieces.end.is_some(), "{whole:?} {pieces:?}");
    assert_eq!(whole.refused, pieces.refused, "{whole:?} {pieces:?}");
    assert_eq!(whole.content, pieces.content);
    assert_eq!(whole.end, pieces.end);
    assert!(whole.content.len() <= bytes.len());
}

/// Takes a body apart that comes `step` bytes at a time.
fn dechunk(bytes: &[u8], step: usize) -> Body {
    let mut dechunker = Dechunker::default();
    let mut waiting = BytesMut::new();
    let mut body = Body { content: Vec::new(), end: None, refused: false };
    let mut came = 0;
    // Also where nothing comes: it must say that it needs more.
    for piece in bytes.chunks(step).chain([&[][..]]) {
        waiting.extend_from_slice(piece);
        came += piece.len();
        loop {
            match dechunker.decode(&mut waiting) {
                Ok(Decoded::Data(data)) => {
                    assert!(!data.is_empty());
                    body.content.extend_from_slice(&data);
                }
                Ok(Decoded::More) => break,
                Ok(Decoded::End(trailers)) => {
                    let left = bytes.len() - came + waiting.len();
                    body.end = Some((left, trailers.as_ref().map(list).unwrap_or_default()));
                    return body;
                }
                Err(_) => {
                    body.refused = true;
                    return body;
                }
            }
        }
    }
    body
}
