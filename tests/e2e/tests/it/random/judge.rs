//! Whether what came of a run is what the reference says, done as often as it says, and whether all that is stored fits.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use tidemill_protocol::{RunState, StepState};
use tidemill_store::{Error, RunRecord, Shape, Shapes, StepShape, Store};
use tidemill_workflow::reference::Prediction;
use tidemill_workflow::{FailurePolicy, Plan};

use super::Case;
use super::script::{Ledger, Work};

/// How exactly a run must be what is predicted.
#[derive(Debug, Clone, Copy)]
pub(super) struct Terms {
    /// Each attempt is made once at most but for so many.
    pub(super) deaths: usize,
    /// It may have been cancelled at any moment.
    pub(super) cancelled: bool,
}

/// All runs that a case came to, by id.
pub(super) type Came = BTreeMap<String, RunRecord>;

pub(super) fn judge(case: &Case, came: &Came, ledger: &Ledger, terms: Terms) -> Result<(), String> {
    let run = came.get(&case.id).ok_or("the run is not there")?;
    for (id, run) in came {
        let open = run.steps.iter().find(|(_, step)| !step.state.is_terminal());
        if let Some((step, record)) = open {
            return Err(format!("{id} has ended, and its step {step} is {record:?}"));
        }
    }
    if terms.cancelled {
        let predicted = case.prediction.state;
        let stopped = [RunState::Cancelled, RunState::Compensated, RunState::CompensationFailed];
        let is_allowed =
            run.state == predicted || stopped.contains(&run.state) || !case.prediction.is_certain;
        return if is_allowed { Ok(()) } else { Err(format!("a cancelled run is {:?}", run.state)) };
    }
    let succeeded = |state| state == RunState::Succeeded;
    if succeeded(run.state) != succeeded(case.prediction.state) {
        return Err(differs(&case.id, run, case.prediction.state));
    }
    if !case.prediction.is_certain {
        return Ok(());
    }
    compare(case, &case.id, run, &case.prediction)?;
    let mut certain = BTreeSet::from([case.id.clone()]);
    for (id, predicted) in &case.prediction.runs {
        let id = id.replacen("run", &case.id, 1);
        let parent = id.rsplit_once('~').map(|(parent, _)| parent).unwrap_or_default();
        if !predicted.is_certain || !certain.contains(parent) {
            continue;
        }
        let run = came.get(&id).ok_or_else(|| format!("the run {id} was not started"))?;
        compare(case, &id, run, predicted)?;
        certain.insert(id);
    }
    effects(case, ledger, &certain, terms.deaths)
}

fn differs(id: &str, run: &RunRecord, predicted: RunState) -> String {
    format!("{id} is {:?}, and {predicted:?} is predicted; its error: {:?}", run.state, run.error)
}

fn compare(case: &Case, id: &str, run: &RunRecord, predicted: &Prediction) -> Result<(), String> {
    if run.state != predicted.state {
        return Err(differs(id, run, predicted.state));
    }
    let plan = case.plan_of(&run.workflow).ok_or_else(|| format!("{id} follows {}", run.workflow))?;
    let mut steps: BTreeMap<String, StepState> = BTreeMap::new();
    for (index, step) in (0..).zip(&plan.steps) {
        let state = run.steps.get(&index).map_or(StepState::Pending, |record| record.state);
        steps.insert(step.id.to_string(), state);
    }
    let wrong: Vec<String> = steps
        .iter()
        .filter(|(step, state)| predicted.steps.get(*step) != Some(state))
        .map(|(step, state)| format!("{step} is {state:?}, not {:?}", predicted.steps.get(step)))
        .collect();
    if !wrong.is_empty() {
        return Err(format!("{id}: {}; errors: {:?}", wrong.join(", "), run.errors));
    }
    let output = run.output.as_ref().filter(|_| run.state == RunState::Succeeded);
    let output = output.map(|text| serde_json::from_slice(text).unwrap_or_default());
    if output != predicted.output {
        return Err(format!("{id} gives {output:?}, and {:?} is predicted", predicted.output));
    }
    Ok(())
}

/// Each thing is done as often as predicted, and no other.
fn effects(case: &Case, ledger: &Ledger, certain: &BTreeSet<String>, deaths: usize) -> Result<(), String> {
    let of_certain = |work: &Work| certain.contains(&work.0);
    let mut done = ledger.of(&case.id);
    done.retain(|work, _| of_certain(work));
    for (work, attempts) in case.asked.calls.iter().filter(|(work, _)| of_certain(work)) {
        let made = done.remove(work).unwrap_or_default();
        let fits = if deaths == 0 {
            made == *attempts
        } else {
            !made.is_empty() && made.len() <= attempts.len() + deaths
        };
        if !fits {
            return Err(format!("{work:?} was tried as {made:?}, and {attempts:?} is predicted"));
        }
    }
    if done.is_empty() { Ok(()) } else { Err(format!("done and not predicted: {done:?}")) }
}

/// What `tidemill verify` knows of the workflows.
pub(super) struct Known<'a>(pub(super) &'a [Case]);

impl Shapes for Known<'_> {
    async fn of(&self, workflow: &str) -> Result<Option<Arc<Shape>>, Error> {
        let plan = self.0.iter().find_map(|case| case.plan_of(workflow));
        Ok(plan.map(|plan| Arc::new(shape(&plan))))
    }
}

fn shape(plan: &Plan) -> Shape {
    let steps = (0_u32..).zip(&plan.steps).map(|(index, step)| StepShape {
        id: step.id.to_string(),
        needs: step.dispatched_by().to_vec(),
        counts_successes: step.fires_when().ok > 0,
        has_items: step.for_each.is_some() && !step.is_orchestrated(),
        fails_run: plan.failure == FailurePolicy::Finish
            && !step.continue_on_error
            && !step.compensate_on_error
            && index < plan.main(),
        is_wide: false,
        is_closing: index >= plan.main(),
    });
    Shape { steps: steps.collect() }
}

/// Every audit folds to what is stored, and nothing is left that waits or is to be done.
pub(super) async fn stands_clean(store: &Store, cases: &[Case], ids: &[String]) -> Result<(), String> {
    let known = Known(cases);
    let verdicts = store.home().verify_all(ids, &known).await.map_err(|error| error.to_string())?;
    let found: Vec<_> =
        verdicts.iter().filter(|verdict| !verdict.is_clean() || verdict.unsettled > 0).collect();
    if !found.is_empty() {
        return Err(format!("{} of {} runs do not fit: {found:#?}", found.len(), verdicts.len()));
    }
    if verdicts.len() == ids.len() { Ok(()) } else { Err("some runs could not be verified".to_owned()) }
}
