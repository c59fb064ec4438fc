//! Reading what is stored about runs and results.

use std::collections::{BTreeMap, HashMap};

use bytes::Bytes;
use redis::{Cmd, Pipeline, Value};
use serde::Serialize;
use tidemill_protocol::{AuditRecord, ExecutionMode, Labels, RunState, StepRecord, seal, unseal};

use crate::{Error, Partition, Spent};

/// A run with all its steps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunRecord {
    /// The run's id.
    pub id: String,
    /// Where it stands.
    pub state: RunState,
    /// Its workflow as `name@version`.
    pub workflow: String,
    /// When it started, in Unix milliseconds.
    pub started_ms: u64,
    /// When it ended.
    pub ended_ms: Option<u64>,
    /// Owner.
    pub tenant: Option<String>,
    /// For whom it is done.
    pub user: Option<String>,
    /// The place of its steps in lines, 0 to 9, where it names one.
    pub priority: Option<u8>,
    /// W3C trace context.
    pub traceparent: Option<String>,
    /// What it is found by.
    pub labels: Labels,
    /// The group that it belongs to.
    pub group: Option<String>,
    /// How its steps are carried out.
    pub mode: ExecutionMode,
    /// What was used of its budget by it and all that it started.
    pub spent: Spent,
    /// Its input, JSON text.
    pub input: Vec<u8>,
    /// Its output, JSON text.
    pub output: Option<Vec<u8>>,
    /// Its error, JSON text of code and message.
    pub error: Option<String>,
    /// The sequence number of its last audit record.
    pub seq: u64,
    /// Steps that have ended.
    pub done: u64,
    /// The stream that gets its result.
    pub reply_to: Option<String>,
    /// Records of steps that became ready at least once, by index.
    pub steps: BTreeMap<u32, StepRecord>,
    /// Outputs of steps, JSON text.
    pub outputs: BTreeMap<u32, Vec<u8>>,
    /// Errors of steps, JSON text.
    pub errors: BTreeMap<u32, String>,
    /// The queue of the steps that name none, where the caller named one.
    pub queue: Option<String>,
    /// Who has paused it, when and why: JSON text.
    pub paused: Option<String>,
    /// The run whose steps it was given.
    pub source: Option<String>,
    /// What steps that wait remember, JSON text.
    pub memos: BTreeMap<u32, Vec<u8>>,
    /// What they wait for, or waited for last, as a person reads it.
    pub whys: BTreeMap<u32, String>,
    /// Items of a `for_each`: total, dispatched, ended, failed.
    pub items: BTreeMap<u32, [u64; 4]>,
}

/// One line about a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RunSummary {
    /// The run's id.
    pub id: String,
    /// Where it stands.
    pub state: RunState,
    /// Its workflow as `name@version`.
    pub workflow: String,
    /// When it started, in Unix milliseconds.
    pub started_ms: u64,
    /// When it ended.
    pub ended_ms: Option<u64>,
}

/// The most cancellations that are remembered.
const CANCELLED_CAP: i64 = 100_000;

fn text(value: &[u8]) -> String {
    String::from_utf8_lossy(value).into_owned()
}

impl RunRecord {
    fn of(id: &str, fields: HashMap<String, Vec<u8>>) -> Option<Self> {
        let state = RunState::parse(&text(fields.get("st")?))?;
        let mut run = Self {
            id: id.to_owned(),
            state,
            workflow: String::new(),
            started_ms: 0,
            ended_ms: None,
            tenant: None,
            user: None,
            priority: None,
            traceparent: None,
            labels: Labels::default(),
            group: None,
            mode: ExecutionMode::default(),
            spent: Spent::default(),
            input: Vec::new(),
            output: None,
            error: None,
            seq: 0,
            done: 0,
            reply_to: None,
            steps: BTreeMap::new(),
            outputs: BTreeMap::new(),
            errors: BTreeMap::new(),
            queue: None,
            paused: None,
            source: None,
            memos: BTreeMap::new(),
            whys: BTreeMap::new(),
            items: BTreeMap::new(),
        };
        let mut output_of = None;
        for (name, value) in fields {
            match name.as_str() {
                "wf" => run.workflow = text(&value),
                "t1" => run.started_ms = text(&value).parse().unwrap_or(0),
                "t2" => run.ended_ms = text(&value).parse().ok(),
                "ten" => run.tenant = Some(text(&value)),
                "usr" => run.user = Some(text(&value)),
                "pri" => run.priority = text(&value).parse().ok(),
                "tp" => run.traceparent = Some(text(&value)),
                "lb" | "qu" | "pz" | "src" | "grp" | "md" | "bs" | "bc" => run.mark(&name, &value),
                "in" => run.input = value,
                "out" => run.output = Some(value),
                "err" => run.error = Some(text(&value)),
                "q" => run.seq = text(&value).parse().unwrap_or(0),
                "d" => run.done = text(&value).parse().unwrap_or(0),
                "rp" => run.reply_to = Some(text(&value)),
                "ref" => output_of = text(&value).parse::<u32>().ok(),
                _ => run.step_field(&name, value),
            }
        }
        if run.output.is_none() {
            run.output = output_of.and_then(|step| run.outputs.get(&step).cloned());
        }
        Some(run)
    }

    /// What is kept of few runs.
    fn mark(&mut self, name: &str, value: &[u8]) {
        let number = || text(value).parse().unwrap_or(0);
        match name {
            "lb" => self.labels = Labels::stored(value),
            "qu" => self.queue = Some(text(value)),
            "pz" => self.paused = Some(text(value)),
            "src" => self.source = Some(text(value)),
            "grp" => self.group = Some(text(value)),
            "md" => self.mode = ExecutionMode::parse(&text(value)).unwrap_or_default(),
            "bs" => self.spent.steps = number(),
            "bc" => self.spent.cost_micros = number(),
            _ => {}
        }
    }

    fn step_field(&mut self, name: &str, value: Vec<u8>) {
        let mut letters = name.chars();
        let (Some(kind), Ok(step)) = (letters.next(), letters.as_str().parse::<u32>()) else { return };
        let mut count = |place: usize| {
            self.items.entry(step).or_default()[place] = text(&value).parse().unwrap_or(0);
        };
        match kind {
            's' => {
                if let Some(record) = StepRecord::parse(&text(&value)) {
                    self.steps.insert(step, record);
                }
            }
            'o' => {
                self.outputs.insert(step, value);
            }
            'e' => {
                self.errors.insert(step, text(&value));
            }
            'w' => {
                self.memos.insert(step, value);
            }
            'y' => {
                self.whys.insert(step, text(&value));
            }
            'n' => count(0),
            'u' => count(1),
            'g' => count(2),
            'h' => count(3),
            _ => {}
        }
    }
}

/// Redis refuses to keep anything for much longer than this, in milliseconds (285,000 years).
const LONGEST_MS: u64 = 9_000_000_000_000_000;

/// A stored text of an item.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ItemText {
    /// There is none.
    Missing,
    /// It is not what was written: it must not be used.
    Damaged,
    /// The text.
    Text(Bytes),
}

impl ItemText {
    pub(crate) fn read(field: &str, value: Option<Vec<u8>>) -> Self {
        match value {
            None => Self::Missing,
            // an item without an output has an empty one
            Some(text) if text.is_empty() || !field.starts_with(['i', 'o']) => Self::Text(text.into()),
            Some(text) => {
                unseal(&text).map_or(Self::Damaged, |read| Self::Text(Bytes::copy_from_slice(read)))
            }
        }
    }

    /// The text; what is damaged is as good as missing.
    #[must_use]
    pub fn text(self) -> Option<Bytes> {
        match self {
            Self::Text(text) => Some(text),
            Self::Missing | Self::Damaged => None,
        }
    }
}

impl Partition {
    /// A run with all its steps. Large runs make a large reply; engines use [`Self::run_fields`].
    ///
    /// # Errors
    /// Redis is not reachable or refuses.
    pub async fn run(&self, id: &str) -> Result<Option<RunRecord>, Error> {
        let mut ask = Cmd::new();
        ask.arg("HGETALL").arg(self.keys().run(id));
        let fields: HashMap<String, Vec<u8>> = self.link().query("reading a run", &ask).await?;
        Ok(RunRecord::of(id, fields))
    }

    /// Chosen fields of several runs in one round trip, for the worker: what a step's expressions need.
    ///
    /// # Errors
    /// Redis is not reachable or refuses.
    pub async fn run_fields(
        &self,
        wanted: &[(String, Vec<String>)],
    ) -> Result<Vec<Vec<Option<Bytes>>>, Error> {
        let mut ask = Pipeline::with_capacity(wanted.len());
        for (key, fields) in wanted {
            ask.cmd("HMGET").arg(key);
            for field in fields {
                ask.arg(field);
            }
        }
        if wanted.is_empty() {
            return Ok(Vec::new());
        }
        let replies: Vec<Vec<Option<Vec<u8>>>> = self.link().pipeline("reading steps", &ask).await?;
        Ok(replies
            .into_iter()
            .map(|row| row.into_iter().map(|value| value.map(Bytes::from)).collect())
            .collect())
    }

    /// Writes texts of a `for_each`'s items (inputs, before it is expanded, and outputs put by), each with its checksum.
    ///
    /// # Errors
    /// Redis is not reachable or refuses.
    pub async fn write_items(
        &self,
        run: &str,
        step: u32,
        fields: &[(String, &[u8])],
        keep_ms: u64,
    ) -> Result<(), Error> {
        let key = self.keys().items(run, step);
        let mut set = Pipeline::with_capacity(2);
        set.cmd("HSET").arg(&key);
        for (name, value) in fields {
            set.arg(name).arg(seal(value));
        }
        set.ignore().cmd("PEXPIRE").arg(&key).arg(keep_ms.min(LONGEST_MS)).ignore();
        self.link().pipeline("writing items", &set).await
    }

    /// Keeps the items of a run's `for_each` steps for this much longer, no matter how long they were to be kept.
    ///
    /// # Errors
    /// Redis is not reachable or refuses.
    pub async fn keep_items(&self, run: &str, steps: &[u32], keep_ms: u64) -> Result<(), Error> {
        if steps.is_empty() {
            return Ok(());
        }
        let mut all = Pipeline::with_capacity(steps.len());
        for step in steps {
            all.cmd("PEXPIRE").arg(self.keys().items(run, *step)).arg(keep_ms.min(LONGEST_MS)).ignore();
        }
        self.link().pipeline("keeping items", &all).await
    }

    /// Fields of a run's items: inputs (`i<n>`) and outputs (`o<n>`) are checked against their checksums.
    ///
    /// # Errors
    /// Redis is not reachable or refuses.
    pub async fn items(&self, run: &str, step: u32, fields: &[String]) -> Result<Vec<ItemText>, Error> {
        if fields.is_empty() {
            return Ok(Vec::new());
        }
        let mut ask = Cmd::new();
        ask.arg("HMGET").arg(self.keys().items(run, step)).arg(fields);
        let values: Vec<Option<Vec<u8>>> = self.link().query("reading items", &ask).await?;
        Ok(values.into_iter().zip(fields).map(|(value, field)| ItemText::read(field, value)).collect())
    }

    /// A run's audit records after a sequence number, oldest first; at most about `limit` entries' worth.
    ///
    /// # Errors
    /// Redis is not reachable or refuses.
    pub async fn audit(&self, run: &str, after: u64, limit: usize) -> Result<Vec<AuditRecord>, Error> {
        let key = self.keys().audit(run);
        let (mut from, mut records) = ("-".to_owned(), Vec::new());
        loop {
            let mut ask = Cmd::new();
            ask.arg("XRANGE").arg(&key).arg(&from).arg("+").arg("COUNT").arg(500);
            let Value::Array(entries) = self.link().raw("reading the audit", &ask).await? else { break };
            let full = entries.len() == 500;
            for entry in entries {
                let entry = crate::claims::entry_of(entry)?;
                from = format!("({}", entry.entry);
                for (seq, record) in entry.fields {
                    let seq = text(&seq).parse().unwrap_or(0);
                    if seq > after {
                        let text = text(&record);
                        let record = AuditRecord::parse(seq, &text);
                        records.push(record.ok_or_else(|| {
                            Error::Corrupt(format!("audit record {seq} of run {run} reads {text:?}"))
                        })?);
                    }
                }
            }
            if !full || records.len() >= limit {
                break;
            }
        }
        Ok(records)
    }

    /// A stored result, JSON text.
    ///
    /// # Errors
    /// Redis is not reachable or refuses.
    pub async fn result(&self, id: &str) -> Result<Option<String>, Error> {
        let mut ask = Cmd::new();
        ask.arg("GET").arg(self.keys().result(id));
        self.link().query("reading a result", &ask).await
    }

    /// Runs that have not ended, by deadline; from `offset`.
    ///
    /// # Errors
    /// Redis is not reachable or refuses.
    pub async fn live_runs(&self, offset: usize, limit: usize) -> Result<Vec<String>, Error> {
        let mut ask = Cmd::new();
        ask.arg("ZRANGE").arg(self.keys().live()).arg(offset).arg(offset + limit.max(1) - 1);
        self.link().query("listing runs", &ask).await
    }

    /// Runs whose deadline has passed.
    ///
    /// # Errors
    /// Redis is not reachable or refuses.
    pub async fn overdue_runs(&self, now_ms: u64, limit: usize) -> Result<Vec<String>, Error> {
        let mut ask = Cmd::new();
        ask.arg("ZRANGEBYSCORE")
            .arg(self.keys().live())
            .arg("-inf")
            .arg(now_ms)
            .arg("LIMIT")
            .arg(0)
            .arg(limit);
        self.link().query("asking which runs are overdue", &ask).await
    }

    /// Runs that ended, newest first; from `offset`. Their records may have expired.
    ///
    /// # Errors
    /// Redis is not reachable or refuses.
    pub async fn ended_runs(&self, offset: usize, limit: usize) -> Result<Vec<String>, Error> {
        let mut ask = Cmd::new();
        ask.arg("ZREVRANGE").arg(self.keys().ended()).arg(offset).arg(offset + limit.max(1) - 1);
        self.link().query("listing ended runs", &ask).await
    }

    /// How many runs live and how many ended ones are kept.
    ///
    /// # Errors
    /// Redis is not reachable or refuses.
    pub async fn run_counts(&self) -> Result<(u64, u64), Error> {
        let mut ask = Pipeline::with_capacity(2);
        ask.cmd("ZCARD").arg(self.keys().live()).cmd("ZCARD").arg(self.keys().ended());
        self.link().pipeline("counting runs", &ask).await
    }

    /// One line about each run; runs that are gone are left out.
    ///
    /// # Errors
    /// Redis is not reachable or refuses.
    pub async fn summaries(&self, ids: &[String]) -> Result<Vec<RunSummary>, Error> {
        let names = ["st", "wf", "t1", "t2"].map(str::to_owned).to_vec();
        let wanted: Vec<_> = ids.iter().map(|id| (self.keys().run(id), names.clone())).collect();
        let rows = self.run_fields(&wanted).await?;
        let read = |(id, row): (&String, Vec<Option<Bytes>>)| {
            let word = |at: usize| row.get(at).and_then(Option::as_ref).map(|value| text(value));
            Some(RunSummary {
                id: id.clone(),
                state: RunState::parse(&word(0)?)?,
                workflow: word(1)?,
                started_ms: word(2)?.parse().unwrap_or(0),
                ended_ms: word(3).and_then(|ms| ms.parse().ok()),
            })
        };
        Ok(ids.iter().zip(rows).filter_map(read).collect())
    }

    /// Deletes ended runs beyond `keep` and index entries older than `before_ms`; replies how many.
    ///
    /// # Errors
    /// Redis is not reachable or refuses.
    pub async fn trim_ended(&self, keep: u64, before_ms: u64, limit: usize) -> Result<u64, Error> {
        let ended = self.keys().ended();
        let mut ask = Pipeline::with_capacity(3);
        ask.cmd("ZCARD").arg(&ended);
        ask.cmd("ZRANGEBYSCORE")
            .arg(&ended)
            .arg("-inf")
            .arg(format!("({before_ms}"))
            .arg("LIMIT")
            .arg(0)
            .arg(limit);
        let (count, mut gone): (u64, Vec<String>) =
            self.link().pipeline("asking which runs are old", &ask).await?;
        let surplus = usize::try_from(count.saturating_sub(keep)).unwrap_or(limit).min(limit);
        if surplus > gone.len() {
            let mut oldest = Cmd::new();
            oldest.arg("ZRANGE").arg(&ended).arg(0).arg(surplus - 1);
            gone = self.link().query("asking which runs are oldest", &oldest).await?;
        }
        if gone.is_empty() {
            return Ok(0);
        }
        let mut named = Cmd::new();
        named.arg("HMGET").arg(self.keys().labelled()).arg(&gone);
        let labels: Vec<Option<String>> =
            self.link().query("asking for the labels of old runs", &named).await?;
        let mut drop = Pipeline::with_capacity(gone.len() + 3);
        for (run, labels) in gone.iter().zip(&labels) {
            let keys = self.keys();
            drop.cmd("UNLINK").arg(keys.run(run)).arg(keys.audit(run)).arg(keys.children(run)).ignore();
            for label in Labels::stored(labels.as_deref().unwrap_or_default().as_bytes()).words() {
                drop.cmd("ZREM").arg(keys.label(&label)).arg(run).ignore();
            }
        }
        drop.cmd("HDEL").arg(self.keys().labelled()).arg(&gone).ignore();
        drop.cmd("ZREM").arg(self.keys().started()).arg(&gone).ignore();
        drop.cmd("ZREM").arg(&ended).arg(&gone).ignore();
        self.link().pipeline::<()>("deleting old runs", &drop).await?;
        Ok(gone.len() as u64)
    }

    /// Forgets cancellations older than `before_ms`, and the oldest of more than 100,000.
    ///
    /// # Errors
    /// Redis is not reachable or refuses.
    pub async fn trim_cancelled(&self, before_ms: u64) -> Result<u64, Error> {
        let cancelled = self.keys().cancelled();
        let mut both = Pipeline::with_capacity(2);
        both.cmd("ZREMRANGEBYSCORE").arg(&cancelled).arg("-inf").arg(format!("({before_ms}"));
        both.cmd("ZREMRANGEBYRANK").arg(&cancelled).arg(0).arg(-CANCELLED_CAP - 1);
        let (old, surplus): (u64, u64) = self.link().pipeline("forgetting cancellations", &both).await?;
        Ok(old + surplus)
    }
}
