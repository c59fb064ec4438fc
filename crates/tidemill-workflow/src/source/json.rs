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

    fn place(&mut self, part: &str) -> Place {
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

/// Where each line starts, and the place that was asked for last: they are asked for in the order of the text, and a whole
/// definition may be one line.
struct Lines {
    starts: Vec<usize>,
    last: Known,
}

/// How many characters of its line stand before a byte.
#[derive(Clone, Copy, Default)]
struct Known {
    line_start: usize,
    byte: usize,
    chars: usize,
}

impl Lines {
    fn new(text: &str) -> Self {
        let breaks = text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n').map(|(at, _)| at + 1);
        Self { starts: std::iter::once(0).chain(breaks).collect(), last: Known::default() }
    }

    fn place(&mut self, text: &str, byte: usize) -> Place {
        let line = self.starts.partition_point(|start| *start <= byte);
        let line_start = line.checked_sub(1).and_then(|at| self.starts.get(at)).copied().unwrap_or(0);
        let from = match self.last {
            last if last.line_start == line_start && last.byte <= byte => last,
            _ => Known { line_start, byte: line_start, chars: 0 },
        };
        let chars = from.chars + text.get(from.byte..byte).map_or(0, |between| between.chars().count());
        self.last = Known { line_start, byte, chars };
        Place {
            line: u32::try_from(line).unwrap_or(u32::MAX),
            column: u32::try_from(chars + 1).unwrap_or(u32::MAX),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_right_in_whatever_order_they_are_asked_for() {
        let text = "äb\ncédé\n\nf";
        let places: Vec<(usize, (u32, u32))> = vec![
            (0, (1, 1)),
            (2, (1, 2)),
            (4, (2, 1)),
            (7, (2, 3)),
            (5, (2, 2)),
            (3, (1, 3)),
            (8, (2, 4)),
            (12, (4, 1)),
            (0, (1, 1)),
        ];
        let mut lines = Lines::new(text);
        for (byte, (line, column)) in places {
            assert_eq!(lines.place(text, byte), Place { line, column }, "byte {byte}");
        }
    }

    #[test]
    fn one_long_line_is_read_in_a_time_that_grows_with_its_length() {
        let text = format!("[{}0]", "0,".repeat(400_000));
        // counted from the start of the line each time, this takes minutes
        let Ok(Node { kind: Kind::Array(values), .. }) = read(&text) else { panic!("it is an array") };
        assert_eq!(values.last().map(|value| value.place.column), Some(800_002));
    }
}
