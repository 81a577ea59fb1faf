//! Brokers that ask who a client is. The tests with passwords need a real broker: `TEST_KAFKA_SECURE_BROKERS` names one, and
//! `TEST_KAFKA_CA_FILE` its authority. Its user `app` has the password `app-secret` and may do everything; its user
//! `limited` may do what ACLs permit.

use std::io::Read;
use std::net::TcpListener;
use std::path::Path;
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use broker::kafka;
use chassis::events::{Broker, KafkaSettings, TopicCommand, Wakeups};
use chrono::Utc;
use tokio::time::{Instant, sleep_until, timeout};

use crate::cluster::{self, Cluster};
use crate::logged::logged;
use crate::suite::fakes::{Applied, Log};
use crate::suite::{SOURCE, Server, new_name, relaying};

fn cluster(brokers: &str, variables: &[(&str, &str)]) -> kafka::Cluster {
    let variables = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    kafka::Cluster::with_variables(KafkaSettings::new(brokers.parse().expect("brokers")), variables).expect("right")
}

/// Waits until the log names a refusal on the way to or from the topic.
async fn until_refused(topic: &str, because: &str) {
    logged();
    dev::wait::until(because, async || {
        let refusal =
            |line: &str| line.contains(topic) && line.contains("the broker refuses this client") && line.contains(because);
        logged().lines().any(refusal)
    })
    .await;
    assert!(!logged().lines().any(|line| line.contains(topic) && line.contains("AllBrokersDown")), "{}", logged());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_speaks_another_protocol_is_named_as_such() {
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a port");
    let address = listener.local_addr().expect("an address").to_string();
    // It closes the connection when it does not understand the client, as brokers do.
    std::thread::spawn(move || {
        listener.incoming().for_each(|client| drop(client.and_then(|mut client| client.read(&mut [0; 4096]))));
    });
    for protocol in ["ssl", "plaintext"] {
        let cluster = cluster(&address, &[("KAFKA_SECURITY_PROTOCOL", protocol)]);
        let (topic, log, wakeups, inbox) = (new_name("topic"), Log::new(1), Wakeups::default(), Applied::default());
        tokio::select! {
            never = cluster.publish(topic, SOURCE, &log, &wakeups) => match never {},
            () = until_refused(topic, "listener?") => {}
        }
        let topic = new_name("topic");
        tokio::select! {
            never = cluster.consume(new_name("group"), topic, &inbox) => match never {},
            () = until_refused(topic, "listener?") => {}
        }
    }
}

/// A secured broker, and the file of its authority.
fn secured() -> Option<(String, String)> {
    let secured = (std::env::var("TEST_KAFKA_SECURE_BROKERS"), std::env::var("TEST_KAFKA_CA_FILE"));
    if let (Ok(brokers), Ok(ca)) = secured {
        return Some((brokers, ca));
    }
    eprintln!("skipped: TEST_KAFKA_SECURE_BROKERS and TEST_KAFKA_CA_FILE name no broker");
    None
}

/// An unsigned token of `app`, which expires in so many seconds.
fn token(seconds: i64) -> String {
    let now = Utc::now().timestamp();
    let claims = serde_json::json!({ "sub": "app", "iat": now - 600, "exp": now + seconds }).to_string();
    let [head, claims] = [r#"{"alg":"none"}"#, &claims].map(|part| BASE64_URL_SAFE_NO_PAD.encode(part));
    format!("{head}.{claims}.")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secured_broker_takes_a_token_and_one_that_it_does_not_take_is_named_as_such() {
    let Some((brokers, ca)) = secured() else { return };
    logged();
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("token");
    let cluster = |file: Option<&Path>| {
        let mut settings = KafkaSettings::new(brokers.parse().expect("brokers"));
        settings.oauth_token_file = file.map(Path::to_owned);
        let variables = [("SECURITY_PROTOCOL", "sasl_ssl"), ("SSL_CA_LOCATION", &ca), ("SASL_MECHANISM", "OAUTHBEARER")];
        let variables = variables.map(|(name, value)| (format!("KAFKA_{name}"), value.to_owned()));
        kafka::Cluster::with_variables(settings, variables).expect("right")
    };
    // It expires within the test, so both clients must read the next one.
    let lifetime = Duration::from_secs(8);
    let expiry = Instant::now() + lifetime;
    std::fs::write(&file, token(8)).expect("written");
    let (topic, log, inbox, wakeups) = (new_name("topic"), Log::new(20), Applied::default(), Wakeups::default());
    let renewed = async {
        // They read the file again when a fifth of the time is left.
        let _ = timeout(lifetime / 2, inbox.until_all(&log)).await;
        std::fs::write(&file, token(3600)).expect("written");
        sleep_until(expiry).await;
        log.append(20);
        inbox.until_all(&log).await;
    };
    let right = cluster(Some(&file));
    tokio::select! {
        never = right.publish(topic, SOURCE, &log, &wakeups) => match never {},
        never = right.consume(new_name("group"), topic, &inbox) => match never {},
        () = renewed => {}
    }
    std::fs::write(&file, format!("{}x", token(3600))).expect("written");
    for (file, because) in [(Some(&*file), "uthentication"), (None, "KAFKA_OAUTH_TOKEN_FILE is not set")] {
        let (topic, wrong) = (new_name("topic"), cluster(file));
        tokio::select! {
            never = wrong.publish(topic, SOURCE, &log, &wakeups) => match never {},
            () = until_refused(topic, because) => {}
        }
    }
}

/// Permits `limited` to do this.
fn permit(operation: &str, kind: &str, name: &str) {
    let tool = ["tool", "org.apache.kafka.tools.AclCommand", "--bootstrap-server"];
    let brokers = std::env::var("TEST_KAFKA_BROKERS").expect("it names the same broker");
    let rule = [&*brokers, "--add", "--allow-principal", "User:limited", "--operation", operation, kind, name];
    cluster::script(None, &[&tool[..], &rule].concat());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_principal_that_may_not_create_topics_uses_those_that_were_made_beforehand() {
    let Some((brokers, ca)) = secured() else { return };
    let client = |user: &str| {
        let password = format!("{user}-secret");
        let variables = [
            ("KAFKA_SECURITY_PROTOCOL", "sasl_ssl"),
            ("KAFKA_SSL_CA_LOCATION", &*ca),
            ("KAFKA_SASL_MECHANISM", "PLAIN"),
            ("KAFKA_SASL_USERNAME", user),
            ("KAFKA_SASL_PASSWORD", &password),
        ];
        cluster(&brokers, &variables)
    };
    let (topic, group, log, inbox) = (new_name("topic"), new_name("group"), Log::new(20), Applied::default());
    for (operation, kind, name) in
        [("write", "--topic", topic), ("describe", "--topic", topic), ("read", "--topic", topic), ("read", "--group", group)]
    {
        permit(operation, kind, name);
    }
    logged();
    let error = client("limited").run(topic, &TopicCommand::Create).await.expect_err("it may not");
    assert!(error.contains("this principal may not create it: create it beforehand"), "{error}");
    let told = dev::wait::until("the relay says so", async || {
        logged().lines().any(|line| line.contains(topic) && line.contains("create it beforehand (docs/events.md)"))
    });
    relaying(client("limited"), topic, &log, told).await;

    client("app").run(topic, &TopicCommand::Create).await.expect("created");
    let (limited, wakeups) = (client("limited"), Wakeups::default());
    tokio::select! {
        never = limited.publish(topic, SOURCE, &log, &wakeups) => match never {},
        never = limited.consume(group, topic, &inbox) => match never {},
        () = inbox.until_all(&log) => {}
    }
    assert_eq!(Cluster::new().read(topic).len(), 20, "in the topic that was made for it");
    let (stranger, inbox) = (new_name("group"), Applied::default());
    tokio::select! {
        never = limited.consume(stranger, topic, &inbox) => match never {},
        () = until_refused(topic, "Group authorization failed") => {}
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secured_broker_takes_the_right_password_and_a_wrong_one_is_named_as_such() {
    let Some((brokers, ca)) = secured() else { return };
    for mechanism in ["PLAIN", "SCRAM-SHA-512"] {
        let variables = |password: &'static str| {
            [
                ("KAFKA_SECURITY_PROTOCOL", "sasl_ssl"),
                ("KAFKA_SSL_CA_LOCATION", &*ca),
                ("KAFKA_SASL_MECHANISM", mechanism),
                ("KAFKA_SASL_USERNAME", "app"),
                ("KAFKA_SASL_PASSWORD", password),
            ]
        };
        let (topic, log, inbox) = (new_name("topic"), Log::new(20), Applied::default());
        let (right, wakeups) = (cluster(&brokers, &variables("app-secret")), Wakeups::default());
        tokio::select! {
            never = right.publish(topic, SOURCE, &log, &wakeups) => match never {},
            never = right.consume(new_name("group"), topic, &inbox) => match never {},
            () = inbox.until_all(&log) => {}
        }
        let (wrong, topic) = (cluster(&brokers, &variables("guess")), new_name("topic"));
        tokio::select! {
            never = wrong.publish(topic, SOURCE, &log, &wakeups) => match never {},
            () = until_refused(topic, "uthentication") => {}
        }
        let topic = new_name("topic");
        tokio::select! {
            never = wrong.consume(new_name("group"), topic, &inbox) => match never {},
            () = until_refused(topic, "uthentication") => {}
        }
        assert!(!logged().contains("guess"));
    }
    let plain = cluster(&brokers, &[]);
    let (topic, inbox) = (new_name("topic"), Applied::default());
    tokio::select! {
        never = plain.consume(new_name("group"), topic, &inbox) => match never {},
        () = until_refused(topic, "listener?") => {}
    }
}
