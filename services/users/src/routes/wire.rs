//! Users as they travel in requests and responses.

use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use chassis::http::body::{FromObject, Object, Value};
use chassis::http::conditional::etag;
use chassis::http::json::json;
use chrono::{DateTime, Utc};
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::domain::{self, Changes, MAX_EMAIL, MAX_NAME};

/// A person who may place orders.
#[derive(Debug, Serialize, ToSchema)]
pub struct User {
    /// The user's id.
    pub id: Uuid,
    /// As typed; unique without regard to case.
    #[schema(format = "email", max_length = 254)]
    pub email: String,
    /// How the person wants to be called.
    #[schema(
        min_length = 1,
        max_length = 200,
        pattern = "^[^\\u0000-\\u001f\\u007f-\\u009f]*[^\\s\\u0000-\\u001f\\u007f-\\u009f][^\\u0000-\\u001f\\u007f-\\u009f]*$"
    )]
    pub name: String,
    /// Whether the user may order.
    #[schema(value_type = Status)]
    pub status: &'static str,
    /// When the user registered.
    pub created_at: DateTime<Utc>,
    /// When the user last changed.
    pub updated_at: DateTime<Utc>,
    /// Counts the changes; the entity tag.
    #[schema(minimum = 1)]
    pub version: i64,
}

/// Whether a user may order.
#[derive(Debug, ToSchema)]
#[schema(rename_all = "lowercase")]
#[expect(dead_code, reason = "describes the values of `status` in the OpenAPI document")]
pub enum Status {
    /// May order.
    Active,
    /// May not.
    Deactivated,
}

impl From<domain::User> for User {
    fn from(user: domain::User) -> Self {
        let domain::User { id, email, name, status, created_at, updated_at, version } = user;
        Self { id, email, name, status: status.as_str(), created_at, updated_at, version }
    }
}

impl IntoResponse for User {
    fn into_response(self) -> Response {
        let tag = etag(self.version);
        ([(header::ETAG, tag)], json(&self)).into_response()
    }
}

/// Where the user is found.
pub fn location(id: Uuid) -> HeaderValue {
    HeaderValue::from_str(&format!("/users/{id}")).unwrap_or_else(|_| HeaderValue::from_static("/users"))
}

/// Who registers.
#[derive(Debug, ToSchema)]
pub struct RegisterUser {
    /// Trimmed; valid by the rule of `<input type=email>`; unique without regard to case.
    #[schema(format = "email", max_length = 254)]
    pub email: String,
    /// Trimmed.
    #[schema(
        min_length = 1,
        max_length = 200,
        pattern = "^[^\\u0000-\\u001f\\u007f-\\u009f]*[^\\s\\u0000-\\u001f\\u007f-\\u009f][^\\u0000-\\u001f\\u007f-\\u009f]*$"
    )]
    pub name: String,
}

impl FromObject for RegisterUser {
    fn from_object(object: &mut Object<'_>) -> Option<Self> {
        let email = object.required("email", email);
        let name = object.required("name", name);
        Some(Self { email: email?, name: name? })
    }
}

/// What to change; a field left out stays as it is.
#[derive(Debug, ToSchema)]
pub struct ChangeUser {
    /// The new email address.
    #[schema(format = "email", max_length = 254, nullable = false)]
    pub email: Option<String>,
    /// The new name.
    #[schema(
        min_length = 1,
        max_length = 200,
        nullable = false,
        pattern = "^[^\\u0000-\\u001f\\u007f-\\u009f]*[^\\s\\u0000-\\u001f\\u007f-\\u009f][^\\u0000-\\u001f\\u007f-\\u009f]*$"
    )]
    pub name: Option<String>,
}

impl FromObject for ChangeUser {
    fn from_object(object: &mut Object<'_>) -> Option<Self> {
        let email = object.optional("email", email);
        let name = object.optional("name", name);
        Some(Self { email: email?, name: name? })
    }
}

impl From<ChangeUser> for Changes {
    fn from(change: ChangeUser) -> Self {
        Self { email: change.email, name: change.name }
    }
}

fn email(value: &Value<'_>) -> Option<String> {
    let email = value.trimmed_text(1..=MAX_EMAIL)?;
    if domain::is_email(&email) { Some(email) } else { value.reject("must be an email address such as ada@example.org") }
}

fn name(value: &Value<'_>) -> Option<String> {
    value.trimmed_text(1..=MAX_NAME)
}
