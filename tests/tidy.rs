//! House rules: which room may use which, what the core may not touch, how files begin and what they are called.
//!
//! The rooms and their arrows are those of `docs/ARCHITECTURE.md`. A file is read as tokens, comments and texts left
//! out, and its `#[cfg(test)]` modules too: tests may use what they like. A complaint names the file, the line and
//! the rule. To change an arrow, change [`ROOMS`] and the document together: a test compares them.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test: a panic is how it fails")]

use std::collections::BTreeSet;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

/// Each room of `src/`, and the rooms that it may use.
const ROOMS: &[(&str, &[&str])] = &[
    ("model", &[]),
    ("rollout", &["model"]),
    ("state", &["rollout", "model"]),
    ("routing", &["state", "model"]),
    ("simulation", &["routing", "rollout", "model"]),
    ("config", &["model"]),
    ("kubernetes", &["model", "state", "telemetry"]),
    ("outbound", &[]),
    ("hooks", &["outbound", "model", "telemetry"]),
    ("traces", &["outbound", "model", "telemetry"]),
    ("wire", &["model"]),
    ("tls", &["model"]),
    ("proxy", &["routing", "wire", "tls", "traces", "model", "telemetry"]),
    ("control", &["state", "routing", "rollout", "hooks", "model", "telemetry"]),
    ("admin", &["routing", "rollout", "state", "model", "telemetry", "control"]),
    ("telemetry", &["model"]),
    ("demo", &["model"]),
    ("cli", ALL),
];

/// Stands for every room.
const ALL: &[&str] = &["*"];

/// The rooms that are told the time and drawn their chances: no async, IO, clock, random source, log line or lock.
const CORE: &[&str] = &["model", "rollout", "state", "routing", "simulation"];

/// Crates that the core may not name.
const NOT_IN_CORE_CRATES: &[&str] =
    &["tokio", "tracing", "rand", "fastrand", "fs", "parking_lot", "futures", "log", "prometheus", "kube"];

/// Other words that the core may not use, each with why.
const NOT_IN_CORE_WORDS: &[(&str, &str)] = &[
    ("Mutex", "a lock"),
    ("RwLock", "a lock"),
    ("Condvar", "a lock"),
    ("TcpStream", "IO"),
    ("TcpListener", "IO"),
    ("UdpSocket", "IO"),
    ("async", "async"),
    ("await", "async"),
];

/// Crates that one room alone may name: as a prefix or whole, and the room.
const ONE_ROOM_CRATES: &[(&str, &str)] = &[
    ("h2", "wire"),
    ("httparse", "wire"),
    ("kube", "kubernetes"),
    ("kube_", "kubernetes"),
    ("k8s_openapi", "kubernetes"),
    ("gateway_api", "kubernetes"),
    ("opentelemetry", "traces"),
    ("opentelemetry_", "traces"),
];

/// Names that say nothing about what a file knows.
const EMPTY_NAMES: &[&str] = &["utils", "util", "common", "types", "helpers", "helper", "misc"];

/// How long `main.rs` may be: it starts and ends, and no more.
const MAIN_LINES: usize = 40;

#[test]
fn the_house_is_tidy() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let rust: Vec<_> = files(root, &["src", "tests", "benches", "fuzz/checks", "fuzz/targets"])
        .into_iter()
        .filter(|file| file.extension().is_some_and(|e| e == "rs"))
        .collect();
    assert!(rust.iter().any(|file| file.ends_with("src/lib.rs")), "the sources were not found: {rust:?}");
    let mut complaints = Vec::new();
    for file in rust {
        let text = fs::read_to_string(root.join(&file)).unwrap();
        complaints.extend(check_rust(&slashes(&file), &text));
    }
    for file in files(
        root,
        &["src", "tests", "benches", "fuzz/checks", "fuzz/targets", "docs", "deploy", "config", ".ci"],
    )
    .into_iter()
    .chain(top(root))
    {
        // What is not text is not read.
        if let Ok(text) = fs::read_to_string(root.join(&file)) {
            complaints.extend(check_text(&slashes(&file), &text));
        }
    }
    assert!(complaints.is_empty(), "\n{}", complaints.iter().map(|c| format!("{c}\n")).collect::<String>());
}

/// The table of `docs/ARCHITECTURE.md` is [`ROOMS`], and marks what is [`CORE`].
#[test]
fn the_document_has_the_same_rooms() {
    let docs =
        fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/ARCHITECTURE.md")).unwrap();
    let mut rooms = Vec::new();
    let mut core = Vec::new();
    for row in docs.lines().filter(|line| line.starts_with("| `") && line.contains("/` |")) {
        let cells: Vec<_> = row.split('|').map(str::trim).collect();
        let [_, name, holds, uses, _] = cells[..] else { panic!("a row with other columns: {row}") };
        let name = name.trim_matches('`').trim_end_matches('/');
        if holds.contains("CORE") {
            core.push(name);
        }
        let uses = uses.split(", ").filter(|part| *part != "–").map(|part| match part {
            "all" => "*",
            part => part.split('\'').next().unwrap_or_default(),
        });
        rooms.push((name, uses.collect::<BTreeSet<_>>()));
    }
    rooms.sort();
    let mut expected: Vec<_> =
        ROOMS.iter().map(|(name, uses)| (*name, uses.iter().copied().collect())).collect();
    expected.sort();
    assert_eq!(rooms, expected, "left: docs/ARCHITECTURE.md, right: ROOMS");
    assert_eq!(core, CORE, "left: docs/ARCHITECTURE.md, right: CORE");
}

/// The metrics that `docs/operations.md` explains are those that the code has, no more and no fewer.
#[test]
fn every_metric_is_explained() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let code: String =
        files(root, &["src/telemetry"]).iter().map(|f| fs::read_to_string(root.join(f)).unwrap()).collect();
    let has = names(code.split('"').skip(1).step_by(2));
    let docs = fs::read_to_string(root.join("docs/operations.md")).unwrap();
    let rows = docs.lines().filter(|line| line.starts_with("| `serinus_"));
    let explained = names(rows.filter_map(|row| row.split('`').nth(1)));
    assert!(!has.is_empty());
    assert_eq!(explained, has, "left: docs/operations.md, right: src/telemetry/");
}

/// Those of `texts` that are a metric's name.
fn names<'a>(texts: impl Iterator<Item = &'a str>) -> BTreeSet<&'a str> {
    let plain = |name: &&str| {
        name.starts_with("serinus_") && name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_')
    };
    texts.filter(plain).collect()
}

/// A broken rule, and where.
#[derive(Debug)]
struct Complaint {
    file: String,
    line: usize,
    rule: String,
}

impl fmt::Display for Complaint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.file, self.line, self.rule)
    }
}

// ---------------------------------------------------------------------------------------------------- the rules

/// Every rule about one Rust file.
fn check_rust(file: &str, text: &str) -> Vec<Complaint> {
    let mut found = Vec::new();
    let mut say = |line, rule: String| found.push(Complaint { file: file.to_owned(), line, rule });
    if !text.starts_with("//!") {
        say(1, "the first line is not `//!`: say what the file holds".to_owned());
    }
    if file == "src/main.rs" && text.lines().count() > MAIN_LINES {
        say(MAIN_LINES + 1, format!("main.rs has more than {MAIN_LINES} lines: move them to src/cli/"));
    }
    for part in file.split('/') {
        if EMPTY_NAMES.contains(&part.trim_end_matches(".rs")) {
            say(1, format!("`{part}` says nothing about what it knows: name it for that"));
        }
    }
    let Some(inside) = file.strip_prefix("src/") else { return found };
    // Tests in a file of their own (`#[cfg(test)] mod tests;`).
    if inside.split('/').any(|part| is_test_module(part.trim_end_matches(".rs"))) {
        return found;
    }
    let tokens = without_tests(tokens(text));
    for (line, name) in modules(&tokens) {
        if EMPTY_NAMES.contains(&name) {
            say(line, format!("`mod {name}` says nothing about what it knows: name it for that"));
        }
        if is_test_module(name) {
            say(line, format!("`mod {name}` is named for tests and is not under `#[cfg(test)]`"));
        }
    }
    let room = Room::of(inside);
    for (line, rule) in check_rooms(room, inside, &tokens).into_iter().chain(check_crates(room, &tokens)) {
        say(line, rule);
    }
    found
}

/// Whether a module holds tests, by its name: `tests`, or `split_tests` beside `split`.
fn is_test_module(name: &str) -> bool {
    name == "tests" || name.ends_with("_tests")
}

/// Where a file of `src/` stands.
#[derive(Clone, Copy)]
enum Room<'a> {
    /// `lib.rs`, `main.rs`, `bin/`: may use every room.
    Top,
    /// In the room of this name, which may not be in the table.
    Named(&'a str),
}

impl<'a> Room<'a> {
    fn of(inside: &'a str) -> Self {
        match inside.split('/').next().unwrap_or_default() {
            "lib.rs" | "main.rs" | "bin" => Room::Top,
            name => Room::Named(name.trim_end_matches(".rs")),
        }
    }

    fn name(self) -> &'a str {
        match self {
            Room::Top => "",
            Room::Named(name) => name,
        }
    }
}

/// The arrows between rooms.
fn check_rooms(room: Room<'_>, inside: &str, tokens: &[Token]) -> Vec<(usize, String)> {
    let Room::Named(here) = room else { return Vec::new() };
    let Some((_, allowed)) = ROOMS.iter().find(|(name, _)| *name == here) else {
        return vec![(1, format!("`{here}` is no room of the house: see ROOMS in tests/tidy.rs"))];
    };
    let mut found = Vec::new();
    for (line, other) in rooms_used(inside, tokens) {
        let known = ROOMS.iter().any(|(name, _)| *name == other);
        let may = other == here || *allowed == ALL || allowed.contains(&other);
        if !known {
            found.push((
                line,
                format!("`crate::{other}` is no room of the house: name the room it comes from"),
            ));
        } else if !may {
            found.push((line, format!("`{here}` may not use `{other}`; it may use: {}", allowed.join(", "))));
        }
    }
    found
}

/// The crates that belong to one room, and what the core may not touch.
fn check_crates(room: Room<'_>, tokens: &[Token]) -> Vec<(usize, String)> {
    let core = CORE.contains(&room.name());
    let mut found = Vec::new();
    let mut in_use = false;
    for (i, token) in tokens.iter().enumerate() {
        let text = token.text.as_str();
        let at = |offset: isize| {
            i.checked_add_signed(offset).and_then(|j| tokens.get(j)).map_or("", |t| t.text.as_str())
        };
        match text {
            "use" => in_use = true,
            ";" => in_use = false,
            _ => {}
        }
        // A crate's name begins a path: nothing stands before its `::`. `std::fs` is named like one.
        let begins = at(-1) != "::" || !is_word(at(-2)) || (text == "fs" && at(-2) == "std");
        let names_a_crate = is_word(text) && begins && at(-1) != "." && (in_use || at(1) == "::");
        let owner = ONE_ROOM_CRATES
            .iter()
            .find(|(name, _)| text == *name || (name.ends_with('_') && text.starts_with(name)));
        if let Some((_, owner)) = owner.filter(|(_, owner)| names_a_crate && room.name() != *owner) {
            found.push((token.line, format!("only src/{owner}/ may name `{text}`")));
        }
        if !core {
            continue;
        }
        let rule = |why: &str| format!("`{}` is CORE and may not use `{text}`: {why}", room.name());
        if names_a_crate && NOT_IN_CORE_CRATES.contains(&text) {
            found.push((token.line, rule("no async, IO, chance or log line there")));
        }
        if let Some((_, why)) = NOT_IN_CORE_WORDS.iter().find(|(word, _)| *word == text) {
            found.push((token.line, rule(why)));
        }
        let clock = matches!(text, "Instant" | "SystemTime") && at(1) == "::" && at(2) == "now";
        if clock || (text == "elapsed" && at(-1) == ".") {
            found.push((token.line, rule("it reads a clock; take the time as an argument")));
        }
    }
    found
}

/// Rules about every text of the project: it speaks of itself alone.
fn check_text(file: &str, text: &str) -> Vec<Complaint> {
    // Written apart, so that this file keeps its own rule.
    let outside = [concat!("../", "shared"), concat!("/", "work/")];
    let mut found = Vec::new();
    for (i, line) in text.lines().enumerate() {
        let mut say = |rule: String| found.push(Complaint { file: file.to_owned(), line: i + 1, rule });
        for path in outside {
            if line.contains(path) {
                say(format!("`{path}` is a path of somebody's machine"));
            }
        }
        if file.starts_with(".ci/") && line.contains("://") && !line.contains("http://$host") {
            say("a host's name in CI: registries are the machine's own business".to_owned());
        }
    }
    found
}

// --------------------------------------------------------------------------------------------- reading a Rust file

/// A word, a `::` or one other character, and the line it is on.
#[derive(Debug, PartialEq)]
struct Token {
    line: usize,
    text: String,
}

fn is_word(text: &str) -> bool {
    text.starts_with(|c: char| c.is_alphabetic() || c == '_')
}

/// The tokens of a Rust file, without its comments, texts and character literals.
fn tokens(text: &str) -> Vec<Token> {
    let chars: Vec<char> = text.chars().collect();
    let at = |i: usize| chars.get(i).copied().unwrap_or('\0');
    let (mut found, mut line, mut i) = (Vec::new(), 1, 0);
    while i < chars.len() {
        let start = i;
        i = match at(i) {
            '/' if at(i + 1) == '/' => find(&chars, i, |j| at(j) == '\n'),
            '/' if at(i + 1) == '*' => end_of_block_comment(&chars, i),
            '"' => end_of_text(&chars, i + 1, 0, true),
            'r' | 'b' | 'c' if raw_text(&chars, i).is_some() => {
                let (from, hashes, escapes) = raw_text(&chars, i).unwrap_or((i + 1, 0, true));
                end_of_text(&chars, from, hashes, escapes)
            }
            // A character, not a lifetime.
            '\'' if at(i + 1) == '\\' => find(&chars, i + 3, |j| at(j) == '\'') + 1,
            '\'' if at(i + 2) == '\'' => i + 3,
            c if c.is_alphanumeric() || c == '_' => {
                let end = find(&chars, i, |j| !(at(j).is_alphanumeric() || at(j) == '_'));
                found.push(Token { line, text: chars[i..end].iter().collect() });
                end
            }
            ':' if at(i + 1) == ':' => {
                found.push(Token { line, text: "::".to_owned() });
                i + 2
            }
            c => {
                if !c.is_whitespace() {
                    found.push(Token { line, text: c.to_string() });
                }
                i + 1
            }
        }
        .min(chars.len());
        line += chars[start..i].iter().filter(|c| **c == '\n').count();
    }
    found
}

/// The first place from `from` on where `stop` holds, or the end.
fn find(chars: &[char], from: usize, stop: impl Fn(usize) -> bool) -> usize {
    (from..chars.len()).find(|j| stop(*j)).unwrap_or(chars.len())
}

/// Block comments nest.
fn end_of_block_comment(chars: &[char], from: usize) -> usize {
    let (mut depth, mut i) = (0, from);
    while i < chars.len() {
        match (chars[i], chars.get(i + 1)) {
            ('/', Some('*')) => (depth, i) = (depth + 1, i + 2),
            ('*', Some('/')) => (depth, i) = (depth - 1, i + 2),
            _ => i += 1,
        }
        if depth == 0 {
            break;
        }
    }
    i
}

/// Whether a text with a prefix (`b"`, `c"`, `r"`, `br#"`, …) begins at `i`: where its content begins, how many `#`
/// end it, and whether it knows escapes.
fn raw_text(chars: &[char], i: usize) -> Option<(usize, usize, bool)> {
    let joined = i > 0 && (chars[i - 1].is_alphanumeric() || chars[i - 1] == '_');
    let prefix = chars[i..].iter().take_while(|c| matches!(c, 'r' | 'b' | 'c')).count();
    let raw = chars[i..i + prefix].contains(&'r');
    let hashes = chars[i + prefix..].iter().take_while(|c| **c == '#').count();
    let quote = chars.get(i + prefix + hashes) == Some(&'"');
    (!joined && prefix <= 2 && quote && (raw || hashes == 0)).then_some((
        i + prefix + hashes + 1,
        hashes,
        !raw,
    ))
}

fn end_of_text(chars: &[char], from: usize, hashes: usize, escapes: bool) -> usize {
    let mut i = from;
    while i < chars.len() {
        match chars[i] {
            '\\' if escapes => i += 2,
            '"' if chars[i + 1..].iter().take(hashes).filter(|c| **c == '#').count() == hashes => {
                return i + 1 + hashes;
            }
            _ => i += 1,
        }
    }
    i
}

/// What is left when every item under `#[cfg(test)]` is taken out: to its `;` or the end of its braces.
fn without_tests(tokens: Vec<Token>) -> Vec<Token> {
    let mark = ["#", "[", "cfg", "(", "test", ")", "]"];
    let mut left: Vec<Token> = Vec::new();
    let mut tokens = tokens.into_iter();
    while let Some(token) = tokens.next() {
        left.push(token);
        if !left.iter().rev().map(|t| t.text.as_str()).take(mark.len()).eq(mark.into_iter().rev()) {
            continue;
        }
        left.truncate(left.len() - mark.len());
        let mut depth = 0_usize;
        for skipped in tokens.by_ref() {
            match skipped.text.as_str() {
                "{" => depth += 1,
                "}" => depth = depth.saturating_sub(1),
                _ => {}
            }
            if depth == 0 && matches!(skipped.text.as_str(), ";" | "}") {
                break;
            }
        }
    }
    left
}

/// The modules that a file declares.
fn modules(tokens: &[Token]) -> impl Iterator<Item = (usize, &str)> {
    tokens.windows(2).filter(|pair| pair[0].text == "mod").map(|pair| (pair[1].line, pair[1].text.as_str()))
}

/// The rooms that a file names: by `crate::`, by `serinus::`, or by enough `super::` to reach the crate.
fn rooms_used<'a>(inside: &str, tokens: &'a [Token]) -> Vec<(usize, &'a str)> {
    // `routing/mod.rs` is one level under the crate, `routing/table.rs` two.
    let depth = inside.trim_end_matches(".rs").trim_end_matches("/mod").split('/').count();
    let text = |i: usize| tokens.get(i).map_or("", |t| t.text.as_str());
    let mut found = Vec::new();
    let mut i = 0;
    while i < tokens.len() {
        let begins = i == 0 || text(i - 1) != "::" || !is_word(text(i.wrapping_sub(2)));
        let mut next = i + 1;
        let root = match text(i) {
            "crate" | "serinus" => begins && text(i + 1) == "::",
            "super" if begins => {
                let supers =
                    (0..).take_while(|k| text(i + 2 * k) == "super" && text(i + 2 * k + 1) == "::").count();
                next = i + (2 * supers).max(1);
                // In a module within the file this is one too few, which finds nothing that is not there.
                if supers >= depth {
                    found.extend(group(tokens, next))
                }
                false
            }
            _ => false,
        };
        // `pub(crate)` has no `::` after it and was left out above.
        if root {
            found.extend(group(tokens, i + 2));
        }
        i = next;
    }
    found
}

/// The first word of the path at `i`, or of each path in the braces at `i`.
fn group(tokens: &[Token], i: usize) -> Vec<(usize, &str)> {
    let Some(first) = tokens.get(i) else { return Vec::new() };
    if first.text != "{" {
        return vec![(first.line, first.text.as_str())];
    }
    let mut found = Vec::new();
    let mut depth = 0;
    for (token, before) in tokens[i..].iter().zip(std::iter::once(first).chain(&tokens[i..])) {
        match token.text.as_str() {
            "{" => depth += 1,
            "}" => depth -= 1,
            word if depth == 1 && matches!(before.text.as_str(), "{" | ",") && word != "," => {
                found.push((token.line, word));
            }
            _ => {}
        }
        if depth == 0 {
            break;
        }
    }
    found
}

// ------------------------------------------------------------------------------------------------- finding files

/// Every file under `folders`, as paths from `root`.
fn files(root: &Path, folders: &[&str]) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders: Vec<PathBuf> =
        folders.iter().map(PathBuf::from).filter(|f| root.join(f).is_dir()).collect();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(root.join(&folder)).unwrap() {
            let entry = entry.unwrap();
            let path = folder.join(entry.file_name());
            if entry.file_type().unwrap().is_dir() { folders.push(path) } else { found.push(path) }
        }
    }
    found.sort();
    found
}

/// The texts at the top of the project.
fn top(root: &Path) -> Vec<PathBuf> {
    let text = |path: &PathBuf| path.extension().is_some_and(|e| e == "md" || e == "toml");
    fs::read_dir(root).unwrap().map(|e| PathBuf::from(e.unwrap().file_name())).filter(text).collect()
}

fn slashes(path: &Path) -> String {
    path.to_string_lossy().replace('\\', "/")
}

// ------------------------------------------------------------------------------------------ the checker can fail

/// The complaints about `text` as the file `file`, `//!` put before it: `LINE: RULE`, lines counted in `text`.
fn complaints(file: &str, text: &str) -> Vec<String> {
    check_rust(file, &format!("//! x\n{text}"))
        .iter()
        .map(|c| format!("{}: {}", c.line - 1, c.rule))
        .collect()
}

/// One complaint, on `line`, which says `needle`.
fn bad(file: &str, text: &str, line: usize, needle: &str) {
    let found = complaints(file, text);
    assert_eq!(found.len(), 1, "{file}: {text}: {found:?}");
    assert!(
        found[0].starts_with(&format!("{line}: ")) && found[0].contains(needle),
        "{file}: {text}: {found:?}"
    );
}

/// No complaint.
fn good(file: &str, text: &str) {
    assert_eq!(complaints(file, text), [""; 0], "{file}: {text}");
}

#[test]
fn arrows_that_are_not_in_the_table_are_found() {
    bad("src/routing/table.rs", "use crate::proxy::Context;", 1, "`routing` may not use `proxy`");
    bad("src/routing/table.rs", "\nfn f() -> crate::admin::X { x }", 2, "`routing` may not use `admin`");
    bad(
        "src/model/share.rs",
        "use crate::{\n    model::X,\n    state::{Y, Z},\n};",
        3,
        "`model` may not use `state`",
    );
    bad("src/model/mod.rs", "use super::state::X;", 1, "`model` may not use `state`");
    bad("src/model/share.rs", "use super::super::state::X;", 1, "`model` may not use `state`");
    bad("src/config.rs", "use super::{model::X, state::Y};", 1, "`config` may not use `state`");
    bad("src/demo/mod.rs", "let x = serinus::cli::run();", 1, "`demo` may not use `cli`");
    bad("src/demo/mod.rs", "use crate::*;", 1, "no room");
    bad("src/demo/mod.rs", "use crate::Surprise;", 1, "no room");
    bad("src/attic/mod.rs", "", 0, "`attic` is no room");
    bad("src/attic.rs", "", 0, "`attic` is no room");
}

#[test]
fn arrows_of_the_table_are_good() {
    good("src/routing/table.rs", "use crate::{model::{self, Share}, state::X};\nuse super::pick::proxy::Y;");
    good("src/proxy/mod.rs", "pub(crate) use crate::routing::Table; use self::phases::x;");
    good("src/cli/run.rs", "use crate::{admin, proxy, kubernetes}; use serinus::demo;");
    good("src/main.rs", "fn main() { serinus::cli::main() }");
    good("src/lib.rs", "pub mod model;\npub mod proxy;");
    good(
        "src/model/a.rs",
        "// crate::proxy\n/* crate::proxy /* */ crate::proxy */ const X: &str = \"crate::proxy\\\"::\";",
    );
    good(
        "src/model/a.rs",
        "const X: &str = r#\"\"crate::proxy\"#; const Y: [char; 2] = ['\"', '\\''];\nfn f<'a>() {}",
    );
    good("src/model/a.rs", "#[cfg(test)]\nmod tests {\n    use crate::proxy::X;\n    fn f() { {} }\n}");
    good("src/model/tests.rs", "use crate::proxy::X;");
    good("src/model/a_tests.rs", "use crate::proxy::X;");
    good("tests/it/x.rs", "use serinus::proxy::X;");
}

#[test]
fn what_follows_the_tests_is_still_read() {
    bad("src/model/a.rs", "#[cfg(test)]\nmod tests;\nuse crate::proxy::X;", 3, "may not use `proxy`");
    bad(
        "src/model/a.rs",
        "#[cfg(test)]\nmod t { fn f() {} }\nuse crate::proxy::X;",
        3,
        "may not use `proxy`",
    );
    bad("src/model/a.rs", "const Q: char = '\"';\nuse crate::proxy::X;", 2, "may not use `proxy`");
    bad("src/model/a.rs", "const Q: &str = \"\n\\\\\";\nuse crate::proxy::X;", 3, "may not use `proxy`");
}

#[test]
fn crates_stay_in_their_rooms() {
    for (room, text) in [
        ("proxy", "use h2::server::Connection;"),
        ("control", "fn f(x: httparse::Request) {}"),
        ("cli", "use kube::Client;"),
        ("cli", "use {kube::Client, std::io};"),
        ("cli", "let x = ::kube_runtime::watcher();"),
        ("admin", "use k8s_openapi::api::core::v1::Pod;"),
        ("proxy", "use gateway_api::X;"),
    ] {
        bad(&format!("src/{room}/x.rs"), text, 1, "only src/");
    }
    bad("src/main.rs", "use kube as k;", 1, "only src/kubernetes/");
    good("src/wire/x.rs", "use httparse::Request; use h2::Reason;");
    good("src/kubernetes/x.rs", "use kube::Api; use k8s_openapi::api::core::v1::Pod;");
    good("src/cli/x.rs", "use crate::config::kube; let kube = options.kube; let h2 = 1;");
}

#[test]
fn the_core_touches_nothing() {
    for text in [
        "use tokio::sync::mpsc;",
        "tracing::info!();",
        "let x = rand::random();",
        "fn f() { fastrand::u64(..); }",
        "use std::sync::{Arc, Mutex};",
        "struct X(std::sync::RwLock<u8>);",
        "let now = Instant::now();",
        "let now = std::time::SystemTime::now();",
        "let t = start.elapsed();",
        "use std::fs;",
        "use std::{fs, io};",
        "std::fs::read(x);",
        "use std::net::{IpAddr, TcpStream};",
        "async fn f() {}",
    ] {
        for room in CORE {
            bad(&format!("src/{room}/x.rs"), text, 1, "is CORE");
        }
        good("src/control/x.rs", text);
    }
    good("src/routing/x.rs", "fn pick(rand: u64, now: Instant, at: SystemTime) -> u64 { rand % 2 }");
    good("src/routing/x.rs", "use std::sync::atomic::AtomicU64; use std::net::IpAddr; // a Mutex would do");
}

#[test]
fn files_say_what_they_hold() {
    let first =
        |file: &str, text: &str| check_rust(file, text).iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(
        first("src/lib.rs", "fn f() {}"),
        ["src/lib.rs:1: the first line is not `//!`: say what the file holds"]
    );
    assert_eq!(first("tests/it/x.rs", "").len(), 1);
    bad("src/main.rs", &"\n".repeat(MAIN_LINES), MAIN_LINES, "more than 40 lines");
    good("src/main.rs", &"\n".repeat(MAIN_LINES - 1));
    bad("src/model/utils.rs", "", 0, "`utils.rs` says nothing");
    bad("src/model/helpers/x.rs", "", 0, "`helpers` says nothing");
    bad("src/model/x.rs", "mod types;", 1, "`mod types` says nothing");
    good("src/model/x.rs", "mod typed; #[cfg(test)] mod common;");
}

#[test]
fn texts_speak_of_the_project_alone() {
    let found =
        |file: &str, text: &str| check_text(file, text).iter().map(ToString::to_string).collect::<Vec<_>>();
    let path = concat!("see ../", "shared/x");
    assert!(found("docs/x.md", &format!("fine\n{path}"))[0].starts_with("docs/x.md:2: "));
    assert_eq!(found("src/x.rs", concat!("// /", "work/x")).len(), 1);
    assert_eq!(found(".ci/run", "curl https://example.com").len(), 1);
    assert_eq!(found(".ci/demo-smoke", "export A=http://$host:1").len(), 0);
    assert_eq!(found("docs/x.md", "https://example.com, a shared state, a network/port").len(), 0);
}
