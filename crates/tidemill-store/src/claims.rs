//! Claiming: reading entries as one consumer of a group, over a connection that may block.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use redis::{Cmd, Value};
use tidemill_protocol::EntryId;

use crate::{Error, Keys, Link, Remedy};

/// An entry that the caller now owns, or owned all along.
#[derive(Debug, Clone)]
pub struct ClaimedEntry {
    /// Its id: the fencing token.
    pub entry: EntryId,
    /// Its fields, in order.
    pub fields: Vec<(Bytes, Bytes)>,
}

/// Reads entries of several queues of one partition as one consumer.
#[derive(Debug)]
pub struct Claimer {
    link: Link,
    keys: Arc<Keys>,
    group: &'static str,
    consumer: String,
    block: Duration,
    streams: HashMap<String, String>,
}

impl Claimer {
    pub(crate) fn new(
        link: Link,
        keys: Arc<Keys>,
        group: &'static str,
        consumer: &str,
        block: Duration,
    ) -> Self {
        Self { link, keys, group, consumer: consumer.to_owned(), block, streams: HashMap::new() }
    }

    /// Claims up to so many entries from each queue; waits up to the claimer's block time when `wait` is set and there are none.
    /// Creates streams and groups that are missing. The reply names each queue by its index in `wanted`.
    ///
    /// # Errors
    /// Redis is not reachable or refuses. What the lost reply may have claimed is found by [`Claimer::pending`].
    pub async fn claim(
        &mut self,
        wanted: &[(&str, usize)],
        wait: bool,
    ) -> Result<Vec<(usize, Vec<ClaimedEntry>)>, Error> {
        let count = wanted.iter().map(|(_, count)| *count).max().unwrap_or(0);
        if count == 0 {
            return Ok(Vec::new());
        }
        let mut read = Cmd::new();
        read.arg("XREADGROUP").arg("GROUP").arg(self.group).arg(&self.consumer).arg("COUNT").arg(count);
        if wait {
            read.arg("BLOCK").arg(u64::try_from(self.block.as_millis()).unwrap_or(u64::MAX).max(1));
        }
        read.arg("STREAMS");
        for (queue, _) in wanted {
            read.arg(self.stream(queue));
        }
        for _ in wanted {
            read.arg(">");
        }
        match self.link.raw("claiming", &read).await {
            Ok(reply) => self.read_reply(wanted, reply),
            Err(error) if error.remedy() == Remedy::CreateGroup => {
                self.create_groups(wanted.iter().map(|(queue, _)| *queue)).await?;
                Ok(Vec::new())
            }
            Err(error) => Err(error),
        }
    }

    /// Makes sure that the queues' streams and groups exist.
    ///
    /// # Errors
    /// Redis is not reachable or refuses.
    pub async fn create_groups<'a>(&mut self, queues: impl Iterator<Item = &'a str>) -> Result<(), Error> {
        for queue in queues {
            let mut create = Cmd::new();
            create
                .arg("XGROUP")
                .arg("CREATE")
                .arg(self.stream(queue))
                .arg(self.group)
                .arg("0")
                .arg("MKSTREAM");
            match self.link.raw("creating a group", &create).await {
                Ok(_) => {}
                Err(Error::Redis { source, .. }) if source.code() == Some("BUSYGROUP") => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// How many connections this claimer has made: after a change, entries may be held that nobody knows of.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.link.generation()
    }

    fn stream(&mut self, queue: &str) -> &str {
        let keys = &self.keys;
        self.streams.entry(queue.to_owned()).or_insert_with(|| keys.stream(queue))
    }

    fn read_reply(
        &self,
        wanted: &[(&str, usize)],
        reply: Value,
    ) -> Result<Vec<(usize, Vec<ClaimedEntry>)>, Error> {
        let streams = match reply {
            Value::Nil => return Ok(Vec::new()),
            Value::Array(streams) => streams,
            other => return Err(unexpected("XREADGROUP", &other)),
        };
        let mut claimed = Vec::with_capacity(streams.len());
        for stream in streams {
            let Value::Array(mut pair) = stream else { return Err(unexpected("XREADGROUP", &stream)) };
            let (Some(Value::Array(entries)), Some(Value::BulkString(name))) = (pair.pop(), pair.pop())
            else {
                return Err(Error::Corrupt("XREADGROUP named a stream without entries".to_owned()));
            };
            let known = |queue: &str| self.streams.get(queue).is_some_and(|key| key.as_bytes() == name);
            let Some(queue) = wanted.iter().position(|(queue, _)| known(queue)) else { continue };
            claimed.push((queue, entries.into_iter().map(entry_of).collect::<Result<_, _>>()?));
        }
        Ok(claimed)
    }
}

fn unexpected(what: &str, value: &Value) -> Error {
    let mut shown = format!("{value:?}");
    shown.truncate(shown.char_indices().nth(200).map_or(shown.len(), |(at, _)| at));
    Error::Corrupt(format!("{what} answered {shown}"))
}

/// Reads `[id, [name, value, …]]`; an entry deleted since it was delivered has no fields.
pub(crate) fn entry_of(value: Value) -> Result<ClaimedEntry, Error> {
    let Value::Array(mut pair) = value else { return Err(unexpected("a stream read", &value)) };
    let fields = match pair.pop() {
        Some(Value::Array(flat)) => pairs_of(flat)?,
        _ => Vec::new(),
    };
    let Some(Value::BulkString(id)) = pair.pop() else {
        return Err(Error::Corrupt("a stream entry has no id".to_owned()));
    };
    let id =
        String::from_utf8(id).map_err(|_| Error::Corrupt("a stream entry's id is not text".to_owned()))?;
    let entry = EntryId::parse(id).map_err(|error| Error::Corrupt(error.to_string()))?;
    Ok(ClaimedEntry { entry, fields })
}

fn pairs_of(flat: Vec<Value>) -> Result<Vec<(Bytes, Bytes)>, Error> {
    let mut fields = Vec::with_capacity(flat.len() / 2);
    let mut values = flat.into_iter();
    while let (Some(name), Some(value)) = (values.next(), values.next()) {
        let (Value::BulkString(name), Value::BulkString(value)) = (name, value) else {
            return Err(Error::Corrupt("a stream entry has a field that is not a string".to_owned()));
        };
        fields.push((Bytes::from(name), Bytes::from(value)));
    }
    Ok(fields)
}

/// An entry that a consumer holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pending {
    /// The entry.
    pub entry: EntryId,
    /// Who holds it.
    pub consumer: String,
    /// Since it was claimed, in milliseconds.
    pub idle_ms: u64,
}

impl crate::Partition {
    /// Entries that are claimed and not settled, oldest first, from after `after`; of one consumer if named.
    ///
    /// # Errors
    /// Redis is not reachable or refuses. A missing stream or group is no error: nothing is pending there.
    pub async fn pending(
        &self,
        (stream, group): (&str, &str),
        consumer: Option<&str>,
        after: Option<&EntryId>,
        limit: usize,
    ) -> Result<Vec<Pending>, Error> {
        let mut ask = Cmd::new();
        ask.arg("XPENDING").arg(stream).arg(group);
        match after {
            Some(after) => ask.arg(format!("({after}")),
            None => ask.arg("-"),
        };
        ask.arg("+").arg(limit);
        if let Some(consumer) = consumer {
            ask.arg(consumer);
        }
        let rows: Vec<(String, String, u64, u64)> =
            match self.link().query("asking what is pending", &ask).await {
                Ok(rows) => rows,
                Err(error) if error.remedy() == Remedy::CreateGroup => Vec::new(),
                Err(error) => return Err(error),
            };
        rows.into_iter()
            .map(|(entry, consumer, idle_ms, _)| {
                let entry = EntryId::parse(entry).map_err(|error| Error::Corrupt(error.to_string()))?;
                Ok(Pending { entry, consumer, idle_ms })
            })
            .collect()
    }

    /// One entry's fields; `None` when it is gone.
    ///
    /// # Errors
    /// Redis is not reachable or refuses.
    pub async fn entry(&self, stream: &str, entry: &str) -> Result<Option<ClaimedEntry>, Error> {
        let mut ask = Cmd::new();
        ask.arg("XRANGE").arg(stream).arg(entry).arg(entry);
        match self.link().raw("reading an entry", &ask).await? {
            Value::Array(entries) => entries.into_iter().next().map(entry_of).transpose(),
            _ => Ok(None),
        }
    }

    /// The names of a group's consumers with how many entries each holds; empty when there is no such stream or group.
    ///
    /// # Errors
    /// Redis is not reachable or refuses.
    pub async fn consumers(&self, stream: &str, group: &str) -> Result<Vec<(String, u64)>, Error> {
        let mut ask = Cmd::new();
        ask.arg("XINFO").arg("CONSUMERS").arg(stream).arg(group);
        let rows: Vec<HashMap<String, Value>> = match self.link().query("listing consumers", &ask).await {
            Ok(rows) => rows,
            Err(error) if error.remedy() == Remedy::CreateGroup => return Ok(Vec::new()),
            // a stream that was never written to
            Err(Error::Redis { source, .. }) if source.to_string().contains("no such key") => {
                return Ok(Vec::new());
            }
            Err(error) => return Err(error),
        };
        let name = |row: &HashMap<String, Value>| match row.get("name") {
            Some(Value::BulkString(name)) => String::from_utf8_lossy(name).into_owned(),
            _ => String::new(),
        };
        let held = |row: &HashMap<String, Value>| match row.get("pending") {
            Some(Value::Int(held)) => u64::try_from(*held).unwrap_or(0),
            _ => 0,
        };
        Ok(rows.iter().map(|row| (name(row), held(row))).collect())
    }
}
