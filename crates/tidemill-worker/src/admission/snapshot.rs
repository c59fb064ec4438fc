//! The definitions of services as one worker uses them: looked up by tool, with their expressions compiled.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tidemill_policy::service::{Catalog, Definition, Estimate, Fallback, TierRules, Usage};
use tidemill_store::{CatalogRead, Error, Services};
use tidemill_workflow::Filter;

/// One generation of definitions.
#[derive(Debug, Default)]
pub(crate) struct Snapshot {
    pub(crate) generation: u64,
    pub(crate) catalog: Catalog,
    services: HashMap<String, Arc<ServiceFacts>>,
    templates: HashMap<String, TierFacts>,
}

/// A service with its expressions compiled.
#[derive(Debug)]
pub(crate) struct ServiceFacts {
    pub(crate) name: Arc<str>,
    pub(crate) definition: Definition,
    /// One filter over a call's input for everything that is asked of it, so that it is parsed once: an object of `model`, `user`,
    /// `credential`, and units behind a colon.
    pub(crate) asked: Option<Filter>,
    /// Amounts that are declared as numbers, by unit.
    pub(crate) fixed: HashMap<String, f64>,
    /// What each fallback that names an input gives to its tool, made of the input of the call that it stands in for.
    pub(crate) fallback_inputs: Vec<Option<Filter>>,
    /// jq over the output, by unit; empty: by the shape of known providers.
    pub(crate) usage: Vec<(Arc<str>, Filter)>,
}

/// What a worker has to know of a template; the rest is Redis's business.
#[derive(Debug, Default)]
pub(crate) struct TierFacts {
    /// The limited units other than requests.
    pub(crate) units: Vec<Arc<str>>,
    /// Whether requests are limited.
    pub(crate) has_requests: bool,
    pub(crate) has_cap: bool,
    /// How old a grant may be when its call begins.
    pub(crate) fresh_for: Option<Duration>,
    /// Requests a second, for when Redis cannot be asked.
    pub(crate) per_second: Option<f64>,
}

/// However tight a limit is, a grant is good for so long: the way from Redis to the call takes its time.
const SHORTEST_FRESH: Duration = Duration::from_millis(10);

impl TierFacts {
    fn of(rules: &TierRules) -> Self {
        let mut facts = Self { has_cap: rules.concurrency.is_some(), ..Self::default() };
        for limit in &rules.limits {
            if limit.unit == "requests" {
                facts.has_requests = true;
                #[expect(clippy::cast_precision_loss, reason = "limits and windows are small beside 2^52")]
                let per_second = limit.limit as f64 / (limit.window_us as f64 / 1e6);
                facts.per_second = Some(facts.per_second.map_or(per_second, |known| known.min(per_second)));
            } else if !facts.units.iter().any(|unit| **unit == *limit.unit) {
                facts.units.push(limit.unit.as_str().into());
            }
            if limit.slack_us > 0 {
                let fresh = (Duration::from_micros(limit.slack_us) / 2).max(SHORTEST_FRESH);
                facts.fresh_for = Some(facts.fresh_for.map_or(fresh, |known| known.min(fresh)));
            }
        }
        facts
    }
}

fn compile(service: &str, what: &str, source: &str) -> Option<Filter> {
    Filter::compile(source)
        .inspect_err(|error| tracing::warn!(service, what, %error, "an expression of a service is not valid and not used"))
        .ok()
}

/// The `with` of a fallback as one filter.
fn input_of(service: &str, fallback: &Fallback) -> Option<Filter> {
    let Fallback::Tool { with: Some(with), .. } = fallback else { return None };
    compile(service, "fallback", &source_of(with))
}

/// JSON as the source of a filter: a string that is `${ … }` is an expression, all else stands for itself.
fn source_of(value: &Value) -> String {
    match value {
        Value::String(text) => match text.trim().strip_prefix("${").and_then(|rest| rest.strip_suffix('}')) {
            Some(expression) => format!("({expression})"),
            None => literal(value),
        },
        Value::Array(items) => {
            let items: Vec<String> = items.iter().map(source_of).collect();
            format!("[{}]", items.join(","))
        }
        Value::Object(members) => {
            let member = |(name, value): (&String, &Value)| {
                format!("{}:{}", literal(&Value::String(name.clone())), source_of(value))
            };
            let members: Vec<String> = members.iter().map(member).collect();
            format!("{{{}}}", members.join(","))
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => value.to_string(),
    }
}

/// A string as jq writes it: what would begin an interpolation there is escaped in JSON already.
fn literal(value: &Value) -> String {
    value.to_string()
}

fn fixed((unit, estimate): (&String, &Estimate)) -> Option<(String, f64)> {
    match estimate {
        #[expect(clippy::cast_precision_loss, reason = "amounts are small beside 2^52")]
        Estimate::Fixed(amount) => Some((unit.clone(), *amount as f64)),
        Estimate::Jq(_) => None,
    }
}

/// Everything that a definition asks of an input. An expression that fails, or gives nothing, gives null.
fn asked(service: &str, definition: &Definition) -> Option<Filter> {
    let scopes =
        [("model", &definition.model), ("user", &definition.user), ("credential", &definition.credential)];
    let scopes = scopes.into_iter().filter_map(|(what, source)| Some((what.to_owned(), source.as_deref()?)));
    let units = definition.estimate.iter().filter_map(|(unit, estimate)| match estimate {
        Estimate::Jq(source) => Some((format!(":{unit}"), source.as_str())),
        Estimate::Fixed(_) => None,
    });
    let members: Vec<String> = scopes
        .chain(units)
        .filter(|(what, source)| compile(service, what, source).is_some())
        .map(|(what, source)| format!("{}: ([try first({source}) catch null][0])", Value::from(what)))
        .collect();
    if members.is_empty() {
        return None;
    }
    compile(service, "what is asked of inputs", &format!("{{{}}}", members.join(", ")))
}

impl ServiceFacts {
    fn new(name: &str, definition: &Definition) -> Self {
        let usage = match &definition.usage {
            Usage::Jq(units) => units
                .iter()
                .filter_map(|(unit, source)| Some((Arc::from(unit.as_str()), compile(name, unit, source)?)))
                .collect(),
            Usage::Auto | Usage::OpenAi | Usage::Anthropic => Vec::new(),
        };
        Self {
            name: name.into(),
            asked: asked(name, definition),
            fixed: definition.estimate.iter().filter_map(fixed).collect(),
            usage,
            fallback_inputs: definition.fallback.iter().map(|fallback| input_of(name, fallback)).collect(),
            definition: definition.clone(),
        }
    }
}

impl Snapshot {
    /// Reads the definitions that are in force.
    pub(crate) async fn read(services: &Services) -> Result<Self, Error> {
        let CatalogRead { generation, catalog, left_out } = services.catalog().await?;
        for (name, problem) in left_out {
            tracing::error!(
                service = name,
                problem,
                "the definition of a service cannot be used; its limits do not hold"
            );
        }
        let rules = services.rules().await?;
        let facts = catalog
            .services()
            .map(|(name, definition)| (name.to_owned(), Arc::new(ServiceFacts::new(name, definition))))
            .collect();
        let templates = rules
            .iter()
            .filter_map(|(template, text)| {
                Some((template.clone(), TierFacts::of(&TierRules::parse(text).ok()?)))
            })
            .collect();
        Ok(Self { generation, catalog, services: facts, templates })
    }

    pub(crate) fn service_of(&self, tool: &str, named: Option<&str>) -> Option<Arc<ServiceFacts>> {
        let (name, _) = self.catalog.service_of(tool, named)?;
        self.services.get(name).cloned()
    }

    pub(crate) fn template(&self, template: &str) -> Option<&TierFacts> {
        self.templates.get(template)
    }
}

#[cfg(test)]
mod tests {
    use super::{asked, source_of};
    use serde_json::json;
    use tidemill_policy::service::Definition;
    use tidemill_workflow::{Filter, Limits};

    #[test]
    fn the_input_of_a_fallback_is_made_of_that_of_the_call() {
        let with = json!({ "prompt": "${ .messages[-1].content }", "n": 1, "plain": "a \\(b) ${c", "list": [true, "${ .n + 1 }"] });
        let filter = Filter::compile(&source_of(&with)).unwrap();
        let input = json!({ "messages": [{ "content": "hi" }], "n": 41 }).to_string();
        let output = filter.run(input.as_bytes(), &Limits::default()).unwrap();
        let output: serde_json::Value = serde_json::from_slice(&output).unwrap();
        assert_eq!(output, json!({ "prompt": "hi", "n": 1, "plain": "a \\(b) ${c", "list": [true, 42] }));
    }

    #[test]
    fn an_input_is_asked_once_and_what_fails_or_is_missing_spoils_nothing() {
        let definition = json!({
            "model": ".model", "user": ".a | error(\"no\")", "credential": "empty",
            "estimate": { "total_tokens": ".max_tokens // 10", "cost": "1, 2", "input_tokens": 5 },
        });
        let definition = Definition::from_json(&definition.to_string()).unwrap();
        let output = asked("s", &definition).unwrap().run(br#"{"model":"big"}"#, &Limits::default()).unwrap();
        let output: serde_json::Value = serde_json::from_slice(&output).unwrap();
        let expected =
            json!({ "model": "big", "user": null, "credential": null, ":total_tokens": 10, ":cost": 1 });
        assert_eq!(output, expected);
    }
}
