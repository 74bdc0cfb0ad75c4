//! Limits and time limits, end to end, with the status and reason that each is answered with (contract §5).

use std::net::IpAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use hyper::body::Incoming;
use hyper::{Request, Response};

use super::bodies::{Sent, text, whole};
use super::front::{Front, HOST, Plan, http2};
use super::pods::{Pod, Speaks};
use super::raw::{self, Raw, header};
use crate::support::{PATIENCE, eventually};

/// Answers once it has the whole body; `/hang` never.
async fn answer(request: Request<Incoming>) -> Response<Sent> {
    if request.uri().path() == "/hang" {
        std::future::pending::<()>().await;
    }
    let got = whole(request.into_body()).await.map_or(0, |(bytes, _)| bytes.len());
    Response::new(Sent::whole(got.to_string()))
}

async fn pod() -> Pod {
    Pod::http(Speaks::Http1, None, answer).await
}

/// Sends bytes, and takes an answer that must be the router's own, and the end of the connection where there is one.
async fn refused(front: &Front, request: &str, status: u16, reason: &str) -> String {
    let mut client = Raw::new(front.plain().await);
    // It may be answered before all of it is sent.
    let _ = client.try_send(request).await;
    let head = client.head().await.unwrap_or_else(|| panic!("no answer to {request:.60}"));
    assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{request:.60}: {head}");
    assert_eq!(header(&head, "x-serinus-reason"), Some(reason), "{head}");
    if header(&head, "connection") == Some("close") {
        client.rest().await;
    }
    head
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_too_large_is_refused_with_its_reason() {
    let pod = pod().await;
    let front = Plan::to([pod.address])
        .listener("limits: {requestLine: 1KiB, headerBytes: 2KiB, headerCount: 10}")
        .route("maxBody: 100")
        .start()
        .await;
    let long = "x".repeat(3_000);
    refused(&front, &format!("GET /{long} HTTP/1.1\r\nHost: a\r\n\r\n"), 414, "uri-too-long").await;
    refused(&front, &format!("GET / HTTP/1.1\r\nHost: a\r\nX-A: {long}\r\n\r\n"), 431, "header-too-large")
        .await;
    let many = (0..10).map(|n| format!("X-{n}: 1\r\n")).collect::<String>();
    refused(&front, &format!("GET / HTTP/1.1\r\nHost: a\r\n{many}\r\n"), 431, "header-too-large").await;
    let declared = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 101\r\n\r\n";
    refused(&front, declared, 413, "body-too-large").await;
    assert_eq!(pod.connections(), 0, "no pod was troubled");
    let chunk = format!("32\r\n{}\r\n", "x".repeat(50));
    let streamed =
        format!("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{chunk}{chunk}1\r\nx\r\n");
    refused(&front, &streamed, 413, "body-too-large").await;

    let mut client = front.sender(Speaks::Http2).await;
    for (path, value, body, status, reason) in [
        (long.as_str(), "", 0, 414, "uri-too-long"),
        ("", long.as_str(), 0, 431, "header-too-large"),
        ("", "", 101, 413, "body-too-large"),
    ] {
        let mut request = client.request("POST", &format!("/{path}"), Sent::pattern(body));
        request.headers_mut().insert("x-a", value.parse().unwrap());
        let answer = client.send(request).await.unwrap();
        assert_eq!(
            (answer.status().as_u16(), &answer.headers()["x-serinus-reason"]),
            (status, &reason.parse().unwrap())
        );
    }
    // What is within them passes, on the same connection.
    let answer = client.send(client.request("POST", "/", Sent::pattern(100))).await.unwrap();
    assert_eq!(text(answer.into_body()).await, "100");
    front.router.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn s4_4_slow_clients_are_answered_408() {
    let pod = pod().await;
    let front =
        Plan::to([pod.address]).listener("timeouts: {header: 250ms, body: 1s, idle: 10s}").start().await;
    let begun = Instant::now();
    refused(&front, "GET / HTTP/1.1\r\nHos", 408, "client-timeout").await;
    refused(&front, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nabc", 408, "client-timeout")
        .await;
    assert!(begun.elapsed() >= Duration::from_millis(1_250));

    // A head that comes byte by byte, each in time, has one time for all of it.
    let mut client = Raw::new(front.plain().await);
    let begun = Instant::now();
    while client.try_send("x").await.is_ok() && client.is_quiet(Duration::from_millis(20)).await {}
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());

    // A body that comes byte by byte, each in time, is taken.
    let mut client = Raw::new(front.plain().await);
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n").await;
    for _ in 0..5 {
        tokio::time::sleep(Duration::from_millis(250)).await;
        client.send("x").await;
    }
    assert!(client.head().await.unwrap().starts_with("HTTP/1.1 200 "));

    // The same of HTTP/2: the stream is answered, the connection goes on.
    let mut client = front.sender(Speaks::Http2).await;
    let (send, body) = Sent::frames();
    let answer = client.send(client.request("POST", "/", body)).await.unwrap();
    assert_eq!(
        (answer.status().as_u16(), &answer.headers()["x-serinus-reason"]),
        (408, &"client-timeout".parse().unwrap())
    );
    drop(send);
    assert_eq!(client.send(client.request("GET", "/", Sent::empty())).await.unwrap().status(), 200);
    front.router.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_end_that_nobody_uses() {
    let pod = pod().await;
    let front = Plan::to([pod.address]).listener("timeouts: {header: 300ms, idle: 300ms}").start().await;
    // One that was used, one that never was, and one of HTTP/2.
    let mut used = Raw::new(front.plain().await);
    used.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert!(used.head().await.unwrap().starts_with("HTTP/1.1 200 "));
    assert_eq!(used.exactly(1).await, "0");
    assert_eq!(used.rest().await, "", "closed without a word");
    let mut never = Raw::new(front.plain().await);
    assert_eq!(never.rest().await, "", "closed without a word");
    let mut h2 = http2(front.plain().await).await;
    h2.ready().await.unwrap();
    eventually("told to go", || h2.is_closed().then_some(())).await;
    let open = front.router.telemetry().connections("web");
    eventually("all are closed", || (open.get() == 0).then_some(())).await;
    front.router.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn s4_4_a_pod_that_does_not_answer_in_time_is_answered_504_for() {
    let pod = pod().await;
    for limits in ["timeouts: {request: 200ms}", "timeouts: {request: 10s, total: 200ms}"] {
        let front = Plan::to([pod.address]).route(limits).start().await;
        let request = "GET /hang HTTP/1.1\r\nHost: a\r\n\r\n";
        refused(&front, request, 504, "timeout").await;
        let mut client = front.sender(Speaks::Http2).await;
        let answer = client.send(client.request("POST", "/hang", Sent::whole("x"))).await.unwrap();
        assert_eq!(
            (answer.status().as_u16(), &answer.headers()["x-serinus-reason"]),
            (504, &"timeout".parse().unwrap())
        );
        // The answer is there a moment before its request has ended.
        eventually("none is served any more", || (front.active() == 0).then_some(())).await;
        front.router.stop().await;
    }
    assert_eq!(pod.connections(), 4, "what may have been seen and took too long is not tried again");
}

#[tokio::test(flavor = "multi_thread")]
async fn s4_4_a_pod_that_takes_nothing_of_a_request_is_given_up() {
    let pod = raw::pod(|mut raw| async move {
        raw.head().await.unwrap();
        tokio::time::sleep(PATIENCE).await;
    })
    .await;
    let front = Plan::to([pod.address]).route("timeouts: {idle: 200ms}").start().await;
    let mut client = front.sender(Speaks::Http1).await;
    let answer = client.send(client.request("POST", "/", Sent::pattern(64 << 20))).await.unwrap();
    assert_eq!(
        (answer.status().as_u16(), &answer.headers()["x-serinus-reason"]),
        (504, &"timeout".parse().unwrap())
    );
    front.router.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_beyond_the_limit_wait_and_are_served_then() {
    let pod = pod().await;
    let front = Plan::to([pod.address]).listener("limits: {connections: 2}").start().await;
    let get = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    let mut held = Vec::new();
    for _ in 0..2 {
        // Both are busy, so that none is asked to leave for the third.
        let mut client = Raw::new(front.plain().await);
        client.send("GET /hang HTTP/1.1\r\nHost: a\r\n\r\n").await;
        held.push(client);
    }
    eventually("both are served", || (front.active() == 2).then_some(())).await;
    let mut third = Raw::new(front.plain().await);
    third.send(get).await;
    assert!(third.is_quiet(Duration::from_millis(400)).await, "it waits");
    assert_eq!(front.router.telemetry().connections("web").get(), 2);
    held.pop();
    assert!(third.head().await.unwrap().starts_with("HTTP/1.1 200 "));
    // One that is idle makes room by itself.
    let mut fourth = Raw::new(front.plain().await);
    fourth.send(get).await;
    assert!(fourth.head().await.unwrap().starts_with("HTTP/1.1 200 "));
    drop((held, third, fourth));
    front.router.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_beyond_the_streams_of_a_connection_wait() {
    let most = Arc::new(Mutex::new((0_u32, 0_u32)));
    let seen = Arc::clone(&most);
    let pod = Pod::http(Speaks::Http1, None, move |_: Request<Incoming>| {
        let seen = Arc::clone(&seen);
        async move {
            {
                let mut seen = seen.lock().unwrap();
                seen.0 += 1;
                seen.1 = seen.1.max(seen.0);
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
            seen.lock().unwrap().0 -= 1;
            Response::new(Sent::empty())
        }
    })
    .await;
    let front = Plan::to([pod.address]).listener("limits: {streams: 3}").start().await;
    let mut client = http2(front.plain().await).await;
    // The first one has come when the limit is known.
    let first = Request::get(format!("http://{HOST}/")).body(Sent::empty()).unwrap();
    assert_eq!(client.send_request(first).await.unwrap().status(), 200);
    let requests = (0..12).map(|_| {
        let mut client = client.clone();
        tokio::spawn(async move {
            client.ready().await.unwrap();
            let request = Request::get(format!("http://{HOST}/")).body(Sent::empty()).unwrap();
            client.send_request(request).await.unwrap().status()
        })
    });
    for status in futures::future::join_all(requests).await {
        assert_eq!(status.unwrap(), 200);
    }
    assert!((1..=3).contains(&most.lock().unwrap().1), "{:?}", most.lock().unwrap());
    front.router.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_proxy_protocol_tells_who_the_client_is() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let see = Arc::clone(&seen);
    let pod = Pod::http(Speaks::Http1, None, move |request: Request<Incoming>| {
        let text = request.headers()["x-forwarded-for"].to_str().unwrap().to_owned();
        see.lock().unwrap().push(text);
        async { Response::new(Sent::empty()) }
    })
    .await;
    let get = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    let v1 = b"PROXY TCP4 192.0.2.7 192.0.2.1 12345 80\r\n".to_vec();
    let v2 = [
        &b"\r\n\r\n\0\r\nQUIT\n\x21\x21\0\x24"[..],
        &"2001:db8::7".parse::<std::net::Ipv6Addr>().unwrap().octets(),
        &[0; 16],
        &[0x30, 0x39, 0, 80],
    ]
    .concat();
    let front = Plan::to([pod.address])
        .listener("proxyProtocol: true")
        .listener("timeouts: {header: 300ms}")
        .start()
        .await;
    for (introduction, wanted) in [(&v1, "192.0.2.7"), (&v2, "2001:db8::7")] {
        let wanted: IpAddr = wanted.parse().unwrap();
        let mut client = Raw::new(front.plain().await);
        client.send([introduction.as_slice(), get].concat()).await;
        assert!(client.head().await.unwrap().starts_with("HTTP/1.1 200 "));
        assert_eq!(seen.lock().unwrap().pop(), Some(wanted.to_string()));
    }
    // Who does not introduce its client, or says nothing at all, is not served.
    for sent in [&get[..], b""] {
        let mut client = Raw::new(front.plain().await);
        // It may be closed before all of it is sent.
        let _ = client.try_send(sent).await;
        assert_eq!(client.rest().await, "");
    }
    front.router.stop().await;
    // Nor is one that is not trusted to.
    let front = Plan::to([pod.address])
        .listener("proxyProtocol: true")
        .top("trustedProxies: [192.0.2.0/24]")
        .start()
        .await;
    let mut client = Raw::new(front.plain().await);
    let _ = client.try_send([v1.as_slice(), get].concat()).await;
    assert_eq!(client.rest().await, "");
    assert_eq!(seen.lock().unwrap().len(), 0);
    front.router.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_access_log_says_whose_a_refused_request_was() {
    let pod = pod().await;
    let plan = Plan::to([pod.address]);
    let log = plan.path("access.json");
    let front = plan
        .listener("limits: {requestLine: 1KiB, headerBytes: 2KiB, headerCount: 10}")
        .listener("timeouts: {header: 2s}")
        .top(format!("accessLog: {{file: {}}}", log.display()))
        .start()
        .await;
    let long = "x".repeat(3_000);
    refused(&front, &format!("PUT /{long} HTTP/1.1\r\nHost: a\r\n\r\n"), 414, "uri-too-long").await;
    refused(&front, &format!("GET /a?b=1 HTTP/1.1\r\nHost: a\r\nX: {long}\r\n\r\n"), 431, "header-too-large")
        .await;
    refused(&front, "GET /a HTTP/1.1\r\nHost: a\r\nContent-Length: x\r\n\r\n", 400, "bad-request").await;
    refused(&front, "GET /\x1b[2J HTTP/1.1\r\nHost: a\r\n\r\n", 400, "bad-request").await;
    refused(&front, "\x1b]0;title\x07 / HTTP/1.1\r\nHost: a\r\n\r\n", 400, "bad-request").await;
    refused(&front, "TRACE /a HTTP/1.1\r\nHost: a\r\n\r\n", 405, "method-not-allowed").await;
    refused(&front, "GET /a HTTP/1.1\r\nHost: a\r\nX: ", 408, "client-timeout").await;
    let mut client = http2(front.plain().await).await;
    let mut request = Request::get("http://a/b?c=d");
    for n in 0..12 {
        request = request.header(format!("x-{n}"), "1");
    }
    let answer = client.send_request(request.body(Sent::empty()).unwrap()).await.unwrap();
    assert_eq!(answer.status(), 431);
    drop(client);
    front.router.stop().await;
    let text = std::fs::read_to_string(log).unwrap();
    let told: Vec<_> = text
        .lines()
        .map(|line| {
            let line: serde_json::Value = serde_json::from_str(line).unwrap();
            let text = |name: &str| line[name].as_str().unwrap().to_owned();
            assert_eq!((text("client").as_str(), &line["route"]), ("127.0.0.1", &serde_json::Value::Null));
            format!("{} {} {} {}", line["status"], text("method"), text("host"), text("path"))
        })
        .collect();
    assert_eq!(
        told,
        [
            "414 PUT  ",
            "431 GET a /a?b=1",
            "400 GET a /a",
            "400 GET a ",
            "400   ",
            "405 TRACE a /a",
            "408 GET a /a",
            "431 GET a /b?c=d",
        ]
    );
    assert_eq!(pod.connections(), 0, "no pod was troubled");
}
