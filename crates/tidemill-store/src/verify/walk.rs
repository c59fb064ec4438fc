//! Which runs there are.

use redis::{Cmd, Pipeline};

use super::{Drift, Finding, Verdict};
use crate::{Error, Partition};

/// How far a walk over all runs has come. Each run that stays is met once at least; some may be met twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RunWalk {
    stage: Stage,
    cursor: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Stage {
    #[default]
    Live,
    Ended,
    /// Those in neither set, found by their keys.
    Unlisted,
}

type Scores = Vec<(Option<f64>, Option<f64>)>;

impl Partition {
    /// The next runs of a walk, about so many, and where it goes on; begins with the default. In a cluster, runs that are in neither
    /// set of runs are not met: keys can be walked on one server only.
    ///
    /// # Errors
    /// Redis is not reachable or refuses.
    pub async fn walk_runs(
        &self,
        walk: RunWalk,
        about: usize,
    ) -> Result<(Vec<String>, Option<RunWalk>), Error> {
        let (next, mut ids, stage) = match walk.stage {
            Stage::Live => {
                let (next, ids) = self.scan_set(&self.keys().live(), walk.cursor, about).await?;
                (next, ids, Some(Stage::Ended))
            }
            Stage::Ended => {
                let (next, ids) = self.scan_set(&self.keys().ended(), walk.cursor, about).await?;
                (next, ids, (!self.link().is_cluster()).then_some(Stage::Unlisted))
            }
            Stage::Unlisted => {
                let (next, ids) = self.scan_unlisted(walk.cursor, about).await?;
                (next, ids, None)
            }
        };
        ids.sort_unstable();
        ids.dedup();
        let on = if next == 0 {
            stage.map(|stage| RunWalk { stage, cursor: 0 })
        } else {
            Some(RunWalk { cursor: next, ..walk })
        };
        Ok((ids, on))
    }

    /// Runs that ended at or after this time and are kept, oldest first; from `offset`.
    ///
    /// # Errors
    /// Redis is not reachable or refuses.
    pub async fn ended_since(
        &self,
        since_ms: u64,
        offset: usize,
        limit: usize,
    ) -> Result<Vec<String>, Error> {
        let mut ask = Cmd::new();
        ask.arg("ZRANGEBYSCORE").arg(self.keys().ended()).arg(since_ms).arg("+inf");
        ask.arg("LIMIT").arg(offset).arg(limit);
        self.link().query("listing ended runs", &ask).await
    }

    async fn scan_set(&self, key: &str, cursor: u64, about: usize) -> Result<(u64, Vec<String>), Error> {
        let mut ask = Cmd::new();
        ask.arg("ZSCAN").arg(key).arg(cursor).arg("COUNT").arg(about);
        let (next, rows): (u64, Vec<(String, f64)>) = self.link().query("walking runs", &ask).await?;
        Ok((next, rows.into_iter().map(|(id, _)| id).collect()))
    }

    /// Ids of runs that are in neither set.
    async fn scan_unlisted(&self, cursor: u64, about: usize) -> Result<(u64, Vec<String>), Error> {
        let prefix = self.keys().run("");
        let mut ask = Cmd::new();
        ask.arg("SCAN").arg(cursor).arg("MATCH").arg(format!("{prefix}*")).arg("COUNT").arg(about.max(1_000));
        let (next, keys): (u64, Vec<String>) = self.link().query("walking the keys of runs", &ask).await?;
        let ids: Vec<String> =
            keys.iter().filter_map(|key| key.strip_prefix(&prefix)).map(ToOwned::to_owned).collect();
        let scores = self.scores(&ids).await?;
        let unlisted = ids.into_iter().zip(scores).filter(|(_, score)| *score == (None, None));
        Ok((next, unlisted.map(|(id, _)| id).collect()))
    }

    /// The scores of runs in the sets of live and of ended ones.
    async fn scores(&self, ids: &[String]) -> Result<Scores, Error> {
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        let mut ask = Pipeline::with_capacity(2);
        ask.cmd("ZMSCORE").arg(self.keys().live()).arg(ids);
        ask.cmd("ZMSCORE").arg(self.keys().ended()).arg(ids);
        let (live, ended): (Vec<Option<f64>>, Vec<Option<f64>>) =
            self.link().pipeline("asking which runs are listed", &ask).await?;
        Ok(live.into_iter().zip(ended).collect())
    }

    /// What is to say of a run that is not there: a live one must be. An ended one may have outlived its record.
    pub(super) async fn listed(&self, id: &str) -> Result<Option<Verdict>, Error> {
        let scores = self.scores(&[id.to_owned()]).await?;
        let live = scores.first().is_some_and(|(live, _)| live.is_some());
        let finding =
            Finding::new(Drift::Listing, "run", "in the set of live runs, without a record", "not in it")
                .repairable(true);
        Ok(live.then(|| Verdict {
            run: id.to_owned(),
            state: None,
            workflow: None,
            records: 0,
            unsettled: 0,
            moving: false,
            findings: vec![finding],
            more: 0,
        }))
    }
}
