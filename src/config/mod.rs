//! The config file: text → checked [`Settings`], with every error at once; and watching it for changes.
//!
//! `yaml` makes a tree with positions of the text, `file` names every field once (and so gives the reader, the JSON
//! Schema and the reference in `docs/configuration.md`), `values`, `names`, `words` and `numbers` hold the types of single
//! values, and `check` what one field alone cannot tell.

mod check;
mod errors;
mod file;
mod hints;
mod input;
mod names;
mod numbers;
mod settings;
mod values;
mod watch;
mod words;
mod yaml;

#[cfg(test)]
mod tests;

use std::fs;
use std::io::{ErrorKind, Read};
use std::path::Path;

use serde_json::json;

pub use errors::{ConfigError, ConfigErrors, NamedFile, NamedFiles};
pub use settings::{
    AccessLog, Admin, Discovery, Drain, HostPort, HostPortError, KubernetesSettings, Listener, RequestLog,
    Settings, StateStore, Tracing,
};
pub use watch::{Watch, watch};

use errors::{Errors, Place};
use input::Input;

/// How large a file may be.
const MAX_BYTES: u64 = 16 << 20;

/// Reads a config from `text`; `file` is its name in errors.
///
/// # Errors
/// Everything that is wrong with it.
pub fn parse(file: &str, text: &str) -> Result<Settings, ConfigErrors> {
    Ok(parse_with_files(file, text)?.0)
}

/// The same, with the files of certificates that it names.
fn parse_with_files(file: &str, text: &str) -> Result<(Settings, Vec<NamedFiles>), ConfigErrors> {
    if text.len() as u64 > MAX_BYTES {
        return Err(too_large(file));
    }
    let mut errors = Errors::new(file);
    let tree = yaml::read(text, &mut errors);
    let read = tree.and_then(|tree| input::read::<file::File>(&tree, Place::top(tree.at), &mut errors));
    match read.and_then(|file| check::settings(&file.value, &mut errors)) {
        Some(settings) if errors.is_empty() => Ok((settings, errors.into_named())),
        Some(_) | None => Err(errors.into()),
    }
}

/// Reads the config file at `path`.
///
/// # Errors
/// One when it cannot be read, else everything that is wrong with it.
pub fn load(path: &Path) -> Result<Settings, ConfigErrors> {
    parse(&path.display().to_string(), &load_text(path)?)
}

/// Reads the config file at `path`, and tells the files of certificates that it names. They are not looked at.
///
/// # Errors
/// The same as of [`load`].
pub fn load_with_files(path: &Path) -> Result<(Settings, Vec<NamedFiles>), ConfigErrors> {
    parse_with_files(&path.display().to_string(), &load_text(path)?)
}

/// The text of the config file at `path`.
fn load_text(path: &Path) -> Result<String, ConfigErrors> {
    let name = path.display().to_string();
    let fail = |message: String| ConfigErrors::whole(&name, message);
    let unreadable = |error: std::io::Error| fail(explain(&error));
    // A pipe or a device could block or never end.
    if !fs::metadata(path).map_err(unreadable)?.is_file() {
        return Err(fail("is not a regular file: name the file itself".to_owned()));
    }
    let mut bytes = Vec::new();
    let file = fs::File::open(path).map_err(unreadable)?;
    file.take(MAX_BYTES + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(too_large(&name));
    }
    String::from_utf8(bytes).map_err(|e| {
        let valid = e.utf8_error().valid_up_to();
        let line = e.as_bytes().iter().take(valid).filter(|b| **b == b'\n').count() + 1;
        fail(format!("is not UTF-8 text on line {line}: save it as UTF-8"))
    })
}

/// Why a file could not be read, and what to do.
fn explain(error: &std::io::Error) -> String {
    if error.kind() == ErrorKind::NotFound {
        "there is no such file: check the path".to_owned()
    } else if error.kind() == ErrorKind::PermissionDenied {
        "may not be read by this user: change its permissions or those of its directory".to_owned()
    } else {
        format!("cannot be read: {error}")
    }
}

fn too_large(file: &str) -> ConfigErrors {
    ConfigErrors::whole(file, format!("is larger than {} MiB: make it smaller", MAX_BYTES >> 20))
}

/// The JSON Schema (draft 2020-12) of the config file, for editors.
///
/// What it accepts is more than [`parse`] does: it cannot say that weights must fit, or that names must be unique.
#[must_use]
pub fn schema() -> serde_json::Value {
    let mut schema = file::File::schema();
    if let serde_json::Value::Object(schema) = &mut schema {
        schema.insert("$schema".to_owned(), json!("https://json-schema.org/draft/2020-12/schema"));
    }
    schema
}
