//! Keys that are copied as they stand: read by their type, in pages.

use std::io::Write;

use bytes::Bytes;
use redis::{Cmd, FromRedisValue, Pipeline, Value};

use super::census::{self, Fate, Kind, Type, Walk};
use super::error::BackupError;
use super::format::Writer;
use super::record::{Pairs, Record, Text};
use crate::{Error, Link, claims};

/// Keys, fields, members or entries asked for in one call.
pub(super) const PAGE: usize = 500;
/// A record is closed when it has more than so many bytes.
pub(super) const FULL_BYTES: usize = 1 << 20;

/// Keys under one tag.
pub(super) struct Tag<'a> {
    pub(super) link: &'a Link,
    pub(super) prefix: &'a str,
    pub(super) kinds: &'static [Kind],
    /// The number of the partition; that of none for what is not in a partition.
    pub(super) partition: u32,
}

/// The partition that stands for the keys of services.
pub(super) const SERVICES: u32 = u32::MAX;

/// A key by its name, or what begins so.
pub(super) type Found<'k> = (&'static Kind, &'k str);

impl Tag<'_> {
    /// Some of the keys, without what all of them begin with, and where to read on; 0 begins and ends. Each key that stays is met
    /// once at least. In a cluster the owner of the tag is asked.
    pub(super) async fn scan(&self, cursor: u64) -> Result<(u64, Vec<String>), Error> {
        let mut ask = Cmd::new();
        ask.arg("SCAN").arg(cursor).arg("MATCH").arg([self.prefix, "*"].concat()).arg("COUNT").arg(PAGE);
        let (next, keys): (u64, Vec<Vec<u8>>) =
            self.link.query_owner("walking keys", &ask, self.prefix).await?;
        let names = keys.into_iter().filter_map(|key| {
            // what is no text was not made here
            let key = String::from_utf8(key)
                .unwrap_or_else(|key| String::from_utf8_lossy(key.as_bytes()).into_owned());
            key.strip_prefix(self.prefix).map(ToOwned::to_owned)
        });
        Ok((next, names.collect()))
    }

    /// Copies those keys that a walk is to copy.
    pub(super) async fn copy<W: Write>(
        &self,
        names: &[String],
        walk: Walk,
        has_results: bool,
        out: &mut Writer<W>,
    ) -> Result<(), BackupError> {
        let mut texts: Vec<Found<'_>> = Vec::new();
        for (kind, rest) in names.iter().filter_map(|name| census::find(self.kinds, name)) {
            let wanted = match kind.fate {
                Fate::Copied(when, _) => when == walk,
                Fate::Result(when, _) => when == walk && has_results,
                Fate::Run | Fate::WithRun | Fate::Work | Fate::Derived | Fate::Transient => false,
            };
            if wanted && kind.of == Type::String {
                texts.push((kind, rest));
            } else if wanted {
                self.copy_one(kind, rest, out).await?;
            }
        }
        self.copy_texts(&texts, out).await
    }

    fn key(&self, kind: &Kind, rest: &str) -> String {
        [self.prefix, kind.pattern, rest].concat()
    }

    async fn copy_texts<W: Write>(
        &self,
        found: &[Found<'_>],
        out: &mut Writer<W>,
    ) -> Result<(), BackupError> {
        if found.is_empty() {
            return Ok(());
        }
        let mut ask = Pipeline::with_capacity(found.len() * 2);
        ask.ignore_errors();
        for (kind, rest) in found {
            let key = self.key(kind, rest);
            ask.cmd("PTTL").arg(&key).cmd("GET").arg(&key);
        }
        let replies: Vec<Value> = self.link.pipeline("reading strings", &ask).await?;
        let mut replies = replies.into_iter();
        let mut by_kind: Vec<(&'static Kind, Vec<Text>)> = Vec::new();
        for (kind, rest) in found {
            let (Some(ttl), Some(Value::BulkString(value))) = (replies.next(), replies.next()) else {
                continue;
            };
            let text = (Bytes::copy_from_slice(rest.as_bytes()), left(&ttl), Bytes::from(value));
            match by_kind.iter_mut().find(|(other, _)| other == kind) {
                Some((_, texts)) => texts.push(text),
                None => by_kind.push((kind, vec![text])),
            }
        }
        for (kind, texts) in by_kind {
            count(out, kind, texts.len());
            let mut pages = Pages::default();
            for text in texts {
                let size = text.0.len() + text.2.len();
                if let Some(texts) = pages.add(text, size) {
                    out.put(&self.texts(kind, texts))?;
                }
            }
            out.put(&self.texts(kind, pages.rest()))?;
        }
        Ok(())
    }

    fn texts(&self, kind: &Kind, texts: Vec<Text>) -> Record {
        Record::Texts { kind: kind.name.to_owned(), partition: self.partition, texts }
    }

    async fn copy_one<W: Write>(
        &self,
        kind: &'static Kind,
        rest: &str,
        out: &mut Writer<W>,
    ) -> Result<(), BackupError> {
        let key = self.key(kind, rest);
        let mut ask = Pipeline::with_capacity(2);
        ask.cmd("PTTL").arg(&key).cmd("TYPE").arg(&key);
        let (ttl, of): (Value, String) = self.link.pipeline("looking at a key", &ask).await?;
        let word = match kind.of {
            Type::String => "string",
            Type::Hash => "hash",
            Type::Set => "set",
            Type::SortedSet => "zset",
            Type::Stream => "stream",
        };
        if of != word {
            // gone, or of another type: nothing of ours reads that
            return Ok(());
        }
        out.put(&Record::Key {
            kind: kind.name.to_owned(),
            partition: self.partition,
            name: Bytes::copy_from_slice(rest.as_bytes()),
            ttl_ms: left(&ttl),
        })?;
        let copied = match kind.of {
            Type::Stream => self.copy_stream(&key, out).await?,
            Type::Hash | Type::Set | Type::SortedSet | Type::String => {
                self.copy_rows(&key, kind.of, out).await?
            }
        };
        count(out, kind, copied);
        Ok(())
    }

    async fn copy_stream<W: Write>(&self, key: &str, out: &mut Writer<W>) -> Result<usize, BackupError> {
        let (mut from, mut copied) = ("-".to_owned(), 0);
        loop {
            let mut ask = Cmd::new();
            ask.arg("XRANGE").arg(key).arg(&from).arg("+").arg("COUNT").arg(PAGE);
            let entries = entries_of(self.link.raw("reading a stream", &ask).await?)?;
            let Some(last) = entries.last() else { return Ok(copied) };
            from = format!("({}", last.0);
            copied += entries.len();
            let is_last = entries.len() < PAGE;
            put_entries(entries, Record::Entries, out)?;
            if is_last {
                return Ok(copied);
            }
        }
    }

    async fn copy_rows<W: Write>(
        &self,
        key: &str,
        of: Type,
        out: &mut Writer<W>,
    ) -> Result<usize, BackupError> {
        let command = match of {
            Type::Set => "SSCAN",
            Type::SortedSet => "ZSCAN",
            Type::Hash | Type::String | Type::Stream => "HSCAN",
        };
        let (mut cursor, mut copied) = (0_u64, 0);
        loop {
            let mut ask = Cmd::new();
            ask.arg(command).arg(key).arg(cursor).arg("COUNT").arg(PAGE);
            let (next, values): (u64, Vec<Vec<u8>>) = self.link.query("reading a key", &ask).await?;
            let rows: Pairs = if of == Type::Set {
                values.into_iter().map(|value| (Bytes::from(value), Bytes::new())).collect()
            } else {
                pairs_of(values)
            };
            copied += rows.len();
            put_rows(rows, Record::Rows, out)?;
            if next == 0 {
                return Ok(copied);
            }
            cursor = next;
        }
    }
}

/// What a key has left, as PTTL says.
pub(super) fn left(ttl: &Value) -> Option<u64> {
    i64::from_redis_value_ref(ttl).ok().and_then(|ttl| u64::try_from(ttl).ok())
}

pub(super) fn pairs_of(flat: Vec<Vec<u8>>) -> Pairs {
    let mut values = flat.into_iter().map(Bytes::from);
    std::iter::from_fn(|| values.next().zip(values.next())).collect()
}

/// Entries of an XRANGE: ids with their fields.
pub(super) fn entries_of(reply: Value) -> Result<Vec<(String, Pairs)>, Error> {
    let Value::Array(entries) = reply else { return Ok(Vec::new()) };
    let read = |entry| claims::entry_of(entry).map(|entry| (entry.entry.to_string(), entry.fields));
    entries.into_iter().map(read).collect()
}

fn count<W: Write>(out: &mut Writer<W>, kind: &Kind, copied: usize) {
    *out.counts.copied.entry(kind.name.to_owned()).or_default() += copied as u64;
}

/// Writes rows, a page a record.
pub(super) fn put_rows<W: Write>(
    rows: Pairs,
    record: fn(Pairs) -> Record,
    out: &mut Writer<W>,
) -> Result<(), BackupError> {
    let mut pages = Pages::default();
    for row in rows {
        let size = row.0.len() + row.1.len();
        if let Some(rows) = pages.add(row, size) {
            out.put(&record(rows))?;
        }
    }
    let rest = pages.rest();
    if rest.is_empty() { Ok(()) } else { out.put(&record(rest)) }
}

/// Writes entries, a page a record.
pub(super) fn put_entries<W: Write>(
    entries: Vec<(String, Pairs)>,
    record: fn(Vec<(String, Pairs)>) -> Record,
    out: &mut Writer<W>,
) -> Result<(), BackupError> {
    let mut pages = Pages::default();
    for entry in entries {
        let size = entry.1.iter().map(|(name, value)| name.len() + value.len()).sum();
        if let Some(entries) = pages.add(entry, size) {
            out.put(&record(entries))?;
        }
    }
    let rest = pages.rest();
    if rest.is_empty() { Ok(()) } else { out.put(&record(rest)) }
}

/// Gathers what goes into one record.
struct Pages<T> {
    page: Vec<T>,
    bytes: usize,
}

impl<T> Default for Pages<T> {
    fn default() -> Self {
        Self { page: Vec::new(), bytes: 0 }
    }
}

impl<T> Pages<T> {
    /// Adds one; replies the page if it is full now.
    fn add(&mut self, one: T, bytes: usize) -> Option<Vec<T>> {
        self.page.push(one);
        self.bytes += bytes;
        if self.page.len() < PAGE && self.bytes < FULL_BYTES {
            return None;
        }
        self.bytes = 0;
        Some(std::mem::take(&mut self.page))
    }

    fn rest(self) -> Vec<T> {
        self.page
    }
}
