//! Events as messages: the binary mode of the AMQP binding,
//! <https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/bindings/amqp-protocol-binding.md>. RabbitMQ shows the
//! headers of AMQP 0.9.1 to clients of AMQP 1.0 as application properties, which the binding speaks of.

use chassis::events::CloudEvent;
use chassis::events::consumer::{Received, storable};
use chrono::{DateTime, SecondsFormat, Utc};
use lapin::BasicProperties;
use lapin::message::Delivery;
use lapin::types::{AMQPValue, FieldTable};

use super::place::Place;

/// What the names of the attributes begin with: the first form is written, both are read.
const PREFIXES: [&str; 2] = ["cloudEvents_", "cloudEvents:"];
/// A message that survives a restart of the server.
const PERSISTENT: u8 = 2;

/// An event, read from a stream.
pub(super) struct Message {
    pub(super) event: Received,
    pub(super) offset: i64,
    /// Names the message in its acknowledgement.
    pub(super) tag: u64,
}

impl Message {
    pub(super) fn place(&self) -> Place {
        Place::After { offset: self.offset, id: self.event.id.clone() }
    }
}

/// A message without an offset.
#[derive(Debug, thiserror::Error)]
#[error("the queue {0} is not a stream: delete it, and the other service creates it")]
pub(super) struct NoOffset(String);

pub(super) fn properties(event: &CloudEvent) -> BasicProperties {
    let time = event.time.to_rfc3339_opts(SecondsFormat::AutoSi, true);
    let mut headers = FieldTable::default();
    for (name, value) in [
        ("specversion", event.specversion),
        ("id", &event.id),
        ("source", event.source),
        ("type", &event.r#type),
        ("subject", &event.subject),
        ("time", &time),
    ]
    .into_iter()
    .chain(event.actor.as_deref().map(|actor| ("actor", actor)))
    .chain(event.traceparent.as_deref().map(|traceparent| ("traceparent", traceparent)))
    {
        headers.insert(format!("{}{name}", PREFIXES[0]).into(), AMQPValue::LongString(value.into()));
    }
    BasicProperties::default()
        .with_content_type(event.datacontenttype.into())
        .with_delivery_mode(PERSISTENT)
        .with_message_id(event.id.as_str().into())
        .with_headers(headers)
}

/// Reads a message of a stream, in binary or structured mode. One that is no event gets its place as its id, and no type.
pub(super) fn read(delivery: &Delivery, stream: &str) -> Result<Message, NoOffset> {
    let headers = delivery.properties.headers().as_ref().map(FieldTable::inner);
    let header = |name: &str| headers.and_then(|headers| headers.get(name));
    let Some(AMQPValue::LongLongInt(offset)) = header("x-stream-offset") else {
        return Err(NoOffset(stream.to_owned()));
    };
    let attribute = |name: &str| PREFIXES.iter().find_map(|prefix| header(&format!("{prefix}{name}")).and_then(text));
    let mode = delivery.properties.content_type().as_ref().map_or("", |mode| mode.as_str());
    let event = Received::structured(mode, &delivery.data).unwrap_or_else(|| Received {
        id: attribute("id").unwrap_or_else(|| format!("{stream}/{offset}")),
        r#type: attribute("type").unwrap_or_default(),
        time: attribute("time")
            .and_then(|time| DateTime::parse_from_rfc3339(&time).ok())
            .map(|time| time.with_timezone(&Utc)),
        traceparent: attribute("traceparent"),
        data: storable(&String::from_utf8_lossy(&delivery.data)),
    });
    Ok(Message { event, offset: *offset, tag: delivery.delivery_tag })
}

/// A header may contain any bytes: they are made a text that can be stored.
fn text(value: &AMQPValue) -> Option<String> {
    match value {
        AMQPValue::LongString(text) => Some(storable(&String::from_utf8_lossy(text.as_bytes()))),
        AMQPValue::ShortString(text) => Some(storable(text.as_str())),
        _ => None,
    }
}
