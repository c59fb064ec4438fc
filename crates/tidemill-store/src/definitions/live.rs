//! Which live runs a workflow has, by version.

use std::collections::{BTreeMap, HashSet};

use redis::Cmd;

use crate::{Error, Partition, Store};

/// Live runs of one workflow: by version, each with the index of its partition and its id.
pub type LiveRuns = BTreeMap<u32, Vec<(u32, String)>>;

/// Looked at in one round trip.
const PAGE: usize = 500;

impl Store {
    /// The runs of a workflow that have not ended, by version. Looks at every live run of the pool, so it takes about a second for
    /// each 100,000 of them; runs that are asked for and have not started are not among them.
    ///
    /// # Errors
    /// Redis is not reachable or refuses.
    pub async fn live_runs_of(&self, workflow: &str) -> Result<LiveRuns, Error> {
        let mut all = LiveRuns::new();
        for partition in self.partitions() {
            partition.add_live_runs(workflow, &mut all).await?;
        }
        Ok(all)
    }
}

impl Partition {
    async fn add_live_runs(&self, workflow: &str, all: &mut LiveRuns) -> Result<(), Error> {
        // a scan tells each run that lives all the while at least once, and some twice
        let (mut cursor, mut seen) = ("0".to_owned(), HashSet::new());
        loop {
            let mut ask = Cmd::new();
            ask.arg("ZSCAN").arg(self.keys().live()).arg(&cursor).arg("COUNT").arg(PAGE);
            let (next, flat): (String, Vec<String>) = self.link().query("looking at live runs", &ask).await?;
            let ids: Vec<String> = flat.into_iter().step_by(2).collect();
            for page in ids.chunks(PAGE) {
                for run in self.summaries(page).await? {
                    let Some((name, version)) = run.workflow.rsplit_once('@') else { continue };
                    let Ok(version) = version.parse() else { continue };
                    if name == workflow && !run.state.is_terminal() && seen.insert(run.id.clone()) {
                        all.entry(version).or_default().push((self.index(), run.id));
                    }
                }
            }
            if next == "0" {
                return Ok(());
            }
            cursor = next;
        }
    }
}
