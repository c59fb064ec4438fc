//! Nodes into Rust values, by serde.
//!
//! The type that is asked for decides how a text is read: `8` is a number for a number and a text for a text, so a
//! value from the environment needs no quoting rules. Errors know the key that they are about.

use serde::{
    Deserializer,
    de::{self, DeserializeSeed, Expected, IntoDeserializer, MapAccess, SeqAccess, Unexpected, Visitor},
    forward_to_deserialize_any,
};
use std::fmt;

use super::node::{Entry, Node, Value};

/// Why a node is not what was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Fault {
    UnknownKey { key: String, known: &'static [&'static str] },
    UnknownVariant { value: String, known: &'static [&'static str] },
    Missing(&'static str),
    Other(String),
}

/// A fault and the key under which it was found.
#[derive(Debug)]
pub(crate) struct ReadError {
    /// From the inside out: each level adds its key on the way up.
    reversed: Vec<String>,
    fault: Fault,
}

impl ReadError {
    const fn new(fault: Fault) -> Self {
        Self { reversed: Vec::new(), fault }
    }

    fn under(mut self, key: &str) -> Self {
        self.reversed.push(key.to_owned());
        self
    }

    pub(crate) const fn fault(&self) -> &Fault {
        &self.fault
    }

    pub(crate) const fn is_unknown_key(&self) -> bool {
        matches!(self.fault, Fault::UnknownKey { .. })
    }

    /// The path of what has to be changed, the unknown key included.
    pub(crate) fn culprit(&self) -> Vec<String> {
        let mut path: Vec<String> = self.reversed.iter().rev().cloned().collect();
        if let Fault::UnknownKey { key, .. } = &self.fault {
            path.push(key.clone());
        }
        path
    }
}

impl fmt::Display for ReadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} at {}", self.fault, self.culprit().join("."))
    }
}

impl std::error::Error for ReadError {}

impl de::Error for ReadError {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self::new(Fault::Other(message.to_string()))
    }

    fn invalid_type(found: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self::new(Fault::Other(format!("expected {expected}, found {found}")))
    }

    fn invalid_value(found: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self::new(Fault::Other(format!("expected {expected}, found {found}")))
    }

    fn unknown_variant(value: &str, known: &'static [&'static str]) -> Self {
        Self::new(Fault::UnknownVariant { value: value.to_owned(), known })
    }

    fn unknown_field(key: &str, known: &'static [&'static str]) -> Self {
        Self::new(Fault::UnknownKey { key: key.to_owned(), known })
    }

    fn missing_field(key: &'static str) -> Self {
        Self::new(Fault::Missing(key))
    }
}

/// Reads one node, one key, or one part of a text.
#[derive(Clone, Copy)]
pub(crate) struct Reader<'a> {
    view: View<'a>,
}

#[derive(Clone, Copy)]
enum View<'a> {
    Null,
    Text { text: &'a str, plain: bool },
    List(&'a [Node]),
    Map(&'a [Entry]),
}

impl<'a> Reader<'a> {
    pub(crate) fn new(node: &'a Node) -> Self {
        let view = match &node.value {
            Value::Null => View::Null,
            Value::Scalar { text, plain } => View::Text { text, plain: *plain },
            Value::List(nodes) => View::List(nodes),
            Value::Map(entries) => View::Map(entries),
        };
        Self { view }
    }

    const fn word(text: &'a str) -> Self {
        Self { view: View::Text { text, plain: true } }
    }

    fn unexpected(self) -> Unexpected<'a> {
        match self.view {
            View::Null => Unexpected::Other("nothing"),
            View::Text { text, .. } => Unexpected::Str(text),
            View::List(_) => Unexpected::Seq,
            View::Map(_) => Unexpected::Map,
        }
    }

    fn text(self, expected: &dyn Expected) -> Result<&'a str, ReadError> {
        match self.view {
            View::Text { text, .. } => Ok(text),
            View::Null | View::List(_) | View::Map(_) => {
                Err(de::Error::invalid_type(self.unexpected(), expected))
            }
        }
    }
}

macro_rules! read_number {
    ($($method:ident $visit:ident $wide:ty, $what:literal;)*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ReadError> {
            let text = self.text(&$what)?;
            match text.parse::<$wide>() {
                Ok(number) => visitor.$visit(number),
                Err(_) => Err(de::Error::invalid_type(self.unexpected(), &$what)),
            }
        }
    )*};
}

impl<'de> Deserializer<'de> for Reader<'de> {
    type Error = ReadError;

    read_number! {
        deserialize_u8 visit_u64 u64, "a whole number, 0 or more";
        deserialize_u16 visit_u64 u64, "a whole number, 0 or more";
        deserialize_u32 visit_u64 u64, "a whole number, 0 or more";
        deserialize_u64 visit_u64 u64, "a whole number, 0 or more";
        deserialize_i8 visit_i64 i64, "a whole number";
        deserialize_i16 visit_i64 i64, "a whole number";
        deserialize_i32 visit_i64 i64, "a whole number";
        deserialize_i64 visit_i64 i64, "a whole number";
        deserialize_f32 visit_f64 f64, "a number";
        deserialize_f64 visit_f64 f64, "a number";
        deserialize_bool visit_bool bool, "true or false";
    }

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ReadError> {
        match self.view {
            View::Null => visitor.visit_unit(),
            View::Text { text, plain: false } => visitor.visit_borrowed_str(text),
            View::Text { text, plain: true } => visit_plain(text, visitor),
            View::List(nodes) => visitor.visit_seq(Elements { nodes: nodes.iter(), index: 0 }),
            View::Map(entries) => visitor.visit_map(Members { entries: entries.iter(), current: None }),
        }
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ReadError> {
        visitor.visit_borrowed_str(self.text(&"a text")?)
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ReadError> {
        self.deserialize_str(visitor)
    }

    fn deserialize_identifier<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ReadError> {
        self.deserialize_str(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ReadError> {
        match self.view {
            View::Null => visitor.visit_none(),
            View::Text { .. } | View::List(_) | View::Map(_) => visitor.visit_some(self),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, ReadError> {
        visitor.visit_newtype_struct(self)
    }

    /// A list; a text is the list of its parts between commas, for variables and flags.
    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ReadError> {
        match self.view {
            View::Text { text, plain: true } => {
                let parts = text.split(',').map(|part| Self::word(part.trim()));
                visitor.visit_seq(de::value::SeqDeserializer::new(parts))
            }
            View::List(nodes) => visitor.visit_seq(Elements { nodes: nodes.iter(), index: 0 }),
            View::Null | View::Text { .. } | View::Map(_) => {
                Err(de::Error::invalid_type(self.unexpected(), &"a list"))
            }
        }
    }

    /// A map; a key without a value is an empty one.
    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ReadError> {
        let entries = match self.view {
            View::Null => &[],
            View::Map(entries) => entries,
            View::Text { .. } | View::List(_) => {
                return Err(de::Error::invalid_type(self.unexpected(), &"keys with values"));
            }
        };
        visitor.visit_map(Members { entries: entries.iter(), current: None })
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, ReadError> {
        self.deserialize_map(visitor)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, ReadError> {
        match self.view {
            View::Text { text, .. } => visitor.visit_enum(text.into_deserializer()),
            View::Map(entries) => {
                let members = Members { entries: entries.iter(), current: None };
                visitor.visit_enum(de::value::MapAccessDeserializer::new(members))
            }
            View::Null | View::List(_) => {
                Err(de::Error::invalid_type(self.unexpected(), &"one of the known words"))
            }
        }
    }

    forward_to_deserialize_any! {
        i128 u128 char bytes byte_buf unit unit_struct tuple tuple_struct ignored_any
    }
}

impl<'de> IntoDeserializer<'de, ReadError> for Reader<'de> {
    type Deserializer = Self;

    fn into_deserializer(self) -> Self {
        self
    }
}

/// Where any type will do, a bare word is read as YAML 1.2 does.
fn visit_plain<'de, V: Visitor<'de>>(text: &'de str, visitor: V) -> Result<V::Value, ReadError> {
    match text {
        "true" => return visitor.visit_bool(true),
        "false" => return visitor.visit_bool(false),
        "null" | "~" => return visitor.visit_unit(),
        _ => {}
    }
    let numeric = text.starts_with(|c: char| c.is_ascii_digit() || matches!(c, '-' | '+' | '.'));
    if numeric {
        if let Ok(number) = text.parse::<u64>() {
            return visitor.visit_u64(number);
        }
        if let Ok(number) = text.parse::<i64>() {
            return visitor.visit_i64(number);
        }
        if let Some(number) = text.parse::<f64>().ok().filter(|number| number.is_finite()) {
            return visitor.visit_f64(number);
        }
    }
    visitor.visit_borrowed_str(text)
}

struct Elements<'a> {
    nodes: std::slice::Iter<'a, Node>,
    index: usize,
}

impl<'de> SeqAccess<'de> for Elements<'de> {
    type Error = ReadError;

    fn next_element_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, ReadError> {
        let Some(node) = self.nodes.next() else { return Ok(None) };
        let index = self.index;
        self.index += 1;
        seed.deserialize(Reader::new(node)).map(Some).map_err(|error| error.under(&index.to_string()))
    }
}

struct Members<'a> {
    entries: std::slice::Iter<'a, Entry>,
    current: Option<&'a Entry>,
}

impl<'de> MapAccess<'de> for Members<'de> {
    type Error = ReadError;

    fn next_key_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, ReadError> {
        self.current = self.entries.next();
        let Some(entry) = self.current else { return Ok(None) };
        seed.deserialize(Reader::word(&entry.key)).map(Some)
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, ReadError> {
        let Some(entry) = self.current else {
            return Err(de::Error::custom("a value was asked for before its key"));
        };
        seed.deserialize(Reader::new(&entry.node)).map_err(|error| error.under(&entry.key))
    }
}
