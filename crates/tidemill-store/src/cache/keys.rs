//! Every key of one service's cache. `docs/redis-keys.md` says the same in prose; a test compares the two.

use crate::Error;

/// The longest name of a service in a key.
const MAX_NAME_BYTES: usize = 128;

/// The keys of one service's cache: `<namespace>:{cache.<service>}:…`, all in one slot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CacheKeys {
    prefix: String,
}

impl CacheKeys {
    /// The keys of a service's cache.
    ///
    /// # Errors
    /// The name is empty, longer than 128 bytes, or has other bytes than `A-Z a-z 0-9 . _ @ + -`.
    pub fn new(namespace: &str, service: &str) -> Result<Self, Error> {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._@+-".contains(&byte);
        if service.is_empty() || service.len() > MAX_NAME_BYTES || !service.bytes().all(plain) {
            return Err(Error::Settings(format!(
                "service {service:?} cannot have a cache: its name must be 1 to {MAX_NAME_BYTES} of A-Z a-z 0-9 . _ @ + -"
            )));
        }
        Ok(Self { prefix: format!("{namespace}:{{cache.{service}}}:") })
    }

    /// What every key of the cache begins with.
    #[must_use]
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    fn key(&self, name: &str) -> String {
        [&self.prefix, name].concat()
    }

    /// Hash: the values, by the digest of their call. Expires when the last value does.
    #[must_use]
    pub fn values(&self) -> String {
        self.key("values")
    }

    /// Sorted set: the digests in the order of eviction. Expires with the values.
    #[must_use]
    pub fn order(&self) -> String {
        self.key("order")
    }

    /// Sorted set: the digests, by the time until when they are kept. Expires with the values.
    #[must_use]
    pub fn expiry(&self) -> String {
        self.key("expiry")
    }

    /// Hash: the bytes of all values, and the era. Expires a day after the last change, or with the values.
    #[must_use]
    pub fn totals(&self) -> String {
        self.key("totals")
    }

    /// Sorted set: the digests that are being filled, by the end of the filler's lease. Expires after the last of them.
    #[must_use]
    pub fn fills(&self) -> String {
        self.key("fills")
    }

    /// Hash: who fills, by digest. Expires with the fills.
    #[must_use]
    pub fn fillers(&self) -> String {
        self.key("fillers")
    }
}

#[cfg(test)]
mod tests {
    use super::CacheKeys;

    #[test]
    fn a_name_that_would_move_keys_to_another_slot_is_refused() {
        assert_eq!(CacheKeys::new("tm", "open.ai").unwrap().values(), "tm:{cache.open.ai}:values");
        for name in ["", "a}b", "a{b", "a b", "ä", &"a".repeat(129)] {
            let told = CacheKeys::new("tm", name).unwrap_err().to_string();
            assert!(told.contains("cannot have a cache"), "{told}");
        }
    }
}
