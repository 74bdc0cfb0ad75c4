//! Long answers: events as they are sent, clients that take slowly, pods that fall silent.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use hyper::body::{Frame, Incoming};
use hyper::{Request, Response};
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpSocket;
use tokio::sync::mpsc;

use super::bodies::{Sent, pattern, piece};
use super::front::{Front, Plan};
use super::pods::{Pod, Speaks};
use super::raw::{self, Raw};
use crate::support::{PATIENCE, eventually};

/// A pod whose answer is sent by the test: what sends it comes with each request.
pub(super) async fn told(
    speaks: Speaks,
    kind: &'static str,
) -> (Pod, mpsc::UnboundedReceiver<mpsc::Sender<Frame<Bytes>>>) {
    let (asked, requests) = mpsc::unbounded_channel();
    let answer = move |_: Request<Incoming>| {
        let (send, body) = Sent::frames();
        asked.send(send).unwrap();
        async move {
            let mut response = Response::new(body);
            response.headers_mut().insert("content-type", kind.parse().unwrap());
            response
        }
    };
    (Pod::http(speaks, None, answer).await, requests)
}

async fn idle(front: &Front) {
    eventually("the request has ended", || (front.active() == 0).then_some(())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn s4_4_events_arrive_as_they_are_sent_for_longer_than_a_request_may_take() {
    for (client, speaks) in [(Speaks::Http1, Speaks::Http1), (Speaks::Http2, Speaks::Http2)] {
        let (pod, mut requests) = told(speaks, "text/event-stream; charset=utf-8").await;
        let mut plan = Plan::to([pod.address])
            .route("timeouts: {request: 500ms, idle: 50ms, total: 500ms}")
            .listener("timeouts: {header: 500ms, body: 500ms, write: 500ms, idle: 500ms}");
        if speaks == Speaks::Http2 {
            plan = plan.route("protocol: http2");
        }
        let front = plan.start().await;
        let mut sender = front.sender(client).await;
        let answer = sender.send(sender.request("GET", "/", Sent::empty())).await.unwrap();
        let send = requests.recv().await.unwrap();
        let mut events = answer.into_body();
        for n in 0..6 {
            // Each is sent when the one before has come, after a longer silence than a pod may have otherwise; and all of them
            // take longer than any limit.
            tokio::time::sleep(Duration::from_millis(120)).await;
            let event = format!("data: {n}\n\n");
            send.send(Frame::data(Bytes::from(event.clone()))).await.unwrap();
            let got = tokio::time::timeout(PATIENCE, piece(&mut events)).await.expect("the event");
            assert_eq!(got.unwrap().unwrap(), event);
        }
        // The client leaves, and the pod hears of it.
        drop((events, sender));
        tokio::time::timeout(PATIENCE, send.closed()).await.expect("the pod notices");
        idle(&front).await;
        front.router.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn s4_4_a_pod_that_falls_silent_inside_its_answer_is_cut_and_never_passed_off_as_whole() {
    for (client, limits) in [
        (Speaks::Http1, "timeouts: {idle: 400ms}"),
        (Speaks::Http2, "timeouts: {idle: 400ms}"),
        (Speaks::Http1, "timeouts: {total: 600ms}"),
        (Speaks::Http2, "timeouts: {total: 600ms}"),
    ] {
        let (pod, mut requests) = told(Speaks::Http1, "text/plain").await;
        let front = Plan::to([pod.address]).route(limits).start().await;
        let mut sender = front.sender(client).await;
        let answer = sender.send(sender.request("GET", "/", Sent::empty())).await.unwrap();
        assert_eq!(answer.status(), 200);
        let send = requests.recv().await.unwrap();
        let mut body = answer.into_body();
        send.send(Frame::data(Bytes::from("some"))).await.unwrap();
        assert_eq!(piece(&mut body).await.unwrap().unwrap(), "some");
        let end = tokio::time::timeout(PATIENCE, piece(&mut body)).await.expect("an end");
        assert!(matches!(end, Some(Err(_))), "{client:?} {limits}: {end:?}");
        tokio::time::timeout(PATIENCE, send.closed()).await.expect("the pod notices");
        idle(&front).await;
        front.router.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cut_answer_without_a_length_ends_in_a_reset_for_http_1_0() {
    let (pod, mut requests) = told(Speaks::Http1, "text/plain").await;
    let front = Plan::to([pod.address]).route("timeouts: {idle: 400ms}").start().await;
    let mut socket = front.plain().await;
    tokio::io::AsyncWriteExt::write_all(&mut socket, b"GET / HTTP/1.0\r\n\r\n").await.unwrap();
    let send = requests.recv().await.unwrap();
    send.send(Frame::data(Bytes::from("some"))).await.unwrap();
    let mut got = Vec::new();
    let end = tokio::time::timeout(PATIENCE, socket.read_to_end(&mut got)).await.expect("an end");
    assert!(end.is_err(), "a plain end would say that this is all: {:?}", String::from_utf8_lossy(&got));
    idle(&front).await;
    front.router.stop().await;
}

/// How much a pod could send, as a source of bytes without an end.
fn flood() -> (Arc<AtomicU64>, Sent) {
    let sent = Arc::<AtomicU64>::default();
    let count = Arc::clone(&sent);
    let (send, body) = Sent::frames();
    tokio::spawn(async move {
        let piece = pattern(0, 64 * 1024);
        while send.send(Frame::data(piece.clone())).await.is_ok() {
            count.fetch_add(piece.len() as u64, Ordering::Relaxed);
        }
    });
    (sent, body)
}

/// Waits until a flood stands still, and gives how much had passed.
async fn stalled(sent: &AtomicU64) -> u64 {
    let mut before = u64::MAX;
    loop {
        let now = sent.load(Ordering::Relaxed);
        if now == before && now > 0 {
            return now;
        }
        before = now;
        tokio::time::sleep(Duration::from_millis(150)).await;
    }
}

/// What the kernel may hold of one direction of two connections, and the router, are far below this.
const BOUND: u64 = 48 << 20;

#[tokio::test(flavor = "multi_thread")]
async fn who_takes_nothing_holds_back_who_sends() {
    // A pod that answers with a flood, or takes nothing of one.
    let floods = Arc::new(std::sync::Mutex::new(Vec::new()));
    let begun = Arc::clone(&floods);
    let answer = move |request: Request<Incoming>| {
        let begun = Arc::clone(&begun);
        async move {
            if request.method() == "GET" {
                let (sent, body) = flood();
                begun.lock().unwrap().push(sent);
                return Response::new(body);
            }
            let _request = request;
            std::future::pending().await
        }
    };
    for speaks in [Speaks::Http1, Speaks::Http2] {
        let pod = Pod::http(speaks, None, answer.clone()).await;
        let mut plan = Plan::to([pod.address]).route("timeouts: {idle: 1s}");
        if speaks == Speaks::Http2 {
            plan = plan.route("protocol: http2");
        }
        let front = plan.start().await;
        for client in [Speaks::Http1, Speaks::Http2] {
            let mut down = front.sender(client).await;
            let answer = down.send(down.request("GET", "/", Sent::empty())).await.unwrap();
            let sent = floods.lock().unwrap().pop().unwrap();
            let passed = stalled(&sent).await;
            assert!(passed < BOUND, "{client:?} {speaks:?}: {passed} bytes of an answer that nobody reads");
            drop((answer, down));

            let (sent, body) = flood();
            let mut up = front.sender(client).await;
            let request = up.request("POST", "/", body);
            let sending = tokio::spawn(async move { up.send(request).await.map(|_| ()) });
            let passed = stalled(&sent).await;
            assert!(passed < BOUND, "{client:?} {speaks:?}: {passed} bytes of a request that nobody reads");
            sending.abort();
        }
        idle(&front).await;
        front.router.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_takes_its_answer_slowly_but_steadily_is_not_cut() {
    let length = 2_500_000;
    let pod = raw::pod(move |mut raw| async move {
        raw.head().await.unwrap();
        raw.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n")).await;
        // The rest may meet a closed connection, where the test has failed.
        let _ = raw.try_send(vec![b'x'; length]).await;
        raw.rest().await;
    })
    .await;
    let front = Plan::to([pod.address]).listener("timeouts: {write: 400ms}").start().await;
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(16 * 1024).unwrap();
    let mut socket = socket.connect(front.address()).await.unwrap();
    tokio::io::AsyncWriteExt::write_all(&mut socket, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    let begun = Instant::now();
    let (mut got, mut buffer) = (0, vec![0; 32 * 1024]);
    while got < length {
        let read = socket.read(&mut buffer).await.unwrap_or_else(|e| panic!("cut after {got}: {e}"));
        assert_ne!(read, 0, "cut after {got} bytes and {:?}", begun.elapsed());
        got += read;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(begun.elapsed() > Duration::from_millis(1_200), "it was slow: {:?}", begun.elapsed());
    front.router.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_takes_nothing_is_cut() {
    let (pod, mut requests) = told(Speaks::Http1, "text/plain").await;
    let front = Plan::to([pod.address]).listener("timeouts: {write: 300ms}").start().await;
    let mut client = Raw::new(front.plain().await);
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let send = requests.recv().await.unwrap();
    let filling =
        tokio::spawn(async move { while send.send(Frame::data(pattern(0, 64 * 1024))).await.is_ok() {} });
    tokio::time::timeout(PATIENCE, filling).await.expect("the pod hears of it").unwrap();
    idle(&front).await;
    front.router.stop().await;
}
