//! What rules and cohorts look at of a request (semantics §3.1, §3.2), whoever has read it.

use std::borrow::Cow;
use std::net::IpAddr;

use cookie::Cookie;
use url::form_urlencoded;

use crate::model::{HashKey, Part};

/// A request, as far as rules and cohorts look at it. Each is asked for only where a route looks at it.
pub trait RequestView {
    /// Its method.
    fn method(&self) -> &str;

    /// Shows the values of the header fields of this name, in order and whatever its case, until `see` says yes to one;
    /// whether it did.
    fn header(&self, name: &str, see: &mut dyn FnMut(&[u8]) -> bool) -> bool;

    /// Its query as it came, without the `?`; empty where there is none.
    fn query(&self) -> &str;

    /// The address of its client, that behind trusted hops; nothing where it is not known.
    fn client(&self) -> Option<IpAddr>;
}

/// Shows the values of a part, in order, until `see` says yes to one; whether it did.
pub(super) fn any_value(request: &dyn RequestView, part: &Part, see: &mut dyn FnMut(&[u8]) -> bool) -> bool {
    match part {
        Part::Header(name) => request.header(name, see),
        Part::Cookie(name) => any_cookie(request, name, see),
        Part::Query(name) => form_urlencoded::parse(request.query().as_bytes())
            .any(|(key, value): (Cow<'_, str>, Cow<'_, str>)| key == name.as_str() && see(value.as_bytes())),
    }
}

/// Shows the values of a user's key, in order, until `see` says yes to one; whether it did. An address is no such value.
pub(super) fn any_key(request: &dyn RequestView, key: &HashKey, see: &mut dyn FnMut(&[u8]) -> bool) -> bool {
    match key {
        HashKey::Header(name) => request.header(name, see),
        HashKey::Cookie(name) => any_cookie(request, name, see),
        HashKey::ClientIp => false,
    }
}

/// Shows the values of the cookies of this name, in order, until `see` says yes to one; whether it did. What is no cookie is
/// passed over.
fn any_cookie(request: &dyn RequestView, name: &str, see: &mut dyn FnMut(&[u8]) -> bool) -> bool {
    // HTTP/2 may bring each in a field of its own (RFC 9113 §8.2.3).
    request.header("cookie", &mut |field| {
        let pairs = field.split(|byte| *byte == b';').filter_map(|pair| std::str::from_utf8(pair).ok());
        let mut cookies = pairs.filter_map(|pair| Cookie::parse(pair).ok());
        cookies.any(|cookie| cookie.name() == name && see(cookie.value().as_bytes()))
    })
}

/// A request as texts, for tests.
#[cfg(test)]
#[derive(Clone, Debug)]
pub(super) struct Words {
    pub(super) method: &'static str,
    pub(super) headers: Vec<(String, String)>,
    pub(super) query: String,
    pub(super) client: Option<IpAddr>,
}

#[cfg(test)]
impl Words {
    /// A GET with headers in lines, `x-a: 1`; those that begin with `?` are the query, with `@` the client, with `!` the method.
    pub(super) fn of(lines: &[&'static str]) -> Self {
        let mut words = Words { method: "GET", headers: Vec::new(), query: String::new(), client: None };
        for line in lines {
            match (line.split_at(1), line.split_once(": ")) {
                (("?", query), _) => words.query = query.to_owned(),
                (("@", client), _) => words.client = Some(client.parse().unwrap()),
                (("!", method), _) => words.method = method,
                (_, Some((name, value))) => words.headers.push((name.to_owned(), value.to_owned())),
                (_, None) => words.headers.push((line.trim_end_matches(':').to_owned(), String::new())),
            }
        }
        words
    }
}

#[cfg(test)]
impl RequestView for Words {
    fn method(&self) -> &str {
        self.method
    }

    fn header(&self, name: &str, see: &mut dyn FnMut(&[u8]) -> bool) -> bool {
        self.headers.iter().any(|(n, value)| n.eq_ignore_ascii_case(name) && see(value.as_bytes()))
    }

    fn query(&self) -> &str {
        &self.query
    }

    fn client(&self) -> Option<IpAddr> {
        self.client
    }
}

#[cfg(test)]
mod tests {
    use super::super::cohort::CompiledCohort;
    use super::super::hash::{hash_key, request_key};
    use super::*;
    use crate::model::{Cohort, Share};

    fn values(request: &Words, part: &Part) -> Vec<String> {
        let mut values = Vec::new();
        any_value(request, part, &mut |value| {
            values.push(String::from_utf8(value.to_owned()).unwrap());
            false
        });
        values
    }

    #[test]
    fn cookies_are_found_in_every_field_and_what_is_none_is_passed_over() {
        let request =
            Words::of(&["cookie: a=1; b=2;; =x; c; a=3", "X-A: no", "Cookie: b=; a = 4 ; A=5; a=\"q\""]);
        assert_eq!(values(&request, &Part::Cookie("a".to_owned())), ["1", "3", "4", "\"q\""]);
        assert_eq!(values(&request, &Part::Cookie("b".to_owned())), ["2", ""]);
        assert!(values(&request, &Part::Cookie("c".to_owned())).is_empty());
    }

    #[test]
    fn query_parameters_are_decoded() {
        let request = Words::of(&["?a=1&a=%32&b+c=d%20e+f&%61=x&flag&a[]=%FF"]);
        assert_eq!(values(&request, &Part::Query("a".to_owned())), ["1", "2", "x"]);
        assert_eq!(values(&request, &Part::Query("b c".to_owned())), ["d e f"]);
        assert_eq!(values(&request, &Part::Query("flag".to_owned())), [""]);
        assert_eq!(values(&request, &Part::Query("a[]".to_owned())), ["\u{fffd}"]);
        assert!(values(&Words::of(&[]), &Part::Query(String::new())).is_empty());
    }

    /// What is balanced by, and who is dealt out, is the same cookie, whatever is beside it.
    #[test]
    fn a_cookie_is_one_key_for_cohorts_and_for_balancing() {
        let key = HashKey::Cookie("user".to_owned());
        let cohort = Cohort { key: key.clone(), salt: String::new(), set: false };
        let cohort = CompiledCohort::new(&cohort, &[Share::ALL], &[Share::ALL], None);
        let salted = |value: &[u8]| hash_key(&[b"\0", value].concat());
        for (cookies, wanted) in [
            (&b"user=me"[..], Some(&b"me"[..])),
            (b"a=1;user=me;user=you", Some(b"me")),
            (b"user=; user=me", Some(b"me")),
            (b" ;; =x; user ; user = me ; b", Some(b"me")),
            (b"user=\"me\"", Some(b"\"me\"")),
            (b"user=m%65", Some(b"m%65")),
            (b"user=a=b", Some(b"a=b")),
            (b"bad=\xff; user=me", Some(b"me")),
            (b"user=\xff; user=me", Some(b"me")),
            (b"user=\xff", None),
            (b"user=", None),
            (b"User=me; users=me; user", None),
            (b"", None),
        ] {
            let request = Bytes(cookies.to_vec(), String::new());
            let shown = String::from_utf8_lossy(cookies);
            assert_eq!(request_key(&request, &key), wanted.map(hash_key), "{shown}");
            assert_eq!(cohort.known(&request), wanted.map(salted), "{shown}");
        }
    }

    /// A request of which nothing is known to be well-formed.
    struct Bytes(Vec<u8>, String);

    impl RequestView for Bytes {
        fn method(&self) -> &str {
            "GET"
        }

        fn header(&self, _: &str, see: &mut dyn FnMut(&[u8]) -> bool) -> bool {
            see(&self.0)
        }

        fn query(&self) -> &str {
            &self.1
        }

        fn client(&self) -> Option<IpAddr> {
            None
        }
    }

    proptest::proptest! {
        /// Found or not, and no harm done; a pair that is well-formed is found whatever is beside it.
        #[test]
        fn whatever_comes_is_borne(
            before in proptest::collection::vec(proptest::num::u8::ANY, 0..40),
            after in proptest::collection::vec(proptest::num::u8::ANY, 0..40),
            query in "[ -~\u{e9}]{0,60}",
        ) {
            let cookies = [&before[..], b"; user=me;", &after[..]].concat();
            let request = Bytes(cookies, format!("{query}&a=1"));
            let mut found = false;
            any_value(&request, &Part::Cookie("user".to_owned()), &mut |value| {
                found |= value == b"me";
                found
            });
            proptest::prop_assert!(found);
            proptest::prop_assert!(any_value(&request, &Part::Query("a".to_owned()), &mut |value| value == b"1"));
        }
    }

    #[test]
    fn looking_ends_with_the_first_yes() {
        let request = Words::of(&["x: 1", "x: 2", "x: 3"]);
        let mut seen = 0;
        assert!(any_value(&request, &Part::Header("x".to_owned()), &mut |value| {
            seen += 1;
            value == b"2"
        }));
        assert_eq!(seen, 2);
    }
}
