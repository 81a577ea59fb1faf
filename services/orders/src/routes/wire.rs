//! Orders as they travel in requests and responses.

use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use chassis::http::body::{FromObject, Object, Value};
use chassis::http::conditional::etag;
use chassis::http::json::json;
use chrono::{DateTime, Utc};
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::customers::{self, Lookup};
use crate::domain;

/// An order with its customer.
#[derive(Debug, Serialize, ToSchema)]
pub struct Order {
    /// The order's id.
    pub id: Uuid,
    /// Who placed it.
    pub user_id: Uuid,
    /// Who that is today; null when that cannot be told.
    #[schema(required = true)]
    pub customer: Option<Customer>,
    /// True when the customer cannot be told since users does not answer; else absent.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    #[schema(required = false)]
    pub customer_unavailable: bool,
    /// Where it stands.
    #[schema(value_type = Status)]
    pub status: &'static str,
    /// ISO 4217 code.
    #[schema(pattern = "^[A-Z]{3}$")]
    pub currency: String,
    /// What was ordered.
    pub items: Vec<Line>,
    /// Sum over the items, in minor units of the currency.
    #[schema(minimum = 0)]
    pub total_minor: i64,
    /// When it was placed.
    pub placed_at: DateTime<Utc>,
    /// When it last changed.
    pub updated_at: DateTime<Utc>,
    /// Counts the changes.
    #[schema(minimum = 1)]
    pub version: i64,
    /// The customer's version, for the entity tag.
    #[serde(skip)]
    customer_version: Option<i64>,
}

/// An order's customer.
#[derive(Debug, Serialize, ToSchema)]
pub struct Customer {
    /// The user's id.
    pub id: Uuid,
    /// The user's name.
    pub name: String,
    /// `active` or `deactivated`.
    pub status: String,
}

/// A line of an order.
#[derive(Debug, Serialize, ToSchema)]
pub struct Line {
    /// 1, 2, 3 …
    #[schema(minimum = 1, maximum = 100)]
    pub line_no: usize,
    /// Stock keeping unit.
    pub sku: String,
    /// How many.
    #[schema(minimum = 1, maximum = 10_000)]
    pub quantity: i32,
    /// Price of one, in minor units of the currency.
    #[schema(minimum = 0, maximum = 1_000_000_000)]
    pub unit_price_minor: i64,
}

/// Where an order stands.
#[derive(Debug, ToSchema)]
#[schema(rename_all = "lowercase")]
#[expect(dead_code, reason = "describes the values of `status` in the OpenAPI document")]
pub enum Status {
    /// Waits for payment.
    Placed,
    /// Waits to be shipped.
    Paid,
    /// On its way.
    Shipped,
    /// Done.
    Delivered,
    /// Called off.
    Cancelled,
}

impl Order {
    /// The order as clients see it.
    pub fn new(order: domain::Order, customer: Lookup) -> Self {
        let domain::Order { id, user_id, status, currency, items, total_minor, placed_at, updated_at, version } = order;
        let customer_unavailable = customer == Lookup::Unavailable;
        let customer = match customer {
            Lookup::Found(customer) => Some(customer),
            Lookup::Unknown | Lookup::Unavailable => None,
        };
        let customer_version = customer.as_ref().map(|customer| customer.version);
        let customer = customer.map(|customers::Customer { id, name, status, .. }| Customer { id, name, status });
        let lines = (1..).zip(items).map(|(line_no, domain::Item { sku, quantity, unit_price_minor })| Line {
            line_no,
            sku,
            quantity,
            unit_price_minor,
        });
        Self {
            id,
            user_id,
            customer,
            customer_unavailable,
            status: status.as_str(),
            currency,
            items: lines.collect(),
            total_minor,
            placed_at,
            updated_at,
            version,
            customer_version,
        }
    }

    /// The same without an entity tag.
    #[must_use]
    pub fn untagged(self) -> Self {
        Self { customer_version: None, ..self }
    }

    /// The tag of this representation: it changes with the order and with the customer. None without the customer.
    pub fn tag(&self) -> Option<HeaderValue> {
        self.customer_version.map(|customer_version| etag(format_args!("{}-{customer_version}", self.version)))
    }
}

impl IntoResponse for Order {
    fn into_response(self) -> Response {
        let tag = self.tag();
        let mut response = json(&self);
        if let Some(tag) = tag {
            response.headers_mut().insert(header::ETAG, tag);
        }
        response
    }
}

/// Where the order is found.
pub fn location(id: Uuid) -> HeaderValue {
    HeaderValue::from_str(&format!("/orders/{id}")).unwrap_or_else(|_| HeaderValue::from_static("/orders"))
}

/// What to order.
#[derive(Debug, ToSchema)]
#[expect(dead_code, reason = "describes the request body in the OpenAPI document")]
pub struct PlaceOrder {
    /// Who orders.
    user_id: Uuid,
    /// On ISO 4217's list of active codes, in upper case.
    #[schema(pattern = "^[A-Z]{3}$", example = "EUR")]
    currency: String,
    /// What is ordered.
    #[schema(min_items = 1, max_items = 100)]
    items: Vec<NewItem>,
}

/// A line to order.
#[derive(Debug, ToSchema)]
#[expect(dead_code, reason = "describes the request body in the OpenAPI document")]
pub struct NewItem {
    /// Stock keeping unit.
    #[schema(min_length = 1, max_length = 64, pattern = "^[^\\u0000-\\u001f\\u007f-\\u009f]*$")]
    sku: String,
    /// How many.
    #[schema(minimum = 1, maximum = 10_000)]
    quantity: i32,
    /// Price of one, in minor units of the currency.
    #[schema(minimum = 0, maximum = 1_000_000_000)]
    unit_price_minor: i64,
}

impl FromObject for domain::NewOrder {
    fn from_object(object: &mut Object<'_>) -> Option<Self> {
        let user_id = object.required("user_id", Value::id);
        let currency = object.required("currency", currency);
        let items = object.required("items", |items| items.array(1..=100, |item| item.object(item_from_object)));
        Some(Self { user_id: user_id?, currency: currency?, items: items? })
    }
}

fn item_from_object(object: &mut Object<'_>) -> Option<domain::Item> {
    let sku = object.required("sku", |sku| sku.text(1..=64));
    let quantity = object.required("quantity", |quantity| quantity.integer(1..=10_000));
    let unit_price_minor = object.required("unit_price_minor", |price| price.integer(0..=1_000_000_000));
    Some(domain::Item { sku: sku?, quantity: i32::try_from(quantity?).ok()?, unit_price_minor: unit_price_minor? })
}

fn currency(value: &Value<'_>) -> Option<String> {
    let code = value.text(3..=3)?;
    if domain::is_active_currency(&code) { Some(code) } else { value.reject("must be an active ISO 4217 code such as EUR") }
}

/// Why to cancel.
#[derive(Debug, Default, ToSchema)]
pub struct CancelOrder {
    /// Kept in the order's history.
    #[schema(
        min_length = 1,
        max_length = 500,
        nullable = false,
        pattern = "^[^\\u0000-\\u001f\\u007f-\\u009f]*[^\\s\\u0000-\\u001f\\u007f-\\u009f][^\\u0000-\\u001f\\u007f-\\u009f]*$"
    )]
    pub reason: Option<String>,
}

impl FromObject for CancelOrder {
    fn from_object(object: &mut Object<'_>) -> Option<Self> {
        Some(Self { reason: object.optional("reason", |reason| reason.trimmed_text(1..=500))? })
    }
}

/// A user's open orders.
#[derive(Debug, Serialize, ToSchema)]
pub struct OpenOrders {
    /// The user's id.
    pub user_id: Uuid,
    /// Orders that are placed, paid or shipped.
    #[schema(minimum = 0)]
    pub open_count: i64,
}
