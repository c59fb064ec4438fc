//! Published workflows: looked up for checking inputs, and published after being checked as a whole.

mod tools;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde_json::{Value, json};
use tidemill_store::{Published, Store};
use tidemill_workflow::{Definition, Plan, Problems};
use tokio::time::Instant;

use crate::refusal::{Code, Refusal, nearest};
use tools::AnyTool;
pub(crate) use tools::KnownTools;

/// How long it is believed which version is the newest.
const NEWEST_FOR: Duration = Duration::from_secs(1);
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
    newest: HashMap<String, (u32, Instant)>,
    plans: HashMap<(String, u32), Known>,
}

#[derive(Debug, Clone)]
struct Known {
    plan: Arc<Plan>,
    has_schema: bool,
}

/// A definition that was published.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublishedAs {
    /// The workflow's name.
    pub name: String,
    /// The version, given or assigned.
    pub version: u32,
    /// Its number of steps.
    pub steps: usize,
    /// Whether the version is new; `false` when the same text was published before.
    pub new: bool,
}

/// A definition that was checked and found good.
#[derive(Debug)]
pub struct Checked {
    /// The definition.
    pub definition: Definition,
    /// Its plan.
    pub plan: Plan,
}

impl Workflows {
    /// The workflows of a store.
    #[must_use]
    pub fn new(store: Store) -> Self {
        Self { store, cache: Mutex::default() }
    }

    /// The plan of `name` or `name@version`, compiled when first asked for.
    ///
    /// # Errors
    /// No such workflow is published, its definition cannot be read, or Redis is not available.
    pub async fn plan(&self, target: &str) -> Result<Arc<Plan>, Refusal> {
        self.known(target).await.map(|known| known.plan)
    }

    async fn known(&self, target: &str) -> Result<Known, Refusal> {
        let (name, version) = split(target)?;
        let version = match version {
            Some(version) => version,
            None => self.newest(name).await?,
        };
        let key = (name.to_owned(), version);
        if let Some(known) = self.cache().plans.get(&key) {
            return Ok(known.clone());
        }
        let Some(published) = self.store.home().definition(name, Some(version)).await? else {
            return Err(unknown(target, "no such version is published"));
        };
        let known = compiled(&published)?;
        let mut cache = self.cache();
        if cache.plans.len() >= MAX_PLANS {
            cache.plans.clear();
        }
        cache.plans.insert(key, known.clone());
        Ok(known)
    }

    async fn newest(&self, name: &str) -> Result<u32, Refusal> {
        let known = self.cache().newest.get(name).copied();
        if let Some((version, at)) = known
            && at.elapsed() < NEWEST_FOR
        {
            return Ok(version);
        }
        let Some(version) = self.store.home().newest(name).await? else {
            let all = self.store.home().workflows().await?;
            let hint = nearest(name, all.iter().map(|(name, _)| name.as_str()))
                .map_or_else(|| "publish it first".to_owned(), |near| format!("did you mean {near:?}?"));
            return Err(unknown(name, &hint));
        };
        self.cache().newest.insert(name.to_owned(), (version, Instant::now()));
        Ok(version)
    }

    /// Checks a run's input against its workflow's schema.
    ///
    /// # Errors
    /// The workflow is unknown, or refuses the input.
    pub async fn check_input(&self, target: &str, input: Option<&str>) -> Result<(), Refusal> {
        let Known { plan, has_schema } = self.known(target).await?;
        if !has_schema {
            return Ok(());
        }
        let input: Value = serde_json::from_str(input.unwrap_or("{}")).map_err(|error| {
            Refusal::new(Code::InvalidInput, format!("the input cannot be read: {error}"))
        })?;
        plan.validate_input(&input).map_err(|violations| {
            let (name, version) = (&plan.name, plan.version);
            let detail = format!("workflow {name}@{version} refuses the input: {}", violations.join("; "));
            let problems = violations.into_iter().map(Value::String).collect();
            Refusal::new(Code::InvalidInput, detail).with_problems(problems)
        })
    }

    /// Checks a definition as a whole, against the tools that workers have announced and those that are built in.
    /// With `any_tool`, unknown tools are let pass.
    ///
    /// # Errors
    /// All problems of the definition; or Redis is not available.
    pub async fn check(&self, text: &str, file: &str, any_tool: bool) -> Result<Checked, Refusal> {
        let plan = if any_tool {
            Plan::from_source(text, file, &AnyTool)
        } else {
            let tools = KnownTools::new(self.store.home().tools().await?);
            Plan::from_source(text, file, &tools)
        };
        let plan = plan.map_err(|problems| refused(&problems))?;
        let definition = Definition::parse(text, file).map_err(|problems| refused(&problems))?;
        Ok(Checked { definition, plan })
    }

    /// Publishes a definition. One without a version becomes the next version, unless it is the same as the newest.
    ///
    /// # Errors
    /// All problems of the definition; its version is published with another text; or Redis is not available.
    pub async fn publish(&self, text: &str, file: &str, any_tool: bool) -> Result<PublishedAs, Refusal> {
        let Checked { definition, plan } = self.check(text, file, any_tool).await?;
        let (home, name, steps) = (self.store.home(), plan.name.clone(), plan.steps.len());
        let answer = |version, new| PublishedAs { name: name.clone(), version, steps, new };
        if let Some(version) = definition.version {
            let before = home.definition(&name, Some(version)).await?;
            if !home.publish(&name, version, text).await? {
                return Err(Refusal::new(
                    Code::VersionTaken,
                    format!(
                        "{name}@{version} is published with another text, which never changes; raise the version, or leave it out to get the next one"
                    ),
                ));
            }
            self.cache().newest.remove(&name);
            return Ok(answer(version, before.is_none()));
        }
        // another publisher may take the next version at the same time
        for _ in 0..10 {
            let newest = home.definition(&name, None).await?;
            let version = newest.as_ref().map_or(1, |newest| newest.version + 1);
            if let Some(newest) = &newest
                && same_but_version(&definition, newest)
            {
                return Ok(answer(newest.version, false));
            }
            let mut numbered = definition.clone();
            numbered.version = Some(version);
            if home.publish(&name, version, &numbered.to_value().to_string()).await? {
                self.cache().newest.remove(&name);
                return Ok(answer(version, true));
            }
        }
        Err(Refusal::new(Code::VersionTaken, format!("others publish {name:?} at the same time; try again")))
    }

    fn cache(&self) -> std::sync::MutexGuard<'_, Cache> {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Splits `name` or `name@version`.
pub(crate) fn split(target: &str) -> Result<(&str, Option<u32>), Refusal> {
    match target.split_once('@') {
        None => Ok((target, None)),
        Some((name, version)) => match version.parse() {
            Ok(version) => Ok((name, Some(version))),
            Err(_) => Err(unknown(target, "a version is a whole number")),
        },
    }
}

fn same_but_version(definition: &Definition, newest: &Published) -> bool {
    let Ok(mut stored) = Definition::parse(&newest.source, "") else { return false };
    stored.version = None;
    stored == *definition
}

fn compiled(published: &Published) -> Result<Known, Refusal> {
    let file = format!("{}@{}", published.name, published.version);
    let definition = Definition::parse(&published.source, &file).map_err(|problems| refused(&problems))?;
    let has_schema = definition.input.is_some();
    let plan = definition.compile(&AnyTool).map_err(|problems| refused(&problems))?;
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
