//! What the bytes of a cached value mean: a letter, a checksum of what was written, the length of what was compressed, the data.
//!
//! | letter | data |
//! |---|---|
//! | `j`, `m` | an output as JSON or `MessagePack` |
//! | `J`, `M` | the same, compressed; before it stands its length, four bytes, the highest first |
//! | `e` | a failure as JSON: `{"class","code","message"}` |
//!
//! Nothing that Redis gives back is believed: bytes that somebody else wrote, or that were cut, are no answer but a miss.

use bytes::{BufMut, Bytes, BytesMut};
use serde::{Deserialize, Serialize};
use tidemill_protocol::{Encoding, ErrorBody, ErrorClass, Payload};

/// What is longer is compressed.
const COMPRESSED_ABOVE: usize = 1024;
/// Of zstd's levels the quickest: it halves JSON at several hundred megabytes a second.
const LEVEL: i32 = 1;
/// No output is longer; a length beyond it is nonsense.
const LONGEST: usize = 64 * 1024 * 1024;
/// Letter and checksum.
const HEAD: usize = 5;

/// An answer as it is cached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cached {
    /// What the tool gave.
    Output(Payload),
    /// Why it failed, where trying again cannot help.
    Failure(ErrorClass, ErrorBody),
}

/// The bytes are not those of a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the cached bytes are not those of a value")]
pub struct Unreadable;

#[derive(Serialize, Deserialize)]
struct Failed {
    class: ErrorClass,
    code: String,
    message: String,
}

impl Cached {
    /// The bytes to store.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        match self {
            Self::Output(payload) => {
                let plain = match payload.encoding() {
                    Encoding::Json => b'j',
                    Encoding::MsgPack => b'm',
                };
                compressed(plain, payload.bytes()).unwrap_or_else(|| framed(plain, payload.bytes()))
            }
            Self::Failure(class, ErrorBody { code, message }) => {
                let failed = Failed { class: *class, code: code.clone(), message: message.clone() };
                // three texts always have a JSON form
                framed(b'e', &serde_json::to_vec(&failed).unwrap_or_default())
            }
        }
    }

    /// Reads what [`Self::encode`] wrote.
    ///
    /// # Errors
    /// Something else wrote it, or not all of it is there.
    pub fn decode(value: &Bytes) -> Result<Self, Unreadable> {
        let (Some(letter), Some(sum)) = (value.first(), value.get(1..HEAD)) else { return Err(Unreadable) };
        let data = match letter {
            b'J' | b'M' => decompressed(value.get(HEAD..).unwrap_or_default())?,
            _ => value.slice(HEAD..),
        };
        if crc32fast::hash(&data).to_be_bytes() != sum {
            return Err(Unreadable);
        }
        match letter {
            b'j' | b'J' => Ok(Self::Output(Payload::json(data))),
            b'm' | b'M' => Ok(Self::Output(Payload::encoded(Encoding::MsgPack, data))),
            b'e' => {
                let Failed { class, code, message } =
                    serde_json::from_slice(&data).map_err(|_| Unreadable)?;
                Ok(Self::Failure(class, ErrorBody { code, message }))
            }
            _ => Err(Unreadable),
        }
    }
}

fn framed(letter: u8, data: &[u8]) -> Bytes {
    let mut value = BytesMut::with_capacity(HEAD + data.len());
    value.put_u8(letter);
    value.put_u32(crc32fast::hash(data));
    value.put_slice(data);
    value.freeze()
}

/// `None` where it is short, or would not get shorter.
fn compressed(letter: u8, data: &[u8]) -> Option<Bytes> {
    if data.len() <= COMPRESSED_ABOVE || data.len() > LONGEST {
        return None;
    }
    let packed = zstd::bulk::compress(data, LEVEL).ok()?;
    if packed.len() + 4 >= data.len() {
        return None;
    }
    let mut value = BytesMut::with_capacity(HEAD + 4 + packed.len());
    value.put_u8(letter.to_ascii_uppercase());
    value.put_u32(crc32fast::hash(data));
    value.put_u32(u32::try_from(data.len()).ok()?);
    value.put_slice(&packed);
    Some(value.freeze())
}

fn decompressed(data: &[u8]) -> Result<Bytes, Unreadable> {
    let (length, packed) = data.split_first_chunk::<4>().ok_or(Unreadable)?;
    let length = u32::from_be_bytes(*length) as usize;
    if length > LONGEST {
        return Err(Unreadable);
    }
    let unpacked = zstd::bulk::decompress(packed, length).map_err(|_| Unreadable)?;
    Ok(Bytes::from(unpacked))
}

#[cfg(test)]
mod tests {
    use super::{Cached, Unreadable};
    use bytes::Bytes;
    use proptest::prelude::*;
    use tidemill_protocol::{Encoding, ErrorBody, ErrorClass, Payload};

    #[test]
    fn long_text_is_stored_short_and_comes_back_whole() {
        let text = format!("[{}0]", "{\"name\":\"tide\",\"mill\":true},".repeat(1000));
        let cached = Cached::Output(Payload::json(text.clone()));
        let value = cached.encode();
        assert!(value.len() * 10 < text.len(), "{} of {} bytes", value.len(), text.len());
        assert_eq!(Cached::decode(&value), Ok(cached));
    }

    #[test]
    fn a_value_that_was_cut_or_changed_is_no_answer() {
        let long = Cached::Output(Payload::json(format!("\"{}\"", "tide ".repeat(1000)))).encode();
        let short = Cached::Output(Payload::json("{\"a\":1}")).encode();
        let error = ErrorBody { code: "http_status".to_owned(), message: "404".to_owned() };
        let failure = Cached::Failure(ErrorClass::Client, error).encode();
        for value in [long, short, failure] {
            assert!(Cached::decode(&value).is_ok());
            for length in 0..value.len() {
                assert_eq!(Cached::decode(&value.slice(..length)), Err(Unreadable), "cut at {length}");
            }
            for at in 1..value.len() {
                let mut bytes = value.to_vec();
                bytes[at] ^= 1;
                let read = Cached::decode(&Bytes::from(bytes));
                assert!(read.is_err() || read == Cached::decode(&value), "changed at {at}");
            }
        }
    }

    proptest! {
        #[test]
        fn what_was_written_is_read(bytes in proptest::collection::vec(any::<u8>(), 0..5000), packed: bool, json: bool) {
            let bytes = if packed { bytes.repeat(20) } else { bytes };
            let encoding = if json { Encoding::Json } else { Encoding::MsgPack };
            let cached = Cached::Output(Payload::encoded(encoding, bytes));
            prop_assert_eq!(Cached::decode(&cached.encode()), Ok(cached));
        }

        #[test]
        fn no_bytes_make_reading_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200), letter in "[jJmMe]") {
            let bytes: Vec<u8> = letter.bytes().chain(bytes).collect();
            prop_assert!(Cached::decode(&Bytes::from(bytes)).is_err());
        }
    }
}
