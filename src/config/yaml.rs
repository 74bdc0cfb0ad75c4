//! YAML text → a tree that remembers where everything stands.
//!
//! YAML 1.2 with the core schema, one document. Aliases are refused, so that a small file cannot grow into a large
//! tree; depth and size are bounded.

use saphyr_parser::{Event, Parser, ScalarStyle, ScanError, Span};

use super::errors::{Errors, Place, Position, shorten};

/// How deep lists and mappings may nest; the format itself needs 8.
const MAX_DEPTH: usize = 32;
/// How many values a file may hold: far more than 10,000 routes need.
const MAX_NODES: usize = 1_000_000;

/// A value and where it begins.
pub(super) struct Node {
    pub(super) at: Position,
    pub(super) value: Value,
}

/// A value of the core schema.
pub(super) enum Value {
    Null,
    Bool(bool),
    /// A number, as it is written: weights are exact.
    Number(String),
    Text(String),
    List(Vec<Node>),
    Map(Vec<(Key, Node)>),
    /// Something that Serinus does not read, and what to do about it.
    Refused(&'static str),
}

/// A key of a mapping. Duplicates are still in the tree: whoever reads it knows their path.
pub(super) struct Key {
    pub(super) at: Position,
    pub(super) text: String,
}

const ALIAS: &str = "YAML aliases (`*name`) are not supported: write the value out; a text that begins with `*` needs \
                     quotes, like \"*.example.com\"";
const TAG: &str = "YAML tags are not supported: leave the tag out; a text that begins with `!` needs quotes, like \"!canary\"";
const ONE_DOCUMENT: &str = "a second YAML document begins here: keep one document in a file";

/// Reads the one document of `text`; nothing when it is not YAML, or empty, which `errors` then says.
pub(super) fn read(text: &str, errors: &mut Errors) -> Option<Node> {
    match build(text) {
        Ok(node) => Some(node),
        Err((at, message)) => {
            errors.add(&Place::top(at), message);
            None
        }
    }
}

type Fatal = (Position, String);

fn build(text: &str) -> Result<Node, Fatal> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    refuse_control_characters(text)?;
    let mut tree = Tree { open: Vec::new(), root: None, nodes: 0 };
    for event in Parser::new_from_str(text) {
        let (event, span) = event.map_err(|e| explain(&e, text))?;
        tree.add(event, span)?;
    }
    match tree.root {
        Some(Node { value: Value::Null, .. }) | None => {
            let at = Position { line: 1, column: 1 };
            Err((
                at,
                "the file is empty: write at least `routes:`, see the configuration reference".to_owned(),
            ))
        }
        Some(root) => Ok(root),
    }
}

/// YAML has no control characters. The parser would take a NUL for the end of the file and skip the rest.
fn refuse_control_characters(text: &str) -> Result<(), Fatal> {
    let mut at = Position { line: 1, column: 1 };
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            // One line end.
            '\r' if chars.peek() == Some(&'\n') => {}
            '\r' | '\n' => at = Position { line: at.line + 1, column: 1 },
            '\t' | '\u{85}' => at.column += 1,
            _ if c.is_control() => {
                let code = u32::from(c);
                return Err((
                    at,
                    format!("not YAML: the control character U+{code:04X} must not be in a file"),
                ));
            }
            _ => at.column += 1,
        }
    }
    Ok(())
}

fn explain(error: &ScanError, text: &str) -> Fatal {
    let mark = error.marker();
    let at = Position { line: mark.line().max(1), column: mark.col() + 1 };
    let line = text.lines().nth(at.line - 1).unwrap_or_default();
    let info = error.info();
    if info.contains("anchor") {
        return (at, ALIAS.to_owned());
    }
    let remedy = if info.contains("tab") || line.trim_start_matches(' ').starts_with('\t') {
        "indent with spaces, not with tabs"
    } else if info.contains("mapping values are not allowed") {
        "put a text that contains `: ` into quotes, and check the indentation"
    } else if info.contains("recursion limit") {
        "nest less"
    } else {
        "check the indentation, quotes and brackets here and just above"
    };
    (at, format!("not YAML: {}: {remedy}; the rest of the file was not checked", shorten(info, 200)))
}

/// A list or mapping that is not finished yet.
enum Open {
    List(Position, Vec<Node>),
    Map(Position, Vec<(Key, Node)>, Option<Key>),
    /// A collection that is refused as a whole; what is inside is dropped.
    Refused(Position, &'static str),
}

struct Tree {
    open: Vec<Open>,
    root: Option<Node>,
    nodes: usize,
}

impl Tree {
    fn add(&mut self, event: Event<'_>, span: Span) -> Result<(), Fatal> {
        let at = Position { line: span.start.line(), column: span.start.col() + 1 };
        match event {
            Event::DocumentStart(_) if self.root.is_some() => Err((at, ONE_DOCUMENT.to_owned())),
            Event::Nothing
            | Event::StreamStart
            | Event::StreamEnd
            | Event::DocumentStart(_)
            | Event::DocumentEnd => Ok(()),
            Event::Alias(_) => self.close(Node { at, value: Value::Refused(ALIAS) }),
            Event::Scalar(text, style, _, tag) => {
                let value = match tag {
                    Some(_) => Value::Refused(TAG),
                    None if style == ScalarStyle::Plain => resolve(&text),
                    None => Value::Text(text.into_owned()),
                };
                self.close(Node { at, value })
            }
            Event::SequenceStart(_, tag) => self.begin(at, tag.is_some(), Open::List(at, Vec::new())),
            Event::MappingStart(_, tag) => self.begin(at, tag.is_some(), Open::Map(at, Vec::new(), None)),
            Event::SequenceEnd | Event::MappingEnd => match self.open.pop() {
                Some(Open::List(at, items)) => self.close(Node { at, value: Value::List(items) }),
                Some(Open::Map(at, entries, _)) => self.close(Node { at, value: Value::Map(entries) }),
                Some(Open::Refused(at, why)) => self.close(Node { at, value: Value::Refused(why) }),
                None => Ok(()),
            },
        }
    }

    fn begin(&mut self, at: Position, tagged: bool, open: Open) -> Result<(), Fatal> {
        if self.open.len() == MAX_DEPTH {
            return Err((at, format!("lists and mappings nest deeper than {MAX_DEPTH} here: nest less")));
        }
        self.open.push(if tagged { Open::Refused(at, TAG) } else { open });
        Ok(())
    }

    /// Puts a finished node where it belongs.
    fn close(&mut self, node: Node) -> Result<(), Fatal> {
        self.nodes += 1;
        if self.nodes > MAX_NODES {
            return Err((node.at, format!("the file has more than {MAX_NODES} values: make it smaller")));
        }
        match self.open.last_mut() {
            None => self.root = Some(node),
            Some(Open::Refused(..)) => {}
            Some(Open::List(_, items)) => items.push(node),
            Some(Open::Map(_, entries, key)) => match key.take() {
                Some(key) => entries.push((key, node)),
                None => *key = Some(into_key(node)?),
            },
        }
        Ok(())
    }
}

fn into_key(node: Node) -> Result<Key, Fatal> {
    let text = match node.value {
        Value::Null => "null".to_owned(),
        Value::Bool(bool) => bool.to_string(),
        Value::Number(text) | Value::Text(text) => text,
        Value::List(_) | Value::Map(_) => {
            return Err((node.at, "a list or mapping cannot be a key: write plain text".to_owned()));
        }
        Value::Refused(why) => return Err((node.at, why.to_owned())),
    };
    Ok(Key { at: node.at, text })
}

/// What a plain scalar means in the core schema (YAML 1.2.2 §10.3.2).
fn resolve(text: &str) -> Value {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => Value::Null,
        "true" | "True" | "TRUE" => Value::Bool(true),
        "false" | "False" | "FALSE" => Value::Bool(false),
        _ if is_number(text) => Value::Number(text.to_owned()),
        _ => Value::Text(text.to_owned()),
    }
}

/// Whether a plain scalar is a text.
pub(super) fn is_text(plain: &str) -> bool {
    matches!(resolve(plain), Value::Text(_))
}

fn is_number(text: &str) -> bool {
    let all = |digits: &str, is: fn(&u8) -> bool| !digits.is_empty() && digits.as_bytes().iter().all(is);
    if let Some(octal) = text.strip_prefix("0o") {
        return all(octal, |b| matches!(b, b'0'..=b'7'));
    }
    if let Some(hex) = text.strip_prefix("0x") {
        return all(hex, u8::is_ascii_hexdigit);
    }
    let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
    if matches!(unsigned, ".inf" | ".Inf" | ".INF") || matches!(text, ".nan" | ".NaN" | ".NAN") {
        return true;
    }
    let (mantissa, exponent) = match unsigned.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, exponent.strip_prefix(['-', '+']).unwrap_or(exponent)),
        None => (unsigned, "0"),
    };
    let digits = |part: &str| all(part, u8::is_ascii_digit);
    let mantissa_is_number = match mantissa.split_once('.') {
        None => digits(mantissa),
        Some(("", decimals)) => digits(decimals),
        Some((whole, decimals)) => digits(whole) && (decimals.is_empty() || digits(decimals)),
    };
    mantissa_is_number && digits(exponent)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_scalars_follow_the_core_schema() {
        for text in
            ["0", "-1", "+12", "0o17", "0xFf", "1.5", ".5", "5.", "1e3", "1.5E-3", ".inf", "-.INF", ".nan"]
        {
            assert!(is_number(text), "{text}");
        }
        for text in
            ["", ".", "-", "+", "1_000", "0x", "0o8", "1e", "e3", "inf", "nan", "-.nan", "1.2.3", "1:30", "١"]
        {
            assert!(!is_number(text), "{text}");
        }
        for text in ["yes", "no", "on", "off", "y", "n"] {
            assert!(matches!(resolve(text), Value::Text(_)), "YAML 1.1 took {text} for a boolean");
        }
    }
}
