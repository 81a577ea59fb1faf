//! Compares events with a service's contract: the JSON Schemas in its folder `contract/`.

use std::collections::BTreeMap;
use std::error::Error;
use std::fs;
use std::path::PathBuf;

use chassis::events::EventType;
use jsonschema::{Retrieve, Uri, Validator};
use serde_json::{Value, json};

/// The start of the schemas' addresses. Behind it is the path in the folder.
const BASE: &str = "contract:///";

/// The contract of a service.
pub struct Contract {
    folder: PathBuf,
    event: Validator,
    /// By the event's type.
    data: BTreeMap<String, Validator>,
}

impl Contract {
    /// The contract in this folder.
    pub fn read(folder: &str) -> Self {
        let schemas = Schemas(folder.into());
        let files = fs::read_dir(schemas.0.join("events")).expect("the folder of the events");
        let names = files.map(|file| file.expect("a file").file_name().into_string().expect("text"));
        let data = names.map(|name| {
            let r#type = name.strip_suffix(".json").expect("a schema").to_owned();
            (r#type, schemas.validator(&format!("events/{name}")))
        });
        let data = data.collect();
        Self { data, event: schemas.validator("event.json"), folder: schemas.0 }
    }

    /// The types that have a schema.
    pub fn types(&self) -> Vec<&str> {
        self.data.keys().map(String::as_str).collect()
    }

    /// What the contract does not say of this event.
    pub fn faults(&self, event: &Value) -> Vec<String> {
        let r#type = event["type"].as_str().unwrap_or_default();
        let Some(data) = self.data.get(r#type) else { return vec![format!("the contract has no type {type}")] };
        let of_data = data.iter_errors(&event["data"]);
        of_data.chain(self.event.iter_errors(event)).map(|fault| format!("{}: {fault}", fault.instance_path())).collect()
    }

    /// Checks events that a test has received.
    #[track_caller]
    pub fn check<'a>(&self, events: impl IntoIterator<Item = &'a Value>) {
        for event in events {
            let faults = self.faults(event);
            assert!(faults.is_empty(), "{faults:#?} in {event:#}");
        }
    }
}

/// The claims about a contract, each a test of every service that has one.
impl Contract {
    /// It has a schema for every type that is published, and for no other; asyncapi.yaml shows each.
    pub fn has_the_types(&self, types: &[EventType]) {
        let mut published: Vec<&str> = types.iter().flat_map(|versions| versions.iter()).map(|it| it.name).collect();
        published.sort_unstable();
        assert_eq!(self.types(), published);
        let document = fs::read_to_string(self.folder.join("asyncapi.yaml")).expect("a document");
        for r#type in published {
            // One message by Kafka, and one by RabbitMQ.
            assert_eq!(document.matches(&format!("events/{type}.json")).count(), 2, "{type} in asyncapi.yaml");
        }
    }

    /// The examples fit it, and there is one of each type.
    pub fn fits_its_examples(&self) {
        let examples = self.examples();
        self.check(&examples);
        let mut shown: Vec<&str> = examples.iter().map(|event| event["type"].as_str().expect("a type")).collect();
        shown.sort_unstable();
        assert_eq!(shown, self.types());
    }

    /// An event that lacks a field, other than one of `optional`, or has another one does not fit it.
    pub fn demands_every_field_but(&self, optional: &[&str]) {
        for event in self.examples() {
            for (place, fields) in [("", event.as_object()), ("/data", event["data"].as_object())] {
                for field in fields.expect("an object").keys().filter(|field| !optional.contains(&field.as_str())) {
                    let mut changed = event.clone();
                    changed.pointer_mut(place).and_then(Value::as_object_mut).expect("an object").remove(field);
                    assert!(!self.faults(&changed).is_empty(), "{place}/{field}");
                }
                let mut changed = event.clone();
                changed.pointer_mut(place).expect("an object")["note"] = json!("new");
                assert!(!self.faults(&changed).is_empty(), "{place}/note");
            }
        }
    }

    /// An event of each type.
    fn examples(&self) -> Vec<Value> {
        serde_json::from_str(&fs::read_to_string(self.folder.join("examples.json")).expect("examples")).expect("JSON")
    }
}

/// The schemas of a folder. They are open for new fields, because readers ignore those. Here they are closed: a field that
/// the contract does not describe is a fault.
#[derive(Clone)]
struct Schemas(PathBuf);

impl Schemas {
    fn schema(&self, path: &str) -> Value {
        let text = fs::read_to_string(self.0.join(path)).unwrap_or_else(|error| panic!("{path}: {error}"));
        let mut schema = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{path}: {error}"));
        close(&mut schema);
        schema
    }

    fn validator(&self, path: &str) -> Validator {
        let options = jsonschema::options().with_base_uri(format!("{BASE}{path}")).with_retriever(self.clone());
        options.build(&self.schema(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
    }
}

impl Retrieve for Schemas {
    fn retrieve(&self, uri: &Uri<String>) -> Result<Value, Box<dyn Error + Send + Sync>> {
        let path = uri.as_str().strip_prefix(BASE).ok_or_else(|| format!("{uri} is not in the contract"))?;
        Ok(self.schema(path))
    }
}

fn close(schema: &mut Value) {
    match schema {
        Value::Object(fields) => {
            if fields.get("type").is_some_and(|kind| kind == "object") && fields.contains_key("properties") {
                fields.insert("additionalProperties".to_owned(), false.into());
            }
            fields.values_mut().for_each(close);
        }
        Value::Array(items) => items.iter_mut().for_each(close),
        _ => {}
    }
}
