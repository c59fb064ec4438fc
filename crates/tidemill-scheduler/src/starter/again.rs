//! Runs that do part of another run again: the rest of its steps they are given with the ends that they had there.

use tidemill_protocol::{StepState, checksum};
use tidemill_store::{GivenEnd, RunRecord};
use tidemill_workflow::{Again, Kept, Plan};

use super::Starter;
use super::batch::Prepared;
use super::request::Refusal;
use crate::Error;

/// What a run is given.
#[derive(Debug)]
pub(super) struct Ends {
    pub(super) again: Again,
    source: RunRecord,
    /// Counters of its steps.
    pub(super) fields: Vec<(String, Vec<u8>)>,
    /// Whence, as the audit names it.
    who: String,
}

impl Ends {
    fn of(plan: &Plan, source: RunRecord, from: &[u32]) -> Self {
        let again = plan.again(from, |step| stood(plan, &source, step));
        let mut fields = vec![("src".to_owned(), source.id.clone().into_bytes())];
        fields.push(("d".to_owned(), again.kept.len().to_string().into_bytes()));
        for (step, ended, succeeded) in &again.counted {
            fields.push((format!("c{step}"), ended.to_string().into_bytes()));
            fields.extend(succeeded.map(|count| (format!("k{step}"), count.to_string().into_bytes())));
        }
        let who = format!("from:{}", source.id);
        Self { again, source, fields, who }
    }

    pub(super) fn given<'a>(&'a self, run: &'a Prepared) -> Vec<GivenEnd<'a>> {
        let end = |(step, kept): &(u32, Kept)| GivenEnd {
            step: *step,
            name: run.plan.step(*step).map_or("", |step| &step.id),
            state: match kept {
                Kept::Succeeded => StepState::Succeeded,
                Kept::Skipped => StepState::Skipped,
            },
            queue: run.queue_of(*step),
            who: &self.who,
            output: self.source.outputs.get(step).map_or(&[][..], |output| output),
        };
        self.again.kept.iter().map(end).collect()
    }
}

/// How a step of the other run ended, if that can be kept: it has not been undone, and its output is what was written.
fn stood(plan: &Plan, source: &RunRecord, step: u32) -> Option<Kept> {
    let record = source.steps.get(&step)?;
    let undo = plan.step(step)?.undo;
    match record.state {
        StepState::Skipped => Some(Kept::Skipped),
        StepState::Succeeded if undo.is_none_or(|undo| !source.steps.contains_key(&undo)) => {
            let output = source.outputs.get(&step).map_or(&[][..], |output| output);
            record.sum.is_none_or(|sum| sum == checksum(output)).then_some(Kept::Succeeded)
        }
        StepState::Succeeded
        | StepState::Pending
        | StepState::Ready
        | StepState::Running
        | StepState::Parked
        | StepState::Retrying
        | StepState::Waiting
        | StepState::Failed
        | StepState::Cancelled
        | StepState::TimedOut => None,
    }
}

impl Starter {
    /// Reads what runs that do part of another again are given.
    pub(super) async fn give_ends(
        &self,
        prepared: Vec<Prepared>,
        refusals: &mut Vec<Refusal>,
    ) -> Result<Vec<Prepared>, Error> {
        let mut ready = Vec::with_capacity(prepared.len());
        for mut run in prepared {
            let Some((id, from)) = run.request.source() else {
                ready.push(run);
                continue;
            };
            let store = &self.context.store;
            let mut source = store.partition_of(id).run(id).await?;
            if source.is_none() {
                // its id may be one that Redis made, which stands where it was asked for
                for partition in store.partitions() {
                    source = partition.run(id).await?;
                    if source.is_some() {
                        break;
                    }
                }
            }
            match ends_of(&run, source, from) {
                Ok(ends) => {
                    run.give(ends);
                    ready.push(run);
                }
                Err(refusal) => refusals.push(*refusal),
            }
        }
        Ok(ready)
    }
}

fn ends_of(run: &Prepared, source: Option<RunRecord>, from: Option<&str>) -> Result<Ends, Box<Refusal>> {
    let refuse = |code, reason: &str| run.request.refuse(code, reason.to_owned());
    let Some(source) = source else {
        return Err(refuse("unknown_source", "the run of which it does a part again is not kept any more"));
    };
    if source.workflow != run.workflow {
        let (theirs, ours) = (&source.workflow, &run.workflow);
        let reason = format!("it does a part of a run of {theirs} again, and is one of {ours}");
        return Err(refuse("other_workflow", &reason));
    }
    let from = match from {
        None => Vec::new(),
        Some(name) => match run.plan.step_index(name).filter(|step| *step < run.plan.main()) {
            Some(step) => vec![step],
            None => {
                let reason = format!("workflow {} has no step {name:?} to begin with", run.workflow);
                return Err(refuse("unknown_step", &reason));
            }
        },
    };
    let ends = Ends::of(&run.plan, source, &from);
    if ends.again.roots.is_empty() {
        return Err(refuse(
            "nothing_to_do",
            "every step of the other run has ended well: there is nothing to do again",
        ));
    }
    Ok(ends)
}
