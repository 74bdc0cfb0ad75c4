//! Reading the tree, and describing what may be in it: both in one place for every type.
//!
//! [`Input`] says how a value is read and what its JSON Schema is; [`object!`] makes both for a mapping from one list
//! of its fields. Nothing stops at the first error.

use std::collections::HashSet;

use serde_json::{Map, json};

use super::errors::{Errors, Place, shorten};
use super::hints::{flow, list, nearest};
use super::yaml::{Node, Value};

/// Something that can be read from a config file.
pub(super) trait Input: Sized {
    /// The JSON Schema of what [`Self::read`] takes; `title` is the name of the type in the reference.
    fn schema() -> serde_json::Value;

    /// Reads a value that is neither null nor refused; nothing when it cannot be read, which `errors` then says.
    fn read(node: &Node, place: &Place, errors: &mut Errors) -> Option<Self>;
}

/// A value and where it was written.
#[derive(Clone, Debug)]
pub(super) struct Marked<T> {
    pub(super) value: T,
    pub(super) place: Place,
}

/// A field of a mapping.
#[derive(Clone, Debug)]
pub(super) enum Field<T> {
    /// Not there.
    Absent,
    /// There, and wrong: that has been said, so nothing more should be concluded from it.
    Bad,
    /// There.
    Given(Marked<T>),
}

impl<T> Field<T> {
    pub(super) fn given(&self) -> Option<&Marked<T>> {
        match self {
            Field::Given(marked) => Some(marked),
            Field::Absent | Field::Bad => None,
        }
    }

    pub(super) fn value(&self) -> Option<&T> {
        self.given().map(|marked| &marked.value)
    }

    pub(super) fn is_absent(&self) -> bool {
        matches!(self, Field::Absent)
    }

    pub(super) fn is_bad(&self) -> bool {
        matches!(self, Field::Bad)
    }
}

/// Reads any value.
pub(super) fn read<T: Input>(node: &Node, place: Place, errors: &mut Errors) -> Option<Marked<T>> {
    match node.value {
        Value::Refused(why) => {
            errors.add(&place, why);
            None
        }
        Value::Null => {
            errors.add(&place, "has no value: give it one; a field that is not needed can be left out");
            None
        }
        Value::Bool(_) | Value::Number(_) | Value::Text(_) | Value::List(_) | Value::Map(_) => {
            T::read(node, &place, errors).map(|value| Marked { value, place })
        }
    }
}

/// Says that `node` is not `wanted`.
pub(super) fn wrong_type(node: &Node, wanted: &str, place: &Place, errors: &mut Errors) {
    let found = what(node);
    errors.add(place, format!("must be {wanted}, and is {found}"));
}

/// What `node` is, for people.
fn what(node: &Node) -> String {
    match &node.value {
        Value::Null | Value::Refused(_) => "nothing".to_owned(),
        Value::Bool(bool) => format!("the boolean {bool}"),
        Value::Number(number) => format!("the number {}", shorten(number, 40)),
        Value::Text(text) => format!("the text `{}`", shorten(text, 80)),
        Value::List(_) => "a list".to_owned(),
        Value::Map(_) => "a mapping".to_owned(),
    }
}

/// Reads `node` as a text, or says what to write. A number or a boolean needs quotes to be a text, which is said where
/// quotes would do.
pub(super) fn read_text<T>(
    node: &Node,
    wanted: &str,
    place: &Place,
    errors: &mut Errors,
    read: fn(&str) -> Result<T, String>,
) -> Option<T> {
    let bare = match &node.value {
        Value::Text(text) => return read(text).map_err(|message| errors.add(place, message)).ok(),
        Value::Number(number) => Some(number.clone()),
        Value::Bool(bool) => Some(bool.to_string()),
        Value::Null | Value::List(_) | Value::Map(_) | Value::Refused(_) => None,
    };
    match bare.filter(|text| read(text).is_ok()) {
        Some(text) => {
            let (found, text) = (what(node), shorten(&text, 40));
            errors.add(place, format!("must be {wanted}, and is {found}: put it into quotes, \"{text}\""));
        }
        None => wrong_type(node, wanted, place, errors),
    }
    None
}

/// A list. Items that cannot be read are left out, each with its error.
impl<T: Input> Input for Vec<Marked<T>> {
    fn schema() -> serde_json::Value {
        json!({"type": "array", "items": T::schema(), "minItems": 1})
    }

    fn read(node: &Node, place: &Place, errors: &mut Errors) -> Option<Self> {
        let Value::List(items) = &node.value else {
            wrong_type(node, "a list (write `[…]`, or `- ` before each item)", place, errors);
            return None;
        };
        if items.is_empty() {
            errors
                .add(place, "is an empty list: give it an item; a field that is not needed can be left out");
            return None;
        }
        let item = |(i, node): (usize, &Node)| read(node, place.item(i, node.at), errors);
        Some(items.iter().enumerate().filter_map(item).collect())
    }
}

/// A list that may be empty.
pub(super) struct AnyLength<T>(pub(super) Vec<Marked<T>>);

impl<T: Input> Input for AnyLength<T> {
    fn schema() -> serde_json::Value {
        json!({"type": "array", "items": T::schema()})
    }

    fn read(node: &Node, place: &Place, errors: &mut Errors) -> Option<Self> {
        match &node.value {
            Value::List(items) if items.is_empty() => Some(Self(Vec::new())),
            Value::List(_)
            | Value::Null
            | Value::Bool(_)
            | Value::Number(_)
            | Value::Text(_)
            | Value::Map(_)
            | Value::Refused(_) => Input::read(node, place, errors).map(Self),
        }
    }
}

/// The key of a mapping whose keys are the user's.
pub(super) trait KeyInput: Sized {
    /// What stands for the key in the reference.
    const PLACEHOLDER: &str;
    /// A regular expression for it.
    const PATTERN: &str;

    /// Reads a key, or says what is wrong.
    ///
    /// # Errors
    /// What is wrong and what to do.
    fn read(text: &str) -> Result<Self, String>;
}

/// A mapping whose keys are the user's. Entries whose key cannot be read are left out, with an error.
pub(super) struct Pairs<K, T>(pub(super) Vec<(K, Field<T>)>);

impl<K: KeyInput, T: Input> Input for Pairs<K, T> {
    fn schema() -> serde_json::Value {
        json!({
            "type": "object",
            "propertyNames": {"title": K::PLACEHOLDER, "pattern": K::PATTERN},
            "additionalProperties": T::schema(),
        })
    }

    fn read(node: &Node, place: &Place, errors: &mut Errors) -> Option<Self> {
        let Value::Map(entries) = &node.value else {
            let wanted = format!("a mapping (`{}: …`)", K::PLACEHOLDER);
            wrong_type(node, &wanted, place, errors);
            return None;
        };
        let mut seen = HashSet::new();
        let mut pairs = Vec::new();
        for (key, node) in entries {
            let at_key = place.field(&key.text, key.at);
            if !seen.insert(key.text.as_str()) {
                errors.add(&at_key, DUPLICATE);
                continue;
            }
            let value = read(node, place.field(&key.text, node.at), errors).map_or(Field::Bad, Field::Given);
            match K::read(&key.text) {
                Ok(key) => pairs.push((key, value)),
                Err(message) => errors.add(&at_key, message),
            }
        }
        Some(Self(pairs))
    }
}

const DUPLICATE: &str = "is given twice: keep one of them";

/// A field that the format will have, and this version does not: name, and what to use instead.
pub(super) type Later = (&'static str, Option<&'static str>);

/// A mapping that is being read by its fields.
pub(super) struct Object<'n> {
    place: Place,
    entries: &'n [(super::yaml::Key, Node)],
    /// Fields that an error has already named as what to write.
    suggested: Vec<&'static str>,
}

impl<'n> Object<'n> {
    /// Begins with `node`, and complains of every key that is not in `known`.
    pub(super) fn open(
        node: &'n Node,
        place: &Place,
        known: &[&'static str],
        later: &[Later],
        errors: &mut Errors,
    ) -> Option<Self> {
        let Value::Map(entries) = &node.value else {
            wrong_type(node, &format!("a mapping with the fields {}", list(known)), place, errors);
            return None;
        };
        let mut object = Object { place: place.clone(), entries, suggested: Vec::new() };
        let mut seen = HashSet::new();
        for (key, _) in entries {
            let at_key = place.field(&key.text, key.at);
            if !seen.insert(key.text.as_str()) {
                errors.add(&at_key, DUPLICATE);
            } else if !known.contains(&key.text.as_str()) {
                let near = if errors.many() { None } else { nearest(&key.text, known) };
                let (message, suggestion) = unknown(&key.text, near, known, later);
                object.suggested.extend(suggestion);
                errors.add(&at_key, message);
            }
        }
        Some(object)
    }

    /// The field `key`; `needed` holds an example when it must be there.
    pub(super) fn field<T: Input>(
        &self,
        key: &'static str,
        needed: Option<&serde_json::Value>,
        errors: &mut Errors,
    ) -> Field<T> {
        match self.entries.iter().find(|(k, _)| k.text == key) {
            Some((_, node)) => {
                read(node, self.place.field(key, node.at), errors).map_or(Field::Bad, Field::Given)
            }
            None if self.suggested.contains(&key) => Field::Bad,
            None => {
                if let Some(example) = needed {
                    let example = flow(example);
                    let message = format!("is missing: add it, for example `{key}: {example}`");
                    errors.add(&self.place.field(key, self.place.position), message);
                    return Field::Bad;
                }
                Field::Absent
            }
        }
    }
}

/// What to say about a field that is not known, and the field that it suggests.
fn unknown(
    key: &str,
    near: Option<&'static str>,
    known: &[&'static str],
    later: &[Later],
) -> (String, Option<&'static str>) {
    if key == "<<" {
        return ("YAML merge keys (`<<`) are not supported: write the fields out".to_owned(), None);
    }
    if let Some((_, instead)) = later.iter().find(|(name, _)| *name == key) {
        let remedy = instead.map_or("leave it out".to_owned(), |instead| format!("use `{instead}`"));
        return (format!("is not supported by this version of Serinus yet: {remedy}"), *instead);
    }
    if !key.is_empty() && key.bytes().all(|b| b.is_ascii_digit()) {
        return ("unknown field: a decimal has a point and no comma, like 0.1".to_owned(), None);
    }
    match near {
        Some(near) => (format!("unknown field: did you mean `{near}`?"), Some(near)),
        None => (format!("unknown field: the fields here are {}", list(known)), None),
    }
}

/// The schema of one field: that of its type, with what [`object!`] says about the field.
pub(super) fn describe(
    mut schema: serde_json::Value,
    doc: &[&str],
    notes: &[(&str, serde_json::Value)],
) -> serde_json::Value {
    if let serde_json::Value::Object(schema) = &mut schema {
        let lines: Vec<_> = doc.iter().map(|line| line.trim()).collect();
        schema.insert("description".to_owned(), lines.join(" ").into());
        for (word, value) in notes {
            match *word {
                "example" => schema.insert("examples".to_owned(), json!([value])),
                word => schema.insert(word.to_owned(), value.clone()),
            };
        }
    }
    schema
}

/// The schema of a mapping with these fields: key, schema, whether it must be there.
pub(super) fn object_schema(title: &str, fields: Vec<(&str, serde_json::Value, bool)>) -> serde_json::Value {
    let required: Vec<_> = fields.iter().filter(|(_, _, needed)| *needed).map(|(key, _, _)| *key).collect();
    let mut schema = json!({"type": "object", "title": title, "additionalProperties": false});
    if let serde_json::Value::Object(schema) = &mut schema {
        if !required.is_empty() {
            schema.insert("required".to_owned(), json!(required));
        }
        let properties: Map<_, _> =
            fields.into_iter().map(|(key, field, _)| (key.to_owned(), field)).collect();
        schema.insert("properties".to_owned(), properties.into());
    }
    schema
}

/// A mapping of the config file: the struct, how it is read and its JSON Schema, from one list of fields.
///
/// ```text
/// object! {
///     /// What it is.
///     Drain "drain", later [("linger", None)] {
///         /// What the field is.
///         optional "delay" delay: Span, default = "5s", example = "10s";
///     }
/// }
/// ```
macro_rules! object {
    (
        $(#[doc = $doc:literal])+
        $name:ident $title:literal, later [$($later:expr),* $(,)?] {
            $(
                $(#[doc = $field_doc:literal])+
                $need:ident $key:literal $field:ident: $type:ty $(, $word:ident = $note:tt)*;
            )*
        }
    ) => {
        $(#[doc = $doc])+
        pub(in crate::config) struct $name {
            $($(#[doc = $field_doc])+ pub(in crate::config) $field: $crate::config::input::Field<$type>,)*
        }

        impl $crate::config::input::Input for $name {
            fn schema() -> serde_json::Value {
                use $crate::config::input::{describe, object_schema};
                let fields = vec![$((
                    $key,
                    describe(
                        <$type>::schema(),
                        &[$($field_doc),+],
                        &[$((stringify!($word), serde_json::json!($note))),*],
                    ),
                    $crate::config::input::object!(@$need),
                )),*];
                describe(object_schema($title, fields), &[$($doc),+], &[])
            }

            fn read(
                node: &$crate::config::yaml::Node,
                place: &$crate::config::errors::Place,
                errors: &mut $crate::config::errors::Errors,
            ) -> Option<Self> {
                let later: &[$crate::config::input::Later] = &[$($later),*];
                let object = $crate::config::input::Object::open(node, place, &[$($key),*], later, errors)?;
                $(
                    let notes: &[(&str, serde_json::Value)] =
                        &[$((stringify!($word), serde_json::json!($note))),*];
                    let example = notes.iter().find(|(word, _)| *word == "example").map(|(_, note)| note);
                    let needed =
                        $crate::config::input::object!(@$need).then(|| example.unwrap_or(&serde_json::Value::Null));
                    let $field = object.field($key, needed, errors);
                )*
                Some(Self { $($field),* })
            }
        }
    };
    (@required) => { true };
    (@optional) => { false };
}
pub(super) use object;
