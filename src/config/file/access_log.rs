//! The fields of the access log.

use std::path::PathBuf;

use serde_json::json;

use super::super::errors::{Errors, Place};
use super::super::hints::{list, nearest};
use super::super::input::{Input, object, wrong_type};
use super::super::settings::{AccessLog, RequestLog};
use super::super::yaml::{Node, Value};
use crate::model::{AccessFormat, Share};

object! {
    /// Which requests are logged, where, and in which form.
    AccessLogFile "file", later [] {
        /// The file; it is appended to. Left out: standard output.
        optional "file" file: PathBuf, example = "/var/log/serinus/access.json";
        /// The form of a line: a JSON object; or, as text, the combined format of web servers with more fields behind it.
        optional "format" format: AccessFormat, default = "json", example = "text";
        /// How many of the requests that went well are logged, in percent, in steps of 0.0001: each is drawn by itself. Those that
        /// did not always are: a status of 499 or more, an answer of Serinus itself other than a redirect, an answer that broke off.
        optional "sample" sample: Share, default = 100, example = 1;
    }
}

impl Input for AccessLog {
    fn schema() -> serde_json::Value {
        json!({"title": "off | stdout | {file}", "anyOf": [{"enum": ["off", "stdout"]}, AccessLogFile::schema()]})
    }

    fn read(node: &Node, place: &Place, errors: &mut Errors) -> Option<Self> {
        let words = ["off", "stdout"];
        match &node.value {
            Value::Map(_) => {
                AccessLogFile::read(node, place, errors).map(|file| AccessLog::On(file.settings()))
            }
            Value::Text(text) if text == "off" => Some(AccessLog::Off),
            Value::Text(text) if text == "stdout" => Some(AccessLog::On(RequestLog::default())),
            Value::Text(text) if nearest(text, &words).is_some() => {
                let near = nearest(text, &words).unwrap_or_default();
                errors.add(place, format!("`{text}` is not known: did you mean `{near}`?"));
                None
            }
            Value::Text(_)
            | Value::Bool(_)
            | Value::Number(_)
            | Value::List(_)
            | Value::Null
            | Value::Refused(_) => {
                let wanted = format!("one of {} or `{{file: PATH}}`", list(&words));
                wrong_type(node, &wanted, place, errors);
                None
            }
        }
    }
}

impl AccessLogFile {
    /// What it means. A field that is wrong has been said to be, and no settings come of the file.
    fn settings(&self) -> RequestLog {
        let whole = RequestLog::default();
        RequestLog {
            file: self.file.value().cloned(),
            format: self.format.value().copied().unwrap_or(whole.format),
            sample: self.sample.value().copied().unwrap_or(whole.sample),
        }
    }
}
