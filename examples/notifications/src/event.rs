//! The events of orders, as their contract describes them (docs/events.md), and what is sent for each.

use serde::Deserialize;
use serde_json::{Value, json};

/// A CloudEvent. Unknown fields are ignored.
#[derive(Debug, Deserialize)]
pub struct Event {
    pub id: String,
    pub r#type: String,
    #[serde(default)]
    data: Value,
}

impl Event {
    /// An event in the binary mode of the brokers: `attribute` finds a header by the attribute's name. A message that is no
    /// event gets its place as its id, and no type.
    #[cfg(any(feature = "kafka", feature = "rabbitmq"))]
    pub fn binary(attribute: impl Fn(&str) -> Option<String>, payload: &[u8], place: String) -> Self {
        let (id, r#type) = (attribute("id").unwrap_or(place), attribute("type").unwrap_or_default());
        Self { id, r#type, data: serde_json::from_slice(payload).unwrap_or_default() }
    }

    /// The order, what is sent, and why it cannot be sent. `None` for a type, or a version of a type, that this program does
    /// not know.
    pub fn notification(&self) -> Option<(String, String, Option<&'static str>)> {
        let happened = match &*self.r#type {
            "order.placed.v1" => "was placed",
            "order.paid.v1" => "is paid",
            "order.shipped.v1" => "is on its way",
            "order.delivered.v1" => "was delivered",
            "order.cancelled.v1" => "was cancelled",
            _ => return None,
        };
        let order = self.data["id"].as_str().unwrap_or_default();
        let text = format!("Order {order} {happened}.");
        let body = json!({ "event_id": self.id, "text": text, "order": self.data }).to_string();
        Some((order.to_owned(), body, order.is_empty().then_some("the data has no id")))
    }
}
