//! From the log to the topic, with faults that only librdkafka's mock cluster can be told to have: a certain request fails
//! in a certain way. So these tests use the mock whatever the variables say. `records` has what a real broker refuses.

use rdkafka::types::RDKafkaApiKey;
use rdkafka::types::RDKafkaRespErr::{
    RD_KAFKA_RESP_ERR__TRANSPORT as DISCONNECTED, RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE as REFUSED,
    RD_KAFKA_RESP_ERR_NO_ERROR as NONE, RD_KAFKA_RESP_ERR_NOT_ENOUGH_REPLICAS as TRY_AGAIN,
    RD_KAFKA_RESP_ERR_REQUEST_TIMED_OUT as LATE,
};

use crate::cluster::{Cluster, read};
use crate::suite::fakes::{Log, assert_all, assert_in_order};
use crate::suite::{Record, Server};

fn ids(records: &[Record]) -> impl Iterator<Item = String> {
    records.iter().map(Record::id)
}

#[tokio::test]
async fn a_place_is_stored_only_when_everything_before_it_lies_at_the_broker() {
    for errors in [
        &[TRY_AGAIN, DISCONNECTED, NONE, LATE, DISCONNECTED][..],
        // What is refused stops the producer; the relay starts again from the stored place.
        &[NONE, REFUSED],
        &[REFUSED, NONE, NONE, REFUSED, NONE, DISCONNECTED, REFUSED, NONE, TRY_AGAIN, NONE, NONE, NONE, REFUSED],
    ] {
        let cluster = Cluster::mock();
        let (topic, mut log) = (cluster.new_topic(), Log::new(400));
        cluster.mock.as_ref().expect("it is one").request_errors(RDKafkaApiKey::Produce, errors);
        let brokers = cluster.brokers();
        log.check = Some(Box::new(move |log, up_to| {
            let there: Vec<String> = ids(&read(&brokers, topic)).collect();
            assert!(log.ids_up_to(up_to).iter().all(|id| there.contains(id)), "stored before it was confirmed");
        }));
        cluster.publish(topic, &log).await;

        let records = read(&cluster.brokers(), topic);
        assert_all(&log, ids(&records));
        assert_in_order(ids(&records));
    }
}

#[tokio::test]
async fn an_event_that_is_refused_is_not_overtaken_by_those_sent_after_it() {
    for taken in 1..8 {
        let cluster = Cluster::mock();
        // Large ones, several of which do not fit one request; but this broker forgets what is beyond 5 MB.
        let (topic, mut log) = (cluster.new_topic(), Log::new(24));
        log.ballast = 100_000;
        let errors = [[NONE; 8].split_at(taken).0, &[REFUSED]].concat();
        cluster.mock.as_ref().expect("it is one").request_errors(RDKafkaApiKey::Produce, &errors);
        cluster.publish(topic, &log).await;

        let records = read(&cluster.brokers(), topic);
        assert_all(&log, ids(&records));
        assert_in_order(ids(&records));
    }
}
