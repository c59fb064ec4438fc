//! The input of `http.request` and the request that it asks for.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Method, StatusCode};
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Number, Value, json};
use tidemill_tool::{Context, ToolError};
use url::Url;

use super::settings::Settings;

/// Headers that belong to the connection and that no caller sets.
const RESERVED: [&str; 12] = [
    "connection",
    "content-length",
    "expect",
    "host",
    "http2-settings",
    "keep-alive",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// The longest URL, in bytes.
const MAX_URL_BYTES: usize = 16 * 1024;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Input<'a> {
    url: Option<String>,
    method: Option<String>,
    #[serde(default)]
    path: BTreeMap<String, Scalar>,
    #[serde(default)]
    query: BTreeMap<String, Parameter>,
    #[serde(default)]
    headers: BTreeMap<String, String>,
    #[serde(borrow)]
    json: Option<&'a RawValue>,
    text: Option<String>,
    bytes_base64: Option<String>,
    #[serde(default)]
    expect_status: Vec<StatusMatch>,
    #[serde(default)]
    pub(crate) response: BodyKind,
    max_response_bytes: Option<usize>,
    max_redirects: Option<u32>,
}

/// How the body of the response is given.
#[derive(Deserialize, Default, Clone, Copy, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub(crate) enum BodyKind {
    /// JSON if the content type says so, text if it is UTF-8, else Base64.
    #[default]
    Auto,
    Json,
    Text,
    Bytes,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Scalar {
    Text(String),
    Number(Number),
    Bool(bool),
}

impl Scalar {
    fn into_text(self) -> String {
        match self {
            Self::Text(text) => text,
            Self::Number(number) => number.to_string(),
            Self::Bool(value) => value.to_string(),
        }
    }
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Parameter {
    One(Scalar),
    Many(Vec<Scalar>),
}

/// A status code, or a class of them such as `2xx`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum StatusMatch {
    Code(u16),
    Class(u16),
}

impl<'de> Deserialize<'de> for StatusMatch {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = Value::deserialize(deserializer)?;
        let code = match &value {
            Value::Number(number) => {
                number.as_u64().and_then(|code| u16::try_from(code).ok()).map(Self::Code)
            }
            Value::String(text) => text
                .strip_suffix("xx")
                .and_then(|class| class.parse().ok())
                .filter(|class| (1..=5).contains(class))
                .map(Self::Class)
                .or_else(|| text.parse().ok().map(Self::Code)),
            Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => None,
        };
        code.filter(|code| !matches!(code, Self::Code(code) if !(100..=599).contains(code)))
            .ok_or_else(|| serde::de::Error::custom(format!("{value} is no status: write 404 or \"4xx\"")))
    }
}

/// A request, ready to be sent, and what the caller wants to see come back.
pub(crate) struct Plan {
    pub(crate) method: Method,
    pub(crate) url: Url,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
    pub(crate) response: BodyKind,
    pub(crate) max_response_bytes: usize,
    pub(crate) max_redirects: u32,
    expect_status: Vec<StatusMatch>,
}

impl Plan {
    /// Whether the response's status is one that the caller wants.
    pub(crate) fn expects(&self, status: StatusCode) -> bool {
        if self.expect_status.is_empty() {
            return status.is_success();
        }
        self.expect_status.iter().any(|wanted| match *wanted {
            StatusMatch::Code(code) => status.as_u16() == code,
            StatusMatch::Class(class) => status.as_u16() / 100 == class,
        })
    }
}

impl Input<'_> {
    /// Turns the input into a request; whatever does not fit is refused with the member's name.
    pub(crate) fn plan(mut self, settings: &Settings, context: &Context) -> Result<Plan, ToolError> {
        let Some(url) = self.url.take() else { return Err(refused("`url` is missing")) };
        let mut url = parse_url(&fill_path(&url, std::mem::take(&mut self.path))?)?;
        add_query(&mut url, std::mem::take(&mut self.query));
        let mut headers = read_headers(&self.headers)?;
        let (body, content_type) = self.take_body()?;
        let method = read_method(self.method.as_deref(), !body.is_empty() || content_type.is_some())?;
        if let Some(content_type) = content_type {
            headers.entry(header::CONTENT_TYPE).or_insert(HeaderValue::from_static(content_type));
        }
        add_own_headers(&mut headers, settings, context)?;
        Ok(Plan {
            method,
            url,
            headers,
            body,
            response: self.response,
            max_response_bytes: self
                .max_response_bytes
                .unwrap_or(usize::MAX)
                .min(settings.max_response_bytes),
            max_redirects: self.max_redirects.unwrap_or(u32::MAX).min(settings.max_redirects),
            expect_status: self.expect_status,
        })
    }

    fn take_body(&mut self) -> Result<(Bytes, Option<&'static str>), ToolError> {
        match (self.json, self.text.take(), self.bytes_base64.take()) {
            (None, None, None) => Ok((Bytes::new(), None)),
            (Some(json), None, None) => {
                Ok((Bytes::copy_from_slice(json.get().as_bytes()), Some("application/json")))
            }
            (None, Some(text), None) => Ok((text.into(), Some("text/plain; charset=utf-8"))),
            (None, None, Some(text)) => {
                let bytes = STANDARD
                    .decode(text)
                    .map_err(|error| refused(&format!("`bytes_base64` is not Base64: {error}")))?;
                Ok((bytes.into(), Some("application/octet-stream")))
            }
            _ => Err(refused("give only one of `json`, `text` and `bytes_base64`")),
        }
    }
}

fn refused(why: &str) -> ToolError {
    ToolError::invalid_input(format!("the input of http.request does not fit: {why}"))
}

/// Reads an absolute http or https URL without credentials.
pub(crate) fn parse_url(text: &str) -> Result<Url, ToolError> {
    if text.len() > MAX_URL_BYTES {
        return Err(refused(&format!("`url` is longer than {MAX_URL_BYTES} bytes")));
    }
    // The parser drops tabs and line breaks silently; a caller who sends them is mistaken or worse.
    if text.chars().any(char::is_control) {
        return Err(refused("`url` holds a control character"));
    }
    let mut url =
        Url::parse(text).map_err(|error| refused(&format!("`url` is not an absolute URL: {error}")))?;
    if !matches!(url.scheme(), "http" | "https") {
        let message = format!("the scheme `{}` is not http or https", url.scheme());
        return Err(ToolError::new(tidemill_tool::ErrorClass::Forbidden, "scheme_refused", message));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(refused("`url` holds credentials; an operator puts them into a header of a named tool"));
    }
    url.set_fragment(None);
    Ok(url)
}

/// Fills `{name}` in the URL with escaped values, so that a value cannot leave its segment.
fn fill_path(url: &str, values: BTreeMap<String, Scalar>) -> Result<String, ToolError> {
    let mut filled = url.to_owned();
    for (name, value) in values {
        let text = value.into_text();
        if matches!(text.as_str(), "" | "." | "..") {
            return Err(refused(&format!("`path.{name}` is `{text}`, which is not a path segment")));
        }
        let place = format!("{{{name}}}");
        if !filled.contains(&place) {
            return Err(refused(&format!("`path.{name}` has no place `{place}` in the URL")));
        }
        let host =
            filled.split_once("://").map_or(filled.as_str(), |(_, rest)| rest).split(['/', '?', '#']).next();
        if host.is_some_and(|host| host.contains(&place)) {
            return Err(refused(&format!(
                "`{place}` stands in the host of the URL; only path and query can be filled"
            )));
        }
        let mut escaped = String::with_capacity(text.len());
        for byte in text.bytes() {
            if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
                escaped.push(char::from(byte));
            } else {
                escaped.push_str(&format!("%{byte:02X}"));
            }
        }
        filled = filled.replace(&place, &escaped);
    }
    let before_query = filled.split(['?', '#']).next().unwrap_or_default();
    if let Some((_, rest)) = before_query.split_once('{')
        && let Some((name, _)) = rest.split_once('}')
    {
        return Err(refused(&format!("`{{{name}}}` in the URL has no value; give it as `path.{name}`")));
    }
    Ok(filled)
}

fn add_query(url: &mut Url, query: BTreeMap<String, Parameter>) {
    if query.is_empty() {
        return;
    }
    let mut pairs = url.query_pairs_mut();
    for (name, parameter) in query {
        match parameter {
            Parameter::One(value) => {
                pairs.append_pair(&name, &value.into_text());
            }
            Parameter::Many(values) => {
                for value in values {
                    pairs.append_pair(&name, &value.into_text());
                }
            }
        }
    }
}

fn read_headers(given: &BTreeMap<String, String>) -> Result<HeaderMap, ToolError> {
    let mut headers = HeaderMap::with_capacity(given.len() + 4);
    for (name, value) in given {
        let shown = name.escape_debug();
        let key = HeaderName::from_bytes(name.as_bytes())
            .map_err(|_| refused(&format!("`headers.{shown}` is not the name of a header")))?;
        if RESERVED.contains(&key.as_str()) {
            return Err(refused(&format!("`headers.{shown}` is set by the connection itself; leave it out")));
        }
        let value = HeaderValue::from_str(value).map_err(|_| {
            refused(&format!("`headers.{shown}` holds a line break or another control character"))
        })?;
        if headers.insert(key, value).is_some() {
            return Err(refused(&format!("`headers.{shown}` is given twice")));
        }
    }
    Ok(headers)
}

fn read_method(given: Option<&str>, has_body: bool) -> Result<Method, ToolError> {
    let method = match given {
        None if has_body => Method::POST,
        None => Method::GET,
        Some(text) => Method::from_bytes(text.to_ascii_uppercase().as_bytes()).map_err(|_| {
            refused(&format!("`method` is `{}`, which is not an HTTP method", text.escape_debug()))
        })?,
    };
    if method == Method::CONNECT || method == Method::TRACE {
        return Err(refused(&format!("the method {method} is not supported")));
    }
    Ok(method)
}

/// What every request carries unless the caller says otherwise.
fn add_own_headers(headers: &mut HeaderMap, settings: &Settings, context: &Context) -> Result<(), ToolError> {
    let value = |text: &str| HeaderValue::from_str(text);
    if !headers.contains_key(header::USER_AGENT)
        && let Ok(agent) = value(&settings.user_agent)
    {
        headers.insert(header::USER_AGENT, agent);
    }
    headers.entry(header::ACCEPT).or_insert(HeaderValue::from_static("*/*"));
    if !context.id.is_empty() {
        let key = value(&context.idempotency_key()).map_err(|_| {
            ToolError::invalid_input("the job's id cannot stand in a header: it holds a control character")
        })?;
        headers.entry("idempotency-key").or_insert(key);
    }
    if let Some(trace) = &context.traceparent
        && let Ok(trace) = value(trace)
    {
        headers.entry("traceparent").or_insert(trace);
    }
    Ok(())
}

/// The JSON Schema of the input.
pub(crate) fn schema(settings: &Settings) -> Value {
    let scalar = json!({"type": ["string", "number", "boolean"]});
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "type": "object",
        "additionalProperties": false,
        "required": ["url"],
        "properties": {
            "url": {"type": "string", "maxLength": MAX_URL_BYTES, "description": "Absolute http or https URL; {name} stands for path.name."},
            "method": {"type": "string", "description": "Default GET, with a body POST."},
            "path": {"type": "object", "additionalProperties": scalar},
            "query": {"type": "object", "additionalProperties": {"anyOf": [scalar, {"type": "array", "items": scalar}]}},
            "headers": {"type": "object", "additionalProperties": {"type": "string"}},
            "json": {"description": "Body: any JSON value."},
            "text": {"type": "string", "description": "Body: UTF-8 text."},
            "bytes_base64": {"type": "string", "contentEncoding": "base64", "description": "Body: bytes."},
            "expect_status": {
                "type": "array",
                "items": {"anyOf": [{"type": "integer", "minimum": 100, "maximum": 599}, {"type": "string", "pattern": "^([1-5]xx|[1-5][0-9]{2})$"}]},
                "description": "Statuses that count as success; default 2xx."
            },
            "response": {"enum": ["auto", "json", "text", "bytes"], "default": "auto"},
            "max_response_bytes": {"type": "integer", "minimum": 0, "maximum": settings.max_response_bytes},
            "max_redirects": {"type": "integer", "minimum": 0, "maximum": settings.max_redirects}
        }
    })
}
