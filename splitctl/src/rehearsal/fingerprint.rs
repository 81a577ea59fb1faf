//! What a rehearsal was made of, in a few numbers: another rehearsal is needed if one of them has changed.

use anyhow::Result;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::manifest::Owner;
use crate::moving::{Database, definitions_of};

/// The numbers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fingerprint {
    /// Of the owner's entry in the manifest.
    pub entry: String,
    /// Of the definitions of all that moves, as they are in the source.
    pub definitions: String,
    /// The versions of splitctl and of both servers.
    pub versions: String,
}

impl Fingerprint {
    /// Reads the definitions from the real source.
    pub async fn read(owner: &Owner, source: &mut Database, target_version: i32) -> Result<Self> {
        let definitions = definitions_of(source, owner).await?;
        Ok(Self {
            // Its URLs are not in it: `Debug` conceals them.
            entry: hash(&format!("{owner:?}")),
            definitions: hash(&definitions),
            versions: format!("splitctl {}, Postgres {} and {target_version}", env!("CARGO_PKG_VERSION"), source.version),
        })
    }

    /// What differs from another one, for people.
    pub fn differences(&self, other: &Self) -> Vec<&'static str> {
        let parts = [
            (self.entry != other.entry, "the owner's entry in the manifest"),
            (self.definitions != other.definitions, "the definitions in the source"),
            (self.versions != other.versions, "the versions"),
        ];
        parts.into_iter().filter_map(|(differs, what)| differs.then_some(what)).collect()
    }
}

fn hash(text: &str) -> String {
    Sha256::digest(text.as_bytes())[..8].iter().map(|byte| format!("{byte:02x}")).collect()
}
