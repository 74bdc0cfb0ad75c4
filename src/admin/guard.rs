//! Who may read, who may write, and what a web page may not do (contract §3).
//!
//! A browser sends a page's requests to loopback addresses too, so a page must be kept out even where no token is asked for:
//! `Origin` and `Sec-Fetch-Site` tell of another origin, a JSON content type cannot be sent across origins without asking,
//! and a `Host` that is not loopback tells of a name that was made to point here (DNS rebinding).

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};

use super::body;
use super::problem::Refused;
use super::token::TokenFile;
use super::wire::{AccessStatus, WriteNeed};

/// Where a request comes from.
#[derive(Clone, Copy, Debug)]
pub(super) struct Peer(pub(super) SocketAddr);

/// Who writes, as the history shows it.
#[derive(Clone, Debug)]
pub(super) struct Who(pub(super) String);

/// What is asked of requests.
#[derive(Debug)]
pub(super) struct Gate {
    /// The token that lets one write.
    pub(super) token: Option<TokenFile>,
    /// Whether the listener is on a loopback address.
    pub(super) on_loopback: bool,
}

/// Whether a request carries the token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Carries {
    Token,
    Nothing,
    /// No token is asked for, so none can be right.
    NoneAsked,
}

/// Lets a read through.
pub(super) async fn read(State(gate): State<Arc<Gate>>, request: Request, next: Next) -> Response {
    let (mut head, body) = request.into_parts();
    match gate.check_read(&head).await {
        Ok(access) => {
            head.extensions.insert(access);
            next.run(Request::from_parts(head, body)).await
        }
        Err(refused) => refused.into_response(),
    }
}

/// Lets a write through.
pub(super) async fn write(State(gate): State<Arc<Gate>>, request: Request, next: Next) -> Response {
    let (mut head, body) = request.into_parts();
    match gate.check_write(&head).await {
        Ok(who) => {
            head.extensions.insert(who);
            next.run(Request::from_parts(head, body)).await
        }
        Err(refused) => refused.into_response(),
    }
}

/// Lets through what needs no token, unless a browser was led here by a foreign name.
pub(super) async fn open(request: Request, next: Next) -> Response {
    let (head, body) = request.into_parts();
    match peer(&head).and_then(|peer| check_host(peer, &head)) {
        Ok(()) => next.run(Request::from_parts(head, body)).await,
        Err(refused) => refused.into_response(),
    }
}

impl Gate {
    /// Whether it may read; and what it might do beyond.
    async fn check_read(&self, head: &Parts) -> Result<AccessStatus, Refused> {
        let peer = peer(head)?;
        let carries = self.carries(&head.headers).await?;
        let access = self.access(carries, peer);
        match carries {
            Carries::Token => return Ok(access),
            Carries::Nothing if !is_loopback(peer) => return Err(token_missing()),
            Carries::Nothing | Carries::NoneAsked => {}
        }
        check_host(peer, head).map(|()| access)
    }

    /// What [`Self::check_write`] makes of where a request is from and what it carries.
    fn access(&self, carries: Carries, peer: IpAddr) -> AccessStatus {
        let (write, needs) = match carries {
            Carries::Token => (true, WriteNeed::Token),
            Carries::Nothing => (false, WriteNeed::Token),
            Carries::NoneAsked if self.on_loopback && is_loopback(peer) => (true, WriteNeed::Nothing),
            Carries::NoneAsked => (false, WriteNeed::Listener),
        };
        AccessStatus { write, needs }
    }

    async fn check_write(&self, head: &Parts) -> Result<Who, Refused> {
        let peer = peer(head)?;
        let headers = &head.headers;
        check_origin(headers)?;
        let carries = self.carries(headers).await?;
        if carries != Carries::Token {
            check_host(peer, head)?;
        }
        match carries {
            Carries::Token => {}
            Carries::Nothing => return Err(token_missing()),
            Carries::NoneAsked if self.on_loopback && is_loopback(peer) => {}
            Carries::NoneAsked => return Err(writes_are_off()),
        }
        // Without a token even a request without a body must carry what a page cannot send unasked.
        if carries != Carries::Token && !body::is_json(headers) {
            return Err(body::not_json());
        }
        Ok(Who(if carries == Carries::Token { format!("token@{peer}") } else { peer.to_string() }))
    }

    async fn carries(&self, headers: &HeaderMap) -> Result<Carries, Refused> {
        let Some(token) = &self.token else { return Ok(Carries::NoneAsked) };
        let mut offered = headers.get_all(header::AUTHORIZATION).iter();
        let offered = match (offered.next(), offered.next()) {
            (None, _) => return Ok(Carries::Nothing),
            (Some(only), None) => bearer(only.as_bytes()),
            (Some(_), Some(_)) => None,
        };
        let Some(offered) = offered else { return Err(token_wrong()) };
        match token.accepts(offered).await {
            Ok(true) => Ok(Carries::Token),
            Ok(false) => Err(token_wrong()),
            Err(_) => Err(Refused::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "token-file",
                "the router cannot read its token file (`admin.tokenFile`), so nothing is changed; its log says why",
            )),
        }
    }
}

/// The token of `Bearer TOKEN`.
fn bearer(value: &[u8]) -> Option<&[u8]> {
    let (scheme, token) = value.split_at_checked("Bearer ".len())?;
    scheme.eq_ignore_ascii_case(b"Bearer ").then(|| token.trim_ascii())
}

fn token_missing() -> Refused {
    Refused::new(
        StatusCode::UNAUTHORIZED,
        "token-missing",
        "this needs the token: send `Authorization: Bearer TOKEN` (the client commands: --token-file FILE or \
         SERINUS_TOKEN_FILE)",
    )
    .with_challenge("Bearer realm=\"serinus\"")
}

fn token_wrong() -> Refused {
    Refused::new(
        StatusCode::UNAUTHORIZED,
        "token-wrong",
        "the token is not the one in the router's token file (`admin.tokenFile`): check the file or Secret that you \
         take it from",
    )
    .with_challenge("Bearer realm=\"serinus\", error=\"invalid_token\"")
}

fn writes_are_off() -> Refused {
    Refused::new(
        StatusCode::FORBIDDEN,
        "writes-off",
        "this router has no `admin.tokenFile`, so it takes changes on a loopback listener only: set `admin.tokenFile`, \
         or let `admin.address` be 127.0.0.1:9901 and use `kubectl port-forward`",
    )
}

fn peer(head: &Parts) -> Result<IpAddr, Refused> {
    let peer = head.extensions.get::<Peer>().map(|Peer(address)| address.ip().to_canonical());
    peer.ok_or_else(|| {
        Refused::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", "the request's origin is unknown")
    })
}

pub(super) fn is_loopback(address: IpAddr) -> bool {
    address.to_canonical().is_loopback()
}

/// Refuses a request from loopback for a host that is not: a page whose name was made to point here (DNS rebinding).
fn check_host(peer: IpAddr, head: &Parts) -> Result<(), Refused> {
    if !is_loopback(peer) {
        return Ok(());
    }
    let hosts = head.headers.get_all(header::HOST);
    let one = hosts.iter().count() == 1;
    let loopback = hosts.iter().all(|host| host.to_str().is_ok_and(is_loopback_host));
    let target = head.uri.authority().is_none_or(|authority| is_loopback_host(authority.as_str()));
    if one && loopback && target {
        return Ok(());
    }
    Err(Refused::new(
        StatusCode::FORBIDDEN,
        "foreign-host",
        "a request from this machine must be for localhost, 127.0.0.1 or [::1], or carry the token: use one of these in \
         the URL",
    ))
}

/// `localhost`, or a loopback address, with or without a port.
fn is_loopback_host(host: &str) -> bool {
    if let Ok(address) = host.parse::<SocketAddr>() {
        return is_loopback(address.ip());
    }
    let (name, port) = host.rsplit_once(':').filter(|_| !host.ends_with(']')).unwrap_or((host, "0"));
    let name_is_loopback = name.eq_ignore_ascii_case("localhost")
        || name.parse::<std::net::Ipv4Addr>().is_ok_and(|a| a.is_loopback())
        || name
            .strip_prefix('[')
            .and_then(|n| n.strip_suffix(']'))
            .is_some_and(|n| n.parse::<std::net::Ipv6Addr>().is_ok_and(|a| is_loopback(a.into())));
    name_is_loopback && port.parse::<u16>().is_ok()
}

/// Refuses what a page on another origin sent.
fn check_origin(headers: &HeaderMap) -> Result<(), Refused> {
    let host = headers.get(header::HOST).and_then(|h| h.to_str().ok()).unwrap_or_default();
    let own = |origin: &str| {
        let authority = origin.strip_prefix("http://").or_else(|| origin.strip_prefix("https://"));
        authority.is_some_and(|a| !host.is_empty() && a.eq_ignore_ascii_case(host))
    };
    let same_origin = headers.get_all(header::ORIGIN).iter().all(|origin| origin.to_str().is_ok_and(own));
    let same_site = headers
        .get_all("sec-fetch-site")
        .iter()
        .all(|site| site.as_bytes() == b"same-origin" || site.as_bytes() == b"none");
    if same_origin && same_site {
        return Ok(());
    }
    Err(Refused::new(
        StatusCode::FORBIDDEN,
        "foreign-origin",
        "a web page on another origin cannot change anything here: use the client commands, or a page that this router \
         serves",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_hosts() {
        for host in [
            "localhost",
            "LocalHost:9901",
            "127.0.0.1",
            "127.0.0.1:80",
            "127.9.9.9:1",
            "[::1]",
            "[::1]:9901",
            "[::ffff:127.0.0.1]:1",
        ] {
            assert!(is_loopback_host(host), "{host}");
        }
        for host in [
            "",
            "evil.com",
            "localhost.evil.com",
            "evil.com:127.0.0.1",
            "127.0.0.1.evil.com",
            "localhost:x",
            "localhost:",
            "user@localhost",
            "10.0.0.1:9901",
            "[::2]:1",
            "::1",
            "0.0.0.0",
            "localhost:1:1",
        ] {
            assert!(!is_loopback_host(host), "{host}");
        }
    }

    #[test]
    fn own_origin_only() {
        let check = |pairs: &[(&'static str, &str)]| {
            let mut headers = HeaderMap::new();
            for (name, value) in pairs {
                headers.append(*name, value.parse().unwrap());
            }
            check_origin(&headers).is_ok()
        };
        assert!(check(&[("host", "localhost:1")]));
        assert!(check(&[("host", "localhost:1"), ("origin", "http://localhost:1")]));
        assert!(check(&[("host", "localhost:1"), ("sec-fetch-site", "same-origin")]));
        for foreign in [
            &[("host", "localhost:1"), ("origin", "http://localhost:2")][..],
            &[("host", "localhost:1"), ("origin", "null")],
            &[("host", "localhost:1"), ("origin", "http://localhost:1.evil.com")],
            &[("host", "localhost:1"), ("origin", "http://localhost:1"), ("origin", "http://evil.com")],
            &[("host", "localhost:1"), ("sec-fetch-site", "cross-site")],
            &[("host", "localhost:1"), ("sec-fetch-site", "same-site")],
            &[("host", ""), ("origin", "http://")],
            &[("origin", "http://")],
        ] {
            assert!(!check(foreign), "{foreign:?}");
        }
    }

    #[test]
    fn bearer_tokens() {
        assert_eq!(bearer(b"Bearer abc"), Some(&b"abc"[..]));
        assert_eq!(bearer(b"bearer  abc "), Some(&b"abc"[..]));
        for other in [&b"Basic abc"[..], b"Bearer", b"", b"Bearerabc"] {
            assert_eq!(bearer(other), None);
        }
    }

    proptest::proptest! {
        #[test]
        fn only_loopback_names_are_loopback(host in "[a-z0-9.:\\[\\]@%-]{0,30}") {
            // What a browser would take from a URL with this host must be loopback as well.
            if is_loopback_host(&host) {
                let url: url::Url = format!("http://{host}/").parse().unwrap();
                let loopback = match url.host().unwrap() {
                    url::Host::Domain(name) => name == "localhost",
                    url::Host::Ipv4(address) => address.is_loopback(),
                    url::Host::Ipv6(address) => is_loopback(address.into()),
                };
                proptest::prop_assert!(loopback, "{}", host);
            }
        }

        #[test]
        fn loopback_hosts_with_a_tail_are_foreign(tail in "[a-z0-9.@-]{1,10}") {
            for host in ["localhost", "127.0.0.1", "[::1]"] {
                let loopback = is_loopback_host(&format!("{host}{tail}"));
                let number = tail.bytes().all(|b| b.is_ascii_digit()) && host == "127.0.0.1";
                proptest::prop_assert!(!loopback || number, "{}{}", host, tail);
            }
        }
    }
}
