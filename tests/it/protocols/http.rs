//! HTTP/1 and HTTP/2 in front of pods of either kind.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use hyper::body::{Frame, Incoming};
use hyper::{HeaderMap, Request, Response};

use super::bodies::{Sent, check_pattern, frame, pattern, text, whole};
use super::front::{Front, HOST, Plan, Sender};
use super::pods::{Pod, Speaks, nobody};
use super::raw::{self, Raw, header};
use crate::support::eventually;

const MIB: u64 = 1 << 20;

/// Sends back what comes as it comes, trailers too; or says what was asked; or streams a pattern.
async fn answer(request: Request<Incoming>) -> Response<Sent> {
    let (head, mut body) = request.into_parts();
    match head.uri.path() {
        "/echo" => {
            let (send, sent) = Sent::frames();
            tokio::spawn(async move {
                while let Some(Ok(frame)) = frame(&mut body).await {
                    if send.send(frame).await.is_err() {
                        return;
                    }
                }
            });
            let trailers = head.headers.get("x-trailers").cloned();
            let mut response = Response::new(sent);
            if let Some(names) = trailers {
                // hyper's HTTP/1 sends only trailers that were announced.
                response.headers_mut().insert("trailer", names);
            }
            response
        }
        "/pattern" => Response::new(Sent::pattern(20 * MIB)),
        "/count" => Response::new(Sent::whole(check_pattern(body).await.unwrap().to_string())),
        _ => {
            let (bytes, _) = whole(body).await.unwrap();
            Response::new(Sent::whole(format!("{} {} {}", head.method, head.uri.path(), bytes.len())))
        }
    }
}

/// Clients and pods of either version in every combination.
const PAIRS: [(Speaks, Speaks); 4] = [
    (Speaks::Http1, Speaks::Http1),
    (Speaks::Http1, Speaks::Http2),
    (Speaks::Http2, Speaks::Http1),
    (Speaks::Http2, Speaks::Http2),
];

async fn pair(client: Speaks, pod: Speaks) -> (Sender, Front, Pod) {
    let pod_ = Pod::http(pod, None, answer).await;
    let mut plan = Plan::to([pod_.address]);
    if pod == Speaks::Http2 {
        plan = plan.route("protocol: http2");
    }
    let front = plan.start().await;
    (front.sender(client).await, front, pod_)
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_pass_between_versions() {
    for (client, speaks) in PAIRS {
        let (mut sender, front, _pod) = pair(client, speaks).await;
        for (method, body, wanted) in [
            ("GET", None, "GET /a 0"),
            ("DELETE", None, "DELETE /a 0"),
            ("POST", Some("hello"), "POST /a 5"),
            ("PUT", Some(""), "PUT /a 0"),
        ] {
            let sent = body.map_or(Sent::empty(), Sent::whole);
            let answer = sender.send(sender.request(method, "/a", sent)).await.unwrap();
            assert_eq!(answer.headers()["content-length"], wanted.len().to_string().as_str());
            assert_eq!((answer.status().as_u16(), text(answer.into_body()).await.as_str()), (200, wanted));
        }
        let answer = sender.send(sender.request("HEAD", "/a", Sent::empty())).await.unwrap();
        assert_eq!(answer.headers()["content-length"], "9", "{client:?} {speaks:?}");
        assert_eq!(text(answer.into_body()).await, "");
        // Without a length: chunks in HTTP/1, as it comes in HTTP/2.
        let (send, sent) = Sent::frames();
        let request = sender.request("POST", "/a", sent);
        let sending = tokio::spawn(async move {
            for piece in ["one", "two", "three"] {
                send.send(Frame::data(Bytes::from(piece))).await.unwrap();
            }
        });
        let answer = sender.send(request).await.unwrap();
        assert_eq!(text(answer.into_body()).await, "POST /a 11");
        sending.await.unwrap();
        front.router.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn large_bodies_pass_both_ways() {
    for (client, speaks) in PAIRS {
        let (mut sender, front, _pod) = pair(client, speaks).await;
        let answer = sender.send(sender.request("POST", "/count", Sent::pattern(20 * MIB))).await.unwrap();
        assert_eq!(text(answer.into_body()).await, (20 * MIB).to_string(), "{client:?} {speaks:?}");
        let answer = sender.send(sender.request("GET", "/pattern", Sent::empty())).await.unwrap();
        assert_eq!(check_pattern(answer.into_body()).await.unwrap(), 20 * MIB, "{client:?} {speaks:?}");
        // Both at once.
        let answer = sender.send(sender.request("POST", "/echo", Sent::pattern(4 * MIB))).await.unwrap();
        assert_eq!(check_pattern(answer.into_body()).await.unwrap(), 4 * MIB, "{client:?} {speaks:?}");
        front.router.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn trailers_pass_both_ways() {
    for (client, speaks) in PAIRS {
        let (mut sender, front, _pod) = pair(client, speaks).await;
        let (send, sent) = Sent::frames();
        let mut request = sender.request("POST", "/echo", sent);
        for (name, value) in [("trailer", "x-sum"), ("x-trailers", "x-sum"), ("te", "trailers")] {
            request.headers_mut().insert(name, value.parse().unwrap());
        }
        if client == Speaks::Http1 {
            request.headers_mut().insert("connection", "te".parse().unwrap());
        }
        let sending = tokio::spawn(async move {
            send.send(Frame::data(Bytes::from("content"))).await.unwrap();
            let mut trailers = HeaderMap::new();
            trailers.insert("x-sum", "42".parse().unwrap());
            send.send(Frame::trailers(trailers)).await.unwrap();
        });
        let answer = sender.send(request).await.unwrap();
        let (bytes, trailers) = whole(answer.into_body()).await.unwrap();
        assert_eq!(bytes, b"content");
        assert_eq!(trailers.get("x-sum").map(|v| v.to_str().unwrap()), Some("42"), "{client:?} {speaks:?}");
        sending.await.unwrap();
        front.router.stop().await;
    }
}

/// A pod that sends hints before each answer.
const HINTED: &str = "HTTP/1.1 103 Early Hints\r\nLink: </style.css>\r\n\r\n\
                      HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

#[tokio::test(flavor = "multi_thread")]
async fn early_hints_pass() {
    let pod = raw::answering(HINTED).await;
    let front = Plan::to([pod.address]).start().await;
    let mut client = Raw::new(front.plain().await);
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let hint = client.head().await.unwrap();
    assert!(hint.starts_with("HTTP/1.1 103 "), "{hint}");
    assert_eq!(header(&hint, "link"), Some("</style.css>"));
    assert!(client.head().await.unwrap().starts_with("HTTP/1.1 200 "));
    assert_eq!(client.exactly(2).await, "ok");

    // HTTP/1.0 has no such thing.
    client.send("GET / HTTP/1.0\r\n\r\n").await;
    let head = client.head().await.unwrap();
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");

    let (send, connection) = h2::client::handshake(front.plain().await).await.unwrap();
    tokio::spawn(connection);
    let mut send = send.ready().await.unwrap();
    let request = http::Request::get(format!("http://{HOST}/")).body(()).unwrap();
    let (mut answer, _) = send.send_request(request, true).unwrap();
    let hint = std::future::poll_fn(|cx| answer.poll_informational(cx)).await.unwrap().unwrap();
    assert_eq!((hint.status().as_u16(), &hint.headers()["link"]), (103, &"</style.css>".parse().unwrap()));
    assert_eq!(answer.await.unwrap().status(), 200);
    drop(client);
    front.router.stop().await;
}

const EXPECTING: &str =
    "POST /count HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 1000\r\n\r\n";

#[tokio::test(flavor = "multi_thread")]
async fn a_body_is_asked_for_once_a_pod_is_there() {
    let pod = Pod::http(Speaks::Http1, None, answer).await;
    let front = Plan::to([pod.address]).route("maxBody: 1000").start().await;
    let mut client = Raw::new(front.plain().await);
    client.send(EXPECTING).await;
    assert_eq!(client.head().await.unwrap(), "HTTP/1.1 100 Continue\r\n\r\n");
    client.send(pattern(0, 1000)).await;
    assert!(client.head().await.unwrap().starts_with("HTTP/1.1 200 "));
    assert_eq!(client.exactly(4).await, "1000");

    // One byte too many: nothing of it is asked for, and no pod is troubled.
    client.send(EXPECTING.replace("1000", "1001")).await;
    let head = client.head().await.unwrap();
    assert!(head.starts_with("HTTP/1.1 413 "), "{head}");
    assert_eq!(header(&head, "x-serinus-reason"), Some("body-too-large"));
    assert_eq!(header(&head, "connection"), Some("close"), "nobody can tell whether the body comes");
    client.rest().await;
    assert_eq!(pod.connections(), 1);
    drop(client);
    front.router.stop().await;

    let front = Plan::to([nobody()]).start().await;
    let mut client = Raw::new(front.plain().await);
    client.send(EXPECTING).await;
    let head = client.head().await.unwrap();
    assert!(head.starts_with("HTTP/1.1 502 "), "not asked for in vain: {head}");
    drop(client);
    front.router.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_is_asked_for_in_http2_too() {
    let pod = Pod::http(Speaks::Http1, None, answer).await;
    let front = Plan::to([pod.address]).start().await;
    let (send, connection) = h2::client::handshake(front.plain().await).await.unwrap();
    tokio::spawn(connection);
    let mut send = send.ready().await.unwrap();
    let request = http::Request::post(format!("http://{HOST}/count"))
        .header("expect", "100-continue")
        .body(())
        .unwrap();
    let (mut answer, mut body) = send.send_request(request, false).unwrap();
    let asked = std::future::poll_fn(|cx| answer.poll_informational(cx));
    let asked = tokio::time::timeout(Duration::from_secs(5), asked).await.expect("it is asked for");
    assert_eq!(asked.unwrap().unwrap().status(), 100);
    body.send_data(pattern(0, 1000), true).unwrap();
    assert_eq!(answer.await.unwrap().status(), 200);
    front.router.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn http_1_0_clients_are_served() {
    let pod = Pod::http(Speaks::Http1, None, answer).await;
    let front = Plan::to([pod.address]).start().await;
    let mut client = Raw::new(front.plain().await);
    client.send("GET /a HTTP/1.0\r\nConnection: keep-alive\r\n\r\n").await;
    let head = client.head().await.unwrap();
    assert_eq!(header(&head, "connection"), Some("keep-alive"), "{head}");
    assert_eq!(client.exactly(8).await, "GET /a 0");
    // What has no length ends with the connection, for it knows no chunks.
    client
        .send("POST /echo HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\nContent-Length: 3\r\n\r\nabc")
        .await;
    let head = client.head().await.unwrap();
    assert_eq!((header(&head, "transfer-encoding"), header(&head, "content-length")), (None, None), "{head}");
    assert_eq!(header(&head, "connection"), Some("close"), "{head}");
    assert_eq!(client.rest().await, "abc");

    let mut client = Raw::new(front.plain().await);
    client.send("GET /a HTTP/1.0\r\n\r\n").await;
    let answer = client.rest().await;
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.ends_with("\r\n\r\nGET /a 0"), "{answer}");
    drop(client);
    front.router.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_without_content_keep_the_connection_in_step() {
    for (status, length, told) in [
        ("204 No Content", "", None),
        ("304 Not Modified", "", None),
        ("304 Not Modified", "Content-Length: 700\r\n", Some("700")),
    ] {
        let pod = raw::answering(format!("HTTP/1.1 {status}\r\n{length}X-A: b\r\n\r\n")).await;
        let front = Plan::to([pod.address]).start().await;
        let mut client = Raw::new(front.plain().await);
        for _ in 0..3 {
            client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
            let head = client.head().await.unwrap();
            assert!(head.starts_with(&format!("HTTP/1.1 {status}\r\n")), "{head}");
            assert_eq!((header(&head, "x-a"), header(&head, "content-length")), (Some("b"), told), "{head}");
            assert_eq!(header(&head, "transfer-encoding"), None, "{head}");
        }
        assert_eq!(pod.connections(), 1);
        let mut h2 = front.sender(Speaks::Http2).await;
        let answer = h2.send(h2.request("GET", "/", Sent::empty())).await.unwrap();
        assert_eq!(answer.status().as_str(), &status[..3]);
        assert_eq!(text(answer.into_body()).await, "");
        front.router.stop().await;
    }
    for (length, told) in
        [("", None), ("Content-Length: 700\r\n", Some("700")), ("Transfer-Encoding: chunked\r\n", None)]
    {
        let pod = raw::answering(format!("HTTP/1.1 200 OK\r\n{length}\r\n")).await;
        let front = Plan::to([pod.address]).start().await;
        let mut client = Raw::new(front.plain().await);
        for _ in 0..3 {
            client.send("HEAD / HTTP/1.1\r\nHost: a\r\n\r\n").await;
            let head = client.head().await.unwrap();
            assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
            assert_eq!(header(&head, "content-length"), told, "{head}");
        }
        assert_eq!(pod.connections(), 1, "{length:?}");
        front.router.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_comes_early_reaches_its_client() {
    let pod = raw::pod(|mut raw| async move {
        raw.head().await.unwrap();
        raw.send("HTTP/1.1 401 Unauthorized\r\nContent-Length: 4\r\nConnection: close\r\n\r\nlater").await;
        raw.rest().await;
    });
    let pod = pod.await;
    let front = Plan::to([pod.address]).start().await;
    // The client sends on and on, never all that it said, and listens only then.
    let mut client = Raw::new(front.plain().await);
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 7000000\r\n\r\n").await;
    for _ in 0..70 {
        if client.try_send(vec![b'x'; 10_000]).await.is_err() {
            break;
        }
    }
    let head = client.head().await.unwrap();
    assert!(head.starts_with("HTTP/1.1 401 "), "{head}");
    assert_eq!(client.rest().await, "late", "as much as its length says");

    let mut client = front.sender(Speaks::Http2).await;
    let (send, body) = Sent::frames();
    send.send(Frame::data(Bytes::from("begun"))).await.unwrap();
    let answer = client.send(client.request("POST", "/", body)).await.unwrap();
    assert_eq!(answer.status(), 401);
    assert_eq!(text(answer.into_body()).await, "late");
    drop((send, client));
    eventually("the requests have ended", || (front.active() == 0).then_some(())).await;
    front.router.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_http2_clients_send_in_crumbs_comes_in_one_piece() {
    let seen = Arc::new(std::sync::Mutex::new(Vec::new()));
    let see = Arc::clone(&seen);
    let pod = Pod::http(Speaks::Http1, None, move |request: Request<Incoming>| {
        let cookies = request.headers().get_all("cookie").iter();
        see.lock().unwrap().extend(cookies.map(|c| c.to_str().unwrap().to_owned()));
        async { Response::new(Sent::empty()) }
    })
    .await;
    let front = Plan::to([pod.address]).start().await;
    let mut client = front.sender(Speaks::Http2).await;
    let mut request = client.request("GET", "/", Sent::empty());
    for crumb in ["a=1", "b=2"] {
        request.headers_mut().append("cookie", crumb.parse().unwrap());
    }
    assert_eq!(client.send(request).await.unwrap().status(), 200);
    assert_eq!(*seen.lock().unwrap(), ["a=1; b=2"]);
    front.router.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn s4_5_http2_clients_are_told_to_go_and_lose_no_request() {
    let pod = Pod::http(Speaks::Http1, None, |_| async {
        tokio::time::sleep(Duration::from_millis(1_500)).await;
        Response::new(Sent::whole("late"))
    })
    .await;
    let front = Plan::to([pod.address]).start().await;
    let (send, connection) = h2::client::handshake(front.plain().await).await.unwrap();
    let connection = tokio::spawn(connection);
    let mut send = send.ready().await.unwrap();
    let request = || http::Request::get(format!("http://{HOST}/")).body(()).unwrap();
    let (answer, _) = send.send_request(request(), true).unwrap();
    eventually("it is being served", || (front.active() == 1).then_some(())).await;
    let stopping = tokio::spawn(front.router.stop());
    let mut body = answer.await.expect("what is under way is finished").into_body();
    assert_eq!(body.data().await.unwrap().unwrap(), "late");
    drop(body);
    assert!(send.ready().await.is_err(), "it was told to go (GOAWAY)");
    connection.await.unwrap().expect("a proper end");
    assert_eq!(stopping.await.unwrap(), 0, "nothing was cut");
}
