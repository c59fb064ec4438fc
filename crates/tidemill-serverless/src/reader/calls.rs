//! `call`: HTTP, OpenAPI, functions of the document, tools of the pool.

use serde_json::{Map, Value};
use tidemill_workflow::source::{Kind, Node};
use tidemill_workflow::{ProblemCode, Schema, nearest};

use super::TASK_VARIABLES;
use super::fields::{Fields, Reader};
use crate::document::{Action, Authentication, Endpoint, HttpCall, OpenApiCall, Output};
use crate::dynamic::Dynamic;
use crate::uri;

const HTTP: &[&str] = &["method", "endpoint", "headers", "query", "body", "output", "redirect"];
const OPENAPI: &[&str] = &["document", "operationId", "parameters", "authentication", "output", "redirect"];

/// The tool behind `call: http` and `call: openapi`.
pub(super) const HTTP_TOOL: &str = "http.request";

pub(super) fn call(reader: &mut Reader<'_>, name: &str, fields: &Fields<'_>) -> Option<Action> {
    let called = reader.required(fields, "call", Reader::text)?;
    match called.as_str() {
        "http" => http(reader, name, fields),
        "openapi" => openapi(reader, name, fields),
        "grpc" | "asyncapi" | "a2a" | "mcp" => {
            let message = format!("`{called}` is not supported; call a tool that speaks it instead");
            reader.inside("call", |reader| reader.problem(ProblemCode::NotSupported, message));
            None
        }
        _ => named(reader, name, &called, fields),
    }
}

/// A function of the document, or a tool of the pool.
fn named(reader: &mut Reader<'_>, name: &str, called: &str, fields: &Fields<'_>) -> Option<Action> {
    let with = reader.optional(fields, "with", |reader, node| {
        if !matches!(node.kind, Kind::Object(_)) {
            reader.bad_value(format!("must be an object, not {}", node.kind_name()));
        }
        reader.template(node, TASK_VARIABLES)
    });
    if let Some(task) = reader.functions.get(called) {
        return Some(Action::Function { task: *task, with });
    }
    if called.contains("://") || called.rsplit_once('@').is_some_and(|(_, at)| at.parse::<u32>().is_err()) {
        let message = format!(
            "`{called}` is a function of a catalog, which is not supported; copy it into `use.functions`"
        );
        reader.inside("call", |reader| reader.problem(ProblemCode::NotSupported, message));
        return None;
    }
    if !reader.catalog.knows(called) {
        let mut names = reader.catalog.names();
        names.extend(reader.functions.keys().cloned());
        names.extend(["http".to_owned(), "openapi".to_owned()]);
        let hint = nearest(called, names.iter().map(String::as_str))
            .map_or_else(String::new, |near| format!("; did you mean `{near}`?"));
        let message =
            format!("there is no function `{called}` in `use.functions` and no tool of this name{hint}");
        reader.inside("call", |reader| reader.problem(ProblemCode::UnknownTool, message));
        return None;
    }
    let with = with.unwrap_or_else(|| Dynamic::Constant(Map::new().into()));
    fits(reader, called, &with);
    Some(Action::Tool { block: reader.block(name), tool: called.to_owned(), with })
}

/// Checks an input without expressions against the schema of its tool.
fn fits(reader: &mut Reader<'_>, tool: &str, with: &Dynamic) {
    let schema = reader.catalog.input_schema(tool).and_then(|schema| Schema::compile(&schema).ok());
    let (Some(schema), Some(input)) = (schema, with.constant()) else { return };
    if let Err(violations) = schema.check(input) {
        let message = format!("does not fit the input of `{tool}`: {}", violations.join("; "));
        reader.inside("with", |reader| reader.problem(ProblemCode::BadToolInput, message));
    }
}

fn http(reader: &mut Reader<'_>, name: &str, fields: &Fields<'_>) -> Option<Action> {
    reader.needs_tool("call", HTTP_TOOL);
    reader.required(fields, "with", |reader, node| {
        let fields = reader.object(node, HTTP, &[])?;
        let method = reader.required(&fields, "method", method);
        let endpoint = reader.required(&fields, "endpoint", endpoint);
        let part = |reader: &mut Reader<'_>, node: &Node| match &node.kind {
            Kind::Object(_) | Kind::Scalar(Value::String(_)) => reader.template(node, TASK_VARIABLES),
            _ => {
                reader.bad_value(format!("must be an object or an expression, not {}", node.kind_name()));
                None
            }
        };
        let headers = reader.optional(&fields, "headers", part);
        let query = reader.optional(&fields, "query", part);
        let body = reader.optional(&fields, "body", |reader, node| reader.template(node, TASK_VARIABLES));
        let output = reader.optional(&fields, "output", output).unwrap_or_default();
        let redirect = reader.optional(&fields, "redirect", Reader::boolean).unwrap_or(false);
        let block = reader.block(name);
        let (method, endpoint) = (method?, endpoint?);
        Some(Action::Http(Box::new(HttpCall {
            block,
            method,
            endpoint,
            headers,
            query,
            body,
            output,
            redirect,
        })))
    })
}

fn openapi(reader: &mut Reader<'_>, name: &str, fields: &Fields<'_>) -> Option<Action> {
    reader.needs_tool("call", HTTP_TOOL);
    reader.required(fields, "with", |reader, node| {
        let fields = reader.object(node, OPENAPI, &[])?;
        let document = reader.required(&fields, "document", resource);
        let operation = reader
            .required(&fields, "operationId", |reader, node| reader.text_template(node, TASK_VARIABLES));
        let parameters = reader.optional(&fields, "parameters", |reader, node| {
            reader.any_object(node)?;
            reader.template(node, TASK_VARIABLES)
        });
        let authentication = reader.optional(&fields, "authentication", authentication);
        let output = reader.optional(&fields, "output", output).unwrap_or_default();
        let redirect = reader.optional(&fields, "redirect", Reader::boolean).unwrap_or(false);
        let block = reader.block(name);
        let (document, operation) = (document?, operation?);
        Some(Action::OpenApi(Box::new(OpenApiCall {
            block,
            document,
            operation,
            parameters,
            authentication,
            output,
            redirect,
        })))
    })
}

fn method(reader: &mut Reader<'_>, node: &Node) -> Option<Dynamic> {
    reader.text_template(node, TASK_VARIABLES)
}

fn output(reader: &mut Reader<'_>, node: &Node) -> Option<Output> {
    Some(match reader.word(node, &["raw", "content", "response"])? {
        "raw" => Output::Raw,
        "response" => Output::Response,
        _ => Output::Content,
    })
}

/// An external resource: the object that holds its endpoint.
fn resource(reader: &mut Reader<'_>, node: &Node) -> Option<Endpoint> {
    let fields = reader.object(node, &["name", "endpoint"], &[])?;
    reader.optional(&fields, "name", Reader::text);
    reader.required(&fields, "endpoint", endpoint)
}

/// A URI, or an object with one and what authenticates there.
fn endpoint(reader: &mut Reader<'_>, node: &Node) -> Option<Endpoint> {
    if matches!(node.kind, Kind::Scalar(_)) {
        return address(reader, node).map(|uri| Endpoint { uri, authentication: None });
    }
    let fields = reader.object(node, &["uri", "authentication"], &[])?;
    let authentication = reader.optional(&fields, "authentication", authentication);
    let uri = reader.required(&fields, "uri", address)?;
    Some(Endpoint { uri, authentication })
}

/// A URI template or an expression.
fn address(reader: &mut Reader<'_>, node: &Node) -> Option<Dynamic> {
    let compiled = reader.text_template(node, TASK_VARIABLES)?;
    if let Some(Value::String(text)) = compiled.constant() {
        if let Some(message) = uri::refusal(text) {
            reader.bad_value(message);
        } else if !text.starts_with("http://") && !text.starts_with("https://") {
            let message = format!("`{text}` is no http or https URI");
            reader.problem(ProblemCode::NotSupported, message);
        }
    }
    Some(compiled)
}

/// What authenticates, or the name of it in `use.authentications`.
pub(super) fn authentication(reader: &mut Reader<'_>, node: &Node) -> Option<Authentication> {
    const OTHERS: [&str; 4] = ["certificate", "digest", "oauth2", "oidc"];
    if let Kind::Scalar(Value::String(name)) = &node.kind {
        return reused(reader, name);
    }
    let fields =
        reader.object(node, &["use", "basic", "bearer", "certificate", "digest", "oauth2", "oidc"], &[])?;
    for other in OTHERS {
        reader.unsupported(&fields, other, "an operator can give the credentials to a named tool");
    }
    if OTHERS.iter().any(|other| fields.has(other)) {
        return None;
    }
    if fields.has("use") {
        let name = reader.optional(&fields, "use", Reader::text)?;
        return reader.inside("use", |reader| reused(reader, &name));
    }
    let text = |reader: &mut Reader<'_>, node: &Node| reader.text_template(node, TASK_VARIABLES);
    if fields.has("basic") {
        return reader.optional(&fields, "basic", |reader, node| {
            let fields = policy(reader, node, &["username", "password"])?;
            let username = reader.required(&fields, "username", text);
            let password = reader.required(&fields, "password", text);
            Some(Authentication::Basic { username: username?, password: password? })
        });
    }
    if fields.has("bearer") {
        return reader.optional(&fields, "bearer", |reader, node| {
            if matches!(node.kind, Kind::Scalar(_)) {
                return text(reader, node).map(|token| Authentication::Bearer { token });
            }
            let fields = policy(reader, node, &["token"])?;
            reader.required(&fields, "token", text).map(|token| Authentication::Bearer { token })
        });
    }
    reader.problem(ProblemCode::MissingMember, "must be one of use, basic and bearer".to_owned());
    None
}

/// The members of a policy; `use` would name a secret.
fn policy<'o>(reader: &mut Reader<'_>, node: &'o Node, members: &[&str]) -> Option<Fields<'o>> {
    let known: Vec<&str> = members.iter().copied().chain(["use"]).collect();
    let fields = reader.object(node, &known, &[])?;
    if fields.has("use") {
        reader.unsupported(&fields, "use", "let an operator give the secret to a named tool, and call that");
        return None;
    }
    Some(fields)
}

fn reused(reader: &mut Reader<'_>, name: &str) -> Option<Authentication> {
    let known = reader.authentications.get(name).cloned();
    if known.is_none() {
        reader.bad_value(format!("there is no authentication `{name}` in `use.authentications`"));
    }
    known
}
