//! What a backup is made of. Records are `MessagePack`; a new kind of record needs a new format.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

/// Names with values, or members with scores.
pub(super) type Pairs = Vec<(Bytes, Bytes)>;
/// A string's name behind its pattern, the milliseconds that it has left, its value.
pub(super) type Text = (Bytes, Option<u64>, Bytes);

/// The head of a backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// The namespace that it was made of.
    pub namespace: String,
    /// How many partitions that had.
    pub partitions: u32,
    /// When it was begun, in Unix milliseconds by Redis's clock.
    pub created_ms: u64,
    /// The version of Tidemill that made it.
    pub version: String,
    /// Whether results are in it.
    pub has_results: bool,
}

/// What is in a backup.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Runs, those included that have not ended.
    pub runs: u64,
    /// Of them, those that have not ended.
    pub live_runs: u64,
    /// Audit records.
    pub audit_records: u64,
    /// Steps and items in flight.
    pub in_flight: u64,
    /// Plain jobs and requested runs; one that moved while it was read may count twice.
    pub jobs: u64,
    /// By kind of key, how many keys or entries of it were copied.
    pub copied: BTreeMap<String, u64>,
}

/// One record.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) enum Record {
    /// First.
    Header(Header),
    /// Strings of one kind.
    Texts { kind: String, partition: u32, texts: Vec<Text> },
    /// A key of another type; its content follows.
    Key { kind: String, partition: u32, name: Bytes, ttl_ms: Option<u64> },
    /// Content of the last key: fields, members with scores, or members with nothing.
    Rows(Pairs),
    /// Content of the last key: entries of a stream.
    Entries(Vec<(String, Pairs)>),
    /// A plain job, or a requested run, in its stream.
    Job { partition: u32, queue: String, entry: String, fields: Pairs },
    /// One that was put aside.
    Aside { partition: u32, queue: String, member: Bytes, fields: Bytes, place: Place },
    /// A run begins; its content follows until [`Record::RunEnd`] or [`Record::Dropped`].
    Run { partition: u32, id: String },
    /// Its reading begins anew: what came since [`Record::Run`] does not count.
    Again,
    /// It is gone: nothing of it counts.
    Dropped,
    /// Fields of the run, or of the items of its last [`Record::Items`].
    Fields(Pairs),
    /// Items of a `for_each` follow.
    Items { step: u32, ttl_ms: Option<u64> },
    /// A key beside the run, all of it.
    Beside { kind: String, ttl_ms: Option<u64>, rows: Pairs },
    /// Entries of the run's audit.
    Audit(Vec<(String, Pairs)>),
    /// A step or an item in flight.
    Flight(Flight),
    /// The run is complete. A live one has its deadline, `inf` for none.
    RunEnd { ttl_ms: Option<u64>, deadline: Option<f64> },
    /// What should have been read.
    Counts(Counts),
    /// Last: the SHA-256 of all that came before.
    Trailer(Bytes),
}

/// Where work stands.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) enum Place {
    /// In its queue's stream.
    Queued,
    /// Put aside until a Unix time in milliseconds.
    Due(u64),
    /// In a line, with its score there.
    Line { tier: String, score: f64 },
}

/// A step or an item in flight.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Flight {
    pub(super) step: u32,
    pub(super) item: Option<u64>,
    /// The stream's name, of which the queue is the base.
    pub(super) queue: String,
    /// Its record as stored.
    pub(super) record: String,
    /// Its name among work put aside.
    pub(super) member: String,
    pub(super) place: Place,
    /// Its entry's fields: in a stream as pairs, else as they were packed, under an empty name.
    pub(super) fields: Pairs,
}
