//! Services: shown, set, paused, isolated.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use axum::Json;
use axum::extract::{FromRequestParts, Path, Request, State};
use axum::http::request::Parts;
use serde::{Deserialize, Serialize};
use tidemill_policy::service::Definition;
use tidemill_store::{Author, Control, ServiceChange};
use tidemill_workflow::ToolCatalog;
use utoipa::{IntoParams, ToSchema};

use super::Door;
use super::answer::ProblemView;
use super::body::{self, BodyType};
use super::clients::Peer;
use super::query::Asked;
use crate::refusal::{Code, Refusal};
use crate::services::{self, Changed, Moved, ServiceView};
use crate::workflows::KnownTools;

/// Changes told at once, unless asked otherwise, and at most.
const CHANGES: (usize, usize) = (100, 1_000);

/// Who asks, as the audit names it.
pub(super) struct Asker(String);

impl FromRequestParts<Door> for Asker {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, door: &Door) -> Result<Self, Refusal> {
        let peer = parts.extensions.get::<Peer>().copied();
        let client = peer.map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |peer| {
            door.inner.clients.address(peer, &parts.headers)
        });
        Ok(Self(format!("http:{client}")))
    }
}

impl Asker {
    pub(super) fn who(&self) -> &str {
        &self.0
    }

    fn author<'a>(&'a self, why: Option<&'a str>) -> Author<'a> {
        Author { who: &self.0, why: why.unwrap_or("over HTTP"), is_file: false }
    }
}

/// Every service.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ServicesView {
    /// By name, each with its own tier alone.
    services: Vec<ServiceView>,
}

/// What to show of a service.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(default, deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct ShowQuery {
    /// A tier to show besides, such as `openai/tenant:acme`.
    tier: Option<String>,
}

/// Why something is changed.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(default, deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct WhyQuery {
    /// Why, for the audit.
    why: Option<String>,
}

/// Which changes are asked for.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(default, deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct ChangesQuery {
    /// Of this service and its tiers alone.
    service: Option<String>,
    /// The `next` of an earlier answer.
    before: Option<String>,
    /// At most so many (default 100, at most 1,000).
    limit: Option<usize>,
}

/// What happened to services.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ChangesView {
    /// The newest first.
    changes: Vec<ChangeView>,
    /// For the next page: the parameter `before`.
    next: Option<String>,
}

/// Something that happened to a service.
#[derive(Debug, Serialize, ToSchema)]
struct ChangeView {
    /// `set`, `remove`, `pause`, `resume`, `isolate`, `disable`, `close`, `reset` or `breaker`.
    kind: String,
    /// The service or tier.
    service: String,
    /// What was before: a state, or the definition.
    from: String,
    /// What is since.
    to: String,
    /// Why.
    why: String,
    /// Who did it.
    by: String,
    /// When, in Unix milliseconds.
    at_ms: u64,
}

impl From<ServiceChange> for ChangeView {
    fn from(change: ServiceChange) -> Self {
        let ServiceChange { entry: _, kind, service, from, to, why, by, at_ms } = change;
        Self { kind, service, from, to, why, by, at_ms }
    }
}

/// What is done to a service, and why.
#[derive(Debug, Default, Deserialize, Serialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct ActRequest {
    /// Why, for the audit.
    why: Option<String>,
    /// `pause` alone: for so long, in milliseconds.
    for_ms: Option<u64>,
    /// `pause` alone: until then, in Unix milliseconds. With neither it lasts until `resume`.
    until_ms: Option<u64>,
}

/// Lists the services and the pool's own scopes.
#[utoipa::path(get, path = "/v1/services", tag = "services", operation_id = "list_services",
    responses((status = 200, description = "The services", body = ServicesView),
        (status = "default", description = "A problem", body = ProblemView, content_type = "application/problem+json")))]
pub(super) async fn list(State(door): State<Door>) -> Result<Json<ServicesView>, Refusal> {
    Ok(Json(ServicesView { services: services::list(door.store()).await? }))
}

/// A service: its definition, what is used of its limits, its breaker, its lines, what its calls are known to use.
#[utoipa::path(get, path = "/v1/services/{name}", tag = "services", operation_id = "get_service",
    params(("name" = String, Path, description = "The service"), ShowQuery),
    responses((status = 200, description = "The service", body = ServiceView),
        (status = "default", description = "A problem", body = ProblemView, content_type = "application/problem+json")))]
pub(super) async fn show(
    State(door): State<Door>,
    Path(name): Path<String>,
    Asked(query): Asked<ShowQuery>,
) -> Result<Json<ServiceView>, Refusal> {
    let also: Vec<String> = query.tier.into_iter().collect();
    match services::show(door.store(), &name, &also).await? {
        Some(view) => Ok(Json(view)),
        // tells which is the nearest
        None => match services::definition(door.store(), &name).await {
            Err(refusal) => Err(refusal),
            Ok(_) => {
                Err(Refusal::new(Code::UnknownService, format!("{name:?} was defined just now; ask again")))
            }
        },
    }
}

/// Sets a service's definition as a whole; every worker follows within a second.
///
/// A tool that nobody has is a warning, for its workers may come later.
#[utoipa::path(put, path = "/v1/services/{name}", tag = "services", operation_id = "set_service",
    params(("name" = String, Path, description = "The service"), WhyQuery), request_body(content((Object = "application/json"))),
    responses((status = 200, description = "It is in force", body = Changed),
        (status = "default", description = "A problem", body = ProblemView, content_type = "application/problem+json")))]
pub(super) async fn set(
    State(door): State<Door>,
    Path(name): Path<String>,
    Asked(query): Asked<WhyQuery>,
    asker: Asker,
    request: Request,
) -> Result<Json<Changed>, Refusal> {
    let settings = door.intake().settings();
    body::type_of(request.headers(), &[BodyType::Json])?;
    let within = Duration::from_millis(settings.body_timeout_ms);
    let body = body::read(request, settings.max_body_bytes, within).await?;
    let definition = Definition::from_json(body::text(&body)?)
        .map_err(|error| Refusal::new(Code::InvalidService, error.to_string()))?;
    let tools = KnownTools::new(door.store().home().tools().await?).names();
    let author = asker.author(query.why.as_deref());
    let changed = services::set(door.store(), author, &name, &definition, &tools).await?;
    door.intake().services_changed();
    Ok(Json(changed))
}

/// Removes a service's definition: its tools have no limits of their own any more.
#[utoipa::path(delete, path = "/v1/services/{name}", tag = "services", operation_id = "remove_service",
    params(("name" = String, Path, description = "The service"), WhyQuery),
    responses((status = 200, description = "It is removed", body = Changed),
        (status = "default", description = "A problem", body = ProblemView, content_type = "application/problem+json")))]
pub(super) async fn remove(
    State(door): State<Door>,
    Path(name): Path<String>,
    Asked(query): Asked<WhyQuery>,
    asker: Asker,
) -> Result<Json<Changed>, Refusal> {
    let changed = services::remove(door.store(), asker.author(query.why.as_deref()), &name).await?;
    door.intake().services_changed();
    Ok(Json(changed))
}

/// Does something to a service or to one of its tiers (percent-encoded: `openai%2Ftenant:acme`).
///
/// `pause`: nothing is granted until then; `resume` takes back a pause, an isolation or a disabling; `isolate`: the breaker is held
/// open; `disable`: it lets everything pass; `close`: it closes; `reset` forgets use, breaker, budget and counters.
#[utoipa::path(post, path = "/v1/services/{name}/{action}", tag = "services", operation_id = "act_on_service",
    params(("name" = String, Path, description = "The service or tier"),
        ("action" = String, Path, description = "`pause`, `resume`, `isolate`, `disable`, `close` or `reset`")),
    request_body(content = Option<ActRequest>),
    responses((status = 200, description = "It is done", body = Moved),
        (status = "default", description = "A problem", body = ProblemView, content_type = "application/problem+json")))]
pub(super) async fn act(
    State(door): State<Door>,
    Path((name, action)): Path<(String, String)>,
    asker: Asker,
    request: Request,
) -> Result<Json<Moved>, Refusal> {
    let settings = door.intake().settings();
    let within = Duration::from_millis(settings.body_timeout_ms);
    let body = body::read(request, settings.max_body_bytes, within).await?;
    let asked: ActRequest = if body.trim_ascii().is_empty() {
        ActRequest::default()
    } else {
        serde_json::from_slice(&body).map_err(|error| {
            let code = if error.is_data() { Code::InvalidRequest } else { Code::InvalidJson };
            Refusal::new(code, format!("expected {{\"why\": \"…\"}} or nothing: {error}"))
        })?
    };
    let control = control_of(&door, &action, &asked).await?;
    let author = asker.author(asked.why.as_deref());
    let moved = services::control(door.store(), author, &name, control).await?;
    door.intake().services_changed();
    Ok(Json(moved))
}

async fn control_of(door: &Door, action: &str, asked: &ActRequest) -> Result<Control, Refusal> {
    let control = match action {
        "pause" => return pause(door, asked).await,
        "resume" => Control::Resume,
        "isolate" => Control::Isolate,
        "disable" => Control::Disable,
        "close" => Control::Close,
        "reset" => Control::Reset,
        unknown => {
            let known = "pause, resume, isolate, disable, close, reset";
            let detail = format!("a service knows no action {unknown:?}; there are {known}");
            return Err(Refusal::new(Code::InvalidRequest, detail));
        }
    };
    if asked.for_ms.is_some() || asked.until_ms.is_some() {
        let detail =
            format!("\"for_ms\" and \"until_ms\" are for `pause` alone; {action} has no end of its own");
        return Err(Refusal::new(Code::InvalidRequest, detail));
    }
    Ok(control)
}

async fn pause(door: &Door, asked: &ActRequest) -> Result<Control, Refusal> {
    let refused = |detail: &str| Refusal::new(Code::InvalidMember, detail);
    let until_ms = match (asked.for_ms, asked.until_ms) {
        (None, None) => return Ok(Control::Pause(None)),
        (Some(_), Some(_)) => return Err(refused("give \"for_ms\" or \"until_ms\", not both")),
        (Some(0), None) => return Err(refused("\"for_ms\" must be at least 1")),
        (Some(for_ms), None) => door.store().home().now_ms().await?.saturating_add(for_ms),
        (None, Some(until_ms)) if until_ms <= door.store().home().now_ms().await? => {
            return Err(refused("\"until_ms\" has passed by Redis's clock"));
        }
        (None, Some(until_ms)) => until_ms,
    };
    Ok(Control::Pause(Some(until_ms)))
}

/// What happened to services: who changed what and why, and each move of a breaker; the newest first.
#[utoipa::path(get, path = "/v1/services/changes", tag = "services", operation_id = "list_service_changes",
    params(ChangesQuery),
    responses((status = 200, description = "The changes", body = ChangesView),
        (status = "default", description = "A problem", body = ProblemView, content_type = "application/problem+json")))]
pub(super) async fn changes(
    State(door): State<Door>,
    Asked(query): Asked<ChangesQuery>,
) -> Result<Json<ChangesView>, Refusal> {
    let limit = query.limit.unwrap_or(CHANGES.0).clamp(1, CHANGES.1);
    let before = query.before.map(tidemill_protocol::EntryId::parse).transpose();
    let before = before.map_err(|_| {
        Refusal::new(Code::InvalidQuery, "\"before\" is not the \"next\" of an earlier answer")
    })?;
    let before = before.as_ref().map(tidemill_protocol::EntryId::as_str);
    let (changes, next) = services::history(door.store(), query.service.as_deref(), before, limit).await?;
    Ok(Json(ChangesView { changes: changes.into_iter().map(ChangeView::from).collect(), next }))
}
