//! Opaque cursors: the position where the next page of a list or a feed starts.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest, Sha256};

/// Bytes of the digest that ends a cursor.
const DIGEST: usize = 8;

/// Writes `place` as a cursor of the list `list`.
pub fn encode(list: &str, place: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode([place, &digest(list, place)].concat())
}

/// Reads the place from a cursor that [`encode`] wrote for the same list; `None` for any other text.
///
/// The digest detects mistakes. It is not a secret, because the place is not one.
pub fn decode(list: &str, cursor: &str) -> Option<Vec<u8>> {
    let mut bytes = URL_SAFE_NO_PAD.decode(cursor).ok()?;
    let place = bytes.len().checked_sub(DIGEST)?;
    let claimed = bytes.split_off(place);
    (claimed == digest(list, &bytes)).then_some(bytes)
}

fn digest(list: &str, place: &[u8]) -> [u8; DIGEST] {
    let digest = Sha256::new().chain_update(list).chain_update([0]).chain_update(place).finalize();
    let mut short = [0; DIGEST];
    short.copy_from_slice(&digest[..DIGEST]);
    short
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_is_read_back_by_its_own_list_only() {
        let cursor = encode("users", b"place");
        assert_eq!(decode("users", &cursor).as_deref(), Some(&b"place"[..]));
        assert_eq!(decode("orders", &cursor), None);
        assert_eq!(decode("users", &cursor[1..]), None);
        assert_eq!(decode("users", ""), None);
        assert_eq!(decode("users", "bm90IGEgY3Vyc29y"), None);
    }
}
