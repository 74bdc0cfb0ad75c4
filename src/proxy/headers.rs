//! What is added to, and kept from, the headers that pass (contract §5).
//!
//! Hop-by-hop fields of requests are pingora's to drop (its `HttpUpstreamRequestPolicy::standard`); those of answers are
//! dropped here.

use http::header::{self, HeaderName};
use http::{HeaderValue, StatusCode};
use pingora::http::{RequestHeader, ResponseHeader};

/// Fields that tell an upstream about the client: only this router says them.
const CLIENTS_WORD: [&str; 3] = ["Forwarded", "X-Real-IP", "X-Forwarded-Port"];

/// Fields of an answer that are for this hop alone (RFC 9110 §7.6.1). `Transfer-Encoding` is pingora's: it frames by it.
const HOP_BY_HOP: [&str; 3] = ["Keep-Alive", "Proxy-Connection", "Proxy-Authenticate"];

/// Tells the upstream who asked, for what, and under which id. What the client itself said of that is replaced: it is no
/// trusted hop.
pub(super) fn tell_upstream(
    upstream: &mut RequestHeader,
    client: Option<std::net::IpAddr>,
    scheme: &'static str,
    request_id: &str,
) -> pingora::Result<()> {
    to_origin_form(upstream);
    for name in CLIENTS_WORD {
        upstream.remove_header(name);
    }
    match client {
        Some(client) => upstream.insert_header("X-Forwarded-For", client.to_string())?,
        None => drop(upstream.remove_header("X-Forwarded-For")),
    }
    upstream.insert_header("X-Forwarded-Proto", scheme)?;
    match upstream.headers.get(header::HOST).cloned() {
        Some(host) => upstream.insert_header("X-Forwarded-Host", host)?,
        None => drop(upstream.remove_header("X-Forwarded-Host")),
    }
    upstream.insert_header("X-Request-Id", request_id)
}

/// A pod is an origin server: of a target with scheme and host it gets path and query alone (RFC 9112 §3.2.1). These are
/// what pingora's URI has of such a target; that its host is that of `Host` pingora has seen to.
fn to_origin_form(upstream: &mut RequestHeader) {
    if !upstream.raw_path().starts_with(b"/") && upstream.uri.path().starts_with('/') {
        upstream.set_uri(upstream.uri.clone());
    }
}

/// Drops what of an answer was for the hop to this router alone.
pub(super) fn drop_hop_by_hop(answer: &mut ResponseHeader) {
    if answer.status == StatusCode::SWITCHING_PROTOCOLS {
        return;
    }
    for name in HOP_BY_HOP {
        answer.remove_header(name);
    }
    let named = connection_named(answer.headers.get_all(header::CONNECTION).iter());
    for name in named {
        answer.remove_header(&name);
    }
    answer.remove_header(&header::CONNECTION);
}

/// The fields that `Connection` names, less those that frame the message.
fn connection_named<'a>(values: impl Iterator<Item = &'a HeaderValue>) -> Vec<HeaderName> {
    values
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|token| HeaderName::try_from(token.trim()).ok())
        .filter(|name| *name != header::TRANSFER_ENCODING && *name != header::CONTENT_LENGTH)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clients_word_about_itself_is_replaced() {
        let mut upstream = RequestHeader::build("GET", b"/", None).unwrap();
        for (name, value) in [
            ("Host", "shop.example.com"),
            ("X-Forwarded-For", "6.6.6.6"),
            ("x-forwarded-proto", "https"),
            ("X-Forwarded-Host", "evil"),
            ("Forwarded", "for=6.6.6.6"),
            ("X-Real-IP", "6.6.6.6"),
            ("X-Request-Id", "mine"),
            ("Traceparent", "00-abc"),
        ] {
            upstream.append_header(name, value).unwrap();
        }
        tell_upstream(&mut upstream, Some([10, 0, 0, 9].into()), "http", "id").unwrap();
        let get = |name: &str| {
            upstream.headers.get_all(name).iter().map(|v| v.to_str().unwrap()).collect::<Vec<_>>()
        };
        assert_eq!(get("x-forwarded-for"), ["10.0.0.9"]);
        assert_eq!(get("x-forwarded-proto"), ["http"]);
        assert_eq!(get("x-forwarded-host"), ["shop.example.com"]);
        assert_eq!(get("x-request-id"), ["id"]);
        assert_eq!(get("traceparent"), ["00-abc"]);
        assert!(get("forwarded").is_empty() && get("x-real-ip").is_empty());
    }

    #[test]
    fn a_pod_gets_path_and_query_alone() {
        for (target, wanted) in [
            ("http://shop.example.com/a?b=c", "/a?b=c"),
            ("https://shop.example.com", "/"),
            ("/a?b", "/a?b"),
            ("*", "*"),
        ] {
            let mut upstream = RequestHeader::build("GET", target.as_bytes(), None).unwrap();
            tell_upstream(&mut upstream, None, "http", "id").unwrap();
            assert_eq!(upstream.raw_path(), wanted.as_bytes(), "{target}");
        }
    }

    #[test]
    fn hop_by_hop_fields_of_an_answer_end_here() {
        let mut answer = ResponseHeader::build(200, None).unwrap();
        for (name, value) in [
            ("Connection", "close, X-Internal"),
            ("Connection", "Transfer-Encoding"),
            ("X-Internal", "1"),
            ("Keep-Alive", "timeout=5"),
            ("Transfer-Encoding", "chunked"),
            ("X-Kept", "1"),
        ] {
            answer.append_header(name, value).unwrap();
        }
        drop_hop_by_hop(&mut answer);
        let mut names: Vec<_> = answer.headers.keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        assert_eq!(names, ["transfer-encoding", "x-kept"]);
    }
}
