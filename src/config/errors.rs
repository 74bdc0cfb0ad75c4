//! What is wrong with a config file: every error with its place, on one line each.

use std::fmt;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;

/// How many errors are kept while reading; a file that is wrong throughout must not fill the memory.
const MAX_COLLECTED: usize = 10_000;
/// How many errors are shown.
const MAX_SHOWN: usize = 100;
/// How many characters of a message are kept: it may quote what the file says.
const MAX_MESSAGE: usize = 400;

/// One thing that is wrong with a config file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    /// The file, as it was named to the reader.
    pub file: Arc<str>,
    /// The line, from 1; 0 when the error is about the file as a whole.
    pub line: usize,
    /// The column in characters, from 1; 0 when the error is about the file as a whole.
    pub column: usize,
    /// The field, like `routes[0].versions[1].weight`; empty when the error is not about a field.
    pub path: String,
    /// What is wrong and what to do: one line.
    pub message: String,
}

impl fmt::Display for ConfigError {
    /// `FILE:LINE:COL: field.path: what is wrong and what to do`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.file)?;
        if self.line > 0 {
            write!(f, ":{}:{}", self.line, self.column)?;
        }
        if !self.path.is_empty() {
            write!(f, ": {}", self.path)?;
        }
        write!(f, ": {}", self.message)
    }
}

/// A file that a config names, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedFile {
    /// The file.
    pub path: PathBuf,
    place: ConfigError,
}

impl NamedFile {
    /// The field, like `listeners[0].tls.certificates[0].keyFile`.
    #[must_use]
    pub fn field(&self) -> &str {
        &self.place.path
    }

    /// Something to say of it, in the same form as what is wrong with the config.
    #[must_use]
    pub fn error(&self, message: &str) -> ConfigError {
        ConfigError { message: one_line(&shorten(message, MAX_MESSAGE)), ..self.place.clone() }
    }
}

/// Certificates in files that a config names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NamedFiles {
    /// A certificate and its key.
    Certificate {
        /// The chain.
        cert: NamedFile,
        /// The key.
        key: NamedFile,
    },
    /// Certificates of authorities.
    Authorities(NamedFile),
}

/// Everything that is wrong with a config file, in the order of the file; at least one error.
///
/// At most the first 100 are kept; [`Display`](fmt::Display) then ends with the number of the others.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct ConfigErrors {
    errors: Vec<ConfigError>,
    left_out: usize,
}

impl ConfigErrors {
    /// One error about the file as a whole.
    pub(super) fn whole(file: &str, message: impl AsRef<str>) -> Self {
        let mut errors = Errors::new(file);
        errors.add(&Place::WHOLE, message);
        errors.into()
    }

    /// These errors, of which there must be one; put into the order of the file.
    #[must_use]
    pub fn of(found: Vec<ConfigError>) -> Self {
        Errors { file: "".into(), found, named: Vec::new(), left_out: 0 }.into()
    }

    /// The errors, in the order of the file.
    #[must_use]
    pub fn errors(&self) -> &[ConfigError] {
        &self.errors
    }

    /// How many more there are than [`Self::errors`] holds.
    #[must_use]
    pub fn left_out(&self) -> usize {
        self.left_out
    }
}

impl fmt::Display for ConfigErrors {
    /// One line per error, without a line end after the last.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, error) in self.errors.iter().enumerate() {
            let line_end = if i == 0 { "" } else { "\n" };
            write!(f, "{line_end}{error}")?;
        }
        match self.left_out {
            0 => Ok(()),
            more => write!(f, "\nand {more} more"),
        }
    }
}

/// Where in a file something is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Position {
    /// From 1.
    pub(super) line: usize,
    /// In characters, from 1.
    pub(super) column: usize,
}

/// A position, and the path of the field there.
#[derive(Clone, Debug)]
pub(super) struct Place {
    pub(super) position: Position,
    path: Option<Rc<str>>,
}

impl Place {
    /// The file as a whole.
    pub(super) const WHOLE: Place = Place { position: Position { line: 0, column: 0 }, path: None };

    /// The top of the document.
    pub(super) fn top(position: Position) -> Place {
        Place { position, path: None }
    }

    /// The path, like `routes[0].name`; empty at the top.
    pub(super) fn path(&self) -> &str {
        self.path.as_deref().unwrap_or_default()
    }

    /// The field `key` of the mapping here.
    pub(super) fn field(&self, key: &str, position: Position) -> Place {
        let plain =
            !key.is_empty() && key.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-');
        let path = match (self.path(), plain) {
            ("", true) => shorten(key, 60),
            (path, true) => format!("{path}.{}", shorten(key, 60)),
            (path, false) => format!("{path}[{:?}]", shorten(key, 140)),
        };
        Place { position, path: Some(path.into()) }
    }

    /// The item number `index`, from 0, of the list here.
    pub(super) fn item(&self, index: usize, position: Position) -> Place {
        Place { position, path: Some(format!("{}[{index}]", self.path()).into()) }
    }
}

/// Collects errors while a file is read, and the files that it names.
pub(super) struct Errors {
    file: Arc<str>,
    found: Vec<ConfigError>,
    named: Vec<NamedFiles>,
    left_out: usize,
}

impl Errors {
    pub(super) fn new(file: &str) -> Self {
        Self { file: file.into(), found: Vec::new(), named: Vec::new(), left_out: 0 }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.found.is_empty()
    }

    /// Whether there are so many that it is not worth while to look for the best remedy of each.
    pub(super) fn many(&self) -> bool {
        self.found.len() > MAX_SHOWN
    }

    /// Notes that the config names these files.
    pub(super) fn names(&mut self, files: NamedFiles) {
        self.named.push(files);
    }

    /// A file that is named at `place`.
    pub(super) fn file(&self, place: &Place, path: &Path) -> NamedFile {
        NamedFile { path: path.to_owned(), place: self.error(place, String::new()) }
    }

    /// The files that the config names, in the order in which they were noted.
    pub(super) fn into_named(self) -> Vec<NamedFiles> {
        self.named
    }

    fn error(&self, place: &Place, message: String) -> ConfigError {
        ConfigError {
            file: self.file.clone(),
            line: place.position.line,
            column: place.position.column,
            path: place.path().to_owned(),
            message,
        }
    }

    /// Notes that something is wrong at `place`.
    pub(super) fn add(&mut self, place: &Place, message: impl AsRef<str>) {
        if self.found.len() == MAX_COLLECTED {
            self.left_out += 1;
            return;
        }
        self.found.push(self.error(place, one_line(&shorten(message.as_ref(), MAX_MESSAGE))));
    }
}

impl From<Errors> for ConfigErrors {
    fn from(mut errors: Errors) -> Self {
        // Stable: errors at one place stay in the order in which they were found.
        errors.found.sort_by_key(|e| (e.line, e.column));
        let left_out = errors.left_out + errors.found.len().saturating_sub(MAX_SHOWN);
        errors.found.truncate(MAX_SHOWN);
        Self { errors: errors.found, left_out }
    }
}

/// At most `max` characters of `text`, with `…` where something was cut.
pub(super) fn shorten(text: &str, max: usize) -> String {
    match text.char_indices().nth(max) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
        None => text.to_owned(),
    }
}

/// `text` with control characters escaped: one error stays one line, and nothing steers a terminal.
fn one_line(text: &str) -> String {
    text.chars().fold(String::with_capacity(text.len()), |mut line, c| {
        if c.is_control() {
            line.extend(c.escape_default());
        } else {
            line.push(c);
        }
        line
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_sorted_and_bounded() {
        let mut errors = Errors::new("f");
        for line in (1..=20_000).rev() {
            errors.add(&Place::top(Position { line, column: 1 }), "wrong");
        }
        let errors = ConfigErrors::from(errors);
        assert_eq!((errors.errors().len(), errors.left_out()), (100, 19_900));
        assert!(errors.to_string().ends_with("\nand 19900 more"));
        assert!(errors.errors().is_sorted_by_key(|e| e.line));
    }

    #[test]
    fn an_error_is_one_short_line() {
        let mut errors = Errors::new("f");
        errors.add(&Place::WHOLE, format!("a\nb\u{1b}[31m{}", "x".repeat(1_000)));
        let shown = ConfigErrors::from(errors).to_string();
        assert!(shown.starts_with("f: a\\nb\\u{1b}[31mxxx") && shown.ends_with('…'), "{shown}");
        assert!(shown.chars().count() < 450);
    }

    #[test]
    fn paths_quote_what_is_not_plain() {
        let at = Position { line: 1, column: 1 };
        let place =
            Place::top(at).field("discovery", at).field("static", at).field("web/shop", at).item(0, at);
        assert_eq!(place.path(), "discovery.static[\"web/shop\"][0]");
    }
}
