//! Compiled workflows. A version never changes once published, so a plan is compiled once per process.

use std::collections::HashMap;
use std::sync::{Arc, RwLock};

use tidemill_store::Partition;
use tidemill_workflow::{Plan, ToolCatalog};

/// More compiled workflows than this are not kept.
const MOST_KEPT: usize = 512;

/// Why a plan cannot be had.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PlanError {
    /// Redis could not be asked; try again.
    #[error(transparent)]
    Store(#[from] tidemill_store::Error),
    /// It is not published, or does not compile.
    #[error("{0}")]
    Unusable(String),
}

/// The plans that this process has met lately.
#[derive(Debug)]
pub(crate) struct Plans {
    home: Partition,
    known: RwLock<HashMap<String, Arc<Plan>>>,
}

/// A run pins a version that was checked when it was published; which tools *this* worker has shows when a step is run.
struct AnyTool;

impl ToolCatalog for AnyTool {
    fn knows(&self, _: &str) -> bool {
        true
    }

    fn input_schema(&self, _: &str) -> Option<serde_json::Value> {
        None
    }

    fn names(&self) -> Vec<String> {
        Vec::new()
    }
}

impl Plans {
    pub(crate) fn new(home: Partition) -> Self {
        Self { home, known: RwLock::default() }
    }

    /// The plan of `name@version`.
    pub(crate) async fn get(&self, workflow: &str) -> Result<Arc<Plan>, PlanError> {
        if let Some(plan) = self.cached(workflow) {
            return Ok(plan);
        }
        let unusable = |why: String| PlanError::Unusable(format!("workflow {workflow:?} {why}"));
        let (name, version) =
            workflow.rsplit_once('@').ok_or_else(|| unusable("names no version".to_owned()))?;
        let version = version.parse().map_err(|_| unusable("has no number for a version".to_owned()))?;
        let published = self.home.definition(name, Some(version)).await?;
        let published = published.ok_or_else(|| unusable("is not published".to_owned()))?;
        let mut plan = Plan::from_source(&published.source, workflow, &AnyTool)
            .map_err(|problems| unusable(format!("does not compile: {problems}")))?;
        // what it was published as is what it is called, whatever its text says
        plan.name.clone_from(&published.name);
        plan.version = published.version;
        let plan = Arc::new(plan);
        let mut known = self.known.write().unwrap_or_else(std::sync::PoisonError::into_inner);
        if known.len() >= MOST_KEPT {
            // rare, and cheap to make good: whatever is still needed is compiled again
            known.clear();
        }
        known.insert(workflow.to_owned(), Arc::clone(&plan));
        Ok(plan)
    }

    fn cached(&self, workflow: &str) -> Option<Arc<Plan>> {
        let known = self.known.read().unwrap_or_else(std::sync::PoisonError::into_inner);
        known.get(workflow).cloned()
    }
}
