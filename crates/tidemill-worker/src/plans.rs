//! Compiled workflows. A version never changes once published, so a plan is compiled once per process.

use std::collections::HashMap;
use std::sync::{Arc, RwLock};

use tidemill_runtime::clock::Instant;
use tidemill_store::{Partition, Published};
use tidemill_workflow::{AnyTool, Plan};

use crate::metrics::WorkerMetrics;

/// More compiled workflows than this are not kept.
const MOST_KEPT: usize = 512;

/// Why a plan cannot be had.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PlanError {
    /// Redis could not be asked; try again.
    #[error(transparent)]
    Store(tidemill_store::Error),
    /// It is not published, is not what was published, or does not compile.
    #[error("{0}")]
    Unusable(String),
}

impl From<tidemill_store::Error> for PlanError {
    fn from(error: tidemill_store::Error) -> Self {
        match error {
            tidemill_store::Error::Damaged(damaged) => {
                tracing::error!(problem = %damaged, "a published workflow cannot be used");
                Self::Unusable(damaged.to_string())
            }
            error => Self::Store(error),
        }
    }
}

/// The plans that this process has met lately.
#[derive(Debug)]
pub(crate) struct Plans {
    home: Partition,
    known: RwLock<HashMap<String, Arc<Plan>>>,
}

impl Plans {
    pub(crate) fn new(home: Partition) -> Self {
        Self { home, known: RwLock::default() }
    }

    /// The plan of `name@version`, or of its block `name@version#path`.
    pub(crate) async fn get(&self, workflow: &str) -> Result<Arc<Plan>, PlanError> {
        let Some((whole, path)) = workflow.split_once('#') else { return self.get_whole(workflow).await };
        let plan = self.get_whole(whole).await?;
        let block = plan.block(path).cloned();
        block.ok_or_else(|| PlanError::Unusable(format!("workflow {whole:?} has no block {path:?}")))
    }

    async fn get_whole(&self, workflow: &str) -> Result<Arc<Plan>, PlanError> {
        if let Some(plan) = self.cached(workflow) {
            return Ok(plan);
        }
        let unusable = |why: String| PlanError::Unusable(format!("workflow {workflow:?} {why}"));
        let (name, version) =
            workflow.rsplit_once('@').ok_or_else(|| unusable("names no version".to_owned()))?;
        let version = version.parse().map_err(|_| unusable("has no number for a version".to_owned()))?;
        let published = self.home.definition(name, Some(version)).await?;
        self.keep(&published.ok_or_else(|| unusable("is not published".to_owned()))?)
    }

    /// Compiles every active version of every workflow before anything is claimed. Replies what is wrong, one line each; none: all is well.
    pub(crate) async fn validate(
        &self,
        metrics: &WorkerMetrics,
    ) -> Result<Vec<String>, tidemill_store::Error> {
        let published = self.home.active_definitions().await?;
        let started = Instant::now();
        let (count, mut wrong) = (published.len(), Vec::new());
        for definition in published {
            let (code, problem) = match definition.map(|definition| self.keep(&definition)) {
                Ok(Ok(_)) => continue,
                Ok(Err(problem)) => ("invalid_workflow", problem.to_string()),
                Err(damaged) => ("damaged_definition", damaged.to_string()),
            };
            metrics.validation_failed.with(&[code]).inc();
            tracing::error!(problem, "a published workflow cannot be used");
            wrong.push(problem);
        }
        let duration_ms = started.elapsed().as_secs_f64() * 1_000.0;
        let result = if wrong.is_empty() { "valid" } else { "invalid" };
        tracing::info!(count, invalid = wrong.len(), duration_ms, result, "workflow graph validation");
        Ok(wrong)
    }

    /// Compiles a definition and keeps the plan. Which tools *this* worker has shows when a step is run.
    fn keep(&self, published: &Published) -> Result<Arc<Plan>, PlanError> {
        let workflow = format!("{}@{}", published.name, published.version);
        let called = (published.name.as_str(), published.version);
        let plan =
            tidemill_serverless::published(&published.source, called, &AnyTool).map_err(|problems| {
                PlanError::Unusable(format!("workflow {workflow:?} does not compile: {problems}"))
            })?;
        let plan = Arc::new(plan);
        let mut known = self.known.write().unwrap_or_else(std::sync::PoisonError::into_inner);
        if known.len() >= MOST_KEPT {
            // rare, and cheap to make good: whatever is still needed is compiled again
            known.clear();
        }
        known.insert(workflow, Arc::clone(&plan));
        Ok(plan)
    }

    fn cached(&self, workflow: &str) -> Option<Arc<Plan>> {
        let known = self.known.read().unwrap_or_else(std::sync::PoisonError::into_inner);
        known.get(workflow).cloned()
    }
}
