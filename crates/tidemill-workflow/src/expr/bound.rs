//! jq filters with variables: for callers whose expressions see more than one value.

use std::fmt;
use std::sync::Arc;

use serde::de::Deserialize;
use serde_json::Value;

use super::engine::Program;
use super::value::Val;
use super::{ExprError, Fault, Limits, json};

/// A compiled jq filter that gives exactly one value and reads variables besides `.`. Cheap to clone, shared between
/// threads. Only the variables that its text names need a value when it is run.
#[derive(Clone)]
pub struct BoundFilter {
    source: Arc<str>,
    program: Arc<Program>,
    variables: Arc<[String]>,
}

impl BoundFilter {
    /// Compiles jq text in which the variables of these names (without `$`) exist.
    ///
    /// # Errors
    /// What is wrong and at which column, as a sentence that follows "the filter".
    pub fn compile(source: &str, variables: &[&str]) -> Result<Self, String> {
        let named: Vec<String> = variables
            .iter()
            .map(|name| format!("${name}"))
            .filter(|name| source.contains(name.as_str()))
            .collect();
        let names: Vec<&str> = named.iter().map(String::as_str).collect();
        let program = Program::compile_with(source, &names)?;
        Ok(Self { source: source.into(), program: Arc::new(program), variables: named.into() })
    }

    /// The text that it was compiled from.
    #[must_use]
    pub fn source(&self) -> &str {
        &self.source
    }

    /// Runs the filter on a value; `variable` gives the value of a variable by its name (without `$`).
    ///
    /// # Errors
    /// When the filter fails or a limit is reached.
    pub fn run(
        &self,
        input: &Value,
        variable: impl Fn(&str) -> Value,
        limits: &Limits,
    ) -> Result<Value, ExprError> {
        self.evaluate(input, variable, limits).map_err(|fault| ExprError::new(&self.source, fault))
    }

    fn evaluate(
        &self,
        input: &Value,
        variable: impl Fn(&str) -> Value,
        limits: &Limits,
    ) -> Result<Value, Fault> {
        let read = |what: &str, value: &Value| {
            Val::deserialize(value)
                .map_err(|error| Fault::BadScope { what: what.to_owned(), reason: error.to_string() })
        };
        let input = read("its input", input)?;
        let values = self.variables.iter().map(|name| read(name, &variable(name.trim_start_matches('$'))));
        let values = values.collect::<Result<Vec<_>, _>>()?;
        let mut limits = *limits;
        let limit_bytes = limits.output_bytes;
        let mut text = Vec::new();
        self.program.run_with(input, values, &mut limits, |value| {
            json::write(&value, &mut text, limit_bytes)
                .map_err(|json::TooLong| Fault::OutputTooLarge { limit_bytes })
        })?;
        serde_json::from_slice(&text)
            .map_err(|error| Fault::BadScope { what: "its output".to_owned(), reason: error.to_string() })
    }
}

impl fmt::Debug for BoundFilter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("BoundFilter").field(&self.source).finish()
    }
}

impl PartialEq for BoundFilter {
    fn eq(&self, other: &Self) -> bool {
        self.source == other.source && self.variables == other.variables
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn variables_have_the_values_of_their_names_whatever_their_order() {
        let filter =
            BoundFilter::compile("[.a, $two, $one, ([1] | map(. + $one))]", &["one", "two", "unused"])
                .unwrap();
        let value = |name: &str| json!(if name == "one" { 1 } else { 2 });
        assert_eq!(filter.run(&json!({"a": 0}), value, &Limits::default()), Ok(json!([0, 2, 1, [2]])));
    }

    #[test]
    fn a_variable_that_does_not_exist_is_refused_by_name() {
        let refusal = BoundFilter::compile("$other", &["one"]).unwrap_err();
        assert!(refusal.contains("$other"), "{refusal}");
    }
}
