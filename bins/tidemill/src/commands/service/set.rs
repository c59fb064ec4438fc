//! `tidemill service set` and `remove`.

use serde_json::Value;
use tidemill_policy::service::Definition;
use tidemill_producer::services::{self, Changed};
use tidemill_workflow::ToolCatalog;

use super::{Who, assign, file};
use crate::catalog::Tools;
use crate::context::Context;
use crate::error::{Error, Outcome};
use crate::output::Output;
use crate::table::printable;

/// Define a service, or change single keys of its definition; every worker follows within a second
///
/// A value is JSON or plain text; keys in milliseconds take times such as 5s; `none` takes a key back to its default.
/// `limits.<unit>=<amount>/<window>[,<contract>]` sets the limit of a unit. docs/services.md tells all keys.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  tidemill service set openai --file openai.yaml --why 'new contract'
  tidemill service set openai limits.requests=600/1m limits.total_tokens=90000/1m,average concurrency=50
  tidemill service set openai 'tools=llm.chat,openai.*' breaker.open_ms=5s backpressure=reject
  tidemill service set openai per_tenant.acme.concurrency=5 limits.total_tokens=none
  tidemill service set @tenant:* concurrency=20")]
pub(crate) struct Arguments {
    /// Its name; or @pool, @tool:<tool>, @tenant:<tenant>, @user:<user>, with * for each that is not named
    name: String,
    /// Changes of single keys
    #[arg(value_name = "KEY=VALUE", required_unless_present = "file")]
    changes: Vec<String>,
    /// The whole definition from a file of YAML or JSON, or JSON from standard input (-); changes come on top
    #[arg(long, value_name = "FILE|-")]
    file: Option<String>,
    /// Why, for the audit
    #[arg(long, value_name = "TEXT")]
    why: Option<String>,
}

/// Remove a service: its tools have no limits of their own any more
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  tidemill service remove openai --why 'moved to another vendor'")]
pub(crate) struct RemoveArguments {
    /// Its name
    name: String,
    /// Why, for the audit
    #[arg(long, value_name = "TEXT")]
    why: Option<String>,
}

pub(super) async fn run(context: &Context, arguments: Arguments) -> Outcome {
    let Arguments { name, changes, file, why } = arguments;
    let (base, is_new) = base(context, &name, file.as_deref()).await?;
    let mut document = serde_json::to_value(&base).map_err(|error| {
        Error::failed("corrupt", format!("the definition of {name} has no JSON form: {error}"))
    })?;
    for change in &changes {
        assign::assign(&mut document, change).map_err(Error::usage)?;
    }
    let definition = Definition::from_json(&document.to_string())
        .map_err(|error| Error::failed("invalid_service", format!("services.{name}: {}", error.message)))?;
    let (tools, who) = (Tools::of_pool(context).await?.names(), Who::here());
    let author = who.author(why.as_deref());
    let changed = services::set(&context.store, author, &name, &definition, &tools).await?;
    tell(
        context,
        &changed,
        if is_new { "is defined" } else { "is changed; every worker follows within a second" },
    );
    Ok(())
}

/// What the changes are made to, and whether the service is new.
async fn base(context: &Context, name: &str, file: Option<&str>) -> Outcome<(Definition, bool)> {
    let (_, texts) = context.store.services().definitions().await?;
    let is_new = !texts.contains_key(name);
    let base = match file {
        Some(file) => file::read(file, name)?,
        None if is_new => Definition::default(),
        None => services::definition(&context.store, name).await?,
    };
    Ok((base, is_new))
}

pub(super) async fn remove(context: &Context, arguments: RemoveArguments) -> Outcome {
    let who = Who::here();
    let author = who.author(arguments.why.as_deref());
    let changed = services::remove(&context.store, author, &arguments.name).await?;
    tell(context, &changed, "is removed");
    Ok(())
}

fn tell(context: &Context, changed: &Changed, word: &str) {
    let name = &changed.name;
    let line = if changed.changed { format!("{name} {word}") } else { format!("{name} is so already") };
    if !context.output.is_json() {
        for warning in &changed.warnings {
            Output::note(&format!("warning: {}", printable(warning)));
        }
    }
    context.output.told(changed, line);
}

/// A definition without the keys that have their defaults.
pub(super) fn told_keys(definition: &Value) -> Value {
    let defaults = serde_json::to_value(Definition::default()).unwrap_or_default();
    differing(definition, &defaults).unwrap_or_else(|| serde_json::json!({}))
}

fn differing(value: &Value, default: &Value) -> Option<Value> {
    match (value, default) {
        (a, b) if a == b => None,
        (Value::Object(members), Value::Object(defaults)) => {
            let kept = members.iter().filter_map(|(key, value)| {
                Some((key.clone(), differing(value, defaults.get(key).unwrap_or(&Value::Null))?))
            });
            Some(Value::Object(kept.collect()))
        }
        (value, _) => Some(value.clone()),
    }
}

#[cfg(test)]
mod tests {
    use super::told_keys;
    use serde_json::json;
    use tidemill_policy::service::Definition;

    #[test]
    fn what_has_its_default_need_not_be_told() {
        let json = json!({ "concurrency": 5, "breaker": { "open_ms": 1000 }, "max_wait_ms": 30000 });
        let definition = Definition::from_json(&json.to_string()).unwrap();
        let told = told_keys(&serde_json::to_value(&definition).unwrap());
        assert_eq!(told, json!({ "concurrency": 5, "breaker": { "open_ms": 1000 } }));
        assert_eq!(Definition::from_json(&told.to_string()).unwrap(), definition);
    }
}
