//! The HTTP interface.

mod history;
mod idempotency;
mod place;
mod reads;
mod steps;
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
    info(title = "orders", description = "What people buy, from placing an order to its delivery."),
    components(schemas(ProblemBody<'_>, wire::Order)),
    tags(
        (name = "orders", description = "What people buy."),
        (name = "events", description = "What happened to orders, as CloudEvents."),
        (name = "operations", description = "For operators and their tools.")
    )
)]
struct Document;

const READ: &str = "orders:read";
const WRITE: &str = "orders:write";

/// What each route asks of its callers.
pub const ACCESS: &[Access] = &[
    Access::new("GET", "/orders", Needs::Own(READ)),
    Access::new("POST", "/orders", Needs::Own(WRITE)),
    Access::new("GET", "/orders/{id}", Needs::Own(READ)),
    Access::new("POST", "/orders/{id}/pay", Needs::Own(WRITE)),
    Access::new("POST", "/orders/{id}/ship", Needs::Own(WRITE)),
    Access::new("POST", "/orders/{id}/deliver", Needs::Own(WRITE)),
    Access::new("POST", "/orders/{id}/cancel", Needs::Own(WRITE)),
    Access::new("GET", "/orders/{id}/events", Needs::Own(READ)),
    Access::new("GET", "/open-orders", Needs::Own(READ)),
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
        .routes(routes!(place::post_order, reads::list_orders))
        .routes(routes!(reads::get_order))
        .routes(routes!(steps::pay))
        .routes(routes!(steps::ship))
        .routes(routes!(steps::deliver))
        .routes(routes!(steps::cancel))
        .routes(routes!(reads::get_open_orders))
        .merge(chassis::events::routes(app.clone()))
        .merge(operations::health(operations(app)))
}

fn operations(app: &App) -> Operations {
    let measured = app.database.clone();
    Operations {
        health: app.health.clone(),
        gauges: Arc::new(move || measured.record_gauges()),
        remotes: app.customers.remotes(),
    }
}
