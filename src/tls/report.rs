//! What the store tells of certificates, and is told of Secrets.

use std::fmt;

use crate::model::{Problem, Timestamp};

/// Everything that keeps listeners from starting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsErrors(pub(super) Vec<Problem>);

impl TlsErrors {
    /// Each of them.
    #[must_use]
    pub fn problems(&self) -> &[Problem] {
        &self.0
    }
}

impl fmt::Display for TlsErrors {
    /// One on each line.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines: Vec<_> = self.0.iter().map(ToString::to_string).collect();
        f.write_str(&lines.join("\n"))
    }
}

impl std::error::Error for TlsErrors {}

/// What there is to know of the certificates at a moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// What is wrong.
    pub problems: Vec<Problem>,
    /// The certificates in use.
    pub loaded: Vec<Loaded>,
}

/// A certificate in use.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Loaded {
    /// The listener that shows it; empty for one that is shown to pods.
    pub listener: String,
    /// Where it is from: the path of the file, or `secret:NAMESPACE/NAME`.
    pub source: String,
    /// The names that it is for.
    pub names: Vec<String>,
    /// Its end.
    pub not_after: Timestamp,
}

/// What can be in the way of hearing of a Secret; each is over by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Hindrance {
    /// It cannot be watched.
    Watch,
    /// It came, and cannot be read.
    Content,
}
