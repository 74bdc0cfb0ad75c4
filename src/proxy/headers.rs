//! What is added to, and kept from, the headers that pass (contract §5).
//!
//! Hop-by-hop fields of requests are pingora's to drop (its `HttpUpstreamRequestPolicy::standard`); those of answers are
//! dropped here.

use std::net::IpAddr;

use http::header::{self, HeaderName};
use http::{HeaderMap, HeaderValue, StatusCode};
use ipnet::IpNet;
use pingora::http::{RequestHeader, ResponseHeader};

use super::request::{REQUEST_ID, RequestId};

const FORWARDED_FOR: &str = "X-Forwarded-For";
const FORWARDED_PROTO: &str = "X-Forwarded-Proto";
const FORWARDED_HOST: &str = "X-Forwarded-Host";
/// What this router says of a client.
const FORWARDED: [&str; 3] = [FORWARDED_FOR, FORWARDED_PROTO, FORWARDED_HOST];
/// What others may say of a client, and only trusted hops may.
const CLIENTS_WORD: [&str; 3] = ["Forwarded", "X-Real-IP", "X-Forwarded-Port"];

/// Fields of an answer that are for this hop alone (RFC 9110 §7.6.1). `Transfer-Encoding` is pingora's: it frames by it.
const HOP_BY_HOP: [&str; 3] = ["Keep-Alive", "Proxy-Connection", "Proxy-Authenticate"];

/// The hop before this one.
#[derive(Clone, Copy, Debug)]
pub(super) struct Hop {
    /// Its address.
    pub(super) address: Option<IpAddr>,
    /// Whether its word about the client counts (`trustedProxies`).
    pub(super) trusted: bool,
}

/// Tells the upstream who asked, for what, and under which id. What a trusted hop said of that is kept, and its own
/// address added; anyone else's word is replaced.
pub(super) fn tell_upstream(
    upstream: &mut RequestHeader,
    hop: Hop,
    scheme: &'static str,
    id: &RequestId,
) -> pingora::Result<()> {
    to_origin_form(upstream);
    upstream.insert_header(REQUEST_ID, id.as_str())?;
    if !hop.trusted {
        for name in CLIENTS_WORD.iter().chain(&FORWARDED) {
            upstream.remove_header(*name);
        }
    }
    if let Some(address) = hop.address {
        let mut chain = forwarded_for(&upstream.headers).collect::<Vec<_>>().join(", ");
        if !chain.is_empty() {
            chain.push_str(", ");
        }
        chain.push_str(&address.to_string());
        upstream.insert_header(FORWARDED_FOR, chain)?;
    }
    if !upstream.headers.contains_key(FORWARDED_PROTO) {
        upstream.insert_header(FORWARDED_PROTO, scheme)?;
    }
    if !upstream.headers.contains_key(FORWARDED_HOST)
        && let Some(host) = upstream.headers.get(header::HOST).cloned()
    {
        upstream.insert_header(FORWARDED_HOST, host)?;
    }
    Ok(())
}

/// The client behind trusted hops: of `X-Forwarded-For` and the hop itself, the last address that is not a trusted one.
pub(super) fn client_behind(headers: &HeaderMap, hop: IpAddr, trusted: &[IpNet]) -> IpAddr {
    let mut client = hop;
    let chain: Vec<_> = forwarded_for(headers).collect();
    for address in chain.iter().rev() {
        if !trusted.iter().any(|net| net.contains(&client)) {
            break;
        }
        match address.parse::<IpAddr>() {
            Ok(address) => client = address.to_canonical(),
            Err(_) => break,
        }
    }
    client
}

fn forwarded_for(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    let values = headers.get_all(FORWARDED_FOR).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).map(str::trim).filter(|address| !address.is_empty())
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

    fn stranger(address: [u8; 4]) -> Hop {
        Hop { address: Some(address.into()), trusted: false }
    }

    fn id(text: &'static str) -> RequestId {
        RequestId::Kept(HeaderValue::from_static(text))
    }

    #[test]
    fn a_trusted_hops_word_is_kept_and_its_address_added() {
        let mut upstream = RequestHeader::build("GET", b"/", None).unwrap();
        for (name, value) in [
            ("Host", "shop.internal"),
            ("X-Forwarded-For", "203.0.113.7, 10.1.1.1"),
            ("X-Forwarded-Proto", "https"),
            ("X-Forwarded-Host", "shop.example.com"),
            ("X-Real-IP", "203.0.113.7"),
            ("X-Request-Id", "theirs"),
        ] {
            upstream.append_header(name, value).unwrap();
        }
        let trusted: [IpNet; 1] = ["10.0.0.0/8".parse().unwrap()];
        let hop = IpAddr::from([10, 0, 0, 9]);
        let kept = RequestId::kept(&upstream).unwrap();
        assert_eq!(client_behind(&upstream.headers, hop, &trusted), IpAddr::from([203, 0, 113, 7]));
        tell_upstream(&mut upstream, Hop { address: Some(hop), trusted: true }, "http", &kept).unwrap();
        let get = |name: &str| upstream.headers.get(name).unwrap().to_str().unwrap();
        assert_eq!(get("x-forwarded-for"), "203.0.113.7, 10.1.1.1, 10.0.0.9");
        assert_eq!((get("x-forwarded-proto"), get("x-forwarded-host")), ("https", "shop.example.com"));
        assert_eq!((get("x-real-ip"), get("x-request-id")), ("203.0.113.7", "theirs"));
        // What a client wrote before its first trusted hop is not believed.
        upstream.insert_header("X-Forwarded-For", "6.6.6.6, 203.0.113.7").unwrap();
        assert_eq!(client_behind(&upstream.headers, hop, &trusted), IpAddr::from([203, 0, 113, 7]));
    }

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
        tell_upstream(&mut upstream, stranger([10, 0, 0, 9]), "http", &id("id")).unwrap();
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
            tell_upstream(&mut upstream, stranger([10, 0, 0, 9]), "http", &id("id")).unwrap();
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
