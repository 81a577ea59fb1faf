//! What other teams' programs read of a topic: Java's own client, and the CloudEvents SDK of Python. `TEST_KAFKA_JARS` is
//! the folder with Kafka's jars, and `TEST_CLOUDEVENTS_PYTHON` a Python that has the SDK.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use crate::cluster::Cluster;
use crate::suite::Server;
use crate::suite::fakes::Log;

fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../dev/kafka").join(name)
}

#[track_caller]
fn lines(output: &Output) -> Vec<String> {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn javas_client_and_the_cloudevents_sdk_of_python_read_the_topic() {
    let cluster = Cluster::new();
    let (None, Ok(jars)) = (&cluster.mock, std::env::var("TEST_KAFKA_JARS")) else {
        eprintln!("skipped: TEST_KAFKA_BROKERS and TEST_KAFKA_JARS name no broker and no jars");
        return;
    };
    let (topic, log) = (cluster.new_topic(), Log::about(20, 60));
    cluster.publish(topic, &log).await;
    let mut java = Command::new("java");
    java.args(["-cp", &format!("{jars}/*")]).arg(script("ReadTopic.java")).args([&cluster.brokers().to_string(), topic]);
    let output = java.output().expect("java runs");
    let records = lines(&output);
    assert_eq!(records.len(), 60);
    for record in &records {
        let record: serde_json::Value = serde_json::from_str(record).expect("JSON");
        assert_eq!(record["partition"], record["expected_partition"], "by the hash of Java's client");
    }

    let Ok(python) = std::env::var("TEST_CLOUDEVENTS_PYTHON") else {
        eprintln!("skipped: TEST_CLOUDEVENTS_PYTHON names no Python with the CloudEvents SDK");
        return;
    };
    let mut python = Command::new(python);
    let mut reading = python
        .arg(script("read_events.py"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("Python runs");
    reading.stdin.take().expect("a pipe").write_all(&output.stdout).expect("written");
    let mut read = lines(&reading.wait_with_output().expect("it ends"));
    let version = |id: &str| id.rsplit('/').next().expect("a version").to_owned();
    let mut expected: Vec<String> =
        log.ids().into_iter().map(|id| format!("{id} thing.happened.v1 {}", version(&id))).collect();
    read.sort();
    expected.sort();
    assert_eq!(read, expected);
}
