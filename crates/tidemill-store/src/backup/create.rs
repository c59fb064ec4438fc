//! Making a backup of a pool, which works on meanwhile.

use std::io::Write;

use futures_util::stream::{self, StreamExt};

use super::census::{self, Fate, Walk};
use super::copy::{PAGE, SERVICES, Tag};
use super::error::BackupError;
use super::format::Writer;
use super::jobs::Queues;
use super::record::{Counts, Header};
use super::run::Look;
use crate::{Partition, Shapes, Store};

/// Runs read side by side.
const AT_ONCE: usize = 8;
/// Names that are told of what is left out.
const MOST_NAMES: usize = 20;

/// What goes into a backup.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Options {
    /// Results, too.
    pub results: bool,
}

/// What became of a backup.
#[derive(Debug)]
pub struct Created<W> {
    /// What was written to; all was written, but not made durable.
    pub out: W,
    /// Its head.
    pub header: Header,
    /// What is in it.
    pub counts: Counts,
    /// What was found and is not in it.
    pub left_out: LeftOut,
}

/// What is not in a backup although it was there.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
pub struct LeftOut {
    /// Keys of a kind that this version does not know.
    pub keys: u64,
    /// The names of some.
    pub names: Vec<String>,
    /// Runs that could not be read, with the reason.
    pub runs: Vec<(String, String)>,
}

/// Writes a backup of the whole pool. Only reads from Redis.
///
/// # Errors
/// Redis is not reachable or refuses, or it cannot be written. What was written then is no backup.
pub async fn create<S: Shapes + Sync, W: Write>(
    store: &Store,
    shapes: &S,
    out: W,
    options: Options,
) -> Result<Created<W>, BackupError> {
    let header = Header {
        namespace: store.namespace().to_owned(),
        partitions: store.partition_count(),
        created_ms: store.home().now_ms().await?,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        has_results: options.results,
    };
    let out = Writer::new(out, header.clone())?;
    let mut backup = Backup { store, shapes, out, options, left_out: LeftOut::default() };
    for partition in store.partitions() {
        backup.partition(partition).await?;
    }
    backup.services().await?;
    let Backup { out, left_out, .. } = backup;
    let (out, counts) = out.finish()?;
    Ok(Created { out, header, counts, left_out })
}

struct Backup<'a, S, W: Write> {
    store: &'a Store,
    shapes: &'a S,
    out: Writer<W>,
    options: Options,
    left_out: LeftOut,
}

impl<S: Shapes + Sync, W: Write> Backup<'_, S, W> {
    async fn partition(&mut self, partition: &Partition) -> Result<(), BackupError> {
        let tag = Tag {
            link: partition.link(),
            prefix: partition.keys().prefix(),
            kinds: census::PARTITION,
            partition: partition.index(),
        };
        let (mut cursor, mut queues) = (0, Queues::default());
        loop {
            let (next, names) = tag.scan(cursor).await?;
            for (kind, rest) in names.iter().filter_map(|name| census::find(tag.kinds, name)) {
                queues.take(kind.name, rest);
            }
            self.note_unknown(&tag, &names);
            tag.copy(&names, Walk::First, self.options.results, &mut self.out).await?;
            if next == 0 {
                break;
            }
            cursor = next;
        }
        let mut since_ms = partition.now_ms().await?;
        partition.put_jobs(&mut queues, &mut self.out).await?;
        for walk in [Walk::Middle, Walk::Last] {
            let mut cursor = 0;
            loop {
                let (next, names) = tag.scan(cursor).await?;
                tag.copy(&names, walk, self.options.results, &mut self.out).await?;
                if walk == Walk::Middle {
                    self.runs(partition, &names).await?;
                }
                if next == 0 {
                    break;
                }
                cursor = next;
            }
            if walk == Walk::Middle {
                since_ms = self.newcomers(partition, &mut queues, since_ms).await?;
            }
        }
        self.newcomers(partition, &mut queues, since_ms).await.map(drop)
    }

    /// Writes runs that began since: another one that was written later may wait for them. Those that are written twice are restored
    /// once. Replies until when.
    async fn newcomers(
        &mut self,
        partition: &Partition,
        queues: &mut Queues,
        since_ms: u64,
    ) -> Result<u64, BackupError> {
        let now_ms = partition.now_ms().await?;
        partition.put_requests(queues, &mut self.out).await?;
        let mut offset = 0;
        loop {
            let ids = partition.started_since(since_ms, offset, PAGE).await?;
            let names: Vec<String> = ids.iter().map(|id| ["run:", id].concat()).collect();
            self.runs(partition, &names).await?;
            if ids.len() < PAGE {
                return Ok(now_ms);
            }
            offset += PAGE;
        }
    }

    fn note_unknown(&mut self, tag: &Tag<'_>, names: &[String]) {
        for name in names {
            // a client's own streams for replies are the client's to keep
            if census::find(tag.kinds, name).is_none() && !name.starts_with("reply:") {
                self.left_out.keys += 1;
                if self.left_out.names.len() < MOST_NAMES {
                    self.left_out.names.push([tag.prefix, name].concat());
                }
            }
        }
    }

    async fn runs(&mut self, partition: &Partition, names: &[String]) -> Result<(), BackupError> {
        let ids = names.iter().filter_map(|name| match census::find(census::PARTITION, name) {
            Some((kind, id)) if kind.fate == Fate::Run && kind.name == "run" => Some(id),
            _ => None,
        });
        let shapes = self.shapes;
        let looks = ids.map(async |id| (id, partition.look_at_run(id, shapes, false).await));
        let mut looks = stream::iter(looks).buffered(AT_ONCE);
        while let Some((id, look)) = looks.next().await {
            match look {
                Ok(Look::Whole(snapshot)) => {
                    partition.put_whole_run(*snapshot, self.shapes, &mut self.out).await?;
                }
                Ok(Look::Large) => partition.put_large_run(id, self.shapes, &mut self.out).await?,
                Ok(Look::Gone) => {}
                // a run that is no run, or whose audit is none, must not keep all others out
                Err(error @ crate::Error::Redis { fault: crate::Fault::WrongType, .. })
                | Err(error @ crate::Error::Corrupt(_)) => {
                    self.left_out.runs.push((id.to_owned(), error.to_string()));
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    async fn services(&mut self) -> Result<(), BackupError> {
        let services = self.store.services();
        let tag = Tag {
            link: self.store.link(),
            prefix: services.prefix(),
            kinds: census::SERVICES,
            partition: SERVICES,
        };
        let mut cursor = 0;
        loop {
            let (next, names) = tag.scan(cursor).await?;
            self.note_unknown(&tag, &names);
            tag.copy(&names, Walk::Last, self.options.results, &mut self.out).await?;
            if next == 0 {
                return Ok(());
            }
            cursor = next;
        }
    }
}
