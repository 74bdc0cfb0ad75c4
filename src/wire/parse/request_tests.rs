//! Requests, byte by byte: what is sent on for each, or how it is refused.

use bytes::BytesMut;

use super::super::write_request;
use super::*;
use crate::model::EscapedSlashes;

/// What is sent on, with `~` for each line end, then what else is known; or the status of the refusal, 0 while more is
/// needed.
fn sent_on(raw: &[u8], edge: &Edge) -> Result<String, u16> {
    let mut head = RequestHead::default();
    // Nothing of an earlier request may be left.
    head.fields.append("Left", "over");
    head.target.push_str("/left");
    head.upgrade.push_str("left");
    head.authority.push_str("left");
    head.expects_continue = true;
    let parsed = request(raw, edge, &mut head).map_err(|refused| refused.status)?.ok_or(0_u16)?;
    assert_eq!(parsed.consumed, raw.len());
    assert!(!head.expects_continue || parsed.framing != Framing::None);
    let mut out = BytesMut::new();
    write_request(&head, parsed.framing, &mut out);
    let mut text = String::from_utf8_lossy(&out).replace("\r\n", "~");
    let host = head.fields.text("Host").unwrap_or_default();
    assert_eq!(host, head.authority);
    for (is, word) in [(parsed.close, " close"), (head.expects_continue, " expects")] {
        text.push_str(if is { word } else { "" });
    }
    Ok(text)
}

/// `\n` in a row stands for CRLF.
fn lines(row: &str) -> Vec<u8> {
    row.replace('\n', "\r\n").into_bytes()
}

#[track_caller]
fn taken(edge: &Edge, rows: &[(&str, &str)]) {
    for (row, expected) in rows {
        assert_eq!(sent_on(&lines(row), edge).as_deref(), Ok(*expected), "{row:?}");
    }
}

#[track_caller]
fn refused(edge: &Edge, status: u16, rows: &[&[u8]]) {
    for row in rows {
        assert_eq!(sent_on(row, edge), Err(status), "{:?}", String::from_utf8_lossy(row));
    }
}

#[test]
fn ordinary_requests_are_taken() {
    taken(
        &Edge::default(),
        &[
            ("GET / HTTP/1.1\nHost: a\n\n", "GET / HTTP/1.1~Host: a~~"),
            ("\nGET / HTTP/1.1\nHost: a\n\n", "GET / HTTP/1.1~Host: a~~"),
            ("\n\n\n\nGET / HTTP/1.1\nHost: a\n\n", "GET / HTTP/1.1~Host: a~~"),
            ("GET / HTTP/1.1\nhOST:a:80\n\n", "GET / HTTP/1.1~hOST: a:80~~"),
            ("GET / HTTP/1.1\nHost: \t [::1]:8080 \t\n\n", "GET / HTTP/1.1~Host: [::1]:8080~~"),
            ("GET /a?b=c HTTP/1.1\nA: 1\nHost: a\nA: 2\n\n", "GET /a?b=c HTTP/1.1~A: 1~Host: a~A: 2~~"),
            ("GET / HTTP/1.1\nHost: a\nA:\nB: \n\n", "GET / HTTP/1.1~Host: a~A: ~B: ~~"),
            ("GET / HTTP/1.1\nHost: a\nA: b c\td, \"e\"\n\n", "GET / HTTP/1.1~Host: a~A: b c\td, \"e\"~~"),
            ("GET / HTTP/1.1\nHost: a\nA: \u{e9}\n\n", "GET / HTTP/1.1~Host: a~A: \u{e9}~~"),
            (
                "GET / HTTP/1.1\nHost: a\n!#$%&'*+-.^`|~0: b\n\n",
                "GET / HTTP/1.1~Host: a~!#$%&'*+-.^`|~0: b~~",
            ),
            ("DELETE /a HTTP/1.1\nHost: a\n\n", "DELETE /a HTTP/1.1~Host: a~~"),
            ("purge-all /a HTTP/1.1\nHost: a\n\n", "purge-all /a HTTP/1.1~Host: a~~"),
            ("HEAD / HTTP/1.1\nHost: a\n\n", "HEAD / HTTP/1.1~Host: a~~"),
            ("OPTIONS * HTTP/1.1\nHost: a\n\n", "OPTIONS * HTTP/1.1~Host: a~~"),
            ("OPTIONS /a HTTP/1.1\nHost: a\n\n", "OPTIONS /a HTTP/1.1~Host: a~~"),
            (
                "GET / HTTP/1.1\nHost: a\nCookie: b\nCookie: c\n\n",
                "GET / HTTP/1.1~Host: a~Cookie: b~Cookie: c~~",
            ),
            ("GET /b/../c HTTP/1.1\nHost: a\n\n", "GET /c HTTP/1.1~Host: a~~"),
        ],
    );
    let method = "M".repeat(32);
    let raw = format!("{method} / HTTP/1.1\nHost: a\n\n");
    taken(&Edge::default(), &[(&raw, &format!("{method} / HTTP/1.1~Host: a~~"))]);
}

#[test]
fn requests_of_http_1_0_are_taken() {
    taken(
        &Edge::default(),
        &[
            ("GET / HTTP/1.0\n\n", "GET / HTTP/1.1~Host: ~~ close"),
            ("GET / HTTP/1.0\nHost: a\n\n", "GET / HTTP/1.1~Host: a~~ close"),
            ("GET / HTTP/1.0\nHost: a\nConnection: keep-alive\n\n", "GET / HTTP/1.1~Host: a~~"),
            ("GET / HTTP/1.0\nHost: a\nConnection: keep-alive, close\n\n", "GET / HTTP/1.1~Host: a~~ close"),
            ("GET / HTTP/1.0\nHost: a\nProxy-Connection: keep-alive\n\n", "GET / HTTP/1.1~Host: a~~ close"),
            ("GET http://a/b HTTP/1.0\n\n", "GET /b HTTP/1.1~Host: a~~ close"),
            (
                "POST / HTTP/1.0\nHost: a\nContent-Length: 3\nExpect: 100-continue\n\n",
                "POST / HTTP/1.1~Host: a~Content-Length: 3~~ close",
            ),
            (
                "GET / HTTP/1.0\nHost: a\nConnection: upgrade\nUpgrade: b\n\n",
                "GET / HTTP/1.1~Host: a~~ close",
            ),
        ],
    );
}

#[test]
fn absolute_targets_are_those_of_their_host() {
    taken(
        &Edge::default(),
        &[
            ("GET http://a/b?c HTTP/1.1\nHost: a\n\n", "GET /b?c HTTP/1.1~Host: a~~"),
            ("GET HTTPS://A:1/./b HTTP/1.1\nHost: a:1\n\n", "GET /b HTTP/1.1~Host: a:1~~"),
            ("GET http://a HTTP/1.1\nHost: a\n\n", "GET / HTTP/1.1~Host: a~~"),
            ("GET http://a?b=/c HTTP/1.1\nHost: a\n\n", "GET /?b=/c HTTP/1.1~Host: a~~"),
            ("OPTIONS http://a HTTP/1.1\nHost: a\n\n", "OPTIONS * HTTP/1.1~Host: a~~"),
            ("OPTIONS http://a/ HTTP/1.1\nHost: a\n\n", "OPTIONS / HTTP/1.1~Host: a~~"),
            ("GET http://[::1]/ HTTP/1.1\nHost: [::1]\n\n", "GET / HTTP/1.1~Host: [::1]~~"),
        ],
    );
    refused(
        &Edge::default(),
        400,
        &[
            b"GET http://a/ HTTP/1.1\r\nHost: b\r\n\r\n",
            b"GET http://a/ HTTP/1.1\r\n\r\n",
            b"GET http://a:80/ HTTP/1.1\r\nHost: a\r\n\r\n",
            b"GET http://a/ HTTP/1.1\r\nHost: a:80\r\n\r\n",
            b"GET http://a@a/ HTTP/1.1\r\nHost: a\r\n\r\n",
            b"GET http://u:p@a/ HTTP/1.1\r\nHost: a\r\n\r\n",
            b"GET http:///b HTTP/1.1\r\nHost: a\r\n\r\n",
            b"GET http:/a/b HTTP/1.1\r\nHost: a\r\n\r\n",
            b"GET http:a HTTP/1.1\r\nHost: a\r\n\r\n",
            b"GET http://a\\b/ HTTP/1.1\r\nHost: a\r\n\r\n",
            b"GET http://a#b HTTP/1.1\r\nHost: a\r\n\r\n",
            b"GET http://a/../b HTTP/1.1\r\nHost: a\r\n\r\n",
            b"GET ftp://a/ HTTP/1.1\r\nHost: a\r\n\r\n",
            b"GET ws://a/ HTTP/1.1\r\nHost: a\r\n\r\n",
            b"GET file:///etc/passwd HTTP/1.1\r\nHost: a\r\n\r\n",
            b"GET http://a, HTTP/1.0\r\n\r\n",
            b"GET http:// HTTP/1.0\r\n\r\n",
        ],
    );
}

#[test]
fn request_lines_that_are_none() {
    refused(
        &Edge::default(),
        400,
        &[
            b"GET / HTTP/1.1\nHost: a\n\n",
            b"GET / HTTP/1.1\r\nHost: a\n\r\n",
            b"GET / HTTP/1.1\r\nHost: a\r\n\n",
            b"GET / HTTP/1.1\nHost: a\r\n\r\n",
            b"\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
            b"\r\n\r\n\r\n\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
            b"\r\n\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
            b"\rGET / HTTP/1.1\r\nHost: a\r\n\r\n",
            b" GET / HTTP/1.1\r\nHost: a\r\n\r\n",
            b"\tGET / HTTP/1.1\r\nHost: a\r\n\r\n",
            b"GET  / HTTP/1.1\r\nHost: a\r\n\r\n",
            b"GET /  HTTP/1.1\r\nHost: a\r\n\r\n",
            b"GET\t/ HTTP/1.1\r\nHost: a\r\n\r\n",
            b"GET / HTTP/1.1 \r\nHost: a\r\n\r\n",
            b"GET /\tHTTP/1.1\r\nHost: a\r\n\r\n",
            b"GET / HTTP/1.1\r\r\nHost: a\r\n\r\n",
            b"GET /\r HTTP/1.1\r\nHost: a\r\n\r\n",
            b"GET /a\rb HTTP/1.1\r\nHost: a\r\n\r\n",
            b"GET /a b HTTP/1.1\r\nHost: a\r\n\r\n",
            b"GET / HTTP/1.1 HTTP/1.1\r\nHost: a\r\n\r\n",
            b"GET /\x00 HTTP/1.1\r\nHost: a\r\n\r\n",
            b"GET /\x01 HTTP/1.1\r\nHost: a\r\n\r\n",
            b"GET /\x7f HTTP/1.1\r\nHost: a\r\n\r\n",
            b"GET /\xc3\xa9 HTTP/1.1\r\nHost: a\r\n\r\n",
            b"GET /\xff HTTP/1.1\r\nHost: a\r\n\r\n",
            b"GET /a#b HTTP/1.1\r\nHost: a\r\n\r\n",
            b"GET /a\\b HTTP/1.1\r\nHost: a\r\n\r\n",
            b"GET a HTTP/1.1\r\nHost: a\r\n\r\n",
            b"GET a:80 HTTP/1.1\r\nHost: a\r\n\r\n",
            b"GET ?a HTTP/1.1\r\nHost: a\r\n\r\n",
            b"GET * HTTP/1.1\r\nHost: a\r\n\r\n",
            b"OPTIONS ** HTTP/1.1\r\nHost: a\r\n\r\n",
            b"OPTIONS *a HTTP/1.1\r\nHost: a\r\n\r\n",
            b"GET /%zz HTTP/1.1\r\nHost: a\r\n\r\n",
            b"GET /%00 HTTP/1.1\r\nHost: a\r\n\r\n",
            b"GET /a%2fb HTTP/1.1\r\nHost: a\r\n\r\n",
            b"GET /a%5Cb HTTP/1.1\r\nHost: a\r\n\r\n",
            b"GET /../a HTTP/1.1\r\nHost: a\r\n\r\n",
            b"GET /..;/a HTTP/1.1\r\nHost: a\r\n\r\n",
            b"GET\r\n",
            b"GET /\r\n",
            b"GET / \r\n",
            b"GET HTTP/1.1\r\nHost: a\r\n\r\n",
            b"/ HTTP/1.1\r\nHost: a\r\n\r\n",
            b"HTTP/1.1 200 OK\r\n\r\n",
            b"GET / http/1.1\r\nHost: a\r\n\r\n",
            b"GET / HTTP/1.1.1\r\nHost: a\r\n\r\n",
            b"GET / HTTP/11\r\nHost: a\r\n\r\n",
            b"GET / HTTP/1\r\nHost: a\r\n\r\n",
            b"GET / HTTP/\r\nHost: a\r\n\r\n",
            b"GET / HTTP 1.1\r\nHost: a\r\n\r\n",
            b"GET / HTTP/1.1x\r\nHost: a\r\n\r\n",
            b"GET / HTTPS/1.1\r\nHost: a\r\n\r\n",
            b"GET / XHTTP/1.1\r\nHost: a\r\n\r\n",
            b"GE(T / HTTP/1.1\r\nHost: a\r\n\r\n",
            b"GE\x00T / HTTP/1.1\r\nHost: a\r\n\r\n",
            b"G\xc3\x89T / HTTP/1.1\r\nHost: a\r\n\r\n",
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
            b"\x80\x2e\x01\x03\x01",
            b"\x00",
            b"{\"a\": 1}",
            b"<policy-file-request/>\x00",
            b"MMMMMMMMMMMMMMMMMMMMMMMMMMMMMMMMM",
            b"MMMMMMMMMMMMMMMMMMMMMMMMMMMMMMMMM / HTTP/1.1\r\nHost: a\r\n\r\n",
        ],
    );
}

#[test]
fn versions_and_methods_that_are_not_spoken() {
    refused(
        &Edge::default(),
        505,
        &[
            b"GET / HTTP/2.0\r\nHost: a\r\n\r\n",
            b"GET / HTTP/1.2\r\nHost: a\r\n\r\n",
            b"GET / HTTP/0.9\r\nHost: a\r\n\r\n",
            b"GET / HTTP/3.0\r\n",
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        ],
    );
    refused(
        &Edge::default(),
        405,
        &[
            b"CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n",
            b"CONNECT a:443 HTTP/1.1\r\n\r\n",
            b"CONNECT / HTTP/1.1\r\nHost: a\r\n\r\n",
            b"connect a:443 HTTP/1.1\r\nHost: a\r\n\r\n",
            b"TRACE / HTTP/1.1\r\nHost: a\r\n\r\n",
            b"Trace / HTTP/1.0\r\n\r\n",
        ],
    );
}

#[test]
fn fields_that_are_none() {
    let bad = |field: &[u8]| [b"GET / HTTP/1.1\r\nHost: a\r\n", field, b"\r\nX: y\r\n\r\n"].concat();
    for field in [
        &b"A : b"[..],
        b"A\t: b",
        b" A: b",
        b"\tA: b",
        b"A: b\r\n c",
        b"A: b\r\n\tc",
        b"A: b\r\n ",
        b"A",
        b": b",
        b":",
        b"A b: c",
        b"A\x00: b",
        b"A\x80: b",
        b"\xc3\xa9: b",
        b"A(: b",
        b"A,: b",
        b"A;: b",
        b"A/: b",
        b"A\"B\": b",
        b"A[0]: b",
        b"{A}: b",
        b"A@: b",
        b"A=B: b",
        b"A?: b",
        b"A\\: b",
        b"A<: b",
        b"A\x7f: b",
        b"A: b\x00",
        b"A: \x00b",
        b"A: b\x01c",
        b"A: b\x08c",
        b"A: b\x0bc",
        b"A: b\x0cc",
        b"A: b\x1bc",
        b"A: b\x1fc",
        b"A: b\x7f",
        b"A: b\rc",
        b"A: b\r\rc",
        b"A: b\r",
        b"A: \r",
        b"A:\r",
        b"A\r: b",
        b"A: b\nc: d",
        b"A: b\n",
        b"A: b\n\n",
        b"\r",
        b"Host: a",
        b"hOsT: a",
        b"Host:",
        b"Content-Length : 3",
        b"Transfer-Encoding : chunked",
        b"Transfer-Encoding\t: chunked",
    ] {
        refused(&Edge::default(), 400, &[&bad(field)]);
    }
    refused(
        &Edge::default(),
        400,
        &[
            b"GET / HTTP/1.1\r\n Host: a\r\n\r\n",
            b"GET / HTTP/1.1\r\n\tHost: a\r\n\r\n",
            b"GET / HTTP/1.1\r\n Host: a\r\nHost: a\r\n\r\n",
        ],
    );
}

#[test]
fn hosts_that_are_none() {
    refused(
        &Edge::default(),
        400,
        &[
            b"GET / HTTP/1.1\r\n\r\n",
            b"GET / HTTP/1.1\r\nX-Host: a\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost:\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: \r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: a, b\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: a b\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: a:80:80\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: a:\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: a:b\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: a:65536\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: u@a\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: a/b\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: http://a\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: a?b\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: a#b\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: \"a\"\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: <a>\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: [::1\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: ::1\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: \xc3\xa9\r\n\r\n",
            b"GET / HTTP/1.0\r\nHost:\r\n\r\n",
            b"GET / HTTP/1.0\r\nHost: a b\r\n\r\n",
            b"GET / HTTP/1.0\r\nHost: a\r\nHost: a\r\n\r\n",
        ],
    );
}

#[test]
fn bodies_end_in_one_place() {
    let head = "POST / HTTP/1.1\nHost: a\n";
    for (fields, expected) in [
        ("", "Content-Length: 0~~"),
        ("Content-Length: 0\n", "Content-Length: 0~~"),
        ("Content-Length: 3\n", "Content-Length: 3~~"),
        ("Content-Length:\t 3 \n", "Content-Length: 3~~"),
        ("Content-Length: 003\n", "Content-Length: 3~~"),
        ("Content-Length: 9223372036854775807\n", "Content-Length: 9223372036854775807~~"),
        ("Transfer-Encoding: chunked\n", "Transfer-Encoding: chunked~~"),
        ("transfer-encoding: CHUNKED \n", "Transfer-Encoding: chunked~~"),
        ("Transfer-Encoding: chunked\nTrailer: A\n", "Trailer: A~Transfer-Encoding: chunked~~"),
        ("Content-Length: 3\nExpect: 100-Continue\n", "Content-Length: 3~~ expects"),
        ("Transfer-Encoding: chunked\nExpect: 100-continue\n", "Transfer-Encoding: chunked~~ expects"),
        ("Expect: 100-continue\n", "Content-Length: 0~~"),
        ("Content-Length: 3\nConnection: close\n", "Content-Length: 3~~ close"),
    ] {
        let (row, expected) = (format!("{head}{fields}\n"), format!("POST / HTTP/1.1~Host: a~{expected}"));
        taken(&Edge::default(), &[(&row, &expected)]);
    }
    for method in ["GET", "HEAD", "DELETE", "OPTIONS"] {
        let row = format!("{method} / HTTP/1.1\nHost: a\nContent-Length: 0\n\n");
        taken(&Edge::default(), &[(&row, &format!("{method} / HTTP/1.1~Host: a~~"))]);
    }
    taken(
        &Edge::default(),
        &[("GET / HTTP/1.1\nHost: a\nContent-Length: 3\n\n", "GET / HTTP/1.1~Host: a~Content-Length: 3~~")],
    );
}

#[test]
fn bodies_that_could_end_in_two_places() {
    for (status, fields) in [
        (400, "Content-Length: 3\nTransfer-Encoding: chunked\n"),
        (400, "Transfer-Encoding: chunked\nContent-Length: 3\n"),
        (400, "Transfer-Encoding: chunked\nContent-Length: 0\n"),
        (400, "Content-Length: 3\nTransfer-Encoding: identity\n"),
        (400, "Content-Length: 3\nTransfer-Encoding:\n"),
        (400, "Content-Length: 3\nContent-Length: 3\n"),
        (400, "Content-Length: 3\nContent-Length: 4\n"),
        (400, "Content-Length: 3\nX: y\ncontent-length: 3\n"),
        (400, "Content-Length: 3, 3\n"),
        (400, "Content-Length: 3,4\n"),
        (400, "Content-Length: 3,\n"),
        (400, "Content-Length: \n"),
        (400, "Content-Length: a\n"),
        (400, "Content-Length: +3\n"),
        (400, "Content-Length: -3\n"),
        (400, "Content-Length: 0x3\n"),
        (400, "Content-Length: 3.0\n"),
        (400, "Content-Length: 3e1\n"),
        (400, "Content-Length: 3 3\n"),
        (400, "Content-Length: 3;\n"),
        (400, "Content-Length: \"3\"\n"),
        (400, "Content-Length: 1_000\n"),
        (400, "Content-Length: \u{ff13}\n"),
        (400, "Content-Length: 18446744073709551616\n"),
        (400, "Content-Length: 18446744073709551615\n"),
        (400, "Content-Length: 00000000000000000003\n"),
        (400, "Transfer-Encoding:\n"),
        (400, "Transfer-Encoding: chunked\nTransfer-Encoding: chunked\n"),
        (400, "Transfer-Encoding: chunked\nTransfer-Encoding: identity\n"),
        (400, "Transfer-Encoding: identity\nTransfer-Encoding: chunked\n"),
        (400, "Transfer-Encoding: chunked, chunked\n"),
        (400, "Transfer-Encoding: chunked, identity\n"),
        (400, "Transfer-Encoding: identity, chunked\n"),
        (400, "Transfer-Encoding: identity\n"),
        (400, "Transfer-Encoding: chunked, gzip\n"),
        (400, "Transfer-Encoding: gzip\n"),
        (400, "Transfer-Encoding: ,chunked\n"),
        (400, "Transfer-Encoding: chunked,\n"),
        (400, "Transfer-Encoding: xchunked\n"),
        (400, "Transfer-Encoding: chunkedx\n"),
        (400, "Transfer-Encoding: chunk\n"),
        (400, "Transfer-Encoding: x chunked\n"),
        (400, "Transfer-Encoding: \"chunked\"\n"),
        (400, "Transfer-Encoding: 'chunked'\n"),
        (400, "Transfer-Encoding: chunked;a=b\n"),
        (400, "Transfer-Encoding: chunked;\n"),
        (400, "Transfer-Encoding: c\u{200b}hunked\n"),
        (400, "Transfer-Encoding: chun\u{212a}ed\n"),
        (501, "Transfer-Encoding: gzip, chunked\n"),
        (501, "Transfer-Encoding: GZIP,Chunked\n"),
        (417, "Content-Length: 3\nExpect: 200-ok\n"),
        (417, "Content-Length: 3\nExpect:\n"),
        (417, "Content-Length: 3\nExpect: 100-continue, 100-continue\n"),
        (417, "Content-Length: 3\nExpect: 100-continue;a=b\n"),
        (400, "Connection: Content-Length\nContent-Length: 3\n"),
        (400, "Connection: close, transfer-encoding\nTransfer-Encoding: chunked\n"),
    ] {
        let row = lines(&format!("POST / HTTP/1.1\nHost: a\n{fields}\n"));
        refused(&Edge::default(), status, &[&row]);
    }
    for coding in
        [&b"\x0bchunked"[..], b"chunked\x0b", b"\x00chunked", b"chunked\x00", b"\xa0chunked", b"chunked\xa0"]
    {
        let row = [b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: ", coding, b"\r\n\r\n"].concat();
        refused(&Edge::default(), 400, &[&row]);
    }
    refused(&Edge::default(), 400, &[&lines("POST / HTTP/1.0\nHost: a\nTransfer-Encoding: chunked\n\n")]);
}

#[test]
fn what_is_of_one_hop_ends_here() {
    for (fields, expected) in [
        ("Connection: keep-alive\nKeep-Alive: timeout=5\nProxy-Connection: a\nX: y\n", "X: y~~"),
        ("Connection: close\n", "~ close"),
        ("Connection: CLOSE\n", "~ close"),
        ("Connection: x, close\nConnection: y\nX: 1\nY: 2\nZ: 3\n", "Z: 3~~ close"),
        ("X-Gone: 1\nConnection: X-gONE\nX-Gone: 2\n", "~"),
        ("Connection:\n", "~"),
        ("Connection: , ,\n", "~"),
        ("Connection: nobody\n", "~"),
        ("Proxy-Authorization: a\nProxy-Authenticate: b\nProxy: c\n", "~"),
        ("TE: gzip\n", "~"),
        ("TE: trailers\nConnection: TE\n", "TE: trailers~~"),
        ("TE: gzip, Trailers\nTE: trailers\n", "TE: trailers~~"),
        ("Upgrade: websocket\nConnection: Upgrade\n", "Connection: Upgrade~Upgrade: websocket~~"),
        ("Upgrade: a/1, b\nConnection: keep-alive, upgrade\n", "Connection: Upgrade~Upgrade: a/1, b~~"),
        ("Upgrade: a\nUpgrade: b\nConnection: upgrade\n", "Connection: Upgrade~Upgrade: a, b~~"),
        ("Upgrade: h2c, a\nConnection: upgrade\n", "Connection: Upgrade~Upgrade: a~~"),
        ("Upgrade: websocket\n", "~"),
        ("Connection: Upgrade\n", "~"),
        ("Upgrade: h2c\nConnection: Upgrade, HTTP2-Settings\nHTTP2-Settings: AAMAAABk\n", "~"),
        ("Upgrade: H2C\nConnection: Upgrade\nHTTP2-Settings: AAMAAABk\n", "~"),
        ("Upgrade: websocket\nConnection: Upgrade\nContent-Length: 3\n", "Content-Length: 3~~"),
        ("Upgrade: a\nConnection: Upgrade\nTransfer-Encoding: chunked\n", "Transfer-Encoding: chunked~~"),
    ] {
        let (row, expected) =
            (format!("GET / HTTP/1.1\nHost: a\n{fields}\n"), format!("GET / HTTP/1.1~Host: a~{expected}"));
        taken(&Edge::default(), &[(&row, &expected)]);
    }
}

#[test]
fn what_no_hop_may_drop_is_not_named() {
    for fields in [
        "Connection: Host\n",
        "Connection: close, hOST\n",
        "Connection: Cookie\nCookie: a\n",
        "Connection: Authorization\n",
        "Connection: X-Forwarded-For\n",
        "Connection: x-forwarded-anything\n",
        "Connection: Forwarded\n",
        "Connection: X-Real-IP\n",
        "Connection: X-Request-Id\n",
        "Connection: Content-Type\n",
        "Connection: Cache-Control\n",
        "Connection: a b\n",
        "Connection: \"close\"\n",
        "Connection: close; a\n",
        "Connection: :path\n",
        "Connection: upgrade\nUpgrade: a b\n",
        "Connection: upgrade\nUpgrade: a/b/c\n",
        "Connection: upgrade\nUpgrade: \u{e9}\n",
    ] {
        refused(&Edge::default(), 400, &[&lines(&format!("GET / HTTP/1.1\nHost: a\n{fields}\n"))]);
    }
    let named =
        |count: usize| lines(&format!("GET / HTTP/1.1\nHost: a\nConnection: {}\n\n", "x,".repeat(count)));
    assert!(sent_on(&named(16), &Edge::default()).is_ok());
    refused(&Edge::default(), 400, &[&named(17)]);
}

#[test]
fn underscores_are_what_the_listener_says() {
    let raw = "GET / HTTP/1.1\nHost: a\nX_User: b\nX-User: c\nContent_Length: 3\n\n";
    let with = |underscores| Edge { underscores, ..Edge::default() };
    taken(&with(Underscores::Drop), &[(raw, "GET / HTTP/1.1~Host: a~X-User: c~~")]);
    let all = "GET / HTTP/1.1~Host: a~X_User: b~X-User: c~Content_Length: 3~~";
    taken(&with(Underscores::Pass), &[(raw, all)]);
    refused(&with(Underscores::Reject), 400, &[&lines(raw)]);
}

#[test]
fn the_listener_says_what_a_path_is() {
    let edge = Edge { escaped_slashes: EscapedSlashes::Pass, merge_slashes: true, ..Edge::default() };
    taken(&edge, &[("GET //b%2fc HTTP/1.1\nHost: a\n\n", "GET /b%2fc HTTP/1.1~Host: a~~")]);
}

#[test]
fn what_is_too_long_is_refused_before_it_has_ended() {
    let edge = Edge { request_line: 20, header_bytes: 30, header_count: 3, ..Edge::default() };
    // 20 bytes of request line, and 21.
    taken(&edge, &[("GET /23456 HTTP/1.1\nHost: a\n\n", "GET /23456 HTTP/1.1~Host: a~~")]);
    taken(&edge, &[("GET /234567 HTTP/1.1\nHost: a\n\n", "GET /234567 HTTP/1.1~Host: a~~")]);
    refused(&edge, 414, &[b"GET /2345678 HTTP/1.1\r\nHost: a\r\n\r\n", b"GET /23456789012345678"]);
    refused(&edge, 0, &[b"GET /2345678901234567", b"GET /234567 HTTP/1.1\r"]);
    // 30 bytes of fields, and 31.
    let head = |value: usize, end: &str| {
        format!("GET / HTTP/1.1\r\nHost: a\r\nA: {}{end}", "x".repeat(value)).into_bytes()
    };
    assert!(sent_on(&head(16, "\r\n\r\n"), &edge).is_ok());
    refused(&edge, 431, &[&head(17, "\r\n\r\n"), &head(20, ""), &head(40, "")]);
    refused(&edge, 0, &[&head(16, ""), &head(16, "\r\n")]);
    // 3 fields, and 4.
    assert!(sent_on(b"GET / HTTP/1.1\r\nHost: a\r\nA:\r\nB:\r\n\r\n", &edge).is_ok());
    refused(
        &edge,
        431,
        &[
            b"GET / HTTP/1.1\r\nHost: a\r\nA:\r\nB:\r\nC:\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: a\r\nA:\r\nB:\r\nC:\r\n",
        ],
    );
    // However many the listener allows.
    let edge = Edge { header_count: 1000, ..Edge::default() };
    let many = |count| lines(&format!("GET / HTTP/1.1\nHost: a\n{}\n", "A: b\n".repeat(count - 1)));
    assert!(sent_on(&many(MOST_FIELDS), &edge).is_ok());
    refused(&edge, 431, &[&many(MOST_FIELDS + 1)]);
}

#[test]
fn what_follows_is_left() {
    let raw = b"\r\nPOST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\n\r\n\r\nGET / HTTP/1.1\r\n\r\n";
    let mut head = RequestHead::default();
    let parsed = request(raw, &Edge::default(), &mut head).unwrap().unwrap();
    assert_eq!((parsed.consumed, parsed.framing), (49, Framing::Length(4)));
    assert!(!parsed.close);
}
