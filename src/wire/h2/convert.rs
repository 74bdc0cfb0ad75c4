//! Heads of HTTP/2 to ours and back: what RFC 9113 §8 asks for beyond what `h2` has checked.
//!
//! `h2` resets streams whose pseudo-header fields are missing, repeated or out of place, that have upper-case names,
//! connection-specific fields, or a content-length that the content does not keep to. The rest is here.

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::uri::{Authority, PathAndQuery, Scheme, Uri};
use http::{Method, Request, Response, Version as HttpVersion, request, response};

use crate::model::{Edge, Underscores};
use crate::wire::parse::{Kind, LONGEST_METHOD, MOST_FIELDS, check_authority, may_trail, normalise_target};
use crate::wire::{Fields, Glimpse, Length, Refused, RequestHead, ResponseHead, Version, grpc};

/// What is made room for beside a request's own fields: how many more the router adds, and how many bytes they have.
const MORE_FIELDS: usize = 6;
const MORE_BYTES: usize = 256;
/// The length of a request line, less its method and target.
const REQUEST_LINE: usize = " ".len() + " HTTP/1.1".len();

/// The head of a client's request.
///
/// # Errors
/// When it is malformed, ambiguous, over a limit, or a method that is not relayed.
pub(super) fn request_head(parts: &request::Parts, edge: &Edge) -> Result<RequestHead, Refused> {
    if [Method::CONNECT, Method::TRACE].iter().any(|m| m.as_str().eq_ignore_ascii_case(parts.method.as_str()))
    {
        return Err(Refused { status: 405, what: "CONNECT and TRACE are not relayed" });
    }
    let mut head =
        RequestHead { method: parts.method.clone(), version: Version::Http2, ..RequestHead::default() };
    if parts.uri.scheme().is_some_and(|s| *s != Scheme::HTTP && *s != Scheme::HTTPS) {
        return Err(Refused::bad("`:scheme` is neither http nor https"));
    }
    let target = parts.uri.path_and_query().map_or("", PathAndQuery::as_str);
    if parts.method.as_str().len() + target.len() + REQUEST_LINE > edge.request_line {
        return Err(Refused { status: 414, what: "the target is longer than the listener's limit" });
    }
    if target == "*" && parts.method == Method::OPTIONS {
        head.target.push('*');
    } else {
        normalise_target(target, edge, &mut head.target)?;
    }
    authority(parts, &mut head.authority)?;
    fields(&parts.headers, edge, &mut head)?;
    Ok(head)
}

/// What is known of a request that is refused.
pub(super) fn glimpse(parts: &request::Parts, edge: &Edge) -> Glimpse {
    let mut seen = Glimpse::default();
    if parts.method.as_str().len() <= LONGEST_METHOD {
        seen.method = Some(parts.method.clone());
    }
    if authority(parts, &mut seen.authority).is_err() {
        seen.authority.clear();
    }
    let target = parts.uri.path_and_query().map_or("", PathAndQuery::as_str);
    if normalise_target(target, edge, &mut seen.target).is_err() {
        seen.target.clear();
    }
    seen
}

/// Who is asked: `:authority`, or `Host` where there is none; one that both agree on (RFC 9113 §8.3.1).
fn authority(parts: &request::Parts, out: &mut String) -> Result<(), Refused> {
    let mut hosts = parts.headers.get_all(header::HOST).iter();
    let host = match (hosts.next(), hosts.next()) {
        (_, Some(_)) => return Err(Refused::bad("`Host` is repeated")),
        (Some(host), None) => {
            Some(host.to_str().map_err(|_| Refused::bad("`Host` has bytes that are no text"))?)
        }
        (None, None) => None,
    };
    let named = match (parts.uri.authority().map(Authority::as_str), host) {
        (None, None) => return Err(Refused::bad("neither `:authority` nor `Host` says who is asked")),
        (Some(authority), Some(host)) if !authority.eq_ignore_ascii_case(host) => {
            return Err(Refused::bad("`:authority` and `Host` differ"));
        }
        (Some(authority), _) => authority,
        (None, Some(host)) => host,
    };
    check_authority(named.as_bytes())?;
    out.push_str(named);
    Ok(())
}

/// The fields, with crumbs of cookies put together (RFC 9113 §8.2.3): HTTP/1 has one `Cookie` at most.
fn fields(headers: &HeaderMap, edge: &Edge, head: &mut RequestHead) -> Result<(), Refused> {
    let crumbs = headers.get_all(header::COOKIE).iter().count();
    if headers.len().saturating_sub(crumbs.saturating_sub(1)) > edge.header_count.min(MOST_FIELDS) {
        return Err(Refused { status: 431, what: "more header fields than the listener's limit" });
    }
    let bytes: usize =
        headers.iter().map(|(name, value)| name.as_str().len() + value.len() + ": \r\n".len()).sum();
    if bytes > edge.header_bytes {
        return Err(Refused { status: 431, what: "the header fields are longer than the listener's limit" });
    }
    // With room for those that tell the pod of the client.
    head.fields.reserve(headers.len() + MORE_FIELDS, bytes + head.authority.len() + MORE_BYTES);
    head.fields.append("host", &head.authority);
    for (name, value) in headers {
        let text = name.as_str();
        if value.as_bytes().trim_ascii().len() < value.len() {
            return Err(Refused::bad("a field's value begins or ends with white space"));
        }
        if text.contains('_') {
            match edge.underscores {
                Underscores::Drop => continue,
                Underscores::Reject => return Err(Refused::bad("a field's name has an underscore")),
                Underscores::Pass => {}
            }
        }
        match Kind::of(text.as_bytes()) {
            Kind::Expect if value.as_bytes().eq_ignore_ascii_case(b"100-continue") => {
                head.expects_continue = true;
            }
            Kind::Expect => return Err(Refused { status: 417, what: "only 100-continue can be expected" }),
            // `h2` has seen to it that it is `trailers`: servers of gRPC look for it.
            Kind::Te => head.fields.append("te", "trailers"),
            Kind::Other if *name != header::COOKIE => head.fields.append(text, value.as_bytes()),
            Kind::Connection
            | Kind::ContentLength
            | Kind::Hop
            | Kind::Host
            | Kind::TransferEncoding
            | Kind::Upgrade
            | Kind::Other => {}
        }
    }
    if crumbs > 0 {
        head.fields.append("cookie", cookie(headers));
    }
    Ok(())
}

fn cookie(headers: &HeaderMap) -> Vec<u8> {
    let mut joined = Vec::new();
    for crumb in headers.get_all(header::COOKIE) {
        if !joined.is_empty() {
            joined.extend_from_slice(b"; ");
        }
        joined.extend_from_slice(crumb.as_bytes());
    }
    joined
}

/// What `Content-Length` says; `h2` has seen to it that there is one at most, and that it is kept to.
pub(super) fn content_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// Trailer fields, less those that have no business there.
///
/// # Errors
/// When there are more than `most`.
pub(super) fn trailers(map: &HeaderMap, most: usize, underscores: Underscores) -> Result<Fields, Refused> {
    if map.len() > most {
        return Err(Refused { status: 431, what: "more trailer fields than the limit" });
    }
    let mut fields = Fields::default();
    for (name, value) in map {
        let name = name.as_str();
        if underscores != Underscores::Pass && name.contains('_') {
            if underscores == Underscores::Reject {
                return Err(Refused::bad("a trailer field's name has an underscore"));
            }
            continue;
        }
        if may_trail(name) {
            fields.append(name, value.as_bytes().trim_ascii());
        }
    }
    Ok(fields)
}

/// The head of a pod's answer. `Content-Length` stays where there is no body and it tells of another.
///
/// # Errors
/// When it is a 101, which HTTP/2 has not (RFC 9113 §8.6).
pub(super) fn response_head(
    parts: &response::Parts,
    bodiless: bool,
    head: &mut ResponseHead,
) -> Result<(), Refused> {
    if parts.status == http::StatusCode::SWITCHING_PROTOCOLS {
        return Err(Refused::bad("a 101, which HTTP/2 does not have"));
    }
    head.status = parts.status;
    head.version = Version::Http2;
    head.upgrade.clear();
    head.fields.clear();
    let mut told = false;
    for (name, value) in &parts.headers {
        let text = name.as_str();
        let kept = match Kind::of(text.as_bytes()) {
            Kind::ContentLength => bodiless && !std::mem::replace(&mut told, true),
            Kind::Expect | Kind::Host | Kind::Other => true,
            Kind::Connection | Kind::Hop | Kind::Te | Kind::TransferEncoding | Kind::Upgrade => false,
        };
        if kept {
            head.fields.append(text, value.as_bytes().trim_ascii());
        }
    }
    Ok(())
}

/// A request to a pod.
///
/// # Errors
/// When its authority or target cannot be said in HTTP/2.
pub(super) fn outgoing_request(
    head: &RequestHead,
    length: Length,
    scheme: &Scheme,
) -> Result<Request<()>, Refused> {
    let mut uri = http::uri::Parts::default();
    uri.path_and_query = Some(sayable(&head.target)?);
    let mut version = HttpVersion::HTTP_2;
    if head.authority.is_empty() {
        // A request of HTTP/1.0 without Host: `h2` takes one without an authority as relayed from HTTP/1 alone.
        version = HttpVersion::HTTP_11;
    } else {
        let authority = Authority::try_from(head.authority.as_str());
        uri.authority =
            Some(authority.map_err(|_| Refused::bad("the authority cannot be sent over HTTP/2"))?);
        uri.scheme = Some(scheme.clone());
    }
    let mut request = Request::new(());
    *request.uri_mut() =
        Uri::from_parts(uri).map_err(|_| Refused::bad("the target cannot be sent over HTTP/2"))?;
    *request.method_mut() = head.method.clone();
    *request.version_mut() = version;
    let asked = head.fields.elements("te").any(|element| element.eq_ignore_ascii_case(b"trailers"));
    let grpc = head.fields.get("content-type").is_some_and(grpc::is_grpc);
    let map = request.headers_mut();
    fill(map, &head.fields, |name| Kind::of(name) == Kind::Other);
    if asked || grpc {
        map.insert(header::TE, HeaderValue::from_static("trailers"));
    }
    if let Length::Exactly(bytes) = length {
        map.insert(header::CONTENT_LENGTH, HeaderValue::from(bytes));
    }
    Ok(request)
}

/// A target as `http` takes it: some bytes that clients leave as they are, it wants escaped.
fn sayable(target: &str) -> Result<PathAndQuery, Refused> {
    if let Ok(target) = PathAndQuery::try_from(target) {
        return Ok(target);
    }
    let escaped = target.replace('"', "%22").replace('<', "%3C").replace('>', "%3E").replace('`', "%60");
    PathAndQuery::try_from(escaped).map_err(|_| Refused::bad("the target cannot be sent over HTTP/2"))
}

/// An answer to a client. `Content-Length` of `head` stays where the answer ends with it.
pub(super) fn outgoing_response(head: &ResponseHead, length: Length) -> Response<()> {
    let mut response = Response::new(());
    *response.status_mut() = head.status;
    let map = response.headers_mut();
    fill(map, &head.fields, |name| matches!(Kind::of(name), Kind::Other | Kind::Expect | Kind::Host));
    match length {
        Length::None => {
            if let Some(told) =
                head.fields.get("content-length").and_then(|v| HeaderValue::from_bytes(v).ok())
            {
                map.insert(header::CONTENT_LENGTH, told);
            }
        }
        Length::Exactly(bytes) => {
            map.insert(header::CONTENT_LENGTH, HeaderValue::from(bytes));
        }
        Length::Unknown => {}
    }
    response
}

/// Trailers to either side.
pub(super) fn outgoing_trailers(fields: &Fields) -> HeaderMap {
    let mut map = HeaderMap::new();
    fill(&mut map, fields, |name| Kind::of(name) == Kind::Other);
    map
}

/// Puts those fields into a map whose name is to be kept. What is no field at all was refused when it was read; it is left
/// out.
fn fill(map: &mut HeaderMap, fields: &Fields, keep: impl Fn(&[u8]) -> bool) {
    map.reserve(fields.len());
    for (name, value) in fields.iter().filter(|(name, _)| keep(name)) {
        if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(name), HeaderValue::from_bytes(value)) {
            // Fails beyond 24,576 fields; limits are far below.
            let _ = map.try_append(name, value);
        }
    }
}

#[cfg(test)]
#[path = "convert_tests.rs"]
mod tests;
