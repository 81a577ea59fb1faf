//! What the OpenAPI documents of all services have in common: sets of responses, and parameters.

use std::collections::BTreeMap;

use serde_json::Value;
use utoipa::ToSchema;
use utoipa::openapi::path::{Parameter, ParameterBuilder, ParameterIn};
use utoipa::openapi::schema::{KnownFormat, ObjectBuilder, SchemaFormat, Type};
use utoipa::openapi::{ContentBuilder, Ref, RefOr, Required, Response, ResponseBuilder, Schema};

use crate::http::problem::ProblemBody;

/// Declares sets of responses for `responses(…)` of `utoipa::path`. Each status has a description; from 400 on it has a
/// problem as its body.
#[macro_export]
macro_rules! responses {
    ($($(#[$attribute:meta])* $visibility:vis $set:ident { $($status:literal: $description:literal),+ $(,)? })+) => {$(
        $(#[$attribute])*
        #[derive(Debug)]
        $visibility enum $set {}

        impl ::utoipa::IntoResponses for $set {
            fn responses() -> ::std::collections::BTreeMap<
                String,
                ::utoipa::openapi::RefOr<::utoipa::openapi::Response>,
            > {
                $crate::http::document::describe(&[$(($status, $description)),+])
            }
        }
    )+};
}

responses! {
    /// A route with query parameters.
    pub WithQuery {
        400: "A query parameter is unknown, stands twice or has a bad value.",
        503: "The service cannot answer now. Retry after `Retry-After`.",
    }
    /// A route with a JSON body.
    pub WithBody {
        400: "The body is not well-formed JSON, or a header cannot be read.",
        413: "The body has more than 64 KiB.",
        415: "The body is not JSON.",
        422: "Fields of the body are invalid. `errors` lists them.",
        503: "The service cannot answer now. Retry after `Retry-After`.",
    }
    /// A route that reads what its path names.
    pub Reading {
        404: "The path names nothing that exists.",
        503: "The service cannot answer now. Retry after `Retry-After`.",
    }
    /// A route that reads with `If-None-Match`.
    pub Unchanged {
        304: "`If-None-Match` names the present ETag.",
    }
    /// A route that changes what its path names, with `If-Match`.
    pub Changing {
        404: "The path names nothing that exists.",
        412: "`If-Match` does not name the present ETag.",
        503: "The service cannot answer now. Retry after `Retry-After`.",
    }
}

/// The responses with these descriptions, by status.
pub fn describe(responses: &[(u16, &str)]) -> BTreeMap<String, RefOr<Response>> {
    let problem = Ref::from_schema_name(ProblemBody::name());
    let responses = responses.iter().map(|(status, description)| {
        let mut response = ResponseBuilder::new().description(*description);
        if *status >= 400 {
            let content = ContentBuilder::new().schema(Some(problem.clone())).build();
            response = response.content("application/problem+json", content);
        }
        (status.to_string(), response.build().into())
    });
    responses.collect()
}

/// A parameter of a route. Only those in the path are required.
pub fn parameter(name: &str, place: ParameterIn, description: &str, schema: impl Into<RefOr<Schema>>) -> Parameter {
    let required = if place == ParameterIn::Path { Required::True } else { Required::False };
    ParameterBuilder::new()
        .name(name)
        .parameter_in(place)
        .required(required)
        .description(Some(description))
        .schema(Some(schema))
        .build()
}

/// The schema of a UUID, for which utoipa has none outside its macros.
pub fn uuid() -> RefOr<Schema> {
    let format = SchemaFormat::KnownFormat(KnownFormat::Uuid);
    Schema::Object(ObjectBuilder::new().schema_type(Type::String).format(Some(format)).build()).into()
}

/// Merges each `allOf` of an inlined schema and its field's description into one schema. utoipa writes the description as a
/// schema of its own, of the type `object`, which no text or number satisfies.
pub(crate) fn merge_descriptions(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.values_mut().for_each(merge_descriptions);
            if let Some([schema, described]) = fields.get("allOf").and_then(Value::as_array).map(Vec::as_slice)
                && let (Some(schema), Some(description)) = (schema.as_object(), described.get("description"))
                && described["type"] == "object"
                && described.get("properties").is_none()
            {
                let mut merged = schema.clone();
                merged.insert("description".to_owned(), description.clone());
                *fields = merged;
            }
        }
        Value::Array(elements) => elements.iter_mut().for_each(merge_descriptions),
        _ => {}
    }
}
