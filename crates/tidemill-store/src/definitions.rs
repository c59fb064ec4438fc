//! Published workflows: definitions by name and version, whose text never changes once stored, and where each version stands in its
//! life ([`VersionState`]). They are in the home partition.
//!
//! Beside each text stands its SHA-256, taken when it was published. What does not fit it any more is never handed out: [`Damaged`].

mod digest;
mod life;
mod live;
mod start;
mod state;

use std::collections::HashMap;

use redis::{Cmd, Pipeline};
use serde::Serialize;

use crate::{Error, Partition};

pub use digest::{Damage, Damaged};
pub use life::{Publication, Publishing, VersionChange, VersionMove, VersionMoved};
pub use live::LiveRuns;
pub use start::Startable;
pub use state::{VersionState, WorkflowTarget};

/// A published definition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Published {
    /// The workflow's name.
    pub name: String,
    /// Its version.
    pub version: u32,
    /// The definition as it was published (JSON or YAML text).
    pub source: String,
}

/// What is kept about a version beside its text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct VersionRecord {
    /// The version.
    pub version: u32,
    /// Where it stands in its life.
    pub state: VersionState,
    /// The SHA-256 of the text that was published, in hex.
    pub sha256: String,
    /// When it was published, in Unix milliseconds.
    pub published_at_ms: u64,
}

/// A field's value, whatever its bytes are.
type Bytes = Option<Vec<u8>>;

/// Workflows asked for in one round trip.
const PAGE: usize = 200;

impl Partition {
    /// A workflow's newest active version: what its plain name starts.
    ///
    /// # Errors
    /// Redis is not reachable or refuses.
    pub async fn newest(&self, name: &str) -> Result<Option<u32>, Error> {
        let mut ask = Cmd::new();
        ask.arg("HGET").arg(self.keys().workflows()).arg(name);
        let newest: Option<u32> = self.link().query("asking for a workflow's version", &ask).await?;
        Ok(newest.filter(|version| *version > 0))
    }

    /// Where a version stands in its life; `None` where it is not published.
    ///
    /// # Errors
    /// Redis is not reachable or refuses, or the stored state is not one that Tidemill writes ([`Error::Damaged`]).
    pub async fn version_state(&self, name: &str, version: u32) -> Result<Option<VersionState>, Error> {
        let mut ask = Cmd::new();
        ask.arg("HGET").arg(self.keys().versions(name)).arg(version);
        let word: Bytes = self.link().query("asking for a version's state", &ask).await?;
        word.map(|word| state_of(name, version, &word)).transpose()
    }

    /// A definition, wherever it stands in its life; where no version is named the newest active one, else the newest.
    ///
    /// # Errors
    /// Redis is not reachable or refuses, or what is stored is not what was published ([`Error::Damaged`]).
    pub async fn definition(&self, name: &str, version: Option<u32>) -> Result<Option<Published>, Error> {
        let version = match version {
            Some(version) => Some(version),
            None => match self.newest(name).await? {
                Some(version) => Some(version),
                None => self.versions(name).await?.last().map(|last| last.version),
            },
        };
        let Some(version) = version else { return Ok(None) };
        let mut ask = Pipeline::with_capacity(2);
        ask.cmd("HGET").arg(self.keys().workflow(name)).arg(version);
        ask.cmd("HMGET").arg(self.keys().versions(name)).arg(version).arg(digest_field(version));
        let (text, (state, digest)): (Bytes, (Bytes, Option<String>)) =
            self.link().pipeline("reading a workflow", &ask).await?;
        if text.is_none() && state.is_none() {
            return Ok(None);
        }
        Ok(Some(digest::checked(name, version, text, digest)?))
    }

    /// Every workflow with its newest active version (`None`: it has none), sorted by name.
    ///
    /// # Errors
    /// Redis is not reachable or refuses.
    pub async fn workflows(&self) -> Result<Vec<(String, Option<u32>)>, Error> {
        let mut ask = Cmd::new();
        ask.arg("HGETALL").arg(self.keys().workflows());
        let all: Vec<(String, u32)> = self.link().query("listing workflows", &ask).await?;
        let mut all: Vec<_> =
            all.into_iter().map(|(name, newest)| (name, Some(newest).filter(|newest| *newest > 0))).collect();
        all.sort();
        Ok(all)
    }

    /// Every active version of every workflow, or in what way it is damaged; sorted by name and version.
    ///
    /// # Errors
    /// Redis is not reachable or refuses.
    pub async fn active_definitions(&self) -> Result<Vec<Result<Published, Damaged>>, Error> {
        let workflows = self.workflows().await?;
        let mut all = Vec::with_capacity(workflows.len());
        for workflows in workflows.chunks(PAGE) {
            let mut ask = Pipeline::with_capacity(workflows.len());
            for (name, _) in workflows {
                ask.cmd("HGETALL").arg(self.keys().versions(name));
            }
            let records: Vec<HashMap<String, Vec<u8>>> =
                self.link().pipeline("reading the versions of workflows", &ask).await?;
            let mut active = Vec::new();
            for ((name, newest), fields) in workflows.iter().zip(&records) {
                // what a plain name starts must be among them
                if let Some(version) = newest.filter(|newest| !fields.contains_key(&newest.to_string())) {
                    let damage = Damage::NoDigest;
                    all.push(Err(Damaged { workflow: name.clone(), version, damage }));
                }
                for record in read(name, fields) {
                    match record {
                        Ok(record) if record.state == VersionState::Active => active.push((name, record)),
                        Ok(_) => {}
                        Err(damaged) => all.push(Err(damaged)),
                    }
                }
            }
            let mut ask = Pipeline::with_capacity(active.len());
            for (name, record) in &active {
                ask.cmd("HGET").arg(self.keys().workflow(name)).arg(record.version);
            }
            if active.is_empty() {
                continue;
            }
            let texts: Vec<Bytes> = self.link().pipeline("reading workflows", &ask).await?;
            let each = active.into_iter().zip(texts);
            all.extend(each.map(|((name, record), text)| {
                digest::checked(name, record.version, text, Some(record.sha256))
            }));
        }
        Ok(all)
    }

    /// A workflow's versions, oldest first.
    ///
    /// # Errors
    /// Redis is not reachable or refuses, or what is kept beside a text is not what Tidemill writes ([`Error::Damaged`]).
    pub async fn versions(&self, name: &str) -> Result<Vec<VersionRecord>, Error> {
        let mut ask = Cmd::new();
        ask.arg("HGETALL").arg(self.keys().versions(name));
        let fields: HashMap<String, Vec<u8>> = self.link().query("listing versions", &ask).await?;
        Ok(read(name, &fields).into_iter().collect::<Result<_, _>>()?)
    }
}

fn digest_field(version: u32) -> String {
    format!("{version}:sha256")
}

fn state_of(name: &str, version: u32, word: &[u8]) -> Result<VersionState, Error> {
    let word = String::from_utf8_lossy(word);
    let damage = || Damage::State(word.clone().into_owned());
    let damaged = || Damaged { workflow: name.to_owned(), version, damage: damage() };
    Ok(VersionState::parse(&word).ok_or_else(damaged)?)
}

/// The records in a hash of versions, oldest first.
fn read(name: &str, fields: &HashMap<String, Vec<u8>>) -> Vec<Result<VersionRecord, Damaged>> {
    let text = |field: &str| fields.get(field).map(|value| String::from_utf8_lossy(value).into_owned());
    let mut versions: Vec<u32> = fields.keys().filter_map(|field| field.parse().ok()).collect();
    versions.sort_unstable();
    let record = |version: u32| {
        let damaged = |damage| Damaged { workflow: name.to_owned(), version, damage };
        let word = text(&version.to_string()).unwrap_or_default();
        Ok(VersionRecord {
            version,
            state: VersionState::parse(&word).ok_or_else(|| damaged(Damage::State(word.clone())))?,
            sha256: text(&digest_field(version)).ok_or_else(|| damaged(Damage::NoDigest))?,
            published_at_ms: text(&format!("{version}:at")).and_then(|ms| ms.parse().ok()).unwrap_or(0),
        })
    };
    versions.into_iter().map(record).collect()
}
