//! The kit's own files: Gherkin, as far as they use it (features, scenarios, steps with a text block).

use serde_json::Value;
use tidemill_workflow::source;

use crate::scenario::{Check, Order, Scenario};

/// Reads the scenarios of a feature.
///
/// # Errors
/// A step that is not known, or a text that is no YAML, with its line.
pub fn read(text: &str) -> Result<Vec<Scenario>, String> {
    let mut feature = String::new();
    let mut scenarios: Vec<Scenario> = Vec::new();
    let mut lines = text.lines().enumerate().peekable();
    while let Some((number, line)) = lines.next() {
        let line = line.trim();
        if let Some(name) = line.strip_prefix("Feature:") {
            name.trim().clone_into(&mut feature);
        } else if let Some(name) = line.strip_prefix("Scenario:") {
            scenarios.push(Scenario {
                feature: feature.clone(),
                name: name.trim().to_owned(),
                document: Value::Null,
                input: Value::Object(serde_json::Map::new()),
                checks: Vec::new(),
            });
        } else if let Some(step) = step(line) {
            let block = if lines.peek().is_some_and(|(_, next)| next.trim().starts_with("\"\"\"")) {
                let indent =
                    lines.next().map_or(0, |(_, opening)| opening.len() - opening.trim_start().len());
                let inside = lines.by_ref().map(|(_, line)| line).take_while(|line| line.trim() != "\"\"\"");
                let text: Vec<&str> =
                    inside.map(|line| line.get(indent..).unwrap_or_else(|| line.trim())).collect();
                Some(text.join("\n"))
            } else {
                None
            };
            let scenario = scenarios.last_mut();
            let scenario =
                scenario.ok_or_else(|| format!("line {}: a step before any scenario", number + 1))?;
            take(scenario, step, block.as_deref()).map_err(|why| format!("line {}: {why}", number + 1))?;
        }
    }
    Ok(scenarios)
}

/// The words of a step behind its keyword.
fn step(line: &str) -> Option<&str> {
    let words = ["Given ", "When ", "Then ", "And "].iter().find_map(|keyword| line.strip_prefix(keyword))?;
    Some(words.strip_prefix("given ").unwrap_or(words).trim())
}

fn take(scenario: &mut Scenario, step: &str, block: Option<&str>) -> Result<(), String> {
    let value = || {
        let text = block.ok_or_else(|| format!("{step:?} has no text"))?;
        let node = source::read(text)
            .map_err(|refusal| format!("its line {}: {}", refusal.place.line, refusal.message))?;
        Ok::<Value, String>(node.to_value())
    };
    match step {
        "a workflow with definition:" => scenario.document = value()?,
        "the workflow input is:" => scenario.input = value()?,
        "the workflow is executed" => {}
        "the workflow should complete" => scenario.checks.push(Check::Completes),
        "the workflow should complete with output:" => scenario.checks.push(Check::Output(value()?)),
        "the workflow should fault" => scenario.checks.push(Check::Faults),
        "the workflow should fault with error:" => scenario.checks.push(Check::Fault(value()?)),
        _ => scenario.checks.push(longer(step, &value)?),
    }
    Ok(())
}

fn longer(step: &str, value: &dyn Fn() -> Result<Value, String>) -> Result<Check, String> {
    let unknown = || format!("the step {step:?} is not known");
    let quoted =
        |text: &str| -> Vec<String> { text.split('\'').skip(1).step_by(2).map(str::to_owned).collect() };
    if let Some(rest) = step.strip_prefix("the workflow output should have properties ") {
        return Ok(Check::Has(quoted(rest)));
    }
    if let Some(rest) = step.strip_prefix("the workflow output should have a ") {
        let path = quoted(rest).into_iter().next().ok_or_else(unknown)?;
        if rest.ends_with("property with value:") {
            return Ok(Check::Value(path, value()?));
        }
        let count =
            rest.rsplit_once("containing ").and_then(|(_, rest)| rest.split(' ').next()?.parse().ok());
        return count.map(|count| Check::Items(path, count)).ok_or_else(unknown);
    }
    let (task, rest) = step.split_once(" should run ").ok_or_else(unknown)?;
    let order = match rest.split_once(' ') {
        None if rest == "first" => Order::First,
        None if rest == "last" => Order::Last,
        Some(("before", other)) => Order::Before(other.to_owned()),
        Some(("after", other)) => Order::After(other.to_owned()),
        _ => return Err(unknown()),
    };
    Ok(Check::Ran(task.to_owned(), order))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_feature_is_read_step_by_step() {
        let text = r#"Feature: Colours
  As a reader

  # a remark
  Scenario: One
    Given a workflow with definition:
    """yaml
    document:
      name: x
    """
    And given the workflow input is:
      """yaml
      a: 1
      """
    When the workflow is executed
    Then the workflow should complete
    And the workflow output should have properties 'a', 'b.c'
    And the workflow output should have a 'a' property with value:
    """yaml
    [ 1 ]
    """
    And the workflow output should have a 'a' property containing 2 items
    And x should run after y
  Scenario: Two
    Then the workflow should fault
"#;
        let read = read(text).unwrap();
        assert_eq!(read.len(), 2);
        let Scenario { feature, name, document, input, checks } = &read[0];
        assert_eq!((feature.as_str(), name.as_str()), ("Colours", "One"));
        assert_eq!((document, input), (&json!({"document": {"name": "x"}}), &json!({"a": 1})));
        let expected = [
            Check::Completes,
            Check::Has(vec!["a".into(), "b.c".into()]),
            Check::Value("a".into(), json!([1])),
            Check::Items("a".into(), 2),
            Check::Ran("x".into(), Order::After("y".into())),
        ];
        assert_eq!(checks, &expected);
        assert_eq!(read[1].checks, [Check::Faults]);
    }

    #[test]
    fn a_step_that_is_not_known_is_told_with_its_line() {
        let refusal = read("Feature: F\nScenario: S\nThen the moon should rise\n").unwrap_err();
        assert!(refusal.starts_with("line 3: ") && refusal.contains("moon"), "{refusal}");
    }
}
