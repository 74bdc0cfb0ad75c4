//! Tests of what is said of refused requests.

use super::super::request;
use super::*;

/// Method, host and target, of bytes that are no request, or not a whole one.
#[track_caller]
fn seen(bytes: &[u8], edge: &Edge) -> String {
    let mut head = RequestHead::default();
    let text = String::from_utf8_lossy(bytes);
    assert!(!matches!(request(bytes, edge, &mut head), Ok(Some(_))), "it is a request: {text}");
    let seen = glimpse(bytes, edge);
    format!("{} {} {}", seen.method.as_ref().map_or("", Method::as_str), seen.authority, seen.target)
}

#[test]
fn what_was_read_is_told_as_far_as_it_is_whole_and_valid() {
    let edge = Edge::default();
    for (request, expected) in [
        // Refused for something else.
        ("GET /a/../b?c=d HTTP/1.1\nHost: shop\nHost : x\n\n", "GET shop /b?c=d"),
        ("POST /a HTTP/1.1\nHost: shop:80\nContent-Length: 1\nContent-Length: 2\n\n", "POST shop:80 /a"),
        ("POST /a HTTP/1.1\nContent-Length: x\nHOST:shop\n\n", "POST shop /a"),
        ("\nGET /a HTTP/2.0\nHost: shop\n\n", "GET shop /a"),
        ("TRACE /a HTTP/1.1\nHost: shop\n\n", "TRACE shop /a"),
        ("CONNECT shop:443 HTTP/1.1\nHost: shop:443\n\n", "CONNECT shop:443 "),
        ("GET http://shop/a HTTP/1.1\nHost: shop\nX: \0\n\n", "GET shop /a"),
        // A head that has not come whole.
        ("GET /a HTTP/1.1\nHost: shop\nX-A: ", "GET shop /a"),
        ("GET /a HTTP/1.1\nHost: sho", "GET  /a"),
        ("GET /a HTTP/1.1\n", "GET  /a"),
        ("GET /a HTTP/1.", "GET  "),
        ("GET ", "GET  "),
        ("GET", "  "),
        ("", "  "),
        // What is not valid, or means two things, is not told.
        ("GET /%zz HTTP/1.1\nHost: shop\n\n", "GET shop "),
        ("GET /a b HTTP/1.1\nHost: shop\n\n", "GET shop "),
        ("GET /\u{1b}[2J HTTP/1.1\nHost: shop\n\n", "GET shop "),
        ("GET /é HTTP/1.1\nHost: shop\n\n", "GET shop "),
        ("GET /a HTTP/1.1\nHost: shop\nHost: other\n\n", "GET  /a"),
        ("GET /a HTTP/1.1\nHost: shop\n folded\n\n", "GET  /a"),
        ("GET /a HTTP/1.1\nHost: shop<script>\n\n", "GET  /a"),
        ("GET http://shop/a HTTP/1.1\nHost: other\n\n", "GET other "),
        ("GET /a\nHost: shop\n\n", "  "),
        ("G\u{1b}T /a HTTP/1.1\nHost: shop\n\n", "  "),
        ("\u{16}\u{3}\u{1}\0\u{5}hello", "  "),
    ] {
        let bytes = request.replace('\n', "\r\n");
        assert_eq!(seen(bytes.as_bytes(), &edge), expected, "{request:?}");
    }
    assert_eq!(seen(b"GET /a HTTP/1.1\r\nHost: shop\n\r\n", &edge), "GET  /a", "a bare LF ends no line");
}

#[test]
fn what_is_over_a_limit_is_not_told_and_the_rest_is() {
    let edge = Edge { request_line: 100, header_bytes: 200, ..Edge::default() };
    let long = "x".repeat(300);
    assert_eq!(seen(format!("GET /{long} HTTP/1.1\r\nHost: shop\r\n\r\n").as_bytes(), &edge), "GET  ");
    let method = format!("{} / HTTP/1.1\r\nHost: shop\r\n\r\n", "M".repeat(40));
    assert_eq!(seen(method.as_bytes(), &edge), "  ");
    let late = format!("GET / HTTP/1.1\r\nX: {long}\r\nHost: shop\r\n\r\n");
    assert_eq!(seen(late.as_bytes(), &edge), "GET  /");
    let early = format!("GET / HTTP/1.1\r\nHost: shop\r\nX: {long}\r\n\r\n");
    assert_eq!(seen(early.as_bytes(), &edge), "GET shop /");
}
