//! Which route a host and a path belong to.
//!
//! The precedence is the Gateway API's (HTTPRouteRule): the most specific host first — exact, then the longest suffix, then
//! every host — and in it an exact path, then a regular expression (the longest pattern first), then the longest prefix. A
//! host without a route for the path hands on to the next less specific one. Nothing here grows with the number of routes,
//! regular expressions aside: those of one host are run together as one automaton.

use std::collections::HashMap;
use std::sync::Arc;

use foldhash::fast::RandomState;
use regex::{Regex, RegexSet};

use crate::model::{HostMatch, PathMatch, RouteSpec};

/// The place of a route in its table.
pub type RouteIndex = usize;

/// What is in the config, looked for by what clients say. The hash is a fast one with a random seed: nobody who would like
/// entries to collide says what is in a map.
type Map<T> = HashMap<Box<str>, T, RandomState>;

/// The routes by host and path.
#[derive(Debug, Default)]
pub struct Matcher {
    exact: Map<Paths>,
    suffixes: Map<Paths>,
    every: Paths,
}

/// The longest host that can be in the maps (RFC 1035 §2.3.4).
const LONGEST_HOST: usize = 255;

/// How large the regular expressions of one host may be as one automaton, in bytes.
const SET_LIMIT: usize = 256 << 20;

#[derive(Debug, Default)]
struct Paths {
    exact: Map<RouteIndex>,
    prefixes: Map<RouteIndex>,
    longest_prefix: usize,
    /// Longest pattern first.
    regexes: Vec<(Regex, RouteIndex)>,
    /// All of them as one; nothing when they are too large for that, and are tried one by one.
    regex_set: Option<RegexSet>,
}

/// Why a request belongs to its route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Matched {
    /// The route.
    pub route: RouteIndex,
    /// How its host was found.
    pub host: MatchedBy,
    /// How its path was found.
    pub path: MatchedBy,
}

/// How a host or a path was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MatchedBy {
    /// Just this one.
    Exact,
    /// By a host suffix of this length, or a path prefix of this length.
    Part(usize),
    /// By a regular expression.
    Regex,
    /// By a route that takes every host.
    Every,
}

impl Matcher {
    /// The matcher of these routes; where two claim the same host and path, the first has it.
    #[must_use]
    pub fn new(routes: &[Arc<RouteSpec>]) -> Self {
        let mut matcher = Self::default();
        for (index, route) in routes.iter().enumerate() {
            if route.hosts.is_empty() {
                matcher.every.add(route, index);
            }
            for host in &route.hosts {
                let (map, host) = match host {
                    HostMatch::Exact(host) => (&mut matcher.exact, host),
                    HostMatch::Suffix(host) => (&mut matcher.suffixes, host),
                };
                map.entry(host.as_str().into()).or_default().add(route, index);
            }
        }
        let groups = matcher.exact.values_mut().chain(matcher.suffixes.values_mut());
        groups.chain(std::iter::once(&mut matcher.every)).for_each(Paths::finish);
        matcher
    }

    /// The route of a request: `host` as in the Host header (a port and upper case do not matter), `path` without the
    /// query.
    #[must_use]
    pub fn find(&self, host: &str, path: &str) -> Option<Matched> {
        let mut buffer = [0_u8; LONGEST_HOST];
        if !(self.exact.is_empty() && self.suffixes.is_empty())
            && let Some(host) = plain_host(host, &mut buffer)
        {
            let found = |paths: Option<&Paths>, by: MatchedBy| {
                let (route, path) = paths?.find(path)?;
                Some(Matched { route, host: by, path })
            };
            if let Some(matched) = found(self.exact.get(host), MatchedBy::Exact) {
                return Some(matched);
            }
            let mut rest = host;
            while let Some((_, suffix)) = rest.split_once('.').filter(|_| !self.suffixes.is_empty()) {
                if let Some(matched) = found(self.suffixes.get(suffix), MatchedBy::Part(suffix.len())) {
                    return Some(matched);
                }
                rest = suffix;
            }
        }
        let (route, path) = self.every.find(path)?;
        Some(Matched { route, host: MatchedBy::Every, path })
    }
}

/// The host in lower case, without port and trailing dot; nothing when it is too long to be one.
fn plain_host<'a>(host: &'a str, buffer: &'a mut [u8; LONGEST_HOST]) -> Option<&'a str> {
    let end = if host.starts_with('[') {
        host.find(']').map(|end| end + 1)
    } else {
        host.bytes().rposition(|byte| byte == b':')
    };
    let host = end.map_or(Some(host), |end| host.get(..end))?;
    let host = host.strip_suffix('.').unwrap_or(host);
    if !host.bytes().any(|b| b.is_ascii_uppercase()) {
        return (host.len() <= LONGEST_HOST).then_some(host);
    }
    let lower = buffer.get_mut(..host.len())?;
    lower.copy_from_slice(host.as_bytes());
    lower.make_ascii_lowercase();
    std::str::from_utf8(lower).ok()
}

impl Paths {
    fn add(&mut self, route: &RouteSpec, index: RouteIndex) {
        if route.paths.is_empty() {
            self.prefixes.entry("".into()).or_insert(index);
        }
        for path in &route.paths {
            match path {
                PathMatch::Exact(path) => {
                    self.exact.entry(path.as_str().into()).or_insert(index);
                }
                PathMatch::Prefix(path) => {
                    self.longest_prefix = self.longest_prefix.max(path.len());
                    self.prefixes.entry(path.as_str().into()).or_insert(index);
                }
                PathMatch::Regex(regex) => self.regexes.push((regex.clone(), index)),
            }
        }
    }

    fn finish(&mut self) {
        if self.regexes.is_empty() {
            return;
        }
        self.regexes.sort_by_key(|(pattern, index)| (std::cmp::Reverse(pattern.as_str().len()), *index));
        // Each pattern was compiled when the config was checked; together they may be larger than one alone.
        let patterns = self.regexes.iter().map(|(pattern, _)| pattern.as_str());
        self.regex_set = regex::RegexSetBuilder::new(patterns).size_limit(SET_LIMIT).build().ok();
    }

    fn find(&self, path: &str) -> Option<(RouteIndex, MatchedBy)> {
        if !self.exact.is_empty()
            && let Some(route) = self.exact.get(path)
        {
            return Some((*route, MatchedBy::Exact));
        }
        if let Some(route) = self.find_regex(path) {
            return Some((route, MatchedBy::Regex));
        }
        // The path itself, then each of its ancestors. No prefix is longer than the longest, so that a path of a
        // thousand slashes costs no more than the config's own prefixes do. What has no slash, like the `*` of
        // `OPTIONS *`, is under the root all the same: "every path" means it too.
        let parent = |end| path.as_bytes().get(..end)?.iter().rposition(|b| *b == b'/');
        let longest = self.longest_prefix;
        let mut end = if path.len() > longest { parent(longest + 1).unwrap_or(0) } else { path.len() };
        loop {
            if let Some(route) = path.get(..end).and_then(|prefix| self.prefixes.get(prefix)) {
                return Some((*route, MatchedBy::Part(end)));
            }
            if end == 0 {
                return None;
            }
            end = parent(end).unwrap_or(0);
        }
    }

    fn find_regex(&self, path: &str) -> Option<RouteIndex> {
        let found = match &self.regex_set {
            Some(set) => set.matches(path).iter().next().and_then(|first| self.regexes.get(first)),
            None => self.regexes.iter().find(|(regex, _)| regex.is_match(path)),
        };
        found.map(|(_, route)| *route)
    }
}

#[cfg(test)]
#[path = "matcher_tests.rs"]
mod tests;
