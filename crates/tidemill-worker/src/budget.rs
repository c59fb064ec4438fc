//! Budgets of runs: what a run and all that it has started may use up.
//!
//! What was used is added in Redis right before the outcomes that used it are settled, at the run whose budget it is, and looked at
//! before a step begins. So a chain stops exactly where its budget ends, and what runs side by side goes beyond it by no more than
//! what was under way. What a worker had counted when it died is lost with it.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tidemill_protocol::{CHILD, RunState};
use tidemill_store::{BudgetField, Partition, Spent, StopRun};
use tidemill_tool::Observed;

use crate::outcome::{Ending, Outcome};
use crate::part::Known;
use crate::shared::Shared;

/// The budget of a run.
#[derive(Debug)]
pub(crate) struct Purse {
    limits: BudgetField,
}

impl Purse {
    /// The budget that a run's field says.
    pub(crate) fn of(field: Option<&str>) -> Option<Arc<Self>> {
        field.and_then(BudgetField::parse).map(|limits| Arc::new(Self { limits }))
    }

    /// The run whose budget it is.
    fn owner(&self) -> &str {
        &self.limits.owner
    }

    /// Whether what calls say that they cost is wanted.
    pub(crate) const fn counts_cost(&self) -> bool {
        self.limits.cost_micros.is_some()
    }

    /// Why nothing more may begin.
    fn exceeded(&self, spent: Spent) -> Option<String> {
        let BudgetField { steps, cost_micros, owner } = &self.limits;
        if let Some(most) = steps.filter(|most| spent.steps >= *most) {
            return Some(format!(
                "run {owner:?} has used up its budget of {most} steps ({} have ended)",
                spent.steps
            ));
        }
        let most = cost_micros.filter(|most| spent.cost_micros >= *most)?;
        let money = |micros: u64| format!("{}.{:06}", micros / 1_000_000, micros % 1_000_000);
        Some(format!(
            "run {owner:?} has used up its budget: its calls have cost {} of {}",
            money(spent.cost_micros),
            money(most)
        ))
    }
}

/// Whether a run's hash may say that it has a budget.
pub(crate) fn may_have_one(run: &str, plan: &tidemill_workflow::Plan) -> bool {
    plan.budget.is_some() || run.contains(CHILD)
}

/// What was used and not added yet, by partition and run.
#[derive(Debug, Default)]
pub(crate) struct Spending {
    pending: Mutex<HashMap<(usize, String), Spent>>,
    /// Nearly always there is nothing, and this is all that it costs.
    is_any: AtomicBool,
}

impl Spending {
    fn lock(&self) -> MutexGuard<'_, HashMap<(usize, String), Spent>> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn add(&self, partition: usize, purse: &Purse, steps: u64, cost_micros: u64) {
        let mut pending = self.lock();
        let spent = pending.entry((partition, purse.owner().to_owned())).or_default();
        spent.steps = spent.steps.saturating_add(steps);
        spent.cost_micros = spent.cost_micros.saturating_add(cost_micros);
        self.is_any.store(true, Ordering::Release);
    }

    /// What an attempt has cost, as far as it is known.
    pub(crate) fn cost(&self, partition: usize, purse: &Purse, cost_micros: f64) {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "amounts are bounded and not negative; a part of a millionth counts as a whole one"
        )]
        let micros = cost_micros.ceil() as u64;
        if purse.counts_cost() && micros > 0 {
            self.add(partition, purse, 0, micros);
        }
    }

    /// What outcomes have used that are about to be settled.
    pub(crate) fn outcomes(&self, partition: usize, outcomes: &[Outcome]) {
        for outcome in outcomes {
            let purse = match &outcome.ending {
                Ending::Step(end) if !end.mode.did_not_run && end.step.is_some() => &end.run.budget,
                Ending::Item(end) if !end.did_not_run => &end.run.budget,
                Ending::Wait(wait) if wait.answer.is_some() => &wait.run.budget,
                _ => continue,
            };
            if let Some(purse) = purse {
                self.add(partition, purse, 1, 0);
            }
        }
    }

    fn take(&self, partition: usize) -> Vec<(String, Spent)> {
        if !self.is_any.load(Ordering::Acquire) {
            return Vec::new();
        }
        let mut pending = self.lock();
        let of_partition = |(key, _): &(&(usize, String), &mut Spent)| key.0 == partition;
        let keys: Vec<_> = pending.iter_mut().filter(of_partition).map(|(key, _)| key.clone()).collect();
        let taken =
            keys.into_iter().filter_map(|key| pending.remove(&key).map(|spent| (key.1, spent))).collect();
        self.is_any.store(!pending.is_empty(), Ordering::Release);
        taken
    }
}

/// Adds what was used in a partition.
pub(crate) async fn add(shared: &Shared, partition: usize, store: &Partition) {
    let sums = shared.spending.take(partition);
    if !sums.is_empty() {
        shared.persist("adding to budgets", || store.spend(&sums)).await;
    }
}

/// What an attempt said that it cost, in millionths.
pub(crate) fn cost_of(observed: &Observed) -> Option<f64> {
    observed.used.iter().find(|(unit, _)| unit == "cost").map(|(_, amount)| *amount)
}

/// What is spent of the budgets of these parts, by the run whose budget it is.
pub(crate) async fn spent(shared: &Shared, store: &Partition, known: &[Known]) -> HashMap<String, Spent> {
    let mut owners: Vec<String> = known
        .iter()
        .filter_map(|known| known.run.budget.as_ref())
        .map(|purse| purse.owner().to_owned())
        .collect();
    owners.sort_unstable();
    owners.dedup();
    if owners.is_empty() {
        return HashMap::new();
    }
    let spent = shared.persist("reading budgets", || store.spent(&owners)).await;
    owners.into_iter().zip(spent).collect()
}

/// Whether a part may not begin because its run's budget is used up; its run and the one whose budget it is are ended then.
pub(crate) async fn is_used_up(shared: &Shared, known: &Known, spent: &HashMap<String, Spent>) -> bool {
    let Some(purse) = &known.run.budget else { return false };
    let Some(reason) = spent.get(purse.owner()).and_then(|spent| purse.exceeded(*spent)) else {
        return false;
    };
    let store = &shared.store.partitions()[known.place.partition as usize];
    let own: &str = &known.run.id;
    let both = [own, purse.owner()];
    for run in both.iter().take(if own == purse.owner() { 1 } else { 2 }) {
        let stop = StopRun {
            id: run,
            to: RunState::Failed,
            who: &shared.consumer,
            code: "budget_exceeded",
            reason: &reason,
            only_past_deadline: false,
            spares: false,
            by_force: false,
        };
        let ended = shared.persist("ending a run", || store.stop_run(&stop)).await;
        if ended == Some(true) {
            tracing::info!(run, reason, "run ended: its budget is used up");
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::{Purse, Spending};
    use tidemill_store::Spent;

    #[test]
    fn a_budget_ends_where_it_says() {
        let purse = Purse::of(Some("10 2500000 r")).unwrap();
        assert_eq!(purse.owner(), "r");
        let spent = |steps, cost_micros| purse.exceeded(Spent { steps, cost_micros });
        assert_eq!(spent(9, 2_499_999), None);
        assert!(spent(10, 0).unwrap().contains("10 steps"));
        assert!(spent(0, 2_500_001).unwrap().contains("2.500001 of 2.500000"));
        assert!(Purse::of(None).is_none() && Purse::of(Some("many")).is_none());
    }

    #[test]
    fn what_is_used_is_taken_once_and_by_partition() {
        let (spending, purse) = (Spending::default(), Purse::of(Some("- 1 r")).unwrap());
        spending.cost(0, &purse, 0.2);
        spending.cost(0, &purse, 2.0);
        spending.cost(1, &purse, 5.0);
        assert_eq!(spending.take(0), [("r".to_owned(), Spent { steps: 0, cost_micros: 3 })]);
        assert_eq!(spending.take(0), []);
        assert_eq!(spending.take(1).len(), 1);
        assert_eq!(spending.take(1), []);
    }
}
