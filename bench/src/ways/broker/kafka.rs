//! A Kafka broker: the one that `TEST_KAFKA_BROKERS` names, else one from Maven's jars, else librdkafka's mock cluster.

use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use broker::kafka::MockCluster;
use uuid::Uuid;

/// The folder of the broker that this program starts, in the workspace.
const HOME: &str = "target/kafka/bench";
/// The first of its ports.
const PORT: &str = "29392";

/// A broker.
pub struct Kafka {
    address: String,
    /// Names the topics of this run.
    prefix: String,
    kind: Kind,
}

enum Kind {
    Named,
    Started,
    Mock { _cluster: MockCluster },
}

impl Kafka {
    /// Takes the named broker, or starts one.
    pub fn start() -> Result<Self> {
        let prefix = format!("bench-{}.", Uuid::now_v7());
        if let Ok(address) = std::env::var("TEST_KAFKA_BROKERS") {
            return Ok(Self { address, prefix, kind: Kind::Named });
        }
        if has_java() {
            eprintln!("starting Kafka");
            return Ok(Self { address: script(&["start"])?, prefix, kind: Kind::Started });
        }
        let topics = ["users", "orders"].map(|topic| format!("{prefix}{topic}"));
        let cluster =
            MockCluster::start(&topics.each_ref().map(String::as_str)).context("the mock cluster cannot be started")?;
        Ok(Self { address: cluster.brokers().to_string(), prefix, kind: Kind::Mock { _cluster: cluster } })
    }

    /// The variables that lead a service to it.
    pub fn variables(&self) -> [(&'static str, String); 2] {
        [("KAFKA_BROKERS", self.address.clone()), ("KAFKA_TOPIC_PREFIX", self.prefix.clone())]
    }

    /// What the broker is.
    pub fn name(&self) -> &'static str {
        match self.kind {
            Kind::Named => "the broker in TEST_KAFKA_BROKERS",
            Kind::Started => "Apache Kafka from Maven's jars, one broker",
            Kind::Mock { .. } => "librdkafka's mock cluster, because Java or Maven is missing",
        }
    }

    /// How many records a second `kafka-producer-perf-test` sends: so many, of this size, with all acknowledgements, to a
    /// topic of three partitions. `None` if Kafka's own programs cannot be run.
    pub fn produce(&self, records: u64, size: u64) -> Result<Option<f64>> {
        if matches!(self.kind, Kind::Mock { .. }) || !has_java() {
            return Ok(None);
        }
        let topic = format!("{}peer", self.prefix);
        let create = ["tool", "org.apache.kafka.tools.TopicCommand", "--bootstrap-server", &self.address, "--create"];
        script(&[&create[..], &["--topic", &topic, "--partitions", "3"]].concat())?;
        let (records, size) = (records.to_string(), size.to_string());
        let produce = ["tool", "org.apache.kafka.tools.ProducerPerformance", "--bootstrap-server", &self.address];
        let how = ["--topic", &topic, "--num-records", &records, "--record-size", &size, "--throughput", "-1"];
        let how = [&how[..], &["--command-property", "acks=all"]].concat();
        let report = script(&[&produce[..], &how].concat())?;
        let last = report.lines().last().unwrap_or_default();
        let rate = last.split(", ").find_map(|part| part.split_once(" records/sec")?.0.parse().ok());
        rate.map(Some).with_context(|| format!("kafka-producer-perf-test says `{last}`"))
    }
}

impl Drop for Kafka {
    fn drop(&mut self) {
        if let Kind::Started = self.kind
            && let Err(error) = script(&["stop"])
        {
            eprintln!("Kafka: {error:#}");
        }
    }
}

/// Whether the script can get Kafka and run it.
fn has_java() -> bool {
    ["java", "mvn"].iter().all(|program| {
        let mut command = Command::new(program);
        command.arg("-version").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command.status().is_ok_and(|status| status.success())
    })
}

/// Runs `dev/kafka/kafka.sh`: what it prints.
fn script(arguments: &[&str]) -> Result<String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut command = Command::new(root.join("dev/kafka/kafka.sh"));
    command.args(arguments).env("KAFKA_HOME", root.join(HOME)).env("KAFKA_PORT", PORT);
    command.stdin(Stdio::null()).stderr(Stdio::inherit());
    let output = command.output().context("dev/kafka/kafka.sh cannot be run")?;
    ensure!(output.status.success(), "dev/kafka/kafka.sh {} failed; see above", arguments.join(" "));
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}
