//! Published workflows: definitions by name and version, never changed once stored.

use redis::{Cmd, Pipeline};
use serde::Serialize;

use crate::{Error, Partition};

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

impl Partition {
    /// Stores a definition. `false`: this version exists already with another text (nothing changed); storing the same text again is fine.
    ///
    /// # Errors
    /// Redis is not reachable or refuses.
    pub async fn publish(&self, name: &str, version: u32, source: &str) -> Result<bool, Error> {
        let key = self.keys().workflow(name);
        let mut set = Cmd::new();
        set.arg("HSETNX").arg(&key).arg(version).arg(source);
        let fresh: bool = self.link().query("publishing a workflow", &set).await?;
        if !fresh {
            let mut get = Cmd::new();
            get.arg("HGET").arg(&key).arg(version);
            let stored: Option<String> = self.link().query("reading a workflow", &get).await?;
            if stored.as_deref() != Some(source) {
                return Ok(false);
            }
        }
        let newest = self.newest(name).await?.unwrap_or(0).max(version);
        let mut point = Cmd::new();
        point.arg("HSET").arg(self.keys().workflows()).arg(name).arg(newest);
        self.link().query::<i64>("publishing a workflow", &point).await?;
        Ok(true)
    }

    /// A workflow's newest version.
    ///
    /// # Errors
    /// Redis is not reachable or refuses.
    pub async fn newest(&self, name: &str) -> Result<Option<u32>, Error> {
        let mut ask = Cmd::new();
        ask.arg("HGET").arg(self.keys().workflows()).arg(name);
        self.link().query("asking for a workflow's version", &ask).await
    }

    /// A definition; the newest version when none is named.
    ///
    /// # Errors
    /// Redis is not reachable or refuses.
    pub async fn definition(&self, name: &str, version: Option<u32>) -> Result<Option<Published>, Error> {
        let version = match version {
            Some(version) => version,
            None => match self.newest(name).await? {
                Some(version) => version,
                None => return Ok(None),
            },
        };
        let mut ask = Cmd::new();
        ask.arg("HGET").arg(self.keys().workflow(name)).arg(version);
        let source: Option<String> = self.link().query("reading a workflow", &ask).await?;
        Ok(source.map(|source| Published { name: name.to_owned(), version, source }))
    }

    /// Every workflow with its newest version, sorted by name.
    ///
    /// # Errors
    /// Redis is not reachable or refuses.
    pub async fn workflows(&self) -> Result<Vec<(String, u32)>, Error> {
        let mut ask = Cmd::new();
        ask.arg("HGETALL").arg(self.keys().workflows());
        let mut all: Vec<(String, u32)> = self.link().query("listing workflows", &ask).await?;
        all.sort();
        Ok(all)
    }

    /// The newest definition of every workflow.
    ///
    /// # Errors
    /// Redis is not reachable or refuses.
    pub async fn definitions(&self) -> Result<Vec<Published>, Error> {
        let all = self.workflows().await?;
        let mut ask = Pipeline::with_capacity(all.len());
        for (name, version) in &all {
            ask.cmd("HGET").arg(self.keys().workflow(name)).arg(*version);
        }
        if all.is_empty() {
            return Ok(Vec::new());
        }
        let sources: Vec<Option<String>> = self.link().pipeline("reading workflows", &ask).await?;
        let pairs = all.into_iter().zip(sources);
        Ok(pairs
            .filter_map(|((name, version), source)| source.map(|source| Published { name, version, source }))
            .collect())
    }

    /// A workflow's versions, oldest first.
    ///
    /// # Errors
    /// Redis is not reachable or refuses.
    pub async fn versions(&self, name: &str) -> Result<Vec<u32>, Error> {
        let mut ask = Cmd::new();
        ask.arg("HKEYS").arg(self.keys().workflow(name));
        let mut versions: Vec<u32> = self.link().query("listing versions", &ask).await?;
        versions.sort_unstable();
        Ok(versions)
    }
}
