//! Answers, byte by byte: what a client gets for each, or that it is refused.

use bytes::BytesMut;

use super::super::write_response;
use super::*;

/// What the client gets, with `~` for each line end, then ` close` where the connection to the pod ends; `-` for a refusal,
/// `…` while more is needed.
fn got(to: &Method, asked: &str, raw: &[u8]) -> String {
    let mut head = ResponseHead { upgrade: "left".to_owned(), ..ResponseHead::default() };
    head.fields.append("Left", "over");
    let parsed = match response(raw, to, asked, &mut head) {
        Ok(Some(parsed)) => parsed,
        Ok(None) => return "…".to_owned(),
        Err(refused) => {
            assert!((400..=501).contains(&refused.status) && !refused.what.is_empty());
            return "-".to_owned();
        }
    };
    assert_eq!(parsed.consumed, raw.len());
    let mut out = BytesMut::new();
    // What has no length has none towards the client either, as far as this shows it.
    let nothing = parsed.framing == Framing::None && to == Method::HEAD;
    let framing = if nothing { Framing::UntilClose } else { parsed.framing };
    write_response(&head, framing, false, &mut out);
    let mut text = String::from_utf8_lossy(&out).replace("\r\n", "~");
    if parsed.framing == Framing::UntilClose {
        assert!(parsed.close);
        text.push_str(" until");
    }
    text.push_str(if parsed.close { " close" } else { "" });
    text
}

#[track_caller]
fn check(to: Method, asked: &str, rows: &[(&str, &str)]) {
    for (row, expected) in rows {
        assert_eq!(got(&to, asked, row.replace('\n', "\r\n").as_bytes()), *expected, "{row:?}");
    }
}

/// What a request would like to change to.
const ASKED: &str = "a/1, websocket";

#[test]
fn ordinary_answers_are_taken() {
    check(
        Method::GET,
        "",
        &[
            ("HTTP/1.1 200 OK\nContent-Length: 3\n\n", "HTTP/1.1 200 OK~Content-Length: 3~~"),
            ("HTTP/1.1 200 Fine by me\nContent-Length: 0\n\n", "HTTP/1.1 200 OK~Content-Length: 0~~"),
            ("HTTP/1.1 200 \nContent-Length: 3\n\n", "HTTP/1.1 200 OK~Content-Length: 3~~"),
            ("HTTP/1.1 200\nContent-Length: 3\n\n", "HTTP/1.1 200 OK~Content-Length: 3~~"),
            ("HTTP/1.1 200 \u{e9}\nContent-Length: 3\n\n", "HTTP/1.1 200 OK~Content-Length: 3~~"),
            ("HTTP/1.1 299 Odd\nContent-Length: 3\n\n", "HTTP/1.1 299 ~Content-Length: 3~~"),
            ("HTTP/1.1 599 Odd\nContent-Length: 3\n\n", "HTTP/1.1 599 ~Content-Length: 3~~"),
            (
                "HTTP/1.1 404 X\nTransfer-Encoding: Chunked\n\n",
                "HTTP/1.1 404 Not Found~Transfer-Encoding: chunked~~",
            ),
            ("HTTP/1.1 200 OK\n\n", "HTTP/1.1 200 OK~~ until close"),
            ("HTTP/1.1 200 OK\nConnection: keep-alive\n\n", "HTTP/1.1 200 OK~~ until close"),
            (
                "HTTP/1.1 200 OK\nA: 1\na: 2\nSet-Cookie: b\nSet-Cookie: c\nContent-Length: 1\n\n",
                "HTTP/1.1 200 OK~A: 1~a: 2~Set-Cookie: b~Set-Cookie: c~Content-Length: 1~~",
            ),
            (
                "HTTP/1.1 200 OK\nX_Y: \u{e9}\nContent-Length: 1\n\n",
                "HTTP/1.1 200 OK~X_Y: \u{e9}~Content-Length: 1~~",
            ),
            (
                "HTTP/1.1 200 OK\nConnection: close\nContent-Length: 1\n\n",
                "HTTP/1.1 200 OK~Content-Length: 1~~ close",
            ),
            ("HTTP/1.0 200 OK\nContent-Length: 1\n\n", "HTTP/1.1 200 OK~Content-Length: 1~~ close"),
            (
                "HTTP/1.0 200 OK\nConnection: Keep-Alive\nContent-Length: 1\n\n",
                "HTTP/1.1 200 OK~Content-Length: 1~~",
            ),
            ("HTTP/1.0 200 OK\n\n", "HTTP/1.1 200 OK~~ until close"),
        ],
    );
}

#[test]
fn answers_without_a_body() {
    check(
        Method::GET,
        "",
        &[
            ("HTTP/1.1 204 No Content\n\n", "HTTP/1.1 204 No Content~~"),
            ("HTTP/1.1 204 No Content\nContent-Length: 0\n\n", "HTTP/1.1 204 No Content~~"),
            ("HTTP/1.1 204 No Content\nContent-Length: 5\n\n", "HTTP/1.1 204 No Content~~ close"),
            ("HTTP/1.1 204 No Content\nTransfer-Encoding: chunked\n\n", "HTTP/1.1 204 No Content~~ close"),
            ("HTTP/1.1 304 X\nContent-Length: 5\n\n", "HTTP/1.1 304 Not Modified~Content-Length: 5~~"),
            ("HTTP/1.1 304 X\nETag: \"a\"\n\n", "HTTP/1.1 304 Not Modified~ETag: \"a\"~~"),
            ("HTTP/1.1 304 X\nTransfer-Encoding: chunked\n\n", "HTTP/1.1 304 Not Modified~~ close"),
            ("HTTP/1.1 100 Continue\n\n", "HTTP/1.1 100 Continue~~"),
            ("HTTP/1.1 103 X\nLink: a\n\n", "HTTP/1.1 103 Early Hints~Link: a~~"),
            ("HTTP/1.1 102 X\nContent-Length: 0\n\n", "HTTP/1.1 102 Processing~~"),
            ("HTTP/1.1 103 X\nContent-Length: 5\n\n", "-"),
            ("HTTP/1.1 100 X\nTransfer-Encoding: chunked\n\n", "-"),
        ],
    );
    check(
        Method::HEAD,
        "",
        &[
            ("HTTP/1.1 200 OK\nContent-Length: 5\n\n", "HTTP/1.1 200 OK~~"),
            ("HTTP/1.1 200 OK\nTransfer-Encoding: chunked\n\n", "HTTP/1.1 200 OK~~"),
            ("HTTP/1.1 200 OK\n\n", "HTTP/1.1 200 OK~~"),
            ("HTTP/1.1 200 OK\nContent-Length: 5\nContent-Length: 5\n\n", "-"),
            ("HTTP/1.1 200 OK\nContent-Length: 5\nTransfer-Encoding: chunked\n\n", "-"),
        ],
    );
}

/// The length that another method would have got is a field of the answer to HEAD.
#[test]
fn a_length_without_a_body_is_kept() {
    let mut head = ResponseHead::default();
    let raw = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n";
    let parsed = response(raw, &Method::HEAD, "", &mut head).unwrap().unwrap();
    assert_eq!((parsed.framing, head.fields.get("Content-Length")), (Framing::None, Some(&b"5"[..])));
    let mut out = BytesMut::new();
    write_response(&head, parsed.framing, true, &mut out);
    assert_eq!(out, b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\n"[..]);
    response(raw, &Method::GET, "", &mut head).unwrap().unwrap();
    assert!(head.fields.is_empty());
}

#[test]
fn what_is_of_one_hop_ends_here() {
    check(
        Method::GET,
        "",
        &[
            (
                "HTTP/1.1 200 X\nConnection: x-a, keep-alive\nX-A: 1\nX-B: 2\nKeep-Alive: a\nContent-Length: 1\n\n",
                "HTTP/1.1 200 OK~X-B: 2~Content-Length: 1~~",
            ),
            (
                "HTTP/1.1 200 X\nProxy-Connection: a\nProxy-Authenticate: b\nTE: c\nUpgrade: d\nContent-Length: 1\n\n",
                "HTTP/1.1 200 OK~Content-Length: 1~~",
            ),
            (
                "HTTP/1.1 426 X\nConnection: upgrade\nUpgrade: websocket\nContent-Length: 0\n\n",
                "HTTP/1.1 426 Upgrade Required~Content-Length: 0~~",
            ),
            // Old servers write what is no option.
            (
                "HTTP/1.1 200 X\nConnection: Keep-Alive, timeout=5; x\nContent-Length: 1\n\n",
                "HTTP/1.1 200 OK~Content-Length: 1~~",
            ),
            (
                "HTTP/1.1 200 X\nConnection: Content-Length\nContent-Length: 1\n\n",
                "HTTP/1.1 200 OK~Content-Length: 1~~",
            ),
            (
                "HTTP/1.1 200 X\nConnection: keep-alive, Transfer-Encoding\nTransfer-Encoding: chunked\n\n",
                "HTTP/1.1 200 OK~Transfer-Encoding: chunked~~",
            ),
        ],
    );
    let many = format!("HTTP/1.1 200 X\nConnection: {}\nContent-Length: 1\n\n", "x,".repeat(17));
    check(Method::GET, "", &[(&many, "-")]);
}

#[test]
fn protocols_are_switched_where_it_was_asked() {
    let rows = [
        (
            "HTTP/1.1 101 X\nUpgrade: websocket\nConnection: Upgrade\nA: b\n\n",
            "HTTP/1.1 101 Switching Protocols~A: b~Connection: Upgrade~Upgrade: websocket~~",
        ),
        (
            "HTTP/1.1 101 X\nUpgrade: A/1\nConnection: Upgrade\n\n",
            "HTTP/1.1 101 Switching Protocols~Connection: Upgrade~Upgrade: A/1~~",
        ),
        ("HTTP/1.1 101 X\nUpgrade: a\nConnection: Upgrade\n\n", "-"),
        ("HTTP/1.1 101 X\nUpgrade: a/1, websocket\nConnection: Upgrade\n\n", "-"),
        ("HTTP/1.1 101 X\nUpgrade: websocket\n\n", "-"),
        ("HTTP/1.1 101 X\nConnection: Upgrade\n\n", "-"),
        ("HTTP/1.1 101 X\nUpgrade: websocket, b\nConnection: Upgrade\n\n", "-"),
        ("HTTP/1.1 101 X\nUpgrade: a/1\nUpgrade: websocket\nConnection: Upgrade\n\n", "-"),
        ("HTTP/1.1 101 X\nUpgrade: a b\nConnection: Upgrade\n\n", "-"),
        ("HTTP/1.1 101 X\nUpgrade: h2c\nConnection: Upgrade\n\n", "-"),
        ("HTTP/1.1 101 X\nUpgrade: websocket\nConnection: Upgrade\nContent-Length: 5\n\n", "-"),
        ("HTTP/1.0 101 X\nUpgrade: websocket\nConnection: Upgrade\n\n", "-"),
    ];
    check(Method::GET, ASKED, &rows);
    let unasked: Vec<_> = rows.iter().map(|(row, _)| (*row, "-")).collect();
    check(Method::GET, "", &unasked);
}

#[test]
fn answers_that_are_none() {
    for raw in [
        &b"\r\nHTTP/1.1 200 OK\r\n\r\n"[..],
        b" HTTP/1.1 200 OK\r\n\r\n",
        b"http/1.1 200 OK\r\n\r\n",
        b"HTTP/2.0 200 OK\r\n\r\n",
        b"HTTP/0.9 200 OK\r\n\r\n",
        b"HTTP/1.2 200 OK\r\n\r\n",
        b"HTTP/1.10 200 OK\r\n\r\n",
        b"HTTP/1.1\r\n\r\n",
        b"HTTP/1.1 \r\n\r\n",
        b"HTTP/1.1  200 OK\r\n\r\n",
        b"HTTP/1.1\t200 OK\r\n\r\n",
        b"HTTP/1.1 20 OK\r\n\r\n",
        b"HTTP/1.1 2000 OK\r\n\r\n",
        b"HTTP/1.1 +20 OK\r\n\r\n",
        b"HTTP/1.1 OK\r\n\r\n",
        b"HTTP/1.1 000 OK\r\n\r\n",
        b"HTTP/1.1 099 OK\r\n\r\n",
        b"HTTP/1.1 600 OK\r\n\r\n",
        b"HTTP/1.1 999 OK\r\n\r\n",
        b"HTTP/1.1 200\tOK\r\n\r\n",
        b"HTTP/1.1 200 O\x00K\r\n\r\n",
        b"HTTP/1.1 200 O\rK\r\n\r\n",
        b"HTTP/1.1 200 OK\n\n",
        b"HTTP/1.1 200 OK\r\nA: b\n\r\n",
        b"HTTP/1.1 200 OK\r\nA: b\r\n\n",
        b"HTTP/1.1 200 OK\r\n A: b\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nA: b\r\n c\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nA : b\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nA\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n: b\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nA b: c\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nA: b\x00\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nA: b\rc\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nA: b\x7f\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1, 1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length:\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: +1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1 1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: identity\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked, chunked\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding:\r\n\r\n",
        b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"SSH-2.0-OpenSSH_9.6\r\n",
        b"<html>",
        b"\x15\x03\x01\x00\x02\x02\x16",
        b"\x00",
        b"HTTP/9",
    ] {
        assert_eq!(got(&Method::GET, "", raw), "-", "{:?}", String::from_utf8_lossy(raw));
    }
}

#[test]
fn an_answer_is_waited_for_within_bounds() {
    let raw = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n";
    for end in 0..raw.len() {
        assert_eq!(got(&Method::GET, "", &raw[..end]), "…", "{end}");
    }
    let line = |length: usize| format!("HTTP/1.1 200 {}", "x".repeat(length - 13));
    assert_eq!(got(&Method::GET, "", format!("{}\r\n", line(8192)).as_bytes()), "…");
    assert_eq!(got(&Method::GET, "", line(8194).as_bytes()), "-");
    let fields = |length: usize| format!("HTTP/1.1 200 OK\r\nA: {}\r\n", "x".repeat(length - 5));
    assert_eq!(got(&Method::GET, "", fields(64 * 1024).as_bytes()), "…");
    assert_eq!(got(&Method::GET, "", fields(64 * 1024 + 1).as_bytes()), "-");
    let many = |count: usize| format!("HTTP/1.1 200 OK\r\n{}", "A: b\r\n".repeat(count));
    assert_eq!(got(&Method::GET, "", many(256).as_bytes()), "…");
    assert_eq!(got(&Method::GET, "", many(257).as_bytes()), "-");
    let whole = format!("{}\r\n", many(256));
    assert!(got(&Method::GET, "", whole.as_bytes()).starts_with("HTTP/1.1 200 OK~A: b~A: b~"));
}
