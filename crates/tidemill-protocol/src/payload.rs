//! The bytes of an input or an output, carried without being parsed.
//!
//! A payload is copied once, when it leaves the socket buffer; everything after that shares the bytes.

use bytes::Bytes;
use serde::Deserialize;
use serde::de::{DeserializeOwned, IgnoredAny};

/// How the bytes of a [`Payload`] are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash)]
pub enum Encoding {
    /// UTF-8 JSON text; the default of the wire contract.
    #[default]
    Json,
    /// `MessagePack`, announced by `enc=msgpack`.
    MsgPack,
}

/// The input of a job or the output of a tool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Payload {
    encoding: Encoding,
    bytes: Bytes,
}

/// Why a payload could not be read.
#[derive(Debug, thiserror::Error)]
pub enum PayloadError {
    /// The text is not JSON of the wanted shape.
    #[error("the payload is not the expected JSON: {0}")]
    Json(#[from] serde_json::Error),
    /// JSON must be UTF-8.
    #[error("the payload is not the expected JSON: {0}")]
    Utf8(#[from] std::str::Utf8Error),
    /// Something follows the value.
    #[error("the payload is not one MessagePack value: it ends after {read} of {bytes} bytes")]
    Trailing {
        /// Length of the first value.
        read: u64,
        /// Length in all.
        bytes: usize,
    },
    /// The bytes are not `MessagePack` of the wanted shape.
    #[error("the payload is not the expected MessagePack: {0}")]
    MsgPackDecode(#[from] rmp_serde::decode::Error),
    /// It nests too deep.
    #[error("it nests more than {MAX_DEPTH} arrays and objects into each other")]
    TooDeep,
    /// The value cannot be written as `MessagePack`.
    #[error("the value cannot be written as MessagePack: {0}")]
    MsgPackEncode(#[from] rmp_serde::encode::Error),
}

/// How deep an input may nest: what reads it later, here or in another language, need not survive more.
const MAX_DEPTH: usize = 128;

/// How deep well-formed JSON nests. Text too short to be too deep is not looked at.
fn depth_of(json: &[u8]) -> usize {
    if json.len() <= 2 * MAX_DEPTH {
        return 0;
    }
    let (mut depth, mut deepest, mut in_string, mut escaped) = (0_usize, 0, false, false);
    for byte in json {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            b'[' | b'{' if !in_string => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b']' | b'}' if !in_string => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    deepest
}

impl Payload {
    /// JSON text that is already known to be well-formed.
    #[must_use]
    pub fn json(bytes: impl Into<Bytes>) -> Self {
        Self { encoding: Encoding::Json, bytes: bytes.into() }
    }

    /// Bytes in a stated encoding.
    #[must_use]
    pub fn encoded(encoding: Encoding, bytes: impl Into<Bytes>) -> Self {
        Self { encoding, bytes: bytes.into() }
    }

    /// The JSON object without members, the default input.
    #[must_use]
    pub const fn empty_object() -> Self {
        Self { encoding: Encoding::Json, bytes: Bytes::from_static(b"{}") }
    }

    /// The JSON `null`.
    #[must_use]
    pub const fn null() -> Self {
        Self { encoding: Encoding::Json, bytes: Bytes::from_static(b"null") }
    }

    /// Writes a value as JSON.
    ///
    /// # Errors
    /// The value has no JSON form (a map whose keys are not strings, say).
    pub fn from_value<T: serde::Serialize + ?Sized>(value: &T) -> Result<Self, PayloadError> {
        Ok(Self::json(serde_json::to_vec(value)?))
    }

    /// Reads the payload into a type, whatever its encoding.
    ///
    /// # Errors
    /// The bytes do not have the shape of `T`.
    pub fn parse<T: DeserializeOwned>(&self) -> Result<T, PayloadError> {
        match self.encoding {
            Encoding::Json => Ok(serde_json::from_slice(&self.bytes)?),
            Encoding::MsgPack => {
                let mut decoder = rmp_serde::Deserializer::from_read_ref(&self.bytes);
                decoder.set_max_depth(MAX_DEPTH);
                Ok(T::deserialize(&mut decoder)?)
            }
        }
    }

    /// Checks that the bytes are one value in their encoding, and nothing else. A scan without building anything is cheaper
    /// than one failed attempt.
    ///
    /// # Errors
    /// They are not.
    pub fn check(&self) -> Result<(), PayloadError> {
        match self.encoding {
            Encoding::Json => {
                // the scan looks at no byte inside a string
                let text = std::str::from_utf8(&self.bytes)?;
                serde_json::from_str::<IgnoredAny>(text)?;
                if depth_of(&self.bytes) > MAX_DEPTH {
                    return Err(PayloadError::TooDeep);
                }
            }
            Encoding::MsgPack => {
                let mut decoder = rmp_serde::Deserializer::new(std::io::Cursor::new(&self.bytes));
                decoder.set_max_depth(MAX_DEPTH);
                IgnoredAny::deserialize(&mut decoder)?;
                let read = decoder.position();
                if usize::try_from(read).ok() != Some(self.bytes.len()) {
                    return Err(PayloadError::Trailing { read, bytes: self.bytes.len() });
                }
            }
        }
        Ok(())
    }

    /// The same payload as JSON text; free when it already is.
    ///
    /// # Errors
    /// The `MessagePack` bytes are malformed or have no JSON form (raw binary, say).
    pub fn into_json(self) -> Result<Self, PayloadError> {
        match self.encoding {
            Encoding::Json => Ok(self),
            Encoding::MsgPack => Self::from_value(&self.parse::<serde_json::Value>()?),
        }
    }

    /// The encoding of [`Self::bytes`].
    #[must_use]
    pub const fn encoding(&self) -> Encoding {
        self.encoding
    }

    /// The bytes as they are.
    #[must_use]
    pub const fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// Gives the bytes away.
    #[must_use]
    pub fn into_bytes(self) -> Bytes {
        self.bytes
    }

    /// Length in bytes.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Whether there are no bytes at all (which is not valid JSON).
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::Payload;

    #[test]
    fn what_nests_too_deep_is_refused_and_brackets_in_strings_do_not_count() {
        let nested = |depth: usize| format!("{}1{}", "[".repeat(depth), "]".repeat(depth));
        assert!(Payload::json(nested(128)).check().is_ok());
        assert!(Payload::json(nested(129)).check().is_err());
        let text = format!("[\"{}\\\"{}\"]", "[".repeat(200), "{".repeat(200));
        assert!(Payload::json(text).check().is_ok());
    }
}
