//! Who gets which version where the weights alone do not say: rules and cohorts (semantics §3.1, §3.2).

use std::fmt;

use ipnet::IpNet;
use regex::Regex;

use super::route::{PathMatchError, inner, whole};
use super::{HashKey, VersionName};

/// Who gets which version where the weights alone do not say; nothing of it by default.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Audience {
    /// The first rule that fits decides.
    pub rules: Vec<Rule>,
    /// What no rule decides goes by user, where there is one.
    pub cohort: Option<Cohort>,
}

/// A rule (semantics §3.1).
#[derive(Clone, Debug, PartialEq)]
pub struct Rule {
    /// It fits a request of which all of these hold.
    pub conditions: Vec<Condition>,
    /// What a request gets that it fits.
    pub verdict: Verdict,
}

/// What a request gets that a rule fits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// This version.
    Version(VersionName),
    /// What the request itself asks for, as with ingress-nginx: `always` for the canary, `never` for stable; by anything else
    /// the rule does not fit.
    Canary {
        /// Where it says so.
        by: Part,
        /// The canary.
        version: VersionName,
    },
}

impl Verdict {
    /// The version that it may lead to, besides stable.
    #[must_use]
    pub fn version(&self) -> &VersionName {
        match self {
            Verdict::Version(version) | Verdict::Canary { version, .. } => version,
        }
    }
}

/// What has to hold of a request.
#[derive(Clone, Debug, PartialEq)]
pub enum Condition {
    /// One of the values of this part passes this test.
    Value(Part, Test),
    /// Its method is one of these.
    Method(Vec<String>),
    /// Its client is in one of these networks.
    Client(Vec<IpNet>),
}

/// A part of a request that has values: any number of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    /// The header fields of this name, in lower case.
    Header(String),
    /// The cookies of this name.
    Cookie(String),
    /// The query parameters of this name, decoded.
    Query(String),
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Part::Header(name) => write!(f, "header `{name}`"),
            Part::Cookie(name) => write!(f, "cookie `{name}`"),
            Part::Query(name) => write!(f, "query parameter `{name}`"),
        }
    }
}

/// A test of a value.
#[derive(Clone, Debug)]
pub enum Test {
    /// It is there.
    Present,
    /// It is exactly this.
    Is(String),
    /// This regular expression matches the whole of it.
    Matches(Regex),
}

impl Test {
    /// That `pattern` matches the whole value, from its first to its last character.
    ///
    /// # Errors
    /// When it is not a regular expression, or one that is too large.
    pub fn matches(pattern: &str) -> Result<Self, PathMatchError> {
        whole(pattern).map(Test::Matches)
    }

    /// The regular expression as it was written; empty where it is none.
    #[must_use]
    pub fn pattern(&self) -> &str {
        match self {
            Test::Matches(regex) => inner(regex),
            Test::Present | Test::Is(_) => "",
        }
    }

    /// Whether this value passes it. What is not UTF-8 matches no regular expression.
    #[must_use]
    pub fn passes(&self, value: &[u8]) -> bool {
        match self {
            Test::Present => true,
            Test::Is(wanted) => wanted.as_bytes() == value,
            Test::Matches(regex) => std::str::from_utf8(value).is_ok_and(|value| regex.is_match(value)),
        }
    }
}

impl PartialEq for Test {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Test::Present, Test::Present) => true,
            (Test::Is(a), Test::Is(b)) => a == b,
            (Test::Matches(a), Test::Matches(b)) => a.as_str() == b.as_str(),
            (Test::Present | Test::Is(_) | Test::Matches(_), _) => false,
        }
    }
}

/// How users are told apart, and dealt to the versions (semantics §3.2).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cohort {
    /// What tells one user from another.
    pub key: HashKey,
    /// Whether the key is a cookie that Serinus gives to browsers that have none.
    pub set: bool,
    /// Another one deals the users anew.
    pub salt: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn regular_expressions_match_the_whole_value() {
        let test = Test::matches("a|b+").unwrap();
        assert!(test.passes(b"a") && test.passes(b"bbb"));
        assert!(!test.passes(b"ab") && !test.passes(b"xa") && !test.passes(b"a\xff"));
        assert!(Test::matches("(").is_err() && Test::matches("a)|(b").is_err());
    }

    #[test]
    fn values_that_are_not_utf8_can_be_there_and_no_more() {
        assert!(Test::Present.passes(b"\xff") && Test::Present.passes(b""));
        assert!(!Test::Is("x".to_owned()).passes(b"\xff") && Test::Is("x".to_owned()).passes(b"x"));
    }
}
