//! Hostile clients in raw frames: each is refused, cut, or costs no more than a bound, and never hangs.

use std::future::poll_fn;
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncWriteExt as _, DuplexStream};

use super::frames_tests::*;
use crate::model::Edge;
use crate::wire::{Downstream as _, Length};

const ENHANCE_YOUR_CALM: u32 = 11;

/// Writes in the background until the other side closes, reading nothing itself.
fn flood(bytes: Vec<u8>, times: usize, io: DuplexStream) -> tokio::task::JoinHandle<()> {
    let (mut read, mut write) = tokio::io::split(io);
    // What comes is thrown away, so that the flood goes on.
    tokio::spawn(async move { tokio::io::copy(&mut read, &mut tokio::io::sink()).await });
    tokio::spawn(async move {
        for _ in 0..times {
            if write.write_all(&bytes).await.is_err() {
                return;
            }
        }
        // Stays open: it is the server that has to end it.
        std::future::pending::<()>().await;
    })
}

/// CVE-2023-44487: streams opened and reset at once, faster than they are accepted.
#[tokio::test]
async fn a_rapid_reset_ends_the_connection() {
    let (mut io, server) = served(Edge::default(), 1 << 20);
    begin(&mut io).await;
    let mut bytes = Vec::new();
    for stream in (1..2000).step_by(2) {
        bytes.extend(frame(HEADERS, END_HEADERS | END_STREAM, stream, &asking("GET", "/", &[])));
        bytes.extend(frame(RST_STREAM, 0, stream, &[0, 0, 0, 8]));
    }
    io.write_all(&bytes).await.unwrap();
    assert_eq!(next_of(&mut io, GOAWAY).await.unwrap().code(), ENHANCE_YOUR_CALM);
    server.over().await;
}

/// The same, slowly enough that each request is under way when it is reset.
#[tokio::test]
async fn a_patient_reset_ends_the_connection_and_bounds_the_work() {
    let (mut io, mut server) = served(Edge { streams: 8, ..Edge::default() }, 1 << 20);
    begin(&mut io).await;
    let mut requests = 0;
    for stream in (1..2000).step_by(2) {
        let sent =
            io.write_all(&frame(HEADERS, END_HEADERS | END_STREAM, stream, &asking("GET", "/", &[]))).await;
        if sent.is_err() {
            break;
        }
        let Ok(Some((_, mut exchange))) = tokio::time::timeout(DEADLINE, server.asked.recv()).await else {
            break;
        };
        requests += 1;
        if io.write_all(&frame(RST_STREAM, 0, stream, &[0, 0, 0, 8])).await.is_err() {
            break;
        }
        tokio::time::timeout(DEADLINE, poll_fn(|cx| exchange.poll_gone(cx))).await.expect("noticed in time");
    }
    assert!((200..300).contains(&requests), "{requests}");
    server.over().await;
}

/// Requests that are reset while the work for them goes on do not make room for further work.
#[tokio::test]
async fn work_is_bounded_however_fast_streams_are_reset() {
    let (mut io, end) = tokio::io::duplex(1 << 20);
    let working = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let count = working.clone();
    let (begun, mut begins) = tokio::sync::mpsc::unbounded_channel();
    let task = tokio::spawn(async move {
        let edge = Edge { streams: 4, ..Edge::default() };
        // A handler that does not notice.
        let handle = move |_, exchange| {
            count.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
            let _ = begun.send(());
            async move {
                let _exchange = exchange;
                std::future::pending::<()>().await;
            }
        };
        super::serve(end, &edge, std::future::pending(), each(handle)).await;
    });
    begin(&mut io).await;
    let ask = |stream| frame(HEADERS, END_HEADERS | END_STREAM, stream, &asking("GET", "/", &[]));
    for stream in [1, 3, 5, 7] {
        io.write_all(&ask(stream)).await.unwrap();
        begins.recv().await.unwrap();
        io.write_all(&frame(RST_STREAM, 0, stream, &[0, 0, 0, 8])).await.unwrap();
    }
    // Each is there, and could have been taken, before it is reset.
    let mut goaway = None;
    for stream in (9..200).step_by(2) {
        io.write_all(&[ask(stream), frame(PING, 0, 0, &[0; 8])].concat()).await.unwrap();
        let came = loop {
            let came = next(&mut io).await.unwrap();
            if matches!(came.kind, PING | GOAWAY) {
                break came;
            }
        };
        if came.kind == GOAWAY {
            goaway = Some(came.code());
            break;
        }
        io.write_all(&frame(RST_STREAM, 0, stream, &[0, 0, 0, 8])).await.unwrap();
    }
    assert_eq!(goaway, Some(ENHANCE_YOUR_CALM));
    assert_eq!(working.load(std::sync::atomic::Ordering::SeqCst), 4);
    task.abort();
}

/// CVE-2024-27316: header blocks without an end.
#[tokio::test]
async fn a_continuation_flood_ends_the_connection() {
    for part in [vec![], block(&[("x-a", "1")]), block(&[("x-long", &"a".repeat(10_000))])] {
        let (mut io, server) = served(Edge::default(), 1 << 16);
        begin(&mut io).await;
        io.write_all(&frame(HEADERS, END_STREAM, 1, &asking("GET", "/", &[]))).await.unwrap();
        let flood = flood(frame(CONTINUATION, 0, 1, &part), 1_000_000, io);
        server.over().await;
        flood.abort();
    }
}

/// DATA frames that say nothing, or next to nothing.
#[tokio::test]
async fn a_flood_of_small_data_frames_ends_the_connection() {
    for payload in [&b""[..], b"x"] {
        let (mut io, mut server) = served(Edge::default(), 1 << 16);
        begin(&mut io).await;
        io.write_all(&frame(HEADERS, END_HEADERS, 1, &asking("POST", "/", &[]))).await.unwrap();
        let (_, length, _exchange) = server.request().await;
        assert_eq!(length, Length::Unknown);
        let flood = flood(frame(DATA, 0, 1, payload), 1_000_000, io);
        server.over().await;
        flood.abort();
    }
}

/// Frames that want an answer, from a client that takes none.
#[tokio::test]
async fn floods_of_questions_end_when_answers_are_not_taken() {
    for question in [frame(SETTINGS, 0, 0, &[]), frame(PING, 0, 0, &[0; 8])] {
        let edge = Edge { write_timeout: Duration::from_millis(100), ..Edge::default() };
        let (mut io, server) = served(edge, 1 << 12);
        begin(&mut io).await;
        let writing = tokio::spawn(async move { while io.write_all(&question).await.is_ok() {} });
        server.over().await;
        writing.await.unwrap();
    }
}

#[tokio::test]
async fn heads_beyond_the_limits_are_answered_or_end_the_connection() {
    // Over `h2`'s limit of a list: it answers by itself. The request is never seen.
    let edge = Edge { header_bytes: 4096, request_line: 1024, header_count: 16, ..Edge::default() };
    let (mut io, mut server) = served(edge.clone(), 1 << 16);
    begin(&mut io).await;
    let block = asking("GET", "/", &[("x-long", &"a".repeat(8192))]);
    io.write_all(&frame(HEADERS, END_HEADERS | END_STREAM, 1, &block)).await.unwrap();
    let answer = next_of(&mut io, HEADERS).await.unwrap();
    // `:status: 431` as a literal: the code is in it as text or in Huffman's code, and the answer ends the stream.
    assert_eq!((answer.stream, answer.flags & END_STREAM), (1, END_STREAM));
    io.write_all(&frame(HEADERS, END_HEADERS | END_STREAM, 3, &asking("GET", "/next", &[]))).await.unwrap();
    assert_eq!(server.request().await.0.target, "/next");

    // An HPACK bomb: one large field in the table, named thousands of times.
    let (mut io, server) = served(edge, 1 << 16);
    begin(&mut io).await;
    let mut bomb = asking("GET", "/", &[]);
    bomb.extend([0x40, 1, b'x', 127, 0x80 | (3000 - 127) as u8 & 0x7f, ((3000 - 127) >> 7) as u8]);
    bomb.extend([b'a'; 3000]);
    bomb.extend([0x80 | 62; 8000]);
    io.write_all(&frame(HEADERS, END_HEADERS | END_STREAM, 1, &bomb)).await.unwrap();
    assert_eq!(next_of(&mut io, GOAWAY).await.unwrap().code(), ENHANCE_YOUR_CALM);
    server.over().await;
}

#[tokio::test]
async fn windows_that_overflow_end_the_stream_or_the_connection() {
    const FLOW_CONTROL_ERROR: u32 = 3;
    let most = 0x7fff_ffff_u32.to_be_bytes();
    let (mut io, mut server) = served(Edge::default(), 1 << 16);
    begin(&mut io).await;
    io.write_all(&frame(HEADERS, END_HEADERS | END_STREAM, 1, &asking("GET", "/", &[]))).await.unwrap();
    let (_, _, mut exchange) = server.request().await;
    exchange.start(&answer(200, &[]), Length::Unknown);
    exchange.data(Bytes::from(vec![0; 100_000]));
    io.write_all(&frame(WINDOW_UPDATE, 0, 1, &most)).await.unwrap();
    io.write_all(&frame(WINDOW_UPDATE, 0, 1, &most)).await.unwrap();
    assert_eq!(next_of(&mut io, RST_STREAM).await.unwrap().code(), FLOW_CONTROL_ERROR);
    assert!(poll_fn(|cx| exchange.poll_flush(cx)).await.is_err());
    drop(exchange);
    io.write_all(&frame(WINDOW_UPDATE, 0, 0, &most)).await.unwrap();
    assert_eq!(next_of(&mut io, GOAWAY).await.unwrap().code(), FLOW_CONTROL_ERROR);
    server.over().await;
}

/// More than the windows allow, and more streams than allowed.
#[tokio::test]
async fn what_is_over_a_limit_that_was_told_is_refused() {
    let (mut io, mut server) = served(Edge { streams: 2, ..Edge::default() }, 1 << 16);
    begin(&mut io).await;
    for stream in [1, 3, 5] {
        io.write_all(&frame(HEADERS, END_HEADERS, stream, &asking("POST", "/", &[]))).await.unwrap();
    }
    let (_, _, _one) = server.request().await;
    let (_, _, _two) = server.request().await;
    let refused = next_of(&mut io, RST_STREAM).await.unwrap();
    assert_eq!((refused.stream, refused.code()), (5, 7));
    // The window of a stream is 256 KiB, of which nothing was taken.
    for _ in 0..17 {
        io.write_all(&frame(DATA, 0, 1, &[0; 16_384])).await.unwrap();
    }
    let refused = next_of(&mut io, RST_STREAM).await.unwrap();
    assert_eq!((refused.stream, refused.code()), (1, 3));
}

/// Frames where they do not belong, and bytes that are none: each ends the connection (RFC 9113 §5, §6).
#[tokio::test]
async fn frames_out_of_place_end_the_connection() {
    let open = frame(HEADERS, END_HEADERS, 1, &asking("POST", "/", &[]));
    for bytes in [
        frame(DATA, 0, 1, b"idle"),
        frame(DATA, 0, 0, b"zero"),
        frame(HEADERS, END_HEADERS | END_STREAM, 2, &asking("GET", "/", &[])),
        frame(HEADERS, END_HEADERS | END_STREAM, 1, &[0xff; 16]),
        frame(CONTINUATION, END_HEADERS, 1, &[]),
        frame(RST_STREAM, 0, 1, &[0; 4]),
        frame(SETTINGS, 0, 1, &[]),
        frame(SETTINGS, 0, 0, &[0; 5]),
        frame(SETTINGS, 0, 0, &[0, 4, 0x80, 0, 0, 0]),
        frame(PING, 0, 0, &[0; 7]),
        frame(WINDOW_UPDATE, 0, 0, &[0; 4]),
        frame(5, END_HEADERS, 1, &[0; 4]),
        [0xff; 64].to_vec(),
        [open.clone(), frame(DATA, 8, 1, &[9, 0])].concat(),
        [open, frame(PING, 0, 1, &[0; 8])].concat(),
    ] {
        let (mut io, server) = served(Edge::default(), 1 << 16);
        begin(&mut io).await;
        io.write_all(&bytes).await.unwrap();
        let goaway = next_of(&mut io, GOAWAY).await;
        assert!(goaway.is_some_and(|goaway| goaway.code() != 0), "{bytes:?}");
        server.over().await;
    }
}
