//! Putting a run back.

use redis::{Pipeline, Value};
use tidemill_protocol::EntryId;

use super::{Restore, expire, kind_of, put_rows};
use crate::backup::copy::PAGE;
use crate::backup::error::BackupError;
use crate::backup::flight::with_entry;
use crate::backup::record::{Flight, Pairs, Place, Record};
use crate::lines::place_of;
use crate::{Error, Keys, Partition, keys};

/// A run that is being put back.
pub(super) struct Open {
    partition: Partition,
    id: String,
    /// It was put back before: a key that moved in Redis's own table while it was walked is met twice.
    is_known: bool,
    /// When it ended, if its fields say so.
    ended_ms: Option<String>,
    /// Another run waits for its end.
    has_parent: bool,
    /// Steps whose items are there, with what those have left.
    items: Vec<(u32, Option<u64>)>,
    in_items: bool,
    /// Keys that stand beside it.
    beside: Vec<String>,
    flights: Vec<Flight>,
}

impl Open {
    fn key(&self) -> String {
        self.partition.keys().run(&self.id)
    }
}

impl Restore<'_> {
    pub(super) async fn take_of_run(&mut self, record: Record) -> Result<(), BackupError> {
        if let Record::Run { partition, id } = record {
            self.run = Some(self.open(partition, id).await?);
            return Ok(());
        }
        let Some(open) = &mut self.run else { return Ok(()) };
        if open.is_known {
            return Ok(());
        }
        match record {
            Record::Again => open.begin_anew().await?,
            Record::Dropped => {
                open.begin_anew().await?;
                self.run = None;
            }
            Record::Fields(fields) => open.put_fields(&fields).await?,
            Record::Items { step, ttl_ms } => {
                open.items.push((step, ttl_ms));
                open.in_items = true;
            }
            Record::Beside { kind, ttl_ms, rows } => {
                let kind = kind_of(&kind, open.partition.index())?;
                let key = [open.partition.keys().prefix(), kind.pattern, &open.id].concat();
                put_rows(self.store, kind, &key, &rows, ttl_ms).await?;
                open.beside.push(key);
            }
            Record::Audit(entries) => open.put_audit(&entries).await?,
            Record::Flight(flight) => {
                open.flights.push(flight);
                if open.flights.len() >= PAGE {
                    self.restored.in_flight += open.put_flights().await?;
                }
            }
            Record::RunEnd { ttl_ms, deadline } => {
                self.restored.in_flight += open.put_flights().await?;
                let deadline = deadline.map(|at| moved(at, self.passed_ms));
                open.close(ttl_ms, deadline).await?;
                self.restored.runs += 1;
                if deadline.is_some() {
                    self.restored.live_runs += 1;
                    self.restored.live.push((open.partition.index(), std::mem::take(&mut open.id)));
                }
                self.run = None;
            }
            _ => {}
        }
        Ok(())
    }

    async fn open(&self, partition: u32, id: String) -> Result<Open, Error> {
        let partition = self.of_id(partition, &id).clone();
        let mut ask = redis::Cmd::new();
        ask.arg("EXISTS").arg(partition.keys().run(&id));
        let is_known = partition.link().query("looking for a run", &ask).await?;
        Ok(Open {
            partition,
            id,
            is_known,
            ended_ms: None,
            has_parent: false,
            items: Vec::new(),
            in_items: false,
            beside: Vec::new(),
            flights: Vec::new(),
        })
    }
}

/// A deadline, later by so much.
fn moved(deadline: f64, passed_ms: u64) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "a time in milliseconds is exact in f64")]
    let passed = passed_ms as f64;
    deadline + passed
}

impl Open {
    async fn begin_anew(&mut self) -> Result<(), Error> {
        let keys = self.partition.keys();
        let mut delete = redis::Cmd::new();
        delete.arg("UNLINK").arg(self.key()).arg(keys.audit(&self.id)).arg(&self.beside);
        for (step, _) in &self.items {
            delete.arg(keys.items(&self.id, *step));
        }
        self.partition.link().query::<i64>("beginning a run anew", &delete).await?;
        (self.ended_ms, self.in_items, self.has_parent) = (None, false, false);
        self.items.clear();
        self.beside.clear();
        self.flights.clear();
        Ok(())
    }

    async fn put_fields(&mut self, fields: &Pairs) -> Result<(), Error> {
        let key = match self.items.last() {
            Some((step, _)) if self.in_items => self.partition.keys().items(&self.id, *step),
            _ => {
                let ended = fields.iter().find(|(name, _)| &**name == b"t2");
                self.has_parent |= fields.iter().any(|(name, _)| &**name == b"par");
                self.ended_ms = ended
                    .map(|(_, at)| String::from_utf8_lossy(at).into_owned())
                    .or_else(|| self.ended_ms.take());
                self.key()
            }
        };
        let mut write = redis::Cmd::new();
        write.arg("HSET").arg(key);
        for (name, value) in fields {
            write.arg(&**name).arg(&**value);
        }
        self.partition.link().query::<i64>("restoring a run", &write).await.map(drop)
    }

    async fn put_audit(&self, entries: &[(String, Pairs)]) -> Result<(), Error> {
        let mut write = Pipeline::with_capacity(entries.len());
        for (entry, records) in entries {
            write.cmd("XADD").arg(self.partition.keys().audit(&self.id)).arg(entry);
            for (seq, record) in records {
                write.arg(&**seq).arg(&**record);
            }
        }
        self.partition.link().pipeline::<Vec<Value>>("restoring an audit", &write).await.map(drop)
    }

    /// Gives everything in flight an entry or a place; replies how many.
    async fn put_flights(&mut self) -> Result<u64, Error> {
        let flights = std::mem::take(&mut self.flights);
        if flights.is_empty() {
            return Ok(0);
        }
        let own = self.partition.keys();
        let mut add = Pipeline::with_capacity(flights.len() * 2);
        for flight in &flights {
            let queue = keys::base_of(&flight.queue);
            if queue != keys::WAITS {
                add.cmd("SADD").arg(own.queues()).arg(queue);
            }
            if flight.place == Place::Queued {
                add.cmd("XADD").arg(own.jobs(&flight.queue)).arg("*");
                for (name, value) in &flight.fields {
                    add.arg(&**name).arg(&**value);
                }
            } else {
                let packed = flight.fields.first().map_or(&b""[..], |(_, packed)| packed);
                put_aside(&mut add, own, queue, (flight.member.as_bytes(), packed), &flight.place);
            }
        }
        let replies: Vec<Value> =
            self.partition.link().pipeline("restoring what was in flight", &add).await?;
        let mut entries = replies.into_iter().filter_map(|reply| match reply {
            Value::BulkString(entry) => {
                String::from_utf8(entry).ok().and_then(|entry| EntryId::parse(entry).ok())
            }
            _ => None,
        });
        let mut follow = Pipeline::with_capacity(flights.len());
        for flight in flights.iter().filter(|flight| flight.place == Place::Queued) {
            let Some(entry) = entries.next() else { break };
            let (key, field) = match flight.item {
                Some(item) => (own.items(&self.id, flight.step), item.to_string()),
                None => (self.key(), flight.step.to_string()),
            };
            let record = with_entry(&flight.record, entry.as_str());
            follow.cmd("HSET").arg(key).arg(["s", &field].concat()).arg(record);
        }
        if !follow.is_empty() {
            self.partition.link().pipeline::<Vec<Value>>("restoring what was in flight", &follow).await?;
        }
        Ok(flights.len() as u64)
    }

    async fn close(&self, ttl_ms: Option<u64>, deadline: Option<f64>) -> Result<(), Error> {
        let keys = self.partition.keys();
        let mut end = Pipeline::with_capacity(4);
        match (deadline, &self.ended_ms) {
            (Some(at), _) if at.is_finite() => end.cmd("ZADD").arg(keys.live()).arg(at).arg(&self.id),
            (Some(_), _) => end.cmd("ZADD").arg(keys.live()).arg("+inf").arg(&self.id),
            (None, ended) => {
                end.cmd("ZADD").arg(keys.ended()).arg(ended.as_deref().unwrap_or("0")).arg(&self.id)
            }
        };
        if deadline.is_none() && self.has_parent {
            // who waits for it may have been read before it had ended; to hear of it twice does no harm
            end.cmd("XADD").arg(keys.runs()).arg("*").arg("ended").arg(&self.id);
        }
        expire(&mut end, &self.key(), ttl_ms);
        expire(&mut end, &keys.audit(&self.id), ttl_ms);
        for (step, ttl_ms) in &self.items {
            expire(&mut end, &keys.items(&self.id, *step), *ttl_ms);
        }
        self.partition.link().pipeline::<Vec<Value>>("restoring a run", &end).await.map(drop)
    }
}

/// Puts a member aside, or into its line.
pub(super) fn put_aside(
    write: &mut Pipeline,
    keys: &Keys,
    queue: &str,
    (member, packed): (&[u8], &[u8]),
    place: &Place,
) {
    write.cmd("HSET").arg(keys.deferred(queue)).arg(member).arg(packed);
    match place {
        Place::Line { tier, score } => {
            write.cmd("SADD").arg(keys.lines()).arg(tier);
            let place = place_of(queue, &String::from_utf8_lossy(member));
            write.cmd("ZADD").arg(keys.line(tier)).arg(*score).arg(place);
        }
        Place::Due(at) => {
            write.cmd("ZADD").arg(keys.due(queue)).arg(*at).arg(member);
        }
        Place::Queued => {}
    }
}
