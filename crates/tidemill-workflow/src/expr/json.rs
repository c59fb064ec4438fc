//! JSON text to values and back. Writing counts bytes as it goes, because shared structure explodes only then.

use std::fmt;
use std::rc::Rc;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};

use super::meter;
use super::value::{Members, Val};

/// The output would be longer than allowed.
#[derive(Debug)]
pub(crate) struct TooLong;

/// Reads a value. The nesting of what is read is bounded by `serde_json` (128).
pub(super) fn read(text: &[u8]) -> Result<Val, serde_json::Error> {
    serde_json::from_slice(text)
}

/// Writes a value as compact JSON onto `out`, which may grow to `limit` bytes at most.
pub(super) fn write(value: &Val, out: &mut Vec<u8>, limit: usize) -> Result<(), TooLong> {
    write_value(value, out, limit)
}

/// The compact JSON of a value as a string value; charged as it is written.
pub(super) fn to_val(value: &Val) -> Val {
    let mut text = Vec::new();
    write_charged(value, &mut text);
    Val::str(&String::from_utf8_lossy(&text))
}

fn write_charged(value: &Val, out: &mut Vec<u8>) {
    // Written in slices of a limit that doubles, so that fuel runs out long before memory does.
    let mut limit = 4096;
    loop {
        // Writing costs about four times what copying does.
        meter::charge_bytes(limit * 4);
        out.clear();
        if write_value(value, out, limit).is_ok() {
            return;
        }
        limit *= 2;
    }
}

/// Appends `text` as the inside of a JSON string (no quotes around it).
pub(crate) fn write_escaped(text: &str, out: &mut Vec<u8>, limit: usize) -> Result<(), TooLong> {
    let mut rest = text.as_bytes();
    while let Some(at) = rest.iter().position(|byte| needs_escape(*byte)) {
        let (plain, tail) = rest.split_at(at);
        push(plain, out, limit)?;
        let Some((byte, tail)) = tail.split_first() else { break };
        push_escape(*byte, out, limit)?;
        rest = tail;
    }
    push(rest, out, limit)
}

const fn needs_escape(byte: u8) -> bool {
    byte < 0x20 || byte == b'"' || byte == b'\\'
}

fn push_escape(byte: u8, out: &mut Vec<u8>, limit: usize) -> Result<(), TooLong> {
    match byte {
        b'"' => push(b"\\\"", out, limit),
        b'\\' => push(b"\\\\", out, limit),
        b'\n' => push(b"\\n", out, limit),
        b'\r' => push(b"\\r", out, limit),
        b'\t' => push(b"\\t", out, limit),
        control => push(format!("\\u{control:04x}").as_bytes(), out, limit),
    }
}

fn push(bytes: &[u8], out: &mut Vec<u8>, limit: usize) -> Result<(), TooLong> {
    if out.len() + bytes.len() > limit {
        return Err(TooLong);
    }
    out.extend_from_slice(bytes);
    Ok(())
}

fn write_value(value: &Val, out: &mut Vec<u8>, limit: usize) -> Result<(), TooLong> {
    match value {
        Val::Null => push(b"null", out, limit),
        Val::Bool(true) => push(b"true", out, limit),
        Val::Bool(false) => push(b"false", out, limit),
        Val::Int(int) => push(int.to_string().as_bytes(), out, limit),
        Val::Float(float) => push(float_text(*float).as_bytes(), out, limit),
        Val::Str(text) => write_string(text, out, limit),
        Val::Arr(arr) => {
            push(b"[", out, limit)?;
            for (at, value) in arr.values.iter().enumerate() {
                if at > 0 {
                    push(b",", out, limit)?;
                }
                write_value(value, out, limit)?;
            }
            push(b"]", out, limit)
        }
        Val::Obj(obj) => {
            push(b"{", out, limit)?;
            for (at, (key, value)) in obj.members.iter().enumerate() {
                if at > 0 {
                    push(b",", out, limit)?;
                }
                write_string(key, out, limit)?;
                push(b":", out, limit)?;
                write_value(value, out, limit)?;
            }
            push(b"}", out, limit)
        }
    }
}

fn write_string(text: &str, out: &mut Vec<u8>, limit: usize) -> Result<(), TooLong> {
    push(b"\"", out, limit)?;
    write_escaped(text, out, limit)?;
    push(b"\"", out, limit)
}

/// JSON has no infinities and no NaN: they become the largest number and null, as in jq.
fn float_text(float: f64) -> String {
    if float.is_nan() {
        return "null".to_owned();
    }
    let finite = float.clamp(f64::MIN, f64::MAX);
    serde_json::Number::from_f64(finite).map_or_else(|| "null".to_owned(), |number| number.to_string())
}

impl<'de> Deserialize<'de> for Val {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Values;
        impl<'de> Visitor<'de> for Values {
            type Value = Val;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("JSON")
            }
            fn visit_unit<E>(self) -> Result<Val, E> {
                Ok(Val::Null)
            }
            fn visit_bool<E>(self, value: bool) -> Result<Val, E> {
                Ok(Val::Bool(value))
            }
            fn visit_i64<E>(self, value: i64) -> Result<Val, E> {
                Ok(Val::Int(value))
            }
            fn visit_u64<E>(self, value: u64) -> Result<Val, E> {
                Ok(i64::try_from(value).map_or(Val::Float(value as f64), Val::Int))
            }
            fn visit_f64<E>(self, value: f64) -> Result<Val, E> {
                Ok(Val::float(value))
            }
            fn visit_str<E>(self, value: &str) -> Result<Val, E> {
                Ok(Val::str(value))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Val, A::Error> {
                let mut values = Vec::new();
                while let Some(value) = access.next_element()? {
                    values.push(value);
                }
                Ok(Val::arr(values))
            }
            fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Val, A::Error> {
                let mut members = Members::new();
                while let Some((key, value)) = access.next_entry::<String, Val>()? {
                    members.insert(Rc::from(key), value);
                }
                Ok(Val::obj(members))
            }
        }
        deserializer.deserialize_any(Values)
    }
}
