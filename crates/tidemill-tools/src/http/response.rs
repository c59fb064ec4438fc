//! From a response to the tool's output or to the error of its status.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::{Method, StatusCode};
use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};
use serde_json::value::RawValue;
use tidemill_tool::{ErrorClass, Payload, ToolError};
use url::Url;

use super::head::Head;
use super::limits;
use super::reader::Answer;
use super::request::BodyKind;

/// How deep JSON may nest, as everything that reads it later wants it.
const MAX_DEPTH: usize = 127;

/// The most of an error's body that its message quotes, in characters.
const QUOTED_CHARS: usize = 200;

#[derive(Serialize)]
struct Output<'a> {
    status: u16,
    headers: Headers<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    body: Option<OutputBody<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    body_base64: Option<String>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum OutputBody<'a> {
    Json(&'a RawValue),
    Text(&'a str),
    Nothing,
}

/// Writes each header once, several values joined as HTTP joins them.
struct Headers<'a>(&'a Head);

impl Serialize for Headers<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        for (index, (name, value)) in self.0.fields().enumerate() {
            if self.0.fields().take(index).any(|(earlier, _)| earlier == name) {
                continue;
            }
            let mut joined = String::from_utf8_lossy(value);
            for further in self.0.fields().skip(index + 1).filter(|(known, _)| *known == name) {
                let joined = joined.to_mut();
                joined.push_str(", ");
                joined.push_str(&String::from_utf8_lossy(further.1));
            }
            map.serialize_entry(name, &joined)?;
        }
        map.end()
    }
}

/// The output of a call whose status is as wanted.
pub(crate) fn output(answer: &Answer, kind: BodyKind, method: &Method) -> Result<Payload, ToolError> {
    let mut output = Output {
        status: answer.head.status.as_u16(),
        headers: Headers(&answer.head),
        body: None,
        body_base64: None,
    };
    let bytes = &answer.body[..];
    let is_encoded = answer.head.all("content-encoding").next().is_some_and(|coding| coding != b"identity");
    let wants_json = match kind {
        BodyKind::Json => true,
        BodyKind::Auto => !is_encoded && !bytes.is_empty() && is_json(&answer.head),
        BodyKind::Text | BodyKind::Bytes => false,
    };
    if bytes.is_empty() && (*method == Method::HEAD || kind == BodyKind::Auto) {
        output.body = Some(OutputBody::Nothing);
    } else if wants_json {
        output.body = Some(OutputBody::Json(read_json(bytes)?));
    } else {
        match std::str::from_utf8(bytes) {
            Ok(text) if kind == BodyKind::Text || (kind == BodyKind::Auto && !is_encoded) => {
                output.body = Some(OutputBody::Text(text));
            }
            Err(error) if kind == BodyKind::Text => {
                return Err(bad_content(
                    "body_not_text",
                    format!("the body of the response is not UTF-8: {error}"),
                ));
            }
            Ok(_) | Err(_) => output.body_base64 = Some(STANDARD.encode(bytes)),
        }
    }
    Payload::from_value(&output).map_err(|error| bad_content("body_not_json", error.to_string()))
}

fn bad_content(code: &'static str, message: String) -> ToolError {
    ToolError::new(ErrorClass::BadContent, code, message)
}

fn is_json(head: &Head) -> bool {
    let Some(content_type) = head.get("content-type") else { return false };
    let essence = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    essence == "application/json" || essence == "text/json" || essence.ends_with("+json")
}

fn read_json(bytes: &[u8]) -> Result<&RawValue, ToolError> {
    let depth = crate::json::depth(bytes);
    if depth > MAX_DEPTH {
        return Err(bad_content(
            "body_too_deep",
            format!("the body of the response nests {depth} levels deep; at most {MAX_DEPTH} are read"),
        ));
    }
    serde_json::from_slice(bytes).map_err(|error| {
        bad_content("body_not_json", format!("the body of the response is not JSON: {error}"))
    })
}

/// The error of a status that is not wanted.
pub(crate) fn status_error(answer: &Answer, method: &Method, url: &Url) -> ToolError {
    let status = answer.head.status;
    let class = match status {
        _ if limits::is_throttled(&answer.head) => ErrorClass::Throttled,
        StatusCode::REQUEST_TIMEOUT => ErrorClass::Timeout,
        status if status.is_server_error() => ErrorClass::Server,
        _ => ErrorClass::Client,
    };
    let body = String::from_utf8_lossy(&answer.body);
    let mut quoted: String =
        body.chars().map(|c| if c.is_control() { ' ' } else { c }).take(QUOTED_CHARS).collect();
    if !quoted.is_empty() {
        quoted.insert_str(0, ": ");
    }
    let place = &url[..url::Position::AfterPath];
    ToolError::new(class, "http_status", format!("{method} {place} answered {status}{quoted}"))
        .with_retry_after(limits::retry_after(&answer.head))
}
