//! Kubernetes label selectors (semantics §1.3).

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

/// A Kubernetes label selector: requirements that must all hold.
///
/// Its grammar is that of `kubectl -l` and of `labels.Parse` in k8s.io/apimachinery, less the numeric `>` and `<`:
/// `a=b`, `a==b`, `a!=b`, `a in (x,y)`, `a notin (x,y)`, `a`, `!a`; a comma is AND. `a!=b` and `notin` also match
/// labels that lack `a`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Selector {
    requirements: Vec<Requirement>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Requirement {
    key: String,
    test: Test,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Test {
    In(Vec<String>),
    NotIn(Vec<String>),
    Exists,
    Absent,
}

/// Why a text is not a [`Selector`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{reason} at character {at} of the selector `{text}`: write for example `version=v2`, `version!=v2`, `track in (a,b)`"
)]
pub struct SelectorError {
    text: String,
    at: usize,
    reason: String,
}

impl Selector {
    /// Whether labels meet every requirement.
    #[must_use]
    pub fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        self.requirements.iter().all(|r| {
            let value = labels.get(&r.key);
            match &r.test {
                Test::In(values) => value.is_some_and(|v| values.contains(v)),
                Test::NotIn(values) => value.is_none_or(|v| !values.contains(v)),
                Test::Exists => value.is_some(),
                Test::Absent => value.is_none(),
            }
        })
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, r) in self.requirements.iter().enumerate() {
            if i > 0 {
                f.write_str(",")?;
            }
            match &r.test {
                Test::In(values) => match values.as_slice() {
                    [value] => write!(f, "{}={value}", r.key)?,
                    values => write!(f, "{} in ({})", r.key, values.join(","))?,
                },
                Test::NotIn(values) => match values.as_slice() {
                    [value] => write!(f, "{}!={value}", r.key)?,
                    values => write!(f, "{} notin ({})", r.key, values.join(","))?,
                },
                Test::Exists => f.write_str(&r.key)?,
                Test::Absent => write!(f, "!{}", r.key)?,
            }
        }
        Ok(())
    }
}

impl FromStr for Selector {
    type Err = SelectorError;

    fn from_str(text: &str) -> Result<Self, SelectorError> {
        let mut parser = Parser { text, at: 0 };
        let mut requirements = Vec::new();
        parser.space();
        if parser.rest().is_empty() {
            return Err(parser.refuse(
                "an empty selector selects nothing by intent; leave `selector` out to take every pod,",
            ));
        }
        loop {
            requirements.push(parser.requirement()?);
            parser.space();
            if parser.rest().is_empty() {
                return Ok(Self { requirements });
            }
            parser.expect(",")?;
        }
    }
}

struct Parser<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Parser<'a> {
    fn rest(&self) -> &'a str {
        self.text.get(self.at..).unwrap_or_default()
    }

    fn space(&mut self) {
        self.at += self.rest().len() - self.rest().trim_start().len();
    }

    fn eat(&mut self, token: &str) -> bool {
        self.space();
        let found = self.rest().starts_with(token);
        if found {
            self.at += token.len();
        }
        found
    }

    fn expect(&mut self, token: &str) -> Result<(), SelectorError> {
        if self.eat(token) { Ok(()) } else { Err(self.refuse(&format!("expected `{token}`"))) }
    }

    fn refuse(&self, reason: &str) -> SelectorError {
        let at = self.text.get(..self.at).unwrap_or(self.text).chars().count() + 1;
        SelectorError { text: self.text.chars().take(200).collect(), at, reason: reason.to_owned() }
    }

    /// The longest run of characters that keys and values are made of.
    fn word(&mut self) -> &'a str {
        self.space();
        let rest = self.rest();
        let end = rest
            .find(|c: char| !(c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '/')))
            .unwrap_or(rest.len());
        self.at += end;
        rest.get(..end).unwrap_or_default()
    }

    fn requirement(&mut self) -> Result<Requirement, SelectorError> {
        if self.eat("!") {
            return Ok(Requirement { key: self.key()?, test: Test::Absent });
        }
        let key = self.key()?;
        let test = if self.eat("!=") {
            Test::NotIn(vec![self.value()?])
        } else if self.eat("==") || self.eat("=") {
            Test::In(vec![self.value()?])
        } else {
            let before = self.at;
            match self.word() {
                "" => Test::Exists,
                "in" => Test::In(self.values()?),
                "notin" => Test::NotIn(self.values()?),
                _ => {
                    self.at = before;
                    self.space();
                    return Err(self.refuse("expected `=`, `!=`, `in`, `notin` or `,`"));
                }
            }
        };
        Ok(Requirement { key, test })
    }

    /// A label key: an optional DNS prefix and `/`, then a name of at most 63 characters.
    fn key(&mut self) -> Result<String, SelectorError> {
        self.space();
        let start = self.at;
        let word = self.word();
        let (prefix, name) = word.split_once('/').map_or((None, word), |(p, n)| (Some(p), n));
        let lower = |p: &str| {
            p.len() <= 253
                && p.split('.').all(|l| label_like(l) && !l.is_empty())
                && !p.bytes().any(|b| b.is_ascii_uppercase() || b == b'_')
        };
        if name.is_empty() || !label_like(name) || !prefix.is_none_or(lower) {
            self.at = start;
            let shown = if word.is_empty() { self.rest() } else { word };
            return Err(self.refuse(&format!("`{shown}` is not a label key")));
        }
        Ok(word.to_owned())
    }

    fn value(&mut self) -> Result<String, SelectorError> {
        self.space();
        let start = self.at;
        let word = self.word();
        if label_like(word) {
            return Ok(word.to_owned());
        }
        self.at = start;
        Err(self.refuse(&format!("`{word}` is not a label value")))
    }

    fn values(&mut self) -> Result<Vec<String>, SelectorError> {
        self.expect("(")?;
        let mut values = vec![self.value()?];
        while self.eat(",") {
            values.push(self.value()?);
        }
        self.expect(")")?;
        Ok(values)
    }
}

/// At most 63 letters, digits, `-`, `_`, `.`, with a letter or digit at both ends; empty is allowed for values.
fn label_like(text: &str) -> bool {
    let bytes = text.as_bytes();
    let ends = |b: Option<&u8>| b.is_none_or(u8::is_ascii_alphanumeric);
    bytes.len() <= 63
        && ends(bytes.first())
        && ends(bytes.last())
        && bytes.iter().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn labels(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
    }

    #[track_caller]
    fn check(selector: &str, pod: &[(&str, &str)], expected: bool) {
        let selector: Selector = selector.parse().unwrap();
        assert_eq!(selector.matches(&labels(pod)), expected, "{selector} on {pod:?}");
    }

    #[test]
    fn s1_3_selectors_follow_kubernetes() {
        check("version=v2", &[("version", "v2")], true);
        check("version==v2", &[("version", "v2")], true);
        check("version=v2", &[("version", "v1")], false);
        check("version=v2", &[], false);
        check("version!=v2", &[("version", "v1")], true);
        check("version!=v2", &[], true);
        check("version!=v2", &[("version", "v2")], false);
        check("track in (canary, beta)", &[("track", "beta")], true);
        check("track in (canary,beta)", &[], false);
        check("track notin (canary,beta)", &[], true);
        check("track notin (canary,beta)", &[("track", "canary")], false);
        check("version", &[("version", "")], true);
        check("version", &[], false);
        check("!version", &[], true);
        check("! version", &[("version", "x")], false);
        check("a=", &[("a", "")], true);
        check("a=,b", &[("a", ""), ("b", "")], true);
        check(
            "app.kubernetes.io/version=1.2.3 , pod-template-hash!=5c9",
            &[("app.kubernetes.io/version", "1.2.3")],
            true,
        );
        check("in=in,notin in (in)", &[("in", "in"), ("notin", "in")], true);
    }

    #[test]
    fn errors_say_where() {
        for (text, needle) in [
            ("", "empty"),
            ("   ", "empty"),
            ("a=b,", "not a label key"),
            (",a", "not a label key"),
            ("=b", "not a label key"),
            ("a b", "character 3"),
            ("a=b c", "expected `,` at character 5"),
            ("a in x", "expected `(`"),
            ("a in (x", "expected `)`"),
            ("a>1", "expected `,`"),
            ("-a=b", "not a label key"),
            ("a=-b", "not a label value"),
            ("a/b/c=d", "not a label key"),
            ("A.com/b=c", "not a label key"),
            ("é=1", "not a label key"),
        ] {
            let error = text.parse::<Selector>().unwrap_err().to_string();
            assert!(error.contains(needle), "{text}: {error}");
        }
    }

    proptest! {
        #[test]
        fn never_panics_and_prints_what_it_read(text in "[ -~é]{0,40}") {
            if let Ok(selector) = text.parse::<Selector>() {
                prop_assert_eq!(selector.to_string().parse::<Selector>().unwrap(), selector);
            }
        }

        #[test]
        fn not_equal_is_the_opposite_of_equal(value in "[a-c]?", label in proptest::option::of("[a-c]?")) {
            let pod: BTreeMap<_, _> = label.into_iter().map(|l| ("k".to_owned(), l)).collect();
            let equal: Selector = format!("k={value}").parse().unwrap();
            let not: Selector = format!("k!={value}").parse().unwrap();
            prop_assert_ne!(equal.matches(&pod), not.matches(&pod));
        }
    }
}
