//! The questions that stand open, over all runs.

use serde::Serialize;
use serde_json::value::RawValue;
use tidemill_protocol::{RunState, StepRecord, StepState};
use tidemill_store::{RunCursor, RunQuery, RunRow, Store};
use tidemill_workflow::Action;
use tidemill_workflow::orchestrate::question;
use utoipa::ToSchema;

use crate::refusal::Refusal;
use crate::workflows::Workflows;

/// Runs that are looked at for one page.
const LOOKED_AT: usize = 2_000;
/// Runs that are looked at together.
const AT_ONCE: usize = 100;

/// A question that stands open.
#[derive(Debug, Serialize, ToSchema)]
pub struct QuestionView {
    /// The run.
    pub run: String,
    /// Its workflow as `name@version`; of a block `name@version#path`.
    pub workflow: String,
    /// The step that asks.
    pub step: String,
    /// Which of its questions, from 1.
    pub iteration: u32,
    /// How often it asks at most.
    pub max_iterations: u32,
    /// Who may decide, names or roles; nobody: anybody.
    pub who: Vec<String>,
    /// What is asked.
    pub prompt: String,
    /// What is to be approved.
    #[schema(value_type = Option<Object>)]
    pub subject: Option<Box<RawValue>>,
    /// Since when, in Unix milliseconds.
    pub since_ms: u64,
}

/// Questions, of the run that started last first.
#[derive(Debug, Default, Serialize, ToSchema)]
pub struct QuestionPage {
    /// The questions.
    pub questions: Vec<QuestionView>,
    /// Give it as `cursor` for the next page; absent after the last.
    pub next: Option<String>,
}

/// The questions that stand open in runs of a workflow, or in all, after a cursor; at least `limit` where there are so many.
///
/// # Errors
/// Redis is not available.
pub async fn questions(
    store: &Store,
    workflows: &Workflows,
    workflow: Option<String>,
    (cursor, limit): (Option<RunCursor>, usize),
) -> Result<QuestionPage, Refusal> {
    let states = vec![RunState::Running, RunState::Waiting];
    let query = RunQuery { workflow, states, blocks: true, ..RunQuery::default() };
    let (mut page, mut after, mut looked) = (QuestionPage::default(), cursor, 0);
    loop {
        let found = store.search(&query, after.as_ref(), AT_ONCE, LOOKED_AT).await?;
        looked += found.runs.len().max(1);
        for run in &found.runs {
            page.questions.extend(of_run(store, workflows, run).await?);
        }
        after = found.next;
        if after.is_none() || page.questions.len() >= limit || looked >= LOOKED_AT {
            page.next = after.map(|cursor| cursor.to_string());
            return Ok(page);
        }
    }
}

async fn of_run(store: &Store, workflows: &Workflows, run: &RunRow) -> Result<Vec<QuestionView>, Refusal> {
    // a run whose workflow cannot be read asks nothing that could be decided
    let Ok(plan) = workflows.plan(&run.workflow).await else { return Ok(Vec::new()) };
    let asking = (0_u32..).zip(&plan.steps).filter_map(|(index, step)| match &step.action {
        Action::Approval(approval) => Some((index, step, approval)),
        _ => None,
    });
    let asking: Vec<_> = asking.collect();
    if asking.is_empty() {
        return Ok(Vec::new());
    }
    let fields: Vec<String> =
        asking.iter().flat_map(|(index, ..)| [format!("s{index}"), format!("w{index}")]).collect();
    let mut row = store.partition_of(&run.id).fields_of(&run.id, None, &fields).await?.into_iter();
    let mut open = Vec::new();
    for (_, step, approval) in asking {
        let (record, memo) = (row.next().flatten(), row.next().flatten());
        let stands = record.and_then(|record| StepRecord::parse(&String::from_utf8_lossy(&record)));
        let waits = stands.is_some_and(|record| record.state == StepState::Waiting);
        let Some(question) = memo.filter(|_| waits).as_deref().and_then(question) else { continue };
        open.push(QuestionView {
            run: run.id.clone(),
            workflow: run.workflow.clone(),
            step: step.id.to_string(),
            iteration: question.iteration,
            max_iterations: approval.max_iterations,
            who: approval.who.clone(),
            prompt: question.prompt,
            subject: question.subject,
            since_ms: question.since_ms,
        });
    }
    Ok(open)
}
