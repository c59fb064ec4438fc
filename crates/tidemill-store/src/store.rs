//! Where Redis is, and one partition of it.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use redis::{Cmd, Value};
use tidemill_protocol::partition_of;

use crate::claims::Claimer;
use crate::exclusive::Exclusive;
use crate::{Error, Keys, Link, Settings};

/// The pool's Redis.
#[derive(Debug, Clone)]
pub struct Store {
    settings: Settings,
    link: Link,
    partitions: Arc<[Partition]>,
    /// All there are, also where `partitions` was narrowed.
    pool: Arc<[Partition]>,
}

/// One partition: its keys, and the connection to them.
#[derive(Debug, Clone)]
pub struct Partition {
    link: Link,
    keys: Arc<Keys>,
    namespace: Arc<str>,
    exclusive: Exclusive,
    index: u32,
}

/// What is known about the server.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
pub struct ServerFacts {
    /// `redis` or `valkey`.
    pub product: String,
    /// Its version.
    pub version: String,
    /// Changes with each start of the server.
    pub run_id: String,
    /// Bytes in use.
    pub used_memory_bytes: u64,
    /// The bound on them; 0 for none.
    pub max_memory_bytes: u64,
    /// What it does at the bound.
    pub eviction_policy: String,
    /// Whether an append-only file is kept.
    pub append_only: bool,
}

impl Store {
    /// A store for a namespace of so many partitions. Connects when first used.
    ///
    /// # Errors
    /// The settings are not valid.
    pub fn new(settings: &Settings, namespace: &str, partitions: u32) -> Result<Self, Error> {
        if namespace.is_empty()
            || !namespace.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
        {
            return Err(Error::Settings(format!(
                "namespace {namespace:?} is not valid: use A-Z a-z 0-9 . _ -"
            )));
        }
        if partitions == 0 || partitions > 1024 {
            return Err(Error::Settings(format!(
                "partitions is {partitions}; it must be between 1 and 1024"
            )));
        }
        let link = Link::new(settings)?;
        let exclusive = Exclusive::new(link.clone())?;
        let partition = |index| Partition {
            exclusive: exclusive.clone(),
            link: link.clone(),
            keys: Arc::new(Keys::new(namespace, index)),
            namespace: namespace.into(),
            index,
        };
        let partitions: Arc<[Partition]> = (0..partitions).map(partition).collect();
        Ok(Self { settings: settings.clone(), pool: Arc::clone(&partitions), partitions, link })
    }

    /// Connects now and checks that Tidemill may run on this server.
    ///
    /// # Errors
    /// Redis cannot be reached, is older than 7.0, evicts keys, or refuses the library.
    pub async fn check(&self) -> Result<ServerFacts, Error> {
        self.link.ready().await?;
        let facts = self.facts().await?;
        let major = facts.version.split('.').next().and_then(|major| major.parse::<u32>().ok()).unwrap_or(0);
        if major < 7 {
            return Err(Error::Unsuitable(format!(
                "version {} is too old: Redis 7.0 or Valkey 7.2 is needed",
                facts.version
            )));
        }
        if !facts.eviction_policy.is_empty() && facts.eviction_policy != "noeviction" {
            return Err(Error::Unsuitable(format!(
                "maxmemory-policy is {:?}: at its memory bound this server would delete jobs; set `maxmemory-policy noeviction`",
                facts.eviction_policy
            )));
        }
        Ok(facts)
    }

    /// What is known about the server (of a cluster: one of its primaries).
    ///
    /// # Errors
    /// Redis cannot be reached.
    pub async fn facts(&self) -> Result<ServerFacts, Error> {
        let mut info = Cmd::new();
        info.arg("INFO");
        let text = match self.link.raw("asking for INFO", &info).await? {
            Value::BulkString(text) => String::from_utf8_lossy(&text).into_owned(),
            Value::VerbatimString { text, .. } => text,
            Value::Map(nodes) => nodes
                .into_iter()
                .next()
                .map(|(_, info)| {
                    if let Value::BulkString(text) = info {
                        String::from_utf8_lossy(&text).into_owned()
                    } else {
                        String::new()
                    }
                })
                .unwrap_or_default(),
            _ => String::new(),
        };
        Ok(facts_of(&text))
    }

    /// How many partitions there are.
    #[must_use]
    pub fn partition_count(&self) -> u32 {
        u32::try_from(self.partitions.len()).unwrap_or(u32::MAX)
    }

    /// All partitions.
    #[must_use]
    pub fn partitions(&self) -> &[Partition] {
        &self.partitions
    }

    /// All partitions of the pool, also of a store that was narrowed.
    #[must_use]
    pub fn pool(&self) -> &[Partition] {
        &self.pool
    }

    /// The partition of an id.
    #[must_use]
    pub fn partition_of(&self, id: &str) -> &Partition {
        &self.partitions[partition_of(id, self.partition_count()) as usize]
    }

    /// The partition of a name among all of the pool, also of a store that was narrowed.
    #[must_use]
    pub fn pool_partition_of(&self, name: &str) -> &Partition {
        let count = u32::try_from(self.pool.len()).unwrap_or(u32::MAX);
        &self.pool[partition_of(name, count) as usize]
    }

    /// This store as if `partition` were its only one: for looking up ids that Redis made, which say nothing of their
    /// partition. What the whole pool shares (see [`Self::home`]) is not reached through it.
    #[must_use]
    pub fn narrowed_to(&self, partition: &Partition) -> Self {
        Self { partitions: [partition.clone()].into(), ..self.clone() }
    }

    /// The partition that holds what the whole pool shares (workflows, cron entries, tools).
    #[must_use]
    pub fn home(&self) -> &Partition {
        &self.partitions[0]
    }

    /// A claimer for one partition, with a connection of its own that blocks up to `block`.
    ///
    /// # Errors
    /// The settings are not valid.
    pub fn claimer(
        &self,
        partition: u32,
        group: &'static str,
        consumer: &str,
        block: Duration,
    ) -> Result<Claimer, Error> {
        let link = Link::blocking(&self.settings, block)?;
        let own = &self.partitions[partition as usize % self.partitions.len()];
        Ok(Claimer::new(link, own.keys.clone(), group, consumer, block))
    }

    /// The connection for ordinary commands.
    #[must_use]
    pub const fn link(&self) -> &Link {
        &self.link
    }

    /// What every key begins with.
    #[must_use]
    pub fn namespace(&self) -> &str {
        &self.partitions[0].namespace
    }

    /// The settings it was made with.
    #[must_use]
    pub const fn settings(&self) -> &Settings {
        &self.settings
    }
}

impl Partition {
    /// Its keys.
    #[must_use]
    pub fn keys(&self) -> &Keys {
        &self.keys
    }

    /// Its number.
    #[must_use]
    pub const fn index(&self) -> u32 {
        self.index
    }

    /// Its connection.
    #[must_use]
    pub const fn link(&self) -> &Link {
        &self.link
    }

    pub(crate) const fn exclusive(&self) -> &Exclusive {
        &self.exclusive
    }

    /// Whether a caller may have replies pushed onto this stream.
    #[must_use]
    pub fn may_reply_to(&self, stream: &str) -> bool {
        self.keys.may_reply_to(stream, &self.namespace, self.link.is_cluster())
    }
}

fn facts_of(info: &str) -> ServerFacts {
    let lines: HashMap<&str, &str> =
        info.lines().filter_map(|line| line.trim_end().split_once(':')).collect();
    let text = |name: &str| lines.get(name).copied().unwrap_or_default().to_owned();
    let number = |name: &str| lines.get(name).and_then(|value| value.parse().ok()).unwrap_or(0);
    let valkey = lines.contains_key("valkey_version");
    ServerFacts {
        product: if valkey { "valkey" } else { "redis" }.to_owned(),
        version: text(if valkey { "valkey_version" } else { "redis_version" }),
        run_id: text("run_id"),
        used_memory_bytes: number("used_memory"),
        max_memory_bytes: number("maxmemory"),
        eviction_policy: text("maxmemory_policy"),
        append_only: text("aof_enabled") == "1",
    }
}
