//! What the OpenAPI documents of all services have in common: sets of responses, and parameters.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use utoipa::ToSchema;
use utoipa::openapi::path::{Parameter, ParameterBuilder, ParameterIn};
use utoipa::openapi::schema::{KnownFormat, ObjectBuilder, SchemaFormat, Type};
use utoipa::openapi::{ContentBuilder, Header, Ref, RefOr, Required, Response, ResponseBuilder, Schema};

use crate::context::READ_AFTER;
use crate::http::problem::ProblemBody;

/// The responses of a route, by status.
pub type Responses = BTreeMap<String, RefOr<Response>>;

/// Declares sets of responses for `responses(…)` of `utoipa::path`: each status with its description. A success may have a
/// body and headers, as in `200: "The user." => User ["etag"]`. From 400 on the body is a problem.
#[macro_export]
macro_rules! responses {
    ($($(#[$attribute:meta])* $visibility:vis $set:ident {
        $($status:literal: $description:literal $(=> $body:ident [$($header:literal),*])?),+ $(,)?
    })+) => {$(
        $(#[$attribute])*
        #[derive(Debug)]
        $visibility enum $set {}

        impl ::utoipa::IntoResponses for $set {
            fn responses() -> $crate::http::document::Responses {
                use $crate::http::document::response;
                [$(response($status, $description)$(.body::<$body>(&[$($header),*]))?.by_status()),+].into()
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
        415: "The body is not JSON, or has a content coding.",
        422: "Fields of the body are invalid. `errors` lists them.",
        503: "The service cannot answer now. Retry after `Retry-After`.",
    }
    /// A route that reads what its path names.
    pub Reading {
        404: "The path names nothing that exists.",
        503: "The service cannot answer now. Retry after `Retry-After`.",
    }
    /// A route that reads with preconditions.
    pub Unchanged {
        304: "`If-None-Match` names the present ETag.",
        412: "`If-Match` does not name the present ETag.",
    }
    /// A route that changes what its path names, with preconditions.
    pub Changing {
        404: "The path names nothing that exists.",
        412: "`If-Match` does not name the present ETag, or `If-None-Match` does.",
        503: "The service cannot answer now. Retry after `Retry-After`.",
    }
}

/// A response of a set.
pub struct Described(u16, ResponseBuilder);

/// The response with this status and description.
pub fn response(status: u16, description: &str) -> Described {
    let response = Described(status, ResponseBuilder::new().description(description));
    if status < 400 { response } else { response.content::<ProblemBody<'_>>("application/problem+json") }
}

impl Described {
    /// Adds the body of a success, and headers.
    #[must_use]
    pub fn body<T: ToSchema>(self, headers: &[&str]) -> Self {
        let Self(status, response) = self.content::<T>("application/json");
        Self(status, headers.iter().fold(response, |response, name| response.header(*name, Header::default())))
    }

    /// The response beside its status.
    pub fn by_status(self) -> (String, RefOr<Response>) {
        (self.0.to_string(), self.1.build().into())
    }

    fn content<T: ToSchema>(self, media_type: &str) -> Self {
        let content = ContentBuilder::new().schema(Some(Ref::from_schema_name(T::name()))).build();
        Self(self.0, self.1.content(media_type, content))
    }
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

/// What holds for every operation of every service.
const FOR_ALL: &str = "Preconditions: `If-Match` and `If-None-Match` count for every method. `If-Modified-Since` and \
    `If-Unmodified-Since` are ignored, because nothing here has a modification date.\n\nA read may come from a standby, \
    which is a moment behind. The answer to a change has the header `Read-After`. Send its value with a read, and the \
    answer has that change. The newest value also stands for the earlier ones. A value that the service does not know, such \
    as `now`, asks for all changes.\n\nErrors are problems (RFC 9457). \
    Only a request that is no valid HTTP/1.1 is answered 400, 414 or 431 without a body.";
/// The refusals that any request may meet, unless its operation describes them itself.
const REFUSALS: [(&str, &str); 4] = [
    ("400", "The `Host` field or the target is missing or malformed, or a parameter is unknown."),
    ("412", "`If-Match` or `If-None-Match` does not hold."),
    ("415", "The request has a content coding."),
    ("417", "`Expect` has something other than `100-continue`."),
];

/// Adds `Read-After` to the operations on data: as a parameter of reads, and as a header of successful changes.
fn describe_read_after(method: &str, operation: &mut Value) {
    if operation["tags"] == json!(["operations"]) {
        return;
    }
    let schema = json!({ "type": "string" });
    if method == "get" {
        let description = "the `Read-After` of a change: the answer has that change";
        let parameter = json!({ "name": READ_AFTER.as_str(), "in": "header", "description": description, "schema": schema });
        match operation["parameters"].as_array_mut() {
            Some(parameters) => parameters.push(parameter),
            None => operation["parameters"] = json!([parameter]),
        }
        return;
    }
    let responses = operation["responses"].as_object_mut().into_iter().flatten();
    for (_, response) in responses.filter(|(status, _)| status.starts_with('2')) {
        let description = "for reads that must have this change";
        response["headers"][READ_AFTER.as_str()] = json!({ "description": description, "schema": schema });
    }
}

/// Adds what all operations have in common.
pub(crate) fn complete_document(document: &mut Value) {
    document["servers"] = json!([{ "url": "/", "description": "Where this document is served." }]);
    let info = &mut document["info"];
    info["contact"] = json!({ "name": "The team that runs this service" });
    info["description"] = format!("{}\n\n{FOR_ALL}", info["description"].as_str().unwrap_or_default()).into();
    if document.get("security").is_none() {
        document["security"] = json!([]);
    }
    let paths = document["paths"].as_object_mut().into_iter().flat_map(|paths| paths.values_mut());
    for (method, operation) in paths.flat_map(|path| path.as_object_mut().into_iter().flatten()) {
        describe_read_after(method, operation);
        for (status, description) in REFUSALS {
            if operation["responses"].get(status).is_none() {
                let content =
                    json!({ "application/problem+json": { "schema": { "$ref": "#/components/schemas/Problem" } } });
                operation["responses"][status] = json!({ "description": description, "content": content });
            }
        }
    }
}
