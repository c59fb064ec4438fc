//! A new definition against the runs under way: would what they have done also be possible under it?

use serde::Serialize;
use serde_json::json;
use tidemill_workflow::{Fits, Plan};
use utoipa::ToSchema;

use super::{Checked, Workflows};
use crate::refusal::{Code, Refusal};

/// What came of it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, ToSchema)]
pub struct Against {
    /// Live runs of other versions that were looked at.
    pub runs: usize,
    /// Those that would not be possible.
    pub misfits: usize,
    /// The first thousand of them.
    pub first: Vec<RunMisfit>,
}

/// A live run that would not be possible under the new definition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct RunMisfit {
    /// The run's id.
    pub run: String,
    /// Its version.
    pub version: u32,
    /// A step that it has begun or ended.
    pub step: String,
    /// Why that would not be possible.
    pub why: String,
}

/// Misfits that are told.
const MOST_TOLD: usize = 1_000;
/// Runs read in one round trip.
const PAGE: usize = 200;

impl Workflows {
    /// Compares a definition with every live run of the other versions of its workflow: each step that a run has begun must be there, wait
    /// for the same steps, and do a thing of the same kind. Looks at every live run of the pool.
    ///
    /// # Errors
    /// The definition of a live run cannot be read, or Redis is not available.
    pub async fn against_runs(&self, checked: &Checked) -> Result<Against, Refusal> {
        let (name, mut found) = (&checked.plan.name, Against::default());
        for (version, runs) in self.store.live_runs_of(name).await? {
            if checked.version == Some(version) {
                continue;
            }
            found.runs += runs.len();
            let old = self.known(name, version).await?.plan;
            let fits = Fits::of(&old, &checked.plan);
            if !fits.is_complete() {
                self.compare(&mut found, (version, &runs), (&old, &fits)).await?;
            }
        }
        Ok(found)
    }

    async fn compare(
        &self,
        found: &mut Against,
        (version, runs): (u32, &[(u32, String)]),
        (old, fits): (&Plan, &Fits),
    ) -> Result<(), Refusal> {
        let steps: Vec<(u32, &str, &str)> = (0..)
            .zip(&old.steps)
            .filter_map(|(index, step)| Some((index, &*step.id, fits.misfit(&step.id)?)))
            .collect();
        let fields: Vec<String> = steps.iter().map(|(index, ..)| format!("s{index}")).collect();
        for partition in self.store.partitions() {
            let ids: Vec<&String> =
                runs.iter().filter(|(index, _)| *index == partition.index()).map(|(_, id)| id).collect();
            for page in ids.chunks(PAGE) {
                let wanted: Vec<_> =
                    page.iter().map(|id| (partition.keys().run(id), fields.clone())).collect();
                let rows = partition.run_fields(&wanted).await?;
                for (id, row) in page.iter().zip(rows) {
                    // a record is there from the moment at which the step became ready
                    let Some(at) = row.iter().position(Option::is_some) else { continue };
                    found.misfits += 1;
                    if let Some((_, step, why)) = steps.get(at).filter(|_| found.first.len() < MOST_TOLD) {
                        let (step, why) = ((*step).to_owned(), (*why).to_owned());
                        found.first.push(RunMisfit { run: (*id).clone(), version, step, why });
                    }
                }
            }
        }
        Ok(())
    }
}

impl Against {
    /// Refuses where a run does not fit.
    ///
    /// # Errors
    /// [`Code::Incompatible`].
    pub fn require(self, name: &str) -> Result<(), Refusal> {
        let Some(RunMisfit { run, version, step, why }) = self.first.first() else { return Ok(()) };
        let detail = format!(
            "{} of {} live runs of {name:?} would not be possible under this definition: run {run} of {name}@{version} has begun step {step:?}, and {why}",
            self.misfits, self.runs
        );
        let problems = self.first.iter().map(|misfit| json!(misfit)).collect();
        Err(Refusal::new(Code::Incompatible, detail).with_problems(problems))
    }
}
