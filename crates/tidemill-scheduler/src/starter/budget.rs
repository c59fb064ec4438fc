//! Budgets: the outermost bounds everything that is started under it.

use tidemill_protocol::CHILD;
use tidemill_store::BudgetField;
use tidemill_workflow::Plan;

use super::Starter;
use super::batch::Prepared;
use super::request::Request;
use crate::Error;

/// What a workflow's runs may use up, where workers have to look at it: how long they may take is their deadline.
pub(super) fn of(request: &Request, plan: &Plan) -> Option<BudgetField> {
    let budget = plan.budget.as_ref()?;
    let is_any = budget.steps.is_some() || budget.cost_micros.is_some();
    let owner = || request.id.clone();
    is_any.then(|| BudgetField { steps: budget.steps, cost_micros: budget.cost_micros, owner: owner() })
}

impl Starter {
    /// Bounds runs that others have asked for by the budget of those.
    pub(super) async fn hand_down(&self, prepared: &mut [Prepared]) -> Result<(), Error> {
        let children: Vec<&mut Prepared> =
            prepared.iter_mut().filter(|run| run.request.id.contains(CHILD)).collect();
        let wanted: Vec<_> = children
            .iter()
            .map(|run| {
                let parent = run.parent().unwrap_or_default();
                (self.partition.keys().run(parent), vec![BudgetField::NAME.to_owned()])
            })
            .collect();
        let found = self.partition.run_fields(&wanted).await?;
        for (run, row) in children.into_iter().zip(found) {
            if let Some(budget) = row.into_iter().next().flatten() {
                run.bound(budget.to_vec());
            }
        }
        Ok(())
    }
}
