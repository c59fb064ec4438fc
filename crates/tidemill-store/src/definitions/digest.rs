//! The digest that stands beside a stored definition, and what it means when the two do not fit.

use std::fmt;

use super::Published;

/// A stored definition that is not the one that was published: it is reported, and never executed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "workflow {workflow}@{version} is damaged in redis: {damage}; it is not executed. Publish its original text again (`tidemill workflow publish FILE`, with `version: {version}` in it) to mend it, or archive it and publish a new version"
)]
pub struct Damaged {
    /// The workflow's name.
    pub workflow: String,
    /// Its version.
    pub version: u32,
    /// What does not fit.
    pub damage: Damage,
}

/// What does not fit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Damage {
    /// The stored text has another digest.
    Text {
        /// The SHA-256 of the text that was published, in hex.
        published: String,
        /// That of what is stored.
        stored: String,
        /// How long that is.
        bytes: usize,
    },
    /// There is no text.
    NoText,
    /// There is no digest to compare with.
    NoDigest,
    /// Its state is not one that Tidemill writes.
    State(String),
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text { published, stored, bytes } => {
                write!(f, "its {bytes} bytes have the SHA-256 {stored}, and {published} was published")
            }
            Self::NoText => f.write_str("its text is missing"),
            Self::NoDigest => f.write_str("no digest stands beside its text"),
            Self::State(word) => write!(f, "its state reads {word:?}"),
        }
    }
}

/// The SHA-256 of a text, in hex.
pub(super) fn digest_of(text: &[u8]) -> String {
    let digest = ring::digest::digest(&ring::digest::SHA256, text);
    digest.as_ref().iter().fold(String::with_capacity(64), |mut hex, byte| {
        use fmt::Write;
        // writing to a string does not fail
        write!(hex, "{byte:02x}").ok();
        hex
    })
}

/// The stored text, given that it is the one that was published.
pub(super) fn checked(
    workflow: &str,
    version: u32,
    text: Option<Vec<u8>>,
    digest: Option<String>,
) -> Result<Published, Damaged> {
    let damaged = |damage| Damaged { workflow: workflow.to_owned(), version, damage };
    let text = text.ok_or_else(|| damaged(Damage::NoText))?;
    let published = digest.ok_or_else(|| damaged(Damage::NoDigest))?;
    let stored = digest_of(&text);
    let bytes = text.len();
    match String::from_utf8(text) {
        Ok(source) if stored == published => Ok(Published { name: workflow.to_owned(), version, source }),
        _ => Err(damaged(Damage::Text { published, stored, bytes })),
    }
}

#[cfg(test)]
mod tests {
    use super::{Damage, checked, digest_of};

    #[test]
    fn the_digest_is_that_of_sha256sum() {
        assert_eq!(digest_of(b"abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    }

    #[test]
    fn any_flipped_bit_and_any_truncation_is_seen() {
        let text = b"name: flow\nsteps: [{ id: a, tool: echo }]\n".to_vec();
        let digest = Some(digest_of(&text));
        assert_eq!(checked("flow", 1, Some(text.clone()), digest.clone()).unwrap().source.as_bytes(), text);
        for bit in 0..text.len() * 8 {
            let mut flipped = text.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            let damaged = checked("flow", 1, Some(flipped), digest.clone()).unwrap_err();
            assert!(matches!(damaged.damage, Damage::Text { .. }), "bit {bit}");
        }
        for length in 0..text.len() {
            assert!(
                checked("flow", 1, Some(text[..length].to_vec()), digest.clone()).is_err(),
                "{length} bytes"
            );
        }
        assert_eq!(checked("flow", 1, None, digest).unwrap_err().damage, Damage::NoText);
        assert_eq!(checked("flow", 1, Some(text), None).unwrap_err().damage, Damage::NoDigest);
    }
}
