//! Servers that are reached by TLS, and servers that refuse.

use std::fs;

use broker::rabbitmq;
use chassis::events::{RabbitmqSettings, RabbitmqUrl};
use tempfile::tempdir;

use crate::server::{RabbitMq, logs};
use crate::suite::fakes::{Applied, Log, assert_all};
use crate::suite::{Server, consuming, relaying};

#[tokio::test(flavor = "multi_thread")]
async fn events_go_by_tls_if_an_authority_of_the_file_vouches_for_the_server() {
    let logs = logs();
    let server = RabbitMq::shared().await;
    let (topic, log, inbox) = (server.new_topic(), Log::new(20), Applied::default());
    let url = RabbitmqUrl::Text(server.tls_url());
    let trusting = RabbitmqSettings { url, ca_file: Some(server.ca_file()), ..server.settings() };
    let broker = rabbitmq::Server::new(trusting.clone()).expect("a URL");
    relaying(broker.clone(), topic, &log, log.until_published()).await;
    consuming(broker, "group", topic, &inbox, inbox.until_all(&log)).await;
    assert_all(&log, inbox.ids());

    let stranger = rabbitmq::Server::new(RabbitmqSettings { ca_file: None, ..trusting }).expect("a URL");
    log.append(1);
    let refused = dev::wait::until("it is named", async || logs.contain("invalid peer certificate"));
    relaying(stranger, topic, &log, refused).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_login_is_named_without_its_password_and_a_new_password_in_the_file_is_used() {
    let logs = logs();
    let server = RabbitMq::shared().await;
    let (topic, log, folder) = (server.new_topic(), Log::new(20), tempdir().expect("a folder"));
    let file = folder.path().join("url");
    let (user, host) = ("dev", server.url().rsplit_once('@').expect("a user").1.to_owned());
    fs::write(&file, format!("amqp://{user}:mistaken@{host}\n")).expect("written");
    let settings = RabbitmqSettings { url: RabbitmqUrl::File(file.clone()), ..server.settings() };
    let mended = async {
        dev::wait::until("it is named", async || logs.contain("RabbitMQ refuses the user dev")).await;
        fs::write(&file, server.url()).expect("written");
        log.until_published().await;
    };
    relaying(rabbitmq::Server::new(settings).expect("a file"), topic, &log, mended).await;
    assert!(!logs.contain("mistaken"), "a password was logged");
}

#[test]
fn a_url_that_is_none_is_refused_without_its_password() {
    for url in ["amqps://user:secret@host:port/", "amqp://user:secret@host/%2f?heartbeat=often"] {
        let url = RabbitmqUrl::Text(url.to_owned());
        let settings = RabbitmqSettings { url, ca_file: None, max_age: None, max_bytes: None };
        assert!(!format!("{settings:?}").contains("secret"));
        let refused = rabbitmq::Server::new(settings).expect_err("refused");
        assert_eq!(refused, "RABBITMQ_URL has no URL such as amqps://user:password@host/virtual-host");
    }
}
