//! Requests, byte by byte.

use bytes::BytesMut;

use super::*;
use crate::model::Edge;
use crate::wire::RequestHead;

/// What is sent on for `raw`, or the status it is refused with.
fn sent_on(raw: &[u8], edge: &Edge) -> Result<String, u16> {
    let mut head = RequestHead::default();
    match request(raw, edge, &mut head) {
        Ok(Some(parsed)) => {
            let mut out = BytesMut::new();
            write_request(&head, parsed.framing, &mut out);
            Ok(String::from_utf8_lossy(&out).into_owned())
        }
        Ok(None) => Err(0),
        Err(refused) => Err(refused.status),
    }
}

#[test]
fn a_browsers_request_is_taken() {
    let raw = b"GET /a/../b?c=%zz HTTP/1.1\r\nHost: example.com\r\nX-A:  b \r\nConnection: keep-alive, x-b\r\nX-B: 1\r\n\r\n";
    assert_eq!(
        sent_on(raw, &Edge::default()).unwrap(),
        "GET /b?c=%zz HTTP/1.1\r\nHost: example.com\r\nX-A: b\r\n\r\n"
    );
}

#[test]
fn a_head_that_is_not_whole_is_waited_for() {
    let raw = b"\r\nPOST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc";
    for end in 0..raw.len() - 3 {
        assert_eq!(sent_on(&raw[..end], &Edge::default()), Err(0), "{end}");
    }
    assert_eq!(
        sent_on(raw, &Edge::default()).unwrap(),
        "POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\n"
    );
}
