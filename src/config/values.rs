//! The types of single values: how each is read, and its JSON Schema.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;
use serde_json::json;

use super::errors::{Errors, Place, shorten};
use super::input::{Input, KeyInput, read_text, wrong_type};
use super::settings::HostPort;
use super::yaml::{Key, Node, Value};
use crate::model::{
    ConfigMapKey, HostMatch, Namespace, PathMatch, PortRef, RouteName, SecretKey, Selector, ServiceKey,
    VersionName,
};

/// A value that is written as a text: what is wanted, its schema, and how it is read.
macro_rules! text_value {
    ($type:ty, $wanted:expr, { $($schema:tt)* }, $read:expr) => {
        impl Input for $type {
            fn schema() -> serde_json::Value {
                json!({"type": "string", $($schema)*})
            }

            fn read(node: &Node, place: &Place, errors: &mut Errors) -> Option<Self> {
                read_text(node, $wanted, place, errors, $read)
            }
        }
    };
}
pub(super) use text_value;

const NAME: &str = "^[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?$";
const SERVICE: &str = "^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?/[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$";
const LABEL: &str = "^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$";
const SECRET: &str = "^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?/[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?$";
const PATH: &str = "^/[^?#]*$";
pub(super) const DURATION: &str = "^([0-9]{1,5}(h|m|s|ms)){1,4}$";

text_value!(RouteName, "a name", {"title": "name", "pattern": NAME}, |text| {
    text.parse().map_err(|e: crate::model::NameError| e.to_string())
});

text_value!(VersionName, "a name", {"title": "name", "pattern": NAME}, |text| {
    text.parse().map_err(|e: crate::model::NameError| e.to_string())
});

/// The name of a listener.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct ListenerName(pub(super) String);

text_value!(ListenerName, "a name", {"title": "name", "pattern": NAME}, |text| {
    // The rules for names are one for all: they become labels of metrics.
    text.parse::<RouteName>().map(|name| Self(name.into())).map_err(|e| e.to_string())
});

text_value!(ServiceKey, "a Service: NAMESPACE/NAME", {"title": "NAMESPACE/NAME", "pattern": SERVICE}, service);

fn service(text: &str) -> Result<ServiceKey, String> {
    text.parse().map_err(|e: crate::model::ServiceKeyError| match dns_name(text) {
        Some(key) => format!("`{}` is not a Service: write NAMESPACE/NAME, here {key}", shorten(text, 140)),
        None => e.to_string(),
    })
}

/// The Service that the DNS name `NAME.NAMESPACE`, with or without `.svc…`, stands for.
fn dns_name(text: &str) -> Option<ServiceKey> {
    let (name, rest) = text.split_once('.')?;
    let (namespace, tail) = rest.split_once('.').unwrap_or((rest, "svc"));
    let is_tail = tail == "svc" || tail.starts_with("svc.");
    format!("{namespace}/{name}").parse().ok().filter(|_| is_tail)
}

text_value!(SecretKey, "a Secret: NAMESPACE/NAME", {"title": "NAMESPACE/NAME", "pattern": SECRET}, |text| {
    text.parse().map_err(|e: crate::model::SecretKeyError| e.to_string())
});

text_value!(ConfigMapKey, "a ConfigMap: NAMESPACE/NAME", {"title": "NAMESPACE/NAME", "pattern": SERVICE}, |text| {
    text.parse().map_err(|e: crate::model::ConfigMapKeyError| e.to_string())
});

text_value!(Namespace, "a namespace", {"title": "namespace", "pattern": LABEL}, |text| {
    // A namespace is the first half of a Service's name.
    match format!("{text}/x").parse::<ServiceKey>() {
        Ok(key) if *key.namespace == *text => Ok(key.namespace),
        Ok(_) | Err(_) => Err(format!(
            "`{}` is not a namespace: use 1 to 63 lower-case letters, digits and `-`, like `web`",
            shorten(text, 80)
        )),
    }
});

impl Input for Selector {
    fn schema() -> serde_json::Value {
        json!({"type": "string", "title": "label selector", "minLength": 1})
    }

    fn read(node: &Node, place: &Place, errors: &mut Errors) -> Option<Self> {
        // As a Service's `selector` is written.
        if let Value::Map(entries) = &node.value
            && let Some(selector) = from_pairs(entries)
        {
            let selector = shorten(&selector.to_string(), 140);
            errors.add(place, format!("must be a text, and is a mapping: write \"{selector}\""));
            return None;
        }
        read_text(node, "a label selector", place, errors, |text| {
            text.parse().map_err(|e: crate::model::SelectorError| e.to_string())
        })
    }
}

/// What a mapping of labels to values means as a selector.
fn from_pairs(entries: &[(Key, Node)]) -> Option<Selector> {
    let pair = |(key, node): &(Key, Node)| match &node.value {
        Value::Text(text) | Value::Number(text) => Some(format!("{}={text}", key.text)),
        Value::Bool(bool) => Some(format!("{}={bool}", key.text)),
        Value::Null | Value::List(_) | Value::Map(_) | Value::Refused(_) => None,
    };
    // More than a few are no example any more.
    let pairs: Vec<_> = entries.iter().take(8).map(pair).collect::<Option<_>>()?;
    pairs.join(",").parse().ok()
}

text_value!(HostMatch, "a host", {"title": "host", "minLength": 1, "maxLength": 256}, |text| {
    text.parse().map_err(|e: crate::model::HostMatchError| e.to_string())
});

text_value!(HostPort, "HOST:PORT, like 127.0.0.1:8080", {"title": "HOST:PORT", "pattern": ":[0-9]{1,5}$"}, |text| {
    text.parse().map_err(|e: super::settings::HostPortError| e.to_string())
});

text_value!(SocketAddr, "IP:PORT, like 127.0.0.1:8080", {"title": "IP:PORT", "pattern": ":[0-9]{1,5}$"}, |text| {
    match text.parse::<SocketAddr>() {
        Ok(address) if address.port() == 0 => {
            Err(format!("`{address}` has port 0, to which nothing can be sent: write the pod's port"))
        }
        Ok(address) => Ok(address),
        Err(_) => Err(format!(
            "`{}` is not an address: write IP:PORT, like 127.0.0.1:8080 or [::1]:8080",
            shorten(text, 80)
        )),
    }
});

text_value!(IpNet, "a network, like 10.0.0.0/8", {"title": "network", "minLength": 1}, |text| {
    // A single address is a network of one.
    let single = || text.parse::<IpAddr>().ok().map(IpNet::from);
    text.parse::<IpNet>().ok().or_else(single).ok_or_else(|| {
        format!("`{}` is not a network: write ADDRESS/LENGTH, like 10.0.0.0/8 or fd00::/8", shorten(text, 80))
    })
});

text_value!(PathBuf, "the path of a file", {"title": "file", "minLength": 1}, |text| {
    if text.is_empty() {
        Err("is empty: write the path of a file, or leave the field out".to_owned())
    } else {
        Ok(Self::from(text))
    }
});

/// Any text that is not empty.
pub(super) struct Text(pub(super) String);

text_value!(Text, "a text", {"title": "text", "minLength": 1}, |text| {
    if text.is_empty() {
        Err("is empty: write a text, or leave the field out".to_owned())
    } else {
        Ok(Self(text.to_owned()))
    }
});

/// The value of a label; may be empty.
pub(super) struct LabelValue(pub(super) String);

text_value!(LabelValue, "a text", {"title": "text", "maxLength": 63}, |text| {
    if text.chars().count() <= 63 {
        Ok(Self(text.to_owned()))
    } else {
        Err(format!("`{}` is longer than the 63 characters of a label's value", shorten(text, 80)))
    }
});

/// A length of time.
#[derive(Clone, Copy)]
pub(super) struct Span(pub(super) Duration);

text_value!(Span, "a duration with its unit, like 250ms, 10s, 5m or 1h", {"title": "duration", "pattern": DURATION}, |text| {
    duration(text).map(Self)
});

/// Reads a length of time.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    units(text).ok_or_else(|| {
        format!("`{}` is not a duration: write it like 250ms, 10s, 5m, 1h or 1m30s", shorten(text, 40))
    })
}

/// The Gateway API's durations (GEP-2257): one to four of `h`, `m`, `s`, `ms`, each with up to five digits.
fn units(text: &str) -> Option<Duration> {
    let mut rest = text;
    let mut millis = 0;
    for _ in 0..4 {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).filter(|n| (1..=5).contains(n))?;
        let (number, tail) = rest.split_at(digits);
        let units = [("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000)];
        let (tail, factor) =
            units.iter().find_map(|(unit, factor)| Some((tail.strip_prefix(unit)?, *factor)))?;
        millis += number.parse::<u64>().ok()? * factor;
        rest = tail;
        if rest.is_empty() {
            return Some(Duration::from_millis(millis));
        }
    }
    None
}

/// A path and all that is under it.
pub(super) struct PrefixPath(pub(super) PathMatch);

text_value!(PrefixPath, "a path", {"title": "path", "pattern": PATH}, |text| {
    PathMatch::prefix(text).map(Self).map_err(|e| e.to_string())
});

/// A path.
pub(super) struct ExactPath(pub(super) PathMatch);

text_value!(ExactPath, "a path", {"title": "path", "pattern": PATH}, |text| {
    PathMatch::exact(text).map(Self).map_err(|e| e.to_string())
});

/// An expression over whole paths, not compiled yet: that is dear, and `check` counts them.
pub(super) struct RegexPath(pub(super) String);

text_value!(RegexPath, "a regular expression", {"title": "regex", "minLength": 1}, |text| {
    if text.is_empty() {
        Err("is empty: write a regular expression over the whole path, like /item/[0-9]+".to_owned())
    } else {
        Ok(Self(text.to_owned()))
    }
});

impl Input for PortRef {
    fn schema() -> serde_json::Value {
        let name = "^[a-z0-9-]*[a-z][a-z0-9-]*$";
        json!({
            "title": "port number or name",
            "anyOf": [
                {"type": "integer", "minimum": 1, "maximum": 65535},
                {"type": "string", "maxLength": 15, "pattern": name},
            ],
        })
    }

    fn read(node: &Node, place: &Place, errors: &mut Errors) -> Option<Self> {
        let remedy = "write the number (1 to 65535) or the name of the Service's port, like 80 or http";
        match &node.value {
            Value::Number(number) => match number.parse() {
                Ok(port) if port > 0 => return Some(PortRef::Number(port)),
                Ok(_) | Err(_) => {
                    errors.add(place, format!("{} is not a port: {remedy}", shorten(number, 40)))
                }
            },
            Value::Text(text) if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) => {
                errors.add(
                    place,
                    format!("`{}` is in quotes: write a port's number without them", shorten(text, 40)),
                );
            }
            Value::Text(text) if is_port_name(text) => return Some(PortRef::Name(text.clone())),
            Value::Text(text) => {
                errors.add(place, format!("`{}` is not a port: {remedy}", shorten(text, 40)))
            }
            Value::Bool(_) | Value::List(_) | Value::Map(_) | Value::Null | Value::Refused(_) => {
                wrong_type(node, "a port: its number or its name", place, errors);
            }
        }
        None
    }
}

/// The names that Kubernetes lets a port have (RFC 6335 §5.1).
fn is_port_name(text: &str) -> bool {
    (1..=15).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        && text.bytes().any(|b| b.is_ascii_lowercase())
}

impl KeyInput for ServiceKey {
    const PLACEHOLDER: &str = "NAMESPACE/NAME";
    const PATTERN: &str = SERVICE;

    fn read(text: &str) -> Result<Self, String> {
        service(text)
    }
}

/// The key of a label.
pub(super) struct LabelKey(pub(super) String);

impl KeyInput for LabelKey {
    const PLACEHOLDER: &str = "LABEL";
    const PATTERN: &str = "^.+$";

    fn read(text: &str) -> Result<Self, String> {
        // What a selector could never name is not a label.
        match text.parse::<Selector>() {
            Ok(selector) if selector.to_string() == text && !text.contains([',', '=', '!', '(']) => {
                Ok(Self(text.to_owned()))
            }
            Ok(_) | Err(_) => Err(format!(
                "`{}` is not the key of a label: write for example `version` or `app.kubernetes.io/version`",
                shorten(text, 80)
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_units() {
        for (text, millis) in [
            ("0s", 0),
            ("250ms", 250),
            ("10s", 10_000),
            ("5m", 300_000),
            ("1h", 3_600_000),
            ("1m30s", 90_000),
            ("1h1m1s1ms", 3_661_001),
            ("99999h", 359_996_400_000),
        ] {
            assert_eq!(units(text), Some(Duration::from_millis(millis)), "{text}");
        }
        for text in ["", "5", "s", "-5s", "1.5s", "5 s", "5d", "100000s", "1s1s1s1s1s", "5s ", "٥s"] {
            assert_eq!(units(text), None, "{text}");
        }
    }

    #[test]
    fn port_names_are_those_of_kubernetes() {
        assert!(is_port_name("http") && is_port_name("h2-8080") && is_port_name("a"));
        assert!(!is_port_name("") && !is_port_name("80") && !is_port_name("HTTP"));
        assert!(!is_port_name("sixteen-letters-"));
    }
}
