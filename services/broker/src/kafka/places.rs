//! How far an inbox has read the partitions of a topic, and what shows that events are gone.
//!
//! Beside the next offset of a partition stands the timestamp of the record before it. A partition is read from that record
//! on: if it is another one, the topic was deleted and made anew.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use rdkafka::topic_partition_list::Offset;

/// A place in each partition that the inbox has read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Places(BTreeMap<i32, Place>);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Place {
    next: i64,
    /// Milliseconds since 1970; `None` if nothing is known of the record before.
    before: Option<i64>,
}

/// What a record is to the inbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Record {
    /// It is read for the first time.
    New,
    /// It was read before.
    Known,
    /// It stands where another one was read.
    Other,
}

impl Places {
    /// Takes a record that has arrived, and goes on behind it if it is new.
    pub(super) fn take(&mut self, partition: i32, offset: i64, timestamp: Option<i64>) -> Record {
        if let Some(place) = self.0.get(&partition)
            && offset < place.next
        {
            let is_other = offset + 1 == place.next && place.before.is_some() && place.before != timestamp;
            return if is_other { Record::Other } else { Record::Known };
        }
        self.0.insert(partition, Place { next: offset + 1, before: timestamp });
        Record::New
    }

    /// Where to start reading a partition. Without a place, where the group has committed.
    pub(super) fn start(&self, partition: i32) -> Offset {
        match self.0.get(&partition) {
            None => Offset::Stored,
            Some(Place { next, before: Some(_) }) => Offset::Offset(next - 1),
            Some(Place { next, before: None }) => Offset::Offset(*next),
        }
    }

    /// Goes to `next` in a partition, without knowing the record before.
    pub(super) fn set(&mut self, partition: i32, next: i64) {
        self.0.insert(partition, Place { next, before: None });
    }

    /// The next offset of a partition.
    pub(super) fn next(&self, partition: i32) -> Option<i64> {
        self.0.get(&partition).map(|place| place.next)
    }

    /// The next offsets, by partition.
    pub(super) fn iter(&self) -> impl Iterator<Item = (i32, i64)> {
        self.0.iter().map(|(partition, place)| (*partition, place.next))
    }
}

impl fmt::Display for Places {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (partition, Place { next, before })) in self.0.iter().enumerate() {
            let space = if index == 0 { "" } else { " " };
            write!(formatter, "{space}{partition}:{next}")?;
            if let Some(before) = before {
                write!(formatter, "@{before}")?;
            }
        }
        Ok(())
    }
}

impl FromStr for Places {
    type Err = std::num::ParseIntError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let place = |word: &str| {
            let (partition, place) = word.split_once(':').unwrap_or_default();
            let (next, before) = match place.split_once('@') {
                Some((next, before)) => (next, Some(before.parse()?)),
                None => (place, None),
            };
            Ok((partition.parse()?, Place { next: next.parse()?, before }))
        };
        text.split_whitespace().map(place).collect::<Result<_, _>>().map(Self)
    }
}

/// Where a partition begins and ends now, and where the inbox or its group goes on.
#[derive(Debug, Clone, Copy)]
pub(super) struct Standing {
    pub(super) partition: i32,
    pub(super) next: Option<i64>,
    pub(super) low: i64,
    pub(super) high: i64,
}

/// What has become of a topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Loss {
    /// Records of this partition are gone.
    Gone(i32),
    /// The topic was deleted and made anew, by what this partition shows.
    Anew(i32),
}

impl Standing {
    /// What is lost. `is_first` says that the inbox has just been filled, so a partition may begin anywhere.
    pub(super) fn loss(&self, is_first: bool) -> Option<Loss> {
        match self.next {
            None => (self.low > 0 && !is_first).then_some(Loss::Gone(self.partition)),
            Some(next) if next < self.low => Some(Loss::Gone(self.partition)),
            Some(next) if next > self.high => Some(Loss::Anew(self.partition)),
            Some(_) => None,
        }
    }

    /// How many offsets there are between the place and the end.
    pub(super) fn behind(&self) -> u64 {
        let next = self.next.unwrap_or(self.low).max(self.low);
        u64::try_from(self.high - next).unwrap_or_default()
    }
}

impl fmt::Display for Loss {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Gone(partition) => {
                write!(formatter, "records of partition {partition} were deleted before they were read")
            }
            Self::Anew(partition) => {
                write!(formatter, "the topic was deleted and made anew: partition {partition} shows it")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_written_and_read() {
        let mut places = Places::default();
        assert_eq!("".parse(), Ok(places.clone()));
        assert_eq!(places.take(2, 41, Some(1_700_000_000_000)), Record::New);
        assert_eq!(places.take(0, 6, None), Record::New);
        assert_eq!(places.to_string(), "0:7 2:42@1700000000000");
        assert_eq!(places.to_string().parse(), Ok(places));
        for wrong in ["x", "1", "1:", ":1", "1:2@", "1:2@x"] {
            wrong.parse::<Places>().expect_err(wrong);
        }
    }

    #[test]
    fn a_partition_is_read_from_the_record_before_its_place_and_another_record_there_is_noticed() {
        let mut places: Places = "0:7@100 1:7 2:0".parse().expect("places");
        let starts = [0, 1, 2, 3].map(|partition| places.start(partition));
        assert_eq!(starts, [Offset::Offset(6), Offset::Offset(7), Offset::Offset(0), Offset::Stored]);
        assert_eq!(places.take(0, 6, Some(100)), Record::Known);
        assert_eq!(places.take(0, 6, Some(101)), Record::Other);
        assert_eq!(places.take(0, 5, Some(50)), Record::Known);
        assert_eq!(places.take(1, 6, Some(101)), Record::Known);
        assert_eq!(places.take(0, 9, Some(200)), Record::New, "a compacted topic has gaps");
        assert_eq!(places.next(0), Some(10));
    }

    #[test]
    fn what_is_lost_shows_in_where_a_partition_begins_and_ends() {
        let standing = |next, low, high| Standing { partition: 1, next, low, high };
        assert_eq!(standing(Some(5), 5, 5).loss(false), None);
        assert_eq!(standing(Some(5), 6, 9).loss(false), Some(Loss::Gone(1)));
        assert_eq!(standing(Some(5), 0, 4).loss(false), Some(Loss::Anew(1)));
        assert_eq!(standing(None, 0, 4).loss(false), None);
        assert_eq!(standing(None, 3, 4).loss(false), Some(Loss::Gone(1)));
        assert_eq!(standing(None, 3, 4).loss(true), None);
        assert_eq!(standing(Some(5), 0, 9).behind(), 4);
        assert_eq!(standing(None, 3, 9).behind(), 6);
    }
}
