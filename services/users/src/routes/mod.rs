//! The HTTP interface.

mod changes;
mod reads;
mod register;
mod wire;

use std::sync::Arc;

use axum::Router;
use chassis::auth::{Access, Needs};
use chassis::http::operations::{self, Operations};
use chassis::http::problem::ProblemBody;
use chassis::http::router::{complete, complete_apart};
use chassis::telemetry::LogLevel;
use utoipa::OpenApi;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::App;

#[derive(OpenApi)]
#[openapi(
    info(title = "users", description = "People who place orders."),
    components(schemas(ProblemBody<'_>, wire::User)),
    tags(
        (name = "users", description = "People who place orders."),
        (name = "events", description = "What happened to users, as CloudEvents."),
        (name = "operations", description = "For operators and their tools.")
    )
)]
struct Document;

/// To read users.
pub(crate) const READ: &str = "users:read";
const WRITE: &str = "users:write";

/// What each route asks of its callers.
pub const ACCESS: &[Access] = &[
    Access::new("GET", "/users", Needs::Own(READ)),
    Access::new("POST", "/users", Needs::New(WRITE)),
    Access::new("GET", "/users/{id}", Needs::OwnId(READ)),
    Access::new("PATCH", "/users/{id}", Needs::OwnId(WRITE)),
    Access::new("DELETE", "/users/{id}", Needs::OwnId(WRITE)),
    Access::new("POST", "/users/{id}/reactivate", Needs::OwnId(WRITE)),
    Access::new("GET", "/users/{id}/events", Needs::OwnId(READ)),
    Access::new("GET", "/events", Needs::Scope("events:read")),
];

/// The router of the service.
pub fn router(app: App) -> Router {
    let metrics = operations::metrics(operations(&app));
    let router = complete(routes(&app).merge(metrics), ACCESS, app.auth.clone(), app);
    shared_db::describe_metrics();
    router
}

/// The routers of the service's clients, and of its operators.
pub fn routers(app: App, level: LogLevel) -> (Router, Router) {
    let metrics = operations::metrics(operations(&app));
    let routers = complete_apart(routes(&app), metrics, level, ACCESS, app.auth.clone(), app);
    shared_db::describe_metrics();
    routers
}

fn routes(app: &App) -> OpenApiRouter<App> {
    OpenApiRouter::with_openapi(Document::openapi())
        .routes(routes!(register::post_user, reads::list_users))
        .routes(routes!(reads::get_user, changes::patch_user, changes::delete_user))
        .routes(routes!(changes::reactivate_user))
        .merge(chassis::events::routes(app.clone()))
        .merge(operations::health(operations(app)))
}

fn operations(app: &App) -> Operations {
    let measured = app.database.clone();
    Operations {
        health: app.health.clone(),
        gauges: Arc::new(move || measured.record_gauges()),
        remotes: app.open_orders.remotes(),
    }
}
