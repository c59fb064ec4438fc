//! The versions of a workflow: listed, moved through their life, compared.

use serde::Serialize;
use tidemill_store::{VersionChange, VersionMove, VersionMoved, VersionState};
use tidemill_workflow::{Definition, Diff};
use utoipa::ToSchema;

use super::{Workflows, refused, target_of, unknown};
use crate::refusal::{Code, Refusal};

/// One version of a workflow.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct VersionLine {
    /// The version.
    pub version: u32,
    /// `draft`, `active`, `deprecated` or `archived`.
    #[schema(value_type = String)]
    pub state: VersionState,
    /// Its runs that have not ended.
    pub live_runs: usize,
    /// When it was published, in Unix milliseconds.
    pub published_at_ms: u64,
    /// The SHA-256 of its text, in hex.
    pub sha256: String,
    /// What is wrong with the stored text, if it is not the one that was published.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub damage: Option<String>,
}

/// A version that is to be moved in its life.
#[derive(Debug, Clone, Copy)]
pub struct Moving<'a> {
    /// `name@version`.
    pub target: &'a str,
    /// Where it goes.
    pub to: VersionState,
    /// Where the caller saw it; none: wherever it is when this is carried out.
    pub from: Option<VersionState>,
    /// Archive it although runs of it are under way; they go on.
    pub force: bool,
    /// Who moves it, for the audit.
    pub who: &'a str,
    /// Why.
    pub why: &'a str,
}

/// A version that was moved.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct Moved {
    /// The workflow's name.
    pub name: String,
    /// The version.
    pub version: u32,
    /// Where it was.
    #[schema(value_type = String)]
    pub from: VersionState,
    /// Where it is.
    #[schema(value_type = String)]
    pub to: VersionState,
    /// What a start by the plain name gets now; none: nothing.
    pub newest_active: Option<u32>,
}

impl Workflows {
    /// The versions of a workflow, the oldest first, with how many live runs each has. Looks at every live run of the pool.
    ///
    /// # Errors
    /// No such workflow is published, or Redis is not available.
    pub async fn versions(&self, name: &str) -> Result<Vec<VersionLine>, Refusal> {
        let home = self.store.home();
        let records = home.versions(name).await?;
        if records.is_empty() {
            return Err(self.never_heard(name).await?);
        }
        let live = self.store.live_runs_of(name).await?;
        let mut lines = Vec::with_capacity(records.len());
        for record in records {
            let damage = match home.definition(name, Some(record.version)).await {
                Ok(_) => None,
                Err(tidemill_store::Error::Damaged(damaged)) => Some(damaged.damage.to_string()),
                Err(error) => return Err(error.into()),
            };
            lines.push(VersionLine {
                version: record.version,
                state: record.state,
                live_runs: live.get(&record.version).map_or(0, Vec::len),
                published_at_ms: record.published_at_ms,
                sha256: record.sha256,
                damage,
            });
        }
        Ok(lines)
    }

    /// Moves a version in its life. Of many who do so at once one succeeds, and the others get a conflict.
    ///
    /// # Errors
    /// No such version is published; there is no such move; somebody else has moved it; it is to be archived and runs of it are under
    /// way; or Redis is not available.
    pub async fn move_version(&self, moving: &Moving<'_>) -> Result<Moved, Refusal> {
        let Moving { target, to, force, who, why, .. } = *moving;
        let asked = target_of(target)?;
        let name = asked.name;
        let Some(version) = asked.version else {
            let detail = format!("name a version of {name:?}, like {name}@1");
            return Err(Refusal::new(Code::InvalidRequest, detail));
        };
        let home = self.store.home();
        let Some(now) = home.version_state(name, version).await? else {
            return Err(unknown(&format!("{name}@{version}"), "no such version is published"));
        };
        let from = moving.from.unwrap_or(now);
        if now != from || now == to {
            return Err(conflict(name, version, Some(now)));
        }
        if to == VersionState::Archived && !force {
            self.require_no_runs(name, version).await?;
        }
        let outcome = home.move_version(&VersionMove { name, version, from, to, who, why }).await?;
        self.forget_starts();
        match outcome {
            VersionMoved::Moved => {
                let newest_active = home.newest(name).await?;
                Ok(Moved { name: name.to_owned(), version, from, to, newest_active })
            }
            VersionMoved::Conflict(now) => Err(conflict(name, version, now)),
            VersionMoved::Illegal => Err(illegal(name, version, from, to)),
        }
    }

    async fn require_no_runs(&self, name: &str, version: u32) -> Result<(), Refusal> {
        let live = self.store.live_runs_of(name).await?;
        let Some(runs) = live.get(&version).filter(|runs| !runs.is_empty()) else { return Ok(()) };
        let (count, first) = (runs.len(), runs.first().map_or("", |(_, id)| id.as_str()));
        let (are, they) = if count == 1 { ("run is", "it") } else { ("runs are", "they") };
        Err(Refusal::new(
            Code::LiveRuns,
            format!(
                "{count} {are} under way with {name}@{version} ({first}); deprecate it and archive it when {they} ended, or force it: {they} would go on all the same"
            ),
        ))
    }

    /// What happened to the versions of a workflow, or of all, the newest first.
    ///
    /// # Errors
    /// Redis is not available.
    pub async fn changes(&self, name: Option<&str>, limit: usize) -> Result<Vec<VersionChange>, Refusal> {
        Ok(self.store.home().version_changes(name, limit).await?)
    }

    /// A published definition, as it was written.
    ///
    /// # Errors
    /// No such version is published, its text cannot be read or is damaged, or Redis is not available.
    pub async fn definition(&self, target: &str) -> Result<(String, Definition), Refusal> {
        let asked = target_of(target)?;
        let Some(published) = self.store.home().definition(asked.name, asked.version).await? else {
            return Err(match asked.version {
                Some(_) => unknown(target, "no such version is published"),
                None => self.never_heard(asked.name).await?,
            });
        };
        let label = format!("{}@{}", published.name, published.version);
        if tidemill_serverless::is_document(&published.source) {
            let detail = format!(
                "{label} is a Serverless Workflow document, which has no steps to compare; compare the texts"
            );
            return Err(Refusal::new(Code::InvalidWorkflow, detail));
        }
        let definition =
            Definition::parse(&published.source, &label).map_err(|problems| refused(&problems))?;
        Ok((label, definition))
    }

    /// What differs between two published versions: their names with their versions, and the differences.
    ///
    /// # Errors
    /// As for [`definition`](Self::definition).
    pub async fn diff(&self, from: &str, to: &str) -> Result<(String, String, Diff), Refusal> {
        let ((from, old), (to, new)) = (self.definition(from).await?, self.definition(to).await?);
        let diff = Diff::of(&old, &new);
        Ok((from, to, diff))
    }
}

fn conflict(name: &str, version: u32, now: Option<VersionState>) -> Refusal {
    let now = now.map_or_else(|| "gone".to_owned(), |now| now.to_string());
    let detail = format!("{name}@{version} is {now}: it was moved already, maybe by somebody else just now");
    Refusal::new(Code::Conflict, detail)
}

fn illegal(name: &str, version: u32, from: VersionState, to: VersionState) -> Refusal {
    let hint = if from == VersionState::Archived {
        "nothing leaves the archive; publish its text as a new version".to_owned()
    } else {
        let after = VersionState::MOVES.iter().filter(|(before, _)| *before == from);
        let words: Vec<_> = after.map(|(_, after)| after.as_str()).collect();
        format!("from there it can become {}", words.join(" or "))
    };
    let detail = format!("{name}@{version} is {from} and cannot become {to}: {hint}");
    Refusal::new(Code::IllegalMove, detail)
}
