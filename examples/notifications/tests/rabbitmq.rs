//! The program beside the real orders service, by a real RabbitMQ.

mod support;

use axum::http::StatusCode;
use broker::rabbitmq;
use chassis::events::{RabbitmqSettings, RabbitmqUrl, publish};
use dev::rabbitmq::Server;
use dev::wait::until;
use lapin::options::{BasicPublishOptions, ConfirmSelectOptions, QueueDeclareOptions, QueueDeleteOptions};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Connection, ConnectionProperties};
use tokio::task::{JoinHandle, block_in_place};

use support::{Orders, Program, Webhook, kill, nothing_is_missing};

fn start() -> Server {
    block_in_place(|| Server::start().expect("RabbitMQ runs"))
}

/// A server that may be killed: RabbitMQ 3.10 may lose its very first stream if it is killed within half a second.
async fn start_settled() -> Server {
    let mut server = start();
    let connection = Connection::connect(&server.url(), ConnectionProperties::default()).await.expect("connected");
    let channel = connection.create_channel().await.expect("a channel");
    let mut arguments = FieldTable::default();
    arguments.insert("x-queue-type".into(), AMQPValue::LongString("stream".into()));
    let options = QueueDeclareOptions { durable: true, ..Default::default() };
    channel.queue_declare("first".into(), options, arguments).await.expect("declared");
    block_in_place(|| server.restart().expect("restarted"));
    server
}

/// Runs the relay of orders.
fn relay(orders: &Orders, server: &Server) -> JoinHandle<()> {
    let url = RabbitmqUrl::Text(server.url());
    let broker = rabbitmq::Server::new(RabbitmqSettings { url, ca_file: None, max_age: None, max_bytes: None });
    let (app, brokers) = (orders.app.clone(), [broker.expect("a URL")]);
    tokio::spawn(async move { match publish(&app, &brokers).await {} })
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_at_any_point_with_a_broker_that_is_killed_too_it_misses_nothing() {
    let mut server = start_settled().await;
    let (orders, webhook) = (Orders::start().await, Webhook::start(|_, _| StatusCode::OK).await);
    let _relay = relay(&orders, &server);
    let program = Program::new("rabbitmq", &["--rabbitmq-url", &server.url()], &webhook);
    nothing_is_missing(&orders, &webhook, &program, async |n| {
        block_in_place(|| match n {
            // RabbitMQ 3.10 that is killed soon after a stream was declared forgets where the stream is, and then refuses
            // every consumer of it with INTERNAL_ERROR. Stopping in order writes that down.
            5 => server.restart().expect("started"),
            10 => server.stop().expect("killed"),
            20 => server.start_again().expect("started"),
            _ => {}
        });
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn events_that_left_the_stream_before_they_were_read_are_noticed_and_the_rest_is_sent() {
    let server = start();
    let (orders, webhook) = (Orders::start().await, Webhook::start(|_, _| StatusCode::OK).await);
    let running_relay = relay(&orders, &server);
    let program = Program::new("rabbitmq", &["--rabbitmq-url", &server.url()], &webhook);
    let running = program.start();
    orders.place_and(&["pay", "ship"]).await;
    let events = orders.events().await;
    webhook.until_taken(&events).await;
    program.until_stored(events.len()).await;
    kill(running);

    // The stream is made anew, is shorter than what was read, and somebody has sent to it before the relay could fill it.
    running_relay.abort();
    let _ = running_relay.await;
    let connection = Connection::connect(&server.url(), ConnectionProperties::default()).await.expect("connected");
    let channel = connection.create_channel().await.expect("a channel");
    channel.queue_delete("orders.events".into(), QueueDeleteOptions::default()).await.expect("deleted");
    let mut stream = FieldTable::default();
    stream.insert("x-queue-type".into(), AMQPValue::LongString("stream".into()));
    channel.queue_declare("orders.events".into(), QueueDeclareOptions::durable(), stream).await.expect("declared");
    channel.confirm_select(ConfirmSelectOptions::default()).await.expect("confirmations");
    let (options, properties) =
        (BasicPublishOptions::default(), BasicProperties::default().with_headers(FieldTable::default()));
    let sent = channel.basic_publish("".into(), "orders.events".into(), options, b"", properties).await.expect("sent");
    sent.await.expect("confirmed");
    let _relay = relay(&orders, &server);
    orders.place_and(&[]).await;
    let _running = program.start();
    webhook.until_taken(&orders.events().await).await;
    until("the loss is counted", async || program.file().contains_key("lost: orders.events")).await;
    assert_eq!(webhook.taken().len(), events.len() + 1, "and nothing twice");
}
