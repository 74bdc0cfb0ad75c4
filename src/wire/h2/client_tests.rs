//! Tests of connections to pods: against `h2`'s server, raw frames, and this router's own server.

use std::future::poll_fn;

use bytes::Bytes;
use http::{HeaderMap, Response};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};
use tokio::task::JoinHandle;

use super::super::frames_tests::*;
use super::super::{H2Exchange, serve};
use super::*;
use crate::model::Edge;
use crate::wire::{
    Downstream as _, Fields, Length, Piece, RequestHead, ResponseHead, Upstream as _, UpstreamError,
};

type Case<'a> = (&'a [(&'a str, &'a str)], &'a [u8]);
type Pod = h2::server::Connection<DuplexStream, Bytes>;

/// A connection to a pod of the `h2` crate.
async fn connected(builder: h2::server::Builder) -> (H2Connection, Pod, JoinHandle<()>) {
    let (io, end) = tokio::io::duplex(64 * 1024);
    let settings = H2Settings::default();
    let (ours, pod) =
        tokio::join!(H2Connection::handshake(io, &settings), builder.handshake::<_, Bytes>(end));
    let (connection, driver) = ours.unwrap();
    (connection, pod.unwrap(), tokio::spawn(driver))
}

/// A connection to a pod that is the test, frame by frame; its SETTINGS are sent.
async fn raw() -> (H2Connection, DuplexStream, JoinHandle<()>) {
    raw_with(RHYTHM).await
}

async fn raw_with(rhythm: Rhythm) -> (H2Connection, DuplexStream, JoinHandle<()>) {
    let (io, mut pod) = tokio::io::duplex(64 * 1024);
    pod.write_all(&frame(SETTINGS, 0, 0, &[])).await.unwrap();
    let settings = H2Settings::default();
    let (connection, driver) = H2Connection::handshake_with(io, &settings, rhythm).await.unwrap();
    let driver = tokio::spawn(driver);
    pod.read_exact(&mut [0; 24]).await.unwrap();
    (connection, pod, driver)
}

fn asking(method: http::Method, fields: &[(&str, &str)]) -> RequestHead {
    let mut head = RequestHead {
        method,
        target: "/".to_owned(),
        authority: "a.example".to_owned(),
        ..RequestHead::default()
    };
    fields.iter().for_each(|(name, value)| head.fields.append(name, value));
    head
}

/// A GET that has been queued.
fn get(connection: &H2Connection) -> H2Request {
    let mut request = connection.request().unwrap();
    request.start(&asking(http::Method::GET, &[]), Length::None);
    request
}

async fn head(request: &mut H2Request) -> Result<(ResponseHead, Length), UpstreamError> {
    let mut head = ResponseHead::default();
    let length = tokio::time::timeout(DEADLINE, poll_fn(|cx| request.poll_head(cx, &mut head)));
    length.await.expect("a head in time").map(|length| (head, length))
}

async fn piece(request: &mut H2Request) -> Result<Option<Piece>, UpstreamError> {
    tokio::time::timeout(DEADLINE, poll_fn(|cx| request.poll_body(cx))).await.expect("a piece in time")
}

/// Answers every request with what its target asks for.
fn answering(mut pod: Pod) -> JoinHandle<()> {
    tokio::spawn(async move {
        while let Some(Ok((request, mut respond))) = pod.accept().await {
            let grpc = request.headers().get("te").is_some_and(|te| te == "trailers");
            tokio::spawn(async move {
                let mut response = Response::builder().header("x-method", request.method().as_str());
                if request.method() == http::Method::HEAD {
                    response = response.header("content-length", "7");
                    respond.send_response(response.body(()).unwrap(), true).unwrap();
                    return;
                }
                if grpc {
                    response = response.header("grpc-status", "5");
                    respond.send_response(response.body(()).unwrap(), true).unwrap();
                    return;
                }
                let early = Response::builder().status(103).header("link", "</a>").body(()).unwrap();
                respond.send_informational(early).unwrap();
                let mut sending = respond.send_response(response.body(()).unwrap(), false).unwrap();
                let mut body = request.into_body();
                while let Some(data) = body.data().await {
                    let data = data.unwrap();
                    body.flow_control().release_capacity(data.len()).unwrap();
                    sending.send_data(data, false).unwrap();
                }
                let mut trailers = body.trailers().await.unwrap().unwrap_or_default();
                trailers.insert("x-end", "1".parse().unwrap());
                sending.send_trailers(trailers).unwrap();
            });
        }
    })
}

#[tokio::test]
async fn requests_answers_and_trailers_pass() {
    let (connection, pod, _driver) = connected(h2::server::Builder::new()).await;
    let _pod = answering(pod);
    let mut request = connection.request().unwrap();
    request.start(&asking(http::Method::POST, &[]), Length::Unknown);
    request.data(Bytes::from_static(b"abc"));
    let mut trailers = Fields::default();
    trailers.append("X-Sum", "7");
    request.end(Some(&trailers));
    poll_fn(|cx| request.poll_flush(cx)).await.unwrap();
    let (interim, _) = head(&mut request).await.unwrap();
    assert!(interim.is_interim() && interim.fields.get("link").is_some());
    let (last, length) = head(&mut request).await.unwrap();
    assert_eq!((last.status.as_u16(), length), (200, Length::Unknown));
    assert_eq!(last.fields.get("x-method"), Some(&b"POST"[..]));
    assert!(matches!(piece(&mut request).await, Ok(Some(Piece::Data(data))) if data == "abc"));
    let Ok(Some(Piece::Trailers(fields))) = piece(&mut request).await else { panic!("no trailers") };
    assert_eq!((fields.get("x-sum"), fields.get("x-end")), (Some(&b"7"[..]), Some(&b"1"[..])));
    assert!(matches!(piece(&mut request).await, Ok(None)));
    assert_eq!(connection.open(), 1);
    drop(request);
    assert_eq!(connection.open(), 0);
}

#[tokio::test]
async fn answers_without_a_body_say_so() {
    let (connection, pod, _driver) = connected(h2::server::Builder::new()).await;
    let _pod = answering(pod);
    let mut request = connection.request().unwrap();
    request.start(&asking(http::Method::HEAD, &[]), Length::None);
    let (answer, length) = head(&mut request).await.unwrap();
    assert_eq!((length, answer.fields.get("content-length")), (Length::None, Some(&b"7"[..])));
    assert!(matches!(piece(&mut request).await, Ok(None)));
    // gRPC's trailers-only.
    let mut request = connection.request().unwrap();
    request.start(&asking(http::Method::POST, &[("content-type", "application/grpc")]), Length::Unknown);
    let (answer, length) = head(&mut request).await.unwrap();
    assert_eq!((length, answer.fields.get("grpc-status")), (Length::None, Some(&b"5"[..])));
}

#[tokio::test]
async fn what_was_not_processed_may_be_sent_elsewhere() {
    const REFUSED_STREAM: u8 = 7;
    // A pod that refuses the stream.
    let (connection, mut pod, _driver) = raw().await;
    let mut request = get(&connection);
    next_of(&mut pod, HEADERS).await.unwrap();
    pod.write_all(&frame(RST_STREAM, 0, 1, &[0, 0, 0, REFUSED_STREAM])).await.unwrap();
    assert!(matches!(head(&mut request).await, Err(UpstreamError::NotTaken)));

    // One that leaves: the first request is processed, the second is not.
    let (connection, mut pod, driver) = raw().await;
    let (mut first, mut second) = (get(&connection), get(&connection));
    next_of(&mut pod, HEADERS).await.unwrap();
    next_of(&mut pod, HEADERS).await.unwrap();
    pod.write_all(&frame(GOAWAY, 0, 0, &[0, 0, 0, 1, 0, 0, 0, 0])).await.unwrap();
    assert!(matches!(head(&mut second).await, Err(UpstreamError::NotTaken)));
    assert!(!connection.is_usable() && connection.request().is_none());
    pod.write_all(&frame(HEADERS, END_HEADERS | END_STREAM, 1, &block(&[(":status", "204")]))).await.unwrap();
    assert_eq!(head(&mut first).await.unwrap().0.status.as_u16(), 204);
    drop((first, second));
    tokio::time::timeout(DEADLINE, driver).await.expect("an end in time").unwrap();

    // A connection that was closed before the request was written: a place was taken, no more.
    let (connection, pod, _driver) = raw().await;
    let mut request = connection.request().unwrap();
    drop(pod);
    request.start(&asking(http::Method::POST, &[]), Length::None);
    assert!(matches!(head(&mut request).await, Err(UpstreamError::NotTaken)));
}

#[tokio::test]
async fn what_may_have_been_processed_is_told_apart() {
    // Reset, or closed, before a head.
    let (connection, mut pod, _driver) = raw().await;
    let mut request = get(&connection);
    next_of(&mut pod, HEADERS).await.unwrap();
    pod.write_all(&frame(RST_STREAM, 0, 1, &[0, 0, 0, 2])).await.unwrap();
    assert!(matches!(head(&mut request).await, Err(UpstreamError::NoAnswer)));
    let mut request = get(&connection);
    next_of(&mut pod, HEADERS).await.unwrap();
    drop(pod);
    assert!(matches!(head(&mut request).await, Err(UpstreamError::NoAnswer)));

    // After it.
    let (connection, mut pod, _driver) = raw().await;
    let (mut first, mut second) = (get(&connection), get(&connection));
    for stream in [1, 3] {
        next_of(&mut pod, HEADERS).await.unwrap();
        let answer = frame(HEADERS, END_HEADERS, stream, &block(&[(":status", "200")]));
        pod.write_all(&answer).await.unwrap();
    }
    head(&mut first).await.unwrap();
    head(&mut second).await.unwrap();
    pod.write_all(&frame(RST_STREAM, 0, 1, &[0, 0, 0, 7])).await.unwrap();
    assert!(matches!(piece(&mut first).await, Err(UpstreamError::Broken)));
    drop(pod);
    assert!(matches!(piece(&mut second).await, Err(UpstreamError::Broken)));
}

#[tokio::test]
async fn answers_that_are_malformed_are_refused() {
    let cases: [Case<'_>; 6] = [
        (&[(":status", "200"), ("content-length", "5")], b"abc"),
        (&[(":status", "200"), ("connection", "close")], b""),
        (&[(":status", "200"), ("content-length", "1"), ("content-length", "2")], b""),
        (&[("x", "1")], b""),
        (&[(":status", "101")], b""),
        (&[(":status", "abc")], b""),
    ];
    for (i, (fields, body)) in cases.iter().enumerate() {
        let (connection, mut pod, _driver) = raw().await;
        let mut request = get(&connection);
        next_of(&mut pod, HEADERS).await.unwrap();
        pod.write_all(&frame(HEADERS, END_HEADERS, 1, &block(fields))).await.unwrap();
        pod.write_all(&frame(DATA, END_STREAM, 1, body)).await.unwrap();
        let mut result = head(&mut request).await.map(|_| ());
        while result.is_ok() {
            match piece(&mut request).await {
                Ok(Some(_)) => {}
                Ok(None) => panic!("case {i} was taken for a whole answer"),
                Err(error) => result = Err(error),
            }
        }
        // An answer whose status is none is an error of the whole connection to `h2`.
        let refused = matches!(result, Err(UpstreamError::Protocol(_)));
        assert!(
            refused || (i == 5 && matches!(result, Err(UpstreamError::NoAnswer))),
            "case {i}: {result:?}"
        );
    }
}

#[tokio::test]
async fn interim_answers_are_not_endless() {
    let (connection, mut pod, _driver) = raw().await;
    let mut request = get(&connection);
    next_of(&mut pod, HEADERS).await.unwrap();
    for _ in 0..100 {
        pod.write_all(&frame(HEADERS, END_HEADERS, 1, &block(&[(":status", "103")]))).await.unwrap();
    }
    let mut taken = 0;
    let error = loop {
        match head(&mut request).await {
            Ok((answer, _)) => taken += usize::from(answer.is_interim()),
            Err(error) => break error,
        }
    };
    assert_eq!(taken, 16);
    assert!(matches!(error, UpstreamError::Protocol(_)));
}

/// RFC 9113 §8.1: a pod may answer in full and want no more of the request.
#[tokio::test]
async fn an_early_answer_is_taken_and_the_upload_ends() {
    let (connection, mut pod, _driver) = raw().await;
    let mut request = connection.request().unwrap();
    request.start(&asking(http::Method::POST, &[]), Length::Unknown);
    request.data(Bytes::from(vec![0; 1 << 20]));
    next_of(&mut pod, DATA).await.unwrap();
    let mut answer = frame(HEADERS, END_HEADERS, 1, &block(&[(":status", "413"), ("content-length", "3")]));
    answer.extend(frame(DATA, END_STREAM, 1, b"big"));
    answer.extend(frame(RST_STREAM, 0, 1, &[0; 4]));
    pod.write_all(&answer).await.unwrap();
    // There is no window for the rest, and it is not waited for.
    tokio::time::timeout(DEADLINE, poll_fn(|cx| request.poll_flush(cx))).await.expect("in time").unwrap();
    assert_eq!(head(&mut request).await.unwrap().1, Length::Exactly(3));
    assert!(matches!(piece(&mut request).await, Ok(Some(Piece::Data(data))) if data == "big"));
    assert!(matches!(piece(&mut request).await, Ok(None)));
}

#[tokio::test]
async fn an_abandoned_request_is_cancelled() {
    let (connection, mut pod, _driver) = raw().await;
    let request = get(&connection);
    next_of(&mut pod, HEADERS).await.unwrap();
    drop(request);
    assert_eq!(next_of(&mut pod, RST_STREAM).await.unwrap().code(), 8);
    assert!(connection.has_room());
}

#[tokio::test]
async fn room_is_what_the_pod_allows() {
    let mut builder = h2::server::Builder::new();
    builder.max_concurrent_streams(2);
    let (connection, pod, _driver) = connected(builder).await;
    let _pod = answering(pod);
    let one = connection.request().unwrap();
    let two = connection.request().unwrap();
    assert!(!connection.has_room() && connection.is_usable() && connection.request().is_none());
    let waits = connection.ready();
    let frees = async {
        tokio::task::yield_now().await;
        drop(one);
    };
    let (ready, ()) = tokio::time::timeout(DEADLINE, async { tokio::join!(waits, frees) }).await.unwrap();
    assert!(ready && connection.has_room());
    drop(two);
}

#[tokio::test]
async fn a_connection_ends_after_its_last_request() {
    let (connection, mut pod, driver) = raw().await;
    let mut request = get(&connection);
    next_of(&mut pod, HEADERS).await.unwrap();
    connection.close_when_idle();
    assert!(connection.request().is_none() && !connection.ready().await);
    pod.write_all(&frame(HEADERS, END_HEADERS, 1, &block(&[(":status", "200")]))).await.unwrap();
    head(&mut request).await.unwrap();
    assert!(!driver.is_finished());
    pod.write_all(&frame(DATA, END_STREAM, 1, b"x")).await.unwrap();
    assert!(matches!(piece(&mut request).await, Ok(Some(Piece::Data(_)))));
    assert!(matches!(piece(&mut request).await, Ok(None)));
    drop(request);
    assert_eq!(next_of(&mut pod, GOAWAY).await.unwrap().code(), 0);
    tokio::time::timeout(DEADLINE, driver).await.expect("an end in time").unwrap();
    // An idle one at once.
    let (connection, _pod, driver) = raw().await;
    drop(connection);
    tokio::time::timeout(DEADLINE, driver).await.expect("an end in time").unwrap();
}

#[tokio::test]
async fn a_pod_that_does_not_speak_http2_is_found_out_before_a_request() {
    for said in [&b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"[..], b""] {
        let (io, mut pod) = tokio::io::duplex(4096);
        pod.write_all(said).await.unwrap();
        pod.shutdown().await.unwrap();
        let settings = H2Settings::default();
        let shaken = tokio::time::timeout(DEADLINE, H2Connection::handshake(io, &settings)).await.unwrap();
        assert!(shaken.is_err(), "{said:?}");
    }
}

#[tokio::test]
async fn a_pod_that_is_silent_for_good_is_given_up() {
    let soon = Duration::from_millis(30);
    let (connection, mut pod, driver) = raw_with(Rhythm { after: soon, wait: soon, gap: soon }).await;
    let mut request = get(&connection);
    next_of(&mut pod, PING).await.unwrap();
    assert!(matches!(head(&mut request).await, Err(UpstreamError::NoAnswer)));
    tokio::time::timeout(DEADLINE, driver).await.expect("an end in time").unwrap();
    assert!(!connection.is_usable());
}

/// A pod that takes nothing of a request is not given more than there is room for.
#[tokio::test]
async fn what_is_queued_for_a_pod_is_bounded() {
    let (connection, _pod, _driver) = raw().await;
    let mut request = connection.request().unwrap();
    request.start(&asking(http::Method::POST, &[]), Length::Unknown);
    let mut sent = 0;
    while poll_fn(|cx| Poll::Ready(request.poll_room(cx))).await.is_ready() {
        request.data(Bytes::from(vec![0; 16 * 1024]));
        sent += 16 * 1024;
        tokio::task::yield_now().await;
        assert!(sent < 1 << 20, "room without end");
    }
}

/// Carries one exchange, as simply as can be.
async fn relay(asked: (RequestHead, Length), mut exchange: H2Exchange, connection: Arc<H2Connection>) {
    let (head, length) = asked;
    let mut request = connection.request().unwrap();
    request.start(&head, length);
    let (mut up, mut answered) = (length != Length::None, false);
    let mut answer = ResponseHead::default();
    poll_fn(|cx| {
        while up && request.poll_room(cx).map(Result::unwrap).is_ready() {
            match exchange.poll_body(cx).map(Result::unwrap) {
                Poll::Ready(Some(Piece::Data(data))) => request.data(data),
                Poll::Ready(Some(Piece::Trailers(fields))) => {
                    request.end(Some(&fields));
                    up = false;
                }
                Poll::Ready(None) => {
                    request.end(None);
                    up = false;
                }
                Poll::Pending => break,
            }
        }
        while !answered {
            let Poll::Ready(length) = request.poll_head(cx, &mut answer) else { return Poll::Pending };
            if answer.is_interim() {
                exchange.interim(&answer);
            } else {
                exchange.start(&answer, length.unwrap());
                answered = true;
            }
        }
        while exchange.poll_room(cx).map(Result::unwrap).is_ready() {
            match request.poll_body(cx).map(Result::unwrap) {
                Poll::Ready(Some(Piece::Data(data))) => exchange.data(data),
                Poll::Ready(Some(Piece::Trailers(fields))) => {
                    exchange.end(Some(&fields));
                    return Poll::Ready(());
                }
                Poll::Ready(None) => {
                    exchange.end(None);
                    return Poll::Ready(());
                }
                Poll::Pending => break,
            }
        }
        Poll::Pending
    })
    .await;
    poll_fn(|cx| exchange.poll_flush(cx)).await.unwrap();
}

/// `h2`'s client, this router's server and client, `h2`'s server: many streams at once, each 1 MiB there and back while both
/// directions pass, with trailers.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_sides_together_carry_streams_both_ways_at_once() {
    const LENGTH: usize = 1 << 20;
    let (connection, pod, _driver) = connected(h2::server::Builder::new()).await;
    let (_pod, connection) = (answering(pod), Arc::new(connection));
    let (io, end) = tokio::io::duplex(64 * 1024);
    let carrying = connection.clone();
    let server = tokio::spawn(async move {
        let edge = Edge::default();
        let handle = move |asked: Result<_, _>, exchange| relay(asked.unwrap(), exchange, carrying.clone());
        serve(end, &edge, std::future::pending(), each(handle)).await;
    });
    let (client, driver) = h2::client::handshake(io).await.unwrap();
    tokio::spawn(driver);
    let streams: Vec<_> = (0..20)
        .map(|i| {
            let mut client = client.clone();
            tokio::spawn(async move {
                let request = http::Request::post("http://a.example/").body(()).unwrap();
                let (response, mut sending) = client.send_request(request, false).unwrap();
                let upload = tokio::spawn(async move {
                    let mut sent = 0;
                    while sent < LENGTH {
                        sending.reserve_capacity(LENGTH - sent);
                        let room = poll_fn(|cx| sending.poll_capacity(cx)).await.unwrap().unwrap();
                        sending.send_data(Bytes::from(vec![i; room]), false).unwrap();
                        sent += room;
                    }
                    sending.send_trailers(HeaderMap::new()).unwrap();
                });
                let mut body = response.await.unwrap().into_body();
                let mut taken = 0;
                while let Some(data) = body.data().await {
                    let data = data.unwrap();
                    body.flow_control().release_capacity(data.len()).unwrap();
                    assert!(data.iter().all(|byte| *byte == i));
                    taken += data.len();
                }
                assert_eq!(body.trailers().await.unwrap().unwrap()["x-end"], "1");
                upload.await.unwrap();
                taken
            })
        })
        .collect();
    for stream in streams {
        let taken = tokio::time::timeout(DEADLINE, stream).await.expect("an end in time").unwrap();
        assert_eq!(taken, LENGTH);
    }
    assert!(connection.is_usable());
    drop(client);
    tokio::time::timeout(DEADLINE, server).await.expect("an end in time").unwrap();
    assert_eq!(connection.open(), 0);
}
