//! Tests of heads on their way from and to HTTP/2.

use super::*;

fn asking(target: &str, fields: &[(&str, &str)]) -> RequestHead {
    let mut head = RequestHead {
        target: target.to_owned(),
        authority: "a.example".to_owned(),
        ..RequestHead::default()
    };
    fields.iter().for_each(|(name, value)| head.fields.append(name, value));
    head
}

#[test]
fn requests_to_pods_have_no_fields_of_other_hops() {
    let fields = [
        ("Host", "a.example"),
        ("X-One", "1"),
        ("Connection", "x"),
        ("Upgrade", "websocket"),
        ("Content-Length", "9"),
        ("te", "gzip"),
        ("cookie", "a=1; b=2"),
    ];
    let request = outgoing_request(&asking("/a?b", &fields), Length::Exactly(3), &Scheme::HTTPS).unwrap();
    assert_eq!(request.uri(), "https://a.example/a?b");
    let mut names: Vec<_> = request.headers().keys().map(HeaderName::as_str).collect();
    names.sort_unstable();
    assert_eq!(names, ["content-length", "cookie", "x-one"]);
    assert_eq!(request.headers()["content-length"], "3");
}

#[test]
fn te_is_sent_on_for_those_who_need_it() {
    for (fields, expected) in [
        (&[("te", "trailers")][..], true),
        (&[("TE", "gzip, Trailers")], true),
        (&[("content-type", "application/grpc+proto")], true),
        (&[("content-type", "text/plain")], false),
    ] {
        let request = outgoing_request(&asking("/", fields), Length::None, &Scheme::HTTP).unwrap();
        assert_eq!(request.headers().get("te").is_some_and(|te| te == "trailers"), expected, "{fields:?}");
    }
}

#[test]
fn targets_of_every_kind_can_be_sent() {
    for (target, expected) in [
        ("/", "/"),
        ("*", "*"),
        ("/~!$&'()*+,;=:@", "/~!$&'()*+,;=:@"),
        ("/a%20b?q={\"a\":[1]}", "/a%20b?q={%22a%22:[1]}"),
        ("/a?<`>", "/a?%3C%60%3E"),
    ] {
        let request = outgoing_request(&asking(target, &[]), Length::None, &Scheme::HTTP).unwrap();
        assert_eq!(request.uri().path_and_query().unwrap().as_str(), expected);
    }
    assert!(outgoing_request(&asking("/a b", &[]), Length::None, &Scheme::HTTP).is_err());
    let mut head = asking("/", &[]);
    head.authority.clear();
    let request = outgoing_request(&head, Length::None, &Scheme::HTTP).unwrap();
    assert_eq!((request.uri().authority(), request.version()), (None, HttpVersion::HTTP_11));
}

#[test]
fn underscores_are_treated_as_the_listener_wants() {
    let request = Request::get("http://a.example/").header("x_user", "root").body(()).unwrap();
    let (parts, ()) = request.into_parts();
    let head = |underscores| request_head(&parts, &Edge { underscores, ..Edge::default() });
    assert!(head(Underscores::Drop).unwrap().fields.get("x_user").is_none());
    assert_eq!(head(Underscores::Reject).unwrap_err().status, 400);
    assert_eq!(head(Underscores::Pass).unwrap().fields.get("x_user"), Some(&b"root"[..]));
}

#[test]
fn who_is_asked_is_said_once_or_twice_the_same() {
    let head = |request: http::request::Builder| {
        let (parts, ()) = request.body(()).unwrap().into_parts();
        request_head(&parts, &Edge::default()).map(|head| head.authority)
    };
    assert_eq!(
        head(Request::get("http://A.example:80/").header("host", "a.example:80")).unwrap(),
        "A.example:80"
    );
    assert_eq!(head(Request::get("/").header("host", "[::1]:8080")).unwrap(), "[::1]:8080");
    assert!(head(Request::get("http://a.example/").header("host", "a.example:80")).is_err());
    assert!(head(Request::get("/")).is_err());
}

#[test]
fn what_is_refused_is_told_as_far_as_it_is_valid() {
    let seen = |method: &str, uri: &str, host: &str| {
        let request = Request::builder().method(method).uri(uri).header("host", host).body(()).unwrap();
        let (parts, ()) = request.into_parts();
        let edge = Edge { request_line: 100, ..Edge::default() };
        request_head(&parts, &edge).expect_err("refused");
        let seen = glimpse(&parts, &edge);
        format!("{} {} {}", seen.method.as_ref().map_or("", Method::as_str), seen.authority, seen.target)
    };
    let long = "x".repeat(100);
    assert_eq!(seen("TRACE", "http://a.example/b?c", "a.example"), "TRACE a.example /b?c");
    assert_eq!(seen("GET", "http://a.example/b", "b.example"), "GET  /b");
    assert_eq!(seen("GET", "http://a.example/%2f", "a.example"), "GET a.example ");
    assert_eq!(seen("GET", &format!("http://a.example/{long}"), "a.example"), "GET a.example ");
    assert_eq!(seen(&long, "http://a.example/b", "a.example"), " a.example /b");
}

#[test]
fn a_hundred_crumbs_are_one_cookie() {
    let mut request = Request::get("http://a.example/");
    for _ in 0..100 {
        request = request.header("cookie", "a=1");
    }
    let (parts, ()) = request.body(()).unwrap().into_parts();
    let edge = Edge { header_count: 4, ..Edge::default() };
    let head = request_head(&parts, &edge).unwrap();
    assert_eq!((head.fields.all("cookie").count(), head.fields.get("cookie").unwrap().len()), (1, 498));
}
