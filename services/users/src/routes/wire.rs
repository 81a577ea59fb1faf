//! Users as they travel in requests and responses.

use axum::http::header;
use axum::response::{IntoResponse, Response};
use chassis::http::body::{FromValue, Value};
use chassis::http::conditional::etag;
use chassis::http::json::json;
use chassis::http::limited::TrimmedText;
use chassis::{read_fields, responses};
use chrono::{DateTime, Utc};
use serde::Serialize;
use utoipa::openapi::schema::{KnownFormat, ObjectBuilder, SchemaFormat, Type};
use utoipa::openapi::{RefOr, Schema};
use utoipa::{PartialSchema, ToSchema};
use uuid::Uuid;

use crate::domain::{self, MAX_EMAIL, MAX_NAME, Status};

/// A person who may place orders.
#[derive(Debug, Serialize, ToSchema)]
pub struct User {
    /// The user's id.
    pub id: Uuid,
    /// As typed; unique without regard to case.
    #[schema(value_type = Email, inline)]
    pub email: String,
    /// How the person wants to be called.
    #[schema(value_type = Name, inline)]
    pub name: String,
    /// Whether the user may order.
    pub status: Status,
    /// When the user registered.
    #[serde(serialize_with = "chassis::moment::serialize")]
    pub created_at: DateTime<Utc>,
    /// When the user last changed.
    #[serde(serialize_with = "chassis::moment::serialize")]
    pub updated_at: DateTime<Utc>,
    /// Counts the changes; the entity tag.
    #[schema(minimum = 1)]
    pub version: i64,
}

/// Who registers.
#[derive(Debug, ToSchema)]
pub struct RegisterUser {
    /// Trimmed; valid by the rule of `<input type=email>`; unique without regard to case.
    #[schema(inline)]
    pub email: Email,
    /// Trimmed.
    #[schema(inline)]
    pub name: Name,
}

read_fields!(RegisterUser { email, name });

/// What to change. A field that is left out stays as it is.
#[derive(Debug, ToSchema)]
pub struct ChangeUser {
    /// The new email address.
    #[schema(inline, nullable = false)]
    pub email: Option<Email>,
    /// The new name.
    #[schema(inline, nullable = false)]
    pub name: Option<Name>,
}

read_fields!(ChangeUser { email, name });

/// A name, trimmed.
pub type Name = TrimmedText<1, MAX_NAME>;

/// An email address, trimmed.
#[derive(Debug)]
pub struct Email(pub String);

responses! {
    /// The user as it is now.
    pub UserNow { 200: "The user as it is now." => User ["etag"] }
    /// The user is registered, or is not.
    pub Registered {
        201: "The new user." => User ["location", "etag"],
        409: "`email-taken`: another user has this email address.",
    }
    /// A change is refused.
    pub ChangeRefused { 409: "`email-taken`, or `user-deactivated`: reactivate the user first." }
    /// The user is deactivated, or is not.
    pub Deactivated {
        204: "The user is deactivated now.",
        409: "`open-orders`: the user has open orders.",
    }
}

impl From<domain::User> for User {
    fn from(user: domain::User) -> Self {
        let domain::User { id, email, name, status, created_at, updated_at, version } = user;
        Self { id, email, name, status, created_at, updated_at, version }
    }
}

impl IntoResponse for User {
    fn into_response(self) -> Response {
        let tag = etag(&[self.version]);
        ([(header::ETAG, tag)], json(&self)).into_response()
    }
}

impl From<ChangeUser> for domain::Changes {
    fn from(change: ChangeUser) -> Self {
        Self { email: change.email.map(|email| email.0), name: change.name.map(|name| name.0) }
    }
}

impl FromValue for Email {
    fn from_value(value: &Value<'_>) -> Option<Self> {
        let email = TrimmedText::<1, MAX_EMAIL>::from_value(value)?.0;
        // As it was sent: the normal form of a character that is not ASCII may be ASCII.
        if domain::is_email(value.string()?.trim()) {
            Some(Self(email))
        } else {
            value.reject("must be an email address such as ada@example.org")
        }
    }
}

impl PartialSchema for Email {
    fn schema() -> RefOr<Schema> {
        let email = ObjectBuilder::new().schema_type(Type::String).max_length(Some(MAX_EMAIL));
        Schema::Object(email.format(Some(SchemaFormat::KnownFormat(KnownFormat::Email))).build()).into()
    }
}

impl ToSchema for Email {}
