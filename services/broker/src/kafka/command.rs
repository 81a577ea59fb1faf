//! What an operator does with the topic of a service.

use std::sync::Arc;
use std::time::Duration;

use chassis::error::chain;
use chassis::events::{TopicCommand, Trouble};
use rdkafka::producer::{FutureProducer, FutureRecord};

use super::connection::Listener;
use super::relay;
use super::settings::Settings;
use super::topic::Topic;

/// How long the brokers may take to confirm a tombstone.
const CONFIRMATION: Duration = Duration::from_secs(10);

/// Runs a command on the topic of `service`.
pub(super) async fn run(settings: &Settings, service: &'static str, command: &TopicCommand) -> Result<(), String> {
    let trouble = Arc::new(Trouble::new(service, "published"));
    let name = settings.topic(service);
    let topic = Topic::new(settings, &name, &trouble).map_err(|error| chain(&error))?;
    match command {
        TopicCommand::Create => {
            let is_new = topic.create().await.map_err(|error| chain(&error))?;
            println!("topic {name} {}", if is_new { "created" } else { "exists already" });
        }
        TopicCommand::Erase { ids } => {
            if !topic.limits().await.is_compacted {
                return Err(format!(
                    "the topic {name} is not compacted, or its configuration cannot be read: \
                    its records go when their retention ends"
                ));
            }
            let producer: FutureProducer<Listener> = relay::config(settings, service)
                .create_with_context(Listener::of_producer(settings, &trouble))
                .map_err(|error| chain(&error))?;
            for id in ids {
                let key = id.to_string();
                let tombstone = FutureRecord::<str, [u8]>::to(&name).key(&key);
                producer.send(tombstone, CONFIRMATION).await.map_err(|(error, _)| format!("{id}: {}", chain(&error)))?;
            }
            println!("{} tombstones written to {name}", ids.len());
        }
    }
    Ok(())
}
