//! What every broker's relay and consumer promise. Each transport's test program runs all of it against its own broker.

pub mod consuming;
pub mod fakes;
pub mod relaying;

use std::pin::pin;
use std::task::Poll;

use chassis::events::{Broker, Wakeups};
use uuid::Uuid;

use fakes::{Applied, Log};

/// What the relays of these tests publish as.
pub const SOURCE: &str = "/things";

/// A broker to test with.
pub trait Server: Sized {
    /// The transport.
    type Broker: Broker;

    /// One that all tests of the program use at once.
    fn shared() -> impl Future<Output = Self>;

    /// One of this test's own, which can be taken down.
    fn own() -> impl Future<Output = Self>;

    /// A client of it.
    fn broker(&self) -> Self::Broker;

    /// An unused topic.
    fn new_topic(&self) -> &'static str;

    /// All events that the broker has of the topic, oldest first of each subject.
    fn read(&self, topic: &str) -> Vec<Record>;

    /// Sends a message to the topic that no relay would send: its id as a consumer sees it, unless the payload has one.
    /// `header` is a header that no text is in.
    fn send(
        &self,
        topic: &str,
        header: Option<&[u8]>,
        content_type: Option<&str>,
        payload: &[u8],
    ) -> impl Future<Output = String>;

    /// The server after somebody has deleted the topic with everything in it.
    fn without(self, topic: &'static str) -> impl Future<Output = Self>;

    /// Takes it down, as unkindly as it can be done.
    fn down(&mut self);

    /// Brings it up again.
    fn up(&mut self);

    /// Does something while a relay takes `log` to `topic`.
    async fn relaying<T>(&self, topic: &'static str, log: &Log, meanwhile: impl Future<Output = T>) -> T {
        relaying(self.broker(), topic, log, meanwhile).await
    }

    /// Runs a relay of `log` until the broker has confirmed all of it.
    async fn publish(&self, topic: &'static str, log: &Log) {
        self.relaying(topic, log, log.until_published()).await;
    }

    /// Does something while `inbox` gets what comes to `topic`.
    async fn consuming<T>(
        &self,
        group: &str,
        topic: &'static str,
        inbox: &Applied,
        meanwhile: impl Future<Output = T>,
    ) -> T {
        consuming(self.broker(), group, topic, inbox, meanwhile).await
    }

    /// Consumes until everything in the log is applied.
    async fn consume_all(&self, group: &str, topic: &'static str, log: &Log, inbox: &Applied) {
        self.consuming(group, topic, inbox, inbox.until_all(log)).await;
    }
}

/// Does something while a relay takes `log` to `topic`.
pub async fn relaying<T>(broker: impl Broker, topic: &'static str, log: &Log, meanwhile: impl Future<Output = T>) -> T {
    let wakeups = Wakeups::default();
    tokio::select! {
        never = broker.publish(topic, SOURCE, log, &wakeups) => match never {},
        done = meanwhile => done,
    }
}

/// Does something while `inbox` gets what comes to `topic`.
pub async fn consuming<T>(
    broker: impl Broker,
    group: &str,
    topic: &'static str,
    inbox: &Applied,
    meanwhile: impl Future<Output = T>,
) -> T {
    tokio::select! {
        never = broker.consume(group, topic, inbox) => match never {},
        done = meanwhile => done,
    }
}

/// Runs a relay until it has been polled so often; or until it is done.
async fn relay_for(polls: usize, broker: impl Broker, topic: &'static str, log: &Log) {
    let wakeups = Wakeups::default();
    let mut relay = pin!(broker.publish(topic, SOURCE, log, &wakeups));
    let mut left = polls;
    let cut = std::future::poll_fn(|context| {
        left = left.saturating_sub(1);
        if left == 0 {
            return Poll::Ready(());
        }
        relay.as_mut().poll(context).map(|never| match never {})
    });
    tokio::select! {
        () = cut => {}
        () = log.until_published() => {}
    }
}

/// An unused name for a topic or a group.
pub fn new_name(what: &str) -> &'static str {
    format!("{what}-{}", Uuid::now_v7()).leak()
}

/// An event as the broker has it.
pub struct Record {
    /// The attributes of the CloudEvent, by their names without a prefix.
    pub attributes: Vec<(String, String)>,
    pub content_type: String,
    /// What the broker orders or routes by.
    pub key: String,
    pub value: String,
}

impl Record {
    pub fn id(&self) -> String {
        self.attribute("id")
    }

    pub fn attribute(&self, name: &str) -> String {
        let found = self.attributes.iter().find(|(other, _)| other == name);
        found.unwrap_or_else(|| panic!("no {name}")).1.clone()
    }
}

/// The tests of a transport, by the names of their claims.
#[macro_export]
macro_rules! suite {
    ($server:ty: $($module:ident::$claim:ident)*) => {
        $(#[tokio::test(flavor = "multi_thread")]
        async fn $claim() {
            $crate::suite::$module::$claim::<$server>().await;
        })*
    };
    ($server:ty) => {
        $crate::suite! { $server:
            relaying::an_event_is_published_once_in_its_order_as_a_cloudevent
            relaying::an_event_appended_later_is_published_too
            relaying::a_relay_stopped_anywhere_loses_nothing_and_keeps_the_order
            relaying::what_a_position_says_is_published_survives_the_end_of_the_broker
            relaying::a_broker_that_is_away_holds_events_back_and_loses_none
            consuming::an_event_arrives_as_it_was_published
            consuming::a_consumer_stopped_anywhere_applies_everything_at_least_once_and_in_order
            consuming::a_consumer_goes_on_behind_what_it_has_applied
            consuming::an_instance_takes_over_where_another_one_was_stopped
            consuming::an_inbox_that_fails_gets_the_same_events_again_and_none_is_skipped
            consuming::a_message_that_is_no_event_arrives_without_a_type
            consuming::an_event_in_structured_mode_arrives_as_any_other
            consuming::a_topic_deleted_before_anything_was_read_gets_the_whole_log_again
            consuming::a_broker_that_is_away_for_a_while_interrupts_and_loses_nothing
        }
    };
}
