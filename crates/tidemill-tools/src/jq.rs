//! `jq.transform`: one JSON value from another by a jq filter, with bounded work, nesting and output.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Value, json};
use tidemill_tool::{Call, ErrorClass, Payload, Tool, ToolError, ToolFuture};
use tidemill_workflow::{ExprError, Filter, Limits};

use crate::input::{self, Fixed, Prepared};
use crate::secret;

/// Steps that a filter may take on the calling thread: about a millisecond.
const INLINE_FUEL: u64 = 10_000;
/// Above this many bytes of input a filter runs on another thread at once.
const INLINE_BYTES: usize = 16 * 1024;
/// How many compiled filters are kept for the next call.
const KEPT_FILTERS: usize = 64;

/// Bounds of `jq.transform`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// The longest filter, in bytes (default 65,536).
    pub max_filter_bytes: usize,
    /// The longest output, in bytes (default 1,048,576).
    pub max_output_bytes: usize,
    /// Steps that a filter may take (default 2,000,000: less than a second).
    pub max_fuel: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self { max_filter_bytes: 64 * 1024, max_output_bytes: 1024 * 1024, max_fuel: 2_000_000 }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Input<'a> {
    filter: Option<String>,
    #[serde(borrow)]
    input: Option<&'a RawValue>,
}

/// The tool `jq.transform`, or a named tool made from it.
#[derive(Debug)]
pub struct JqTransform {
    name: Arc<str>,
    settings: Settings,
    fixed: Option<Fixed>,
    filters: Mutex<HashMap<String, Filter>>,
}

impl JqTransform {
    /// The tool without anything fixed.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        Self { name: Arc::from("jq.transform"), settings, fixed: None, filters: Mutex::default() }
    }

    pub(crate) fn named(name: Arc<str>, settings: Settings, fixed: Fixed) -> Result<Self, String> {
        let sample = fixed.sample().to_string();
        let shape: Input<'_> = serde_json::from_str(&sample).map_err(|error| error.to_string())?;
        let tool = Self { name, fixed: Some(fixed), ..Self::new(settings) };
        if let Some(filter) = shape.filter {
            tool.filter(filter).map_err(|error| error.message)?;
        }
        Ok(tool)
    }

    /// Compiles a filter, or finds it compiled.
    fn filter(&self, source: String) -> Result<Filter, ToolError> {
        if source.len() > self.settings.max_filter_bytes {
            return Err(ToolError::invalid_input(format!(
                "`filter` is longer than {} bytes; an operator raises jq.max_filter_bytes",
                self.settings.max_filter_bytes
            )));
        }
        if let Some(filter) = self.kept().get(&source) {
            return Ok(filter.clone());
        }
        let filter = Filter::compile(&source)
            .map_err(|why| ToolError::invalid_input(format!("the filter of {} {why}", self.name)))?;
        let mut kept = self.kept();
        if kept.len() >= KEPT_FILTERS {
            kept.clear();
        }
        kept.insert(source, filter.clone());
        Ok(filter)
    }

    /// A poisoned lock is taken all the same: the map is whole after every statement.
    fn kept(&self) -> std::sync::MutexGuard<'_, HashMap<String, Filter>> {
        self.filters.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn run(self: Arc<Self>, call: Call) -> Result<Payload, ToolError> {
        let Prepared { json, secrets } = input::prepare(&self.name, self.fixed.as_ref(), call.input)?;
        let result = self.transform(&json).await;
        if secrets.is_empty() {
            return result;
        }
        match result {
            Ok(output) => Ok(secret::redact_payload(output, &secrets)),
            Err(error) => Err(secret::redact_error(error, &secrets)),
        }
    }

    async fn transform(&self, json: &[u8]) -> Result<Payload, ToolError> {
        let input: Input<'_> = input::read(&self.name, json)?;
        let Some(filter) = input.filter else {
            return Err(ToolError::invalid_input(format!(
                "the input of {} does not fit: `filter` is missing",
                self.name
            )));
        };
        let filter = self.filter(filter)?;
        let value = input.input.map_or("null", RawValue::get);
        let limits = Limits {
            fuel: self.settings.max_fuel,
            output_bytes: self.settings.max_output_bytes,
            ..Limits::default()
        };
        if value.len() <= INLINE_BYTES {
            match filter.run(value.as_bytes(), &limits.with_fuel(limits.fuel.min(INLINE_FUEL))) {
                Err(error) if error.is_out_of_fuel() => {}
                result => return self.finish(result),
            }
        }
        // A filter that has much to do does it where it blocks nobody; its fuel ends it, not the dropped future.
        let value = value.as_bytes().to_vec();
        let result = tokio::task::spawn_blocking(move || filter.run(&value, &limits)).await;
        self.finish(result.map_err(|error| {
            ToolError::new(ErrorClass::Internal, "filter_crashed", format!("the filter ended early: {error}"))
        })?)
    }

    fn finish(&self, result: Result<Vec<u8>, ExprError>) -> Result<Payload, ToolError> {
        result.map(Payload::json).map_err(|error| {
            ToolError::new(
                ErrorClass::InvalidInput,
                error.code(),
                format!("the filter of {} failed: {error}", self.name),
            )
        })
    }
}

impl Tool for JqTransform {
    fn kind(&self) -> &'static str {
        "inline"
    }

    fn input_schema(&self) -> Value {
        let schema = json!({
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            "type": "object",
            "additionalProperties": false,
            "required": ["filter"],
            "properties": {
                "filter": {"type": "string", "maxLength": self.settings.max_filter_bytes, "description": "A jq filter that gives exactly one value."},
                "input": {"description": "Any JSON value; default null."}
            }
        });
        crate::schema::for_caller(schema, self.fixed.as_ref())
    }

    fn call(self: Arc<Self>, call: Call) -> ToolFuture {
        Box::pin(self.run(call))
    }
}
