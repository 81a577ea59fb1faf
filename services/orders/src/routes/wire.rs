//! Orders as they travel in requests and responses.

use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use chassis::events::{Position, ReadAfter};
use chassis::http::body::{FromValue, Value};
use chassis::http::conditional::etag;
use chassis::http::json::{created, json};
use chassis::http::limited::{List, Text, TrimmedText, Whole};
use chassis::{read_fields, responses};
use chrono::{DateTime, Utc};
use serde::{Serialize, Serializer};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::domain::{self, Customer, Item, Lookup, MAX_ITEMS, Status};

/// An order with its customer.
#[derive(Debug, Serialize, ToSchema)]
pub struct Order {
    /// The order's id.
    pub id: Uuid,
    /// The user who placed it.
    pub user_id: Uuid,
    /// That user today; null if the user is unknown or users does not answer.
    #[schema(required = true)]
    pub customer: Option<Customer>,
    /// True if users does not answer, else absent.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    #[schema(required = false)]
    pub customer_unavailable: bool,
    /// The order's state.
    pub status: Status,
    /// ISO 4217 code.
    #[schema(value_type = Currency, inline)]
    pub currency: String,
    /// The order's lines.
    #[serde(serialize_with = "serialize_lines")]
    #[schema(value_type = Vec<Line>)]
    pub items: Vec<Item>,
    /// Sum over the items, in minor units of the currency.
    #[schema(minimum = 0)]
    pub total_minor: i64,
    /// When it was placed.
    #[serde(serialize_with = "chassis::moment::serialize")]
    pub placed_at: DateTime<Utc>,
    /// When it last changed.
    #[serde(serialize_with = "chassis::moment::serialize")]
    pub updated_at: DateTime<Utc>,
    /// Counts the changes.
    #[schema(minimum = 1)]
    pub version: i64,
    /// Whether the response has an entity tag.
    #[serde(skip)]
    tagged: bool,
}

/// A line of an order.
#[derive(Debug, Serialize, ToSchema)]
pub struct Line<'a> {
    /// 1, 2, 3 …
    #[schema(value_type = LineNo, inline)]
    pub line_no: usize,
    /// Stock keeping unit.
    pub sku: &'a str,
    /// How many.
    #[schema(value_type = Quantity, inline)]
    pub quantity: i32,
    /// Price of one, in minor units of the currency.
    #[schema(value_type = UnitPrice, inline)]
    pub unit_price_minor: i64,
}

/// What to order.
#[derive(Debug, ToSchema)]
pub struct PlaceOrder {
    /// The user who orders.
    user_id: Uuid,
    /// On ISO 4217's list of active codes, in upper case.
    #[schema(inline)]
    currency: Currency,
    /// What the user orders.
    #[schema(inline)]
    items: Items,
}

read_fields!(PlaceOrder { user_id, currency, items });

/// A line to order.
#[derive(Debug, ToSchema)]
pub struct NewItem {
    /// Stock keeping unit.
    #[schema(inline)]
    sku: Sku,
    /// How many.
    #[schema(inline)]
    quantity: Quantity,
    /// Price of one, in minor units of the currency.
    #[schema(inline)]
    unit_price_minor: UnitPrice,
}

read_fields!(NewItem { sku, quantity, unit_price_minor });

/// Why to cancel.
#[derive(Debug, Default, ToSchema)]
pub struct CancelOrder {
    /// Kept in the order's history.
    #[schema(inline, nullable = false)]
    pub reason: Option<Reason>,
}

read_fields!(CancelOrder { reason });

type Items = List<NewItem, 1, MAX_ITEMS>;
type LineNo = Whole<1, { MAX_ITEMS as i64 }>;
type Sku = Text<1, 64>;
type Quantity = Whole<1, 10_000>;
type UnitPrice = Whole<0, 1_000_000_000>;
type Reason = TrimmedText<1, 500>;

/// The code of a currency.
#[derive(Debug, ToSchema)]
#[schema(pattern = "^[A-Z]{3}$", example = "EUR")]
struct Currency(String);

/// A user's open orders.
#[derive(Debug, Serialize, ToSchema)]
pub struct OpenOrders {
    /// The user's id.
    pub user_id: Uuid,
    /// Orders that are placed, paid or shipped.
    #[schema(minimum = 0)]
    pub open_count: i64,
}

responses! {
    /// The order as it is now.
    pub OrderNow { 200: "The order." => Order ["etag"] }
    /// The order is placed, or is not.
    pub Placed {
        201: "The order: a new one, or the one that an earlier request with the same key placed."
            => Order ["location", "etag", "idempotency-replayed"],
        409: "`user-deactivated`: the user is deactivated.",
        422: "`unknown-user`, `idempotency-key-reused`, or invalid fields, which `errors` lists.",
    }
    /// The step is taken, or is not.
    pub StepTaken {
        200: "The order after the step." => Order ["etag"],
        409: "`invalid-transition`: the order's state does not allow the step.",
    }
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
        Self {
            id,
            user_id,
            customer,
            customer_unavailable,
            status,
            currency,
            items,
            total_minor,
            placed_at,
            updated_at,
            version,
            tagged: true,
        }
    }

    /// The response to who has placed it, with a position in the log behind its first event.
    pub fn placed(self, position: Position) -> Response {
        let path = "/orders/".to_owned() + self.id.as_hyphenated().encode_lower(&mut Uuid::encode_buffer());
        (ReadAfter::from(position), created(&path, self)).into_response()
    }

    /// The order without an entity tag.
    #[must_use]
    pub fn untagged(self) -> Self {
        Self { tagged: false, ..self }
    }

    /// The tag of this representation: it changes with the order and with the customer. `None` without a customer.
    pub fn tag(&self) -> Option<HeaderValue> {
        let customer = self.customer.as_ref().filter(|_| self.tagged)?;
        Some(etag(&[self.version, customer.version]))
    }
}

/// Writes items as numbered lines.
fn serialize_lines<S: Serializer>(items: &[Item], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq((1..).zip(items).map(|(line_no, item)| {
        let Item { sku, quantity, unit_price_minor } = item;
        Line { line_no, sku, quantity: *quantity, unit_price_minor: *unit_price_minor }
    }))
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

impl From<PlaceOrder> for domain::NewOrder {
    fn from(PlaceOrder { user_id, currency, items }: PlaceOrder) -> Self {
        let items = items.0.into_iter().map(|NewItem { sku, quantity, unit_price_minor }| domain::Item {
            sku: sku.0,
            quantity: quantity.0 as i32,
            unit_price_minor: unit_price_minor.0,
        });
        Self { user_id, currency: currency.0, items: items.collect() }
    }
}

impl FromValue for Currency {
    fn from_value(value: &Value<'_>) -> Option<Self> {
        let Text::<3, 3>(code) = FromValue::from_value(value)?;
        if domain::is_active_currency(&code) {
            Some(Self(code))
        } else {
            value.reject("must be an active ISO 4217 code such as EUR")
        }
    }
}
