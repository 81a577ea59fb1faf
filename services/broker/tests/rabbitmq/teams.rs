//! Queues of other teams, as docs/events.md says: a quorum queue with one active consumer, and a queue for what cannot be
//! handled.

use futures_util::StreamExt;
use lapin::options::{
    BasicAckOptions, BasicConsumeOptions, BasicNackOptions, BasicQosOptions, QueueBindOptions, QueueDeclareOptions,
};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{Channel, Consumer};
use tokio::time::timeout;

use crate::server::{RabbitMq, header_of};
use crate::suite::fakes::{Log, PATIENCE};
use crate::suite::{Server, new_name};

/// Declares a durable quorum queue with more arguments.
async fn declare(channel: &Channel, queue: &str, more: &[(&str, AMQPValue)]) {
    let mut arguments = FieldTable::default();
    arguments.insert("x-queue-type".into(), AMQPValue::LongString("quorum".into()));
    for (name, value) in more {
        arguments.insert((*name).into(), value.clone());
    }
    channel.queue_declare(queue.into(), QueueDeclareOptions::durable(), arguments).await.expect("declared");
}

async fn consume(channel: &Channel, queue: &str) -> Consumer {
    channel.basic_qos(1, BasicQosOptions::default()).await.expect("a number");
    let (options, arguments) = (BasicConsumeOptions::default(), FieldTable::default());
    channel.basic_consume(queue.into(), "".into(), options, arguments).await.expect("a consumer")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_teams_queue_gets_its_events_in_order_and_sets_aside_what_it_cannot_handle() {
    let server = RabbitMq::shared().await;
    let (topic, log) = (server.new_topic(), Log::about(1, 0));
    // Creates the exchange.
    server
        .relaying(topic, &log, async {
            let (_connection, channel) = server.open().await;
            dev::wait::until("the exchange is there", async || {
                let list = server.control(&["list_exchanges", "name"]).expect("a list");
                list.lines().any(|name| name == topic)
            })
            .await;
            let (queue, dead) = (new_name("billing"), new_name("billing.dead"));
            declare(&channel, dead, &[]).await;
            let text = |text: &str| AMQPValue::LongString(text.into());
            let arguments = [
                ("x-single-active-consumer", AMQPValue::Boolean(true)),
                ("x-delivery-limit", AMQPValue::LongInt(2)),
                ("x-dead-letter-exchange", text("")),
                ("x-dead-letter-routing-key", text(dead)),
            ];
            declare(&channel, queue, &arguments).await;
            let options = QueueBindOptions::default();
            channel
                .queue_bind(queue.into(), topic.into(), "thing.*.v1".into(), options, FieldTable::default())
                .await
                .expect("bound");

            log.append(10);
            log.until_published().await;
            let (first, second) = (server.open().await, server.open().await);
            let (mut active, mut waiting) = (consume(&first.1, queue).await, consume(&second.1, queue).await);
            let mut handled = Vec::new();
            let poison = log.ids()[4].clone();
            while handled.len() < 9 {
                let delivery = timeout(PATIENCE, active.next()).await.expect("in time").expect("open").expect("an event");
                let id = header_of(&delivery, "cloudEvents_id").expect("an id");
                if id == poison {
                    delivery
                        .nack(BasicNackOptions { requeue: true, ..BasicNackOptions::default() })
                        .await
                        .expect("returned");
                } else {
                    delivery.ack(BasicAckOptions::default()).await.expect("acknowledged");
                    handled.push(id);
                }
            }
            let expected: Vec<String> = log.ids().into_iter().filter(|id| *id != poison).collect();
            assert_eq!(handled, expected, "in order, but for the one that could not be handled");
            let mut aside = consume(&channel, dead).await;
            let delivery = timeout(PATIENCE, aside.next()).await.expect("in time").expect("open").expect("an event");
            assert_eq!(header_of(&delivery, "cloudEvents_id"), Some(poison));

            // The other consumer gets nothing while the first lives, and goes on when it is gone.
            drop((active, first));
            log.append(1);
            let delivery = timeout(PATIENCE, waiting.next()).await.expect("in time").expect("open").expect("an event");
            assert_eq!(header_of(&delivery, "cloudEvents_id"), log.ids().pop());
        })
        .await;
}
