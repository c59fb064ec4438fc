//! `call: openapi`: first the description is fetched, then the operation is called as it says (OpenAPI 3 and Swagger 2).

use serde_json::{Map, Value};
use tidemill_workflow::source;

use super::data::Spot;
use super::http::Request;
use super::memory::{Asked, Doing};
use super::{Machine, Next, Stop};
use crate::document::{OpenApiCall, Output};
use crate::dynamic::plain_text;
use crate::fault::{Fault, Standard};
use crate::uri;

const METHODS: [&str; 8] = ["get", "put", "post", "delete", "options", "head", "patch", "trace"];

impl Machine<'_> {
    pub(super) fn call_openapi(
        &mut self,
        call: &OpenApiCall,
        spot: &Spot<'_>,
    ) -> Result<(Doing, Next), Stop> {
        let mut headers = Map::new();
        self.authenticate(call.document.authentication.as_ref(), &mut headers, spot)?;
        let uri = self.address(&call.document, spot)?;
        let request = Request { method: "get".to_owned(), uri, headers, query: Map::new(), body: None };
        // text, so that a description in YAML is read as well
        let (mut input, _) = request.into_input(Output::Content);
        if let Some(input) = input.as_object_mut() {
            input.insert("response".to_owned(), "text".into());
        }
        Ok(self.ask_tool(&call.block, &input, Asked::Description))
    }

    /// The description is there: calls the operation.
    pub(super) fn described(
        &mut self,
        call: &OpenApiCall,
        response: &Value,
        spot: &Spot<'_>,
    ) -> Result<(Doing, Next), Stop> {
        let wrong = |detail: String| {
            Stop::from(Fault::standard(Standard::Configuration, &spot.task.reference, detail))
        };
        let place = self.address(&call.document, spot)?;
        let status = response.get("status").and_then(Value::as_u64).unwrap_or(0);
        if !(200..300).contains(&status) {
            let detail = format!("GET {place} answered {status}");
            let fault = Fault::standard(Standard::Communication, &spot.task.reference, detail);
            return Err(fault.with_status(u16::try_from(status).unwrap_or(500)).into());
        }
        let text = response.get("body").map(plain_text).unwrap_or_default();
        let description = source::read(&text)
            .map_err(|refusal| {
                wrong(format!("{place} cannot be read: line {}: {}", refusal.place.line, refusal.message))
            })?
            .to_value();
        let wanted = plain_text(&self.evaluate(&call.operation, spot)?);
        let operation = Operation::find(&description, &wanted)
            .ok_or_else(|| wrong(format!("{place} has no operation `{wanted}`")))?;
        let parameters = call.parameters.as_ref().map(|given| self.evaluate(given, spot)).transpose()?;
        let parameters = match parameters {
            Some(Value::Object(parameters)) => parameters,
            _ => Map::new(),
        };
        let mut request = operation.request(&place, &parameters).map_err(wrong)?;
        self.authenticate(call.authentication.as_ref(), &mut request.headers, spot)?;
        Ok(self.ask_http(&call.block, request, call.output))
    }
}

/// An operation of a description.
struct Operation<'d> {
    description: &'d Value,
    path: &'d str,
    method: &'d str,
    item: &'d Value,
    operation: &'d Value,
}

impl<'d> Operation<'d> {
    fn find(description: &'d Value, id: &str) -> Option<Self> {
        let paths = description.get("paths")?.as_object()?;
        paths.iter().find_map(|(path, item)| {
            METHODS.iter().find_map(|method| {
                let operation = item.get(method)?;
                let is_it = operation.get("operationId").and_then(Value::as_str) == Some(id);
                is_it.then_some(Self { description, path, method, item, operation })
            })
        })
    }

    fn request(&self, place: &str, given: &Map<String, Value>) -> Result<Request, String> {
        let mut left = given.clone();
        let mut request = Request {
            method: self.method.to_owned(),
            uri: String::new(),
            headers: Map::new(),
            query: Map::new(),
            body: None,
        };
        let mut path = Map::new();
        let mut form = Map::new();
        for parameter in self.parameters() {
            let text = |member: &str| parameter.get(member).and_then(Value::as_str).unwrap_or_default();
            let (name, within) = (text("name"), text("in"));
            let Some(value) = left.remove(name) else {
                let is_needed =
                    parameter.get("required").and_then(Value::as_bool).unwrap_or(within == "path");
                if is_needed {
                    return Err(format!("the operation needs the parameter `{name}`"));
                }
                continue;
            };
            match within {
                "path" => path.insert(name.to_owned(), value),
                "query" => request.query.insert(name.to_owned(), value),
                "header" => request.headers.insert(name.to_owned(), value),
                "body" => request.body.replace(value),
                "formData" => form.insert(name.to_owned(), value),
                _ => {
                    return Err(format!(
                        "the parameter `{name}` goes into `{within}`, which is not supported"
                    ));
                }
            };
        }
        if !form.is_empty() {
            request.headers.insert("Content-Type".to_owned(), "application/x-www-form-urlencoded".into());
            request.body = Some(encoded(&form).into());
        }
        if self.operation.get("requestBody").is_some() && !left.is_empty() {
            // `body` is the whole of it; other names are its members
            let body = left.remove("body").filter(|_| left.is_empty());
            request.body = Some(body.unwrap_or_else(|| std::mem::take(&mut left).into()));
        }
        if let Some(name) = left.keys().next() {
            return Err(format!("the operation has no parameter `{name}`"));
        }
        let filled = uri::expand(self.path, |name| path.get(name).cloned())?;
        request.uri = format!("{}{filled}", self.server(place)?.trim_end_matches('/'));
        Ok(request)
    }

    /// The operation's own parameters before those of its path.
    fn parameters(&self) -> Vec<&'d Value> {
        let mut all: Vec<&Value> = Vec::new();
        for holder in [self.operation, self.item] {
            for parameter in holder.get("parameters").and_then(Value::as_array).into_iter().flatten() {
                let parameter = self.resolved(parameter);
                let is_known = all.iter().any(|known| {
                    known.get("name") == parameter.get("name") && known.get("in") == parameter.get("in")
                });
                if !is_known {
                    all.push(parameter);
                }
            }
        }
        all
    }

    fn resolved(&self, value: &'d Value) -> &'d Value {
        let target = value.get("$ref").and_then(Value::as_str).and_then(|to| to.strip_prefix('#'));
        target.and_then(|pointer| self.description.pointer(pointer)).unwrap_or(value)
    }

    /// Where the operation's paths begin; what is relative is so to the place of the description.
    fn server(&self, place: &str) -> Result<String, String> {
        let (scheme, rest) = place.split_once("://").ok_or_else(|| format!("{place} is no absolute URI"))?;
        let host = rest.split(['/', '?', '#']).next().unwrap_or_default();
        if self.description.get("swagger").is_some() {
            let text = |member: &str| self.description.get(member).and_then(Value::as_str);
            let schemes = self.operation.get("schemes").or_else(|| self.description.get("schemes"));
            let schemes: Vec<&str> =
                schemes.and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).collect();
            let scheme = if schemes.is_empty() || schemes.contains(&scheme) {
                scheme
            } else {
                schemes.iter().copied().find(|scheme| *scheme == "https").unwrap_or("http")
            };
            return Ok(format!(
                "{scheme}://{}{}",
                text("host").unwrap_or(host),
                text("basePath").unwrap_or_default()
            ));
        }
        let servers = [self.operation, self.item, self.description];
        let server = servers.iter().find_map(|holder| holder.get("servers")?.get(0));
        let url = server.and_then(|server| server.get("url")).and_then(Value::as_str).unwrap_or("/");
        let default = |name: &str| server?.get("variables")?.get(name)?.get("default").cloned();
        let mut url_text = String::new();
        let mut left = url;
        while let Some((before, tail)) = left.split_once('{') {
            let (name, after) =
                tail.split_once('}').ok_or_else(|| format!("the server `{url}` has an open brace"))?;
            url_text.push_str(before);
            url_text.push_str(&default(name).map(|value| plain_text(&value)).unwrap_or_default());
            left = after;
        }
        url_text.push_str(left);
        Ok(if url_text.contains("://") {
            url_text
        } else {
            format!("{scheme}://{host}/{}", url_text.trim_start_matches('/'))
        })
    }
}

/// A form as it is sent.
fn encoded(form: &Map<String, Value>) -> String {
    let mut out = String::new();
    for (name, value) in form {
        if !out.is_empty() {
            out.push('&');
        }
        uri::encode(name, &mut out);
        out.push('=');
        uri::encode(&plain_text(value), &mut out);
    }
    out
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn parameters(value: &Value) -> Map<String, Value> {
        value.as_object().cloned().unwrap_or_default()
    }

    #[test]
    fn an_operation_of_swagger_2_is_called_where_it_says() {
        let description = json!({
            "swagger": "2.0", "host": "shop.test", "basePath": "/v2", "schemes": ["https"],
            "paths": { "/pet/{petId}": {
                "parameters": [{ "name": "trace", "in": "header" }],
                "post": { "operationId": "update", "parameters": [
                    { "name": "petId", "in": "path", "required": true },
                    { "name": "name", "in": "formData" },
                    { "name": "tags", "in": "query" }
                ] }
            } }
        });
        let operation = Operation::find(&description, "update").unwrap();
        let given = json!({"petId": 7, "name": "a b", "tags": ["x", "y"], "trace": "t"});
        let request = operation.request("http://docs.test/swagger.json", &parameters(&given)).unwrap();
        assert_eq!((request.method.as_str(), request.uri.as_str()), ("post", "https://shop.test/v2/pet/7"));
        assert_eq!(request.body, Some(json!("name=a%20b")));
        assert_eq!(Value::from(request.query), json!({"tags": ["x", "y"]}));
        assert_eq!(request.headers.get("trace"), Some(&json!("t")));
    }

    #[test]
    fn an_operation_of_openapi_3_may_be_relative_to_its_description() {
        let description = json!({
            "openapi": "3.0.0", "servers": [{ "url": "/api/{v}", "variables": { "v": { "default": "v3" } } }],
            "components": { "parameters": { "Id": { "name": "id", "in": "path", "required": true } } },
            "paths": { "/things/{id}": { "put": {
                "operationId": "put", "requestBody": {}, "parameters": [{ "$ref": "#/components/parameters/Id" }]
            } } }
        });
        let operation = Operation::find(&description, "put").unwrap();
        let request =
            |given: &Value| operation.request("http://h.test:8080/openapi.yaml", &parameters(given));
        let made = request(&json!({"id": "a/b", "size": 1})).unwrap();
        assert_eq!(made.uri, "http://h.test:8080/api/v3/things/a%2Fb");
        assert_eq!(made.body, Some(json!({"size": 1})));
        assert_eq!(request(&json!({"id": 1, "body": [1]})).unwrap().body, Some(json!([1])));
        assert!(request(&json!({"size": 1})).err().unwrap().contains("`id`"));
    }

    #[test]
    fn parameters_that_do_not_exist_are_refused() {
        let description = json!({"openapi": "3.0.0", "paths": {"/": {"get": {"operationId": "get"}}}});
        let operation = Operation::find(&description, "get").unwrap();
        assert!(
            operation.request("http://h.test/", &parameters(&json!({"x": 1}))).err().unwrap().contains("`x`")
        );
        assert!(Operation::find(&description, "none").is_none());
    }
}
