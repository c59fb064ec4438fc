//! What is paused: runs, workflows and queues. Whatever runs goes on to its end; what would begin is put aside until it is resumed.

use std::collections::BTreeMap;

use redis::Cmd;
use serde::{Deserialize, Serialize};

use crate::inspect::noted;
use crate::{Error, Operation, Partition, keys};

/// Work put aside that is looked through together.
const AT_ONCE: usize = 500;

/// What is paused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PauseOf<'a> {
    /// A run.
    Run(&'a str),
    /// All runs of a workflow, and those that would start.
    Workflow(&'a str),
    /// A queue: workers claim nothing of it.
    Queue(&'a str),
}

/// Who has paused it, when and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PauseNote {
    /// Who.
    pub by: String,
    /// Why.
    pub why: String,
    /// When, in Unix milliseconds.
    pub at_ms: u64,
    /// Of a run: the run that was paused, which is itself or one that it is a part of.
    #[serde(default)]
    pub run: String,
}

/// What became of a pause or its end.
#[must_use]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PauseAnswer {
    /// It is so now.
    Done,
    /// It was so already.
    Already,
    /// The run has ended, or is ending.
    RunEnded,
    /// There is no such run.
    RunGone,
}

/// The workflows and queues that are paused.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Paused {
    /// By name.
    pub workflows: BTreeMap<String, PauseNote>,
    /// By name.
    pub queues: BTreeMap<String, PauseNote>,
}

impl PauseOf<'_> {
    /// As operations name it.
    #[must_use]
    pub fn subject(self) -> String {
        match self {
            Self::Run(id) => id.to_owned(),
            Self::Workflow(name) => format!("workflow {name}"),
            Self::Queue(name) => format!("queue {name}"),
        }
    }

    /// The note at work that was put aside for it.
    #[must_use]
    pub fn reason(self) -> String {
        match self {
            Self::Run(id) => format!("run {id} is paused"),
            Self::Workflow(_) | Self::Queue(_) => format!("{} is paused", self.subject()),
        }
    }
}

impl Partition {
    /// Pauses (with a note) or resumes. A run in its partition, everything else in the home partition. An operation without a kind
    /// is not noted.
    ///
    /// # Errors
    /// Redis is not reachable or refuses.
    pub async fn pause(
        &self,
        of: PauseOf<'_>,
        note: Option<&PauseNote>,
        operation: &Operation<'_>,
    ) -> Result<PauseAnswer, Error> {
        let text = note.map(serde_json::to_string).transpose();
        let text = text.map_err(|error| Error::Corrupt(error.to_string()))?.unwrap_or_default();
        let (holder, field) = match of {
            PauseOf::Run(id) => (self.keys().run(id), "pz".to_owned()),
            PauseOf::Workflow(_) | PauseOf::Queue(_) => (self.keys().paused(), of.subject()),
        };
        Ok(match self.call_pause((&holder, &field, &text), operation).await? {
            1 => PauseAnswer::Done,
            2 => PauseAnswer::Already,
            -1 => PauseAnswer::RunEnded,
            _ => PauseAnswer::RunGone,
        })
    }

    /// The workflows and queues that are paused; ask the home partition.
    ///
    /// # Errors
    /// Redis is not reachable or refuses.
    pub async fn paused(&self) -> Result<Paused, Error> {
        let mut ask = Cmd::new();
        ask.arg("HGETALL").arg(self.keys().paused());
        let rows: BTreeMap<String, String> = self.link().query("asking what is paused", &ask).await?;
        let mut paused = Paused::default();
        for (field, text) in rows {
            // what cannot be read was written by another program: it is paused all the same
            let note = serde_json::from_str(&text).unwrap_or_else(|_| PauseNote {
                by: "?".to_owned(),
                why: text,
                at_ms: 0,
                run: String::new(),
            });
            if let Some(name) = field.strip_prefix("workflow ") {
                paused.workflows.insert(name.to_owned(), note);
            } else if let Some(name) = field.strip_prefix("queue ") {
                paused.queues.insert(name.to_owned(), note);
            }
        }
        Ok(paused)
    }

    /// Work that was put aside with this note (see [`PauseOf::reason`]) is due now. Replies how much.
    ///
    /// # Errors
    /// Redis is not reachable or refuses.
    pub async fn wake_noted(&self, reason: &str) -> Result<u64, Error> {
        let mut queues = self.queues().await?;
        queues.push(keys::RUNS.to_owned());
        let mut woken = 0;
        for queue in &queues {
            let mut cursor = "0".to_owned();
            loop {
                let (next, members) = self.noted_page(queue, &cursor, reason).await?;
                woken += self.make_due(queue, &members).await?;
                if next == "0" {
                    break;
                }
                cursor = next;
            }
        }
        Ok(woken)
    }

    async fn noted_page(
        &self,
        queue: &str,
        cursor: &str,
        reason: &str,
    ) -> Result<(String, Vec<String>), Error> {
        let mut scan = Cmd::new();
        scan.arg("HSCAN").arg(self.keys().deferred(queue)).arg(cursor).arg("COUNT").arg(AT_ONCE);
        let (next, flat): (String, Vec<Vec<u8>>) =
            self.link().query("looking through work put aside", &scan).await?;
        let pairs = flat.chunks_exact(2);
        let members = pairs.filter(|pair| noted(&pair[1], b"_why").as_deref() == Some(reason));
        Ok((next, members.map(|pair| String::from_utf8_lossy(&pair[0]).into_owned()).collect()))
    }

    /// Work put aside is due now, where it still is. Replies how much.
    ///
    /// # Errors
    /// Redis is not reachable or refuses.
    pub async fn make_due(&self, queue: &str, members: &[String]) -> Result<u64, Error> {
        if members.is_empty() {
            return Ok(0);
        }
        let mut add = Cmd::new();
        add.arg("ZADD").arg(self.keys().due(queue)).arg("XX").arg("CH");
        for member in members {
            add.arg(0).arg(member);
        }
        self.link().query("making work due", &add).await
    }
}
