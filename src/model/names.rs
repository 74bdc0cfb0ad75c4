//! Names and numbers that must not be confused with each other.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// Why a text is not a name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is not a name: use 1 to 63 letters, digits, `-`, `_` or `.`, with a letter or digit at both ends"
)]
pub struct NameError(String);

fn check_name(text: &str) -> Result<Arc<str>, NameError> {
    let bytes = text.as_bytes();
    let ends = |b: Option<&u8>| b.is_some_and(u8::is_ascii_alphanumeric);
    let inner = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    if bytes.len() <= 63 && ends(bytes.first()) && ends(bytes.last()) && bytes.iter().all(inner) {
        Ok(text.into())
    } else {
        Err(NameError(text.chars().take(80).collect()))
    }
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(Arc<str>);

        impl $name {
            /// The name as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = NameError;
            fn from_str(text: &str) -> Result<Self, NameError> {
                check_name(text).map(Self)
            }
        }

        impl TryFrom<String> for $name {
            type Error = NameError;
            fn try_from(text: String) -> Result<Self, NameError> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> String {
                name.0.as_ref().to_owned()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }

        impl std::borrow::Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }
    };
}

name! {
    /// The name of a route: unique in a config, a label in metrics, a path element in the admin API.
    RouteName
}
name! {
    /// The name of a version: unique in its route.
    VersionName
}

/// A Kubernetes namespace.
pub type Namespace = Arc<str>;

/// A Kubernetes Service: `NAMESPACE/NAME`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServiceKey {
    /// The namespace.
    pub namespace: Namespace,
    /// The name in that namespace.
    pub name: Arc<str>,
}

impl ServiceKey {
    /// The key of Service `name` in `namespace`.
    #[must_use]
    pub fn new(namespace: impl Into<Namespace>, name: impl Into<Arc<str>>) -> Self {
        Self { namespace: namespace.into(), name: name.into() }
    }
}

/// A Kubernetes Secret: `NAMESPACE/NAME`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SecretKey {
    /// The namespace.
    pub namespace: Namespace,
    /// The name in that namespace.
    pub name: Arc<str>,
}

/// Why a text is not a [`SecretKey`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a Secret: write NAMESPACE/NAME, like web/shop-tls")]
pub struct SecretKeyError(String);

impl FromStr for SecretKey {
    type Err = SecretKeyError;

    fn from_str(text: &str) -> Result<Self, SecretKeyError> {
        let alphanumeric = |b: Option<&u8>| b.is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
        let fits = |part: &str, longest: usize, dots: bool| {
            let bytes = part.as_bytes();
            bytes.len() <= longest
                && alphanumeric(bytes.first())
                && alphanumeric(bytes.last())
                && bytes.iter().all(|b| alphanumeric(Some(b)) || *b == b'-' || (dots && *b == b'.'))
        };
        match text.split_once('/') {
            // RFC 1123: a namespace is a label, a Secret's name a subdomain.
            Some((namespace, name)) if fits(namespace, 63, false) && fits(name, 253, true) => {
                Ok(Self { namespace: namespace.into(), name: name.into() })
            }
            _ => Err(SecretKeyError(text.chars().take(320).collect())),
        }
    }
}

impl fmt::Display for SecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// A Kubernetes ConfigMap: `NAMESPACE/NAME`. Its name is a label's value too, and so no longer than one.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConfigMapKey {
    /// The namespace.
    pub namespace: Namespace,
    /// The name in that namespace.
    pub name: Arc<str>,
}

/// Why a text is not a [`ConfigMapKey`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is not a ConfigMap: write NAMESPACE/NAME, each of 1 to 63 lower-case letters, digits and `-`, like \
     serinus/serinus-state"
)]
pub struct ConfigMapKeyError(String);

impl FromStr for ConfigMapKey {
    type Err = ConfigMapKeyError;

    fn from_str(text: &str) -> Result<Self, ConfigMapKeyError> {
        // The same labels.
        match text.parse::<ServiceKey>() {
            Ok(ServiceKey { namespace, name }) => Ok(Self { namespace, name }),
            Err(ServiceKeyError(text)) => Err(ConfigMapKeyError(text)),
        }
    }
}

impl fmt::Display for ConfigMapKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// Why a text is not a [`ServiceKey`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a Service: write NAMESPACE/NAME, like web/nginx-svc")]
pub struct ServiceKeyError(String);

impl FromStr for ServiceKey {
    type Err = ServiceKeyError;

    fn from_str(text: &str) -> Result<Self, ServiceKeyError> {
        // RFC 1123 labels; Services are RFC 1035 labels, a subset.
        let label = |part: &str| {
            let ends = |b: Option<&u8>| b.is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
            let bytes = part.as_bytes();
            bytes.len() <= 63
                && ends(bytes.first())
                && ends(bytes.last())
                && bytes.iter().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || *b == b'-')
        };
        match text.split_once('/') {
            Some((namespace, name)) if label(namespace) && label(name) => Ok(Self::new(namespace, name)),
            _ => Err(ServiceKeyError(text.chars().take(140).collect())),
        }
    }
}

impl fmt::Display for ServiceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// The number of a change to a route's weights; the first is 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Revision(pub u64);

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The number of a routing table; each one that is published has the next.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct Generation(pub u64);

impl fmt::Display for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_short_and_plain() {
        for name in ["a", "shop", "v1.2.3", "A_b-c", &"x".repeat(63)] {
            assert!(name.parse::<RouteName>().is_ok(), "{name}");
        }
        for name in ["", "-a", "a-", "a b", "a/b", "ü", &"x".repeat(64), "a\n"] {
            assert!(name.parse::<RouteName>().is_err(), "{name}");
        }
    }

    #[test]
    fn service_keys_have_two_labels() {
        assert_eq!("web/nginx-svc".parse(), Ok(ServiceKey::new("web", "nginx-svc")));
        for text in ["", "web", "/x", "x/", "Web/x", "a/b/c", "a b/c", "-a/b"] {
            assert!(text.parse::<ServiceKey>().is_err(), "{text}");
        }
    }
}
