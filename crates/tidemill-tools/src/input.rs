//! From the bytes of a call to a tool's typed input: what the operator fixed, what the caller gave, and their merge.
//!
//! The rule of named tools: members of `with` are the operator's, and a call that gives the same member is refused;
//! members of `defaults` are used where the call is silent. Objects are merged member by member.

use std::sync::Arc;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::{Map, Value};
use tidemill_tool::{Payload, ToolError};

use crate::secret::{self, Secret, Secrets};

/// What the operator decided for a named tool.
#[derive(Debug, Clone)]
pub(crate) struct Fixed {
    with: Value,
    defaults: Value,
    has_secrets: bool,
    secrets: Arc<Secrets>,
    operators_own: &'static [&'static str],
}

impl Fixed {
    /// Checks the references to secrets.
    ///
    /// # Errors
    /// A reference is malformed, or stands in `defaults`, where a caller could send it elsewhere.
    pub(crate) fn new(
        with: Map<String, Value>,
        defaults: Map<String, Value>,
        secrets: Arc<Secrets>,
    ) -> Result<Self, String> {
        let with = Value::Object(with);
        let defaults = Value::Object(defaults);
        let has_secrets = secret::refers_to_secret(&with)?;
        if secret::refers_to_secret(&defaults)? {
            return Err("a secret stands in `defaults`, which a call can change; put it in `with`".to_owned());
        }
        Ok(Self { with, defaults, has_secrets, secrets, operators_own: &[] })
    }

    /// Members that no call may give, fixed or not.
    pub(crate) const fn with_operators_own(mut self, members: &'static [&'static str]) -> Self {
        self.operators_own = members;
        self
    }

    /// The member of `with`, unresolved.
    pub(crate) fn get(&self, member: &str) -> Option<&Value> {
        self.with.get(member)
    }

    pub(crate) const fn has_secrets(&self) -> bool {
        self.has_secrets
    }

    /// `with` and `defaults` as one input in which every reference is a placeholder, to check the members at start.
    pub(crate) fn sample(&self) -> Value {
        let mut sample = self.defaults.clone();
        overlay(&mut sample, placeholders(&self.with));
        sample
    }

    fn merge(&self, tool: &str, caller: Value, read: &mut Vec<Secret>) -> Result<Value, ToolError> {
        refuse_conflict(tool, "", &self.with, &caller)?;
        if let Some(member) = self.operators_own.iter().find(|member| caller.get(**member).is_some()) {
            return Err(ToolError::invalid_input(format!(
                "the input of {tool} gives `{member}`, which is its operator's"
            )));
        }
        let with = if self.has_secrets {
            secret::resolve(&self.with, &self.secrets, read)?
        } else {
            self.with.clone()
        };
        let mut merged = self.defaults.clone();
        overlay(&mut merged, caller);
        overlay(&mut merged, with);
        Ok(merged)
    }
}

/// An input as JSON text, and the secrets that were put into it.
pub(crate) struct Prepared {
    pub(crate) json: Bytes,
    pub(crate) secrets: Vec<Secret>,
}

/// Merges a call's input with what is fixed, refusing whatever a caller may not say.
pub(crate) fn prepare(tool: &str, fixed: Option<&Fixed>, input: Payload) -> Result<Prepared, ToolError> {
    let json = input
        .into_json()
        .map_err(|error| ToolError::invalid_input(format!("the input of {tool} cannot be read: {error}")))?
        .into_bytes();
    secret::refuse_in_input(tool, &json)?;
    let Some(fixed) = fixed else { return Ok(Prepared { json, secrets: Vec::new() }) };
    let caller: Value = read(tool, &json)?;
    if !caller.is_object() {
        return Err(ToolError::invalid_input(format!("the input of {tool} is not an object")));
    }
    let mut secrets = Vec::new();
    let merged = fixed.merge(tool, caller, &mut secrets)?;
    Ok(Prepared { json: merged.to_string().into(), secrets })
}

/// Reads the typed input; the error names the member that does not fit.
pub(crate) fn read<'a, T: Deserialize<'a>>(tool: &str, json: &'a [u8]) -> Result<T, ToolError> {
    serde_json::from_slice(json)
        .map_err(|error| ToolError::invalid_input(format!("the input of {tool} does not fit: {error}")))
}

/// Refuses a leaf that both give. Names are compared without case inside `headers`.
fn refuse_conflict(tool: &str, path: &str, fixed: &Value, caller: &Value) -> Result<(), ToolError> {
    let (Value::Object(fixed), Value::Object(caller)) = (fixed, caller) else {
        return Err(ToolError::invalid_input(format!(
            "the input of {tool} gives `{path}`, which its operator fixed; leave it out"
        )));
    };
    for (name, given) in caller {
        let same = if path == "headers" {
            fixed.iter().find(|(fixed, _)| fixed.eq_ignore_ascii_case(name)).map(|(_, value)| value)
        } else {
            fixed.get(name)
        };
        if let Some(value) = same {
            let inner = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
            // A reference to a secret is one value, whatever it looks like.
            let value = if secret::refers_to_secret(value) == Ok(true) && value.get("secret").is_some() {
                &Value::Null
            } else {
                value
            };
            refuse_conflict(tool, &inner, value, given)?;
        }
    }
    Ok(())
}

/// Puts `over` on top of `base`, object by object.
fn overlay(base: &mut Value, over: Value) {
    match (base, over) {
        (Value::Object(base), Value::Object(over)) => {
            for (name, value) in over {
                match base.get_mut(&name) {
                    Some(below) => overlay(below, value),
                    None => {
                        base.insert(name, value);
                    }
                }
            }
        }
        (base, over) => *base = over,
    }
}

/// The value with `x` for every reference.
fn placeholders(value: &Value) -> Value {
    match value {
        Value::Object(object)
            if object.contains_key("secret") && secret::refers_to_secret(value) == Ok(true) =>
        {
            Value::String("x".to_owned())
        }
        Value::Object(object) => {
            Value::Object(object.iter().map(|(name, value)| (name.clone(), placeholders(value))).collect())
        }
        Value::Array(array) => Value::Array(array.iter().map(placeholders).collect()),
        other => other.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn fixed(with: &Value, defaults: &Value) -> Result<Fixed, String> {
        let members = |value: &Value| value.as_object().cloned().unwrap_or_default();
        Fixed::new(members(with), members(defaults), Arc::default())
    }

    fn merged(fixed: &Fixed, input: &Value) -> Result<Value, ToolError> {
        let prepared = prepare("shop.hold", Some(fixed), Payload::json(input.to_string()))?;
        read("shop.hold", &prepared.json)
    }

    #[test]
    fn the_operators_members_are_kept_and_the_callers_are_added() -> Result<(), Box<dyn std::error::Error>> {
        let fixed =
            fixed(&json!({"url": "u", "headers": {"A": "1"}}), &json!({"method": "GET", "query": {"n": 1}}))?;
        assert_eq!(
            merged(&fixed, &json!({"headers": {"B": "2"}, "method": "PUT"}))?,
            json!({"url": "u", "headers": {"A": "1", "B": "2"}, "method": "PUT", "query": {"n": 1}})
        );
        Ok(())
    }

    #[test]
    fn a_call_cannot_change_what_is_fixed() -> Result<(), String> {
        let fixed =
            fixed(&json!({"url": "u", "headers": {"Authorization": {"secret": "env:HOME"}}}), &json!({}))?;
        for input in [
            json!({"url": "v"}),
            json!({"url": null}),
            json!({"headers": "x"}),
            json!({"headers": {"authorization": "x"}}),
            json!({"headers": {"Authorization": {"x": 1}}}),
            json!({"headers": {"Authorization": null}}),
        ] {
            let error = merged(&fixed, &input).err().map(|error| error.code);
            assert_eq!(error.as_deref(), Some("invalid_input"), "{input} was accepted");
        }
        Ok(())
    }

    #[test]
    fn a_secret_among_the_defaults_is_refused() {
        assert!(fixed(&json!({}), &json!({"headers": {"A": {"secret": "env:HOME"}}})).is_err());
    }
}
