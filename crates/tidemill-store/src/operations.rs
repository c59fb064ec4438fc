//! What people did by hand, with who and why: one stream in each partition, that of the run where it was done to one.

use redis::{Cmd, Value};
use serde::Serialize;

use crate::{Error, Partition};

/// Operations kept in each partition, about.
const KEPT: u64 = 100_000;
/// The most that are told at once.
const MOST_TOLD: usize = 10_000;

/// Something done by hand.
#[derive(Debug, Clone, Copy, Default)]
pub struct Operation<'a> {
    /// What: `skip`, `retry`, `rerun`, `approve`, `reject`, `cancel`, `pause`, `resume`, …
    pub kind: &'a str,
    /// To what: a run's id, or `workflow <name>`, `queue <name>`.
    pub subject: &'a str,
    /// The step, where it was one.
    pub step: &'a str,
    /// Who.
    pub by: &'a str,
    /// Why.
    pub why: &'a str,
}

/// One of them as it is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct OperationRecord {
    /// Its entry in the stream.
    pub id: String,
    /// When, in Unix milliseconds.
    pub at_ms: u64,
    /// What.
    pub kind: String,
    /// To what.
    pub subject: String,
    /// The step, where it was one.
    pub step: String,
    /// Who.
    pub by: String,
    /// Why.
    pub why: String,
}

impl Partition {
    /// Notes an operation that no function notes by itself.
    ///
    /// # Errors
    /// Redis is not reachable or refuses.
    pub async fn note_operation(&self, operation: &Operation<'_>) -> Result<(), Error> {
        let Operation { kind, subject, step, by, why } = operation;
        let mut add = Cmd::new();
        add.arg("XADD").arg(self.keys().operations()).arg("MAXLEN").arg("~").arg(KEPT).arg("*");
        for (name, value) in [("kind", kind), ("subject", subject), ("step", step), ("by", by), ("why", why)]
        {
            add.arg(name).arg(*value);
        }
        self.link().query("noting an operation", &add).await
    }

    /// Operations, the newest first, at most so many.
    ///
    /// # Errors
    /// Redis is not reachable or refuses.
    pub async fn operations(&self, limit: usize) -> Result<Vec<OperationRecord>, Error> {
        let mut ask = Cmd::new();
        ask.arg("XREVRANGE").arg(self.keys().operations()).arg("+").arg("-");
        ask.arg("COUNT").arg(limit.min(MOST_TOLD));
        let Value::Array(entries) = self.link().raw("reading operations", &ask).await? else {
            return Ok(Vec::new());
        };
        entries.into_iter().map(record_of).collect()
    }
}

fn record_of(entry: Value) -> Result<OperationRecord, Error> {
    let entry = crate::claims::entry_of(entry)?;
    let field = |name: &str| {
        let found = entry.fields.iter().find(|(field, _)| &**field == name.as_bytes());
        found.map(|(_, value)| String::from_utf8_lossy(value).into_owned()).unwrap_or_default()
    };
    Ok(OperationRecord {
        id: entry.entry.as_str().to_owned(),
        at_ms: entry.entry.ms(),
        kind: field("kind"),
        subject: field("subject"),
        step: field("step"),
        by: field("by"),
        why: field("why"),
    })
}
