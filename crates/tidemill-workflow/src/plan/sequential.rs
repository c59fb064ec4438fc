//! The same workflow with its steps in order: one at a time, each dispatched when the one before it has ended.
//!
//! What a step *needs* stays what it was: whether it runs is decided by its needs, its join and its condition, so the same steps
//! run, with the same results, as where whatever is ready runs side by side. Only what *dispatches* it differs.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;

use super::{Decision, Need, Plan, PlanStep};

impl Plan {
    /// The same plan with its steps in order; made when it is first asked for. The order is that of the definition, as far as the
    /// needs allow: of the steps that could come next, the first in the file does.
    #[must_use]
    pub fn in_order(&self) -> Arc<Self> {
        Arc::clone(self.in_order.get_or_init(|| Arc::new(self.sequential())))
    }

    fn sequential(&self) -> Self {
        let order = self.order();
        let mut plan = self.clone();
        plan.in_order = std::sync::OnceLock::new();
        plan.roots = order.first().copied().into_iter().collect();
        plan.dependents.iter_mut().for_each(Vec::clear);
        for pair in order.windows(2) {
            let [before, step] = pair else { continue };
            if let Some(dependents) = plan.dependents.get_mut(*before as usize) {
                dependents.push(*step);
            }
            if let Some(step) = plan.steps.get_mut(*step as usize) {
                step.after = Some(*before);
            }
        }
        for step in &mut plan.steps {
            step.one_at_a_time = true;
            if let Some(for_each) = &mut step.for_each {
                for_each.concurrency = 1;
            }
        }
        plan
    }

    /// The steps of the run itself, each behind all that it needs.
    fn order(&self) -> Vec<u32> {
        let main = self.main as usize;
        let steps = self.steps.get(..main).unwrap_or(&self.steps);
        let mut behind: Vec<Vec<u32>> = vec![Vec::new(); steps.len()];
        let mut missing: Vec<usize> = vec![0; steps.len()];
        for (index, step) in (0_u32..).zip(steps) {
            for need in &step.needs {
                if let (Some(behind), Some(missing)) =
                    (behind.get_mut(*need as usize), missing.get_mut(index as usize))
                {
                    behind.push(index);
                    *missing += 1;
                }
            }
        }
        let free = (0_u32..).zip(&missing).filter(|(_, missing)| **missing == 0);
        let mut next: BinaryHeap<Reverse<u32>> = free.map(|(step, _)| Reverse(step)).collect();
        let mut order = Vec::with_capacity(steps.len());
        while let Some(Reverse(step)) = next.pop() {
            order.push(step);
            for dependent in behind.get(step as usize).into_iter().flatten() {
                if let Some(missing) = missing.get_mut(*dependent as usize) {
                    *missing -= 1;
                    if *missing == 0 {
                        next.push(Reverse(*dependent));
                    }
                }
            }
        }
        order
    }
}

impl PlanStep {
    /// The steps whose ends dispatch it: what it needs, or in a plan in order the one before it.
    #[must_use]
    pub fn dispatched_by(&self) -> &[u32] {
        self.after.as_ref().map_or(&self.needs, std::slice::from_ref)
    }

    /// Whether it is to be dispatched, given how each of those that dispatch it stands.
    #[must_use]
    pub fn is_due(&self, dispatchers: &[Need]) -> bool {
        match self.after {
            Some(_) => !dispatchers.contains(&Need::Pending),
            None => self.decide(dispatchers) != Decision::Wait,
        }
    }
}

#[cfg(test)]
mod laws;
