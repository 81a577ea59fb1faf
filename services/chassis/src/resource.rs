//! What a process says of itself in traces, metrics and log lines: OpenTelemetry's
//! [resource](https://opentelemetry.io/docs/specs/semconv/resource/service/).

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::OnceLock;

use clap::{Args, Command};
use percent_encoding::percent_decode_str;
use uuid::Uuid;

/// The variables of the resource, as
/// <https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/> names them.
#[derive(Debug, Clone, Args)]
pub struct ResourceConfig {
    /// the service's name in traces, metrics and log lines [default: the program's]
    #[arg(long, env = "OTEL_SERVICE_NAME")]
    otel_service_name: Option<String>,
    /// what else traces and metrics say of the process, `name=value`, separated by commas
    #[arg(long, env = "OTEL_RESOURCE_ATTRIBUTES", value_parser = attributes)]
    otel_resource_attributes: Option<Attributes>,
}

type Attributes = BTreeMap<String, String>;

/// The attributes of a process: `service.name`, `service.version`, `service.instance.id`, and what the variables add.
#[derive(Debug, Clone)]
pub struct Resource(Attributes);

/// This process, once it is known.
static PROCESS: OnceLock<Resource> = OnceLock::new();

impl ResourceConfig {
    /// This process, which runs `program` and is called as the variables say. All calls return what the first one did.
    pub fn describe(&self, program: &Command) -> &'static Resource {
        let version = program.get_version().unwrap_or_default();
        PROCESS.get_or_init(|| {
            let mut resource = Resource::new(program.get_name(), version);
            resource.0.extend(self.otel_resource_attributes.clone().unwrap_or_default());
            let name = self.otel_service_name.clone().filter(|name| !name.is_empty());
            resource.0.extend(name.map(|name| ("service.name".to_owned(), name)));
            resource
        })
    }
}

impl Resource {
    /// A new instance of `service`.
    pub fn new(service: &str, version: &str) -> Self {
        let instance = Uuid::now_v7().to_string();
        let own = [("service.name", service), ("service.version", version), ("service.instance.id", &instance)];
        Self(own.map(|(name, value)| (name.to_owned(), value.to_owned())).into())
    }

    /// The attributes, by name.
    pub(crate) fn attributes(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// The attributes of the service as members of a JSON object, behind another member.
    pub(crate) fn members(&self) -> String {
        let text = |text| serde_json::Value::from(text).to_string();
        let of_service = self.attributes().filter(|(name, _)| name.starts_with("service."));
        of_service.map(|(name, value)| format!(",{}:{}", text(name), text(value))).collect()
    }
}

/// Appends `target_info`, which describes this process, in Prometheus' text format:
/// <https://opentelemetry.io/docs/specs/otel/compatibility/prometheus_and_openmetrics/#resource-attributes>.
pub(crate) fn render(text: &mut String) {
    let Some(resource) = PROCESS.get() else { return };
    let name = "target_info";
    let _ = writeln!(text, "\n# HELP {name} What traces say of the process.\n# TYPE {name} gauge");
    let _ = writeln!(text, "{name}{{{}}} 1", labels(resource));
}

/// The attributes as labels. Attributes whose names become the same label share it.
fn labels(resource: &Resource) -> String {
    let mut labels: BTreeMap<String, String> = BTreeMap::new();
    for (name, value) in resource.attributes() {
        let mut label: String = name.chars().map(|it| if it.is_ascii_alphanumeric() { it } else { '_' }).collect();
        if label.starts_with(|first: char| first.is_ascii_digit()) {
            label.insert_str(0, "key_");
        }
        let value = value.replace('\\', r"\\").replace('"', "\\\"").replace('\n', "\\n");
        labels.entry(label).and_modify(|shared| *shared += &format!(";{value}")).or_insert(value);
    }
    labels.iter().map(|(label, value)| format!("{label}=\"{value}\"")).collect::<Vec<_>>().join(",")
}

/// The pairs of a list of `name=value`, with their values decoded.
pub(crate) fn pairs(text: &str) -> Result<Vec<(&str, String)>, &'static str> {
    fn read(pair: &str) -> Option<(&str, String)> {
        let (name, value) = pair.split_once('=')?;
        Some((name.trim(), percent_decode_str(value.trim()).decode_utf8().ok()?.into_owned()))
    }
    let pairs = text.split(',').map(str::trim).filter(|pair| !pair.is_empty());
    pairs.map(read).collect::<Option<_>>().ok_or("must be name=value, or several separated by commas")
}

fn attributes(text: &str) -> Result<Attributes, &'static str> {
    let pairs = pairs(text)?;
    if pairs.iter().any(|(name, _)| name.is_empty()) {
        return Err("has a value without a name");
    }
    Ok(pairs.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_attribute_is_a_label_and_only_those_of_the_service_are_in_log_lines() {
        let mut resource = Resource::new("users", "1.2.3");
        let instance = resource.0["service.instance.id"].clone();
        let said = attributes("deployment.environment.name=a%22b%5Cc%0Ad, 9lives=yes,a.b=1,a-b=2,service.namespace=shop");
        resource.0.extend(said.expect("attributes"));
        let expected = [
            r#"a_b="2;1""#,
            r#"deployment_environment_name="a\"b\\c\nd""#,
            r#"key_9lives="yes""#,
            &format!(r#"service_instance_id="{instance}""#),
            r#"service_name="users""#,
            r#"service_namespace="shop""#,
            r#"service_version="1.2.3""#,
        ];
        assert_eq!(labels(&resource), expected.join(","));
        let object: Attributes =
            serde_json::from_str(&format!("{{\"level\":\"INFO\"{}}}", resource.members())).expect("JSON");
        let names: Vec<&str> = object.keys().map(String::as_str).collect();
        assert_eq!(names, ["level", "service.instance.id", "service.name", "service.namespace", "service.version"]);
    }

    #[test]
    fn an_attribute_has_a_name() {
        for wrong in ["prod", "=prod", "a=1,=2"] {
            attributes(wrong).expect_err(wrong);
        }
        assert_eq!(attributes("").expect("none"), Attributes::new());
    }
}
