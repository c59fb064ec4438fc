//! JSON with places. `serde_json` reads; a borrowed [`RawValue`] tells where in the text each value stands.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::Value;
use serde_json::value::RawValue;

use super::{DEPTH, Kind, Member, Node, Place, Refusal, VALUES};

pub(super) fn read(text: &str) -> Result<Node, Refusal> {
    let raw: &RawValue = serde_json::from_str(text).map_err(|error| refusal(&error))?;
    let mut reader = Reader { lines: Lines::new(text), text, left: VALUES };
    reader.node(raw, DEPTH)
}

fn refusal(error: &serde_json::Error) -> Refusal {
    let number = |n: usize| u32::try_from(n).unwrap_or(u32::MAX).max(1);
    let text = error.to_string();
    // The place is told apart from the message.
    let what = text.split(" at line ").next().unwrap_or_default();
    Refusal::syntax(
        Place { line: number(error.line()), column: number(error.column()) },
        format!("not JSON: {what}"),
    )
}

struct Reader<'t> {
    text: &'t str,
    lines: Lines,
    left: usize,
}

impl<'t> Reader<'t> {
    fn node(&mut self, raw: &'t RawValue, depth: usize) -> Result<Node, Refusal> {
        let place = self.place(raw.get());
        self.left = self.left.saturating_sub(1);
        if depth == 0 || self.left == 0 {
            return Err(Refusal::too_large(
                place,
                format!("nested more than {DEPTH} deep, or too many values"),
            ));
        }
        let kind = match raw.get().as_bytes().first() {
            Some(b'{') => {
                let Members(members) = parse(raw)?;
                Kind::Object(
                    members
                        .into_iter()
                        .map(|(name, value)| self.member(name, value, depth))
                        .collect::<Result<_, _>>()?,
                )
            }
            Some(b'[') => {
                let values: Vec<&'t RawValue> = parse(raw)?;
                Kind::Array(
                    values.into_iter().map(|value| self.node(value, depth - 1)).collect::<Result<_, _>>()?,
                )
            }
            _ => Kind::Scalar(parse::<Value>(raw)?),
        };
        Ok(Node { place, kind })
    }

    fn member(&mut self, name: String, value: &'t RawValue, depth: usize) -> Result<Member, Refusal> {
        let value = self.node(value, depth - 1)?;
        // The text before a value is its name; the value's own place stands for both.
        Ok(Member { name, place: value.place, value })
    }

    fn place(&self, part: &str) -> Place {
        self.lines.place(self.text, part.as_ptr().addr() - self.text.as_ptr().addr())
    }
}

fn parse<'t, T: Deserialize<'t>>(raw: &'t RawValue) -> Result<T, Refusal> {
    serde_json::from_str(raw.get()).map_err(|error| refusal(&error))
}

/// Members in order, doubles included.
struct Members<'t>(Vec<(String, &'t RawValue)>);

impl<'de> Deserialize<'de> for Members<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Pairs;
        impl<'de> Visitor<'de> for Pairs {
            type Value = Members<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Members<'de>, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = access.next_entry()? {
                    members.push(member);
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(Pairs)
    }
}

/// Where each line starts.
struct Lines(Vec<usize>);

impl Lines {
    fn new(text: &str) -> Self {
        let breaks = text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n').map(|(at, _)| at + 1);
        Self(std::iter::once(0).chain(breaks).collect())
    }

    fn place(&self, text: &str, byte: usize) -> Place {
        let line = self.0.partition_point(|start| *start <= byte);
        let start = line.checked_sub(1).and_then(|at| self.0.get(at)).copied().unwrap_or(0);
        let column = text.get(start..byte).map_or(0, |before| before.chars().count()) + 1;
        Place {
            line: u32::try_from(line).unwrap_or(u32::MAX),
            column: u32::try_from(column).unwrap_or(u32::MAX),
        }
    }
}
