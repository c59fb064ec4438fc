//! Checksums of stored texts (CRC-32, IEEE): a bit that was flipped, or an end that is missing, is found before the text is used.

/// Digits of a checksum, and the space before them.
const SEAL: usize = 9;

/// The checksum of a text.
#[must_use]
pub fn checksum(text: &[u8]) -> u32 {
    crc32fast::hash(text)
}

/// The text with its checksum behind it: a space and eight hexadecimal digits.
#[must_use]
pub fn seal(text: &[u8]) -> Vec<u8> {
    let mut sealed = Vec::with_capacity(text.len() + SEAL);
    sealed.extend_from_slice(text);
    sealed.extend_from_slice(format!(" {:08x}", checksum(text)).as_bytes());
    sealed
}

/// The text of what [`seal`] made; `None` where it is not what was sealed.
#[must_use]
pub fn unseal(sealed: &[u8]) -> Option<&[u8]> {
    let (text, seal) = sealed.split_at_checked(sealed.len().checked_sub(SEAL)?)?;
    let digits = std::str::from_utf8(seal.strip_prefix(b" ")?).ok()?;
    (u32::from_str_radix(digits, 16).ok()? == checksum(text)).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::{seal, unseal};

    #[test]
    fn what_was_sealed_is_told_from_everything_near_it() {
        for text in [&b""[..], b"{}", b"{\"a\":[1,2,3],\"b\":\"\xc3\xa4 0000 00000000\"}"] {
            let sealed = seal(text);
            assert_eq!(unseal(&sealed), Some(text));
            for cut in 0..sealed.len() {
                assert_eq!(unseal(&sealed[..cut]), None, "cut to {cut}");
            }
            for bit in 0..sealed.len() * 8 {
                let mut flipped = sealed.clone();
                flipped[bit / 8] ^= 1 << (bit % 8);
                // a digit may change its case: it is the same number
                assert!(unseal(&flipped).is_none_or(|read| read == text), "bit {bit}");
            }
        }
    }
}
