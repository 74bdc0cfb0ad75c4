//! Both sides of HTTP/1 against raw bytes.

use std::future::poll_fn;
use std::sync::Arc;

use bytes::Bytes;
use http::{Method, StatusCode};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};

use super::{H1Client, H1Server, Next};
use crate::model::Edge;
use crate::wire::{
    ClientError, Downstream, Length, Piece, RequestHead, ResponseHead, Upstream, UpstreamError,
};

fn server() -> (H1Server<DuplexStream>, DuplexStream) {
    let (ours, theirs) = duplex(64 * 1024);
    (H1Server::new(ours, Arc::new(Edge::default())), theirs)
}

fn client() -> (H1Client<DuplexStream>, DuplexStream) {
    let (ours, theirs) = duplex(64 * 1024);
    (H1Client::new(ours), theirs)
}

async fn next(server: &mut H1Server<DuplexStream>, head: &mut RequestHead) -> Next {
    poll_fn(|cx| server.poll_next(cx, head)).await
}

async fn flush(server: &mut H1Server<DuplexStream>) {
    poll_fn(|cx| server.poll_flush(cx)).await.unwrap();
}

/// What was written so far.
async fn written(io: &mut DuplexStream) -> String {
    let mut bytes = vec![0; 64 * 1024];
    let n = io.read(&mut bytes).await.unwrap();
    String::from_utf8_lossy(&bytes[..n]).into_owned()
}

fn answer(status: u16, fields: &[(&str, &str)]) -> ResponseHead {
    let mut head = ResponseHead { status: StatusCode::from_u16(status).unwrap(), ..ResponseHead::default() };
    fields.iter().for_each(|(name, value)| head.fields.append(name, value));
    head
}

fn request(method: Method) -> RequestHead {
    let mut head = RequestHead { method, target: "/".to_owned(), ..RequestHead::default() };
    head.fields.append("Host", "a");
    head
}

#[tokio::test]
async fn requests_that_come_early_wait_their_turn() {
    let (mut server, mut io) = server();
    io.write_all(b"GET /1 HTTP/1.1\r\nHost: a\r\n\r\nPOST /2 HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabcGET /3")
        .await
        .unwrap();
    let mut head = RequestHead::default();
    assert!(matches!(next(&mut server, &mut head).await, Next::Request(Length::None)));
    assert_eq!(head.target, "/1");
    server.start(&answer(200, &[]), Length::Exactly(2));
    server.data(Bytes::from_static(b"ok"));
    server.end(None);
    flush(&mut server).await;
    assert_eq!(written(&mut io).await, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    assert!(server.rest());
    assert!(matches!(next(&mut server, &mut head).await, Next::Request(Length::Exactly(3))));
    assert_eq!((head.target.as_str(), &head.method), ("/2", &Method::POST));
    let piece = poll_fn(|cx| server.poll_body(cx)).await.unwrap();
    assert!(matches!(piece, Some(Piece::Data(data)) if data == "abc"));
    assert!(poll_fn(|cx| server.poll_body(cx)).await.unwrap().is_none());
    server.start(&answer(204, &[]), Length::None);
    flush(&mut server).await;
    assert_eq!(written(&mut io).await, "HTTP/1.1 204 No Content\r\n\r\n");
    assert!(server.rest() && server.has_begun());
    drop(io);
    assert!(matches!(next(&mut server, &mut head).await, Next::End), "a part of a request is none");
}

#[tokio::test]
async fn a_body_is_asked_for_only_when_it_is_wanted() {
    let expecting = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nExpect: 100-continue\r\n\r\n";
    let mut head = RequestHead::default();
    let (mut wanting, mut io) = server();
    io.write_all(expecting).await.unwrap();
    assert!(matches!(next(&mut wanting, &mut head).await, Next::Request(Length::Exactly(1))));
    let body = async {
        assert!(poll_fn(|cx| wanting.poll_body(cx)).await.unwrap().is_some());
        assert!(poll_fn(|cx| wanting.poll_body(cx)).await.unwrap().is_none());
        wanting.start(&answer(204, &[]), Length::None);
        flush(&mut wanting).await;
        assert!(wanting.rest());
    };
    let asking = async {
        assert_eq!(written(&mut io).await, "HTTP/1.1 100 Continue\r\n\r\n");
        io.write_all(b"x").await.unwrap();
    };
    let ((), ()) = tokio::join!(body, asking);

    let (mut refusing, mut io) = server();
    io.write_all(expecting).await.unwrap();
    let _ = next(&mut refusing, &mut head).await;
    refusing.start(&answer(413, &[]), Length::None);
    flush(&mut refusing).await;
    let told = written(&mut io).await;
    assert!(told.starts_with("HTTP/1.1 413") && told.contains("Connection: close"), "{told}");
    assert!(!refusing.rest(), "whether the body comes now nobody knows");
}

#[tokio::test]
async fn answers_fit_who_asked() {
    for (asked, length, wanted, again) in [
        ("HEAD / HTTP/1.1\r\nHost: a\r\n\r\n", Length::None, "HTTP/1.1 200 OK\r\n\r\n", true),
        (
            "HEAD / HTTP/1.1\r\nHost: a\r\n\r\n",
            Length::Exactly(9),
            "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n",
            true,
        ),
        (
            "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
            Length::None,
            "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
            true,
        ),
        (
            "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
            Length::Unknown,
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\n\r\n",
            true,
        ),
        (
            "GET / HTTP/1.0\r\n\r\n",
            Length::Unknown,
            "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nbody",
            false,
        ),
        (
            "GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
            Length::Exactly(4),
            "HTTP/1.1 200 OK\r\nContent-Length: 4\r\nConnection: keep-alive\r\n\r\nbody",
            true,
        ),
        (
            "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
            Length::Exactly(4),
            "HTTP/1.1 200 OK\r\nContent-Length: 4\r\nConnection: close\r\n\r\nbody",
            false,
        ),
    ] {
        let (mut server, mut io) = server();
        io.write_all(asked.as_bytes()).await.unwrap();
        let mut head = RequestHead::default();
        assert!(matches!(next(&mut server, &mut head).await, Next::Request(Length::None)), "{asked}");
        server.start(&answer(200, &[]), length);
        if length != Length::None {
            server.data(Bytes::from_static(b"body"));
            server.end(None);
        }
        flush(&mut server).await;
        assert_eq!(written(&mut io).await, wanted, "{asked}");
        assert_eq!(server.rest(), again, "{asked}");
    }
}

#[tokio::test]
async fn an_answer_that_is_shorter_than_it_said_ends_the_connection() {
    let (mut server, mut io) = server();
    io.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    let _ = next(&mut server, &mut RequestHead::default()).await;
    server.start(&answer(200, &[]), Length::Exactly(9));
    server.data(Bytes::from_static(b"short"));
    server.end(None);
    flush(&mut server).await;
    assert!(!server.rest() && !server.must_reset());
}

#[tokio::test]
async fn http_2_is_known_by_its_preface() {
    let (mut server, mut io) = server();
    io.write_all(b"PRI * HTTP/2.0\r\n").await.unwrap();
    let mut head = RequestHead::default();
    let rest = async { io.write_all(b"\r\nSM\r\n\r\n\0\0").await };
    let (met, _) = tokio::join!(next(&mut server, &mut head), rest);
    assert!(matches!(met, Next::Http2), "{met:?}");
    assert!(server.into_parts().1.starts_with(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"));
}

#[tokio::test]
async fn why_there_is_no_answer_is_told_apart() {
    let mut head = ResponseHead::default();
    // Closed before anything was sent: what was written was never read, but it was written.
    for (said, wanted) in [
        (&b""[..], "the pod ended the connection before it had answered"),
        (b"HTTP/1.1 200", "the pod ended the connection inside its answer"),
        (b"SSH-2.0-OpenSSH\r\n\r\n", "the pod's answer was refused"),
    ] {
        let (mut client, mut io) = client();
        client.start(&request(Method::GET), Length::None);
        poll_fn(|cx| client.poll_flush(cx)).await.unwrap();
        io.write_all(said).await.unwrap();
        drop(io);
        let error = poll_fn(|cx| client.poll_head(cx, &mut head)).await.unwrap_err();
        assert!(error.to_string().starts_with(wanted), "{error}");
    }
    let (mut unsent, io) = client();
    drop(io);
    unsent.start(&request(Method::POST), Length::None);
    poll_fn(|cx| unsent.poll_flush(cx)).await.unwrap();
    let error = poll_fn(|cx| unsent.poll_head(cx, &mut head)).await.unwrap_err();
    assert!(matches!(error, UpstreamError::NotTaken), "{error}");
}

#[tokio::test]
async fn a_connection_serves_again_only_when_both_messages_have_ended() {
    for (length, said, again) in [
        (Length::None, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", true),
        (Length::None, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n", false),
        (Length::None, "HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n", false),
        (Length::None, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\nHTTP/1.1 200 OK\r\n", false),
        (Length::Exactly(3), "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", false),
        (Length::Unknown, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", false),
    ] {
        let (mut client, mut io) = client();
        client.start(&request(Method::POST), length);
        poll_fn(|cx| client.poll_flush(cx)).await.unwrap();
        io.write_all(said.as_bytes()).await.unwrap();
        let mut head = ResponseHead::default();
        assert_eq!(poll_fn(|cx| client.poll_head(cx, &mut head)).await.unwrap(), Length::None);
        assert!(poll_fn(|cx| client.poll_body(cx)).await.unwrap().is_none());
        assert_eq!(client.rest(), again, "{length:?} {said}");
        if again {
            assert!(client.is_quiet());
            io.write_all(b"HTTP/1.1 408 Request Timeout\r\n").await.unwrap();
            assert!(!client.is_quiet(), "unasked");
        }
    }
}

#[tokio::test]
async fn interim_answers_are_bounded() {
    let (mut client, mut io) = client();
    client.start(&request(Method::GET), Length::None);
    io.write_all("HTTP/1.1 103 Early Hints\r\n\r\n".repeat(100).as_bytes()).await.unwrap();
    let mut head = ResponseHead::default();
    let mut interim = 0;
    let error = loop {
        match poll_fn(|cx| client.poll_head(cx, &mut head)).await {
            Ok(Length::None) => interim += 1,
            other => break other.unwrap_err(),
        }
    };
    assert!(matches!(error, UpstreamError::Protocol(_)) && interim == 16, "{interim} {error}");
}

#[tokio::test]
async fn after_an_upgrade_bytes_pass_as_they_are() {
    let (mut down, mut browser) = server();
    browser
        .write_all(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nearly")
        .await
        .unwrap();
    let mut head = RequestHead::default();
    assert!(matches!(next(&mut down, &mut head).await, Next::Request(Length::None)));
    assert_eq!(head.upgrade, "websocket");
    let (mut up, mut pod) = client();
    up.start(&head, Length::None);
    poll_fn(|cx| up.poll_flush(cx)).await.unwrap();
    let asked = written(&mut pod).await;
    assert!(asked.contains("Connection: Upgrade\r\n") && asked.contains("Upgrade: websocket\r\n"), "{asked}");
    pod.write_all(
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n\0\x01",
    )
    .await
    .unwrap();
    let mut answer = ResponseHead::default();
    assert_eq!(poll_fn(|cx| up.poll_head(cx, &mut answer)).await.unwrap(), Length::Unknown);
    down.start(&answer, Length::Unknown);
    let Some(Piece::Data(data)) = poll_fn(|cx| up.poll_body(cx)).await.unwrap() else { panic!("no data") };
    down.data(data);
    flush(&mut down).await;
    let told = written(&mut browser).await;
    assert!(told.starts_with("HTTP/1.1 101 ") && told.ends_with("\r\n\r\n\0\x01"), "{told:?}");
    assert!(told.contains("Upgrade: websocket\r\n") && !told.contains("chunked"), "{told:?}");
    let Some(Piece::Data(data)) = poll_fn(|cx| down.poll_body(cx)).await.unwrap() else { panic!("no data") };
    assert_eq!(data, "early");
    up.data(data);
    up.end(None);
    poll_fn(|cx| up.poll_flush(cx)).await.unwrap();
    let mut rest = Vec::new();
    pod.read_to_end(&mut rest).await.unwrap();
    assert_eq!(rest, b"early", "and the half is closed");
    assert!(!up.rest());
}

#[tokio::test]
async fn a_client_that_leaves_is_noticed_and_one_that_goes_on_is_not_lost() {
    let (mut server, mut io) = server();
    io.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    let mut head = RequestHead::default();
    let _ = next(&mut server, &mut head).await;
    io.write_all(b"GET /next").await.unwrap();
    let waited = poll_fn(|cx| std::task::Poll::Ready(server.poll_gone(cx))).await;
    assert!(waited.is_pending() && server.has_begun());
    let (mut left, io) = self::server();
    drop(io);
    poll_fn(|cx| left.poll_gone(cx)).await;
    let (mut halfway, mut io) = self::server();
    io.write_all(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nab").await.unwrap();
    let _ = next(&mut halfway, &mut head).await;
    drop(io);
    assert!(poll_fn(|cx| halfway.poll_body(cx)).await.unwrap().is_some());
    let error = poll_fn(|cx| halfway.poll_body(cx)).await.unwrap_err();
    assert!(matches!(error, ClientError::Gone));
}
