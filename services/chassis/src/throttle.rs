//! Log lines that would repeat: at most one a second for a key.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How long a key is quiet after a line.
const QUIET: Duration = Duration::from_secs(1);
/// From this number of keys on, those that are not quiet any more are forgotten.
const MANY: usize = 1000;

/// When a key's last line was written, and how many have been left out since.
struct Said {
    at: Instant,
    omitted: u64,
}

/// Whether the line with this key is written now, and how many were left out before it: `Some(None)` if none was.
pub fn line(key: &str) -> Option<Option<u64>> {
    static SAID: Mutex<Option<HashMap<String, Said>>> = Mutex::new(None);
    let mut said = SAID.lock().unwrap_or_else(PoisonError::into_inner);
    let said = said.get_or_insert_default();
    if let Some(known) = said.get_mut(key) {
        if known.at.elapsed() < QUIET {
            known.omitted += 1;
            return None;
        }
        let omitted = std::mem::take(&mut known.omitted);
        known.at = Instant::now();
        return Some((omitted > 0).then_some(omitted));
    }
    if said.len() >= MANY {
        said.retain(|_, known| known.at.elapsed() < QUIET);
    }
    said.insert(key.to_owned(), Said { at: Instant::now(), omitted: 0 });
    Some(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_key_is_quiet_for_a_second_and_then_says_what_it_left_out() {
        assert_eq!(line("one"), Some(None));
        assert_eq!(line("other"), Some(None));
        assert_eq!((line("one"), line("one")), (None, None));
        tokio::time::sleep(QUIET).await;
        assert_eq!(line("one"), Some(Some(2)));
        assert_eq!(line("other"), Some(None));
    }
}
