//! Values that are one of a few words.

use http::Method;
use serde_json::json;

use super::errors::{Errors, Place, shorten};
use super::hints::{list, nearest};
use super::input::{Input, read_text, wrong_type};
use super::yaml::Node;
use super::yaml::Value;
use crate::model::{AccessFormat, EscapedSlashes, HookEvent, MinTls, OnEmpty, OnFail, Protocol, Underscores};

/// One of a few words.
macro_rules! word_value {
    ($type:ty, $($word:literal = $value:expr),+) => {
        impl Input for $type {
            fn schema() -> serde_json::Value {
                let title = [$($word),+].join(" | ");
                json!({"title": title, "enum": [$($word),+]})
            }

            fn read(node: &Node, place: &Place, errors: &mut Errors) -> Option<Self> {
                let wanted = format!("one of {}", list(&[$($word),+]));
                read_text(node, &wanted, place, errors, |text| match text {
                    $($word => Ok($value),)+
                    _ => {
                        let words = [$($word),+];
                        Err(match nearest(text, &words) {
                            Some(near) => format!("`{}` is not known: did you mean `{near}`?", shorten(text, 80)),
                            None => format!("`{}` is not known: use one of {}", shorten(text, 80), list(&words)),
                        })
                    }
                })
            }
        }
    };
}

word_value!(AccessFormat, "json" = AccessFormat::Json, "text" = AccessFormat::Text);
word_value!(OnEmpty, "spill" = OnEmpty::Spill, "fail" = OnEmpty::Fail);
word_value!(OnFail, "rollback" = OnFail::Rollback, "pause" = OnFail::Pause);
word_value!(
    HookEvent,
    "gate" = HookEvent::Gate,
    "step" = HookEvent::Step,
    "promoted" = HookEvent::Promoted,
    "rolledBack" = HookEvent::RolledBack
);
word_value!(Protocol, "http1" = Protocol::Http1, "http2" = Protocol::H2c);
word_value!(EscapedSlashes, "reject" = EscapedSlashes::Reject, "pass" = EscapedSlashes::Pass);
word_value!(
    Underscores,
    "drop" = Underscores::Drop,
    "reject" = Underscores::Reject,
    "pass" = Underscores::Pass
);

/// A method whose requests may be copied.
#[derive(Clone)]
pub(super) struct CopiedMethod(pub(super) Method);

word_value!(
    CopiedMethod,
    "GET" = CopiedMethod(Method::GET),
    "HEAD" = CopiedMethod(Method::HEAD),
    "POST" = CopiedMethod(Method::POST),
    "PUT" = CopiedMethod(Method::PUT),
    "PATCH" = CopiedMethod(Method::PATCH),
    "DELETE" = CopiedMethod(Method::DELETE),
    "OPTIONS" = CopiedMethod(Method::OPTIONS)
);

/// The scheme that a redirect leads to.
#[derive(Clone, Copy)]
pub(super) struct Https;

word_value!(Https, "https" = Https);

impl Input for MinTls {
    fn schema() -> serde_json::Value {
        json!({"title": "\"1.2\" | \"1.3\"", "enum": ["1.2", "1.3"]})
    }

    fn read(node: &Node, place: &Place, errors: &mut Errors) -> Option<Self> {
        read_text(node, "one of \"1.2\", \"1.3\"", place, errors, |text| match text {
            "1.2" => Ok(MinTls::Tls12),
            "1.3" => Ok(MinTls::Tls13),
            _ => Err(format!("`{}` is not known: use one of \"1.2\", \"1.3\"", shorten(text, 80))),
        })
    }
}

impl Input for bool {
    fn schema() -> serde_json::Value {
        json!({"title": "boolean", "type": "boolean"})
    }

    fn read(node: &Node, place: &Place, errors: &mut Errors) -> Option<Self> {
        if let Value::Bool(bool) = node.value {
            return Some(bool);
        }
        wrong_type(node, "true or false, without quotes", place, errors);
        None
    }
}
