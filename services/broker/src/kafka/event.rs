//! CloudEvents as Kafka records, by the Kafka binding:
//! <https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/bindings/kafka-protocol-binding.md>.

use chassis::events::CloudEvent;
use chassis::events::consumer::{Received, storable};
use chrono::{DateTime, SecondsFormat, Utc};
use rdkafka::message::{BorrowedMessage, Header, Headers, Message, OwnedHeaders};

/// What a record has at most beside key, value and headers, in the broker's count.
const RECORD: usize = 70;

/// The headers of an event in binary mode.
pub(super) fn headers(event: &CloudEvent) -> OwnedHeaders {
    let time = event.time.to_rfc3339_opts(SecondsFormat::AutoSi, true);
    let headers = [
        ("ce_specversion", event.specversion),
        ("ce_id", &event.id),
        ("ce_source", event.source),
        ("ce_type", &event.r#type),
        ("ce_subject", &event.subject),
        ("ce_time", &time),
        ("content-type", event.datacontenttype),
    ];
    let actor = event.actor.as_deref().map(|actor| ("ce_actor", actor));
    let traceparent = event.traceparent.as_deref().map(|traceparent| ("ce_traceparent", traceparent));
    headers
        .into_iter()
        .chain(actor)
        .chain(traceparent)
        .fold(OwnedHeaders::new(), |headers, (key, value)| headers.insert(Header { key, value: Some(value) }))
}

/// The size of an event's record, as a broker counts it when nothing is compressed.
pub(super) fn size(event: &CloudEvent, headers: &OwnedHeaders) -> usize {
    let headers: usize = headers.iter().map(|header| header.key.len() + header.value.map_or(0, <[u8]>::len) + 4).sum();
    event.subject.len() + event.data.get().len() + headers + RECORD
}

/// Reads a CloudEvent, in binary or structured mode; `None` of a tombstone, by which a compacted topic forgets a key. A
/// message that is no event gets its place in the topic as its id, and no type.
pub(super) fn read(message: &BorrowedMessage<'_>) -> Option<Received> {
    if message.key().is_some() && message.payload().is_none() {
        return None;
    }
    let header = |name: &str| {
        let header = message.headers()?.iter().find(|header| header.key.eq_ignore_ascii_case(name))?;
        header.value.map(text)
    };
    let data = message.payload().map(text).unwrap_or_default();
    let structured = header("content-type").and_then(|mode| Received::structured(&mode, message.payload()?));
    Some(structured.unwrap_or_else(|| Received {
        id: header("ce_id").unwrap_or_else(|| format!("{}/{}/{}", message.topic(), message.partition(), message.offset())),
        r#type: header("ce_type").unwrap_or_default(),
        time:
            header("ce_time").and_then(|time| DateTime::parse_from_rfc3339(&time).ok()).map(|time| time.with_timezone(&Utc)),
        traceparent: header("ce_traceparent"),
        data,
    }))
}

/// A topic may contain any bytes: they are made a text that can be stored.
fn text(bytes: &[u8]) -> String {
    storable(&String::from_utf8_lossy(bytes))
}
