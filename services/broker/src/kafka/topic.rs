//! The topic of a service: whether it exists, how it is made, and what it accepts.

use std::sync::Arc;
use std::time::Duration;

use chassis::events::Trouble;
use rdkafka::admin::{AdminClient, AdminOptions, ConfigResource, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::metadata::MetadataTopic;

use super::connection::{Client, Listener, config, give_token};
use super::settings::Settings;

/// How long the broker may take to say whether the topic exists. The process cannot end during this time.
const LOOK: Duration = Duration::from_secs(2);
/// How long the broker may take to create it, or to describe it.
const ANSWER: Duration = Duration::from_secs(10);
/// The number of copies in the broker's configuration.
const BROKERS_CHOICE: i32 = -1;

/// Why the topic cannot be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum TopicError {
    #[error("the Kafka client could not be created")]
    Client(#[source] KafkaError),
    #[error("the topic {0} could not be found, or not looked into")]
    Look(String, #[source] KafkaError),
    #[error("the topic {0} does not exist, and this principal may not create it: create it beforehand (docs/events.md)")]
    Forbidden(String, #[source] KafkaError),
    #[error("the topic {0} could not be created")]
    Create(String, #[source] KafkaError),
}

/// An administrator of one topic.
pub(super) struct Topic<'a> {
    settings: &'a Settings,
    pub(super) name: &'a str,
    admin: Client<AdminClient<Listener>>,
}

/// What a topic accepts, as far as the principal may know.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Limits {
    /// The largest record.
    pub(super) record: Option<usize>,
    /// Whether it keeps only the newest record of each key.
    pub(super) is_compacted: bool,
}

impl<'a> Topic<'a> {
    pub(super) fn new(settings: &'a Settings, name: &'a str, trouble: &Arc<Trouble>) -> Result<Self, TopicError> {
        let admin: AdminClient<Listener> = config(settings, &[], &[("allow.auto.create.topics", "false")])
            .create_with_context(Listener::new(settings, trouble))
            .map_err(TopicError::Client)?;
        give_token(admin.inner());
        Ok(Self { settings, name, admin: Client::new(admin, Duration::ZERO) })
    }

    /// Creates the topic if it is missing. It asks first, because a right to write to a topic does not include the right to
    /// create it.
    pub(super) async fn ensure(&self) -> Result<(), TopicError> {
        if !self.exists().await.map_err(|error| TopicError::Look(self.name.to_owned(), error))? {
            self.create().await?;
        }
        Ok(())
    }

    async fn exists(&self) -> Result<bool, KafkaError> {
        let (admin, topic) = (self.admin.share(), self.name.to_owned());
        let look = move || {
            let metadata = admin.inner().fetch_metadata(Some(&topic), LOOK)?;
            match metadata.topics().first().and_then(MetadataTopic::error).map(RDKafkaErrorCode::from) {
                None => Ok(true),
                Some(RDKafkaErrorCode::UnknownTopicOrPartition) => Ok(false),
                // A new topic whose leaders are not chosen yet exists.
                Some(RDKafkaErrorCode::LeaderNotAvailable) => Ok(true),
                Some(code) => Err(KafkaError::MetadataFetch(code)),
            }
        };
        // The call blocks.
        tokio::task::spawn_blocking(look).await.unwrap_or(Err(KafkaError::Canceled))
    }

    /// Whether the topic has never had a record: it is new, or was made anew.
    pub(super) async fn is_unused(&self) -> Result<bool, TopicError> {
        let (admin, topic) = (self.admin.share(), self.name.to_owned());
        let look = move || {
            let metadata = admin.inner().fetch_metadata(Some(&topic), LOOK)?;
            for partition in metadata.topics().iter().flat_map(MetadataTopic::partitions) {
                if admin.inner().fetch_watermarks(&topic, partition.id(), LOOK)?.1 > 0 {
                    return Ok(false);
                }
            }
            Ok(true)
        };
        let looked = tokio::task::spawn_blocking(look).await.unwrap_or(Err(KafkaError::Canceled));
        looked.map_err(|error| TopicError::Look(self.name.to_owned(), error))
    }

    /// Creates the topic, as the settings say, unless it exists by now. Returns whether it did.
    pub(super) async fn create(&self) -> Result<bool, TopicError> {
        let wanted = &self.settings.own.topics;
        let retention = wanted.retention.map(|time| i64::try_from(time.as_millis()).unwrap_or(i64::MAX).to_string());
        let replication = TopicReplication::Fixed(wanted.replication.unwrap_or(BROKERS_CHOICE));
        let mut topic = NewTopic::new(self.name, wanted.partitions, replication);
        if let Some(retention) = &retention {
            topic = topic.set("retention.ms", retention);
        }
        if let Some(policy) = &wanted.cleanup_policy {
            topic = topic.set("cleanup.policy", policy);
        }
        let options = AdminOptions::new().request_timeout(Some(ANSWER)).operation_timeout(Some(ANSWER));
        let failed = |error| TopicError::Create(self.name.to_owned(), error);
        let results = self.admin.create_topics([&topic], &options).await.map_err(failed)?;
        match results.into_iter().find_map(Result::err) {
            None => {
                tracing::info!(topic = self.name, "the topic was created");
                Ok(true)
            }
            Some((_, RDKafkaErrorCode::TopicAlreadyExists)) => Ok(false),
            Some((
                _,
                code @ (RDKafkaErrorCode::TopicAuthorizationFailed | RDKafkaErrorCode::ClusterAuthorizationFailed),
            )) => Err(TopicError::Forbidden(self.name.to_owned(), KafkaError::AdminOp(code))),
            Some((_, code)) => Err(failed(KafkaError::AdminOp(code))),
        }
    }

    /// What the topic accepts. A principal that may not read its configuration learns it from the broker's refusals.
    pub(super) async fn limits(&self) -> Limits {
        let options = AdminOptions::new().request_timeout(Some(LOOK));
        let described = self.admin.describe_configs(&[ResourceSpecifier::Topic(self.name)], &options).await;
        let Some(Ok(topic)) = described.ok().and_then(|described| described.into_iter().next()) else {
            return Limits::default();
        };
        let value = |topic: &ConfigResource, name: &str| topic.get(name).and_then(|entry| entry.value.clone());
        Limits {
            record: value(&topic, "max.message.bytes").and_then(|bytes| bytes.parse().ok()),
            is_compacted: value(&topic, "cleanup.policy").is_some_and(|policy| policy.contains("compact")),
        }
    }
}
