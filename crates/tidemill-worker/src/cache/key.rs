//! What makes two calls equal: a digest of the tool and of the input, written one way.
//!
//! Objects with the same members in another order are equal, and so are texts that differ in white space or in how a character is
//! escaped. Numbers count as they are written: `1.0` is not `1`, for nobody knows what the tool makes of them. What is not JSON
//! is equal to the same bytes alone.

use ring::digest::{Context, SHA256};
use tidemill_protocol::{Encoding, Payload};
use tidemill_store::cache::Digest;

use super::Question;

/// How deep an input may nest to be written one way; deeper ones count as their bytes.
const MAX_DEPTH: usize = 128;

/// The digest of a call.
pub(super) fn digest(question: &Question<'_>) -> Digest {
    let mut context = Context::new(&SHA256);
    let mut part = |bytes: &[u8]| {
        // with its length, so that no two lists of parts read alike
        context.update(&(bytes.len() as u64).to_be_bytes());
        context.update(bytes);
    };
    part(b"tidemill cache 1");
    part(question.tool.as_bytes());
    part(question.apart.as_bytes());
    match json_of(question.input) {
        Some(json) => {
            part(b"json");
            part(&json);
        }
        None => {
            part(b"bytes");
            part(question.input.bytes());
        }
    }
    let mut bytes = [0; 32];
    bytes.copy_from_slice(context.finish().as_ref());
    Digest(bytes)
}

fn json_of(input: &Payload) -> Option<Vec<u8>> {
    match input.encoding() {
        Encoding::Json => canonical(input.bytes()),
        Encoding::MsgPack => canonical(input.clone().into_json().ok()?.bytes()),
    }
}

/// The text written one way; `None` where it is not one JSON value, or nests too deep.
fn canonical(json: &[u8]) -> Option<Vec<u8>> {
    let mut reader = Reader { text: json, at: 0 };
    let mut out = Vec::with_capacity(json.len());
    reader.value(&mut out, 0)?;
    (reader.peek().is_none()).then_some(out)
}

struct Reader<'a> {
    text: &'a [u8],
    at: usize,
}

impl Reader<'_> {
    /// The next byte that is not white space.
    fn peek(&mut self) -> Option<u8> {
        while let Some(byte) = self.text.get(self.at) {
            if !matches!(byte, b' ' | b'\t' | b'\n' | b'\r') {
                return Some(*byte);
            }
            self.at += 1;
        }
        None
    }

    fn takes(&mut self, wanted: u8) -> bool {
        let found = self.peek() == Some(wanted);
        self.at += usize::from(found);
        found
    }

    fn value(&mut self, out: &mut Vec<u8>, depth: usize) -> Option<()> {
        if depth > MAX_DEPTH {
            return None;
        }
        match self.peek()? {
            b'{' => self.object(out, depth),
            b'[' => self.array(out, depth),
            b'"' => self.string(out),
            _ => self.word(out),
        }
    }

    fn array(&mut self, out: &mut Vec<u8>, depth: usize) -> Option<()> {
        self.at += 1;
        out.push(b'[');
        if !self.takes(b']') {
            loop {
                self.value(out, depth + 1)?;
                if self.takes(b']') {
                    break;
                }
                self.takes(b',').then_some(())?;
                out.push(b',');
            }
        }
        out.push(b']');
        Some(())
    }

    fn object(&mut self, out: &mut Vec<u8>, depth: usize) -> Option<()> {
        self.at += 1;
        out.push(b'{');
        let (first, mut members) = (out.len(), Vec::new());
        if !self.takes(b'}') {
            loop {
                let start = out.len();
                (self.peek()? == b'"').then_some(())?;
                self.string(out)?;
                let name = out.len();
                self.takes(b':').then_some(())?;
                out.push(b':');
                self.value(out, depth + 1)?;
                out.push(b',');
                members.push((start, name, out.len()));
                if self.takes(b'}') {
                    break;
                }
                self.takes(b',').then_some(())?;
            }
        }
        if !members.is_sorted_by_key(|(start, name, _)| out.get(*start..*name)) {
            // stable: which of two members of one name comes last may matter to the tool
            members.sort_by_key(|(start, name, _)| out.get(*start..*name));
            let sorted: Vec<&[u8]> =
                members.iter().filter_map(|(start, _, end)| out.get(*start..*end)).collect();
            let sorted = sorted.concat();
            out.truncate(first);
            out.extend_from_slice(&sorted);
        }
        out.push(b'}');
        Some(())
    }

    fn string(&mut self, out: &mut Vec<u8>) -> Option<()> {
        let (start, mut escapes) = (self.at, false);
        self.at += 1;
        loop {
            match self.text.get(self.at)? {
                b'"' => break,
                b'\\' => {
                    escapes = true;
                    self.at += 2;
                }
                _ => self.at += 1,
            }
        }
        self.at += 1;
        let written = self.text.get(start..self.at)?;
        // half of a surrogate pair stands for no character: such a text stays as it is written
        let read = if escapes { serde_json::from_slice::<String>(written).ok() } else { None };
        match read {
            Some(text) => serde_json::to_writer(&mut *out, &text).ok()?,
            None => out.extend_from_slice(written),
        }
        Some(())
    }

    /// A number, `true`, `false` or `null`, as it is written.
    fn word(&mut self, out: &mut Vec<u8>) -> Option<()> {
        let rest = self.text.get(self.at..)?;
        let plain = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.');
        let length = rest.iter().take_while(|byte| plain(byte)).count();
        (length > 0).then_some(())?;
        out.extend_from_slice(rest.get(..length)?);
        self.at += length;
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::{canonical, digest};
    use crate::cache::Question;
    use proptest::prelude::*;
    use serde_json::{Map, Value};
    use std::sync::Arc;
    use tidemill_protocol::{Encoding, Payload};
    use tidemill_store::cache::Digest;

    fn of(tool: &str, apart: &str, input: &Payload) -> Digest {
        digest(&Question { service: &Arc::from("s"), tool, apart, input })
    }

    fn json(text: &str) -> Digest {
        of("t", "", &Payload::json(text.to_owned()))
    }

    #[test]
    fn equal_calls_are_written_in_many_ways() {
        let plain = json(r#"{"a":[1,{"x":null,"y":"é/"}],"b":true}"#);
        for other in [
            r#"{"b":true,"a":[1,{"x":null,"y":"é/"}]}"#,
            "\n{ \"b\" : true ,\t\"a\":[ 1 , {\"y\":\"é/\", \"x\":null} ] } \r\n",
            r#"{"\u0062":true,"a":[1,{"y":"\u00e9\/","x":null}]}"#,
        ] {
            assert_eq!(json(other), plain, "{other}");
        }
        let value: Value = serde_json::from_str(r#"{"b":true,"a":[1,{"y":"é/","x":null}]}"#).unwrap();
        // {"a":[1,{"x":nil,"y":"é/"}],"b":true}
        let packed = b"\x82\xa1a\x92\x01\x82\xa1x\xc0\xa1y\xa3\xc3\xa9/\xa1b\xc3".to_vec();
        let packed = Payload::encoded(Encoding::MsgPack, packed);
        assert_eq!(packed.parse::<Value>().unwrap(), value);
        assert_eq!(of("t", "", &packed), plain);
    }

    #[test]
    fn what_a_tool_may_tell_apart_is_not_equal() {
        let texts = [
            "1",
            "1.0",
            "1e0",
            "\"1\"",
            "[1]",
            "[[1]]",
            "[]",
            "{}",
            "null",
            "\"\"",
            "[\"a\",\"b\"]",
            "[\"b\",\"a\"]",
            "[\"a,b\"]",
            r#"{"a":1}"#,
            r#"{"a":{"b":1}}"#,
            r#"{"a":1,"b":1}"#,
            r#"{"a":1,"a":2}"#,
            r#"{"a":2,"a":1}"#,
            r#""\ud800""#,
            r#""\ud801""#,
            r#""\\ud800""#,
            r#""a\"b""#,
            "\"a\u{301}\"",
            "\"\u{e1}\"",
            "1 2",
            "12",
            "[1,]",
            "[1",
            "{\"a\"}",
            "{\"a\":}",
            "",
            " ",
            "\"\\",
        ];
        let mut seen: Vec<(Digest, &str)> = texts.iter().map(|text| (json(text), *text)).collect();
        seen.sort_unstable();
        for pair in seen.windows(2) {
            assert_ne!(pair[0].0, pair[1].0, "{:?} and {:?}", pair[0].1, pair[1].1);
        }
        let input = Payload::empty_object();
        let digests = [of("t", "", &input), of("", "t", &input), of("t", "a", &input), of("ta", "", &input)];
        for (index, one) in digests.iter().enumerate() {
            assert!(!digests[..index].contains(one), "{index}");
        }
        let deep = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        assert_ne!(json(&deep(100_000)), json(&deep(100_001)));
        assert!(canonical(deep(129).as_bytes()).is_some() && canonical(deep(130).as_bytes()).is_none());
    }

    fn values() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            "\\PC{0,6}".prop_map(Value::from),
            "[\\x00-\\x7f]{0,6}".prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 24, 5, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
                proptest::collection::btree_map("\\PC{0,3}", inner, 0..5)
                    .prop_map(|members| Value::from(members.into_iter().collect::<Map<String, Value>>())),
            ]
        })
    }

    /// The same value with its members from last to first and white space everywhere.
    fn written_otherwise(value: &Value) -> String {
        match value {
            Value::Object(members) => {
                let members: Vec<String> = members
                    .iter()
                    .rev()
                    .map(|(name, value)| {
                        format!(" {} :\n{}", Value::from(name.as_str()), written_otherwise(value))
                    })
                    .collect();
                format!("{{{} }}", members.join(" ,"))
            }
            Value::Array(all) => {
                format!("[ {}]", all.iter().map(written_otherwise).collect::<Vec<_>>().join(" , "))
            }
            other => other.to_string(),
        }
    }

    proptest! {
        #[test]
        fn only_the_same_value_has_the_same_digest(one in values(), other in values()) {
            prop_assert_eq!(json(&one.to_string()), json(&written_otherwise(&one)));
            prop_assert_eq!(json(&one.to_string()) == json(&other.to_string()), one == other);
            let read: Value = serde_json::from_slice(&canonical(one.to_string().as_bytes()).unwrap_or_default())
                .unwrap_or_else(|_| Value::from("unreadable"));
            // members keep a comma at their end: only values without objects can be read back
            if !one.to_string().contains('{') {
                prop_assert_eq!(read, one);
            }
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..64), text in "[\\[\\]{}\",:\\\\u0-9a-f ]{0,40}") {
            let _ = json(&text);
            of("t", "", &Payload::json(bytes));
        }
    }
}
