//! What holds for all bytes, and for all that look like HTTP.

use std::cell::{Cell, RefCell};
use std::convert::Infallible;
use std::future::poll_fn;
use std::pin::Pin;

use bytes::BytesMut;
use http::Method;
use hyper::body::{Body as _, Incoming};
use hyper_util::rt::TokioIo;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use proptest::test_runner::TestRunner;
use tokio::io::AsyncWriteExt as _;

use super::*;
use crate::model::{Edge, EscapedSlashes, Underscores};
use crate::wire::{Fields, Refused, RequestHead, ResponseHead};

/// What follows each request.
const SECOND: &[u8] = b"GET /second HTTP/1.1\r\nHost: second\r\n\r\n";

/// Request lines; the empty ones and odd ones are rarer.
const REQUEST_LINES: [&str; 14] = [
    "GET / HTTP/1.1",
    "GET /a?b=c HTTP/1.1",
    "POST /a/../b HTTP/1.1",
    "POST /%61%2d HTTP/1.1",
    "PUT /a;b/c%c3 HTTP/1.1",
    "DELETE //a/./b HTTP/1.1",
    "HEAD / HTTP/1.1",
    "OPTIONS * HTTP/1.1",
    "GET http://a/b HTTP/1.1",
    "GET / HTTP/1.0",
    "ODD /{\"|^} HTTP/1.1",
    "GET  / HTTP/1.1",
    "GET /a b HTTP/1.1",
    "GET / HTTP/1.2",
];

/// Field lines. `Host: a` is put to most heads besides.
const FIELDS: [&str; 40] = [
    "X: y",
    "Accept:",
    "Cookie: a=b; c=d",
    "Cookie: e",
    "X_Y: z",
    "A:\t b \t",
    "Quoted: \"a, b\"",
    "Content-Length: 0",
    "Content-Length: 3",
    "Content-Length: 3",
    "content-length:3",
    "Content-Length: 0003",
    "Content-Length: 3, 3",
    "Content-Length: +3",
    "Content-Length : 3",
    "Transfer-Encoding: chunked",
    "Transfer-Encoding: chunked",
    "transfer-encoding:CHUNKED",
    "Transfer-Encoding: gzip, chunked",
    "Transfer-Encoding: identity",
    "Transfer-Encoding: chunked, x",
    "Transfer-Encoding:\u{b}chunked",
    "Transfer_Encoding: chunked",
    "Connection: close",
    "Connection: keep-alive",
    "Connection: x, Accept",
    "Connection: content-length",
    "Connection: Upgrade",
    "Upgrade: websocket",
    "Upgrade: h2c",
    "TE: trailers, gzip",
    "Keep-Alive: timeout=1",
    "Trailer: x",
    "Expect: 100-continue",
    "Host: a",
    "Host: b",
    " folded",
    "No colon",
    ": no name",
    "A b: c",
];

const BODIES: [&str; 8] = [
    "",
    "abc",
    "3\r\nabc\r\n0\r\n\r\n",
    "3;x=y\r\nabc\r\n0\r\nTrailer-Field: 1\r\n\r\n",
    "1\r\na\r\n2\r\nbc\r\n000\r\n\r\n",
    "0\r\n\r\n",
    "03\r\nabc\r\n0\r\n\r\n0\r\n\r\n",
    "3\r\nabcd\r\n0\r\n\r\n",
];

/// A request with whatever follows, mostly well formed.
fn messages() -> impl Strategy<Value = Vec<u8>> {
    let ends = prop_oneof![200 => Just("\r\n"), 1 => Just("\n"), 1 => Just("\r"), 1 => Just("\r\r\n"), 1 => Just("")];
    let host = prop_oneof![9 => Just(Some("Host: a")), 1 => Just(None)];
    let fields = vec((select(&FIELDS[..]), ends.clone()), 0..4);
    let change =
        prop_oneof![4 => Just(None), 1 => (any::<prop::sample::Index>(), any::<u8>()).prop_map(Some)];
    (select(&REQUEST_LINES[..]), ends, host, fields, select(&BODIES[..]), change).prop_map(
        |(line, end, host, fields, body, change)| {
            let mut text = format!("{line}{end}");
            for (field, end) in host.map(|host| (host, "\r\n")).into_iter().chain(fields) {
                text.push_str(field);
                text.push_str(end);
            }
            text.push_str("\r\n");
            text.push_str(body);
            let mut bytes = text.into_bytes();
            if let Some((place, byte)) = change {
                let place = place.index(bytes.len());
                bytes[place] = byte;
            }
            bytes.extend_from_slice(SECOND);
            bytes
        },
    )
}

/// Any listener's idea of paths and names, and not of size.
fn edges() -> impl Strategy<Value = Edge> {
    let slashes = select(&[EscapedSlashes::Reject, EscapedSlashes::Pass][..]);
    let underscores = select(&[Underscores::Drop, Underscores::Reject, Underscores::Pass][..]);
    (slashes, underscores, any::<bool>()).prop_map(|(escaped_slashes, underscores, merge_slashes)| Edge {
        escaped_slashes,
        underscores,
        merge_slashes,
        ..Edge::default()
    })
}

/// All that can be compared of a head.
fn shown(head: &RequestHead) -> String {
    format!("{head:?}")
}

fn shown_answer(head: &ResponseHead) -> String {
    format!("{head:?}")
}

/// Whatever more comes, what was made of a beginning stays.
fn stays<T: PartialEq + std::fmt::Debug>(bytes: &[u8], read: impl Fn(&[u8]) -> Result<Option<T>, Refused>) {
    let mut settled = None;
    for end in 0..=bytes.len() {
        let outcome = read(&bytes[..end]);
        match &settled {
            None if outcome == Ok(None) => {}
            None => settled = Some(outcome),
            Some(settled) => assert_eq!(outcome, *settled, "after {end} bytes of {bytes:?}"),
        }
    }
}

/// What a request would like to change to.
fn asked(upgrade: bool) -> &'static str {
    if upgrade { "websocket" } else { "" }
}

proptest! {
    #[test]
    fn no_bytes_panic(bytes in vec(any::<u8>(), 0..300), edge in edges(), upgrade: bool, piece in 1..20_usize) {
        let _ = request(&bytes, &edge, &mut RequestHead::default());
        let _ = response(&bytes, &Method::GET, asked(upgrade), &mut ResponseHead::default());
        let _ = check_authority(&bytes);
        let _ = normalise_target(&String::from_utf8_lossy(&bytes), &edge, &mut String::new());
        let begun = [b"HTTP/1.1 200 OK\r\n", bytes.as_slice()].concat();
        let _ = response(&begun, &Method::GET, asked(upgrade), &mut ResponseHead::default());
        let (mut dechunker, mut buffer) = (Dechunker::default(), BytesMut::new());
        for piece in bytes.chunks(piece) {
            buffer.extend_from_slice(piece);
            while let Ok(Decoded::Data(_)) = dechunker.decode(&mut buffer) {}
        }
    }

    #[test]
    fn a_request_is_the_same_however_it_comes(bytes in messages(), edge in edges()) {
        stays(&bytes, |begin| {
            let mut head = RequestHead::default();
            Ok(request(begin, &edge, &mut head)?.map(|parsed| (parsed, shown(&head))))
        });
    }

    #[test]
    fn an_answer_is_the_same_however_it_comes(bytes in messages(), status in 90..610_u16, upgrade: bool) {
        let line = bytes.windows(2).position(|pair| pair == b"\r\n").unwrap_or(0);
        let bytes = [format!("HTTP/1.1 {status} X").as_bytes(), &bytes[line..]].concat();
        for to in [Method::GET, Method::HEAD] {
            stays(&bytes, |begin| {
                let mut head = ResponseHead::default();
                Ok(response(begin, &to, asked(upgrade), &mut head)?.map(|parsed| (parsed, shown_answer(&head))))
            });
        }
    }

    #[test]
    fn a_body_is_the_same_however_it_comes(
        body in vec(select(&["0", "3", "1a", "\r\n", "\r\n", "abc", ";", "x", "\n", "A: b"][..]), 0..12),
        piece in 1..8_usize,
    ) {
        let bytes = body.concat().into_bytes();
        let (all, parts) = (dechunked(&bytes, usize::MAX), dechunked(&bytes, piece));
        prop_assert_eq!(all, parts);
    }

    #[test]
    fn what_is_sent_on_is_read_as_it_was_meant(bytes in messages(), edge in edges()) {
        let mut head = RequestHead::default();
        if let Ok(Some(parsed)) = request(&bytes, &edge, &mut head) && !head.authority.is_empty() {
            let (mut out, mut again) = (BytesMut::new(), RequestHead::default());
            write_request(&head, parsed.framing, &mut out);
            let reread = request(&out, &edge, &mut again).unwrap().unwrap();
            prop_assert_eq!((reread.consumed, reread.framing), (out.len(), parsed.framing));
            // These are said on one hop, or not said again.
            head.version = again.version;
            head.expects_continue = false;
            prop_assert_eq!(shown(&again), shown(&head));
        }
    }

    #[test]
    fn an_answer_is_read_by_the_client_as_it_was_meant(bytes in messages(), status in 200..600_u16) {
        let line = bytes.windows(2).position(|pair| pair == b"\r\n").unwrap_or(0);
        let bytes = [format!("HTTP/1.1 {status} X").as_bytes(), &bytes[line..]].concat();
        let mut head = ResponseHead::default();
        if let Ok(Some(parsed)) = response(&bytes, &Method::GET, "", &mut head) {
            let (mut out, mut again) = (BytesMut::new(), ResponseHead::default());
            write_response(&head, parsed.framing, parsed.close, &mut out);
            let reread = response(&out, &Method::GET, "", &mut again).unwrap().unwrap();
            prop_assert_eq!(reread, Parsed { consumed: out.len(), ..parsed });
            prop_assert_eq!(shown_answer(&again), shown_answer(&head));
        }
    }

    #[test]
    fn a_target_that_was_taken_is_settled(raw in "/[a.%2eE5c/?;~+]{0,20}", edge in edges()) {
        let mut once = String::new();
        if normalise_target(&raw, &edge, &mut once).is_ok() {
            let mut twice = String::new();
            prop_assert_eq!(normalise_target(&once, &edge, &mut twice), Ok(()));
            prop_assert_eq!(&once, &twice);
            let path = once.split('?').next().unwrap();
            prop_assert!(path.starts_with('/'));
            prop_assert!(path.split('/').all(|segment| segment != "." && segment != ".."), "{}", path);
            prop_assert!(!edge.merge_slashes || !path.contains("//"), "{}", path);
        }
    }
}

/// The content and the trailers, or the status of the refusal; 0 while more is needed.
fn dechunked(bytes: &[u8], piece: usize) -> Result<(Vec<u8>, String), u16> {
    let (mut dechunker, mut buffer, mut content) = (Dechunker::default(), BytesMut::new(), Vec::new());
    let mut pieces = bytes.chunks(piece);
    loop {
        match dechunker.decode(&mut buffer).map_err(|refused| refused.status)? {
            Decoded::Data(data) => content.extend_from_slice(&data),
            Decoded::More => buffer.extend_from_slice(pieces.next().ok_or(0_u16)?),
            Decoded::End(fields) => return Ok((content, format!("{fields:?}"))),
        }
    }
}

// ---------------------------------------------------------------------------------------------- another reader's view

/// A request as any reader should see it: method, target, fields as they came, content.
#[derive(Clone, Debug, PartialEq)]
struct Seen {
    method: String,
    target: String,
    fields: Vec<(String, Vec<u8>)>,
    content: Vec<u8>,
}

/// What is read here, and what is sent on for it, the content as it came.
fn read_here(bytes: &[u8], edge: &Edge) -> (Vec<Seen>, Vec<u8>) {
    let (mut seen, mut sent) = (Vec::new(), BytesMut::new());
    let mut rest = BytesMut::from(bytes);
    let mut head = RequestHead::default();
    while let Ok(Some(parsed)) = request(&rest, edge, &mut head) {
        let _ = rest.split_to(parsed.consumed);
        let before = rest.clone();
        let Some(content) = content(&mut rest, parsed.framing) else { break };
        write_request(&head, parsed.framing, &mut sent);
        sent.extend_from_slice(&before[..before.len() - rest.len()]);
        seen.push(Seen {
            method: head.method.to_string(),
            target: head.target.clone(),
            fields: sorted(&head.fields),
            content,
        });
        // What follows a request to change the protocol is not for another reader of HTTP/1.
        if parsed.close || !head.upgrade.is_empty() {
            break;
        }
    }
    (seen, sent.to_vec())
}

/// The content, taken from the front; nothing where it is not all there.
fn content(rest: &mut BytesMut, framing: Framing) -> Option<Vec<u8>> {
    match framing {
        Framing::None => Some(Vec::new()),
        Framing::Length(length) => {
            let length = usize::try_from(length).ok().filter(|length| *length <= rest.len())?;
            Some(rest.split_to(length).to_vec())
        }
        Framing::Chunked => {
            let (mut dechunker, mut content) = (Dechunker::default(), Vec::new());
            loop {
                match dechunker.decode(rest).ok()? {
                    Decoded::Data(data) => content.extend_from_slice(&data),
                    Decoded::More => return None,
                    Decoded::End(_) => return Some(content),
                }
            }
        }
        Framing::UntilClose => panic!("a request that ends with the connection"),
    }
}

fn sorted(fields: &Fields) -> Vec<(String, Vec<u8>)> {
    let lower = |name: &[u8]| String::from_utf8_lossy(name).to_lowercase();
    let mut all: Vec<_> = fields.iter().map(|(name, value)| (lower(name), value.to_vec())).collect();
    all.sort();
    all
}

/// What hyper reads.
async fn read_by_hyper(bytes: &[u8]) -> Vec<Seen> {
    let (mut client, server) = tokio::io::duplex(64 * 1024);
    client.write_all(bytes).await.unwrap();
    client.shutdown().await.unwrap();
    let seen = RefCell::new(Vec::new());
    let service = hyper::service::service_fn(|request: hyper::Request<Incoming>| {
        let seen = &seen;
        async move {
            let (head, mut body) = request.into_parts();
            let mut content = Vec::new();
            let mut whole = true;
            while let Some(frame) = poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
                match frame.map(hyper::body::Frame::into_data) {
                    Ok(Ok(data)) => content.extend_from_slice(&data),
                    Ok(Err(_trailers)) => {}
                    Err(_) => whole = false,
                }
            }
            let mut fields: Vec<_> = head
                .headers
                .iter()
                .map(|(name, value)| (name.to_string(), value.as_bytes().to_vec()))
                .collect();
            fields.sort();
            if whole {
                let target = head.uri.path_and_query().map(ToString::to_string).unwrap_or_default();
                seen.borrow_mut().push(Seen { method: head.method.to_string(), target, fields, content });
            }
            Ok::<_, Infallible>(hyper::Response::new(String::new()))
        }
    });
    // How it ends says nothing that is not seen.
    let _ = hyper::server::conn::http1::Builder::new()
        .half_close(true)
        .serve_connection(TokioIo::new(server), service)
        .await;
    drop(client);
    seen.into_inner()
}

/// Whoever gets the same bytes sees the same requests in them, and whoever gets what is sent on sees those that were routed.
#[test]
fn another_reader_sees_the_same_requests() {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let (one, both) = (Cell::new(0), Cell::new(0));
    let config = ProptestConfig { cases: 1500, failure_persistence: None, ..ProptestConfig::default() };
    TestRunner::new(config)
        .run(&(messages(), edges()), |(bytes, edge)| {
            let (here, sent) = read_here(&bytes, &edge);
            one.set(one.get() + usize::from(!here.is_empty()));
            both.set(both.get() + usize::from(here.len() == 2));
            let there = runtime.block_on(read_by_hyper(&bytes));
            prop_assert!(there.len() >= here.len(), "{:?} against {:?}", here, there);
            for (here, there) in here.iter().zip(there) {
                let mut target = String::new();
                if there.target == "*" {
                    target.push('*');
                } else {
                    normalise_target(&there.target, &edge, &mut target).unwrap();
                }
                prop_assert_eq!(
                    (&here.method, &here.target, &here.content),
                    (&there.method, &target, &there.content)
                );
            }
            let mut behind = runtime.block_on(read_by_hyper(&sent));
            prop_assert_eq!(behind.len(), here.len());
            for request in &mut behind {
                request.fields.retain(|(name, _)| {
                    !["content-length", "transfer-encoding", "connection", "upgrade"].contains(&name.as_str())
                });
            }
            for (here, behind) in here.iter().zip(behind) {
                let host = [("host".to_owned(), Vec::new())];
                // HTTP/1.0 may have none.
                let mut expected = here.clone();
                if !expected.fields.iter().any(|(name, _)| name == "host") {
                    expected.fields.extend(host);
                    expected.fields.sort();
                }
                prop_assert_eq!(expected, behind);
            }
            Ok(())
        })
        .unwrap();
    // It would hold if nothing were taken, too.
    assert!(one.get() > 300 && both.get() > 60, "{} and {}", one.get(), both.get());
}

/// Content is handed on without a copy.
#[test]
fn content_is_not_copied() {
    let mut bytes = BytesMut::from(&b"3\r\nabc\r\n0\r\n\r\n"[..]);
    let place = bytes[3..].as_ptr();
    let Ok(Decoded::Data(data)) = Dechunker::default().decode(&mut bytes) else { panic!("no content") };
    assert_eq!((&data[..], data.as_ptr()), (&b"abc"[..], place));
}
