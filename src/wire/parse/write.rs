//! Writing heads.

use bytes::{BufMut, BytesMut};
use http::{Method, StatusCode};

use super::Framing;
use super::control::Kind;
use crate::wire::{Fields, RequestHead, ResponseHead};

/// Room for what a head has besides its fields and what is asked for, as a rule.
const REST: usize = 128;

/// Writes the head of a request as HTTP/1.1, with `framing` (never [`Framing::UntilClose`]).
pub fn write_request(head: &RequestHead, framing: Framing, out: &mut BytesMut) {
    out.reserve(head.method.as_str().len() + head.target.len() + head.fields.written() + REST);
    out.put_slice(head.method.as_str().as_bytes());
    out.put_u8(b' ');
    out.put_slice(head.target.as_bytes());
    out.put_slice(b" HTTP/1.1\r\n");
    if head.fields.get("Host").is_none() {
        // HTTP/1.1 has one always, an empty one where nobody is known (RFC 9112 §3.2).
        field("Host", &head.authority, out);
    }
    write_fields(&head.fields, Kind::Other, out);
    match framing {
        Framing::Length(length) => write_length(length, out),
        Framing::Chunked => field("Transfer-Encoding", "chunked", out),
        // Said where a body could be, so that nobody waits for one (RFC 9110 §8.6).
        Framing::None if [Method::POST, Method::PUT, Method::PATCH].contains(&head.method) => {
            write_length(0, out);
        }
        Framing::None | Framing::UntilClose => {}
    }
    write_upgrade(&head.upgrade, out);
    out.put_slice(b"\r\n");
}

/// Writes the head of an answer as HTTP/1.1, with `framing`; `close` adds `Connection: close`.
///
/// [`Framing::None`] says that the body has no bytes, where one could be and no `Content-Length` is among the fields.
/// [`Framing::UntilClose`] says nothing, which is right for an answer to HEAD of unknown length, too.
pub fn write_response(head: &ResponseHead, framing: Framing, close: bool, out: &mut BytesMut) {
    out.reserve(head.fields.written() + REST);
    if head.status == StatusCode::OK {
        // Most are.
        out.put_slice(b"HTTP/1.1 200 OK\r\n");
    } else {
        out.put_slice(b"HTTP/1.1 ");
        out.put_slice(head.status.as_str().as_bytes());
        out.put_u8(b' ');
        out.put_slice(head.status.canonical_reason().unwrap_or_default().as_bytes());
        out.put_slice(b"\r\n");
    }
    let bodiless = head.status.is_informational()
        || matches!(head.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
    let keeps = if framing == Framing::None { Kind::ContentLength } else { Kind::Other };
    write_fields(&head.fields, keeps, out);
    match framing {
        Framing::Length(length) => write_length(length, out),
        Framing::Chunked => field("Transfer-Encoding", "chunked", out),
        Framing::None if !bodiless && head.fields.get("Content-Length").is_none() => write_length(0, out),
        Framing::None | Framing::UntilClose => {}
    }
    if head.status == StatusCode::SWITCHING_PROTOCOLS {
        write_upgrade(&head.upgrade, out);
    } else if close {
        field("Connection", "close", out);
    }
    out.put_slice(b"\r\n");
}

/// The fields, less those that say how the message is carried on this hop, which are written from what is known of that:
/// there is never a second opinion in one head, whoever put the fields together. Those of the kind `keeps` stay.
fn write_fields(fields: &Fields, keeps: Kind, out: &mut BytesMut) {
    let stays = |name: &[u8]| {
        let kind = Kind::of(name);
        let framing =
            matches!(kind, Kind::Connection | Kind::ContentLength | Kind::TransferEncoding | Kind::Upgrade);
        !framing || kind == keeps
    };
    fields.write_those(stays, out);
}

fn write_upgrade(protocol: &str, out: &mut BytesMut) {
    if !protocol.is_empty() {
        field("Connection", "Upgrade", out);
        field("Upgrade", protocol, out);
    }
}

fn write_length(length: u64, out: &mut BytesMut) {
    out.put_slice(b"Content-Length: ");
    out.put_slice(itoa::Buffer::new().format(length).as_bytes());
    out.put_slice(b"\r\n");
}

fn field(name: impl AsRef<[u8]>, value: impl AsRef<[u8]>, out: &mut BytesMut) {
    out.put_slice(name.as_ref());
    out.put_slice(b": ");
    out.put_slice(value.as_ref());
    out.put_slice(b"\r\n");
}
