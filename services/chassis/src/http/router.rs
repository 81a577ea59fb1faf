//! Completes a service's router: OpenAPI document, API page, fallback, request layer.

use axum::Router;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use bytes::Bytes;
use serde_json::Value;
use utoipa_axum::router::OpenApiRouter;
use utoipa_swagger_ui::{Config, SwaggerUi};

use crate::http::document::merge_descriptions;
use crate::http::request::RequestLayer;

/// The router of a service with these routes.
pub fn complete<S: Clone + Send + Sync + 'static>(routes: OpenApiRouter<S>, state: S) -> Router {
    crate::metrics::recorder();
    let (router, document) = routes.split_for_parts();
    let mut document = serde_json::to_value(&document).expect("an OpenAPI document is JSON");
    merge_descriptions(&mut document);
    close_request_bodies(&mut document);
    let document = Bytes::from(document.to_string());
    let content_type = [(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))];
    router
        .with_state(state)
        .route("/openapi.json", get(async move || (content_type, document)))
        // The page is in the binary and loads nothing from elsewhere.
        .merge(SwaggerUi::new("/docs").config(Config::from("/openapi.json").validator_url("none")))
        .fallback(async || StatusCode::NOT_FOUND.into_response())
        .layer(RequestLayer::default())
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
