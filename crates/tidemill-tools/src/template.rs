//! `template.render`: text from a Jinja template and data, with bounded work, memory and output.

mod metered;
mod tokens;

use std::sync::Arc;

use minijinja::value::Value as TemplateValue;
use minijinja::{AutoEscape, Environment};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tidemill_tool::{Call, ErrorClass, Payload, Tool, ToolError, ToolFuture};

use crate::input::{self, Fixed, Prepared};
use crate::secret;
use metered::Bounds;

/// Below this many bytes of input a template is rendered at once, not on another thread.
const INLINE_BYTES: usize = 2048;
/// What a rendering may spend on the calling thread: about a millisecond.
const INLINE_WORK: u64 = 100_000;
const INLINE_FUEL: u64 = 2_000;

/// Bounds of `template.render`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// The longest template, in bytes (default 65,536).
    pub max_template_bytes: usize,
    /// The longest text that is printed, in bytes before escaping (default 1,048,576).
    pub max_output_bytes: u64,
    /// Instructions that a rendering may take (default 500,000).
    pub max_fuel: u64,
    /// Bytes and values that a rendering may copy, compare and walk (default 33,554,432).
    pub max_work: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            max_template_bytes: 64 * 1024,
            max_output_bytes: 1024 * 1024,
            max_fuel: 500_000,
            max_work: 32 * 1024 * 1024,
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Input {
    template: Option<String>,
    #[serde(default)]
    data: Value,
    #[serde(default)]
    escape: Escape,
}

/// What is escaped in printed values.
#[derive(Deserialize, Default, Clone, Copy)]
#[serde(rename_all = "snake_case")]
enum Escape {
    #[default]
    None,
    Html,
}

/// The tool `template.render`, or a named tool made from it.
#[derive(Debug, Clone)]
pub struct TemplateRender {
    name: Arc<str>,
    settings: Settings,
    /// For a first try on the calling thread, and for the whole.
    environments: Arc<[Environment<'static>; 2]>,
    fixed: Option<Fixed>,
}

impl TemplateRender {
    /// The tool without anything fixed.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        let environments = Arc::new([
            metered::environment(INLINE_FUEL.min(settings.max_fuel)),
            metered::environment(settings.max_fuel),
        ]);
        Self { name: Arc::from("template.render"), settings, environments, fixed: None }
    }

    pub(crate) fn named(name: Arc<str>, settings: Settings, fixed: Fixed) -> Result<Self, String> {
        let shape: Input = serde_json::from_value(fixed.sample()).map_err(|error| error.to_string())?;
        let tool = Self { name, fixed: Some(fixed), ..Self::new(settings) };
        if let Some(template) = &shape.template {
            if template.len() > tool.settings.max_template_bytes {
                return Err(format!(
                    "the template is longer than template.max_template_bytes ({})",
                    tool.settings.max_template_bytes
                ));
            }
            metered::check(template)
                .map_err(|error| format!("the template is wrong: {}", sentence(&error)))?;
        }
        Ok(tool)
    }

    async fn run(self: Arc<Self>, call: Call) -> Result<Payload, ToolError> {
        let Prepared { json, secrets } = input::prepare(&self.name, self.fixed.as_ref(), call.input)?;
        let result = self.render(&json).await;
        if secrets.is_empty() {
            return result;
        }
        match result {
            Ok(output) => Ok(secret::redact_payload(output, &secrets)),
            Err(error) => Err(secret::redact_error(error, &secrets)),
        }
    }

    async fn render(self: &Arc<Self>, json: &[u8]) -> Result<Payload, ToolError> {
        let input: Input = input::read(&self.name, json)?;
        let Some(template) = input.template else {
            return Err(ToolError::invalid_input(format!(
                "the input of {} does not fit: `template` is missing",
                self.name
            )));
        };
        if template.len() > self.settings.max_template_bytes {
            return Err(ToolError::invalid_input(format!(
                "`template` is longer than {} bytes; an operator raises template.max_template_bytes",
                self.settings.max_template_bytes
            )));
        }
        let escape = match input.escape {
            Escape::None => AutoEscape::None,
            Escape::Html => AutoEscape::Html,
        };
        let data = TemplateValue::from(minijinja::value::Serde(&input.data));
        if json.len() <= INLINE_BYTES {
            let bounds = Bounds {
                work: INLINE_WORK.min(self.settings.max_work),
                output_bytes: self.settings.max_output_bytes,
            };
            let [first, _] = &*self.environments;
            match metered::render(first, &template, data.clone(), escape.clone(), bounds) {
                Err(error) if error.kind() == minijinja::ErrorKind::OutOfFuel => {}
                result => return self.finish(result),
            }
        }
        // A template that has much to do does it where it blocks nobody; its bounds end it, not the dropped future.
        let tool = Arc::clone(self);
        let heavy = tokio::task::spawn_blocking(move || {
            let bounds =
                Bounds { work: tool.settings.max_work, output_bytes: tool.settings.max_output_bytes };
            let [_, whole] = &*tool.environments;
            tool.finish(metered::render(whole, &template, data, escape, bounds))
        });
        heavy.await.unwrap_or_else(|error| {
            Err(ToolError::new(
                ErrorClass::Internal,
                "template_crashed",
                format!("rendering ended early: {error}"),
            ))
        })
    }

    fn finish(&self, result: Result<String, minijinja::Error>) -> Result<Payload, ToolError> {
        let text = result.map_err(|error| {
            let code = if error.kind() == minijinja::ErrorKind::OutOfFuel {
                "template_limit"
            } else {
                "template_failed"
            };
            let message = format!("the template of {} failed: {}", self.name, sentence(&error));
            ToolError::new(ErrorClass::InvalidInput, code, message)
        })?;
        Payload::from_value(&text)
            .map_err(|error| ToolError::new(ErrorClass::Internal, "template_failed", error.to_string()))
    }
}

/// What is wrong and in which line.
fn sentence(error: &minijinja::Error) -> String {
    let what = error
        .detail()
        .map_or_else(|| error.kind().to_string(), |detail| format!("{}: {detail}", error.kind()));
    match error.line() {
        Some(line) => format!("{what} (line {line})"),
        None => what,
    }
}

impl Tool for TemplateRender {
    fn kind(&self) -> &'static str {
        "inline"
    }

    fn input_schema(&self) -> Value {
        let schema = json!({
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            "type": "object",
            "additionalProperties": false,
            "required": ["template"],
            "properties": {
                "template": {"type": "string", "maxLength": self.settings.max_template_bytes},
                "data": {"description": "What the template's names mean: an object."},
                "escape": {"enum": ["none", "html"], "default": "none"}
            }
        });
        crate::schema::for_caller(schema, self.fixed.as_ref())
    }

    fn call(self: Arc<Self>, call: Call) -> ToolFuture {
        Box::pin(self.run(call))
    }
}

#[cfg(test)]
mod tests;
