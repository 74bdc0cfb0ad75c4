//! What spans say, to the letter.

use std::net::SocketAddr;

use super::super::Traceparent;
use super::super::trace::{AttemptStart, Trace};
use super::*;
use crate::model::{PodKey, Timestamp};
use crate::telemetry::AccessEntry;

/// A request that took 100 ms and that no pod was tried for.
pub(in crate::traces) fn entry<'a>() -> AccessEntry<'a> {
    AccessEntry {
        time: Timestamp::from_millis(0),
        client: "192.0.2.7".parse().unwrap(),
        method: "GET",
        host: "shop.example",
        path: "/",
        protocol: Some("HTTP/1.1"),
        tls: None,
        status: 404,
        route: None,
        version: None,
        reason: None,
        answer: Some("no-route"),
        failure: None,
        upstream: None,
        pod: None,
        tried: Vec::new(),
        attempts: 0,
        duration_ms: 100.0,
        connect_ms: None,
        first_byte_ms: None,
        bytes: 0,
        request_id: "1",
        trace_id: None,
        referer: None,
        user_agent: None,
    }
}

fn spans(trace: Trace, entry: &AccessEntry<'_>) -> Vec<SpanData> {
    let at = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000);
    of(&Ended::new(Box::new(trace), entry, at), &InstrumentationScope::builder("serinus").build())
}

fn said(span: &SpanData) -> Vec<String> {
    let mut said: Vec<_> = span.attributes.iter().map(|kv| format!("{}={}", kv.key, kv.value)).collect();
    said.sort();
    said
}

#[test]
fn what_serinus_answers_itself_is_one_span_and_a_clients_fault_no_error() {
    let all = spans(Trace::root(), &entry());
    let [span] = all.as_slice() else { panic!("{all:?}") };
    assert_eq!((&*span.name, &span.span_kind, &span.status), ("GET", &SpanKind::Server, &Status::Unset));
    assert_eq!((span.parent_span_id, span.parent_span_is_remote), (SpanId::INVALID, false));
    assert_eq!(
        said(span),
        [
            "client.address=192.0.2.7",
            "http.request.method=GET",
            "http.response.status_code=404",
            "network.protocol.version=1.1",
            "serinus.answer=no-route",
            "serinus.attempts=0",
            "serinus.request_id=1",
            "server.address=shop.example",
            "url.path=/",
            "url.scheme=http",
        ]
    );
}

/// What pods were told, and the spans, of a request that was tried on two.
fn tried_twice() -> ([Traceparent; 3], Vec<SpanData>) {
    let pod = PodKey { namespace: "web".into(), name: "shop-1".into() };
    let mut trace = Trace::root();
    let (a, b): (SocketAddr, SocketAddr) = ("10.0.0.1:80".parse().unwrap(), "[fd00::1]:81".parse().unwrap());
    let after = Duration::from_millis;
    let start = AttemptStart { after: after(0), address: a, pod: None, tls: false, version: Some("v2") };
    let first = trace.attempt(start);
    let end =
        |why: &str| AttemptEnd { after: after(20), status: None, kind: Some("connect"), why: why.into() };
    trace.failed(end("refused"));
    trace.failed(end("not said again"));
    let start =
        AttemptStart { after: after(20), address: b, pod: Some(&pod), tls: true, version: Some("v1") };
    let second = trace.attempt(start);
    let told = [trace.traceparent(), first, second];
    let entry = AccessEntry {
        host: "[2001:db8::1]:8443",
        path: "/a?b=c",
        method: "PROPFIND",
        status: 503,
        route: Some("shop"),
        version: Some("v1"),
        reason: Some("fallback"),
        answer: None,
        connect_ms: Some(0.069),
        user_agent: Some(b"curl\xff"),
        ..entry()
    };
    (told, spans(trace, &entry))
}

#[test]
fn each_pod_that_was_tried_has_a_span_within_the_requests() {
    let (told, all) = tried_twice();
    let [request, one, two] = all.as_slice() else { panic!("{all:?}") };
    assert_eq!([request, one, two].map(|span| &*span.name), ["HTTP shop", "HTTP", "HTTP"]);
    for (span, told) in [request, one, two].into_iter().zip(told) {
        let context = &span.span_context;
        assert_eq!(format!("00-{:?}-{:?}-01", context.trace_id(), context.span_id()), told.to_string());
    }
    assert_eq!(
        [request, one, two].map(|span| (&span.span_kind, span.parent_span_id)),
        [
            (&SpanKind::Server, SpanId::INVALID),
            (&SpanKind::Client, request.span_context.span_id()),
            (&SpanKind::Client, request.span_context.span_id()),
        ]
    );
    let times = |span: &SpanData| {
        let began = span.start_time.duration_since(request.start_time).unwrap();
        (began.as_millis(), span.end_time.duration_since(span.start_time).unwrap().as_millis())
    };
    assert_eq!([request, one, two].map(times), [(0, 100), (0, 20), (20, 80)]);
}

#[test]
fn spans_say_what_became_of_a_request_and_of_its_attempts() {
    let (_, all) = tried_twice();
    let [request, one, two] = all.as_slice() else { panic!("{all:?}") };
    assert_eq!(
        [request, one, two].map(|span| &span.status),
        [&Status::error(""), &Status::error("refused"), &Status::error("")]
    );
    for wanted in [
        "error.type=503",
        "http.request.method=_OTHER",
        "http.request.method_original=PROPFIND",
        "serinus.attempts=2",
        "serinus.reason=fallback",
        "serinus.route=shop",
        "serinus.version=v1",
        "server.address=2001:db8::1",
        "server.port=8443",
        "url.path=/a",
        "url.query=b=c",
        "user_agent.original=curl\u{fffd}",
    ] {
        assert!(said(request).iter().any(|said| said == wanted), "{wanted}: {:?}", said(request));
    }
    assert_eq!(
        said(one),
        [
            "error.type=connect",
            "http.request.method=_OTHER",
            "http.request.method_original=PROPFIND",
            "network.peer.address=10.0.0.1",
            "network.peer.port=80",
            "serinus.version=v2",
            "server.address=2001:db8::1",
            "server.port=8443",
            "url.full=http://[2001:db8::1]:8443/a?b=c",
        ]
    );
    assert_eq!(
        said(two),
        [
            "error.type=503",
            "http.request.method=_OTHER",
            "http.request.method_original=PROPFIND",
            "http.request.resend_count=1",
            "http.response.status_code=503",
            "k8s.namespace.name=web",
            "k8s.pod.name=shop-1",
            "network.peer.address=fd00::1",
            "network.peer.port=81",
            "serinus.connect_ms=0.069",
            "serinus.version=v1",
            "server.address=2001:db8::1",
            "server.port=8443",
            "url.full=https://[2001:db8::1]:8443/a?b=c",
        ]
    );
}

/// The error of a request, and that of its only attempt, which ended so.
fn errors(entry: &AccessEntry<'_>, end: Option<AttemptEnd>) -> [Option<String>; 2] {
    let mut trace = Trace::root();
    let after = Duration::ZERO;
    let address = "10.0.0.1:80".parse().unwrap();
    trace.attempt(AttemptStart { after, address, pod: None, tls: false, version: None });
    if let Some(end) = end {
        trace.failed(end);
    }
    let all = spans(trace, entry);
    let [request, attempt] = all.as_slice() else { panic!("{all:?}") };
    [request, attempt].map(|span| {
        let kind = said(span).iter().find_map(|said| said.strip_prefix("error.type=").map(str::to_owned));
        assert_eq!(kind.is_some(), span.status != Status::Unset, "{span:?}");
        kind
    })
}

#[test]
fn what_went_wrong_is_said_and_what_did_not_is_not() {
    let end = |status, kind| Some(AttemptEnd { after: Duration::ZERO, status, kind, why: "words".into() });
    for (status, answer, end, wanted) in [
        (200, None, None, [None, None]),
        (404, None, None, [None, Some("404")]),
        (500, None, None, [Some("500"), Some("500")]),
        // It broke off.
        (200, Some("upstream-reset"), end(Some(200), Some("reset")), [Some("upstream-reset"), Some("reset")]),
        // It was cut, before and after its head.
        (503, Some("drain-timeout"), None, [Some("drain-timeout"); 2]),
        (200, Some("drain-timeout"), None, [Some("drain-timeout"); 2]),
        // The client left: before there was an answer, and within one.
        (499, None, end(None, Some("client")), [Some("client"), Some("client")]),
        (200, None, end(Some(200), Some("client")), [None, None]),
        // Another pod's was wanted, and there was none.
        (502, Some("connect-failed"), end(Some(503), None), [Some("connect-failed"), Some("503")]),
    ] {
        let entry = AccessEntry { status, answer, ..entry() };
        let shown = format!("{status} {answer:?} {end:?}");
        assert_eq!(errors(&entry, end).each_ref().map(Option::as_deref), wanted, "{shown}");
    }
    let entry = AccessEntry { status: 499, answer: None, ..entry() };
    assert!(
        !said(&spans(Trace::root(), &entry)[0]).iter().any(|said| said.contains("status_code")),
        "none was sent"
    );
}

#[test]
fn urls_are_whole_and_give_no_rights() {
    let mut trace = Trace::root();
    let address = "10.0.0.1:80".parse().unwrap();
    trace.attempt(AttemptStart { after: Duration::ZERO, address, pod: None, tls: false, version: None });
    let url = |host, path| {
        url(
            &Ended::new(
                Box::new(Trace::root()),
                &AccessEntry { host, path, ..entry() },
                SystemTime::UNIX_EPOCH,
            ),
            &trace.attempts[0],
        )
    };
    assert_eq!(url("a:8080", "/b?c").as_deref(), Some("http://a:8080/b?c"));
    assert_eq!(url("", "/b").as_deref(), Some("http://10.0.0.1:80/b"), "HTTP/1.0 may leave the host out");
    assert_eq!(url("a", "*"), None);
    assert_eq!(
        url("a", "/?sig=s&b=sig&Signature=").as_deref(),
        Some("http://a/?sig=REDACTED&b=sig&Signature=REDACTED")
    );
    assert_eq!(url("a", &format!("/{}", "b".repeat(2_000))).map(|url| url.len()), Some(1_024));
}

#[test]
fn what_a_client_sends_is_cut_at_a_length() {
    let path = format!("/{}", "é".repeat(2_000));
    let all = spans(Trace::root(), &AccessEntry { path: &path, ..entry() });
    let path = all[0].attributes.iter().find(|kv| kv.key.as_str() == "url.path").unwrap();
    assert_eq!(path.value.as_str().len(), 1_023, "within a letter nothing is cut");
}

#[test]
fn hosts_are_taken_apart() {
    for (authority, parts) in [
        ("", ("", None)),
        ("a", ("a", None)),
        ("a:80", ("a", Some(80))),
        ("a:", ("a", None)),
        ("a:99999", ("a", None)),
        ("[::1]", ("::1", None)),
        ("[::1]:80", ("::1", Some(80))),
    ] {
        assert_eq!(host_and_port(authority), parts, "{authority}");
    }
}
