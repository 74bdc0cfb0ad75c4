//! `docs/configuration.md` and the JSON Schema say what the reader does.

use std::collections::BTreeSet;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::super::hints::flow;
use super::super::{parse, schema};
use super::{EDGE, KUBERNETES, STATIC};

pub(super) const REFERENCE: &str = include_str!("../../../docs/configuration.md");

/// What the reference says between the comments `<!-- NAME -->` and `<!-- /NAME -->`.
fn section(name: &str) -> &'static str {
    let (_, rest) = REFERENCE.split_once(&format!("<!-- {name} -->\n")).expect("the section begins");
    rest.split_once(&format!("<!-- /{name} -->")).expect("the section ends").0
}

fn text<'s>(schema: &'s Value, key: &str) -> &'s str {
    schema[key].as_str().unwrap_or_default()
}

/// Adds a row of the reference for every field under `schema`.
fn rows(schema: &Value, path: &str, found: &mut BTreeSet<String>) {
    let code = |value: &Value| if value.is_null() { String::new() } else { format!("`{}`", flow(value)) };
    for (key, field) in schema["properties"].as_object().into_iter().flatten() {
        let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
        let needed = schema["required"].as_array().is_some_and(|keys| keys.contains(&json!(key)));
        let default = if needed { "required".to_owned() } else { code(&field["default"]) };
        let example = code(&field["examples"][0]);
        let kind = kind(field).replace('|', "\\|");
        let about = text(field, "description");
        found.insert(format!("| `{path}` | {kind} | {default} | {example} | {about} |"));
        inner(field, &path, found);
    }
}

fn inner(field: &Value, path: &str, found: &mut BTreeSet<String>) {
    rows(field, path, found);
    for choice in field["anyOf"].as_array().into_iter().flatten() {
        rows(choice, path, found);
    }
    if field["items"].is_object() {
        inner(&field["items"], &format!("{path}[]"), found);
    }
    if field["additionalProperties"].is_object() {
        let key = text(&field["propertyNames"], "title");
        inner(&field["additionalProperties"], &format!("{path}.{key}"), found);
    }
}

/// The type of a field, for people.
fn kind(field: &Value) -> String {
    match (text(field, "type"), text(field, "title")) {
        ("array", _) => format!("list of {}", kind(&field["items"])),
        ("object", _) if field["additionalProperties"].is_object() => {
            format!("{} → {}", text(&field["propertyNames"], "title"), kind(&field["additionalProperties"]))
        }
        ("object", title) => format!("mapping ({title})"),
        (_, title) => title.to_owned(),
    }
}

#[test]
fn every_field_is_in_the_reference_and_nothing_else() {
    let mut expected = BTreeSet::new();
    rows(&schema(), "", &mut expected);
    let said: BTreeSet<String> =
        section("fields").lines().filter(|line| line.starts_with("| `")).map(ToOwned::to_owned).collect();
    let missing: Vec<_> = expected.difference(&said).collect();
    let wrong: Vec<_> = said.difference(&expected).collect();
    assert!(missing.is_empty() && wrong.is_empty(), "add:\n{missing:#?}\nremove:\n{wrong:#?}");
    assert!(expected.len() > 90, "the walk finds the fields");
}

/// Calls `check` with the path, schema and need of every field.
fn every_field(schema: &Value, check: &mut impl FnMut(&str, &Value, bool)) {
    for (key, field) in schema["properties"].as_object().into_iter().flatten() {
        check(key, field, schema["required"].as_array().is_some_and(|keys| keys.contains(&json!(key))));
    }
    let parts = ["properties", "items", "additionalProperties", "anyOf"].map(|part| &schema[part]);
    for part in parts {
        match part {
            Value::Object(map) if !part["type"].is_string() && !part["properties"].is_object() => {
                map.values().for_each(|inner| every_field(inner, check));
            }
            Value::Object(_) => every_field(part, check),
            Value::Array(list) => list.iter().for_each(|inner| every_field(inner, check)),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }
}

#[test]
fn the_schema_is_one_and_describes_every_field() {
    let schema = schema();
    assert!(jsonschema::meta::is_valid(&schema), "draft 2020-12");
    let mut fields = 0;
    every_field(&schema, &mut |key, field, needed| {
        fields += 1;
        assert!(!text(field, "description").is_empty(), "{key}");
        let example = &field["examples"][0];
        assert!(!needed || !example.is_null(), "{key}: the error about its absence shows an example");
        let validator = jsonschema::validator_for(field).unwrap();
        for value in [example, &field["default"]].into_iter().filter(|value| !value.is_null()) {
            assert!(validator.is_valid(value), "{key}: {value}");
        }
    });
    assert!(fields > 90, "the walk finds the fields: {fields}");
}

/// How a value is put into a file that is otherwise right.
type Put<'p> = &'p dyn Fn(Value) -> Value;

/// A mapping of this schema with what it needs besides `key`, whose value may be wanted.
fn needs(schema: &Value, key: &str) -> Value {
    let required = schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str);
    let mut mapping = json!({});
    for needed in required {
        mapping[needed] = schema["properties"][needed]["examples"][0].clone();
    }
    // Those of which one is needed, or two go together.
    match (text(schema, "title"), key) {
        ("certificate", "certFile" | "keyFile") => {
            mapping = json!({"certFile": "tls.crt", "keyFile": "tls.key"});
        }
        ("route", "mirror" | "rollout" | "rules" | "cohort") => {
            mapping["versions"] = json!([{"name": "v1", "selector": "version=v1"}, {"name": "v2"}]);
        }
        ("client certificates", "required") => mapping["caFile"] = json!("ca.crt"),
        ("rule", "header" | "cookie" | "query" | "methods" | "clientCidrs" | "and") => {
            mapping["version"] = json!("v2");
        }
        ("rule", "value" | "regex") => mapping = json!({"header": "X-Beta", "version": "v2"}),
        ("rule", "version" | "canary") => mapping["header"] = json!("X-Beta"),
        ("condition", "value" | "regex") => mapping["cookie"] = json!("staff"),
        ("cohort", "set") => mapping["cookie"] = json!("user"),
        ("cohort", "salt") => mapping["header"] = json!("X-User"),
        _ => {}
    }
    mapping
}

/// Calls `check` with the schema of every mapping under `schema`, and how such a mapping is put into a file.
fn every_mapping(schema: &Value, put: Put<'_>, check: &mut dyn FnMut(&Value, Put<'_>)) {
    if schema["items"].is_object() {
        // A weight of the first version must be what the others leave.
        let before = if text(&schema["items"], "title") == "version" {
            vec![json!({"name": "v0", "selector": "a"})]
        } else {
            Vec::new()
        };
        every_mapping(&schema["items"], &|item| put([before.clone(), vec![item]].concat().into()), check);
    }
    if schema["additionalProperties"].is_object() {
        every_mapping(&schema["additionalProperties"], &|entry| put(json!({"a/b": entry})), check);
    }
    for choice in schema["anyOf"].as_array().into_iter().flatten() {
        every_mapping(choice, put, check);
    }
    let Some(fields) = schema["properties"].as_object() else { return };
    check(schema, put);
    for (key, field) in fields {
        let put = |value| {
            let mut mapping = needs(schema, key);
            mapping[key] = value;
            put(mapping)
        };
        every_mapping(field, &put, check);
    }
}

#[test]
fn the_defaults_are_what_the_reference_says() {
    let mut set = Vec::new();
    every_mapping(&schema(), &|file| file, &mut |at, put| {
        for (key, field) in at["properties"].as_object().unwrap() {
            let Some(default) = field.get("default") else { continue };
            let mut mapping = needs(at, key);
            let without = put(mapping.clone()).to_string();
            mapping[key] = default.clone();
            let with = put(mapping).to_string();
            assert!(parse("f", &without).is_ok(), "{key}: {without}: {:?}", parse("f", &without));
            assert_eq!(parse("f", &with), parse("f", &without), "{key}: {with}");
            set.push(key.clone());
        }
    });
    assert!(set.len() > 35, "the walk finds the defaults: {set:?}");
}

#[test]
fn every_example_is_read() {
    let mut read = Vec::new();
    every_mapping(&schema(), &|file| file, &mut |at, put| {
        for (key, field) in at["properties"].as_object().unwrap() {
            let Some(example) = field["examples"].get(0) else { continue };
            let mut mapping = needs(at, key);
            // A Secret stands for the files.
            if key == "secret" {
                mapping = json!({});
            }
            mapping[key] = example.clone();
            let file = put(mapping).to_string();
            assert!(parse("f", &file).is_ok(), "{key}: {file}: {:?}", parse("f", &file));
            read.push(key.clone());
        }
    });
    for deep in ["streams", "caSecret", "header", "successRate", "upgradedIdle", "context", "weight"] {
        assert!(read.iter().any(|key| key == deep), "{deep}: {read:?}");
    }
}

fn as_json(yaml: &str) -> Option<Value> {
    yaml_serde::from_str(yaml).ok()
}

#[test]
fn the_samples_follow_the_schema() {
    let validator = jsonschema::validator_for(&schema()).unwrap();
    for file in [EDGE, KUBERNETES, STATIC] {
        validator.validate(&as_json(file).unwrap()).unwrap();
    }
    assert!(!validator.is_valid(&json!({"routes": [], "rutes": []})));
    assert!(!validator.is_valid(&json!({})));
}

/// A value of a kind that its place may not expect.
fn any_value() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(json!([])),
        Just(json!({})),
        Just(json!("web")),
        Just(json!("a/b")),
        Just(json!("/x")),
        Just(json!("off")),
        Just(json!("1.3")),
        Just(json!("5m")),
        Just(json!("64KiB")),
        Just(json!("pass")),
        Just(json!([500])),
        Just(json!({"hash": "clientIp"})),
        Just(json!("1.2.3.4:5")),
        Just(json!("")),
        Just(json!(true)),
        (0..200).prop_map(|n| json!(n)),
        (-1.0..101.0).prop_map(|n: f64| json!((n * 1e4).round() / 1e4)),
    ]
}

fn pointers(value: &Value, path: &str, found: &mut Vec<String>) {
    found.push(path.to_owned());
    match value {
        Value::Object(map) => {
            for (key, inner) in map {
                pointers(inner, &format!("{path}/{}", key.replace('~', "~0").replace('/', "~1")), found);
            }
        }
        Value::Array(list) => {
            for (i, inner) in list.iter().enumerate() {
                pointers(inner, &format!("{path}/{i}"), found);
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

proptest! {
    /// An editor with the schema never marks what Serinus reads.
    #[test]
    fn what_is_read_follows_the_schema(
        sample in prop_oneof![Just(EDGE), Just(KUBERNETES), Just(STATIC)],
        at in any::<prop::sample::Index>(),
        value in any_value(),
    ) {
        let validator = jsonschema::validator_for(&schema()).unwrap();
        let mut file = as_json(sample).unwrap();
        let mut places = Vec::new();
        pointers(&file, "", &mut places);
        let place: &String = at.get(&places);
        *file.pointer_mut(place).unwrap() = value;
        if parse("f", &file.to_string()).is_ok() {
            prop_assert!(validator.is_valid(&file), "{file}");
        }
    }
}

/// The cells of a table's row, with the code in them as it is meant.
fn cells(row: &str) -> Vec<String> {
    let row = row.trim().trim_start_matches('|').trim_end_matches('|').replace("\\|", "\u{0}");
    row.split('|').map(|cell| cell.trim().replace('\u{0}', "|")).collect()
}

/// The text in a code span with two backticks.
fn code(cell: &str) -> String {
    let inner = cell.strip_prefix("``").and_then(|c| c.strip_suffix("``")).unwrap_or(cell);
    inner.strip_prefix(' ').and_then(|c| c.strip_suffix(' ')).unwrap_or(inner).to_owned()
}

#[test]
fn the_table_of_mistakes_is_true() {
    let sample = section("sample").trim().trim_start_matches("```yaml\n").trim_end_matches("```");
    assert!(parse("serinus.yaml", sample).is_ok(), "{:?}", parse("serinus.yaml", sample));
    let mut wrong = Vec::new();
    let rows: Vec<&str> = section("mistakes").lines().filter(|l| l.starts_with("| ")).skip(1).collect();
    for row in &rows {
        let [line, written, said] = cells(row).try_into().expect("three cells");
        let number: usize = line.parse().unwrap();
        let mut lines: Vec<String> = sample.lines().map(ToOwned::to_owned).collect();
        let old = &lines[number - 1];
        let indent = &old[..old.len() - old.trim_start().len()];
        lines[number - 1] = code(&written)
            .split('⏎')
            .map(|part| format!("{indent}{}", part.trim_end()))
            .collect::<Vec<_>>()
            .join("\n");
        let answer = match parse("serinus.yaml", &lines.join("\n")) {
            Ok(_) => "nothing".to_owned(),
            Err(errors) => errors.to_string(),
        };
        let answer: Vec<_> =
            answer.lines().map(|l| format!("`` {} ``", l.trim_start_matches("serinus.yaml:"))).collect();
        let answer = answer.join("<br>").replace('|', "\\|");
        if answer.replace("\\|", "|") != said {
            wrong.push(format!("| {number} | {} | {answer} |", written.replace('|', "\\|")));
        }
    }
    assert!(wrong.is_empty(), "the table should say:\n{}", wrong.join("\n"));
    assert!(rows.len() > 30, "the table is found");
}
