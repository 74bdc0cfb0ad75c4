//! What a request would get: the same answer for the API and for `serinus explain --config`.

use std::net::IpAddr;

use axum::http::{Method, Uri, uri::Scheme};

use crate::model::AnswerReason;
use crate::routing::{Explanation, RequestView, RoutingTable};

use super::wire::{ExplainRequest, Explained, VersionOdds};

/// Why a request cannot be explained.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ExplainError {
    /// It is not a method.
    #[error("`{0}` is not an HTTP method: write one like GET")]
    Method(String),
    /// It is not a URL.
    #[error(
        "`{0}` is not a URL: write an absolute one, like http://shop.example.com/cart, or a path and a Host header"
    )]
    Url(String),
}

/// What a request would get by this table, and why. Changes nothing.
///
/// # Errors
/// When its method or URL cannot be one.
pub fn explain(table: &RoutingTable, request: &ExplainRequest) -> Result<Explained, ExplainError> {
    let Target { method, host, path, query } = Target::of(request)?;
    if method == Method::CONNECT || method == Method::TRACE {
        let reason = AnswerReason::MethodNotAllowed;
        return Ok(Explained {
            why: vec![format!("method `{method}` is not for a router: answered 405 ({reason})")],
            ..Explained::default()
        });
    }
    let told = Told { method: &method, query: &query, request };
    Ok(table.explain(&host, &path, &told).into())
}

/// A request as it was told.
struct Told<'a> {
    method: &'a Method,
    query: &'a str,
    request: &'a ExplainRequest,
}

impl RequestView for Told<'_> {
    fn method(&self) -> &str {
        self.method.as_str()
    }

    fn header(&self, name: &str, see: &mut dyn FnMut(&[u8]) -> bool) -> bool {
        let of_name = self.request.headers.iter().filter(|(other, _)| other.eq_ignore_ascii_case(name));
        // As on the wire, spaces around a value are no part of it.
        of_name.flat_map(|(_, values)| values.split('\n')).any(|value| see(value.trim().as_bytes()))
    }

    fn query(&self) -> &str {
        self.query
    }

    fn client(&self) -> Option<IpAddr> {
        self.request.client
    }
}

/// The parts of a request that routing looks at.
#[derive(Debug, PartialEq, Eq)]
pub struct Target {
    /// Its method.
    pub method: Method,
    /// Its host; empty when it names none.
    pub host: String,
    /// Its path, without the query.
    pub path: String,
    /// Its query, without the `?`; empty when there is none.
    pub query: String,
}

impl Target {
    /// The parts of this request.
    ///
    /// # Errors
    /// When its method or URL cannot be one.
    pub fn of(request: &ExplainRequest) -> Result<Self, ExplainError> {
        let cut = |text: &str| text.chars().take(100).collect::<String>();
        let method = request.method.parse().map_err(|_| ExplainError::Method(cut(&request.method)))?;
        let bad_url = || ExplainError::Url(cut(&request.url));
        let uri: Uri = request.url.parse().map_err(|_| bad_url())?;
        let header = request.headers.iter().find(|(name, _)| name.eq_ignore_ascii_case("host"));
        let header = header.map(|(_, value)| value.trim());
        let absolute = matches!(uri.scheme(), Some(s) if *s == Scheme::HTTP || *s == Scheme::HTTPS);
        let host = match (uri.authority(), absolute) {
            // As curl does: a Host header given by hand counts for more than the URL's.
            (Some(authority), true) => header.unwrap_or(authority.host()),
            (None, false) if uri.path().starts_with('/') => header.unwrap_or_default(),
            _ => return Err(bad_url()),
        };
        let query = uri.query().unwrap_or_default().to_owned();
        Ok(Self { method, host: host.to_owned(), path: uri.path().to_owned(), query })
    }
}

impl From<Explanation> for Explained {
    fn from(from: Explanation) -> Self {
        let odds = |v: crate::routing::VersionOdds| VersionOdds {
            name: v.name.into(),
            percent: v.percent,
            endpoints: v.endpoints,
        };
        Self {
            route: from.route.map(Into::into),
            revision: from.revision.map(|r| r.0),
            version: from.version.map(Into::into),
            rule: from.rule.map(|r| r.token().to_owned()),
            endpoint: from.endpoint,
            versions: from.versions.into_iter().map(odds).collect(),
            why: from.why,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(method: &str, url: &str, headers: &[(&str, &str)]) -> Result<String, ExplainError> {
        let headers = headers.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
        let request =
            ExplainRequest { method: method.to_owned(), url: url.to_owned(), headers, client: None };
        explain(&RoutingTable::default(), &request).map(|e| e.why.join("; "))
    }

    #[test]
    fn finds_host_and_path() {
        for (url, headers, needle) in [
            ("http://shop.example.com/a?b=c#d", &[][..], "host `shop.example.com` with path `/a`"),
            ("https://u:p@h:8443/x", &[], "host `h` with path `/x`"),
            ("http://h", &[], "host `h` with path `/`"),
            ("/a", &[("host", "h:80")], "host `h:80` with path `/a`"),
            ("http://other/a", &[("Host", "h")], "host `h` with path `/a`"),
            ("/a", &[], "host `` with path `/a`"),
        ] {
            let why = ask("GET", url, headers).unwrap();
            assert!(why.contains(needle), "{url}: {why}");
        }
        assert!(ask("TRACE", "/", &[]).unwrap().contains("405"));
    }

    #[test]
    fn headers_of_one_name_are_lines() {
        let headers = [("X-A".to_owned(), " 1\n2, 3 \n".to_owned())].into();
        let request = ExplainRequest { method: "GET".to_owned(), url: "/".to_owned(), headers, client: None };
        let told = Told { method: &Method::GET, query: "", request: &request };
        let mut values = Vec::new();
        assert!(!told.header("x-a", &mut |value| {
            values.push(String::from_utf8(value.to_owned()).unwrap());
            false
        }));
        assert_eq!(values, ["1", "2, 3", ""]);
    }

    #[test]
    fn refuses_what_is_no_request() {
        for url in ["", "shop.example.com", "shop.example.com/x", "ftp://h/x", "http://", "*", "/a b", "h:80"]
        {
            let error = ask("GET", url, &[]).unwrap_err().to_string();
            assert!(error.contains("is not a URL"), "{url}: {error}");
        }
        assert!(matches!(ask("G T", "/", &[]), Err(ExplainError::Method(_))));
        assert!(matches!(ask("", "/", &[]), Err(ExplainError::Method(_))));
    }

    proptest::proptest! {
        #[test]
        fn never_panics(method in ".{0,12}", url in "(http://)?[ -~é/:@?#%\\[\\]]{0,40}", host in ".{0,20}") {
            let headers = [("host".to_owned(), host)].into();
            let _ = explain(&RoutingTable::default(), &ExplainRequest { method, url, headers, client: None });
        }
    }
}
