//! The HTTP interface: its router, and what its handlers share.

mod events;
mod history;
mod idempotency;
mod place;
mod reads;
mod steps;
mod wire;

use std::sync::Arc;

use axum::Router;
use chassis::http::operations::{self, Operations};
use chassis::http::problem::{Problem, ProblemBody};
use shared_db::{Side, check_schema};
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
        .routes(routes!(events::get_history))
        .routes(routes!(events::get_feed))
        .merge(operations::routes(operations(&app)));
    chassis::http::router::complete(routes, app)
}

fn operations(app: &App) -> Operations {
    let (readiness, gauges) = (app.database.clone(), app.database.clone());
    Operations {
        ready: Arc::new(move || {
            let database = readiness.clone();
            Box::pin(async move { check_schema(&database).await.map_err(|error| Problem::from(Error::from(error))) })
        }),
        gauges: Arc::new(move || {
            let pool = gauges.pool_status();
            metrics::gauge!("db_pool_connections", "state" => "idle").set(pool.idle as f64);
            metrics::gauge!("db_pool_connections", "state" => "used").set((pool.open - pool.idle.min(pool.open)) as f64);
            metrics::gauge!("db_pool_waiting").set(pool.waiting as f64);
            if let Some(switch) = gauges.known_switch() {
                metrics::gauge!("db_switch_generation").set(switch.generation as f64);
                metrics::gauge!("db_on_target").set(f64::from(u8::from(switch.side == Side::Target)));
            }
        }),
        remotes: app.customers.remotes(),
    }
}
