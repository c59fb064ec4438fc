//! Compiled definitions. A version never changes once it is published, so what is compiled stays valid.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use tidemill_store::{Damaged, Partition, Published, Startable, VersionState, WorkflowTarget};
use tidemill_workflow::{Action, AnyTool, Plan, Problems};

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
    /// It may not be started so.
    #[error("{why}")]
    NotStartable {
        /// The stable word.
        code: &'static str,
        /// What is wrong, and what to do.
        why: String,
    },
    /// What is stored is not what was published.
    #[error(transparent)]
    Damaged(Damaged),
    /// Redis could not tell.
    #[error(transparent)]
    Store(tidemill_store::Error),
}

/// What a start gets.
#[derive(Debug, Clone)]
pub struct ToStart {
    /// The plan.
    pub plan: Arc<Plan>,
    /// Where its version stands in its life.
    pub state: VersionState,
}

impl ToStart {
    /// Of what has begun already.
    pub(crate) const fn begun(plan: Arc<Plan>) -> Self {
        Self { plan, state: VersionState::Active }
    }
}

impl From<tidemill_store::Error> for NoPlan {
    fn from(error: tidemill_store::Error) -> Self {
        match error {
            tidemill_store::Error::Damaged(damaged) => Self::Damaged(damaged),
            error => Self::Store(error),
        }
    }
}

impl NoPlan {
    /// The stable word for a start that is refused; `None` where Redis could not tell.
    #[must_use]
    pub const fn code(&self) -> Option<&'static str> {
        match self {
            Self::Unknown(_) => Some("unknown_workflow"),
            Self::NotStartable { code, .. } => Some(*code),
            Self::Invalid { .. } => Some("invalid_workflow"),
            Self::Damaged(_) => Some("damaged_definition"),
            Self::Store(_) => None,
        }
    }
}

impl Plans {
    /// Compiles what stands in `home`, when it is first asked for.
    #[must_use]
    pub fn new(home: Partition) -> Self {
        Self { home, compiled: Mutex::default() }
    }

    /// The plan of `name@version`, or of its block `name@version#path`, wherever that stands in its life, for runs that have begun with it; or of `name`, its newest active
    /// version, asked for anew each time.
    ///
    /// # Errors
    /// [`NoPlan`].
    pub async fn of(&self, target: &str) -> Result<Arc<Plan>, NoPlan> {
        let Some((whole, path)) = target.split_once('#') else { return self.of_whole(target).await };
        let plan = self.of_whole(whole).await?;
        plan.block(path).cloned().ok_or_else(|| NoPlan::Unknown(target.to_owned()))
    }

    async fn of_whole(&self, target: &str) -> Result<Arc<Plan>, NoPlan> {
        let unknown = || NoPlan::Unknown(target.to_owned());
        let asked = WorkflowTarget::parse(target).ok_or_else(unknown)?;
        let version = match asked.version {
            Some(version) => version,
            None => self.home.newest(asked.name).await?.ok_or_else(unknown)?,
        };
        self.get(asked.name, version).await
    }

    /// The plan for a start of a target. Where the version stands in its life is asked for anew each time.
    ///
    /// # Errors
    /// [`NoPlan`].
    pub async fn to_start(&self, target: &str) -> Result<ToStart, NoPlan> {
        let asked = WorkflowTarget::parse(target).ok_or_else(|| NoPlan::Unknown(target.to_owned()))?;
        let startable = self.home.to_start(asked).await?;
        if let Startable::Version { version, state } = startable {
            return Ok(ToStart { plan: self.get(asked.name, version).await?, state });
        }
        let code = startable.refusal().unwrap_or("unknown_workflow");
        Err(NoPlan::NotStartable { code, why: startable.sentence(target).unwrap_or_default() })
    }

    async fn get(&self, name: &str, version: u32) -> Result<Arc<Plan>, NoPlan> {
        if let Some(plan) = self.known(name, version) {
            return Ok(plan);
        }
        match self.home.definition(name, Some(version)).await? {
            Some(published) => self.keep(&published),
            None => Err(NoPlan::Unknown(format!("{name}@{version}"))),
        }
    }

    /// Compiles a definition and keeps the plan.
    ///
    /// # Errors
    /// [`NoPlan::Invalid`].
    pub fn keep(&self, published: &Published) -> Result<Arc<Plan>, NoPlan> {
        let name = format!("{}@{}", published.name, published.version);
        let called = (published.name.as_str(), published.version);
        let compiled = tidemill_serverless::published(&published.source, called, &AnyTool);
        let plan = Arc::new(compiled.map_err(|problems| NoPlan::Invalid { name, problems })?);
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
