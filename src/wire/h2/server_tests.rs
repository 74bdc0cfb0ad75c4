//! Tests of connections of clients: against `h2`'s client, hyper's, and raw frames.

use std::future::poll_fn;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request};
use tokio::io::{AsyncWriteExt as _, DuplexStream};

use super::super::frames_tests::*;
use super::*;
use crate::wire::{ClientError, Downstream as _, Fields, Piece, ResponseHead, Version};

type Client = h2::client::SendRequest<Bytes>;

/// A client of the `h2` crate.
async fn client(io: DuplexStream) -> Client {
    let (client, connection) = h2::client::handshake(io).await.unwrap();
    tokio::spawn(connection);
    client
}

fn get(path: &str) -> Request<()> {
    Request::get(format!("http://a.example{path}")).body(()).unwrap()
}

fn post(path: &str) -> Request<()> {
    Request::post(format!("http://a.example{path}")).body(()).unwrap()
}

async fn piece(exchange: &mut H2Exchange) -> Result<Option<Piece>, ClientError> {
    tokio::time::timeout(DEADLINE, poll_fn(|cx| exchange.poll_body(cx))).await.expect("a piece in time")
}

async fn flush(exchange: &mut H2Exchange) -> Result<(), ClientError> {
    tokio::time::timeout(DEADLINE, poll_fn(|cx| exchange.poll_flush(cx))).await.expect("a flush in time")
}

/// All that is left of an answer's body.
async fn rest(body: &mut RecvStream) -> Result<Vec<u8>, h2::Error> {
    let mut all = Vec::new();
    while let Some(data) = tokio::time::timeout(DEADLINE, body.data()).await.expect("data in time") {
        let data = data?;
        body.flow_control().release_capacity(data.len())?;
        all.extend_from_slice(&data);
    }
    Ok(all)
}

#[tokio::test]
async fn a_client_that_waits_is_asked_for_its_body_when_it_is_wanted() {
    let (io, mut server) = served(Edge::default(), 4096);
    let mut client = client(io).await;
    let mut request = post("/");
    request.headers_mut().insert("expect", "100-continue".parse().unwrap());
    let (mut response, mut body) = client.send_request(request, false).unwrap();
    let (head, length, mut exchange) = server.request().await;
    assert_eq!((head.expects_continue, head.fields.get("expect"), length), (true, None, Length::Unknown));
    // A pod's word for it is not this one's.
    exchange.interim(&answer(100, &[("x-from", "pod")]));
    let reading = tokio::spawn(async move {
        let piece = piece(&mut exchange).await;
        (piece, exchange)
    });
    let asked = poll_fn(|cx| response.poll_informational(cx)).await.unwrap().unwrap();
    assert_eq!((asked.status().as_u16(), asked.headers().len()), (100, 0));
    body.send_data(Bytes::from_static(b"hello"), true).unwrap();
    let (piece, mut exchange) = reading.await.unwrap();
    assert!(matches!(piece, Ok(Some(Piece::Data(data))) if data == "hello"));
    exchange.start(&answer(204, &[]), Length::None);
    flush(&mut exchange).await.unwrap();
    assert!(poll_fn(|cx| response.poll_informational(cx)).await.is_none(), "it is asked for once");
    assert_eq!(response.await.unwrap().status(), 204);
}

#[tokio::test]
async fn a_request_is_what_it_was_and_its_answer_too() {
    let (io, mut server) = served(Edge::default(), 4096);
    let mut client = client(io).await;
    let mut request = get("/a/../b?c");
    for (name, value) in
        [("cookie", "a=1"), ("x-one", "1"), ("cookie", "b=2"), ("x_two", "2"), ("te", "trailers")]
    {
        request.headers_mut().append(name, value.parse().unwrap());
    }
    let (response, _) = client.send_request(request, true).unwrap();
    let (head, length, mut exchange) = server.request().await;
    assert_eq!((head.target.as_str(), head.authority.as_str(), length), ("/b?c", "a.example", Length::None));
    let fields: Vec<_> = head.fields.iter().map(|(n, v)| [n, b": ", v].concat()).collect();
    let fields: Vec<_> = fields.iter().map(|field| std::str::from_utf8(field).unwrap()).collect();
    assert_eq!(fields, ["host: a.example", "x-one: 1", "te: trailers", "cookie: a=1; b=2"]);
    assert!(matches!(piece(&mut exchange).await, Ok(None)));

    exchange.interim(&answer(103, &[("link", "</s.css>")]));
    exchange
        .start(&answer(200, &[("X-Two", "2"), ("Connection", "x"), ("Keep-Alive", "y")]), Length::Exactly(5));
    exchange.data(Bytes::from_static(b"hello"));
    exchange.end(None);
    flush(&mut exchange).await.unwrap();
    drop(exchange);
    let mut response = response;
    let interim = poll_fn(|cx| response.poll_informational(cx)).await.unwrap().unwrap();
    assert_eq!((interim.status().as_u16(), &interim.headers()["link"]), (103, &"</s.css>".parse().unwrap()));
    let (parts, mut body) = response.await.unwrap().into_parts();
    assert_eq!((parts.status.as_u16(), parts.headers.len()), (200, 2));
    assert_eq!(
        (&parts.headers["x-two"], &parts.headers["content-length"]),
        (&"2".parse().unwrap(), &"5".parse().unwrap())
    );
    assert_eq!(rest(&mut body).await.unwrap(), b"hello");
}

#[tokio::test]
async fn trailers_pass_both_ways() {
    let (io, mut server) = served(Edge::default(), 4096);
    let mut client = client(io).await;
    let (response, mut sending) = client.send_request(post("/"), false).unwrap();
    sending.send_data(Bytes::from_static(b"abc"), false).unwrap();
    let mut trailers = HeaderMap::new();
    trailers.insert("x-sum", "7".parse().unwrap());
    trailers.insert("content-length", "7".parse().unwrap());
    sending.send_trailers(trailers).unwrap();
    let (_, length, mut exchange) = server.request().await;
    assert_eq!(length, Length::Unknown);
    assert!(matches!(piece(&mut exchange).await, Ok(Some(Piece::Data(data))) if data == "abc"));
    let Ok(Some(Piece::Trailers(fields))) = piece(&mut exchange).await else { panic!("no trailers") };
    assert_eq!((fields.get("x-sum"), fields.len()), (Some(&b"7"[..]), 1));
    assert!(matches!(piece(&mut exchange).await, Ok(None)));

    exchange.start(&answer(200, &[]), Length::Unknown);
    let mut fields = Fields::default();
    fields.append("grpc-status", "0");
    exchange.end(Some(&fields));
    flush(&mut exchange).await.unwrap();
    let mut body = response.await.unwrap().into_body();
    assert_eq!(rest(&mut body).await.unwrap(), b"");
    assert_eq!(body.trailers().await.unwrap().unwrap()["grpc-status"], "0");
}

/// Many clients end a stream without content by an empty DATA frame.
#[tokio::test]
async fn an_empty_last_frame_is_no_body() {
    let (mut io, mut server) = served(Edge::default(), 4096);
    begin(&mut io).await;
    let mut bytes = frame(HEADERS, END_HEADERS, 1, &asking("POST", "/", &[]));
    bytes.extend(frame(DATA, 0, 1, &[]));
    bytes.extend(frame(DATA, END_STREAM, 1, &[]));
    bytes.extend(frame(HEADERS, END_HEADERS, 3, &asking("POST", "/", &[])));
    bytes.extend(frame(DATA, 0, 3, b"x"));
    bytes.extend(frame(DATA, 0, 3, &[]));
    bytes.extend(frame(DATA, END_STREAM, 3, &[]));
    io.write_all(&bytes).await.unwrap();
    let (_, length, mut exchange) = server.request().await;
    assert_eq!(length, Length::None);
    assert!(matches!(piece(&mut exchange).await, Ok(None)));
    let (_, length, mut exchange) = server.request().await;
    assert_eq!(length, Length::Unknown);
    assert!(matches!(piece(&mut exchange).await, Ok(Some(Piece::Data(data))) if data == "x"));
    assert!(matches!(piece(&mut exchange).await, Ok(None)));
}

/// What the client may send ahead, and what is kept for a client that does not read, is bounded.
#[tokio::test]
async fn large_bodies_pass_in_bounded_memory() {
    const LENGTH: usize = 10 << 20;
    let (io, mut server) = served(Edge::default(), 64 * 1024);
    let mut client = client(io).await;
    let (response, mut sending) = client.send_request(post("/"), false).unwrap();
    let upload = tokio::spawn(async move {
        let mut sent = 0;
        while sent < LENGTH {
            sending.reserve_capacity(LENGTH - sent);
            let room = poll_fn(|cx| sending.poll_capacity(cx)).await.unwrap().unwrap();
            sending.send_data(Bytes::from(vec![7; room]), false).unwrap();
            sent += room;
        }
        sending.send_data(Bytes::new(), true).unwrap();
    });
    let (_, _, mut exchange) = server.request().await;
    let (mut taken, mut most) = (0, 0);
    while let Ok(Some(Piece::Data(data))) = piece(&mut exchange).await {
        taken += data.len();
        most = most.max(data.len());
    }
    assert_eq!(taken, LENGTH);
    assert!(most <= STREAM_WINDOW as usize);
    upload.await.unwrap();

    exchange.start(&answer(200, &[]), Length::Exactly(LENGTH as u64));
    let mut body = response.await.unwrap().into_body();
    let mut sent = 0;
    // The client takes nothing: there is room for so much, and no more.
    while poll_fn(|cx| Poll::Ready(exchange.poll_room(cx))).await.is_ready() {
        exchange.data(Bytes::from(vec![8; 16 * 1024]));
        sent += 16 * 1024;
        tokio::task::yield_now().await;
        assert!(sent < 1 << 20, "room without end");
    }
    let download = tokio::spawn(async move { rest(&mut body).await.unwrap().len() });
    while sent < LENGTH {
        poll_fn(|cx| exchange.poll_room(cx)).await.unwrap();
        exchange.data(Bytes::from(vec![8; 16 * 1024]));
        sent += 16 * 1024;
    }
    exchange.end(None);
    flush(&mut exchange).await.unwrap();
    assert_eq!(download.await.unwrap(), LENGTH);
}

#[tokio::test]
async fn a_cut_answer_is_never_taken_for_a_whole_one() {
    let (io, mut server) = served(Edge::default(), 4096);
    let mut client = client(io).await;
    let (response, _) = client.send_request(get("/"), true).unwrap();
    let (_, _, mut exchange) = server.request().await;
    exchange.start(&answer(200, &[]), Length::Unknown);
    exchange.data(Bytes::from_static(b"half"));
    flush(&mut exchange).await.unwrap();
    drop(exchange);
    let mut body = response.await.unwrap().into_body();
    let error = rest(&mut body).await.unwrap_err();
    assert_eq!(error.reason(), Some(Reason::INTERNAL_ERROR));

    let (response, _) = client.send_request(get("/"), true).unwrap();
    drop(server.request().await);
    assert_eq!(response.await.unwrap_err().reason(), Some(Reason::INTERNAL_ERROR));
}

/// RFC 9113 §8.1.
#[tokio::test]
async fn an_early_answer_stops_the_upload() {
    let (io, mut server) = served(Edge::default(), 4096);
    let mut client = client(io).await;
    let (response, mut sending) = client.send_request(post("/"), false).unwrap();
    let (_, _, mut exchange) = server.request().await;
    exchange.start(&answer(413, &[]), Length::Exactly(3));
    exchange.data(Bytes::from_static(b"big"));
    exchange.end(None);
    flush(&mut exchange).await.unwrap();
    drop(exchange);
    let mut body = response.await.unwrap().into_body();
    assert_eq!(rest(&mut body).await.unwrap(), b"big");
    assert_eq!(poll_fn(|cx| sending.poll_reset(cx)).await.unwrap(), Reason::NO_ERROR);
}

#[tokio::test]
async fn a_client_that_leaves_is_noticed() {
    let (io, mut server) = served(Edge::default(), 4096);
    let mut client = client(io).await;
    let (_response, mut sending) = client.send_request(get("/"), true).unwrap();
    let (_, _, mut exchange) = server.request().await;
    sending.send_reset(Reason::CANCEL);
    tokio::time::timeout(DEADLINE, poll_fn(|cx| exchange.poll_gone(cx))).await.expect("noticed in time");

    let (_response, mut sending) = client.send_request(post("/"), false).unwrap();
    let (_, _, mut exchange) = server.request().await;
    sending.send_reset(Reason::CANCEL);
    assert!(matches!(piece(&mut exchange).await, Err(ClientError::Gone)));

    // Inside the answer, which it does not read.
    let (response, mut sending) = client.send_request(get("/"), true).unwrap();
    let (_, _, mut exchange) = server.request().await;
    exchange.start(&answer(200, &[]), Length::Unknown);
    exchange.data(Bytes::from(vec![0; 1 << 20]));
    let _unread = response.await.unwrap();
    sending.send_reset(Reason::CANCEL);
    assert!(matches!(flush(&mut exchange).await, Err(ClientError::Gone)));
}

#[tokio::test]
async fn a_body_of_another_length_is_refused() {
    let (io, mut server) = served(Edge::default(), 4096);
    let mut client = client(io).await;
    let mut request = post("/");
    request.headers_mut().insert("content-length", "5".parse().unwrap());
    let (_response, mut sending) = client.send_request(request, false).unwrap();
    let (_, length, mut exchange) = server.request().await;
    assert_eq!(length, Length::Exactly(5));
    sending.send_data(Bytes::from_static(b"abc"), true).unwrap();
    assert!(matches!(piece(&mut exchange).await, Err(ClientError::Refused(_))));
}

#[tokio::test]
async fn what_is_refused_is_given_to_the_handler() {
    let edge = Edge { header_count: 8, header_bytes: 2048, request_line: 256, ..Edge::default() };
    let (mut io, mut server) = served(edge, 64 * 1024);
    begin(&mut io).await;
    let long = "x".repeat(2048);
    let long_path = format!("/{}", "x".repeat(256));
    let many: Vec<_> = (0..9).map(|_| ("x-many", "1")).collect();
    let host = |host| block(&[(":method", "GET"), (":scheme", "http"), (":path", "/"), ("host", host)]);
    let cases = [
        (asking("TRACE", "/", &[]), 405),
        (block(&[(":method", "CONNECT"), (":authority", "a.example:443")]), 405),
        (asking("GET", &long_path, &[]), 414),
        (asking("GET", "/", &[("x-long", &long)]), 431),
        (asking("GET", "/", &many), 431),
        (asking("GET", "/", &[("host", "b.example")]), 400),
        (asking("GET", "/", &[("host", "a.example"), ("host", "a.example")]), 400),
        (asking("GET", "/%2f", &[]), 400),
        (asking("GET", "*", &[]), 400),
        (asking("GET", "/", &[("x-space", " a")]), 400),
        (asking("GET", "/", &[("expect", "cake")]), 417),
        (block(&[(":method", "GET"), (":scheme", "http"), (":path", "/")]), 400),
        (block(&[(":method", "GET"), (":scheme", "ftp"), (":path", "/"), (":authority", "a")]), 400),
        (host("user@a.example"), 400),
        (host("a.example:99999"), 400),
        (host("a b"), 400),
    ];
    for (i, (block, status)) in cases.iter().enumerate() {
        let stream = i as u32 * 2 + 1;
        io.write_all(&frame(HEADERS, END_HEADERS | END_STREAM, stream, block)).await.unwrap();
        let (refused, mut exchange) = server.any().await;
        assert_eq!(refused.map(|_| ()).map_err(|(refused, _)| refused.status), Err(*status), "case {i}");
        exchange.start(&answer(*status, &[]), Length::None);
        flush(&mut exchange).await.unwrap();
        drop(exchange);
        assert_eq!(next_of(&mut io, HEADERS).await.unwrap().stream, stream, "case {i}");
    }
}

/// What `h2` itself resets: RFC 9113 §8.2.2, §8.3.
#[tokio::test]
async fn malformed_heads_never_reach_the_handler() {
    let (mut io, mut server) = served(Edge::default(), 64 * 1024);
    begin(&mut io).await;
    let cases = [
        asking("GET", "/", &[("connection", "close")]),
        asking("GET", "/", &[("transfer-encoding", "chunked")]),
        asking("GET", "/", &[("upgrade", "websocket")]),
        asking("GET", "/", &[("te", "gzip")]),
        asking("GET", "/", &[("content-length", "1"), ("content-length", "2")]),
        asking("GET", "/", &[("content-length", "+1")]),
        asking("GET", "/", &[(":path", "/again")]),
        asking("GET", "", &[]),
        block(&[(":method", "GET"), (":scheme", "http"), (":authority", "a")]),
        block(&[(":method", "GET"), (":path", "/"), (":authority", "a")]),
        block(&[
            (":method", "CONNECT"),
            (":protocol", "websocket"),
            (":scheme", "http"),
            (":path", "/"),
            (":authority", "a"),
        ]),
        block(&[
            (":method", "GET"),
            (":scheme", "http"),
            (":path", "/"),
            (":authority", "a"),
            (":status", "200"),
        ]),
    ];
    for (i, block) in cases.iter().enumerate() {
        let stream = i as u32 * 2 + 1;
        io.write_all(&frame(HEADERS, END_HEADERS | END_STREAM, stream, block)).await.unwrap();
        let reset = next_of(&mut io, RST_STREAM).await.unwrap();
        assert_eq!((reset.stream, reset.code()), (stream, 1), "case {i}");
    }
    io.write_all(&frame(HEADERS, END_HEADERS | END_STREAM, 99, &asking("GET", "/last", &[]))).await.unwrap();
    assert_eq!(server.request().await.0.target, "/last");
}

#[tokio::test]
async fn a_client_that_is_told_to_go_loses_nothing() {
    let (io, mut server) = served(Edge::default(), 4096);
    let mut client = client(io).await;
    let (response, _) = client.send_request(get("/"), true).unwrap();
    let (_, _, mut exchange) = server.request().await;
    server.shutdown.send(()).unwrap();
    // The client hears of it: it takes no more requests.
    tokio::time::timeout(DEADLINE, async {
        while poll_fn(|cx| client.poll_ready(cx)).await.is_ok() {
            tokio::task::yield_now().await;
        }
    })
    .await
    .expect("a GOAWAY in time");
    exchange.start(&answer(200, &[]), Length::Exactly(2));
    exchange.data(Bytes::from_static(b"ok"));
    exchange.end(None);
    flush(&mut exchange).await.unwrap();
    drop(exchange);
    assert_eq!(rest(&mut response.await.unwrap().into_body()).await.unwrap(), b"ok");
    tokio::time::timeout(DEADLINE, server.task).await.expect("an end in time").unwrap();
}

#[tokio::test]
async fn an_idle_connection_is_closed() {
    let edge = Edge { idle_timeout: Duration::from_millis(50), ..Edge::default() };
    let (mut io, server) = served(edge, 4096);
    begin(&mut io).await;
    assert_eq!(next_of(&mut io, GOAWAY).await.unwrap().code(), 0);
    // It does not answer the ping that follows, and is closed all the same.
    server.over().await;
}

#[tokio::test]
async fn a_preface_has_a_deadline() {
    for sent in [&b""[..], b"PRI * HT", b"GET / HTTP/1.0\r\n\r\n"] {
        let edge = Edge { header_timeout: Duration::from_millis(50), ..Edge::default() };
        let (mut io, server) = served(edge, 4096);
        io.write_all(sent).await.unwrap();
        server.over().await;
    }
}

#[tokio::test]
async fn a_client_that_takes_nothing_is_cut() {
    let edge = Edge { write_timeout: Duration::from_millis(50), ..Edge::default() };
    let (mut io, mut server) = served(edge, 1024);
    begin(&mut io).await;
    io.write_all(&frame(HEADERS, END_HEADERS | END_STREAM, 1, &asking("GET", "/", &[]))).await.unwrap();
    let (_, _, mut exchange) = server.request().await;
    exchange.start(&answer(200, &[]), Length::Unknown);
    exchange.data(Bytes::from(vec![0; 32 * 1024]));
    assert!(matches!(flush(&mut exchange).await, Err(ClientError::Gone)));
    drop(exchange);
    server.over().await;
    drop(io);
}

#[tokio::test]
async fn a_silent_client_that_waits_is_asked_whether_it_is_there() {
    let soon = Duration::from_millis(30);
    let rhythm = Rhythm { after: soon, wait: soon, gap: soon };
    let (mut io, end) = tokio::io::duplex(4096);
    let served = tokio::spawn(async move {
        let edge = Edge::default();
        let handle = |_, mut exchange: H2Exchange| async move { poll_fn(|cx| exchange.poll_gone(cx)).await };
        serve_with(end, &edge, rhythm, std::future::pending(), each(handle)).await;
    });
    begin(&mut io).await;
    io.write_all(&frame(HEADERS, END_HEADERS | END_STREAM, 1, &asking("GET", "/", &[]))).await.unwrap();
    // Answered, it is left alone.
    for _ in 0..3 {
        let ping = next_of(&mut io, PING).await.unwrap();
        assert_eq!(ping.flags & ACK, 0);
        io.write_all(&frame(PING, ACK, 0, &ping.payload)).await.unwrap();
    }
    assert!(next_of(&mut io, PING).await.is_some());
    tokio::time::timeout(DEADLINE, served).await.expect("an end in time").unwrap();
}

/// The last of a body whose length is known ends the stream: clients wait for no frame more. Trailers may follow a pod's answer
/// of HTTP/2, whatever its length.
#[tokio::test]
async fn the_last_of_a_body_ends_the_stream_where_nothing_can_follow() {
    for version in [Version::Http11, Version::Http2] {
        let (mut io, mut server) = served(Edge::default(), 4096);
        begin(&mut io).await;
        io.write_all(&frame(HEADERS, END_HEADERS | END_STREAM, 1, &asking("GET", "/", &[]))).await.unwrap();
        let (_, _, mut exchange) = server.request().await;
        let mut trailers = Fields::default();
        trailers.append("grpc-status", "0");
        exchange.start(&ResponseHead { version, ..answer(200, &[]) }, Length::Exactly(5));
        exchange.data(Bytes::from_static(b"he"));
        exchange.data(Bytes::from_static(b"llo"));
        exchange.end((version == Version::Http2).then_some(&trailers));
        flush(&mut exchange).await.unwrap();
        drop(exchange);
        assert_eq!(next_of(&mut io, HEADERS).await.unwrap().flags & END_STREAM, 0);
        assert_eq!(next(&mut io).await.unwrap().flags & END_STREAM, 0);
        let last = next(&mut io).await.unwrap();
        assert_eq!(
            (last.kind, last.payload, last.flags & END_STREAM == 0),
            (DATA, b"llo".to_vec(), version == Version::Http2)
        );
        if version == Version::Http2 {
            let end = next(&mut io).await.unwrap();
            assert_eq!((end.kind, end.flags & END_STREAM), (HEADERS, END_STREAM));
        }
    }
}

/// Answers that are ready at the same time are written together, however many frames they have.
#[tokio::test]
async fn answers_that_are_ready_together_are_one_write() {
    const REQUESTS: u32 = 8;
    let (mut io, end) = tokio::io::duplex(1 << 16);
    let writes = Arc::<AtomicU32>::default();
    let counted = Counted { io: end, writes: Arc::clone(&writes) };
    let barrier = Arc::new(tokio::sync::Barrier::new(REQUESTS as usize));
    let before = Arc::<AtomicU32>::default();
    let (count, noted) = (Arc::clone(&writes), Arc::clone(&before));
    let served = tokio::spawn(async move {
        let edge = Edge::default();
        let handle = move |_, mut exchange: H2Exchange| {
            let (barrier, count, noted) = (Arc::clone(&barrier), Arc::clone(&count), Arc::clone(&noted));
            async move {
                if barrier.wait().await.is_leader() {
                    noted.store(count.load(Ordering::SeqCst), Ordering::SeqCst);
                }
                exchange.start(&answer(200, &[]), Length::Exactly(1024));
                exchange.data(Bytes::from(vec![b'x'; 1024]));
                exchange.end(None);
                flush(&mut exchange).await.unwrap();
            }
        };
        serve(counted, &edge, std::future::pending(), each(handle)).await;
    });
    begin(&mut io).await;
    let asked = (0..REQUESTS)
        .flat_map(|n| frame(HEADERS, END_HEADERS | END_STREAM, 2 * n + 1, &asking("GET", "/", &[])));
    io.write_all(&asked.collect::<Vec<_>>()).await.unwrap();
    for _ in 0..REQUESTS {
        while next_of(&mut io, DATA).await.unwrap().flags & END_STREAM == 0 {}
    }
    assert_eq!(writes.load(Ordering::SeqCst) - before.load(Ordering::SeqCst), 1);
    served.abort();
}

/// A fault in one request's handler is that request's alone.
#[tokio::test]
async fn a_handler_that_panics_resets_its_own_stream() {
    let (io, end) = tokio::io::duplex(4096);
    tokio::spawn(async move {
        let edge = Edge::default();
        let handle = |asked: Asked, mut exchange: H2Exchange| async move {
            assert_ne!(asked.unwrap().0.target, "/panic", "as this test wants it");
            exchange.start(&answer(204, &[]), Length::None);
            flush(&mut exchange).await.unwrap();
        };
        serve(end, &edge, std::future::pending(), each(handle)).await;
    });
    let mut client = client(io).await;
    let (other, _) = client.send_request(get("/"), true).unwrap();
    let (failed, _) = client.send_request(get("/panic"), true).unwrap();
    assert_eq!(failed.await.unwrap_err().reason(), Some(Reason::INTERNAL_ERROR));
    assert_eq!(other.await.unwrap().status(), 204);
    let (after, _) = client.send_request(get("/"), true).unwrap();
    assert_eq!(after.await.unwrap().status(), 204);
}

/// What answers a request answers the next one, too, and is not kept when there is none.
#[tokio::test(start_paused = true)]
async fn who_is_done_with_a_request_takes_the_next_one_and_ends_when_none_comes() {
    let (io, end) = tokio::io::duplex(4096);
    let (made, alive) = (Arc::<AtomicU32>::default(), Arc::new(()));
    let (count, life) = (Arc::clone(&made), Arc::downgrade(&alive));
    tokio::spawn(async move {
        let handle = move |mut requests: Requests| {
            count.fetch_add(1, Ordering::SeqCst);
            let alive = Arc::clone(&alive);
            async move {
                let _alive = alive;
                while let Some((_, mut exchange)) = requests.next().await {
                    exchange.start(&answer(204, &[]), Length::None);
                    flush(&mut exchange).await.unwrap();
                }
            }
        };
        serve(end, &Edge::default(), std::future::pending(), handle).await;
    });
    let mut client = client(io).await;
    for futures in 1..=2 {
        for _ in 0..5 {
            let (response, _) = client.send_request(get("/"), true).unwrap();
            assert_eq!(response.await.unwrap().status(), 204);
        }
        // That of the handler, and that of one future.
        assert_eq!((made.load(Ordering::SeqCst), life.strong_count()), (futures, 2));
        tokio::time::sleep(2 * SPARE).await;
        assert_eq!(life.strong_count(), 1);
    }
}

/// Counts the writes to a connection.
struct Counted {
    io: DuplexStream,
    writes: Arc<AtomicU32>,
}

impl AsyncRead for Counted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut tokio::io::ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buf)
    }
}

impl AsyncWrite for Counted {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        self.writes.fetch_add(1, Ordering::SeqCst);
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}
