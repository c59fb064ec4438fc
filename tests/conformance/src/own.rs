//! Our own files: YAML with a list of scenarios.

use serde_json::Value;
use tidemill_workflow::source;

use crate::scenario::{Check, Order, Scenario};

/// Reads the scenarios of a file.
///
/// # Errors
/// What cannot be read, as a sentence.
pub fn read(text: &str) -> Result<Vec<Scenario>, String> {
    let root =
        source::read(text).map_err(|refusal| format!("line {}: {}", refusal.place.line, refusal.message))?;
    let root = root.to_value();
    let feature = text_at(&root, "feature")?;
    let scenarios = root.get("scenarios").and_then(Value::as_array).ok_or("`scenarios` is missing")?;
    scenarios.iter().map(|scenario| one(&feature, scenario)).collect()
}

fn text_at(value: &Value, name: &str) -> Result<String, String> {
    let text = value.get(name).and_then(Value::as_str);
    text.map(str::to_owned).ok_or_else(|| format!("`{name}` is no text in {value}"))
}

fn one(feature: &str, scenario: &Value) -> Result<Scenario, String> {
    let checks = scenario.get("then").and_then(Value::as_array).ok_or("`then` is missing")?;
    Ok(Scenario {
        feature: feature.to_owned(),
        name: text_at(scenario, "name")?,
        document: scenario.get("document").cloned().ok_or("`document` is missing")?,
        input: scenario.get("input").cloned().unwrap_or_else(|| Value::Object(serde_json::Map::new())),
        checks: checks.iter().map(check).collect::<Result<_, _>>()?,
    })
}

fn check(check: &Value) -> Result<Check, String> {
    match check.as_str() {
        Some("completes") => return Ok(Check::Completes),
        Some("faults") => return Ok(Check::Faults),
        _ => {}
    }
    let wrong = || format!("{check} is no check");
    let (name, value) = check.as_object().and_then(|members| members.iter().next()).ok_or_else(wrong)?;
    let texts = || -> Option<Vec<String>> {
        value.as_array()?.iter().map(|text| text.as_str().map(str::to_owned)).collect()
    };
    match name.as_str() {
        "output" => Some(Check::Output(value.clone())),
        "fault" => Some(Check::Fault(value.clone())),
        "has" => texts().map(Check::Has),
        "value" => {
            text_at(value, "at").ok().map(|at| Check::Value(at, value.get("is").cloned().unwrap_or_default()))
        }
        "items" => text_at(value, "at").ok().and_then(|at| {
            let count = value.get("count")?.as_u64()?;
            Some(Check::Items(at, usize::try_from(count).ok()?))
        }),
        "first" => value.as_str().map(|task| Check::Ran(task.to_owned(), Order::First)),
        "last" => value.as_str().map(|task| Check::Ran(task.to_owned(), Order::Last)),
        "after" => texts().and_then(|pair| match pair.as_slice() {
            [task, other] => Some(Check::Ran(task.clone(), Order::After(other.clone()))),
            _ => None,
        }),
        _ => None,
    }
    .ok_or_else(wrong)
}
