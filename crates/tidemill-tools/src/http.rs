//! `http.request`: one HTTP call, guarded, bounded and aborted when its future is dropped.

mod chunked;
mod connect;
mod exchange;
mod guard;
mod head;
mod limits;
mod pool;
mod reader;
mod request;
mod response;
mod settings;

use std::sync::Arc;
use std::time::Duration;

use http::header::{self, HeaderMap, HeaderName};
use http::{Method, StatusCode};
use tidemill_tool::{Call, Context, ErrorClass, Feedback, Payload, Tool, ToolError, ToolFuture};

pub use connect::{Resolve, Resolved, SystemResolver};
pub use settings::Settings;

use crate::input::{self, Fixed, Prepared};
use crate::secret;
use connect::Connector;
use exchange::{Hop, Transport};
use guard::Guard;
use pool::Pool;
use reader::Answer;
use request::{Input, Plan};

/// What all tools made from `http.request` share: settings, guard and connections.
#[derive(Clone)]
pub struct Client {
    settings: Arc<Settings>,
    guard: Arc<Guard>,
    transport: Arc<Transport>,
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client").field("settings", &self.settings).finish_non_exhaustive()
    }
}

impl Client {
    /// A client with the resolver of the operating system.
    ///
    /// # Errors
    /// A setting cannot be used; the sentence names it.
    pub fn new(settings: Settings) -> Result<Self, String> {
        Self::with_resolver(settings, Arc::new(SystemResolver))
    }

    /// A client with a resolver of the caller's.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn with_resolver(settings: Settings, resolver: Arc<dyn Resolve>) -> Result<Self, String> {
        if settings.connect_timeout_ms == 0 {
            return Err("connect_timeout_ms: 0 lets no connection be made; give at least 1".to_owned());
        }
        header::HeaderValue::from_str(&settings.user_agent)
            .map_err(|_| "user_agent: it holds a control character".to_owned())?;
        let pool = Pool::new(Duration::from_millis(settings.idle_timeout_ms), settings.max_idle_per_origin);
        let connector = Connector::new(&settings, resolver)?;
        let guard = Arc::new(Guard::new(&settings)?);
        Ok(Self { settings: Arc::new(settings), guard, transport: Arc::new(Transport { connector, pool }) })
    }
}

/// The tool `http.request`, or a named tool made from it.
#[derive(Debug, Clone)]
pub struct HttpRequest {
    name: Arc<str>,
    client: Client,
    fixed: Option<Fixed>,
}

impl HttpRequest {
    /// The tool without anything fixed.
    #[must_use]
    pub fn new(client: Client) -> Self {
        Self { name: Arc::from("http.request"), client, fixed: None }
    }

    /// A named tool. Its own URL may be called even when it is private: the operator chose it.
    ///
    /// # Errors
    /// What is fixed does not fit, or holds a secret without a URL to which alone it may go.
    pub(crate) fn named(name: Arc<str>, mut client: Client, fixed: Fixed) -> Result<Self, String> {
        let sample = fixed.sample().to_string();
        let shape: Input<'_> = serde_json::from_str(&sample).map_err(|error| error.to_string())?;
        match fixed.get("url") {
            None if fixed.has_secrets() => {
                return Err("`with` holds a secret but no `url`, so that a call could send it anywhere; fix the `url`".to_owned());
            }
            None => {}
            Some(serde_json::Value::String(text)) => {
                let url = request::parse_url(text).map_err(|error| error.message)?;
                client.guard = Arc::new(client.guard.with_origin(&url));
                if !text.contains('{') {
                    shape.plan(&client.settings, &Context::default()).map_err(|error| error.message)?;
                }
            }
            Some(_) => {
                return Err(
                    "`url` must be a string; a secret may stand inside it as secret://env/NAME".to_owned()
                );
            }
        }
        Ok(Self { name, client, fixed: Some(fixed) })
    }

    async fn run(self: Arc<Self>, call: Call) -> Result<Payload, ToolError> {
        let Prepared { json, secrets } = input::prepare(&self.name, self.fixed.as_ref(), call.input)?;
        let plan = input::read::<Input<'_>>(&self.name, &json)
            .and_then(|input| input.plan(&self.client.settings, &call.context));
        let feedback = call.context.feedback.clone();
        // Not kept while the call waits.
        drop((json, call.context));
        let result = match plan {
            Ok(mut plan) => self.follow(&mut plan, &feedback).await,
            Err(error) => Err(error),
        };
        if secrets.is_empty() {
            return result;
        }
        match result {
            Ok(output) => Ok(secret::redact_payload(output, &secrets)),
            Err(error) => Err(secret::redact_error(error, &secrets)),
        }
    }

    /// Sends the request and whatever a redirect asks for, each hop checked like the first.
    async fn follow(&self, plan: &mut Plan, feedback: &Feedback) -> Result<Payload, ToolError> {
        let mut redirects = 0;
        let mut is_at_home = true;
        loop {
            let answer = self.send(plan, feedback.has_listener()).await?;
            // The limits of another host, to which a redirect led, are not those of the service that was called.
            if is_at_home {
                limits::hear(&answer.head, feedback);
            }
            let Some(next) = redirect_target(plan, &answer) else {
                return finish(plan, &answer);
            };
            if redirects == plan.max_redirects {
                return Err(ToolError::new(
                    ErrorClass::Client,
                    "too_many_redirects",
                    format!("{} redirects further after {redirects} redirects", connect::origin(&plan.url)),
                ));
            }
            redirects += 1;
            is_at_home &= self.redirect(plan, answer.head.status, &next)?;
        }
    }

    async fn send(&self, plan: &Plan, is_counted: bool) -> Result<Answer, ToolError> {
        let host = plan.url.host_str().unwrap_or_default();
        self.client.guard.check_host(host, plan.url.port_or_known_default().unwrap_or_default())?;
        let hop = Hop {
            method: &plan.method,
            url: &plan.url,
            headers: &plan.headers,
            body: &plan.body,
            limit: plan.max_response_bytes,
            is_counted,
        };
        exchange::exchange(&self.client.transport, &self.client.guard, &hop).await
    }

    /// Changes the plan into the request that the redirect asks for; says whether it goes to the same origin.
    fn redirect(&self, plan: &mut Plan, status: StatusCode, location: &str) -> Result<bool, ToolError> {
        let from = connect::origin(&plan.url).to_owned();
        let next = plan
            .url
            .join(location)
            .map_err(|error| error.to_string())
            .and_then(|url| request::parse_url(url.as_str()).map_err(|error| error.message))
            .map_err(|why| refused_redirect(&from, &why))?;
        if plan.url.scheme() == "https" && next.scheme() == "http" {
            return Err(refused_redirect(&from, "it leads from https to http"));
        }
        let stays = connect::origin(&next) == from;
        if !stays {
            drop_credentials(&mut plan.headers, self.fixed.as_ref());
            if self.fixed.as_ref().is_some_and(Fixed::has_secrets)
                && keeps_body(status, &plan.method)
                && !plan.body.is_empty()
            {
                return Err(refused_redirect(
                    &from,
                    "the body of a tool with secrets may not go to another host",
                ));
            }
        }
        if !keeps_body(status, &plan.method) {
            plan.method = if plan.method == Method::HEAD { Method::HEAD } else { Method::GET };
            plan.body = bytes::Bytes::new();
            for name in [header::CONTENT_TYPE, header::CONTENT_ENCODING, header::CONTENT_LANGUAGE] {
                plan.headers.remove(name);
            }
        }
        plan.url = next;
        Ok(stays)
    }
}

impl Tool for HttpRequest {
    fn kind(&self) -> &'static str {
        "http"
    }

    fn input_schema(&self) -> serde_json::Value {
        crate::schema::for_caller(request::schema(&self.client.settings), self.fixed.as_ref())
    }

    fn call(self: Arc<Self>, call: Call) -> ToolFuture {
        Box::pin(self.run(call))
    }
}

fn refused_redirect(origin: &str, why: &str) -> ToolError {
    ToolError::new(
        ErrorClass::Forbidden,
        "redirect_refused",
        format!("a redirect of {origin} is not followed: {why}"),
    )
}

fn finish(plan: &Plan, answer: &Answer) -> Result<Payload, ToolError> {
    if plan.expects(answer.head.status) {
        response::output(answer, plan.response, &plan.method)
    } else {
        Err(response::status_error(answer, &plan.method, &plan.url))
    }
}

/// Where a redirect leads, if the response is one and the caller does not want to see just that status.
fn redirect_target(plan: &Plan, answer: &Answer) -> Option<String> {
    let is_redirect = matches!(answer.head.status.as_u16(), 301 | 302 | 303 | 307 | 308);
    if !is_redirect || plan.expects(answer.head.status) {
        return None;
    }
    answer.head.get("location").map(str::to_owned)
}

/// Whether the request is repeated as it is: 307 and 308, and whatever had no body to lose.
fn keeps_body(status: StatusCode, method: &Method) -> bool {
    match status.as_u16() {
        307 | 308 => true,
        303 => false,
        _ => *method != Method::POST,
    }
}

/// Takes away whatever says who the caller is: another host has no right to it.
fn drop_credentials(headers: &mut HeaderMap, fixed: Option<&Fixed>) {
    for name in [header::AUTHORIZATION, header::COOKIE, header::PROXY_AUTHORIZATION] {
        headers.remove(name);
    }
    for name in ["x-api-key", "api-key", "x-auth-token", "idempotency-key"] {
        headers.remove(name);
    }
    let Some(fixed) = fixed.and_then(|fixed| fixed.get("headers")).and_then(serde_json::Value::as_object)
    else {
        return;
    };
    for name in fixed.keys() {
        if let Ok(name) = HeaderName::from_bytes(name.as_bytes()) {
            headers.remove(name);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_waiting_call_takes_little_memory() -> Result<(), String> {
        let tool = Arc::new(HttpRequest::new(Client::new(Settings::default())?));
        let call = Call { input: Payload::json("{}"), context: Context::default() };
        let bytes = size_of_val(&tool.run(call));
        assert!(bytes <= 2_048, "the future of a call has {bytes} bytes");
        Ok(())
    }
}
