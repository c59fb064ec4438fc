//! Runs made ready for one call of `start`.

use std::sync::Arc;

use tidemill_protocol::{ExecutionMode, Extras, Labels, Payload};
use tidemill_store::{BudgetField, NewRun, RootStep};
use tidemill_workflow::Plan;

use super::again::Ends;
use super::budget;
use super::group::Membership;
use super::marks;
use super::request::{Refusal, Request};
use crate::settings::Settings;

/// One call dispatches no more first steps than this; the rest of a wider fan-out goes on by itself.
const MOST_ROOTS: usize = 250;

/// A run that can be started.
#[derive(Debug)]
pub(crate) struct Prepared {
    pub(super) request: Request,
    /// `name@version`.
    pub(super) workflow: String,
    pub(super) plan: Arc<Plan>,
    pub(super) mode: ExecutionMode,
    deadline_ms: u64,
    input: Payload,
    fields: Vec<(&'static str, Vec<u8>)>,
    /// What is left of the request's own deadline.
    pub(super) left_ms: Option<u64>,
    pub(super) retention_ms: u64,
    pub(super) labels: Labels,
    pub(super) membership: Option<Membership>,
    /// The ends of steps that another run has done.
    ends: Option<Ends>,
}

impl Prepared {
    /// `left_ms` is what is left of the request's own deadline.
    pub(super) fn new(
        request: Request,
        plan: &Arc<Plan>,
        left_ms: Option<u64>,
        (settings, of_pool): (&Settings, ExecutionMode),
    ) -> Result<Self, Box<Refusal>> {
        let plan = block_of(&request, plan)?;
        let own = request.job.extras().mode.or_else(|| plan.mode.as_deref().and_then(ExecutionMode::parse));
        let mode = own.unwrap_or(of_pool);
        let plan = &if mode.is_sequential() { plan.in_order() } else { plan };
        let input = checked_input(&request, plan)?;
        let extras = request.job.extras();
        let timeout_ms = extras.timeout_ms.or(plan.timeout_ms).or(settings.run_timeout_ms);
        let deadline_ms = [timeout_ms, left_ms].into_iter().flatten().min().map_or(0, |bound| bound.max(1));
        let retention_ms = plan.retention_ms.unwrap_or(settings.run_retention_ms);
        let marks = marks::of(&request, plan, input.bytes())?;
        let mut fields = carried(extras);
        fields.push(("rms", retention_ms.to_string().into_bytes()));
        let mut add = |name, value: Option<String>| {
            if let Some(value) = value {
                fields.push((name, value.into_bytes()));
            }
        };
        // what is not there is the default, so that most runs have nothing more to carry
        add("md", (mode != ExecutionMode::default()).then(|| mode.to_string()));
        add("is", Some(format!("{:08x}", tidemill_protocol::checksum(input.bytes()))));
        let membership = marks.membership.or_else(|| Membership::of_pool(&request, settings.max_live_runs));
        add(BudgetField::NAME, budget::of(&request, plan).map(|budget| budget.to_string()));
        add("grp", membership.as_ref().map(|membership| membership.name.clone()));
        if plan.waits() {
            add("wa", Some("1".to_owned()));
            add("a", Some(plan.roots().len().min(MOST_ROOTS).to_string()));
        }
        // the queue of the run's own entries, for whoever begins its end from outside
        add("cl", plan.closes().then(|| extras.queue.clone().unwrap_or_else(|| plan.queue.clone())));
        if let Some(child) = extras.child.as_deref() {
            add("par", child.parent.clone());
            fields.extend(child.locals.as_ref().map(|locals| ("loc", locals.to_vec())));
        }
        let workflow = plan.reference();
        let labels = marks.labels;
        let plan = Arc::clone(plan);
        Ok(Self {
            workflow,
            plan,
            mode,
            deadline_ms,
            input,
            fields,
            left_ms,
            retention_ms,
            labels,
            membership,
            ends: None,
            request,
        })
    }

    /// The run that asked for it.
    pub(super) fn parent(&self) -> Option<&str> {
        self.request.id.rsplit_once(tidemill_protocol::CHILD).map(|(parent, _)| parent)
    }

    /// It is given the ends of steps that another run has done, and begins with those behind.
    pub(super) fn give(&mut self, ends: Ends) {
        let begins_with = ends.again.roots.len().to_string();
        for (name, value) in &mut self.fields {
            if *name == "a" {
                *value = begins_with.clone().into_bytes();
            }
        }
        self.ends = Some(ends);
    }

    /// Bounds it by the budget of the run that began it all.
    pub(super) fn bound(&mut self, budget: Vec<u8>) {
        self.fields.retain(|(name, _)| *name != BudgetField::NAME);
        self.fields.push((BudgetField::NAME, budget));
    }

    /// Its input, and what else its hash holds.
    pub(super) fn input_and_fields(&self) -> (&[u8], Vec<(&str, &[u8])>) {
        let given = self.ends.iter().flat_map(|ends| &ends.fields).map(|(name, value)| (&**name, &value[..]));
        let fields = self.fields.iter().map(|(name, value)| (*name, &value[..]));
        (self.input.bytes(), fields.chain(given).collect())
    }

    fn roots(&self) -> &[u32] {
        if let Some(ends) = &self.ends {
            return &ends.again.roots;
        }
        let all = self.plan.roots();
        all.get(..MOST_ROOTS).unwrap_or(all)
    }

    fn more(&self) -> Option<u32> {
        if self.ends.is_none() && self.plan.roots().len() > MOST_ROOTS {
            u32::try_from(MOST_ROOTS).ok()
        } else {
            None
        }
    }

    /// The step's own queue, else the one that the caller wants, else the workflow's.
    pub(super) fn queue_of(&self, step: u32) -> &str {
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
            fields: {
                let (input, mut fields) = self.input_and_fields();
                fields.push(("in", input));
                fields
            },
            labels: &self.labels,
            parent: self.parent(),
            given: self.ends.as_ref().map_or_else(Vec::new, |ends| ends.given(self)),
            roots: self.roots().iter().map(root).collect(),
            more: self.more(),
        }
    }
}

/// The input, if the workflow takes it.
fn checked_input(request: &Request, plan: &Plan) -> Result<Payload, Box<Refusal>> {
    let input = request.input()?;
    let value = input.parse::<serde_json::Value>();
    let value = value.map_err(|error| request.refuse("invalid_input", error.to_string()))?;
    plan.validate_input(&value).map_err(|violations| {
        let reason = format!("the input does not fit workflow {:?}: {}", plan.name, shown(&violations));
        request.refuse("invalid_input", reason)
    })?;
    Ok(input)
}

/// What the request says that the run carries as it stands.
fn carried(extras: &Extras) -> Vec<(&'static str, Vec<u8>)> {
    let said = [
        ("rt", extras.result_ttl_ms.map(|ttl| ttl.to_string())),
        ("rp", extras.reply_to.clone()),
        ("ten", extras.tenant.clone()),
        ("usr", extras.user.clone()),
        ("pri", extras.priority.map(|priority| priority.to_string())),
        ("tp", extras.traceparent.clone()),
        ("ts", extras.tracestate.clone()),
        ("qu", extras.queue.clone()),
    ];
    said.into_iter().filter_map(|(name, value)| Some((name, value?.into_bytes()))).collect()
}

/// The block of the plan that is asked for, or the plan itself.
fn block_of(request: &Request, plan: &Arc<Plan>) -> Result<Arc<Plan>, Box<Refusal>> {
    let Some(path) = request.block() else { return Ok(Arc::clone(plan)) };
    plan.block(path).cloned().ok_or_else(|| {
        let reason = format!("workflow {:?} has no block {path:?}", plan.reference());
        request.refuse("unknown_block", reason)
    })
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
