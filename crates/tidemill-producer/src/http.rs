//! The HTTP door: one route per file's subject, every error a problem document (RFC 9457) with a stable code.
//!
//! The OpenAPI document at `/openapi.json` is made from the same handlers that serve the routes.

mod answer;
mod batch;
mod body;
mod bulk;
mod clients;
mod events;
mod history;
mod jobs;
mod listener;
mod mode;
mod openapi;
mod operate;
mod pause;
mod pool;
mod query;
mod results;
mod runs;
mod search;
mod services;
mod submit;
mod versions;
mod workflows;

use std::fmt;
use std::sync::Arc;

use axum::Router;
use axum::middleware;
use axum::routing::get;
use tidemill_store::Store;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::intake::Intake;
use crate::workflows::Workflows;

pub use listener::{Listener, serve};

/// What the handlers share. A cheap handle.
#[derive(Clone)]
pub struct Door {
    inner: Arc<Inner>,
}

struct Inner {
    intake: Intake,
    ending: CancellationToken,
    batches: Semaphore,
    liveness: pool::Liveness,
    clients: clients::Clients,
    openapi: String,
}

impl fmt::Debug for Door {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Door").field("intake", &self.inner.intake).finish_non_exhaustive()
    }
}

impl Door {
    fn intake(&self) -> &Intake {
        &self.inner.intake
    }

    fn store(&self) -> &Store {
        self.inner.intake.store()
    }

    fn workflows(&self) -> &Workflows {
        self.inner.intake.workflows()
    }

    fn ending(&self) -> &CancellationToken {
        &self.inner.ending
    }
}

fn routes() -> OpenApiRouter<Door> {
    OpenApiRouter::with_openapi(openapi::base())
        .routes(routes!(submit::post_jobs))
        .routes(routes!(submit::post_runs, search::list))
        .routes(routes!(jobs::status))
        .routes(routes!(jobs::why))
        .routes(routes!(jobs::cancel))
        .routes(routes!(runs::show))
        .routes(routes!(search::list_groups))
        .routes(routes!(search::show_group))
        .routes(routes!(runs::why))
        .routes(routes!(runs::step))
        .routes(routes!(runs::audit))
        .routes(routes!(history::show))
        .routes(routes!(runs::cancel))
        .routes(routes!(operate::signal))
        .routes(routes!(operate::decide))
        .routes(routes!(operate::questions))
        .routes(routes!(operate::retry))
        .routes(routes!(operate::rerun))
        .routes(routes!(operate::skip))
        .routes(routes!(operate::operations))
        .routes(routes!(pause::pause_run))
        .routes(routes!(pause::resume_run))
        .routes(routes!(pause::pause_workflow))
        .routes(routes!(pause::resume_workflow))
        .routes(routes!(pause::pause_queue))
        .routes(routes!(pause::resume_queue))
        .routes(routes!(pause::show))
        .routes(routes!(bulk::bulk))
        .routes(routes!(events::follow))
        .routes(routes!(results::result))
        .routes(routes!(pool::queues))
        .routes(routes!(pool::workers))
        .routes(routes!(pool::dead))
        .routes(routes!(services::list))
        .routes(routes!(services::changes))
        .routes(routes!(services::show, services::set, services::remove))
        .routes(routes!(services::act))
        .routes(routes!(workflows::publish, workflows::list))
        .routes(routes!(workflows::show))
        .routes(routes!(workflows::validate))
        .routes(routes!(versions::list))
        .routes(routes!(versions::changes))
        .routes(routes!(versions::diff))
        .routes(routes!(versions::act))
        .routes(routes!(mode::show, mode::switch))
        .routes(routes!(mode::roll_back))
        .routes(routes!(mode::history))
        .routes(routes!(mode::metrics))
        .routes(routes!(openapi::document))
}

/// The OpenAPI document as JSON text.
#[must_use]
pub fn openapi_json() -> String {
    openapi::text(&routes().into_openapi())
}

/// The producer's routes. Answers that wait end when `ending` is cancelled.
pub fn router(intake: Intake, ending: CancellationToken) -> Router {
    let (router, document) = routes().split_for_parts();
    let door = Door {
        inner: Arc::new(Inner {
            batches: Semaphore::new(intake.settings().max_batches_at_once),
            liveness: pool::Liveness::default(),
            clients: clients::Clients::new(intake.settings().rate_limit.as_ref()),
            openapi: openapi::text(&document),
            intake,
            ending,
        }),
    };
    // a path that has no handler for a method is asked for by GET somewhere: the fallback tells the method apart
    router
        .route("/", get(answer::front_page))
        .method_not_allowed_fallback(answer::method_not_allowed)
        .fallback(answer::unknown_path)
        .layer(middleware::from_fn_with_state(door.clone(), clients::bound))
        .layer(middleware::from_fn_with_state(door.clone(), answer::finish))
        .with_state(door)
}
