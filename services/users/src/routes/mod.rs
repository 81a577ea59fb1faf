//! The HTTP interface.

mod changes;
mod reads;
mod register;
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
    info(title = "users", description = "People who place orders."),
    components(schemas(ProblemBody<'_>, wire::User)),
    tags((name = "users"), (name = "events"), (name = "operations"))
)]
struct Document;

/// The router of the service.
pub fn router(app: App) -> Router {
    let routes = OpenApiRouter::with_openapi(Document::openapi())
        .routes(routes!(register::post_user, reads::list_users))
        .routes(routes!(reads::get_user, changes::patch_user, changes::delete_user))
        .routes(routes!(changes::reactivate_user))
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
        remotes: app.open_orders.remotes(),
    }
}
