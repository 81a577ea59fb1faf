//! Groups of an archive's entries that do not depend on each other, so that several sessions can create them at once.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use super::pg_dump::Entry;

/// Sorts the entries into at most `most` groups of about the same length. What depends on the same entry, such as a table,
/// is in one group, in the order of the archive.
pub(super) fn independent<'a>(entries: &[&'a Entry], most: usize) -> Vec<Vec<&'a Entry>> {
    let mut links = BTreeMap::new();
    for entry in entries {
        for other in &entry.depends {
            let (one, other) = (follow(&links, entry.number), follow(&links, *other));
            if one != other {
                links.insert(one.max(other), one.min(other));
            }
        }
    }
    let mut parts = BTreeMap::<i64, Vec<&Entry>>::new();
    for entry in entries {
        parts.entry(follow(&links, entry.number)).or_default().push(entry);
    }
    let mut parts: Vec<Vec<&Entry>> = parts.into_values().collect();
    parts.sort_by_key(|part| Reverse(part.len()));
    let mut groups = vec![Vec::new(); most.clamp(1, parts.len().max(1))];
    for part in parts {
        if let Some(shortest) = groups.iter_mut().min_by_key(|group| group.len()) {
            shortest.extend(part);
        }
    }
    groups
}

/// The end of the links from an entry: entries with the same end belong together.
fn follow(links: &BTreeMap<i64, i64>, mut number: i64) -> i64 {
    while let Some(next) = links.get(&number) {
        number = *next;
    }
    number
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(number: i64, depends: &[i64]) -> Entry {
        let mut entry =
            Entry::parse(&format!("{number}; 2606 {number} CONSTRAINT public t key me"), true).expect("an entry");
        entry.depends = depends.to_vec();
        entry
    }

    #[test]
    fn what_depends_on_the_same_entry_is_created_in_one_session_and_in_order() {
        // Of the tables 1 to 4; 14 attaches 13 to 12, and 15 follows 11.
        let entries: Vec<Entry> =
            [(10, &[1][..]), (11, &[1]), (12, &[2]), (13, &[3]), (14, &[12, 13]), (15, &[11]), (16, &[4])]
                .map(|(number, depends)| entry(number, depends))
                .into();
        let entries: Vec<&Entry> = entries.iter().collect();
        let numbers = |most| -> Vec<Vec<i64>> {
            let groups = independent(&entries, most);
            groups.iter().map(|group| group.iter().map(|entry| entry.number).collect()).collect()
        };
        assert_eq!(numbers(2), [vec![10, 11, 15, 16], vec![12, 13, 14]]);
        assert_eq!(numbers(9), [vec![10, 11, 15], vec![12, 13, 14], vec![16]]);
        assert_eq!(numbers(1).concat().len(), 7);
        assert_eq!(independent(&[], 4), [Vec::<&Entry>::new()]);
    }
}
