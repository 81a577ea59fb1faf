//! Events from the stream `orders.events`. The place is the last event, as `<offset> <id>`. Reading starts with that event,
//! which proves that nothing left the stream.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use futures_util::StreamExt;
use lapin::message::Delivery;
use lapin::options::{BasicAckOptions, BasicConsumeOptions, BasicQosOptions};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{Connection, ConnectionProperties};
use tokio::time::timeout;

use crate::event::Event;
use crate::store::Store;

const STREAM: &str = "orders.events";
/// How many events RabbitMQ may send ahead of an acknowledgement.
const AHEAD: u16 = 200;
/// How long a stream may be silent before it is opened again. RabbitMQ does not always say that it has stopped to send, and
/// after a crash it takes a while until it sends.
const SILENCE: Duration = Duration::from_secs(30);

pub async fn read(url: &str, store: &Store) -> Result<()> {
    let connection = Connection::connect(url, ConnectionProperties::default()).await?;
    let channel = connection.create_channel().await?;
    channel.basic_qos(AHEAD, BasicQosOptions::default()).await?;
    let mut last = store.place(STREAM)?;
    let offset = last.as_ref().and_then(|last| last.split(' ').next()?.parse().ok()).map(AMQPValue::LongLongInt);
    let mut arguments = FieldTable::default();
    arguments.insert("x-stream-offset".into(), offset.unwrap_or(AMQPValue::LongString("first".into())));
    let (name, options) = ("notifications".into(), BasicConsumeOptions::default());
    let mut consumer = channel.basic_consume(STREAM.into(), name, options, arguments).await?;
    while let Ok(delivery) = timeout(SILENCE, consumer.next()).await {
        let delivery = delivery.context("RabbitMQ ended the stream")??;
        let (place, event) = read_event(&delivery)?;
        match last.take() {
            Some(last) if last != place => return store.lost(STREAM, &format!("the stream has `{place}`, not `{last}`")),
            Some(_) => {}
            None => store.receive(&[event], STREAM, &place)?,
        }
        delivery.acker.ack(BasicAckOptions::default()).await?;
    }
    last.map_or(Ok(()), |last| store.lost(STREAM, &format!("the stream has no event `{last}` any more")))
}

/// The place of an event, and the event.
fn read_event(delivery: &Delivery) -> Result<(String, Event)> {
    let headers = delivery.properties.headers().as_ref().map(FieldTable::inner).context("a message has no headers")?;
    let Some(AMQPValue::LongLongInt(offset)) = headers.get("x-stream-offset") else { bail!("{STREAM} is not a stream") };
    let attribute = |name: &str| match headers.get(format!("cloudEvents_{name}").as_str())? {
        AMQPValue::LongString(text) => Some(text.to_string()),
        _ => None,
    };
    let event = Event::binary(attribute, &delivery.data, format!("{STREAM}/{offset}"));
    Ok((format!("{offset} {}", event.id), event))
}
