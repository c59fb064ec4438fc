//! Changing services, with who and why for the audit.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::{Value, json};
use tidemill_policy::service::{Definition, Estimate, Problem, Usage, template_names};
use tidemill_store::{ApplyError, Author, Control, ServiceChange, Store};
use tidemill_workflow::Filter;
use utoipa::ToSchema;

use crate::refusal::{Code, Refusal, nearest};

/// Longest reason kept, in characters.
const WHY_MAX: usize = 1_000;
/// Changes read at once while those of one service are looked for, and pages read at most.
const PAGE: usize = 500;
const PAGES: usize = 20;

/// What came of setting or removing a definition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct Changed {
    /// The service.
    pub name: String,
    /// Whether anything is different now.
    pub changed: bool,
    /// What may be a mistake.
    pub warnings: Vec<String>,
}

/// What came of pausing, resuming and the like.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct Moved {
    /// The service or tier.
    pub name: String,
    /// Its state before: `running`, `paused`, `open`, `half_open`, `forced_open`, `disabled`.
    pub from: String,
    /// Its state now.
    pub to: String,
}

/// The definition of a service.
///
/// # Errors
/// There is none of this name, it cannot be read, or Redis is not available.
pub async fn definition(store: &Store, name: &str) -> Result<Definition, Refusal> {
    let (_, texts) = store.services().definitions().await?;
    let Some(text) = texts.get(name) else { return Err(unknown(name, texts.keys().map(String::as_str))) };
    Definition::from_json(text).map_err(|error| {
        Refusal::new(
            Code::InvalidService,
            format!("the stored definition of {name:?} is {error}; set it anew"),
        )
    })
}

/// Sets a definition. `tools` are the names of the tools that are known, for the warnings.
///
/// # Errors
/// All problems of the definition, by itself and beside the others; or Redis is not available.
pub async fn set(
    store: &Store,
    author: Author<'_>,
    name: &str,
    definition: &Definition,
    tools: &[String],
) -> Result<Changed, Refusal> {
    let problems = expressions(name, definition);
    if !problems.is_empty() {
        return Err(invalid(&problems));
    }
    let why = shortened(author.why);
    let author = Author { why: &why, ..author };
    match store.services().apply(author, name, Some(definition)).await {
        Ok(changed) => {
            Ok(Changed { name: name.to_owned(), changed, warnings: warnings(name, definition, tools) })
        }
        Err(ApplyError::Invalid(problems)) => Err(invalid(&problems)),
        Err(ApplyError::Store(error)) => Err(error.into()),
    }
}

/// Removes a definition: its tools have no limits of their own any more.
///
/// # Errors
/// There is none of this name, another falls back to it, or Redis is not available.
pub async fn remove(store: &Store, author: Author<'_>, name: &str) -> Result<Changed, Refusal> {
    use tidemill_policy::service::Fallback;
    let (_, texts) = store.services().definitions().await?;
    if !texts.contains_key(name) {
        return Err(unknown(name, texts.keys().map(String::as_str)));
    }
    let falls_back = |text: &String| {
        let to_it = |one: &Fallback| matches!(one, Fallback::Service(to) if to == name);
        Definition::from_json(text).is_ok_and(|other| other.fallback.iter().any(to_it))
    };
    if let Some((other, _)) = texts.iter().find(|(other, text)| *other != name && falls_back(text)) {
        let detail = format!("service {other:?} falls back to {name:?}; change its `fallback` first");
        return Err(Refusal::new(Code::InvalidService, detail));
    }
    let why = shortened(author.why);
    let changed = store.services().define(Author { why: &why, ..author }, name, "", &[]).await?;
    Ok(Changed { name: name.to_owned(), changed, warnings: Vec::new() })
}

/// Pauses, resumes, isolates, disables, closes or resets a service, or a tier such as `@tenant:acme` or `openai/tenant:acme`.
///
/// # Errors
/// No definition makes such a tier, or Redis is not available.
pub async fn control(
    store: &Store,
    author: Author<'_>,
    name: &str,
    control: Control,
) -> Result<Moved, Refusal> {
    let rules = store.services().rules().await?;
    let (exact, any) = template_names(name);
    if name.ends_with('*') || !(rules.contains_key(exact) || any.is_some_and(|any| rules.contains_key(&any)))
    {
        return Err(unknown(
            name,
            rules.keys().map(String::as_str).filter(|template| !template.ends_with('*')),
        ));
    }
    if matches!(control, Control::Isolate | Control::Disable | Control::Close)
        && !rules.get(exact).is_some_and(|text| text.split(' ').any(|word| word.starts_with("b=")))
    {
        let detail = format!(
            "{name:?} has no breaker: only services have one, unless `breaker.enabled` is false; pause it"
        );
        return Err(Refusal::new(Code::InvalidRequest, detail));
    }
    let why = shortened(author.why);
    let (from, to) = store.services().control(Author { why: &why, ..author }, name, control).await?;
    Ok(Moved { name: name.to_owned(), from, to })
}

/// What happened lately, newest first: to one service and its tiers, or to all. The second value goes on from there.
///
/// # Errors
/// Redis is not available.
pub async fn history(
    store: &Store,
    name: Option<&str>,
    before: Option<&str>,
    limit: usize,
) -> Result<(Vec<ServiceChange>, Option<String>), Refusal> {
    let services = store.services();
    let is_of = |change: &ServiceChange| {
        name.is_none_or(|name| {
            change.service.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        })
    };
    let (mut found, mut before) = (Vec::new(), before.map(ToOwned::to_owned));
    let page = if name.is_some() { PAGE } else { limit.min(PAGE) };
    for _ in 0..PAGES {
        let changes = services.history(before.as_deref(), page).await?;
        let is_last = changes.len() < page;
        for change in changes {
            before = Some(change.entry.clone());
            if is_of(&change) {
                found.push(change);
                if found.len() == limit {
                    return Ok((found, before));
                }
            }
        }
        if is_last {
            return Ok((found, None));
        }
    }
    Ok((found, before))
}

fn shortened(why: &str) -> String {
    why.chars().take(WHY_MAX).collect()
}

pub(super) fn unknown<'n>(name: &str, known: impl Iterator<Item = &'n str> + Clone) -> Refusal {
    let hint = match (nearest(name, known.clone()), known.clone().next()) {
        (Some(near), _) => format!("did you mean {near:?}?"),
        (None, Some(_)) => format!("there are {}", known.take(20).collect::<Vec<_>>().join(", ")),
        (None, None) => "none is defined".to_owned(),
    };
    Refusal::new(Code::UnknownService, format!("no service is named {name:?}; {hint}"))
}

fn invalid(problems: &[Problem]) -> Refusal {
    let sentences: Vec<String> = problems.iter().map(ToString::to_string).collect();
    let list: Vec<Value> =
        problems.iter().map(|one| json!({ "path": one.path, "message": one.message })).collect();
    Refusal::new(Code::InvalidService, sentences.join("; ")).with_problems(list)
}

/// What jq finds wrong with the definition's expressions. Workers run them; who sets them is the one to be told.
fn expressions(name: &str, definition: &Definition) -> Vec<Problem> {
    let mut texts: Vec<(String, &str)> = Vec::new();
    let plain =
        [("model", &definition.model), ("user", &definition.user), ("credential", &definition.credential)];
    for (key, text) in plain {
        texts.extend(text.as_deref().map(|text| (key.to_owned(), text)));
    }
    for (unit, estimate) in &definition.estimate {
        if let Estimate::Jq(text) = estimate {
            texts.push((format!("estimate.{unit}"), text));
        }
    }
    if let Usage::Jq(units) = &definition.usage {
        texts.extend(units.iter().map(|(unit, text)| (format!("usage.{unit}"), text.as_str())));
    }
    texts
        .into_iter()
        .filter(|(_, text)| !text.trim().is_empty())
        .filter_map(|(key, text)| {
            let why = Filter::compile(text).err()?;
            Some(Problem {
                definition: name.to_owned(),
                path: format!("{name}.{key}"),
                message: format!("the filter {why}"),
            })
        })
        .collect()
}

/// Tools of the definition that nobody has.
fn warnings(name: &str, definition: &Definition, known: &[String]) -> Vec<String> {
    let named = name.strip_prefix("@tool:").filter(|tool| *tool != "*").map(ToOwned::to_owned);
    let by_prefix: BTreeMap<&str, ()> = known.iter().map(|tool| (tool.as_str(), ())).collect();
    let has = |tool: &str| match tool.strip_suffix('*') {
        Some(beginning) => known.iter().any(|known| known.starts_with(beginning)),
        None => by_prefix.contains_key(tool),
    };
    let asked = definition.tools.iter().cloned().chain(named);
    asked
        .filter(|tool| !has(tool))
        .map(|tool| {
            let hint = nearest(&tool, known.iter().map(String::as_str))
                .map_or_else(String::new, |near| format!("; did you mean {near:?}?"));
            format!("no tool {tool:?} is built in or announced by a worker{hint}")
        })
        .collect()
}
