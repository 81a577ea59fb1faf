//! The types of a service's events, and the versions of a type.
//!
//! The log holds an event once, in the version in which it was written. While a type has two versions, every reader of the
//! feed and of the topic gets the event in both: the missing one is converted. docs/events.md has the steps from one version
//! to the next.

use std::borrow::Cow;

use serde_json::Value;
use serde_json::value::to_raw_value;

use super::event::{LoggedEvent, Position, split_type};

/// A type of event, such as `order.placed`: its versions, oldest first. The newest one is always published.
pub type EventType = &'static [Version];

/// Makes the data of one version from the data of another.
pub type Convert = fn(Value) -> Value;

/// A version of a type of event.
#[derive(Debug, Clone, Copy)]
pub struct Version {
    /// The CloudEvents type, such as `order.placed.v1`.
    pub name: &'static str,
    /// Whether this version is published although there is a newer one. Without it, the log may still have such events.
    pub published: bool,
    /// Makes this version's data from the previous version's.
    pub up: Convert,
    /// Makes the previous version's data from this version's.
    pub down: Convert,
}

impl Version {
    /// The first version of a type.
    pub const fn first(name: &'static str) -> Self {
        Self { name, published: true, up: unchanged, down: unchanged }
    }
}

fn unchanged(data: Value) -> Value {
    data
}

/// The event in each version in which it is published, the oldest version first.
pub(crate) fn published(event: LoggedEvent, types: &[EventType]) -> Vec<LoggedEvent> {
    match find(&event, types) {
        Some((versions, stored)) if versions.len() > 1 => {
            let newest = versions.len() - 1;
            let wanted = (0..=newest).filter(|&at| at == newest || versions[at].published);
            wanted.map(|at| convert(&event, versions, stored, at)).collect()
        }
        _ => vec![event],
    }
}

/// The events with every version in which each is published. The last version of an event has the event's position, and the
/// others have the position before. So a relay that was stopped between two versions sends both again.
pub(crate) fn published_from(
    after: Position,
    events: Vec<(Position, LoggedEvent)>,
    types: &[EventType],
) -> Vec<(Position, LoggedEvent)> {
    let mut before = after;
    let mut all = Vec::with_capacity(events.len());
    for (position, event) in events {
        all.extend(published(event, types).into_iter().map(|version| (before, version)));
        if let Some((last, _)) = all.last_mut() {
            *last = position;
        }
        before = position;
    }
    all
}

/// The event in the newest version of its type, which is the only one that the service's own code reads.
pub fn newest<'a>(event: &'a LoggedEvent, types: &[EventType]) -> Cow<'a, LoggedEvent> {
    match find(event, types) {
        Some((versions, stored)) if stored + 1 < versions.len() => {
            Cow::Owned(convert(event, versions, stored, versions.len() - 1))
        }
        _ => Cow::Borrowed(event),
    }
}

/// The versions of the event's type, and the index of its own. A type that the service does not know has none.
fn find(event: &LoggedEvent, types: &[EventType]) -> Option<(EventType, usize)> {
    types.iter().find_map(|versions| Some((*versions, versions.iter().position(|version| version.name == event.r#type)?)))
}

fn convert(event: &LoggedEvent, versions: EventType, from: usize, to: usize) -> LoggedEvent {
    let mut converted = event.clone();
    if from != to {
        let data = serde_json::from_str(event.data.get()).expect("the data of an event is JSON");
        let data = if from < to {
            versions[from + 1..=to].iter().fold(data, |data, version| (version.up)(data))
        } else {
            versions[to + 1..=from].iter().rev().fold(data, |data, version| (version.down)(data))
        };
        converted.data = to_raw_value(&data).expect("a JSON value is JSON");
        converted.r#type = versions[to].name.to_owned();
    }
    converted
}

/// Counts an event that a consumer skipped. `known` are the types that it reads. Another version of one of them is a sign
/// that the consumer is older than the publisher; any other type is none of its business.
pub(crate) fn count_skipped(replica: &'static str, r#type: &str, known: &[&str]) {
    let is_version = known.iter().any(|known| without_version(known) == without_version(r#type));
    let reason = if is_version { "version" } else { "type" };
    metrics::counter!("events_skipped_total", "replica" => replica, "reason" => reason).increment(1);
}

/// `order.placed` of `order.placed.v1`.
fn without_version(r#type: &str) -> &str {
    split_type(r#type).map_or(r#type, |(name, _)| name)
}

#[cfg(test)]
mod tests {
    use chrono::Utc;
    use serde_json::json;
    use uuid::Uuid;

    use super::*;

    const FIRST: Version = Version::first("thing.made.v1");
    const SECOND: Version = Version {
        name: "thing.made.v2",
        published: true,
        up: |data| json!({ "size": { "cm": data["cm"] } }),
        down: |data| json!({ "cm": data["size"]["cm"] }),
    };
    const THIRD: Version = Version {
        name: "thing.made.v3",
        published: true,
        up: |data| json!({ "size": data["size"], "colour": "grey" }),
        down: |data| json!({ "size": data["size"] }),
    };

    const V1: &str = r#"{"cm":7}"#;
    const V2: &str = r#"{"size":{"cm":7}}"#;
    const V3: &str = r#"{"colour":"grey","size":{"cm":7}}"#;

    fn stored(r#type: &str, data: &str) -> LoggedEvent {
        let data = serde_json::from_str(data).expect("JSON");
        LoggedEvent {
            subject: Uuid::nil(),
            version: 1,
            r#type: r#type.to_owned(),
            data,
            occurred_at: Utc::now(),
            actor: None,
            traceparent: None,
        }
    }

    fn texts(events: &[LoggedEvent]) -> Vec<(&str, &str)> {
        events.iter().map(|event| (&*event.r#type, event.data.get())).collect()
    }

    #[test]
    fn whatever_version_is_stored_all_that_are_published_come_out() {
        const ALL: &[EventType] = &[&[FIRST, SECOND, THIRD]];
        const RETIRED: &[EventType] =
            &[&[Version { published: false, ..FIRST }, Version { published: false, ..SECOND }, THIRD]];
        for (name, data) in [("thing.made.v1", V1), ("thing.made.v2", V2), ("thing.made.v3", V3)] {
            let all = published(stored(name, data), ALL);
            assert_eq!(texts(&all), [("thing.made.v1", V1), ("thing.made.v2", V2), ("thing.made.v3", V3)]);
            assert_eq!(texts(&published(stored(name, data), RETIRED)), [("thing.made.v3", V3)]);
            assert_eq!(texts(&[newest(&stored(name, data), ALL).into_owned()]), [("thing.made.v3", V3)]);
        }
        assert_eq!(texts(&published(stored("other.made.v1", "{}"), ALL)), [("other.made.v1", "{}")]);
    }

    #[test]
    fn a_relay_that_confirms_one_of_two_versions_has_not_passed_the_event() {
        const BOTH: &[EventType] = &[&[FIRST, SECOND]];
        let at = |position| Position { epoch: 1, xid: 1, position };
        let log = vec![(at(5), stored("thing.made.v1", V1)), (at(6), stored("thing.made.v2", V2))];
        let positions: Vec<_> = published_from(at(4), log, BOTH).into_iter().map(|(position, _)| position).collect();
        assert_eq!(positions, [at(4), at(5), at(5), at(6)]);
    }

    #[test]
    fn another_version_of_a_known_type_is_not_just_any_type() {
        assert_eq!(without_version("order.placed.v2"), "order.placed");
        assert_eq!(without_version("order.placed.vast"), "order.placed.vast");
    }
}
