//! Runs made ready for one call of `start`.

use std::sync::Arc;

use tidemill_store::{NewRun, RootStep};
use tidemill_workflow::Plan;

use super::request::{Refusal, Request};
use crate::settings::Settings;

/// One call dispatches no more first steps than this; the rest of a wider fan-out goes on by itself.
const MOST_ROOTS: usize = 500;

/// A run that can be started.
#[derive(Debug)]
pub(crate) struct Prepared {
    pub(super) request: Request,
    /// `name@version`.
    pub(super) workflow: String,
    plan: Arc<Plan>,
    deadline_ms: u64,
    fields: Vec<(&'static str, Vec<u8>)>,
}

impl Prepared {
    /// `left_ms` is what is left of the request's own deadline.
    pub(super) fn new(
        request: Request,
        plan: &Arc<Plan>,
        left_ms: Option<u64>,
        settings: &Settings,
    ) -> Result<Self, Box<Refusal>> {
        let input = request.input()?;
        let value = input.parse::<serde_json::Value>();
        let value = value.map_err(|error| request.refuse("invalid_input", error.to_string()))?;
        plan.validate_input(&value).map_err(|violations| {
            let reason = format!("the input does not fit workflow {:?}: {}", plan.name, shown(&violations));
            request.refuse("invalid_input", reason)
        })?;
        let extras = request.job.extras();
        let timeout_ms = extras.timeout_ms.or(plan.timeout_ms);
        let deadline_ms = [timeout_ms, left_ms].into_iter().flatten().min().map_or(0, |bound| bound.max(1));
        let retention_ms = plan.retention_ms.unwrap_or(settings.run_retention_ms);
        let mut fields = vec![("in", input.bytes().to_vec()), ("rms", retention_ms.to_string().into_bytes())];
        let mut add = |name, value: Option<String>| {
            if let Some(value) = value {
                fields.push((name, value.into_bytes()));
            }
        };
        add("rt", extras.result_ttl_ms.map(|ttl| ttl.to_string()));
        add("rp", extras.reply_to.clone());
        add("ten", extras.tenant.clone());
        add("usr", extras.user.clone());
        add("pri", extras.priority.map(|priority| priority.to_string()));
        add("tp", extras.traceparent.clone());
        add("ts", extras.tracestate.clone());
        add("qu", extras.queue.clone());
        let workflow = format!("{}@{}", plan.name, plan.version);
        Ok(Self { workflow, plan: Arc::clone(plan), deadline_ms, fields, request })
    }

    fn roots(&self) -> &[u32] {
        let all = self.plan.roots();
        all.get(..MOST_ROOTS).unwrap_or(all)
    }

    fn more(&self) -> Option<u32> {
        if self.plan.roots().len() > MOST_ROOTS { u32::try_from(MOST_ROOTS).ok() } else { None }
    }

    /// The step's own queue, else the one that the caller wants, else the workflow's.
    fn queue_of(&self, step: u32) -> &str {
        let own = self.plan.step(step).and_then(|step| step.queue.as_deref());
        own.or_else(|| self.request.job.extras().queue.as_deref()).unwrap_or(&self.plan.queue)
    }

    pub(super) fn new_run(&self, targets: &[String]) -> NewRun<'_> {
        let root = |step: &u32| RootStep {
            step: *step,
            name: self.plan.step(*step).map_or("", |step| &step.id),
            target: targets.iter().position(|target| target == self.queue_of(*step)).unwrap_or(0),
        };
        NewRun {
            entry: &self.request.entry,
            id: &self.request.id,
            workflow: &self.workflow,
            deadline_ms: self.deadline_ms,
            fields: self.fields.iter().map(|(name, value)| (*name, &value[..])).collect(),
            roots: self.roots().iter().map(root).collect(),
            more: self.more(),
        }
    }
}

fn shown(violations: &[String]) -> String {
    let mut text = violations.iter().take(5).cloned().collect::<Vec<_>>().join("; ");
    if violations.len() > 5 {
        text.push_str(&format!("; and {} more", violations.len() - 5));
    }
    text
}

/// The queues that the first steps of a batch go to. The first also takes the rest of a wide fan-out.
pub(super) fn targets(batch: &[Prepared]) -> Vec<String> {
    let mut targets: Vec<String> = Vec::new();
    for run in batch {
        for step in run.roots() {
            let queue = run.queue_of(*step);
            if !targets.iter().any(|target| target == queue) {
                targets.push(queue.to_owned());
            }
        }
    }
    targets
}

/// Cuts runs into batches of at most so many runs and at most [`MOST_ROOTS`] first steps; a run wider than that stands alone.
pub(super) fn batches(runs: &[Prepared], most: usize) -> Vec<&[Prepared]> {
    let (mut all, mut first, mut roots) = (Vec::new(), 0, 0);
    for (at, run) in runs.iter().enumerate() {
        if at > first && (at - first >= most || roots + run.roots().len() > MOST_ROOTS) {
            all.push(&runs[first..at]);
            (first, roots) = (at, 0);
        }
        roots += run.roots().len();
    }
    if first < runs.len() {
        all.push(&runs[first..]);
    }
    all
}
