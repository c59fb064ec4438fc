//! A server of the test's own, a store on it, and short ways to do what engines do.

use std::time::Duration;

use tidemill_protocol::EntryId;
use tidemill_store::{ClaimedEntry, Claimer, Partition, Settings, Store, keys};
use tidemill_testkit::RedisServer;

pub(crate) struct Pool {
    pub(crate) server: RedisServer,
    pub(crate) store: Store,
}

impl Pool {
    pub(crate) async fn start() -> Self {
        let server = RedisServer::start().await.unwrap();
        let settings = Settings { url: server.url(), ..Settings::default() };
        let store = Store::new(&settings, "tm", 1).unwrap();
        store.check().await.unwrap();
        Self { server, store }
    }

    pub(crate) fn home(&self) -> &Partition {
        self.store.home()
    }

    pub(crate) fn worker(&self, consumer: &str) -> Claimer {
        self.store.claimer(0, keys::WORKERS, consumer, Duration::from_secs(2)).unwrap()
    }

    pub(crate) fn scheduler(&self, consumer: &str) -> Claimer {
        self.store.claimer(0, keys::SCHEDULERS, consumer, Duration::from_secs(2)).unwrap()
    }

    /// Adds an entry the way a foreign client does.
    pub(crate) async fn xadd(&self, key: &str, fields: &[&str]) -> EntryId {
        let mut words = vec!["XADD", key, "*"];
        words.extend_from_slice(fields);
        EntryId::parse(self.cli(&words).await).unwrap()
    }

    pub(crate) async fn cli(&self, words: &[&str]) -> String {
        self.server.cli(words).await.unwrap().trim().to_owned()
    }
}

/// Claims from one queue until `count` entries came.
pub(crate) async fn claim(claimer: &mut Claimer, queue: &str, count: usize) -> Vec<ClaimedEntry> {
    claimer.create_groups(std::iter::once(queue)).await.unwrap();
    let mut all = Vec::new();
    while all.len() < count {
        let more = claimer.claim(&[(queue, count - all.len())], true).await.unwrap();
        assert!(!more.is_empty(), "only {} of {count} entries came", all.len());
        all.extend(more.into_iter().flat_map(|(_, entries)| entries));
    }
    all
}
