//! A route as it was asked for, checked and complete.

use std::fmt;
use std::str::FromStr;

use regex::Regex;

use super::{Audience, Balance, RolloutSpec, RouteName, Selector, ServiceKey, Share, Traffic, VersionName};

/// A route: which requests it takes, and the versions it splits them between.
#[derive(Clone, Debug, PartialEq)]
pub struct RouteSpec {
    /// Its name.
    pub name: RouteName,
    /// The hosts it takes; none means every host.
    pub hosts: Vec<HostMatch>,
    /// The paths it takes; none means every path.
    pub paths: Vec<PathMatch>,
    /// The Service whose pods it splits between.
    pub backend: BackendRef,
    /// Its versions; at least one. The first is the stable one: it gets what the others leave.
    pub versions: Vec<VersionSpec>,
    /// Who gets which of them where the weights alone do not say.
    pub audience: Audience,
    /// What happens to the share of a version that has no usable pod.
    pub on_empty: OnEmpty,
    /// How a pod of a version is chosen.
    pub balance: Balance,
    /// How its requests are carried.
    pub traffic: Traffic,
    /// How one of its versions is rolled out; nothing where only people change weights.
    pub rollout: Option<RolloutSpec>,
    /// Whether answers carry `X-Serinus-Version`.
    pub debug_headers: bool,
}

impl RouteSpec {
    /// The weights that the spec itself asks for, in the order of its versions; stable gets what the others leave.
    #[must_use]
    pub fn weights(&self) -> Vec<(VersionName, Share)> {
        let asked = |v: &VersionSpec| v.weight.unwrap_or_default().millionths();
        let canaries: u32 = self.versions.iter().skip(1).map(asked).sum();
        let stable = Share::from_millionths(Share::DENOMINATOR.saturating_sub(canaries)).unwrap_or_default();
        self.versions
            .iter()
            .enumerate()
            .map(|(i, v)| (v.name.clone(), if i == 0 { stable } else { v.weight.unwrap_or_default() }))
            .collect()
    }

    /// Every Service that the route needs to know: its own and those that versions name.
    pub fn services(&self) -> impl Iterator<Item = &ServiceKey> {
        std::iter::once(&self.backend.service)
            .chain(self.versions.iter().filter_map(|v| v.backend.as_ref().map(|b| &b.service)))
    }
}

/// One version of a route.
#[derive(Clone, Debug, PartialEq)]
pub struct VersionSpec {
    /// Its name.
    pub name: VersionName,
    /// Which of the Service's pods are its own; nothing means all that no earlier version has.
    pub selector: Option<Selector>,
    /// Its own Service, where it is not the route's.
    pub backend: Option<BackendRef>,
    /// Its share as the file asks for it.
    pub weight: Option<Share>,
    /// How many requests it may have at once for each of its usable pods; what is beyond goes to the stable version. Nothing for
    /// as many as come.
    pub max_in_flight_per_pod: Option<u32>,
}

/// A Service and one of its ports.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BackendRef {
    /// The Service.
    pub service: ServiceKey,
    /// Its port; left out with static discovery, and for a Service with a single port.
    pub port: Option<PortRef>,
}

/// A Service's port, by number or name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PortRef {
    /// By number.
    Number(u16),
    /// By name.
    Name(String),
}

impl fmt::Display for PortRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PortRef::Number(number) => number.fmt(f),
            PortRef::Name(name) => name.fmt(f),
        }
    }
}

/// What happens to the share of a version that has no usable pod (semantics §2.4).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnEmpty {
    /// It goes to the stable version; if that is the empty one, to the others in proportion.
    #[default]
    Spill,
    /// It is answered 503.
    Fail,
}

/// A host that a route takes: exact, or `*.suffix`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum HostMatch {
    /// This host; lower case, an IPv6 address in brackets.
    Exact(String),
    /// Every host under this one, `*.` left out; lower case.
    Suffix(String),
}

/// Why a text is not a [`HostMatch`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a host: {reason}")]
pub struct HostMatchError {
    text: String,
    reason: &'static str,
}

impl FromStr for HostMatch {
    type Err = HostMatchError;

    fn from_str(text: &str) -> Result<Self, HostMatchError> {
        let refuse = |reason| Err(HostMatchError { text: text.chars().take(260).collect(), reason });
        if text.contains("://") || text.contains('/') {
            return refuse("write the host alone, without scheme or path");
        }
        let lower = text.to_ascii_lowercase();
        let (suffix, host) = match lower.strip_prefix("*.") {
            Some(host) => (true, host),
            None => (false, lower.as_str()),
        };
        // Requests carry an IPv6 address in brackets (RFC 3986 §3.2.2), and in its short form (RFC 5952).
        let bare = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).unwrap_or(host);
        if let Ok(v6) = bare.parse::<std::net::Ipv6Addr>()
            && !suffix
        {
            return Ok(HostMatch::Exact(format!("[{v6}]")));
        }
        if host.contains('*') {
            return refuse("a `*` can only stand for whole leading labels, like *.example.com");
        }
        if host.contains(':') {
            return refuse("write it without a port: every port is matched");
        }
        let label = |label: &str| {
            !label.is_empty()
                && label.len() <= 63
                && !label.starts_with('-')
                && !label.ends_with('-')
                && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
        };
        let host = host.strip_suffix('.').unwrap_or(host);
        if host.len() > 253 || !host.split('.').all(label) {
            return refuse(
                "use letters, digits, `-` and `.`, as in shop.example.com (non-ASCII names as punycode)",
            );
        }
        Ok(if suffix { HostMatch::Suffix(host.to_owned()) } else { HostMatch::Exact(host.to_owned()) })
    }
}

impl fmt::Display for HostMatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            HostMatch::Exact(host) => host.fmt(f),
            HostMatch::Suffix(host) => write!(f, "*.{host}"),
        }
    }
}

/// A path that a route takes.
#[derive(Clone, Debug)]
pub enum PathMatch {
    /// This path and no other.
    Exact(String),
    /// This path and everything under it, by whole elements: `/a` takes `/a` and `/a/b`, not `/ab`. No `/` at its
    /// end, so that the root is the empty text.
    Prefix(String),
    /// A regular expression over the whole path.
    Regex(Regex),
}

/// Why a text is not a [`PathMatch`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PathMatchError {
    /// It does not begin with a slash.
    #[error("`{0}` is not a path: it must begin with `/`")]
    NotAbsolute(String),
    /// It has a part that a request's path never has.
    #[error("`{0}` can match no request: leave out the query (`?…`) and the fragment (`#…`)")]
    NotAPath(String),
    /// It is not a regular expression.
    #[error("not a regular expression: {0}")]
    BadRegex(String),
}

impl PathMatch {
    /// Exactly this path.
    ///
    /// # Errors
    /// When it does not begin with `/`, or has a query or a fragment.
    pub fn exact(path: &str) -> Result<Self, PathMatchError> {
        check_path(path).map(|()| PathMatch::Exact(path.to_owned()))
    }

    /// This path and everything under it.
    ///
    /// # Errors
    /// When it does not begin with `/`, or has a query or a fragment.
    pub fn prefix(path: &str) -> Result<Self, PathMatchError> {
        check_path(path).map(|()| PathMatch::Prefix(path.trim_end_matches('/').to_owned()))
    }

    /// Every path that matches `pattern` from its first to its last character.
    ///
    /// # Errors
    /// When it is not a regular expression, or one that is too large.
    pub fn regex(pattern: &str) -> Result<Self, PathMatchError> {
        whole(pattern).map(PathMatch::Regex)
    }
}

/// A regular expression over a whole text.
pub(super) fn whole(pattern: &str) -> Result<Regex, PathMatchError> {
    let build = |pattern: &str| regex::RegexBuilder::new(pattern).size_limit(1 << 20).build();
    // Alone first: `a)|(b` is wrong, and would be right between the parentheses.
    build(pattern)
        .and_then(|_| build(&format!("^(?:{pattern})$")))
        .map_err(|e| PathMatchError::BadRegex(e.to_string()))
}

/// What somebody wrote, of an expression that [`whole`] made.
pub(super) fn inner(regex: &Regex) -> &str {
    let pattern = regex.as_str();
    pattern.strip_prefix("^(?:").and_then(|p| p.strip_suffix(")$")).unwrap_or(pattern)
}

fn check_path(path: &str) -> Result<(), PathMatchError> {
    if !path.starts_with('/') {
        Err(PathMatchError::NotAbsolute(path.to_owned()))
    } else if path.contains(['?', '#']) {
        Err(PathMatchError::NotAPath(path.to_owned()))
    } else {
        Ok(())
    }
}

impl PartialEq for PathMatch {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (PathMatch::Exact(a), PathMatch::Exact(b)) | (PathMatch::Prefix(a), PathMatch::Prefix(b)) => {
                a == b
            }
            (PathMatch::Regex(a), PathMatch::Regex(b)) => a.as_str() == b.as_str(),
            (PathMatch::Exact(_) | PathMatch::Prefix(_) | PathMatch::Regex(_), _) => false,
        }
    }
}

impl fmt::Display for PathMatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PathMatch::Exact(path) => write!(f, "exact {path}"),
            PathMatch::Prefix(path) if path.is_empty() => f.write_str("prefix /"),
            PathMatch::Prefix(path) => write!(f, "prefix {path}"),
            PathMatch::Regex(regex) => write!(f, "regex {}", inner(regex)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_exact_or_suffixes() {
        let host = |text: &str| text.parse::<HostMatch>().map(|h| h.to_string()).map_err(|e| e.to_string());
        for (text, shown) in [
            ("Shop.Example.com", "shop.example.com"),
            ("*.example.com", "*.example.com"),
            ("localhost", "localhost"),
            ("shop.example.com.", "shop.example.com"),
            ("127.0.0.1", "127.0.0.1"),
            ("[::1]", "[::1]"),
            ("FD00:0::1", "[fd00::1]"),
        ] {
            assert_eq!(host(text), Ok(shown.to_owned()), "{text}");
        }
        for text in
            ["", "*", "a.*.b", "*.*.b", "http://a", "a/b", "a:80", "a..b", "-a.b", "ü.de", "a b", "*.::1"]
        {
            assert!(host(text).is_err(), "{text}");
        }
    }

    #[test]
    fn regexes_match_the_whole_path() {
        let Ok(PathMatch::Regex(regex)) = PathMatch::regex("/a|/b") else { panic!("not a regex") };
        assert!(
            regex.is_match("/a") && regex.is_match("/b") && !regex.is_match("/ab") && !regex.is_match("/a/b")
        );
        assert!(PathMatch::regex("(").is_err());
        assert!(PathMatch::regex("a)|(b").is_err());
        assert!(PathMatch::regex("(a{1000}){1000}").is_err(), "too large");
        assert_eq!(PathMatch::regex("/a|/b").unwrap().to_string(), "regex /a|/b");
    }
}
