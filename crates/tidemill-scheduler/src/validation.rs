//! Checking at the start what is published, so that a bad graph is told by the process that starts and not by the run that fails.

use std::collections::BTreeSet;
use std::sync::Arc;

use tidemill_runtime::clock::{Instant, milliseconds};
use tidemill_store::Store;

use crate::Error;
use crate::plans::{Plans, tools_of};

/// Compiles the newest version of every published workflow. Replies how many there are; tools that nobody is known to run are only
/// warned of, since their workers may start later.
pub(crate) async fn validate(
    store: &Store,
    plans: &Plans,
    built_in_tools: &BTreeSet<String>,
) -> Result<usize, Error> {
    let started = Instant::now();
    let published = store.home().definitions().await?;
    let registered = store.home().tools().await?;
    let is_known = |tool: &Arc<str>| {
        let bare = tool.split('@').next().unwrap_or(tool);
        [&**tool, bare].iter().any(|name| built_in_tools.contains(*name) || registered.contains_key(*name))
    };
    let mut wrong = Vec::new();
    for definition in &published {
        match plans.keep(definition) {
            Ok(plan) => {
                let unknown: Vec<_> = tools_of(&plan).into_iter().filter(|tool| !is_known(tool)).collect();
                if !unknown.is_empty() {
                    let workflow = format!("{}@{}", definition.name, definition.version);
                    tracing::warn!(workflow, tools = ?unknown, "no worker has these tools yet");
                }
            }
            Err(problem) => wrong.push(problem.to_string()),
        }
    }
    let took_ms = milliseconds(started.elapsed());
    tracing::info!(workflows = published.len(), invalid = wrong.len(), took_ms, "workflow graph validation");
    if wrong.is_empty() { Ok(published.len()) } else { Err(Error::BadWorkflows(wrong.join("\n"))) }
}
