//! Names and ids, checked where they enter.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Why a name or an id is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what} {value:?} is not valid: {rule}")]
pub struct InvalidName {
    /// What kind of name it should be.
    pub what: &'static str,
    /// The offending text, shortened.
    pub value: String,
    /// What is allowed.
    pub rule: &'static str,
}

/// The longest id that a caller may give, in bytes.
pub const MAX_ID_BYTES: usize = 128;

fn check(
    what: &'static str,
    value: &str,
    max: usize,
    rule: &'static str,
    fits: fn(u8) -> bool,
) -> Result<(), InvalidName> {
    if !value.is_empty() && value.len() <= max && value.bytes().all(fits) {
        return Ok(());
    }
    Err(InvalidName { what, value: value.chars().take(80).collect(), rule })
}

/// Checks the id of a job or run: 1 to 128 of `A-Z a-z 0-9 . _ : @ / -`.
///
/// # Errors
/// The id is empty, too long, or has another character (ids stand in keys, logs and JSON without being escaped).
pub fn check_id(id: &str) -> Result<(), InvalidName> {
    check("id", id, MAX_ID_BYTES, "1 to 128 of A-Z a-z 0-9 . _ : @ / -", |b| {
        b.is_ascii_alphanumeric() || b"._:@/-".contains(&b)
    })
}

/// The longest id of a run that another asked for, in bytes.
pub const MAX_CHILD_ID_BYTES: usize = 1024;

/// Stands between the id of a run and that of what it asked for; no id that a caller gives has it.
pub const CHILD: char = '~';

/// Checks the id of something that exists: a caller's, or that of a run that another asked for.
///
/// # Errors
/// The id is empty, too long, or has a character that no id has.
pub fn check_any_id(id: &str) -> Result<(), InvalidName> {
    check("id", id, MAX_CHILD_ID_BYTES, "1 to 1024 of A-Z a-z 0-9 . _ : @ / - ~", |b| {
        b.is_ascii_alphanumeric() || b"._:@/-~".contains(&b)
    })
}

/// The run that began it all: of a run that another asked for, the first of them.
#[must_use]
pub fn root_of(id: &str) -> &str {
    id.split(CHILD).next().unwrap_or(id)
}

/// Checks a queue's name: 1 to 64 of `A-Z a-z 0-9 . _ -`.
///
/// # Errors
/// The name is empty, too long, or has another character.
pub fn check_queue(queue: &str) -> Result<(), InvalidName> {
    check("queue", queue, 64, "1 to 64 of A-Z a-z 0-9 . _ -", |b| {
        b.is_ascii_alphanumeric() || b"._-".contains(&b)
    })
}

/// Checks the name of a tool or workflow, with or without `@version`: 1 to 128 of `A-Z a-z 0-9 . _ - @ /`.
///
/// # Errors
/// The name is empty, too long, or has another character.
pub fn check_target(name: &str) -> Result<(), InvalidName> {
    check("tool or workflow name", name, 128, "1 to 128 of A-Z a-z 0-9 . _ - @ /", |b| {
        b.is_ascii_alphanumeric() || b"._-@/".contains(&b)
    })
}

/// Checks a tenant: 1 to 128 printable ASCII characters without spaces.
///
/// # Errors
/// The tenant is empty, too long, or has another character.
pub fn check_tenant(tenant: &str) -> Result<(), InvalidName> {
    check("tenant", tenant, 128, "1 to 128 printable ASCII characters, no space", |b| b.is_ascii_graphic())
}

/// Checks a user: 1 to 128 printable ASCII characters without spaces.
///
/// # Errors
/// The user is empty, too long, or has another character.
pub fn check_user(user: &str) -> Result<(), InvalidName> {
    check("user", user, 128, "1 to 128 printable ASCII characters, no space", |b| b.is_ascii_graphic())
}

/// Checks the name of a service: 1 to 64 of `A-Z a-z 0-9 . _ -`.
///
/// # Errors
/// The name is empty, too long, or has another character (names of tiers are made of it).
pub fn check_service(service: &str) -> Result<(), InvalidName> {
    check("service", service, 64, "1 to 64 of A-Z a-z 0-9 . _ -", |b| {
        b.is_ascii_alphanumeric() || b"._-".contains(&b)
    })
}

/// The id of a stream entry: `milliseconds-sequence` by Redis's clock. It is the fencing token of one claim.
#[derive(Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct EntryId(String);

impl EntryId {
    /// Takes over the text of an id.
    ///
    /// # Errors
    /// The text is not `digits-digits`.
    pub fn parse(text: String) -> Result<Self, InvalidName> {
        let fits = text.split_once('-').is_some_and(|(ms, seq)| {
            let digits =
                |part: &str| !part.is_empty() && part.len() <= 20 && part.bytes().all(|b| b.is_ascii_digit());
            digits(ms) && digits(seq)
        });
        if fits {
            return Ok(Self(text));
        }
        Err(InvalidName {
            what: "entry id",
            value: text.chars().take(80).collect(),
            rule: "milliseconds-sequence",
        })
    }

    /// The id before all that Redis makes.
    #[must_use]
    pub fn first() -> Self {
        Self("0-0".to_owned())
    }

    /// When Redis made the entry, in Unix milliseconds.
    #[must_use]
    pub fn ms(&self) -> u64 {
        self.0.split_once('-').and_then(|(ms, _)| ms.parse().ok()).unwrap_or(0)
    }

    /// Its number among the entries of its millisecond.
    #[must_use]
    pub fn seq(&self) -> u64 {
        self.0.split_once('-').and_then(|(_, seq)| seq.parse().ok()).unwrap_or(0)
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for EntryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for EntryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The partition that an id lives in: CRC-32 (IEEE) of its bytes modulo the number of partitions. A run that another asked for lives
/// where the first of them lives: only what stands before the first `~` counts.
#[must_use]
pub fn partition_of(id: &str, partitions: u32) -> u32 {
    if partitions <= 1 { 0 } else { crc32fast::hash(root_of(id).as_bytes()) % partitions }
}

#[cfg(test)]
mod tests {
    use super::{EntryId, check_id, check_queue, check_tenant, partition_of};

    #[test]
    fn what_a_run_asked_for_lives_where_it_lives() {
        for partitions in [1, 4, 7] {
            assert_eq!(partition_of("order-7~each.3~x.0", partitions), partition_of("order-7", partitions));
        }
        assert!(check_id("order-7~each.3").is_err() && super::check_any_id("order-7~each.3").is_ok());
    }

    #[test]
    fn ids_that_could_break_a_key_or_a_log_line_are_refused() {
        for bad in ["", "a b", "a\n", "{0}", "ä", "\"", "\\", &"x".repeat(129)] {
            assert!(check_id(bad).is_err(), "{bad:?}");
        }
        for good in ["order-42", "1732-0", "cron:nightly/2026", "a@b"] {
            assert!(check_id(good).is_ok(), "{good:?}");
        }
        assert!(check_queue("a:b").is_err());
        assert!(check_tenant("a b").is_err());
    }

    #[test]
    fn an_entry_id_knows_its_time() {
        assert_eq!(EntryId::parse("1732000000123-7".to_owned()).unwrap().ms(), 1_732_000_000_123);
        for bad in ["", "1", "1-", "-1", "a-1", "1-2-3"] {
            assert!(EntryId::parse(bad.to_owned()).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn the_partition_of_an_id_is_the_documented_one() {
        assert_eq!(partition_of("order-42", 1), 0);
        assert_eq!(partition_of("123456789", 8), 0xCBF4_3926 % 8);
    }
}
