//! How a cluster is reached and used: the service's own variables, and any setting of librdkafka.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use chassis::events::{Brokers, KafkaSettings};
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::error::KafkaError;

/// Settings that the guarantees rest on, and what to do instead of setting them.
const REFUSED: &[(&str, &str)] = &[
    ("bootstrap.servers", "set KAFKA_BROKERS"),
    ("metadata.broker.list", "set KAFKA_BROKERS"),
    ("acks", "an event counts as published once all in-sync replicas have it"),
    ("request.required.acks", "an event counts as published once all in-sync replicas have it"),
    ("enable.idempotence", "without it, a retry would double events or change their order"),
    ("enable.gapless.guarantee", "an event must not overtake an earlier one that was refused"),
    ("max.in.flight", "an event must not overtake an earlier one that was refused"),
    ("max.in.flight.requests.per.connection", "an event must not overtake an earlier one that was refused"),
    ("transactional.id", "events are published without transactions"),
    ("enable.auto.commit", "a place is committed once the events before it are applied"),
    ("auto.commit.enable", "a place is committed once the events before it are applied"),
    ("enable.auto.offset.store", "a place is committed once the events before it are applied"),
    ("auto.offset.reset", "events that are gone must be noticed, and not be skipped"),
    ("partition.assignment.strategy", "the consumer sets the place of each partition that it is assigned"),
    ("group.protocol", "the consumer sets the place of each partition that it is assigned"),
];

/// Variables that begin with `KAFKA_`, and are no settings of librdkafka.
const OWN: &[&str] = &["BROKERS", "CONFIG_FILE", "OAUTH_TOKEN_FILE"];
/// The same, by how they begin.
const OWN_PREFIX: &str = "TOPIC_";

/// How a cluster is reached and used.
#[derive(Debug, Clone)]
pub(super) struct Settings {
    pub(super) own: KafkaSettings,
    /// Settings of librdkafka.
    client: Client,
}

/// It may contain passwords, so it is never shown.
#[derive(Clone, Default)]
struct Client(BTreeMap<String, String>);

impl std::fmt::Debug for Client {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_set().entries(self.0.keys()).finish()
    }
}

impl Settings {
    /// The defaults, for the cluster that these brokers belong to.
    pub(super) fn new(brokers: Brokers) -> Self {
        Self { own: KafkaSettings::new(brokers), client: Client::default() }
    }

    /// Adds what the file of settings and the `variables` say. A variable outweighs the file.
    ///
    /// # Errors
    /// The setting that is unknown, has a bad value, or would break a guarantee.
    pub(super) fn read(own: KafkaSettings, variables: impl IntoIterator<Item = (String, String)>) -> Result<Self, String> {
        let mut client = BTreeMap::new();
        if let Some(path) = &own.config_file {
            for (name, value) in read_file(path)? {
                check(&name, &value).map_err(|error| format!("KAFKA_CONFIG_FILE: {error}"))?;
                client.insert(name, value);
            }
        }
        for (variable, value) in variables {
            let Some(name) = variable.strip_prefix("KAFKA_") else { continue };
            if OWN.contains(&name) || name.starts_with(OWN_PREFIX) {
                continue;
            }
            let (name, value) = match name.strip_suffix("_FILE") {
                Some(name) => (name, read_secret(Path::new(&value)).map_err(|error| format!("{variable}: {error}"))?),
                None => (name, value),
            };
            let name = name.to_ascii_lowercase().replace('_', ".");
            check(&name, &value).map_err(|error| format!("{variable}: {error}"))?;
            client.insert(name, value);
        }
        Ok(Self { own, client: Client(client) })
    }

    /// The configuration of a client: `defaults`, what the operator has set, and then what the guarantees need.
    pub(super) fn client(&self, defaults: &[(&str, &str)], guarantees: &[(&str, &str)]) -> ClientConfig {
        let mut config = ClientConfig::new();
        let set = self.client.0.iter().map(|(name, value)| (&**name, &**value));
        let brokers = self.own.brokers.to_string();
        for (name, value) in defaults.iter().copied().chain(set).chain(guarantees.iter().copied()) {
            config.set(name, value);
        }
        // Some refusals are only told by a line of the log.
        config.set("bootstrap.servers", brokers).set_log_level(RDKafkaLogLevel::Info);
        config
    }

    /// The name of the topic of `service`.
    pub(super) fn topic(&self, service: &str) -> String {
        format!("{}{service}", self.own.topics.prefix)
    }
}

/// Refuses what breaks a guarantee, and what librdkafka refuses. The value is not shown: it may be a password.
fn check(name: &str, value: &str) -> Result<(), String> {
    if let Some((_, reason)) = REFUSED.iter().find(|(refused, _)| *refused == name) {
        return Err(format!("{name} cannot be set: {reason}"));
    }
    match ClientConfig::new().set(name, value).create_native_config() {
        Ok(_) => Ok(()),
        Err(KafkaError::ClientConfig(_, error, ..)) => {
            let error = error.replace(value, "…");
            Err(format!("{name} is not accepted: {error}"))
        }
        Err(error) => Err(format!("{name} is not accepted: {error}")),
    }
}

/// The settings in a file: `name=value` in each line that is neither empty nor a comment.
fn read_file(path: &Path) -> Result<Vec<(String, String)>, String> {
    let text = fs::read_to_string(path)
        .map_err(|error| format!("KAFKA_CONFIG_FILE: {} cannot be read: {error}", path.display()))?;
    let lines = text.lines().map(str::trim).enumerate();
    let settings = lines.filter(|(_, line)| !line.is_empty() && !line.starts_with(['#', '!']));
    settings
        .map(|(number, line)| match line.split_once('=') {
            Some((name, value)) => Ok((name.trim().to_owned(), value.trim().to_owned())),
            None => Err(format!("KAFKA_CONFIG_FILE: line {} of {} is not name=value", number + 1, path.display())),
        })
        .collect()
}

/// The secret in a file, without the line's end.
pub(super) fn read_secret(path: &Path) -> Result<String, String> {
    let text = fs::read_to_string(path).map_err(|error| format!("{} cannot be read: {error}", path.display()))?;
    Ok(text.trim_end_matches(['\r', '\n']).to_owned())
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn read(file: Option<&str>, variables: &[(&str, &str)]) -> Result<Settings, String> {
        let mut own = KafkaSettings::new("127.0.0.1:9092".parse().expect("a broker"));
        let mut written = tempfile::NamedTempFile::new().expect("a file");
        if let Some(text) = file {
            written.write_all(text.as_bytes()).expect("written");
            own.config_file = Some(written.path().to_owned());
        }
        Settings::read(own, variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())))
    }

    #[test]
    fn any_setting_passes_through_and_a_variable_outweighs_the_file() {
        let file = "# comment\n\nsecurity.protocol = sasl_ssl\nclient.id=file\n";
        let variables =
            [("KAFKA_CLIENT_ID", "variable"), ("KAFKA_BROKERS", "x:1"), ("KAFKA_TOPIC_PREFIX", "x"), ("PATH", "")];
        let config =
            read(Some(file), &variables).expect("right").client(&[("client.id", "default"), ("linger.ms", "1")], &[]);
        for (name, value) in [("security.protocol", "sasl_ssl"), ("client.id", "variable"), ("linger.ms", "1")] {
            assert_eq!(config.get(name), Some(value));
        }
        assert_eq!(config.get("bootstrap.servers"), Some("127.0.0.1:9092"));
    }

    #[test]
    fn a_secret_comes_from_a_file_and_is_not_shown() {
        let mut secret = tempfile::NamedTempFile::new().expect("a file");
        writeln!(secret, "open sesame").expect("written");
        let path = secret.path().to_str().expect("text");
        let settings = read(None, &[("KAFKA_SASL_PASSWORD_FILE", path)]).expect("right");
        assert_eq!(settings.client(&[], &[]).get("sasl.password"), Some("open sesame"));
        assert!(!format!("{settings:?}").contains("sesame"));
        let error = read(None, &[("KAFKA_SASL_PASSWORD_FILE", "/nowhere")]).expect_err("missing");
        assert!(error.starts_with("KAFKA_SASL_PASSWORD_FILE: /nowhere cannot be read"), "{error}");
    }

    #[test]
    fn a_setting_that_would_break_a_guarantee_is_refused_by_name() {
        for (name, _) in REFUSED {
            let error = read(Some(&format!("{name}=1")), &[]).expect_err(name);
            assert!(error.starts_with(&format!("KAFKA_CONFIG_FILE: {name} cannot be set: ")), "{error}");
            let variable = format!("KAFKA_{}", name.to_ascii_uppercase().replace('.', "_"));
            if variable != "KAFKA_BROKERS" {
                let error = read(None, &[(&variable, "1")]).expect_err(name);
                assert!(error.starts_with(&format!("{variable}: {name} cannot be set: ")), "{error}");
            }
        }
    }

    #[test]
    fn a_setting_that_librdkafka_does_not_know_stops_the_program_without_its_value() {
        for (variable, value) in [("KAFKA_SASL_PASWORD", "geheim"), ("KAFKA_SECURITY_PROTOCOL", "geheim")] {
            let error = read(None, &[(variable, value)]).expect_err("wrong");
            assert!(error.starts_with(variable) && !error.contains("geheim"), "{error}");
        }
    }
}
