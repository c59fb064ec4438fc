//! Checking at the start what is published, so that a bad graph is told by the process that starts and not by the run that fails.

use std::collections::BTreeSet;
use std::sync::Arc;

use tidemill_runtime::clock::Instant;
use tidemill_runtime::metrics::{Counter, Labelled};
use tidemill_store::Store;

use crate::Error;
use crate::plans::{NoPlan, Plans, tools_of};

/// Compiles every active version of every published workflow. Replies how many there are; tools that nobody is known to run are only
/// warned of, since their workers may start later.
pub(crate) async fn validate(
    store: &Store,
    plans: &Plans,
    built_in_tools: &BTreeSet<String>,
    failed: &Labelled<Counter>,
) -> Result<usize, Error> {
    let published = store.home().active_definitions().await?;
    let registered = store.home().tools().await?;
    let started = Instant::now();
    let is_known = |tool: &Arc<str>| {
        let bare = tool.split('@').next().unwrap_or(tool);
        [&**tool, bare].iter().any(|name| built_in_tools.contains(*name) || registered.contains_key(*name))
    };
    let count = published.len();
    let mut wrong = Vec::new();
    for definition in published {
        let kept = definition.map_err(NoPlan::Damaged).and_then(|definition| plans.keep(&definition));
        match kept {
            Ok(plan) => {
                let unknown: Vec<_> = tools_of(&plan).into_iter().filter(|tool| !is_known(tool)).collect();
                if !unknown.is_empty() {
                    let workflow = format!("{}@{}", plan.name, plan.version);
                    tracing::warn!(workflow, tools = ?unknown, "no worker has these tools yet");
                }
            }
            Err(problem) => {
                failed.with(&[problem.code().unwrap_or("redis")]).inc();
                tracing::error!(%problem, "a published workflow cannot be used");
                wrong.push(problem.to_string());
            }
        }
    }
    let duration_ms = started.elapsed().as_secs_f64() * 1_000.0;
    let result = if wrong.is_empty() { "valid" } else { "invalid" };
    tracing::info!(count, invalid = wrong.len(), duration_ms, result, "workflow graph validation");
    if wrong.is_empty() { Ok(count) } else { Err(Error::BadWorkflows(wrong.join("\n"))) }
}
