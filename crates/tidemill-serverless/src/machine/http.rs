//! `call: http`: from the document to the input of the tool, and from its output to the document.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};

use super::data::Spot;
use super::memory::{Asked, Doing};
use super::{Machine, Next, Stop};
use crate::document::{Authentication, Endpoint, HttpCall, Output, Task};
use crate::dynamic::{kind, plain_text};
use crate::fault::{Fault, Standard};
use crate::uri;

/// A request, evaluated.
pub(super) struct Request {
    pub(super) method: String,
    pub(super) uri: String,
    pub(super) headers: Map<String, Value>,
    pub(super) query: Map<String, Value>,
    pub(super) body: Option<Value>,
}

impl Machine<'_> {
    pub(super) fn call_http(&mut self, call: &HttpCall, spot: &Spot<'_>) -> Result<(Doing, Next), Stop> {
        let members = |part: &Option<_>| -> Result<Map<String, Value>, Stop> {
            let value = part.as_ref().map(|part| self.evaluate(part, spot)).transpose()?;
            match value {
                None | Some(Value::Null) => Ok(Map::new()),
                Some(Value::Object(members)) => Ok(members),
                Some(other) => {
                    let detail = format!("headers and query of a call must be objects, not {}", kind(&other));
                    Err(Fault::standard(Standard::Validation, &spot.task.reference, detail).into())
                }
            }
        };
        let mut request = Request {
            method: plain_text(&self.evaluate(&call.method, spot)?),
            uri: self.address(&call.endpoint, spot)?,
            headers: members(&call.headers)?,
            query: members(&call.query)?,
            body: call.body.as_ref().map(|body| self.evaluate(body, spot)).transpose()?,
        };
        self.authenticate(call.endpoint.authentication.as_ref(), &mut request.headers, spot)?;
        Ok(self.ask_http(&call.block, request, call.output))
    }

    /// The URI of an endpoint; a template takes its variables from the input.
    pub(super) fn address(&self, endpoint: &Endpoint, spot: &Spot<'_>) -> Result<String, Stop> {
        let text = plain_text(&self.evaluate(&endpoint.uri, spot)?);
        if endpoint.uri.constant().is_none() {
            return Ok(text);
        }
        uri::expand(&text, |name| spot.dot.get(name).cloned())
            .map_err(|message| Fault::standard(Standard::Expression, &spot.task.reference, message).into())
    }

    pub(super) fn authenticate(
        &self,
        with: Option<&Authentication>,
        headers: &mut Map<String, Value>,
        spot: &Spot<'_>,
    ) -> Result<(), Stop> {
        let value = match with {
            None => return Ok(()),
            Some(Authentication::Basic { username, password }) => {
                let username = plain_text(&self.evaluate(username, spot)?);
                let password = plain_text(&self.evaluate(password, spot)?);
                format!("Basic {}", STANDARD.encode(format!("{username}:{password}")))
            }
            Some(Authentication::Bearer { token }) => {
                format!("Bearer {}", plain_text(&self.evaluate(token, spot)?))
            }
        };
        headers.retain(|name, _| !name.eq_ignore_ascii_case("authorization"));
        headers.insert("Authorization".to_owned(), value.into());
        Ok(())
    }

    pub(super) fn ask_http(&mut self, block: &str, request: Request, output: Output) -> (Doing, Next) {
        let (input, shown) = request.into_input(output);
        self.ask_tool(block, &input, Asked::Http { request: shown })
    }
}

impl Request {
    /// The input of the tool, and the request as the document sees it.
    pub(super) fn into_input(self, output: Output) -> (Value, Value) {
        let method = self.method.to_ascii_uppercase();
        let headers: Map<String, Value> = self
            .headers
            .into_iter()
            .filter(|(_, value)| !value.is_null())
            .map(|(name, value)| (name, plain_text(&value).into()))
            .collect();
        let query: Map<String, Value> =
            self.query.into_iter().filter(|(_, value)| !value.is_null()).collect();
        let visible = headers.iter().filter(|(name, _)| !name.eq_ignore_ascii_case("authorization"));
        let shown_headers: Map<String, Value> =
            visible.map(|(name, value)| (name.clone(), value.clone())).collect();
        let shown = json!({ "method": self.method, "uri": self.uri, "headers": shown_headers });
        let content_type = headers.iter().find(|(name, _)| name.eq_ignore_ascii_case("content-type"));
        let is_text =
            content_type.and_then(|(_, value)| value.as_str()).is_some_and(|text| !text.contains("json"));
        let mut input = Map::new();
        input.insert("method".to_owned(), method.into());
        input.insert("url".to_owned(), self.uri.into());
        // which status is an error is the document's to say
        input.insert("expect_status".to_owned(), json!(["2xx", "3xx", "4xx", "5xx"]));
        if !headers.is_empty() {
            input.insert("headers".to_owned(), headers.into());
        }
        if !query.is_empty() {
            input.insert("query".to_owned(), query.into());
        }
        match self.body {
            None | Some(Value::Null) => {}
            Some(Value::String(text)) if is_text => {
                input.insert("text".to_owned(), text.into());
            }
            Some(body) => {
                input.insert("json".to_owned(), body);
            }
        }
        if output == Output::Raw {
            input.insert("response".to_owned(), "bytes".into());
        }
        (input.into(), shown)
    }
}

/// What the document gets of a response.
pub(super) fn answered(
    task: &Task,
    response: &Value,
    request: &Value,
    (output, redirect): (Output, bool),
) -> Result<Value, Fault> {
    let status = response.get("status").and_then(Value::as_u64).and_then(|status| u16::try_from(status).ok());
    let Some(status) = status else {
        return Err(Fault::standard(Standard::Communication, &task.reference, "the answer has no status"));
    };
    let most = if redirect { 399 } else { 299 };
    if !(200..=most).contains(&status) {
        let detail = format!(
            "{} {} answered {status}",
            request.get("method").map(plain_text).unwrap_or_default().to_ascii_uppercase(),
            request.get("uri").map(plain_text).unwrap_or_default()
        );
        return Err(Fault::standard(Standard::Communication, &task.reference, detail).with_status(status));
    }
    let content = response.get("body").or_else(|| response.get("body_base64")).cloned().unwrap_or_default();
    Ok(match output {
        Output::Raw | Output::Content => content,
        Output::Response => json!({
            "request": request,
            "statusCode": status,
            "headers": response.get("headers"),
            "content": content,
        }),
    })
}
