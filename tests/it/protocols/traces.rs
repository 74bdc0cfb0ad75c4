//! Tracing: what pods are told, and what a collector gets, over OTLP.

use std::sync::{Arc, Mutex};

use hyper::body::Incoming;
use hyper::{Request, Response};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, Span};
use prost::Message as _;

use super::bodies::{Sent, piece};
use super::front::{Front, Plan};
use super::pods::{Pod, Speaks, nobody};
use super::raw::{self, Raw, header};
use super::seer::versions;
use crate::support::eventually;

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

/// A collector, and what it has got.
struct Collector {
    pod: Pod,
    got: Arc<Mutex<Vec<ResourceSpans>>>,
}

impl Collector {
    async fn start() -> Self {
        let got = Arc::<Mutex<Vec<ResourceSpans>>>::default();
        let into = Arc::clone(&got);
        let pod = Pod::http(Speaks::Http1, None, move |request: Request<Incoming>| {
            let into = Arc::clone(&into);
            async move {
                assert_eq!((request.method().as_str(), request.uri().path()), ("POST", "/v1/traces"));
                assert_eq!(request.headers()["content-type"], "application/x-protobuf");
                let (mut body, mut bytes) = (request.into_body(), Vec::new());
                while let Some(data) = piece(&mut body).await {
                    bytes.extend_from_slice(&data.unwrap());
                }
                let sent = ExportTraceServiceRequest::decode(&bytes[..]).unwrap();
                into.lock().unwrap().extend(sent.resource_spans);
                Response::new(Sent::empty())
            }
        })
        .await;
        Self { pod, got }
    }

    /// Its spans of this trace, those that began first in front; it waits for so many.
    async fn spans(&self, trace: &str, count: usize) -> Vec<Span> {
        eventually("the collector has the spans", || {
            let got = self.got.lock().unwrap();
            let all = got.iter().flat_map(|of| &of.scope_spans).flat_map(|of| &of.spans);
            let mut spans: Vec<_> = all.filter(|span| hex(&span.trace_id) == trace).cloned().collect();
            spans.sort_by_key(|span| (span.start_time_unix_nano, span.kind == SpanKind::Client as i32));
            (spans.len() >= count).then_some(spans)
        })
        .await
    }

    fn is_empty(&self) -> bool {
        self.got.lock().unwrap().is_empty()
    }

    fn config(&self, sample: &str) -> String {
        format!("tracing: {{endpoint: 'http://{}', sample: {sample}}}", self.pod.address)
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn attribute(span: &Span, name: &str) -> Option<String> {
    let value = span.attributes.iter().find(|kv| kv.key == name)?.value.as_ref()?.value.as_ref()?;
    match value {
        Value::StringValue(text) => Some(text.clone()),
        Value::IntValue(number) => Some(number.to_string()),
        Value::BoolValue(_)
        | Value::DoubleValue(_)
        | Value::ArrayValue(_)
        | Value::KvlistValue(_)
        | Value::BytesValue(_)
        | Value::StringValueStrindex(_) => None,
    }
}

/// A pod that answers with what it was told of the trace.
async fn telling() -> Pod {
    Pod::http(Speaks::Http1, None, |request: Request<Incoming>| async move {
        let said = |name| {
            let all = request.headers().get_all(name).iter().map(|v| v.to_str().unwrap().to_owned());
            all.collect::<Vec<_>>().join(" and ")
        };
        Response::new(Sent::whole(format!("{}|{}", said("traceparent"), said("tracestate"))))
    })
    .await
}

/// What a pod was told: `traceparent` and `tracestate`.
async fn get(front: &Front, fields: &str) -> (String, String) {
    let mut raw = Raw::new(front.plain().await);
    raw.send(format!("GET /a?b=c HTTP/1.1\r\nHost: shop.example\r\n{fields}\r\n")).await;
    let head = raw.head().await.expect("an answer");
    let told = raw.exactly(header(&head, "content-length").expect("a length").parse().unwrap()).await;
    let (parent, state) = told.split_once('|').unwrap();
    (parent.to_owned(), state.to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_and_each_of_its_attempts_are_spans_of_the_trace_that_it_came_with() {
    let (collector, pod) = (Collector::start().await, telling().await);
    let front = Plan::to([nobody(), pod.address]).top(collector.config("0")).start().await;
    // Until one of them meets the pod that is not there first.
    let parent = format!("traceparent: 00-{TRACE}-00f067aa0ba902b7-01\r\ntracestate: a=b\r\n");
    let (mut told, mut requests, mut attempts) = (Vec::new(), 0, 0);
    while attempts == requests && requests < 50 {
        told.push(get(&front, &parent).await);
        requests += 1;
        let spans = collector.spans(TRACE, 2 * requests).await;
        attempts = spans.iter().filter(|span| span.kind == SpanKind::Client as i32).count();
    }
    let spans = collector.spans(TRACE, requests + attempts).await;
    assert_eq!((spans.len(), attempts), (2 * requests + 1, requests + 1), "one was tried twice: {spans:?}");
    let servers: Vec<_> = spans.iter().filter(|span| span.kind == SpanKind::Server as i32).collect();
    assert!(servers.iter().all(|span| hex(&span.parent_span_id) == "00f067aa0ba902b7"));
    let request = servers.last().unwrap();
    assert_eq!(request.name, "GET shop");
    for (name, wanted) in [
        ("serinus.route", "shop"),
        ("serinus.version", "v1"),
        ("serinus.reason", "weight"),
        ("serinus.attempts", "2"),
        ("http.response.status_code", "200"),
        ("url.path", "/a"),
        ("url.query", "b=c"),
        ("client.address", "127.0.0.1"),
        ("network.protocol.version", "1.1"),
    ] {
        assert_eq!(attribute(request, name).as_deref(), Some(wanted), "{name}: {request:?}");
    }
    let own: Vec<_> = spans.iter().filter(|span| span.parent_span_id == request.span_id).collect();
    let [first, second] = own.as_slice() else { panic!("two attempts: {own:?}") };
    assert_eq!(attribute(first, "error.type").as_deref(), Some("connect"));
    assert_eq!(attribute(second, "http.response.status_code").as_deref(), Some("200"));
    assert_eq!(attribute(second, "network.peer.port"), Some(pod.address.port().to_string()));
    assert!(request.start_time_unix_nano <= first.start_time_unix_nano);
    assert!(first.end_time_unix_nano <= second.start_time_unix_nano);
    assert!(second.end_time_unix_nano <= request.end_time_unix_nano);
    // The pod goes on with the attempt that it had, and with what others have added.
    let (parent, state) = told.last().unwrap();
    assert_eq!(
        (parent.as_str(), state.as_str()),
        (&*format!("00-{TRACE}-{}-01", hex(&second.span_id)), "a=b")
    );
    let resource = collector.got.lock().unwrap()[0].resource.clone().unwrap();
    let resource = Span { attributes: resource.attributes, ..Span::default() };
    assert_eq!(attribute(&resource, "service.name").as_deref(), Some("serinus"));
    assert_eq!(attribute(&resource, "service.version").as_deref(), Some(env!("CARGO_PKG_VERSION")));
    front.router.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn where_nobody_has_decided_the_sample_does_and_the_pod_is_told() {
    let (collector, pod) = (Collector::start().await, telling().await);
    for (sample, flags) in [("100", "01"), ("0", "00")] {
        let plan = Plan::to([pod.address]);
        let log = plan.path("access.json");
        let log_config = format!("accessLog: {{file: '{}'}}", log.display());
        let front = plan.top(collector.config(sample)).top(log_config).start().await;
        let not_valid = "traceparent: 00-not-valid-01\r\ntracestate: a=b\r\n";
        let mut all = Vec::new();
        for fields in ["", "tracestate: a=b\r\n", not_valid] {
            let (parent, state) = get(&front, fields).await;
            let parts: Vec<_> = parent.split('-').collect();
            let [version, trace, span, said] = parts.as_slice() else { panic!("{parent}") };
            assert_eq!((*version, trace.len(), span.len(), *said), ("00", 32, 16, flags), "{parent}");
            assert_eq!(state, "", "of another trace, or of none");
            all.push((*trace).to_owned());
        }
        front.router.stop().await;
        // The access log has the trace too, whoever began it.
        let lines = std::fs::read_to_string(log).unwrap();
        assert!(all.iter().all(|trace| lines.contains(&format!("\"traceId\":\"{trace}\""))), "{lines}");
        if sample == "100" {
            // What waited at the end was sent.
            for trace in &all {
                assert_eq!(collector.spans(trace, 2).await.len(), 2);
            }
            collector.got.lock().unwrap().clear();
        }
    }
    assert!(collector.is_empty(), "none of those that were not drawn");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_asked_and_does_not_record_is_passed_on_as_it_is() {
    let (collector, pod) = (Collector::start().await, telling().await);
    let front = Plan::to([pod.address]).top(collector.config("100")).start().await;
    let parent = format!("00-{TRACE}-00f067aa0ba902b7-00");
    let told = get(&front, &format!("traceparent: {parent}\r\ntracestate: a=b\r\n")).await;
    assert_eq!(told, (parent, "a=b".to_owned()));
    front.router.stop().await;
    assert!(collector.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_serinus_answers_itself_is_traced_too() {
    let collector = Collector::start().await;
    let front =
        Plan::to([nobody()]).top(collector.config("100")).route("hosts: [shop.example]").start().await;
    let parent = format!("traceparent: 00-{TRACE}-00f067aa0ba902b7-01\r\n");
    let mut raw = Raw::new(front.plain().await);
    raw.send(format!("GET / HTTP/1.1\r\nHost: shop.example\r\n{parent}\r\n")).await;
    assert!(raw.head().await.unwrap().starts_with("HTTP/1.1 502 "));
    let spans = collector.spans(TRACE, 2).await;
    assert_eq!(attribute(&spans[0], "error.type").as_deref(), Some("connect-failed"));
    assert_eq!(spans[0].status.as_ref().unwrap().message, "no connection to the pod: refused");
    let mut raw = Raw::new(front.plain().await);
    raw.send(format!("GET / HTTP/1.1\r\nHost: other.example\r\n{parent}\r\n")).await;
    assert!(raw.head().await.unwrap().starts_with("HTTP/1.1 404 "));
    let spans = collector.spans(TRACE, 3).await;
    let last = spans.last().unwrap();
    assert_eq!((last.name.as_str(), attribute(last, "serinus.answer").as_deref()), ("GET", Some("no-route")));
    front.router.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_broke_off_is_an_error_though_it_began_well() {
    let collector = Collector::start().await;
    let pod = raw::pod(|mut raw| async move {
        raw.head().await;
        raw.send("HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nfour").await;
    })
    .await;
    let front = Plan::to([pod.address]).top(collector.config("0")).start().await;
    let mut raw = Raw::new(front.plain().await);
    let parent = format!("traceparent: 00-{TRACE}-00f067aa0ba902b7-01\r\n");
    raw.send(format!("GET / HTTP/1.1\r\nHost: shop.example\r\n{parent}\r\n")).await;
    assert!(raw.head().await.unwrap().starts_with("HTTP/1.1 200 "));
    assert_eq!(raw.exactly(4).await, "four");
    let spans = collector.spans(TRACE, 2).await;
    let said = |name| spans.iter().map(|span| attribute(span, name).unwrap_or_default()).collect::<Vec<_>>();
    assert_eq!(said("http.response.status_code"), ["200", "200"]);
    assert_eq!(said("error.type"), ["upstream-reset", "reset"]);
    front.router.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_has_the_requests_own_span_above_it() {
    let (collector, pod) = (Collector::start().await, telling().await);
    let told = Arc::<Mutex<Vec<String>>>::default();
    let into = Arc::clone(&told);
    let mirror = Pod::http(Speaks::Http1, None, move |request: Request<Incoming>| {
        let parent = request.headers()["traceparent"].to_str().unwrap().to_owned();
        into.lock().unwrap().push(parent);
        async { Response::new(Sent::empty()) }
    })
    .await;
    let mut plan = Plan::to([pod.address]).top(collector.config("0")).route(versions("weight: 0"));
    plan.pods.push((mirror.address, "v2"));
    let front = plan.route("mirror: {version: v2, percent: 100}").start().await;
    let parent = format!("traceparent: 00-{TRACE}-00f067aa0ba902b7-01\r\n");
    let (attempt, _) = get(&front, &parent).await;
    let copy = eventually("the copy has come", || told.lock().unwrap().pop()).await;
    let spans = collector.spans(TRACE, 2).await;
    let of = |span: &Span| format!("00-{TRACE}-{}-01", hex(&span.span_id));
    assert_eq!((copy, attempt), (of(&spans[0]), of(&spans[1])));
    front.router.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_is_away_is_told_of_and_costs_no_request() {
    let (pod, away) = (telling().await, nobody());
    let plan = Plan::to([pod.address]).top(format!("tracing: {{endpoint: 'http://{away}', sample: 100}}"));
    let front = plan.start().await;
    for _ in 0..3 {
        get(&front, "").await;
    }
    let telemetry = Arc::clone(front.router.telemetry());
    let count = move |result: &str| -> u64 {
        let name = format!("serinus_trace_spans_total{{result=\"{result}\"}} ");
        telemetry.text().lines().find_map(|line| line.strip_prefix(&name)?.parse().ok()).unwrap()
    };
    eventually("the spans are counted as lost", || (count("failure") == 6).then_some(())).await;
    assert_eq!((count("success"), count("dropped")), (0, 0));
    front.router.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_tracing_what_others_say_is_passed_on() {
    let pod = telling().await;
    let front = Plan::to([pod.address]).start().await;
    let parent = format!("00-{TRACE}-00f067aa0ba902b7-01");
    let told = get(&front, &format!("traceparent: {parent}\r\ntracestate: a=b\r\n")).await;
    assert_eq!(told, (parent, "a=b".to_owned()));
    assert_eq!(get(&front, "").await, (String::new(), String::new()));
    front.router.stop().await;
}
