//! The pool's execution mode, what happened to it, and how runs went under each: all in the home partition.
//!
//! A run takes its mode when it starts and keeps it, so a switch changes nothing for runs under way.

mod figures;

use redis::{Cmd, Value};
use serde::Serialize;
use tidemill_protocol::ExecutionMode;

use crate::functions::ModeWanted;
use crate::{Error, Partition};

pub use figures::{ModeFigures, ModeTally, Performance};

/// The most changes that are told at once.
const MOST_CHANGES: usize = 10_000;

/// The pool's mode as it stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PoolMode {
    /// The mode of runs that start now and whose workflow and caller name none.
    pub mode: ExecutionMode,
    /// The mode before, to which it can be rolled back; absent before the first switch.
    pub before: Option<ExecutionMode>,
    /// How often it was switched: whoever switches by what he saw passes this.
    pub version: u64,
    /// Since when, in Unix milliseconds; absent before the first switch.
    pub since_ms: Option<u64>,
    /// Why it was switched.
    pub reason: Option<String>,
    /// Who switched it.
    pub by: Option<String>,
}

/// One switch of the pool's mode.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ModeChange {
    /// The mode before.
    pub from: ExecutionMode,
    /// The mode since.
    pub to: ExecutionMode,
    /// When, in Unix milliseconds.
    pub timestamp: u64,
    /// Why.
    pub reason: String,
    /// Who.
    pub by: String,
    /// `switch`, `rollback` or `settings`.
    pub kind: String,
    /// The number of this switch, from 1.
    pub version: u64,
}

/// What is done to the mode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ModeMove {
    /// Switched to this one.
    Switch(ExecutionMode),
    /// Back to the one before.
    Rollback,
    /// What a process's settings say. It counts where they say something else than the last settings did, so a process that is only
    /// started again does not undo what people have switched.
    Settings(ExecutionMode),
}

/// What became of a switch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ModeMoved {
    /// It is switched.
    Switched {
        /// The mode before.
        from: ExecutionMode,
        /// The mode now.
        to: ExecutionMode,
        /// How often it was switched.
        version: u64,
    },
    /// It was so already; nothing is recorded.
    Unchanged {
        /// The mode.
        mode: ExecutionMode,
        /// How often it was switched.
        version: u64,
    },
    /// Somebody else has switched it since the caller saw it.
    Conflict {
        /// The mode now.
        mode: ExecutionMode,
        /// How often it was switched.
        version: u64,
    },
    /// It was never switched, so there is nothing to go back to.
    NothingBefore,
}

impl Partition {
    /// The mode in which runs start now. A word that this version does not know counts as [`ExecutionMode::Hybrid`]: a newer program
    /// may have written it, and runs must start.
    ///
    /// # Errors
    /// Redis is not reachable or refuses.
    pub async fn execution_mode(&self) -> Result<ExecutionMode, Error> {
        let mut ask = Cmd::new();
        ask.arg("HGET").arg(self.keys().mode()).arg("mode");
        let word: Option<String> = self.link().query("asking for the execution mode", &ask).await?;
        Ok(word.map_or_else(ExecutionMode::default, |word| {
            ExecutionMode::parse(&word).unwrap_or_else(|| {
                tracing::warn!(
                    word,
                    "the pool has an execution mode that this version does not know; runs start hybrid"
                );
                ExecutionMode::default()
            })
        }))
    }

    /// The mode with who switched it, when and why.
    ///
    /// # Errors
    /// Redis is not reachable or refuses, or what is stored is not what Tidemill writes.
    pub async fn pool_mode(&self) -> Result<PoolMode, Error> {
        let mut ask = Cmd::new();
        ask.arg("HMGET").arg(self.keys().mode());
        for field in ["mode", "before", "version", "at_ms", "why", "by"] {
            ask.arg(field);
        }
        let row: Vec<Option<String>> = self.link().query("asking for the execution mode", &ask).await?;
        let [mode, before, version, since, reason, by] = <[Option<String>; 6]>::try_from(row)
            .map_err(|_| Error::Corrupt("the mode has not six fields".to_owned()))?;
        let number = |text: Option<String>| text.and_then(|text| text.parse().ok());
        Ok(PoolMode {
            mode: mode.as_deref().map(known).transpose()?.unwrap_or_default(),
            before: before.as_deref().map(known).transpose()?,
            version: number(version).unwrap_or(0),
            since_ms: number(since),
            reason,
            by,
        })
    }

    /// Switches the mode, with its entry in the history, in one atomic call. With `seen` (a [`PoolMode::version`]) only while nobody
    /// else has switched it since: of many who do it at once, one wins.
    ///
    /// # Errors
    /// Redis is not reachable or refuses.
    pub async fn switch_mode(
        &self,
        (who, why): (&str, &str),
        wanted: ModeMove,
        seen: Option<u64>,
    ) -> Result<ModeMoved, Error> {
        let (kind, to) = match wanted {
            ModeMove::Switch(to) => ("switch", to.as_str()),
            ModeMove::Rollback => ("rollback", ""),
            ModeMove::Settings(to) => ("settings", to.as_str()),
        };
        let (code, from, to, version) = self.ask_for_mode(&ModeWanted { who, why, kind, to, seen }).await?;
        let (from, to) = (known(&from)?, known(&to)?);
        Ok(match code {
            1 => ModeMoved::Switched { from, to, version },
            2 => ModeMoved::Unchanged { mode: to, version },
            -1 => ModeMoved::NothingBefore,
            _ => ModeMoved::Conflict { mode: to, version },
        })
    }

    /// What happened to the mode, the newest first, at most so many.
    ///
    /// # Errors
    /// Redis is not reachable or refuses, or what is stored is not what Tidemill writes.
    pub async fn mode_changes(&self, limit: usize) -> Result<Vec<ModeChange>, Error> {
        let mut ask = Cmd::new();
        ask.arg("XREVRANGE").arg(self.keys().mode_changes()).arg("+").arg("-");
        ask.arg("COUNT").arg(limit.min(MOST_CHANGES));
        let Value::Array(entries) = self.link().raw("reading the history of the mode", &ask).await? else {
            return Ok(Vec::new());
        };
        entries.into_iter().map(change_of).collect()
    }
}

fn change_of(entry: Value) -> Result<ModeChange, Error> {
    let entry = crate::claims::entry_of(entry)?;
    let field = |name: &str| {
        let found = entry.fields.iter().find(|(field, _)| &**field == name.as_bytes());
        found.map(|(_, value)| String::from_utf8_lossy(value).into_owned()).unwrap_or_default()
    };
    Ok(ModeChange {
        from: known(&field("from"))?,
        to: known(&field("to"))?,
        timestamp: field("at_ms").parse().unwrap_or(0),
        reason: field("why"),
        by: field("by"),
        kind: field("kind"),
        version: field("version").parse().unwrap_or(0),
    })
}

fn known(word: &str) -> Result<ExecutionMode, Error> {
    word.parse().map_err(|error| Error::Corrupt(format!("what is stored of the pool's mode: {error}")))
}
