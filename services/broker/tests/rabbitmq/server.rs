//! The servers of these tests, all messages of a stream, and what was logged.

use std::io;
use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex as Blocking, OnceLock, PoisonError};

use broker::rabbitmq;
use chassis::events::{RabbitmqSettings, RabbitmqUrl};
use dev::rabbitmq::Server as Private;
use dev::wait::block_on;
use futures_util::StreamExt;
use lapin::message::Delivery;
use lapin::options::{
    BasicConsumeOptions, BasicPublishOptions, BasicQosOptions, ConfirmSelectOptions, QueueDeclareOptions, QueueDeleteOptions,
};
use lapin::types::{AMQPValue, FieldTable, LongString};
use lapin::{BasicProperties, Channel, Connection, ConnectionProperties};
use tokio::sync::{Mutex, OwnedMutexGuard};
use tokio::time::timeout;

use crate::suite::fakes::PATIENCE;
use crate::suite::{Record, Server, new_name};

/// A header that only these tests' own messages have.
const SENTINEL: &str = "sentinel";

/// A server. It starts in some seconds, so the tests share one, and those that take a server down share another one in turn.
pub enum RabbitMq {
    Shared(&'static Private),
    Own(OwnedMutexGuard<Option<Private>>),
}

impl Deref for RabbitMq {
    type Target = Private;

    fn deref(&self) -> &Private {
        match self {
            Self::Shared(server) => server,
            Self::Own(server) => server.as_ref().expect("it was started"),
        }
    }
}

impl DerefMut for RabbitMq {
    fn deref_mut(&mut self) -> &mut Private {
        match self {
            Self::Shared(_) => panic!("other tests use it"),
            Self::Own(server) => server.as_mut().expect("it was started"),
        }
    }
}

impl RabbitMq {
    pub fn settings(&self) -> RabbitmqSettings {
        RabbitmqSettings { url: RabbitmqUrl::Text(self.url()), ca_file: None, max_age: None, max_bytes: None }
    }

    /// A connection of another team, and a channel with confirmations.
    pub async fn open(&self) -> (Connection, Channel) {
        let connection = Connection::connect(&self.url(), ConnectionProperties::default()).await.expect("connected");
        let channel = connection.create_channel().await.expect("a channel");
        channel.confirm_select(ConfirmSelectOptions::default()).await.expect("confirmations");
        (connection, channel)
    }
}

impl Server for RabbitMq {
    type Broker = rabbitmq::Server;

    async fn shared() -> Self {
        static SHARED: OnceLock<Private> = OnceLock::new();
        Self::Shared(SHARED.get_or_init(start))
    }

    async fn own() -> Self {
        static OWN: OnceLock<Arc<Mutex<Option<Private>>>> = OnceLock::new();
        let mut server = OWN.get_or_init(Arc::default).clone().lock_owned().await;
        match &mut *server {
            // A test before this one may have failed with its server down.
            Some(server) => {
                server.stop().expect("stopped");
                server.start_again().expect("started");
            }
            none => {
                let mut first = start();
                // RabbitMQ 3.10 may lose its very first stream if it is killed within half a second.
                declare_stream(&first).await;
                first.restart().expect("restarted");
                *none = Some(first);
            }
        }
        Self::Own(server)
    }

    fn broker(&self) -> rabbitmq::Server {
        rabbitmq::Server::new(self.settings()).expect("a URL")
    }

    fn new_topic(&self) -> &'static str {
        new_name("topic")
    }

    fn read(&self, topic: &str) -> Vec<Record> {
        let queue = format!("{topic}.events");
        block_on(async || read(self, &queue).await.iter().map(record).collect())
    }

    async fn send(&self, topic: &str, header: Option<&[u8]>, content_type: Option<&str>, payload: &[u8]) -> String {
        let mut headers = FieldTable::default();
        if let Some(header) = header {
            headers.insert("trace".into(), AMQPValue::LongString(LongString::from(header.to_vec())));
            headers.insert("cloudEvents_time".into(), AMQPValue::LongString(LongString::from(header.to_vec())));
        }
        let (queue, marker) = (format!("{topic}.events"), new_name("marker"));
        headers.insert("marker".into(), AMQPValue::LongString(marker.into()));
        let mut properties = BasicProperties::default().with_headers(headers);
        if let Some(content_type) = content_type {
            properties = properties.with_content_type(content_type.into());
        }
        publish(self, topic, payload, properties).await;
        let messages = read(self, &queue).await;
        let sent = messages.iter().find(|message| header_of(message, "marker").as_deref() == Some(marker));
        format!("{queue}/{}", offset(sent.expect("it is there")))
    }

    async fn without(self, topic: &'static str) -> Self {
        let (_connection, channel) = self.open().await;
        let stream = format!("{topic}.events");
        channel.queue_delete(stream.as_str().into(), QueueDeleteOptions::default()).await.expect("deleted");
        self
    }

    fn down(&mut self) {
        self.stop().expect("killed");
    }

    fn up(&mut self) {
        self.start_again().expect("started");
        // It accepts connections before it has found its streams.
        dev::wait::until_blocking("its streams are there", || {
            let queues = self.control(&["list_queues", "name", "state"]).unwrap_or_default();
            queues.lines().all(|queue| queue.ends_with("running"))
        });
    }
}

async fn declare_stream(server: &Private) {
    let connection = Connection::connect(&server.url(), ConnectionProperties::default()).await.expect("connected");
    let channel = connection.create_channel().await.expect("a channel");
    let mut arguments = FieldTable::default();
    arguments.insert("x-queue-type".into(), AMQPValue::LongString("stream".into()));
    channel.queue_declare("first".into(), QueueDeclareOptions::durable(), arguments).await.expect("declared");
}

fn start() -> Private {
    Private::start().expect("RabbitMQ runs")
}

/// Publishes a message to an exchange.
async fn publish(server: &RabbitMq, exchange: &str, payload: &[u8], properties: BasicProperties) {
    let (_connection, channel) = server.open().await;
    let options = BasicPublishOptions::default();
    let sent = channel.basic_publish(exchange.into(), "some.key".into(), options, payload, properties).await;
    let confirmed = sent.expect("sent").await.expect("confirmed");
    assert!(confirmed.is_ack(), "{confirmed:?}");
}

/// All messages of a stream. The stream has no end that a reader would see, so a message of the reader's own shows it.
pub async fn read(server: &RabbitMq, stream: &str) -> Vec<Delivery> {
    let (_connection, channel) = server.open().await;
    let sentinel = new_name(SENTINEL);
    let mut headers = FieldTable::default();
    headers.insert(SENTINEL.into(), AMQPValue::LongString(sentinel.into()));
    let (properties, options) = (BasicProperties::default().with_headers(headers), BasicPublishOptions::default());
    channel.basic_publish("".into(), stream.into(), options, b"", properties).await.expect("sent").await.expect("there");

    channel.basic_qos(10_000, BasicQosOptions::default()).await.expect("a number");
    let mut arguments = FieldTable::default();
    arguments.insert("x-stream-offset".into(), AMQPValue::LongString("first".into()));
    let options = BasicConsumeOptions::default();
    let mut reader = channel.basic_consume(stream.into(), "".into(), options, arguments).await.expect("a reader");
    let mut messages = Vec::new();
    loop {
        let next = timeout(PATIENCE, reader.next()).await.expect("in time").expect("not cancelled").expect("a message");
        match header_of(&next, SENTINEL) {
            None => messages.push(next),
            Some(other) if other == sentinel => return messages,
            Some(_) => {}
        }
    }
}

pub fn header_of(message: &Delivery, name: &str) -> Option<String> {
    match message.properties.headers().as_ref()?.inner().get(name)? {
        AMQPValue::LongString(text) => Some(text.to_string()),
        _ => None,
    }
}

pub fn offset(message: &Delivery) -> i64 {
    match message.properties.headers().as_ref().and_then(|headers| headers.inner().get("x-stream-offset")) {
        Some(AMQPValue::LongLongInt(offset)) => *offset,
        other => panic!("no offset: {other:?}"),
    }
}

fn record(message: &Delivery) -> Record {
    let headers = message.properties.headers().as_ref().map(|headers| headers.inner().keys()).into_iter().flatten();
    let named = headers.filter_map(|name| Some((name.as_str(), name.as_str().strip_prefix("cloudEvents_")?)));
    Record {
        attributes: named.map(|(header, name)| (name.to_owned(), header_of(message, header).expect("a text"))).collect(),
        content_type: message.properties.content_type().as_ref().map(|text| text.as_str().to_owned()).unwrap_or_default(),
        key: message.routing_key.as_str().to_owned(),
        value: String::from_utf8(message.data.clone()).expect("text"),
    }
}

/// What this program has logged.
#[derive(Clone, Copy)]
pub struct Logs(&'static Blocking<Vec<u8>>);

/// Keeps what is logged from now on, and before since the first call.
pub fn logs() -> Logs {
    static LOGS: OnceLock<Logs> = OnceLock::new();
    *LOGS.get_or_init(|| {
        let logs = Logs(Box::leak(Box::default()));
        let subscriber = tracing_subscriber::fmt().with_env_filter("info,lapin=off").with_ansi(false);
        subscriber.with_writer(move || logs).init();
        logs
    })
}

impl Logs {
    pub fn contain(self, text: &str) -> bool {
        String::from_utf8_lossy(&self.0.lock().unwrap_or_else(PoisonError::into_inner)).contains(text)
    }
}

impl io::Write for Logs {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
