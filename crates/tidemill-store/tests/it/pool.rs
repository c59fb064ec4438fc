//! A partition of some server, and short ways to do what engines do.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tidemill_protocol::EntryId;
use tidemill_store::{ClaimedEntry, Claimer, Error, Keys, Partition, Settings, Store, keys};
use tidemill_testkit::wait_for;

use crate::place::Place;

/// How long anything may take that is waited for.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// What one test works with: a namespace of its own, and in it the partition that the test's name falls into.
pub(crate) struct Pool {
    pub(crate) place: Arc<Place>,
    pub(crate) store: Store,
    partition: u32,
    gate: Option<Arc<tokio::sync::Barrier>>,
    interrupted: AtomicBool,
}

impl Pool {
    /// On a Redis of its own, with one partition.
    pub(crate) async fn start() -> Self {
        Self::on(Arc::new(Place::redis().await), "tm", 1).await
    }

    /// On a server that others may share, in a namespace of its own.
    pub(crate) async fn on(place: Arc<Place>, namespace: &str, partitions: u32) -> Self {
        Self::with(&Settings { url: place.url(), ..Settings::default() }, place, namespace, partitions).await
    }

    pub(crate) async fn with(
        settings: &Settings,
        place: Arc<Place>,
        namespace: &str,
        partitions: u32,
    ) -> Self {
        let store = Store::new(settings, namespace, partitions).unwrap();
        store.check().await.unwrap();
        let partition = tidemill_protocol::partition_of(namespace, partitions);
        Self { place, store, partition, gate: None, interrupted: AtomicBool::new(false) }
    }

    /// Meets the others of `gate` at the interruption.
    pub(crate) fn meeting(mut self, gate: Arc<tokio::sync::Barrier>) -> Self {
        self.gate = Some(gate);
        self
    }

    pub(crate) fn home(&self) -> &Partition {
        &self.store.partitions()[self.partition as usize]
    }

    pub(crate) fn keys(&self) -> &Keys {
        self.home().keys()
    }

    /// The stream of the queue that most tests use.
    pub(crate) fn jobs(&self) -> String {
        self.keys().jobs("default")
    }

    /// A stream that replies may go to, on any kind of server.
    pub(crate) fn replies(&self) -> String {
        format!("{}reply:a", self.keys().prefix())
    }

    pub(crate) fn worker(&self, consumer: &str) -> Claimer {
        self.store.claimer(self.partition, keys::WORKERS, consumer, Duration::from_secs(2)).unwrap()
    }

    pub(crate) fn scheduler(&self, consumer: &str) -> Claimer {
        self.store.claimer(self.partition, keys::SCHEDULERS, consumer, Duration::from_secs(2)).unwrap()
    }

    /// Adds an entry the way a foreign client does.
    pub(crate) async fn xadd(&self, key: &str, fields: &[&str]) -> EntryId {
        let mut words = vec!["XADD", key, "*"];
        words.extend_from_slice(fields);
        EntryId::parse(self.cli(&words).await).unwrap()
    }

    pub(crate) async fn cli(&self, words: &[&str]) -> String {
        self.place.cli(words).await.trim().to_owned()
    }

    pub(crate) async fn length(&self, stream: &str) -> String {
        self.cli(&["XLEN", stream]).await
    }

    /// What the server's kind has for the middle of a test: under Sentinel a failover, elsewhere nothing. All that was written
    /// must still be there.
    pub(crate) async fn interruption(&self) {
        let Some(gate) = &self.gate else { return };
        if self.interrupted.swap(true, Ordering::SeqCst) {
            return;
        }
        if gate.wait().await.is_leader() {
            self.place.fail_over().await;
        }
        gate.wait().await;
        let answer = async || self.home().now_ms().await.map_err(|error| error.to_string());
        wait_for(PATIENCE, "an answer after the interruption", answer).await.unwrap();
    }

    /// Waits until Redis's clock has passed this time.
    pub(crate) async fn passes(&self, at_ms: u64) {
        let past = async || match self.home().now_ms().await {
            Ok(now) if now >= at_ms => Ok(()),
            other => Err(format!("{other:?}")),
        };
        wait_for(PATIENCE, "the time", past).await.unwrap();
    }

    /// Waits until something of a queue is due and names it.
    pub(crate) async fn becomes_due(&self, queue: &str) -> Vec<String> {
        let due = async || {
            let now = self.home().now_ms().await.map_err(|error| error.to_string())?;
            let due = self.home().due(queue, now, 100).await.map_err(|error| error.to_string())?;
            if due.is_empty() { Err("nothing".to_owned()) } else { Ok(due) }
        };
        wait_for(PATIENCE, "work to be due", due).await.unwrap()
    }
}

/// Claims from one queue until `count` entries came; a connection may break on the way.
pub(crate) async fn claim(claimer: &mut Claimer, queue: &str, count: usize) -> Vec<ClaimedEntry> {
    let (mut all, mut faults) = (Vec::new(), 0);
    while all.len() < count {
        let step = async {
            claimer.create_groups(std::iter::once(queue)).await?;
            claimer.claim(&[(queue, count - all.len())], true).await
        };
        match step.await {
            Ok(more) => {
                assert!(!more.is_empty(), "only {} of {count} entries came", all.len());
                all.extend(more.into_iter().flat_map(|(_, entries)| entries));
            }
            Err(error) => {
                faults += 1;
                assert!(error.is_transient() && faults < 100, "{error}");
            }
        }
    }
    all
}

/// Claims what is there without waiting.
pub(crate) async fn claim_now(
    claimer: &mut Claimer,
    queue: &str,
    count: usize,
) -> Result<Vec<ClaimedEntry>, Error> {
    claimer.create_groups(std::iter::once(queue)).await?;
    let more = claimer.claim(&[(queue, count)], false).await?;
    Ok(more.into_iter().flat_map(|(_, entries)| entries).collect())
}

/// A field of a claimed entry.
pub(crate) fn field(entry: &ClaimedEntry, name: &str) -> Option<String> {
    // a part of a run says which in one field: run, workflow, step, item
    let word = ["run", "wf", "step", "item"].iter().position(|word| *word == name);
    let stored = if word.is_some() { "run" } else { name };
    let found = entry.fields.iter().find(|(field, _)| &**field == stored.as_bytes());
    let text = found.map(|(_, value)| String::from_utf8_lossy(value).into_owned())?;
    word.map_or_else(|| Some(text.clone()), |word| text.split(' ').nth(word).map(str::to_owned))
}
