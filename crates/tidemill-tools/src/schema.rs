//! The schema of a named tool: what its kind takes, without what its operator fixed.

use serde_json::Value;

use crate::input::Fixed;

/// The schema of a kind as a caller sees it: fixed members are not the caller's, given ones are not required.
pub(crate) fn for_caller(mut schema: Value, fixed: Option<&Fixed>) -> Value {
    let Some(fixed) = fixed else { return schema };
    if let Some(required) = schema.get_mut("required").and_then(Value::as_array_mut) {
        let given = fixed.sample();
        required.retain(|name| name.as_str().is_none_or(|name| given.get(name).is_none()));
    }
    if let Some(properties) = schema.get_mut("properties").and_then(Value::as_object_mut) {
        properties.retain(|name, _| fixed.get(name).is_none_or(Value::is_object));
    }
    schema
}
