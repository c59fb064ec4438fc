//! The chunked transfer coding (RFC 9112 §7.1), read strictly: lenient readings of line ends are how requests are smuggled.

use super::reader::{Fault, append};

/// The most bytes of extensions and trailers, which are read and dropped.
const MAX_DROPPED_BYTES: usize = 16 * 1024;

/// The most digits of a chunk's size.
const MAX_DIGITS: u8 = 16;

/// What comes next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Expect {
    /// Hexadecimal digits of the next chunk's size.
    Size,
    /// The end of the line with the size, after a blank.
    Blank,
    Extension,
    /// The LF of the line with the size.
    SizeEnd,
    Data,
    DataCr,
    DataLf,
    /// A trailer, or the CR of the empty line that ends the body.
    TrailerOrEnd,
    Trailer,
    TrailerLf,
    EndLf,
    Nothing,
}

/// Reads one chunked body, however its bytes are split.
#[derive(Debug)]
pub(crate) struct Chunked {
    expect: Expect,
    /// What is left of the chunk.
    left: u64,
    digits: u8,
    dropped: usize,
}

impl Chunked {
    pub(crate) const fn new() -> Self {
        Self { expect: Expect::Size, left: 0, digits: 0, dropped: 0 }
    }

    pub(crate) fn is_done(&self) -> bool {
        self.expect == Expect::Nothing
    }

    /// Adds the decoded bytes to the body; gives how many bytes were used, which is all of them unless the body ended.
    ///
    /// # Errors
    /// The bytes are not chunked, or the body is larger than `limit`.
    pub(crate) fn decode(&mut self, bytes: &[u8], body: &mut Vec<u8>, limit: usize) -> Result<usize, Fault> {
        let mut rest = bytes;
        while let Some((&byte, after)) = rest.split_first() {
            match self.expect {
                Expect::Nothing => break,
                Expect::Data => {
                    let count = usize::try_from(self.left).unwrap_or(usize::MAX).min(rest.len());
                    let (data, after) = rest.split_at(count);
                    append(body, data, limit)?;
                    self.left -= count as u64;
                    if self.left == 0 {
                        self.expect = Expect::DataCr;
                    }
                    rest = after;
                }
                Expect::Size
                | Expect::Blank
                | Expect::Extension
                | Expect::SizeEnd
                | Expect::DataCr
                | Expect::DataLf
                | Expect::TrailerOrEnd
                | Expect::Trailer
                | Expect::TrailerLf
                | Expect::EndLf => {
                    self.step(byte)?;
                    if self.expect == Expect::Data && self.left > (limit - body.len()) as u64 {
                        return Err(Fault::TooLarge);
                    }
                    rest = after;
                }
            }
        }
        Ok(bytes.len() - rest.len())
    }

    /// Takes one byte that is not data.
    fn step(&mut self, byte: u8) -> Result<(), Fault> {
        self.expect = match (self.expect, byte) {
            (Expect::Size, _) if byte.is_ascii_hexdigit() => return self.digit(byte),
            (Expect::Size, b'\r') if self.digits > 0 => Expect::SizeEnd,
            (Expect::Size, b' ' | b'\t' | b';') if self.digits > 0 => self.drop_into(blank(byte))?,
            (Expect::Blank, b'\r') | (Expect::Extension, b'\r') => Expect::SizeEnd,
            (Expect::Blank, b' ' | b'\t' | b';') => self.drop_into(blank(byte))?,
            (Expect::Extension, _) if is_text(byte) => self.drop_into(Expect::Extension)?,
            (Expect::SizeEnd, b'\n') => {
                self.digits = 0;
                if self.left == 0 { Expect::TrailerOrEnd } else { Expect::Data }
            }
            (Expect::DataCr, b'\r') => Expect::DataLf,
            (Expect::DataLf, b'\n') => Expect::Size,
            (Expect::TrailerOrEnd, b'\r') => Expect::EndLf,
            (Expect::Trailer, b'\r') => Expect::TrailerLf,
            (Expect::TrailerOrEnd | Expect::Trailer, _) if is_text(byte) => {
                self.drop_into(Expect::Trailer)?
            }
            (Expect::TrailerLf, b'\n') => Expect::TrailerOrEnd,
            (Expect::EndLf, b'\n') => Expect::Nothing,
            _ => return Err(Fault::malformed("its chunked body is malformed")),
        };
        Ok(())
    }

    fn digit(&mut self, byte: u8) -> Result<(), Fault> {
        if self.digits == MAX_DIGITS {
            return Err(Fault::malformed("the size of a chunk has too many digits"));
        }
        self.digits += 1;
        let digit = char::from(byte).to_digit(16).unwrap_or_default();
        self.left = (self.left << 4) | u64::from(digit);
        Ok(())
    }

    fn drop_into(&mut self, next: Expect) -> Result<Expect, Fault> {
        self.dropped += 1;
        if self.dropped > MAX_DROPPED_BYTES {
            return Err(Fault::malformed(format!(
                "its chunk extensions and trailers exceed {MAX_DROPPED_BYTES} bytes"
            )));
        }
        Ok(next)
    }
}

const fn blank(byte: u8) -> Expect {
    if byte == b';' { Expect::Extension } else { Expect::Blank }
}

/// What may stand in an extension or a trailer: no control character but the tab.
const fn is_text(byte: u8) -> bool {
    byte == b'\t' || (byte >= b' ' && byte != 0x7f)
}
