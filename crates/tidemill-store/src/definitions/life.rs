//! Publishing a version, moving it on, and what happened to versions.

use redis::{Cmd, Value};
use serde::Serialize;

use super::VersionState;
use super::digest::digest_of;
use crate::functions::{VersionStep, VersionStepped};
use crate::{Error, Partition};

/// Changes that are told at once at most.
const MOST_CHANGES: usize = 10_000;

/// A definition that is to be published.
#[derive(Debug, Clone, Copy)]
pub struct Publication<'a> {
    /// The workflow's name.
    pub name: &'a str,
    /// The version.
    pub version: u32,
    /// The definition as JSON or YAML text.
    pub source: &'a str,
    /// [`VersionState::Draft`], or [`VersionState::Active`].
    pub state: VersionState,
    /// Who publishes it, for the audit.
    pub who: &'a str,
    /// Why.
    pub why: &'a str,
}

/// What became of a publication.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Publishing {
    /// It is published.
    New,
    /// The same text was published before, and is in this state now.
    Before(VersionState),
    /// The version is published with another text, which never changes.
    Taken,
}

/// A move of a published version, by who saw it in the state `from`.
#[derive(Debug, Clone, Copy)]
pub struct VersionMove<'a> {
    /// The workflow's name.
    pub name: &'a str,
    /// The version.
    pub version: u32,
    /// Where it was seen.
    pub from: VersionState,
    /// Where it goes.
    pub to: VersionState,
    /// Who moves it, for the audit.
    pub who: &'a str,
    /// Why.
    pub why: &'a str,
}

/// What became of a move.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VersionMoved {
    /// It is where it was to go.
    Moved,
    /// It was not in the state `from`, but in this one (none: it is not there): somebody else has moved it meanwhile.
    Conflict(Option<VersionState>),
    /// There is no such move in the life of a version.
    Illegal,
}

/// Something that happened to a version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct VersionChange {
    /// Its place in the stream.
    pub entry: String,
    /// The workflow's name.
    pub workflow: String,
    /// The version.
    pub version: u32,
    /// Its state before; `-` when it was published.
    pub from: String,
    /// Its state since; the same as before when a damaged text was mended.
    pub to: String,
    /// Why.
    pub why: String,
    /// Who did it.
    pub by: String,
    /// When, in Unix milliseconds.
    pub at_ms: u64,
}

impl Partition {
    /// Publishes a definition as the active version. `false`: this version exists already with another text (nothing changed); publishing
    /// the same text again is fine.
    ///
    /// # Errors
    /// Redis is not reachable or refuses.
    pub async fn publish(&self, name: &str, version: u32, source: &str) -> Result<bool, Error> {
        let (state, who, why) = (VersionState::Active, "-", "published");
        let published = self.publish_as(&Publication { name, version, source, state, who, why }).await?;
        Ok(published != Publishing::Taken)
    }

    /// Publishes a definition, as a draft or as an active version, in one atomic call with its audit entry. A text that was published
    /// before and is damaged in Redis is mended.
    ///
    /// # Errors
    /// Redis is not reachable or refuses.
    pub async fn publish_as(&self, publication: &Publication<'_>) -> Result<Publishing, Error> {
        let Publication { name, version, source, state, who, why } = *publication;
        let digest = digest_of(source.as_bytes());
        let (to, text) = (state.as_str(), source);
        let step = VersionStep { who, why, name, version, from: "-", to, digest: &digest, text };
        Ok(match self.step_version(&step).await? {
            VersionStepped::Moved => Publishing::New,
            VersionStepped::PublishedBefore(word) => Publishing::Before(known(&word)?),
            VersionStepped::Refused(_) => Publishing::Taken,
        })
    }

    /// Moves a version in its life, with its audit entry, unless it stands otherwise than the caller saw it: of many who move it at
    /// once, one wins.
    ///
    /// # Errors
    /// Redis is not reachable or refuses.
    pub async fn move_version(&self, wanted: &VersionMove<'_>) -> Result<VersionMoved, Error> {
        let VersionMove { name, version, from, to, who, why } = *wanted;
        if !from.may_become(to) {
            return Ok(VersionMoved::Illegal);
        }
        let (from, to) = (from.as_str(), to.as_str());
        let step = VersionStep { who, why, name, version, from, to, digest: "", text: "" };
        Ok(match self.step_version(&step).await? {
            VersionStepped::Moved => VersionMoved::Moved,
            VersionStepped::Refused(word) | VersionStepped::PublishedBefore(word) => {
                VersionMoved::Conflict(if word == "-" { None } else { Some(known(&word)?) })
            }
        })
    }

    /// What happened to versions of workflows, the newest first; of one workflow, if it is named.
    ///
    /// # Errors
    /// Redis is not reachable or refuses.
    pub async fn version_changes(
        &self,
        name: Option<&str>,
        limit: usize,
    ) -> Result<Vec<VersionChange>, Error> {
        let (mut before, mut changes) = ("+".to_owned(), Vec::new());
        loop {
            let mut ask = Cmd::new();
            ask.arg("XREVRANGE").arg(self.keys().workflow_changes()).arg(&before).arg("-");
            ask.arg("COUNT").arg(MOST_CHANGES.min(500));
            let Value::Array(entries) = self.link().raw("reading what happened to workflows", &ask).await?
            else {
                return Ok(changes);
            };
            let full = entries.len() == 500;
            for entry in entries {
                let entry = crate::claims::entry_of(entry)?;
                before = format!("({}", entry.entry);
                let field = |name: &str| {
                    let found = entry.fields.iter().find(|(field, _)| &**field == name.as_bytes());
                    found.map(|(_, value)| String::from_utf8_lossy(value).into_owned()).unwrap_or_default()
                };
                let workflow = field("workflow");
                if name.is_some_and(|name| name != workflow) {
                    continue;
                }
                changes.push(VersionChange {
                    entry: entry.entry.to_string(),
                    workflow,
                    version: field("version").parse().unwrap_or(0),
                    from: field("from"),
                    to: field("to"),
                    why: field("why"),
                    by: field("by"),
                    at_ms: field("at_ms").parse().unwrap_or(0),
                });
                if changes.len() == limit {
                    return Ok(changes);
                }
            }
            if !full {
                return Ok(changes);
            }
        }
    }
}

fn known(word: &str) -> Result<VersionState, Error> {
    VersionState::parse(word)
        .ok_or_else(|| Error::Corrupt(format!("a workflow's version has the state {word:?}")))
}
