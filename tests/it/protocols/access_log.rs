//! The access log: both forms, what is sampled and what never is, and what it says of a connection.

use std::path::Path;

use hyper::body::Incoming;
use hyper::{Request, Response};
use rustls::client::Resumption;
use serde_json::Value;

use super::bodies::{Sent, text};
use super::front::{HOST, Plan, Sender, http2};
use super::pods::{Pod, Speaks, nobody};
use super::raw::{Raw, header};
use crate::support::certificates::Authority;

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

/// 200 with `hello`, and 500 to `/broken`.
async fn answer(request: Request<Incoming>) -> Response<Sent> {
    let broken = request.uri().path() == "/broken";
    Response::builder().status(if broken { 500 } else { 200 }).body(Sent::whole("hello")).unwrap()
}

async fn pod() -> Pod {
    Pod::http(Speaks::Http1, None, answer).await
}

/// The lines of a router that has stopped: all are written.
fn lines(log: &Path) -> Vec<String> {
    std::fs::read_to_string(log).unwrap().lines().map(ToOwned::to_owned).collect()
}

fn json(log: &Path) -> Vec<Value> {
    lines(log).iter().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Sends the head of a GET, and takes the whole answer.
async fn get(raw: &mut Raw, path: &str, fields: &str) -> u16 {
    raw.send(format!("GET {path} HTTP/1.1\r\nHost: shop.example\r\n{fields}\r\n")).await;
    let head = raw.head().await.expect("an answer");
    raw.exactly(header(&head, "content-length").expect("a length").parse().unwrap()).await;
    head[9..12].parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_line_tells_how_long_each_part_took_and_of_which_trace_it_is() {
    let pod = pod().await;
    let plan = Plan::to([pod.address]);
    let log = plan.path("access.json");
    let front = plan.top(format!("accessLog: {{file: '{}'}}", log.display())).start().await;
    let mut client = Raw::new(front.plain().await);
    let parent = format!("traceparent: 00-{TRACE}-00f067aa0ba902b7-01\r\n");
    assert_eq!(get(&mut client, "/a", &parent).await, 200);
    assert_eq!(get(&mut client, "/b", "traceparent: 00-not-valid-01\r\n").await, 200);
    front.router.stop().await;
    let lines = json(&log);
    let [first, second] = lines.as_slice() else { panic!("two lines: {lines:?}") };
    for line in &lines {
        let time = |name: &str| line[name].as_f64().unwrap_or_else(|| panic!("{name}: {line}"));
        assert!(0.0 < time("firstByteMs") && time("firstByteMs") <= time("durationMs"), "{line}");
        assert_eq!((&line["protocol"], &line["bytes"]), (&"HTTP/1.1".into(), &5.into()), "{line}");
        assert_eq!((&line["tls"], &line["pod"]), (&Value::Null, &Value::Null), "{line}");
    }
    assert!(first["connectMs"].as_f64().unwrap() <= first["firstByteMs"].as_f64().unwrap(), "{first}");
    assert_eq!(second["connectMs"], Value::Null, "the connection waited: {second}");
    assert_eq!((&first["traceId"], &second["traceId"]), (&TRACE.into(), &Value::Null));
}

#[tokio::test(flavor = "multi_thread")]
async fn as_text_a_line_is_that_of_other_servers_and_more() {
    let pod = pod().await;
    let plan = Plan::to([pod.address]);
    let log = plan.path("access.log");
    let front = plan.top(format!("accessLog: {{file: '{}', format: text}}", log.display())).start().await;
    let mut client = Raw::new(front.plain().await);
    let fields = "User-Agent: a \"b\"\\\tc\r\nReferer: http://shop.example/\r\n";
    assert_eq!(get(&mut client, "/a?b=%22", fields).await, 200);
    client.send("GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n").await;
    assert!(client.head().await.unwrap().starts_with("HTTP/1.1 400 "));
    front.router.stop().await;
    let lines = lines(&log);
    let [first, second] = lines.as_slice() else { panic!("two lines: {lines:?}") };
    let (before, after) = first.split_once("] ").unwrap();
    assert!(before.starts_with("127.0.0.1 - - [") && before.ends_with(" +0000"), "{first}");
    let upstream = pod.address;
    let wanted = format!(
        "\"GET /a?b=%22 HTTP/1.1\" 200 5 \"http://shop.example/\" \"a \\x22b\\x22\\x5C\\x09c\" host=shop.example \
         route=shop version=v1 reason=weight upstream={upstream} attempts=1 durationMs="
    );
    assert!(after.starts_with(&wanted), "{after}\n{wanted}");
    assert!(after.contains(" connectMs=") && after.contains(" firstByteMs="), "{after}");
    assert!(second.contains(" 400 ") && second.contains(" answer=bad-request attempts=0 "), "{second}");
}

#[tokio::test(flavor = "multi_thread")]
async fn with_none_of_what_went_well_all_that_went_wrong_is_there() {
    let pod = pod().await;
    let plan = Plan::to([pod.address]).route("hosts: [shop.example]");
    let log = plan.path("access.json");
    let front = plan.top(format!("accessLog: {{file: '{}', sample: 0}}", log.display())).start().await;
    let mut client = Raw::new(front.plain().await);
    for _ in 0..50 {
        assert_eq!(get(&mut client, "/", "").await, 200);
    }
    assert_eq!(get(&mut client, "/broken", "").await, 500);
    let mut sender: Sender = front.sender(Speaks::Http1).await;
    let request = Request::get("/").header("Host", "other.example").body(Sent::empty()).unwrap();
    assert_eq!(sender.send(request).await.unwrap().status(), 404);
    client.send("GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n").await;
    assert!(client.head().await.unwrap().starts_with("HTTP/1.1 400 "));
    front.router.stop().await;
    let mut told: Vec<_> =
        json(&log).iter().map(|line| format!("{} {}", line["status"], line["answer"])).collect();
    // Of two connections, either may be the first to log.
    told.sort();
    assert_eq!(told, ["400 \"bad-request\"", "404 \"no-route\"", "500 null"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_that_is_not_there_is_told_of_whatever_the_sample() {
    let plan = Plan::to([nobody()]);
    let log = plan.path("access.log");
    let text_form = format!("accessLog: {{file: '{}', sample: 0, format: text}}", log.display());
    let front = plan.top(text_form).start().await;
    let mut client = Raw::new(front.plain().await);
    assert_eq!(get(&mut client, "/", "").await, 502);
    front.router.stop().await;
    let lines = lines(&log);
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert!(lines[0].ends_with(" failure=\"no connection to the pod: refused\""), "{lines:?}");
    assert!(!lines[0].contains("connectMs") && lines[0].contains(" answer=connect-failed "), "{lines:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_line_tells_of_the_clients_tls() {
    let authority = Authority::new("a");
    let pod = pod().await;
    let plan = Plan::to([pod.address]).tls(&[&authority.issue(&[HOST])], "");
    let log = plan.path("access.json");
    let front = plan.top(format!("accessLog: {{file: '{}'}}", log.display())).start().await;
    let mut config = (*authority.client()).clone();
    config.resumption = Resumption::in_memory_sessions(8);
    for path in ["/1", "/2"] {
        let mut client = Raw::new(front.secure(&config, HOST, &[]).await.unwrap());
        assert_eq!(get(&mut client, path, "").await, 200);
    }
    let mut client = http2(front.secure(&authority.client(), HOST, &["h2"]).await.unwrap()).await;
    let request = Request::get(format!("https://{HOST}/3")).body(Sent::empty()).unwrap();
    assert_eq!(text(client.send_request(request).await.unwrap().into_body()).await, "hello");
    drop(client);
    front.router.stop().await;
    let mut lines = json(&log);
    lines.sort_by_key(|line| line["path"].to_string());
    assert_eq!(lines.len(), 3, "{lines:?}");
    let tls =
        |resumed: bool| serde_json::json!({"version": "TLSv1.3", "resumed": resumed, "serverName": HOST});
    assert_eq!(
        lines
            .iter()
            .map(|line| (line["protocol"].as_str().unwrap(), line["tls"].clone()))
            .collect::<Vec<_>>(),
        [("HTTP/1.1", tls(false)), ("HTTP/1.1", tls(true)), ("HTTP/2", tls(false))]
    );
}
