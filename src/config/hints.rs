//! What errors propose: the name that was probably meant, and examples as one would write them.

use super::yaml::is_text;

/// Of `known` what `text` was probably meant to be.
pub(super) fn nearest<'k>(text: &str, known: &[&'k str]) -> Option<&'k str> {
    if text.len() > 64 {
        return None;
    }
    let plain = |text: &str| text.replace(['_', '-', ' '], "").to_ascii_lowercase();
    let text = plain(text);
    known
        .iter()
        .map(|name| (strsim::damerau_levenshtein(&text, &plain(name)), *name))
        .filter(|(distance, name)| *distance <= (name.len() / 3).max(1) && *distance < text.len().max(1))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, name)| name)
}

/// `a`, `b`, `c`.
pub(super) fn list(names: &[&str]) -> String {
    names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}

/// A JSON value as one line of YAML.
pub(super) fn flow(value: &serde_json::Value) -> String {
    match value {
        serde_json::Value::String(text) => {
            let plain = |c: char| c.is_ascii_alphanumeric() || "/._-:!=".contains(c);
            let begins = text.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '/');
            let quoted = !begins || !text.chars().all(plain) || text.ends_with(':') || !is_text(text);
            if quoted { format!("{text:?}") } else { text.clone() }
        }
        serde_json::Value::Array(items) => {
            format!("[{}]", items.iter().map(flow).collect::<Vec<_>>().join(", "))
        }
        serde_json::Value::Object(fields) => {
            let fields: Vec<_> =
                fields.iter().map(|(key, value)| format!("{key}: {}", flow(value))).collect();
            format!("{{{}}}", fields.join(", "))
        }
        serde_json::Value::Null | serde_json::Value::Bool(_) | serde_json::Value::Number(_) => {
            value.to_string()
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn proposes_what_was_meant_and_nothing_far_fetched() {
        let known = ["name", "hosts", "tokenFile", "leastRequest", "kubernetes"];
        for (text, near) in [
            ("nmae", Some("name")),
            ("Name", Some("name")),
            ("host", Some("hosts")),
            ("token_file", Some("tokenFile")),
            ("least-request", Some("leastRequest")),
            ("kubernets", Some("kubernetes")),
            ("mirror", None),
            ("x", None),
            ("", None),
            (&"n".repeat(1_000), None),
        ] {
            assert_eq!(nearest(text, &known), near, "{text}");
        }
    }

    #[test]
    fn examples_are_yaml_that_means_the_same() {
        for value in [
            json!({"web/shop": [{"address": "127.0.1.1:8080", "labels": {"version": "v1"}}]}),
            json!([
                "*.example.com",
                "version!=v2",
                "!canary",
                "80",
                "1e3",
                "",
                "- x",
                "a: b",
                "c:",
                "0x1",
                "~"
            ]),
            json!(["true", "null", "No", "[", "0.1", "a b", "=", "---", "\"", "é"]),
            json!([true, null, 0.1, 80]),
        ] {
            assert_eq!(
                yaml_serde::from_str::<serde_json::Value>(&flow(&value)).unwrap(),
                value,
                "{}",
                flow(&value)
            );
        }
    }
}
