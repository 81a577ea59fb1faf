//! Completes a service's router: OpenAPI document, API page, fallback, request layer.

use axum::Router;
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::map_response;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use bytes::Bytes;
use serde_json::Value;
use utoipa_axum::router::OpenApiRouter;
use utoipa_swagger_ui::{Config, SwaggerUi};

use crate::auth::{Access, Auth};
use crate::http::document::{complete_document, merge_descriptions};
use crate::http::meaning::Routes;
use crate::http::request::RequestLayer;
use crate::http::security::secure;
use crate::operators;
use crate::telemetry::LogLevel;

/// What the page of the API may load and be shown in: its own files alone, and no other page.
const PAGE_POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; frame-ancestors 'none'; base-uri 'none'",
);

/// The router of a service with these routes. `table` says what each asks of its callers, whom `auth` knows.
///
/// # Panics
/// If the table lacks a route.
pub fn complete<S: Clone + Send + Sync + 'static>(
    routes: OpenApiRouter<S>,
    table: &[Access],
    auth: Auth,
    state: S,
) -> Router {
    let (router, document, layer) = describe(routes, table, auth);
    finish(router.with_state(state).merge(documents(&document)), layer)
}

/// The routers of a service: for its clients, with these routes, and for its operators, with `metrics`, the documents and
/// the log level.
///
/// # Panics
/// If the table lacks a route.
pub fn complete_apart<S: Clone + Send + Sync + 'static>(
    routes: OpenApiRouter<S>,
    metrics: OpenApiRouter,
    level: LogLevel,
    table: &[Access],
    auth: Auth,
    state: S,
) -> (Router, Router) {
    let (router, document, layer) = describe(routes, table, auth);
    let (metrics, _) = metrics.split_for_parts();
    let operators = metrics.merge(documents(&document)).merge(operators::log_level(level));
    (finish(router.with_state(state), layer), finish(operators, RequestLayer::new(Routes::default(), Auth::off())))
}

/// The routes, their document, and the layer around them.
fn describe<S: Clone + Send + Sync + 'static>(
    routes: OpenApiRouter<S>,
    table: &[Access],
    auth: Auth,
) -> (Router<S>, Value, RequestLayer) {
    crate::metrics::recorder();
    let (router, document) = routes.split_for_parts();
    let mut document = serde_json::to_value(&document).expect("an OpenAPI document is JSON");
    merge_descriptions(&mut document);
    close_request_bodies(&mut document);
    secure(&mut document, table, &auth);
    complete_document(&mut document);
    let layer = RequestLayer::new(Routes::read(&document, table), auth);
    (router, document, layer)
}

/// The document, and the page that shows it. The page is in the binary and loads nothing from elsewhere.
fn documents(document: &Value) -> Router {
    let document = Bytes::from(document.to_string());
    let content_type = [(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))];
    let page = Router::new()
        .merge(SwaggerUi::new("/docs").config(Config::from("/openapi.json").validator_url("none")))
        .layer(map_response(async |mut page: Response| {
            page.headers_mut().insert(header::CONTENT_SECURITY_POLICY, PAGE_POLICY);
            page
        }));
    Router::new().route("/openapi.json", get(async move || (content_type, document))).merge(page)
}

fn finish(router: Router, layer: RequestLayer) -> Router {
    router.fallback(async || StatusCode::NOT_FOUND.into_response()).layer(layer)
}

/// Marks every schema of a request body as closed, because [`crate::http::body`] refuses unknown fields.
fn close_request_bodies(document: &mut Value) {
    let mut pending = Vec::new();
    for path in document["paths"].as_object_mut().into_iter().flat_map(|paths| paths.values_mut()) {
        let operations = path.as_object_mut().into_iter().flat_map(|operations| operations.values_mut());
        for body in operations.filter_map(|operation| operation.get_mut("requestBody")) {
            drop_null(body);
            collect_references(body, &mut pending);
        }
    }
    let mut closed = Vec::new();
    while let Some(name) = pending.pop() {
        if closed.contains(&name) {
            continue;
        }
        if let Some(schema) = document["components"]["schemas"].get_mut(&name) {
            collect_references(schema, &mut pending);
            if schema.get("properties").is_some() {
                schema["additionalProperties"] = Value::Bool(false);
            }
        }
        closed.push(name);
    }
}

/// Removes `null` from the schema of an optional body. utoipa adds it, but such a body is left out, not null.
fn drop_null(body: &mut Value) {
    for media_type in body["content"].as_object_mut().into_iter().flat_map(|content| content.values_mut()) {
        let other = media_type["schema"]["oneOf"].as_array().and_then(|choices| {
            choices.iter().find(|choice| choice["type"] != "null").filter(|_| choices.len() == 2).cloned()
        });
        if let Some(schema) = other {
            media_type["schema"] = schema;
        }
    }
}

/// Collects the names of all schemas that `value` refers to.
fn collect_references(value: &Value, names: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            if let Some(name) = fields.get("$ref").and_then(Value::as_str).and_then(|path| path.rsplit('/').next()) {
                names.push(name.to_owned());
            }
            fields.values().for_each(|field| collect_references(field, names));
        }
        Value::Array(elements) => elements.iter().for_each(|element| collect_references(element, names)),
        _ => {}
    }
}
