//! `tidemill verify`.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::json;
use tidemill_protocol::check_any_id;
use tidemill_scheduler::{NoPlan, Plans, RunRepair};
use tidemill_store::{Drift, Partition, RunWalk, Shape, Shapes, StepShape, Verdict};
use tidemill_workflow::{FailurePolicy, Plan};

use super::service::Who;
use crate::context::Context;
use crate::error::{Error, Outcome};
use crate::progress;
use crate::table::{Cell, Style, Table};

/// Compare the stored state of runs with what their audit leads to
///
/// Folds each run's audit by the table of moves, and reports every state, attempt, time, counter, entry and listing that does not fit.
/// Only reads, unless --repair is given. Exit code 1 when something does not fit (any more).
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  tidemill verify order-42
  tidemill verify --all
  tidemill verify --all --json | jq -r 'select(.run).run'
  tidemill verify --all --repair

With --json: one document a run that does not fit (of the runs that are named: every run), and a last one with the sums.")]
pub(crate) struct Arguments {
    /// Ids of runs
    #[arg(required_unless_present = "all", conflicts_with = "all")]
    runs: Vec<String>,
    /// Every run that lives or is kept
    #[arg(long)]
    all: bool,
    /// Repair what can be repaired without a guess, as the scheduler's auditor does, and look again
    #[arg(long)]
    repair: bool,
}

/// Runs looked at in one go.
const PAGE: usize = 200;
/// More workflows than this are not remembered.
const MOST_SHAPES: usize = 512;
/// Fan-outs beyond this are counted in more than one call.
const WIDE: usize = 250;

pub(crate) async fn run(context: &Context, arguments: Arguments) -> Outcome {
    let mut look = Look::new(context, &arguments);
    if arguments.all {
        look.all().await?;
    } else {
        look.named(&arguments.runs).await?;
    }
    look.end()
}

/// Every run that lives or is kept, as `tidemill verify --all` does.
pub(super) async fn all(context: &Context) -> Outcome {
    run(context, Arguments { runs: Vec::new(), all: true, repair: false }).await
}

/// What the workflows of a pool look like.
pub(super) struct Known {
    plans: Arc<Plans>,
    /// By `name@version`, which never changes, and whether its steps go in order; at most [`MOST_SHAPES`].
    shapes: Mutex<HashMap<(String, bool), Arc<Shape>>>,
}

impl Shapes for Known {
    async fn of(&self, workflow: &str) -> Result<Option<Arc<Shape>>, tidemill_store::Error> {
        self.shape_of(workflow, false).await
    }

    async fn in_order(&self, workflow: &str) -> Result<Option<Arc<Shape>>, tidemill_store::Error> {
        self.shape_of(workflow, true).await
    }
}

impl Known {
    async fn shape_of(
        &self,
        workflow: &str,
        in_order: bool,
    ) -> Result<Option<Arc<Shape>>, tidemill_store::Error> {
        let key = (workflow.to_owned(), in_order);
        if let Some(shape) = self.shapes().get(&key) {
            return Ok(Some(Arc::clone(shape)));
        }
        match self.plans.of(workflow).await {
            Ok(plan) => {
                let shape = Arc::new(if in_order { shape(&plan.in_order()) } else { shape(&plan) });
                let mut shapes = self.shapes();
                if shapes.len() >= MOST_SHAPES {
                    shapes.clear();
                }
                shapes.insert(key, Arc::clone(&shape));
                Ok(Some(shape))
            }
            Err(NoPlan::Store(error)) => Err(error),
            Err(
                NoPlan::Unknown(_)
                | NoPlan::Invalid { .. }
                | NoPlan::NotStartable { .. }
                | NoPlan::Damaged(_),
            ) => Ok(None),
        }
    }

    pub(super) fn new(plans: Arc<Plans>) -> Self {
        Self { plans, shapes: Mutex::default() }
    }

    fn shapes(&self) -> MutexGuard<'_, HashMap<(String, bool), Arc<Shape>>> {
        self.shapes.lock().unwrap_or_else(PoisonError::into_inner)
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
        is_wide: plan.dependents(index).len() > WIDE,
        is_closing: index >= plan.main(),
    });
    Shape { steps: steps.collect() }
}

/// One look over some runs.
struct Look<'c> {
    context: &'c Context,
    known: Known,
    repair: Option<RunRepair>,
    sums: Sums,
    table: Table,
    /// Named runs that are not there.
    unknown: Vec<String>,
}

#[derive(Debug, Default)]
struct Sums {
    runs: u64,
    records: u64,
    unsettled: u64,
    moving: u64,
    repaired: u64,
    drifted: u64,
    by_kind: BTreeMap<&'static str, u64>,
    repairable: u64,
}

impl<'c> Look<'c> {
    fn new(context: &'c Context, arguments: &Arguments) -> Self {
        let plans = Arc::new(Plans::new(context.store.home().clone()));
        let who = Who::here();
        let repair = || RunRepair::new(context.store.clone(), Arc::clone(&plans), who.as_str());
        let repair = arguments.repair.then(repair);
        let table = Table::new(&["RUN", "STATE", "WHERE", "WHAT", "STORED", "EXPECTED", "REPAIR"]);
        Self { context, known: Known::new(plans), repair, sums: Sums::default(), table, unknown: Vec::new() }
    }

    async fn named(&mut self, runs: &[String]) -> Outcome {
        for run in runs {
            check_any_id(run)?;
            let mut found = None;
            for partition in self.context.partitions_for(run) {
                if let Some(verdict) = partition.verify(run, &self.known).await? {
                    found = Some((partition, verdict));
                    break;
                }
            }
            match found {
                Some((partition, verdict)) => self.take(partition, verdict, true).await?,
                None => self.unknown.push(run.clone()),
            }
        }
        Ok(())
    }

    async fn all(&mut self) -> Outcome {
        let mut total = 0;
        for partition in self.context.store.partitions() {
            let (live, ended) = partition.run_counts().await?;
            total += live + ended;
        }
        let bar = progress::bar(self.context.output, "verifying", total);
        for partition in self.context.store.partitions() {
            let (mut walk, mut alive) = (Some(RunWalk::default()), HashSet::new());
            while let Some(from) = walk {
                let (mut ids, next) = partition.walk_runs(from, PAGE).await?;
                // what was met alive has ended since
                ids.retain(|id| !alive.contains(id));
                for ids in ids.chunks(PAGE) {
                    for verdict in partition.verify_all(ids, &self.known).await? {
                        if verdict.state.is_some_and(|state| !state.is_terminal()) {
                            alive.insert(verdict.run.clone());
                        }
                        self.take(partition, verdict, false).await?;
                    }
                    bar.inc(ids.len() as u64);
                }
                walk = next;
            }
        }
        bar.finish_and_clear();
        Ok(())
    }

    /// Repairs if that is wanted, counts, and shows.
    async fn take(&mut self, partition: &Partition, verdict: Verdict, named: bool) -> Outcome {
        let verdict = match &self.repair {
            Some(repair) if verdict.is_repairable() => {
                let still = verdict.findings.iter().any(|finding| finding.kind == Drift::Still);
                repair.repair(partition, &verdict.run, still).await.map_err(of_repair)?;
                let before = verdict.findings.iter().filter(|finding| finding.repairable).count();
                let after = partition.verify(&verdict.run, &self.known).await?;
                let left =
                    after.iter().flat_map(|after| &after.findings).filter(|finding| finding.repairable);
                self.sums.repaired += before.saturating_sub(left.count()) as u64;
                // a run that is gone was in a list only
                after.unwrap_or_else(|| Verdict { findings: Vec::new(), ..verdict })
            }
            _ => verdict,
        };
        self.sums.add(&verdict);
        if self.context.output.is_json() {
            if named || !verdict.is_clean() {
                self.context.output.document(&verdict);
            }
            return Ok(());
        }
        self.rows(&verdict);
        Ok(())
    }

    fn rows(&mut self, verdict: &Verdict) {
        let state = verdict.state.map_or("?", tidemill_protocol::RunState::as_str);
        for finding in &verdict.findings {
            self.table.row(vec![
                Cell::new(&verdict.run),
                Cell::state(state),
                Cell::new(&finding.place),
                Cell::new(finding.kind.as_str()).style(Style::Bad),
                Cell::new(&finding.stored),
                Cell::new(&finding.expected),
                Cell::new(if finding.repairable { "possible" } else { "" }),
            ]);
        }
        if verdict.more > 0 {
            let more = format!("and {} more findings", verdict.more);
            self.table.row(vec![Cell::new(&verdict.run), Cell::state(state), Cell::new(more)]);
        }
        if self.table.len() >= PAGE {
            self.show();
        }
    }

    /// Shows what has gathered: a walk over many runs does not keep it all.
    fn show(&mut self) {
        if !self.table.is_empty() {
            self.context.output.table(&self.table);
            self.table = Table::new(&["RUN", "STATE", "WHERE", "WHAT", "STORED", "EXPECTED", "REPAIR"]);
        }
    }

    fn end(mut self) -> Outcome {
        self.show();
        let output = self.context.output;
        if output.is_json() {
            output.document(&self.sums.document());
        } else {
            output.line(self.sums.sentence());
        }
        if self.sums.drifted == 0 {
            return self.unknown.first().map_or(Ok(()), |_| Err(unknown(&self.unknown)));
        }
        let advice = match (&self.repair, self.sums.repairable) {
            (None, 1..) => "; `--repair` mends what can be mended without a guess",
            _ => "; see docs/verify.md for what to do about each",
        };
        let runs = plural(self.sums.drifted, "run");
        Err(Error::failed("drift", format!("{runs} not as audited{advice}")))
    }
}

pub(super) fn of_repair(error: tidemill_scheduler::Error) -> Error {
    match error {
        tidemill_scheduler::Error::Store(error) => error.into(),
        error => Error::failed("repair", error.to_string()),
    }
}

fn unknown(runs: &[String]) -> Error {
    let runs = runs.iter().map(|run| format!("{run:?}")).collect::<Vec<_>>().join(", ");
    let message = format!("no run {runs} is known: it never was, has not started, or is not kept any more");
    Error::failed("unknown_id", message)
}

fn plural(count: u64, what: &str) -> String {
    if count == 1 { format!("{count} {what} is") } else { format!("{count} {what}s are") }
}

impl Sums {
    fn add(&mut self, verdict: &Verdict) {
        self.runs += 1;
        self.records += verdict.records;
        self.unsettled += verdict.unsettled;
        self.moving += u64::from(verdict.moving);
        self.drifted += u64::from(!verdict.is_clean());
        for finding in &verdict.findings {
            *self.by_kind.entry(finding.kind.as_str()).or_default() += 1;
            self.repairable += u64::from(finding.repairable);
        }
    }

    fn document(&self) -> serde_json::Value {
        json!({
            "runs": self.runs,
            "records": self.records,
            "drifted": self.drifted,
            "findings": self.by_kind,
            "repaired": self.repaired,
            "unsettled": self.unsettled,
            "moving": self.moving,
        })
    }

    fn sentence(&self) -> String {
        let mut parts = vec![format!("{} runs verified, {} audit records folded", self.runs, self.records)];
        if self.repaired > 0 {
            parts.push(format!("{} repaired", self.repaired));
        }
        if self.unsettled > 0 {
            parts.push(format!("{} steps of ended runs still to be met", self.unsettled));
        }
        if self.moving > 0 {
            parts.push(format!("{} runs never stood still: only their audit was judged", self.moving));
        }
        if self.drifted == 0 {
            parts.push("all is as audited".to_owned());
        } else {
            let kinds = self.by_kind.iter().map(|(kind, count)| format!("{count} {kind}"));
            parts.push(kinds.collect::<Vec<_>>().join(", "));
        }
        parts.join("; ")
    }
}
