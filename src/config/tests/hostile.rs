//! Files that nobody should write: they end in errors, soon, and never in a panic.

use proptest::prelude::*;

use super::super::parse;
use super::{EDGE, KUBERNETES, STATIC, errors};

const LARGE: usize = 1 << 18;

fn repeated(line: impl Fn(usize) -> String, times: usize) -> String {
    (0..times).map(line).collect()
}

#[track_caller]
fn refused(text: &str, needle: &str) {
    let found = errors(text);
    assert!(found.iter().any(|line| line.contains(needle)), "{found:#?}");
    assert!(found.len() <= 101 && found.iter().all(|line| line.len() < 2_000), "bounded");
}

#[test]
fn deep_files_are_refused() {
    for text in ["[", "{", "{a: "] {
        refused(&text.repeat(LARGE), "recursion limit exceeded");
    }
    for text in ["- ", "? "] {
        refused(&text.repeat(LARGE), "nest deeper than 32");
    }
    refused(&repeated(|i| format!("{}a:\n", " ".repeat(i)), 1_000), "nest deeper than 32");
    refused(&format!("routes: {}{}", "[".repeat(200), "]".repeat(200)), "nest deeper than 32");
}

#[test]
fn a_bomb_does_not_go_off() {
    let line = |c: u8| {
        let before = char::from(c - 1);
        format!("{0}: &{0} [{1}]\n", char::from(c), format!("*{before},").repeat(9))
    };
    let bomb: String = (b'b'..=b'z').map(line).collect();
    refused(&format!("a: &a [x]\n{bomb}routes: *z\n"), "routes: YAML aliases (`*name`) are not supported");
}

#[test]
fn large_files_are_read_in_bounds() {
    refused(&"x".repeat(17 << 20), "is larger than 16 MiB");
    refused(&format!("routes: [{}]", "a,".repeat(1_000_001)), "more than 1000000 values");
    refused(&repeated(|i| format!("f{i}: 1\n"), LARGE / 10), "and 26");
    refused(&format!("routes:\n{}", "- {}\n".repeat(LARGE / 5)), "routes[0].name: is missing");
    refused(&format!("{}: 1\n", "k".repeat(LARGE)), "mapping values are not allowed");
    refused(&format!("? {}\n: 1\n", "k".repeat(LARGE)), "kkk…: unknown field");
    refused(&format!("routes: \"{}\"\n", "k".repeat(LARGE)), "kkk…`");
    refused(
        &format!("routes: [{{versions: [{{weight: {}}}]}}]", "9".repeat(LARGE)),
        "is not between 0 and 100 percent",
    );
    refused(
        &format!(
            "routes: []\nlisteners:\n{}",
            repeated(|i| format!("- {{name: v{i}, address: 'h{i}:80'}}\n"), 5_000)
        ),
        "listeners[100]: is one too many: keep to 100 listeners",
    );
    let services =
        repeated(|i| format!("- {{name: n{i}, service: a/b{i}, versions: [{{name: v}}]}}\n"), 5_000);
    refused(
        &format!("discovery: {{static: {{a/c: []}}}}\nroutes:\n{services}"),
        "is not in `discovery.static`",
    );
}

#[test]
fn what_would_multiply_is_refused() {
    let route =
        |more: String| format!("routes:\n- {{name: a, service: a/b, versions: [{{name: v}}], {more}}}\n");
    let hosts = repeated(|i| format!("h{i},"), 1_000);
    let paths = repeated(|i| format!("{{exact: /{i}}},"), 1_000);
    refused(&route(format!("hosts: [{hosts}], paths: [{paths}]")), "reach 500000 pairs of host and path");
    let regexes = repeated(|i| format!("{{regex: /{i}}},"), 1_002);
    refused(&route(format!("paths: [{regexes}]")), "is one too many: keep to 1000 regular expressions");
    refused(
        &route("paths: [{regex: '(a{1000}){1000}'}]".to_owned()),
        "is not a regular expression that can be used: Compiled regex exceeds size limit of 1048576 bytes.",
    );
}

/// A file with some of its characters replaced, dropped or put elsewhere.
fn damaged(file: &'static str) -> impl Strategy<Value = String> {
    let change = (0..file.len(), 0..40_usize, ".{0,6}|[-{}\\[\\]:,#&*!|>'\"%@`?~ \t\n\r\0]{1,4}");
    proptest::collection::vec(change, 1..6).prop_map(move |changes| {
        let mut text: Vec<char> = file.chars().collect();
        for (at, length, new) in changes {
            let at = at.min(text.len());
            let end = (at + length / 4).min(text.len());
            text.splice(at..end, new.chars());
        }
        text.into_iter().collect()
    })
}

/// A file whose values, keys and lines stand elsewhere: mostly YAML, and wrong in what it says.
fn shuffled(file: &'static str) -> impl Strategy<Value = String> {
    let lines: Vec<&str> = file.lines().collect();
    let count = lines.len();
    proptest::collection::vec((0..count, 0..count), 1..6).prop_map(move |swaps| {
        let mut lines = lines.clone();
        for (a, b) in swaps {
            lines.swap(a, b);
        }
        lines.join("\n")
    })
}

/// Whatever the text: no panic, and errors that have a place in it and a line each.
fn sane(text: &str) -> Result<(), TestCaseError> {
    let Err(found) = parse("f", text) else { return Ok(()) };
    prop_assert!(!found.errors().is_empty());
    let lines = text.split(['\n', '\r']).count();
    for error in found.errors() {
        prop_assert!(error.line >= 1 && error.line <= lines + 1, "{error} of {lines}");
        prop_assert!(error.column >= 1 && !error.message.is_empty());
        prop_assert!(!error.to_string().contains(char::is_control), "{error}");
    }
    Ok(())
}

proptest! {
    #[test]
    fn damage_never_panics(text in prop_oneof![damaged(EDGE), damaged(KUBERNETES), damaged(STATIC)]) {
        sane(&text)?;
    }

    #[test]
    fn other_order_never_panics(text in prop_oneof![shuffled(EDGE), shuffled(KUBERNETES), shuffled(STATIC)]) {
        sane(&text)?;
    }

    #[test]
    fn any_text_never_panics(text in "\\PC{0,200}|[-{}\\[\\]:,#&*!|>'\"%@`?~a \t\n\r]{0,200}") {
        sane(&text)?;
    }

    #[test]
    fn a_cut_off_file_never_panics(end in 0..KUBERNETES.len()) {
        let Some(text) = KUBERNETES.get(..end) else { return Ok(()) };
        sane(text)?;
    }
}
