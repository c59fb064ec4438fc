//! Parts of runs: reading what their expressions need, and deciding what is to be done.
//!
//! All parts of one claim are read in one round trip. A part becomes an assignment, or an outcome at once (a skipped step, a
//! failed expression, the beginning of a `for_each`).

mod acting;
mod close;
mod finish;
mod gather;
mod moves;
mod pause;
mod step;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use bytes::Bytes;
use serde_json::value::RawValue;
use tidemill_protocol::{EntryId, ExecutionMode, Part, RunPart, RunState, StepRecord, StepState, checksum};
use tidemill_runtime::crash::{self, Point};
use tidemill_store::{BudgetField, Spent, StopRun};
use tidemill_workflow::{Need, Plan, References, RunView, Scope, StepView};

use crate::assignment::{Assignment, item_end, step_end};
use crate::budget::{self, Purse};
use crate::outcome::{Ending, Fault, ItemEnd, Outcome, Place, RunRef, StepEnd};
use crate::plans::PlanError;
use crate::shared::Shared;

/// How long a run is kept whose record does not say.
pub(crate) const DEFAULT_RETENTION_MS: u64 = 24 * 3600 * 1000;

/// A claimed part.
#[derive(Debug)]
pub(crate) struct PartEntry {
    pub(crate) place: Place,
    pub(crate) entry: EntryId,
    pub(crate) part: RunPart,
}

/// What a part became.
pub(crate) enum Readied {
    Run(Box<Assignment>),
    Done(Outcome),
}

/// A part with its plan and the fields of its run that it asked for.
pub(crate) struct Known {
    pub(crate) place: Place,
    pub(crate) entry: EntryId,
    pub(crate) part: RunPart,
    pub(crate) run: RunRef,
    fields: HashMap<String, Bytes>,
    /// What the run sees of its place in another, by name.
    locals: BTreeMap<String, Box<RawValue>>,
}

pub(crate) use acting::cancel_children;
pub(crate) use moves::ended as move_ended;

/// Reads and decides all parts of one claim. While Redis cannot be read this waits: the parts stay ours, and nothing else could
/// be done with them.
pub(crate) async fn ready(shared: &Arc<Shared>, parts: Vec<PartEntry>) -> Vec<Readied> {
    let mut readied = Vec::with_capacity(parts.len());
    let mut by_partition: HashMap<u16, Vec<(PartEntry, Arc<Plan>)>> = HashMap::new();
    for part in parts {
        match plan_of(shared, &part.part.workflow).await {
            Ok(plan) => by_partition.entry(part.place.partition).or_default().push((part, plan)),
            Err(why) => readied.push(Readied::Done(without_plan(shared, part, &why).await)),
        }
    }
    for (partition, parts) in by_partition {
        let store = &shared.store.partitions()[partition as usize];
        let wanted: Vec<_> = parts
            .iter()
            .map(|(part, plan)| (store.keys().run(&part.part.run), wanted(&part.part, plan)))
            .collect();
        crash::before(Point::WorkerRead);
        let rows = shared.persist("reading runs", || store.run_fields(&wanted)).await;
        crash::after(Point::WorkerRead);
        let known = parts.into_iter().zip(wanted).zip(rows).map(|(((part, plan), (_, names)), row)| {
            let fields = names.into_iter().zip(row).filter_map(|(n, v)| v.map(|v| (n, v))).collect();
            Known::new(part, plan, fields)
        });
        let mut known: Vec<Known> = known.collect();
        pause::inherit(shared, store, &mut known).await;
        let spent = budget::spent(shared, store, &known).await;
        for known in known {
            readied.push(decide(shared, known, &spent).await);
        }
    }
    readied
}

/// The plan of a workflow, or why there is none.
async fn plan_of(shared: &Shared, workflow: &str) -> Result<Arc<Plan>, String> {
    shared
        .persist("reading a workflow", || async {
            match shared.plans.get(workflow).await {
                Ok(plan) => Ok(Ok(plan)),
                Err(PlanError::Unusable(why)) => Ok(Err(why)),
                Err(PlanError::Store(error)) => Err(error),
            }
        })
        .await
}

async fn decide(shared: &Arc<Shared>, known: Known, spent: &HashMap<String, Spent>) -> Readied {
    if known.run_has_ended() || (known.begins() && budget::is_used_up(shared, &known, spent).await) {
        if let Part::Step { step } = known.part.part {
            acting::give_up_children(shared, &known, step).await;
        }
        return Readied::Done(known.not_wanted());
    }
    if known.part.deaths >= shared.settings.crash_budget {
        let deaths = known.part.deaths;
        let message = format!("{deaths} workers died while they held this step; it is not tried again");
        return Readied::Done(give_up(shared, known, Fault::new("crash_budget", message)).await);
    }
    if known.begins()
        && let Some(reason) = pause::of(shared, &known)
    {
        return Readied::Done(pause::put_aside(shared, known, &reason).await);
    }
    let known = if known.run.mode.checks_moves() {
        match moves::check(shared, known).await {
            Ok(known) => known,
            Err(refused) => return Readied::Done(refused),
        }
    } else {
        known
    };
    if let Some(what) = known.damage() {
        return Readied::Done(give_up(shared, known, damaged(&what)).await);
    }
    match known.part.part {
        Part::Step { step } => step::ready(shared, known, step).await,
        Part::Item { step, item } => step::ready_item(shared, known, step, item).await,
        Part::Gather { step } => Readied::Done(gather::gather(shared, known, step).await),
        Part::Finish => Readied::Done(finish::finish(known, shared).await),
        Part::Close => Readied::Done(close::close(&known)),
        Part::Fan { .. } => Readied::Done(known.fan()),
    }
}

/// A failure before anything was looked at: what the part has asked for has nobody who waits for it.
async fn give_up(shared: &Shared, known: Known, fault: Fault) -> Outcome {
    if let Part::Step { step } = known.part.part {
        acting::give_up_children(shared, &known, step).await;
    }
    known.failed(fault)
}

/// The fields of the run that deciding this part needs.
fn wanted(part: &RunPart, plan: &Plan) -> Vec<String> {
    let mut fields: Vec<String> =
        ["st", "to", "pz", "md", "t1", "ten", "tp", "rp", "rt", "qu", "rms", "usr", "pri"]
            .map(str::to_owned)
            .to_vec();
    if budget::may_have_one(&part.run, plan) {
        fields.push(BudgetField::NAME.to_owned());
    }
    match part.part {
        Part::Step { step } | Part::Item { step, .. } => {
            let Some(planned) = plan.step(step) else { return fields };
            if planned.is_orchestrated() {
                refer(&mut fields, &planned.references());
                fields.extend(["ts", "loc"].map(str::to_owned));
                fields.push(format!("w{step}"));
            }
            if step >= plan.main() {
                fields.push("err".to_owned());
            }
            refer(&mut fields, planned.with.references());
            if matches!(part.part, Part::Step { .. }) {
                if let Some(when) = &planned.when {
                    refer(&mut fields, when.references());
                }
                if let Some(for_each) = &planned.for_each {
                    refer(&mut fields, for_each.items.references());
                }
                for need in &planned.needs {
                    let field = format!("s{need}");
                    if !fields.contains(&field) {
                        fields.push(field);
                    }
                }
            }
        }
        Part::Gather { step } => fields.extend(['n', 'u', 'g', 'h'].map(|kind| format!("{kind}{step}"))),
        Part::Finish => {
            match &plan.finish {
                tidemill_workflow::Finish::Evaluate(template) => refer(&mut fields, template.references()),
                tidemill_workflow::Finish::Sink(sink) => fields.push(format!("o{sink}")),
            }
            fields.push("f".to_owned());
        }
        Part::Close => {
            fields.extend(["cs", "nc"].map(str::to_owned));
            fields.extend((0..plan.steps.len()).map(|step| format!("s{step}")));
        }
        Part::Fan { .. } => {}
    }
    fields
}

/// Adds the fields that expressions read.
fn refer(fields: &mut Vec<String>, references: &References) {
    let mut add = |field: String| {
        if !fields.contains(&field) {
            fields.push(field);
        }
    };
    if references.reads_locals() {
        add("loc".to_owned());
    }
    if references.input {
        add("in".to_owned());
        add("is".to_owned());
    }
    for step in &references.steps {
        ['s', 'o', 'e'].into_iter().for_each(|kind| add(format!("{kind}{step}")));
    }
}

impl Known {
    fn new(part: PartEntry, plan: Arc<Plan>, fields: HashMap<String, Bytes>) -> Self {
        let reply_to = fields.get("rp").map(|value| Arc::from(&*String::from_utf8_lossy(value)));
        let text = |name: &str| fields.get(name).and_then(|value| std::str::from_utf8(value).ok());
        let mode = text("md").and_then(ExecutionMode::parse).unwrap_or_default();
        let plan = if mode.is_sequential() { plan.in_order() } else { plan };
        let run = RunRef {
            id: part.part.run.as_str().into(),
            workflow: part.part.workflow.as_str().into(),
            plan,
            queue: fields.get("qu").map(|value| Arc::from(&*String::from_utf8_lossy(value))),
            retention_ms: text("rms").and_then(|ms| ms.parse().ok()).unwrap_or(DEFAULT_RETENTION_MS),
            publishes: reply_to.is_some() || fields.contains_key("rt"),
            reply_to,
            mode,
            started_ms: text("t1").and_then(|ms| ms.parse().ok()),
            budget: Purse::of(text(BudgetField::NAME)),
        };
        // whoever asked for the run wrote it; what is not readable is not there
        let locals = fields.get("loc").and_then(|text| serde_json::from_slice(text).ok()).unwrap_or_default();
        Self { place: part.place, entry: part.entry, part: part.part, run, fields, locals }
    }

    pub(crate) fn field(&self, name: &str) -> Option<&Bytes> {
        self.fields.get(name)
    }

    pub(crate) fn text(&self, name: &str) -> Option<&str> {
        self.field(name).and_then(|value| std::str::from_utf8(value).ok())
    }

    /// Whether the part has nothing to do any more: its run has ended, or is ending and the part is none of its end.
    fn run_has_ended(&self) -> bool {
        let ends = match self.part.part {
            Part::Step { step } => step >= self.run.plan.main(),
            Part::Close => true,
            Part::Item { .. } | Part::Gather { .. } | Part::Finish | Part::Fan { .. } => false,
        };
        self.text("st").and_then(RunState::parse).is_none_or(RunState::is_terminal)
            || (self.field("to").is_some() && !ends)
    }

    /// Whether something begins with it that a budget bounds: nothing is spared at a run's end.
    fn begins(&self) -> bool {
        match self.part.part {
            Part::Step { step } => step < self.run.plan.main(),
            Part::Item { .. } => true,
            Part::Gather { .. } | Part::Finish | Part::Fan { .. } | Part::Close => false,
        }
    }

    fn record(&self, step: u32) -> Option<StepRecord> {
        self.text(&format!("s{step}")).and_then(StepRecord::parse)
    }

    /// The first of what was read that is not what was written.
    fn damage(&self) -> Option<String> {
        if let (Some(input), Some(sum)) = (self.field("in"), self.text("is"))
            && u32::from_str_radix(sum, 16) != Ok(checksum(input))
        {
            return Some("the run's input".to_owned());
        }
        self.fields.iter().find_map(|(name, value)| {
            let step: u32 = name.strip_prefix('s')?.parse().ok()?;
            let id = || self.run.plan.step(step).map_or_else(|| step.to_string(), |step| step.id.to_string());
            let Some(record) = std::str::from_utf8(value).ok().and_then(StepRecord::parse) else {
                return Some(format!("the record of step {:?}", id()));
            };
            let output = self.field(&format!("o{step}"))?;
            let is_whole = record.sum.is_none_or(|sum| sum == checksum(output));
            (!is_whole).then(|| format!("the output of step {:?}", id()))
        })
    }

    /// How the needs of a step stand.
    pub(crate) fn needs(&self, step: u32) -> Vec<Need> {
        let plan = &self.run.plan;
        let Some(planned) = plan.step(step) else { return Vec::new() };
        let stand = |need: &u32| match self.record(*need).map(|record| record.state) {
            Some(StepState::Succeeded) => Need::Succeeded,
            Some(StepState::Skipped) => Need::Skipped,
            Some(StepState::Failed | StepState::TimedOut | StepState::Cancelled) => {
                if plan.step(*need).is_some_and(|need| need.continue_on_error) {
                    Need::Continued
                } else {
                    Need::Failed
                }
            }
            Some(
                StepState::Pending
                | StepState::Ready
                | StepState::Running
                | StepState::Parked
                | StepState::Retrying
                | StepState::Waiting,
            )
            | None => Need::Pending,
        };
        planned.needs.iter().map(stand).collect()
    }

    /// What expressions see.
    pub(crate) fn scope<'a>(&'a self, references: &References, item: Option<(u64, &'a [u8])>) -> Scope<'a> {
        let plan = &self.run.plan;
        let step = |step: &u32| {
            let state =
                self.text(&format!("s{step}")).and_then(|text| text.split(' ').next()).unwrap_or("pending");
            let output = self.field(&format!("o{step}")).map(|value| &value[..]);
            let error = self.field(&format!("e{step}")).map(|value| &value[..]);
            (*step, StepView { state, output, error })
        };
        Scope {
            input: self.field("in").map_or(&b"null"[..], |value| &value[..]),
            steps: references.steps.iter().map(step).collect(),
            run: RunView {
                id: &self.part.run,
                workflow: &plan.name,
                version: plan.version,
                tenant: self.text("ten"),
                state: self.text("to"),
                error: self.field("err").map(|value| &value[..]),
            },
            item,
            locals: self.locals.iter().map(|(name, text)| (&**name, text.get().as_bytes())).collect(),
        }
    }

    /// The outcome of a part that ends without running.
    pub(crate) fn ended(self, to: StepState, fault: Option<Fault>, ran: bool) -> Outcome {
        let attempt = self.part.attempt;
        let zero = std::time::Duration::ZERO;
        let ending = match self.part.part {
            Part::Step { step } | Part::Gather { step } => {
                let end = step_end(self.run, step, to, attempt, zero);
                let mode = tidemill_store::Mode { did_not_run: !ran, ..end.mode };
                Ending::Step(Box::new(StepEnd { error: fault, mode, ..end }))
            }
            Part::Item { step, item } => {
                let end = item_end(self.run, (step, item), to, attempt, zero);
                Ending::Item(Box::new(ItemEnd { error: fault, did_not_run: !ran, ..end }))
            }
            Part::Finish | Part::Fan { .. } | Part::Close => Ending::Acknowledge,
        };
        Outcome { place: self.place, entry: self.entry, ending }
    }

    /// A failure that no retry can help.
    pub(crate) fn failed(self, fault: Fault) -> Outcome {
        if matches!(self.part.part, Part::Finish) {
            return finish::failed(self, fault);
        }
        self.ended(StepState::Failed, Some(fault), true)
    }

    /// Its run has ended, or is gone.
    fn not_wanted(self) -> Outcome {
        // a gathering belongs to a step that was running, the others had not begun
        let ran = matches!(self.part.part, Part::Gather { .. });
        self.ended(StepState::Cancelled, Some(Fault::new("run_ended", "the run had ended before")), ran)
    }

    fn fan(self) -> Outcome {
        let Part::Fan { origin, from, ref mode } = self.part.part else {
            return Outcome { place: self.place, entry: self.entry, ending: Ending::Acknowledge };
        };
        let end = StepEnd {
            step: None,
            origin,
            from,
            mode: tidemill_store::Mode::from_letters(mode),
            ..step_end(
                self.run,
                origin.unwrap_or(u32::MAX),
                StepState::Succeeded,
                1,
                std::time::Duration::ZERO,
            )
        };
        Outcome { place: self.place, entry: self.entry, ending: Ending::Step(Box::new(end)) }
    }
}

/// Something stored is not what was written.
fn damaged(what: &str) -> Fault {
    let message = format!(
        "{what} does not match its checksum: it was changed in Redis and is not used; restore it from a backup, or run the \
         work again"
    );
    Fault::new("damaged_value", message)
}

/// Ends a run whose workflow cannot be used: nothing about it can be decided.
async fn without_plan(shared: &Shared, part: PartEntry, why: &str) -> Outcome {
    let store = &shared.store.partitions()[part.place.partition as usize];
    let stop = StopRun {
        id: &part.part.run,
        to: RunState::Failed,
        who: &shared.consumer,
        code: "unusable_workflow",
        reason: why,
        only_past_deadline: false,
        spares: true,
        // without its plan nothing can be done at its end either
        by_force: true,
    };
    shared.persist("ending a run", || store.stop_run(&stop)).await;
    Outcome { place: part.place, entry: part.entry, ending: Ending::Acknowledge }
}
