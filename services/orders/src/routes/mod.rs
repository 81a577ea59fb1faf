//! The HTTP interface.

mod history;
mod idempotency;
mod place;
mod reads;
mod steps;
mod wire;

use std::sync::Arc;

use axum::Router;
use chassis::http::operations::{self, Operations};
use chassis::http::problem::ProblemBody;
use shared_db::check_schema;
use utoipa::OpenApi;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::App;
use crate::error::Error;

#[derive(OpenApi)]
#[openapi(
    info(title = "orders", description = "What people buy, from placing an order to its delivery."),
    components(schemas(ProblemBody<'_>, wire::Order)),
    tags((name = "orders"), (name = "events"), (name = "operations"))
)]
struct Document;

/// The router of the service.
pub fn router(app: App) -> Router {
    let routes = OpenApiRouter::with_openapi(Document::openapi())
        .routes(routes!(place::post_order, reads::list_orders))
        .routes(routes!(reads::get_order))
        .routes(routes!(steps::pay))
        .routes(routes!(steps::ship))
        .routes(routes!(steps::deliver))
        .routes(routes!(steps::cancel))
        .routes(routes!(reads::get_open_orders))
        .merge(chassis::events::routes(app.clone()))
        .merge(operations::routes(operations(&app)));
    chassis::http::router::complete(routes, app)
}

fn operations(app: &App) -> Operations {
    let (checked, measured) = (app.database.clone(), app.database.clone());
    Operations {
        ready: Arc::new(move || {
            let database = checked.clone();
            Box::pin(async move { check_schema(&database).await.map_err(|error| Error::from(error).into()) })
        }),
        gauges: Arc::new(move || measured.record_gauges()),
        remotes: app.customers.remotes(),
    }
}
