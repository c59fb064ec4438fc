//! Putting a backup back: into a namespace that has nothing, in which nobody works yet.
//!
//! What was in flight becomes work that is to be claimed, by new entries; who held it is forgotten. What was put aside keeps its due
//! time, what has ended the time that it had left. A live run's deadline moves by the time between the backup and now, in which
//! nobody could have worked on it.

mod jobs;
mod run;

use std::collections::{BTreeMap, HashMap};
use std::io::Read;

use redis::{Cmd, Pipeline, Value};
use serde::Serialize;
use tidemill_protocol::{partition_of, root_of};

use super::census::{self, Fate, Goes, Kind, Type};
use super::copy::{PAGE, SERVICES, Tag};
use super::error::BackupError;
use super::flight::is_made_by_redis;
use super::format::Reader;
use super::record::{Header, Pairs, Record, Text};
use crate::{Error, Partition, Store};

/// How a target must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// Nothing may be there.
    Empty,
    /// What is there is deleted first, unless somebody works there.
    Replaced,
}

/// What was put back.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Restored {
    /// Runs.
    pub runs: u64,
    /// Of them, those that have not ended, by partition.
    #[serde(skip)]
    pub live: Vec<(u32, String)>,
    /// How many have not ended.
    pub live_runs: u64,
    /// Steps and items that were in flight.
    pub in_flight: u64,
    /// Plain jobs and requested runs.
    pub jobs: u64,
    /// Jobs that the backup had twice, because they moved while it was made.
    pub repeated: u64,
    /// By kind of key, how many keys, rows or entries were put back.
    pub copied: BTreeMap<String, u64>,
}

/// Puts a backup back. It should have passed [`super::check`] before, which also tells whether it fits the number of partitions.
///
/// # Errors
/// The target is not as it must be (nothing was written then); or Redis is not reachable or refuses, or the backup cannot be read
/// (then a part was written: delete it, with [`Target::Replaced`], and begin anew).
pub async fn restore<R: Read>(store: &Store, input: R, target: Target) -> Result<Restored, BackupError> {
    let mut reader = Reader::new(input)?;
    make_room(store, target).await?;
    let now_ms = store.home().now_ms().await?;
    let mut restore = Restore {
        store,
        header: reader.header.clone(),
        passed_ms: now_ms.saturating_sub(reader.header.created_ms),
        restored: Restored::default(),
        key: None,
        run: None,
        jobs: Vec::new(),
    };
    while let Some(record) = reader.next()? {
        restore.take(record).await?;
    }
    restore.put_jobs().await?;
    for partition in store.partitions() {
        let mut done = Cmd::new();
        done.arg("UNLINK").arg(partition.keys().restored());
        partition.link().query::<i64>("ending a restore", &done).await?;
    }
    Ok(restore.restored)
}

struct Restore<'a> {
    store: &'a Store,
    header: Header,
    /// Between the backup and now.
    passed_ms: u64,
    restored: Restored,
    /// Where rows and entries go.
    key: Option<Open>,
    run: Option<run::Open>,
    /// Jobs that are yet to be put back.
    jobs: Vec<jobs::Waiting>,
}

/// A key that is being filled.
struct Open {
    partition: u32,
    name: String,
    kind: &'static Kind,
    /// In each of these partitions; none for what is not in a partition.
    keys: Vec<String>,
    ttl_ms: Option<u64>,
}

impl Restore<'_> {
    async fn take(&mut self, record: Record) -> Result<(), BackupError> {
        match record {
            Record::Texts { kind, partition, texts } => self.texts(&kind, partition, texts).await,
            Record::Key { kind, partition, name, ttl_ms } => {
                let kind = kind_of(&kind, partition)?;
                let name = String::from_utf8_lossy(&name).into_owned();
                let keys = self.keys(kind, partition, &name);
                self.key = Some(Open { partition, name, kind, keys, ttl_ms });
                Ok(())
            }
            Record::Rows(rows) => self.rows(&rows).await,
            Record::Entries(entries) => self.entries(&entries).await,
            job @ (Record::Job { .. } | Record::Aside { .. }) => self.job(job).await,
            Record::Header(_) | Record::Counts(_) | Record::Trailer(_) => Ok(()),
            Record::Run { .. }
            | Record::Again
            | Record::Dropped
            | Record::Fields(_)
            | Record::Items { .. }
            | Record::Beside { .. }
            | Record::Audit(_)
            | Record::Flight(_)
            | Record::RunEnd { .. } => self.take_of_run(record).await,
        }
    }

    fn is_same_count(&self) -> bool {
        self.header.partitions == self.store.partition_count()
    }

    /// The partition that stands for the one of that number.
    fn same(&self, partition: u32) -> &Partition {
        let partitions = self.store.partitions();
        &partitions[partition as usize % partitions.len()]
    }

    /// The partition of an id that was in this one.
    fn of_id(&self, partition: u32, id: &str) -> &Partition {
        if self.is_same_count() || is_made_by_redis(root_of(id)) {
            return self.same(partition);
        }
        &self.store.partitions()[partition_of(id, self.store.partition_count()) as usize]
    }

    fn keys(&self, kind: &Kind, partition: u32, name: &str) -> Vec<String> {
        if partition == SERVICES {
            return vec![[self.store.services().prefix(), kind.pattern, name].concat()];
        }
        let key = |partition: &Partition| [partition.keys().prefix(), kind.pattern, name].concat();
        match kind.fate {
            Fate::Copied(_, goes) | Fate::Result(_, goes) => match goes {
                Goes::ById => vec![key(self.of_id(partition, name))],
                Goes::Everywhere if !self.is_same_count() => {
                    self.store.partitions().iter().map(key).collect()
                }
                Goes::ByNumber | Goes::ByMember | Goes::Everywhere => vec![key(self.same(partition))],
            },
            Fate::Run | Fate::WithRun | Fate::Work | Fate::Derived | Fate::Transient => Vec::new(),
        }
    }

    fn count(&mut self, kind: &Kind, copied: usize) {
        *self.restored.copied.entry(kind.name.to_owned()).or_default() += copied as u64;
    }

    async fn texts(&mut self, kind: &str, partition: u32, texts: Vec<Text>) -> Result<(), BackupError> {
        let kind = kind_of(kind, partition)?;
        let mut by_tag: BTreeMap<usize, Pipeline> = BTreeMap::new();
        for (name, ttl_ms, value) in &texts {
            let name = String::from_utf8_lossy(name);
            let index = if partition == SERVICES { 0 } else { self.of_id(partition, &name).index() as usize };
            for key in self.keys(kind, partition, &name) {
                let write = by_tag.entry(index).or_default();
                write.cmd("SET").arg(key).arg(&**value);
                if let Some(ttl_ms) = ttl_ms {
                    write.arg("PX").arg((*ttl_ms).max(1));
                }
                write.ignore();
            }
        }
        for write in by_tag.values() {
            self.store.link().pipeline::<()>("restoring strings", write).await?;
        }
        self.count(kind, texts.len());
        Ok(())
    }

    async fn rows(&mut self, rows: &Pairs) -> Result<(), BackupError> {
        let Some(open) = &self.key else { return Ok(()) };
        let kind = open.kind;
        let by_member = matches!(kind.fate, Fate::Copied(_, Goes::ByMember)) && !self.is_same_count();
        if by_member {
            let mut parts: BTreeMap<String, Pairs> = BTreeMap::new();
            for row in rows {
                let member = String::from_utf8_lossy(&row.0);
                let key =
                    [self.of_id(open.partition, &member).keys().prefix(), kind.pattern, &open.name].concat();
                parts.entry(key).or_default().push(row.clone());
            }
            for (key, rows) in &parts {
                put_rows(self.store, kind, key, rows, open.ttl_ms).await?;
            }
        } else {
            for key in &open.keys {
                put_rows(self.store, kind, key, rows, open.ttl_ms).await?;
            }
        }
        self.count(kind, rows.len());
        Ok(())
    }

    async fn entries(&mut self, entries: &[(String, Pairs)]) -> Result<(), BackupError> {
        let Some(open) = &self.key else { return Ok(()) };
        // streams of several partitions may become one, whose ids then must be new
        let keeps_ids = self.is_same_count();
        for key in &open.keys {
            let mut write = Pipeline::with_capacity(entries.len());
            write.ignore_errors();
            for (id, fields) in entries {
                write.cmd("XADD").arg(key).arg(if keeps_ids { id } else { "*" });
                for (name, value) in fields {
                    write.arg(&**name).arg(&**value);
                }
            }
            expire(&mut write, key, open.ttl_ms);
            let replies: Vec<Value> = self.store.link().pipeline("restoring a stream", &write).await?;
            for reply in replies {
                // a key that moved in Redis's own table while it was walked is met twice
                if let Value::ServerError(error) = &reply
                    && !error.details().is_some_and(|told| told.contains("equal or smaller"))
                {
                    let error = reply.extract_error().err().map_or_else(
                        || Error::Corrupt(key.clone()),
                        |error| Error::redis("restoring a stream", error),
                    );
                    return Err(error.into());
                }
            }
        }
        let (kind, count) = (open.kind, entries.len());
        self.count(kind, count);
        Ok(())
    }
}

fn kind_of(name: &str, partition: u32) -> Result<&'static Kind, BackupError> {
    let kinds = if partition == SERVICES { census::SERVICES } else { census::PARTITION };
    kinds.iter().find(|kind| kind.name == name).ok_or_else(|| BackupError::Damaged {
        records: 0,
        why: format!(
            "it has keys of the kind {name:?}, which Tidemill {} does not know",
            env!("CARGO_PKG_VERSION")
        ),
    })
}

/// Adds rows to a key.
async fn put_rows(
    store: &Store,
    kind: &Kind,
    key: &str,
    rows: &Pairs,
    ttl_ms: Option<u64>,
) -> Result<(), Error> {
    let mut write = Pipeline::with_capacity(2);
    add_rows(&mut write, kind, key, rows);
    expire(&mut write, key, ttl_ms);
    store.link().pipeline::<Vec<Value>>("restoring a key", &write).await.map(drop)
}

fn add_rows(write: &mut Pipeline, kind: &Kind, key: &str, rows: &Pairs) {
    write.cmd(match kind.of {
        Type::Set => "SADD",
        Type::SortedSet => "ZADD",
        Type::Hash | Type::String | Type::Stream => "HSET",
    });
    write.arg(key);
    for (name, value) in rows {
        match kind.of {
            Type::Set => write.arg(&**name),
            Type::SortedSet => write.arg(&**value).arg(&**name),
            Type::Hash | Type::String | Type::Stream => write.arg(&**name).arg(&**value),
        };
    }
}

fn expire(write: &mut Pipeline, key: &str, ttl_ms: Option<u64>) {
    if let Some(ttl_ms) = ttl_ms {
        write.cmd("PEXPIRE").arg(key).arg(ttl_ms.max(1));
    }
}

/// Makes sure that nothing is in the way.
async fn make_room(store: &Store, target: Target) -> Result<(), BackupError> {
    let services = store.services();
    let partitions = store.partitions().iter().map(|partition| Tag {
        link: partition.link(),
        prefix: partition.keys().prefix(),
        kinds: census::PARTITION,
        partition: partition.index(),
    });
    let services =
        Tag { link: store.link(), prefix: services.prefix(), kinds: census::SERVICES, partition: SERVICES };
    let tags: Vec<Tag<'_>> = partitions.chain([services]).collect();
    let namespace = store.namespace();
    if target == Target::Replaced {
        if let Some(who) = working(store).await? {
            return Err(BackupError::Refused(format!(
                "{who} works in the namespace {namespace:?}: stop all workers and schedulers of it first"
            )));
        }
        for tag in &tags {
            clear(tag).await?;
        }
    }
    for tag in &tags {
        let mut cursor = 0;
        loop {
            let (next, names) = tag.scan(cursor).await?;
            if let Some(name) = names.first() {
                return Err(BackupError::Refused(format!(
                    "the namespace {namespace:?} is not empty: it has the key {}{name}; restore into another one, or say that what is there \
                     may be deleted first",
                    tag.prefix
                )));
            }
            if next == 0 {
                break;
            }
            cursor = next;
        }
    }
    Ok(())
}

async fn clear(tag: &Tag<'_>) -> Result<(), Error> {
    let mut cursor = 0;
    loop {
        let (next, names) = tag.scan(cursor).await?;
        for names in names.chunks(PAGE) {
            let mut delete = Cmd::new();
            delete.arg("UNLINK");
            for name in names {
                delete.arg([tag.prefix, name].concat());
            }
            tag.link.query::<i64>("deleting what is there", &delete).await?;
        }
        if next == 0 {
            return Ok(());
        }
        cursor = next;
    }
}

/// Who renews their liveness in the namespace.
async fn working(store: &Store) -> Result<Option<String>, Error> {
    let mut before = Vec::new();
    for partition in store.partitions() {
        before.push(partition.beats().await?);
    }
    if before.iter().all(HashMap::is_empty) {
        return Ok(None);
    }
    tokio::time::sleep(BEAT).await;
    for (partition, before) in store.partitions().iter().zip(before) {
        for beat in partition.beats().await? {
            if before.get(&beat.0) != Some(&beat.1) {
                return Ok(Some(beat.0));
            }
        }
    }
    Ok(None)
}

/// Longer than any process needs to show that it lives.
const BEAT: std::time::Duration = std::time::Duration::from_millis(2_500);
