//! The cache of one service's answers, over the whole pool.
//!
//! Everything about it lives under the tag `{cache.<service>}`, so one call looks many calls up and one call stores many answers,
//! and a cluster carries each service's cache on one node of its own. Redis sees digests and bytes; what the bytes are is said
//! in [`Cached`]. Two bounds hold at any time, for entries and for bytes: what has no room makes some first, or is not stored.
//!
//! Of all workers that miss one call at once, one gets the right to fill it. That right is a lease: its holder renews it while
//! it works, gives it up when the call came to nothing, and loses it by dying.

mod keys;
mod value;

use std::time::Duration;

use bytes::Bytes;

pub use keys::CacheKeys;
pub use value::{Cached, Unreadable};

use crate::{Error, Link, Store};

/// The most look-ups, renewals or fills that one call carries.
pub const MAX_PER_CALL: usize = 200;

/// What tells calls apart: 32 bytes that stand for the service's tool and its input.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Digest(pub [u8; 32]);

/// What leaves first when the cache is full.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Order {
    /// What was not used for longest.
    #[default]
    Lru,
    /// What was used least; each use counts half as much after an hour.
    Lfu,
}

impl Order {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Lru => "lru",
            Self::Lfu => "lfu",
        }
    }
}

/// How a call is looked up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// A fresh answer, or the right to fill.
    Fresh,
    /// The right to fill, whatever is stored: what is stored could not be read.
    Distrust,
    /// Whatever is kept, however stale, without filling: for a fallback.
    Kept,
}

impl Mode {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Fresh => "fresh",
            Self::Distrust => "distrust",
            Self::Kept => "kept",
        }
    }
}

/// One call of [`ServiceCache::get`].
#[derive(Debug, Clone)]
pub struct Asking<'a> {
    /// Who asks: unique per process. It may fill anew what it was given to fill before.
    pub filler: &'a str,
    /// How long a right to fill holds unless it is renewed. The same for all of a pool.
    pub lease: Duration,
    /// What a use means for the order of eviction.
    pub order: Order,
    /// What the asker fills and goes on filling; at most [`MAX_PER_CALL`].
    pub renew: &'a [Digest],
    /// What it looks up; at most [`MAX_PER_CALL`].
    pub looks: &'a [(Digest, Mode)],
}

/// What one look-up found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// A fresh answer, as [`Cached::decode`] reads it, and for how long it is.
    Hit(Bytes, Duration),
    /// An answer that is kept for fallback, and for how long it has been stale.
    Stale(Bytes, Duration),
    /// Nothing; the asker has the right to fill it.
    Fill,
    /// Nothing; somebody else fills it, and loses that right after this time at the latest.
    Wait(Duration),
    /// Nothing, and no right to fill was asked for.
    Nothing,
    /// The reply was full: ask again.
    Again,
}

/// Between two clearings of a cache. A value goes back to Redis with the era in which it was asked for; in another one it is
/// refused, so that clearing also holds for calls that are under way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Era(pub(crate) String);

/// The answer to an [`Asking`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answers {
    /// The era of now.
    pub era: Era,
    /// One for each look-up, in order.
    pub found: Vec<Found>,
}

/// What bounds a cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// The most values.
    pub max_entries: u64,
    /// The most bytes, counted with what Redis needs beside each value (400 bytes).
    pub max_bytes: u64,
    /// What leaves first.
    pub order: Order,
}

/// A value to store.
#[derive(Debug, Clone)]
pub struct Put {
    /// The call that it answers.
    pub digest: Digest,
    /// The era in which the call was looked up.
    pub era: Era,
    /// How long it is fresh.
    pub ttl: Duration,
    /// How long beyond that it is kept for fallback.
    pub stale: Duration,
    /// As [`Cached::encode`] writes it.
    pub value: Bytes,
}

/// What became of a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stored {
    /// It is stored.
    Yes,
    /// It is larger than the cache, or too much would have to go for it at once.
    NoRoom,
    /// The cache was cleared since the call was looked up.
    Outdated,
}

/// How full a cache is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Fullness {
    /// Values.
    pub entries: u64,
    /// Their bytes, counted as in [`Bounds`].
    pub bytes: u64,
}

/// The answer to storing values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PutReply {
    /// How full the cache is now.
    pub fullness: Fullness,
    /// How many values had to go for these.
    pub evicted: u64,
    /// What became of each.
    pub stored: Vec<Stored>,
}

/// The cache of one service.
#[derive(Debug, Clone)]
pub struct ServiceCache {
    link: Link,
    keys: CacheKeys,
}

impl Store {
    /// The cache of a service.
    ///
    /// # Errors
    /// The service's name cannot stand in a key.
    pub fn cache(&self, service: &str) -> Result<ServiceCache, Error> {
        let prefix = self.home().keys().prefix();
        let namespace = prefix.split_once(":{").map_or(prefix, |(namespace, _)| namespace);
        Ok(ServiceCache { link: self.link().clone(), keys: CacheKeys::new(namespace, service)? })
    }
}

impl ServiceCache {
    /// Its keys.
    #[must_use]
    pub const fn keys(&self) -> &CacheKeys {
        &self.keys
    }

    pub(crate) const fn link(&self) -> &Link {
        &self.link
    }
}
