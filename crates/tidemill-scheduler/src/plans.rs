//! Compiled definitions. A version never changes once it is published, so what is compiled stays valid.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::Value;
use tidemill_store::{Partition, Published};
use tidemill_workflow::{Action, Plan, Problems, ToolCatalog};

/// More compiled definitions than this are not kept.
const MOST_KEPT: usize = 512;

/// Compiled definitions from the home partition, by name and version; clones of the [`Arc`] share them.
#[derive(Debug)]
pub struct Plans {
    home: Partition,
    compiled: Mutex<HashMap<(String, u32), Arc<Plan>>>,
}

/// Why there is no plan for a workflow.
#[derive(Debug, thiserror::Error)]
pub enum NoPlan {
    /// It was never published, or not in this version.
    #[error("workflow {0:?} is not published; publish it with `tidemill workflow publish`")]
    Unknown(String),
    /// What is published does not compile.
    #[error("workflow {name:?} is not valid: {problems}")]
    Invalid {
        /// Its name and version.
        name: String,
        /// All that is wrong.
        problems: Problems,
    },
    /// Redis could not tell.
    #[error(transparent)]
    Store(#[from] tidemill_store::Error),
}

/// Only the structure of a definition matters to a scheduler: tools are the workers' affair, who may start later.
struct AnyTool;

impl ToolCatalog for AnyTool {
    fn knows(&self, _tool: &str) -> bool {
        true
    }

    fn input_schema(&self, _tool: &str) -> Option<Value> {
        None
    }

    fn names(&self) -> Vec<String> {
        Vec::new()
    }
}

impl Plans {
    /// Compiles what stands in `home`, when it is first asked for.
    #[must_use]
    pub fn new(home: Partition) -> Self {
        Self { home, compiled: Mutex::default() }
    }

    /// The plan of `name` (its newest version, asked for anew each time) or `name@version`.
    ///
    /// # Errors
    /// [`NoPlan`].
    pub async fn of(&self, target: &str) -> Result<Arc<Plan>, NoPlan> {
        let (name, version) = match target.rsplit_once('@') {
            Some((name, version)) => {
                let version = version.parse::<u32>().map_err(|_| NoPlan::Unknown(target.to_owned()))?;
                (name, version)
            }
            None => match self.home.newest(target).await? {
                Some(version) => (target, version),
                None => return Err(NoPlan::Unknown(target.to_owned())),
            },
        };
        if let Some(plan) = self.known(name, version) {
            return Ok(plan);
        }
        match self.home.definition(name, Some(version)).await? {
            Some(published) => self.keep(&published),
            None => Err(NoPlan::Unknown(target.to_owned())),
        }
    }

    /// Compiles a definition and keeps the plan.
    ///
    /// # Errors
    /// [`NoPlan::Invalid`].
    pub fn keep(&self, published: &Published) -> Result<Arc<Plan>, NoPlan> {
        let name = format!("{}@{}", published.name, published.version);
        let compiled = Plan::from_source(&published.source, &format!("workflow {name}"), &AnyTool);
        let mut plan = compiled.map_err(|problems| NoPlan::Invalid { name, problems })?;
        // what it was published as is what it is called, whatever its text says (the publisher may assign versions)
        plan.name.clone_from(&published.name);
        plan.version = published.version;
        let plan = Arc::new(plan);
        let mut compiled = self.compiled.lock().unwrap_or_else(PoisonError::into_inner);
        if compiled.len() >= MOST_KEPT {
            // rare, and cheap to make good: whatever is still needed is compiled again
            compiled.clear();
        }
        compiled.insert((published.name.clone(), published.version), Arc::clone(&plan));
        Ok(plan)
    }

    fn known(&self, name: &str, version: u32) -> Option<Arc<Plan>> {
        let compiled = self.compiled.lock().unwrap_or_else(PoisonError::into_inner);
        compiled.get(&(name.to_owned(), version)).cloned()
    }
}

/// The tools that a plan calls, each once, in the order of its steps.
pub(crate) fn tools_of(plan: &Plan) -> Vec<Arc<str>> {
    let mut tools: Vec<Arc<str>> = Vec::new();
    for step in &plan.steps {
        if let Action::Tool { tool } = &step.action
            && !tools.contains(tool)
        {
            tools.push(Arc::clone(tool));
        }
    }
    tools
}
