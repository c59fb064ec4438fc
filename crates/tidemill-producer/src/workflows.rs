//! Published workflows: what a start gets, its input checked; published after being checked as a whole; moved through their life.

mod against;
mod life;
mod publish;
mod tools;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde_json::{Value, json};
use tidemill_store::{Published, Startable, Store, WorkflowTarget};
use tidemill_workflow::{AnyTool, Plan, Problems};
use tokio::time::Instant;

use crate::refusal::{Code, Refusal, nearest};
pub use against::{Against, RunMisfit};
pub use life::{Moved, Moving, VersionLine};
pub use publish::{Checked, Publish, PublishedAs};
pub(crate) use tools::KnownTools;

/// How long it is believed which version a start gets.
const START_FOR: Duration = Duration::from_secs(1);
/// Plans kept; beyond it all are dropped and compiled again when needed.
const MAX_PLANS: usize = 1_000;

/// The published workflows of a store.
#[derive(Debug)]
pub struct Workflows {
    store: Store,
    cache: Mutex<Cache>,
}

#[derive(Debug, Default)]
struct Cache {
    /// By target, as it was asked for.
    starts: HashMap<String, (Startable, Instant)>,
    plans: HashMap<(String, u32), Known>,
}

#[derive(Debug, Clone)]
struct Known {
    plan: Arc<Plan>,
    has_schema: bool,
}

impl Workflows {
    /// The workflows of a store.
    #[must_use]
    pub fn new(store: Store) -> Self {
        Self { store, cache: Mutex::default() }
    }

    /// The plan of `name@version` or of its block `name@version#path`, wherever that stands in its life, or of `name`: its newest active version, else its newest.
    /// Compiled when first asked for.
    ///
    /// # Errors
    /// No such workflow is published, its definition cannot be read or is damaged, or Redis is not available.
    pub async fn plan(&self, target: &str) -> Result<Arc<Plan>, Refusal> {
        let (whole, block) =
            target.split_once('#').map_or((target, None), |(whole, path)| (whole, Some(path)));
        let asked = target_of(whole)?;
        let version = match asked.version {
            Some(version) => version,
            None => self.version_to_show(asked.name).await?,
        };
        let plan = self.known(asked.name, version).await?.plan;
        match block {
            None => Ok(plan),
            Some(path) => plan.block(path).cloned().ok_or_else(|| unknown(target, "it has no such block")),
        }
    }

    /// The version that a plain name shows.
    async fn version_to_show(&self, name: &str) -> Result<u32, Refusal> {
        let home = self.store.home();
        if let Some(version) = home.newest(name).await? {
            return Ok(version);
        }
        match home.versions(name).await?.last() {
            Some(last) => Ok(last.version),
            None => Err(self.never_heard(name).await?),
        }
    }

    async fn known(&self, name: &str, version: u32) -> Result<Known, Refusal> {
        let key = (name.to_owned(), version);
        if let Some(known) = self.cache().plans.get(&key) {
            return Ok(known.clone());
        }
        let Some(published) = self.store.home().definition(name, Some(version)).await? else {
            return Err(unknown(&format!("{name}@{version}"), "no such version is published"));
        };
        self.keep(&published)
    }

    fn keep(&self, published: &Published) -> Result<Known, Refusal> {
        let known = compiled(published)?;
        let mut cache = self.cache();
        if cache.plans.len() >= MAX_PLANS {
            cache.plans.clear();
        }
        cache.plans.insert((published.name.clone(), published.version), known.clone());
        Ok(known)
    }

    /// Compiles every active version of every workflow, and keeps the plans. Replies what is wrong, one line each; none: all is well.
    ///
    /// # Errors
    /// Redis is not available.
    pub async fn validate_all(&self) -> Result<Vec<String>, tidemill_store::Error> {
        let published = self.store.home().active_definitions().await?;
        let started = Instant::now();
        let (count, mut wrong) = (published.len(), Vec::new());
        for definition in published {
            let problem = match definition.map(|definition| self.keep(&definition)) {
                Ok(Ok(_)) => continue,
                Ok(Err(refusal)) => refusal.detail,
                Err(damaged) => damaged.to_string(),
            };
            tracing::error!(problem, "a published workflow cannot be used");
            wrong.push(problem);
        }
        let duration_ms = started.elapsed().as_secs_f64() * 1_000.0;
        let result = if wrong.is_empty() { "valid" } else { "invalid" };
        tracing::info!(count, invalid = wrong.len(), duration_ms, result, "workflow graph validation");
        Ok(wrong)
    }

    /// What a start of this target gets, believed for a second.
    async fn to_start(&self, target: &str) -> Result<Startable, Refusal> {
        let known = self.cache().starts.get(target).copied();
        if let Some((startable, at)) = known
            && at.elapsed() < START_FOR
        {
            return Ok(startable);
        }
        let startable = self.store.home().to_start(target_of(target)?).await?;
        let mut cache = self.cache();
        if cache.starts.len() >= MAX_PLANS {
            cache.starts.clear();
        }
        cache.starts.insert(target.to_owned(), (startable, Instant::now()));
        Ok(startable)
    }

    /// Checks that a run may be started with this target, and its input against the workflow's schema. Replies what is worth knowing
    /// of the version that it gets.
    ///
    /// # Errors
    /// The workflow is unknown, its version may not be started so, or it refuses the input.
    pub async fn check_input(&self, target: &str, input: Option<&str>) -> Result<Option<String>, Refusal> {
        let asked = target_of(target)?;
        let startable = self.to_start(target).await?;
        let sentence = startable.sentence(target);
        let code = match startable {
            Startable::Version { version, .. } => {
                let known = self.known(asked.name, version).await?;
                return fits(&known, input).map(|()| sentence);
            }
            Startable::Unknown if asked.version.is_none() => {
                return Err(self.never_heard(asked.name).await?);
            }
            Startable::Unknown => return Err(unknown(target, "no such version is published")),
            Startable::NoneActive => Code::NoActiveVersion,
            Startable::Draft => Code::WorkflowDraft,
            Startable::Archived => Code::WorkflowArchived,
        };
        Err(Refusal::new(code, sentence.unwrap_or_default()))
    }

    /// Checks an input of a run of exactly this version, wherever that stands in its life.
    ///
    /// # Errors
    /// It is no JSON, or the workflow refuses it.
    pub async fn check_redo(&self, workflow: &str, input: &str) -> Result<(), Refusal> {
        let asked = target_of(workflow)?;
        let version = asked.version.ok_or_else(|| unknown(workflow, "it names no version"))?;
        serde_json::from_str::<serde::de::IgnoredAny>(input)
            .map_err(|error| Refusal::new(Code::InvalidJson, format!("the input cannot be read: {error}")))?;
        fits(&self.known(asked.name, version).await?, Some(input))
    }

    async fn never_heard(&self, name: &str) -> Result<Refusal, Refusal> {
        let all = self.store.home().workflows().await?;
        let hint = nearest(name, all.iter().map(|(name, _)| name.as_str()))
            .map_or_else(|| "publish it first".to_owned(), |near| format!("did you mean {near:?}?"));
        Ok(unknown(name, &hint))
    }

    fn forget_starts(&self) {
        self.cache().starts.clear();
    }

    fn cache(&self) -> std::sync::MutexGuard<'_, Cache> {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn fits(known: &Known, input: Option<&str>) -> Result<(), Refusal> {
    let Known { plan, has_schema } = known;
    if !has_schema {
        return Ok(());
    }
    let input: Value = serde_json::from_str(input.unwrap_or("{}"))
        .map_err(|error| Refusal::new(Code::InvalidInput, format!("the input cannot be read: {error}")))?;
    plan.validate_input(&input).map_err(|violations| {
        let (name, version) = (&plan.name, plan.version);
        let detail = format!("workflow {name}@{version} refuses the input: {}", violations.join("; "));
        let problems = violations.into_iter().map(Value::String).collect();
        Refusal::new(Code::InvalidInput, detail).with_problems(problems)
    })
}

/// Reads `name`, `name@version` or `name@version-draft`.
pub(crate) fn target_of(target: &str) -> Result<WorkflowTarget<'_>, Refusal> {
    WorkflowTarget::parse(target).ok_or_else(|| {
        let hint = "a version is a whole number, and behind it may stand -draft: name@3, name@4-draft";
        unknown(target, hint)
    })
}

fn compiled(published: &Published) -> Result<Known, Refusal> {
    let called = (published.name.as_str(), published.version);
    let plan = tidemill_serverless::published(&published.source, called, &AnyTool);
    let plan = plan.map_err(|problems| refused(&problems))?;
    let has_schema = plan.checks_input();
    Ok(Known { plan: Arc::new(plan), has_schema })
}

fn unknown(target: &str, hint: &str) -> Refusal {
    Refusal::new(Code::UnknownWorkflow, format!("no workflow {target:?} is published; {hint}"))
}

fn refused(problems: &Problems) -> Refusal {
    let list = problems.iter().map(|problem| {
        json!({
            "file": problem.file,
            "line": problem.line,
            "column": problem.column,
            "path": problem.path,
            "code": problem.code.as_str(),
            "message": problem.message,
        })
    });
    Refusal::new(Code::InvalidWorkflow, problems.to_string()).with_problems(list.collect())
}
