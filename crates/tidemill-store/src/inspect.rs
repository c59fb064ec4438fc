//! Where a job is, and what happens in a run: for people who ask, never for deciding.
//!
//! Several reads make one answer, so it may be a moment old, and work that moves between two reads may be missed once.

use redis::{Cmd, Pipeline, Value};
use tidemill_protocol::{AuditRecord, EntryId};

use crate::claims::{ClaimedEntry, entry_of};
use crate::lines::place_of;
use crate::{Error, Letter, Partition, Place, keys};

/// Where a job or a requested run is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum JobStatus {
    /// In its queue; nobody has claimed it.
    Queued {
        /// The queue.
        queue: String,
        /// Its entry now.
        entry: String,
    },
    /// Somebody has claimed it.
    Running {
        /// The queue.
        queue: String,
        /// Its entry now.
        entry: String,
        /// Who.
        consumer: String,
        /// For how long, in milliseconds.
        held_ms: u64,
    },
    /// Put aside until its time.
    Deferred {
        /// The queue.
        queue: String,
        /// When it is due, in Unix milliseconds.
        due_ms: u64,
        /// Why: the sentence that was noted, if any.
        why: Option<String>,
    },
    /// Parked in a line, where it waits for its turn at a tier of limits.
    InLine {
        /// The queue.
        queue: String,
        /// Which line, and where in it.
        place: Place,
        /// Why: the sentence that was noted, if any.
        why: Option<String>,
    },
    /// Ended, and its result is kept: the JSON text.
    Ended(String),
    /// Could not be done.
    Buried(Letter),
    /// Cancelled.
    Cancelled,
    /// Was taken in, and is nowhere to be seen: it has ended without a result that is kept, or it was moved and waits
    /// far back in its queue.
    Accepted,
    /// Never heard of, or forgotten.
    Unknown,
}

/// Audit records, and where to read on.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct AuditPage {
    /// The records, oldest first.
    pub records: Vec<AuditRecord>,
    /// The last entry read; give it to read on. Absent when nothing was ever read.
    pub cursor: Option<String>,
}

/// How many of the newest entries and of the first dead letters after the job are looked through.
const LOOKED_THROUGH: usize = 100;

struct Sought<'a> {
    id: &'a str,
    first: Option<EntryId>,
}

impl Sought<'_> {
    /// Whether the entry under the wanted id is the wanted job: an entry's id is unique in its own stream only.
    fn is_first(&self, entry: &ClaimedEntry) -> bool {
        let field = |name: &str| entry.fields.iter().find(|(n, _)| &**n == name.as_bytes()).map(|(_, v)| v);
        match field("id") {
            Some(id) => &**id == self.id.as_bytes(),
            None => {
                field("run").is_none() && self.first.as_ref().is_some_and(|first| first.as_str() == self.id)
            }
        }
    }

    /// Whether a later entry is the wanted job, moved there.
    fn is(&self, entry: &ClaimedEntry) -> bool {
        let field = |name: &str| entry.fields.iter().find(|(n, _)| &**n == name.as_bytes()).map(|(_, v)| v);
        match field("id") {
            Some(id) => &**id == self.id.as_bytes(),
            None => field("_entry").is_some_and(|first| &**first == self.id.as_bytes()),
        }
    }

    fn is_letter(&self, letter: &Letter) -> bool {
        letter.field("id").map_or_else(|| letter.entry == self.id, |id| id == self.id)
    }
}

impl Partition {
    /// Where a job is. Looks in `queue` if one is named, else in every queue of this partition; [`keys::RUNS`] looks for a
    /// requested run that has not started.
    ///
    /// # Errors
    /// Redis is not reachable or refuses.
    pub async fn job_status(&self, queue: Option<&str>, id: &str) -> Result<JobStatus, Error> {
        let mut ask = Pipeline::with_capacity(3);
        ask.cmd("GET").arg(self.keys().result(id)).cmd("GET").arg(self.keys().id(id));
        ask.cmd("ZSCORE").arg(self.keys().cancelled()).arg(id);
        let (result, marker, cancelled): (Option<String>, Option<String>, Option<String>) =
            self.link().pipeline("asking for a job", &ask).await?;
        if let Some(result) = result {
            return Ok(JobStatus::Ended(result));
        }
        let known = marker.is_some();
        let first = marker.and_then(|marker| EntryId::parse(marker).ok());
        let sought = Sought { id, first: first.or_else(|| EntryId::parse(id.to_owned()).ok()) };
        let queues = match queue {
            Some(queue) => vec![queue.to_owned()],
            None => self.queues().await?,
        };
        for queue in &queues {
            if let Some(found) = self.status_in(queue, &sought).await? {
                return Ok(found);
            }
        }
        if cancelled.is_some() {
            return Ok(JobStatus::Cancelled);
        }
        if let Some(letter) = self.letter_of(&sought).await? {
            return Ok(JobStatus::Buried(letter));
        }
        if known || sought.first.is_some() {
            for queue in &queues {
                if let Some(found) = self.moved_in(queue, &sought).await? {
                    return Ok(found);
                }
            }
        }
        Ok(if known { JobStatus::Accepted } else { JobStatus::Unknown })
    }

    async fn status_in(&self, queue: &str, sought: &Sought<'_>) -> Result<Option<JobStatus>, Error> {
        let member = format!("j:{}", sought.id);
        let mut ask = Pipeline::with_capacity(2);
        ask.cmd("ZSCORE").arg(self.keys().due(queue)).arg(&member);
        ask.cmd("HGET").arg(self.keys().deferred(queue)).arg(&member);
        let (due, packed): (Option<f64>, Option<Vec<u8>>) =
            self.link().pipeline("asking for deferred work", &ask).await?;
        if let Some(due) = due {
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "a score is a whole number of milliseconds, far below 2^53"
            )]
            let due_ms = due as u64;
            let why = packed.and_then(|packed| noted(&packed, b"_why"));
            return Ok(Some(JobStatus::Deferred { queue: queue.to_owned(), due_ms, why }));
        }
        if let Some(tier) = packed.as_deref().and_then(|packed| noted(packed, b"_line"))
            && let Some(place) = self.place_in_line(&tier, &place_of(queue, &member)).await?
        {
            let why = packed.and_then(|packed| noted(&packed, b"_why"));
            return Ok(Some(JobStatus::InLine { queue: queue.to_owned(), place, why }));
        }
        let Some(first) = &sought.first else { return Ok(None) };
        match self.entry(&self.keys().stream(queue), first.as_str()).await? {
            Some(entry) if sought.is_first(&entry) => self.standing(queue, &entry.entry).await.map(Some),
            _ => Ok(None),
        }
    }

    async fn moved_in(&self, queue: &str, sought: &Sought<'_>) -> Result<Option<JobStatus>, Error> {
        for name in [[queue, keys::FIRST].concat(), queue.to_owned()] {
            let mut ask = Cmd::new();
            ask.arg("XREVRANGE").arg(self.keys().stream(&name)).arg("+").arg("-");
            ask.arg("COUNT").arg(LOOKED_THROUGH);
            for entry in self.ask_entries("looking for moved work", &ask).await? {
                if sought.is(&entry) {
                    return self.standing(&name, &entry.entry).await.map(Some);
                }
            }
        }
        Ok(None)
    }

    async fn letter_of(&self, sought: &Sought<'_>) -> Result<Option<Letter>, Error> {
        let from = sought.first.as_ref().map_or_else(|| "-".to_owned(), |first| first.ms().to_string());
        let mut ask = Cmd::new();
        ask.arg("XRANGE").arg(self.keys().dead()).arg(from).arg("+").arg("COUNT").arg(LOOKED_THROUGH);
        let mut letters =
            self.ask_entries("looking for a dead letter", &ask).await?.into_iter().map(Letter::of);
        Ok(letters.find(|letter| sought.is_letter(letter)))
    }

    async fn standing(&self, queue: &str, entry: &EntryId) -> Result<JobStatus, Error> {
        let group = if queue == keys::RUNS { keys::SCHEDULERS } else { keys::WORKERS };
        let holder = self.holder(&self.keys().stream(queue), group, entry.as_str()).await?;
        let (queue, entry) = (keys::base_of(queue).to_owned(), entry.to_string());
        Ok(match holder {
            Some((consumer, held_ms)) => JobStatus::Running { queue, entry, consumer, held_ms },
            None => JobStatus::Queued { queue, entry },
        })
    }

    /// Who holds an entry and for how long, in milliseconds; `None` when nobody does.
    ///
    /// # Errors
    /// Redis is not reachable or refuses.
    pub async fn holder(
        &self,
        stream: &str,
        group: &str,
        entry: &str,
    ) -> Result<Option<(String, u64)>, Error> {
        let mut ask = Cmd::new();
        ask.arg("XPENDING").arg(stream).arg(group).arg(entry).arg(entry).arg(1);
        let rows: Vec<(String, String, u64, u64)> =
            match self.link().query("asking who holds an entry", &ask).await {
                Ok(rows) => rows,
                Err(error) if error.remedy() == crate::Remedy::CreateGroup => Vec::new(),
                Err(error) => return Err(error),
            };
        Ok(rows.into_iter().next().map(|(_, consumer, idle_ms, _)| (consumer, idle_ms)))
    }

    /// Audit records of a run after a cursor of [`AuditPage`], at most `limit` entries' worth.
    ///
    /// # Errors
    /// Redis is not reachable or refuses.
    pub async fn audit_page(
        &self,
        run: &str,
        cursor: Option<&str>,
        limit: usize,
    ) -> Result<AuditPage, Error> {
        let from = cursor.map_or_else(|| "-".to_owned(), |cursor| format!("({cursor}"));
        let mut ask = Cmd::new();
        ask.arg("XRANGE").arg(self.keys().audit(run)).arg(from).arg("+").arg("COUNT").arg(limit);
        let mut page = AuditPage { records: Vec::new(), cursor: cursor.map(ToOwned::to_owned) };
        for entry in self.ask_entries("reading the audit", &ask).await? {
            for (seq, record) in &entry.fields {
                let (seq, text) = (String::from_utf8_lossy(seq), String::from_utf8_lossy(record));
                let read = seq.parse().ok().and_then(|seq| AuditRecord::parse(seq, &text));
                page.records.push(read.ok_or_else(|| {
                    Error::Corrupt(format!("audit record {seq} of run {run} reads {text:?}"))
                })?);
            }
            page.cursor = Some(entry.entry.to_string());
        }
        Ok(page)
    }

    async fn ask_entries(&self, what: &'static str, ask: &Cmd) -> Result<Vec<ClaimedEntry>, Error> {
        match self.link().raw(what, ask).await? {
            Value::Array(entries) => entries.into_iter().map(entry_of).collect(),
            _ => Ok(Vec::new()),
        }
    }
}

/// A field among the packed ones of work put aside, as text.
pub(crate) fn noted(packed: &[u8], name: &[u8]) -> Option<String> {
    let fields: Vec<RawText> = rmp_serde::from_slice(packed).ok()?;
    let pair = fields.chunks_exact(2).find(|pair| pair.first().is_some_and(|found| found.0 == name))?;
    pair.get(1).map(|value| String::from_utf8_lossy(&value.0).into_owned())
}

/// Lua packs any bytes as a MessagePack string, so it need not be UTF-8.
struct RawText(Vec<u8>);

impl<'de> serde::Deserialize<'de> for RawText {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl serde::de::Visitor<'_> for Visitor {
            type Value = RawText;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("text")
            }
            fn visit_str<E>(self, text: &str) -> Result<RawText, E> {
                Ok(RawText(text.as_bytes().to_vec()))
            }
            fn visit_bytes<E>(self, bytes: &[u8]) -> Result<RawText, E> {
                Ok(RawText(bytes.to_vec()))
            }
            fn visit_u64<E>(self, number: u64) -> Result<RawText, E> {
                Ok(RawText(number.to_string().into_bytes()))
            }
            fn visit_i64<E>(self, number: i64) -> Result<RawText, E> {
                Ok(RawText(number.to_string().into_bytes()))
            }
        }
        deserializer.deserialize_bytes(Visitor)
    }
}
