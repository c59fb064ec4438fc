//! JSON Schema, draft 2020-12, without a network: a `$ref` that leads out of the schema is refused.

use std::fmt;

use jsonschema::{Draft, PatternOptions, Validator};
use serde_json::Value;

/// Most violations told at once.
const SHOWN: usize = 20;

/// A compiled schema.
#[derive(Clone)]
pub struct Schema {
    validator: std::sync::Arc<Validator>,
}

impl Schema {
    /// Compiles a schema.
    ///
    /// # Errors
    /// A sentence that says where in it and what.
    pub fn compile(schema: &Value) -> Result<Self, String> {
        // Patterns run on an engine that does not backtrack: input cannot make them take exponential time.
        let validator = jsonschema::options()
            .with_draft(Draft::Draft202012)
            .with_pattern_options(PatternOptions::regex())
            .offline()
            .build(schema)
            .map_err(|error| {
                let at = error.instance_path().to_string();
                let place = if at.is_empty() { String::new() } else { format!("at {at}: ") };
                format!("is not a valid JSON Schema: {place}{error}")
            })?;
        Ok(Self { validator: std::sync::Arc::new(validator) })
    }

    /// Checks a value.
    ///
    /// # Errors
    /// Each violation says where in the value and what.
    pub fn check(&self, value: &Value) -> Result<(), Vec<String>> {
        let violations: Vec<String> = self
            .validator
            .iter_errors(value)
            .take(SHOWN)
            .map(|error| {
                let at = error.instance_path().to_string();
                let at = if at.is_empty() { "/".to_owned() } else { at };
                // The value itself may be long, or a secret.
                format!("{at}: {}", error.masked_with("the value"))
            })
            .collect();
        if violations.is_empty() { Ok(()) } else { Err(violations) }
    }
}

impl fmt::Debug for Schema {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Schema")
    }
}
