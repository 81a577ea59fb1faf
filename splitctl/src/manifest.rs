//! `split.toml`: who owns what, where it will live, and which borrowings are tolerated.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};

use crate::names::Qualified;

/// The rights that tables, views and sequences have.
const RIGHTS: [&str; 9] = ["select", "insert", "update", "delete", "truncate", "references", "trigger", "maintain", "usage"];

/// The file.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// The shared database for an operator: a URL, or `$NAME` of the variable that holds it.
    pub source: Url,
    /// The same as the servers of the targets reach it, if that is another address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source_from_target: Option<Url>,
    /// Who owns what.
    pub owners: BTreeMap<String, Owner>,
    /// What is tolerated, each for a reason and for a while.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub borrowings: Vec<Borrowing>,
}

/// A service, or a team: whoever changes these tables.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Owner {
    /// The role it logs in with.
    pub role: String,
    /// Its tables; of a partitioned one, the root.
    pub tables: Vec<Qualified>,
    /// Its own views over its own tables; they go along when it moves.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub views: Vec<Qualified>,
    /// What the role may do with a table, where that is not select, insert, update and delete.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub rights: BTreeMap<Qualified, Vec<String>>,
    /// Functions without parameters that give the epoch of an event log, and the column which has it as its default
    /// (`table.column`): raised above every stored one at each switch.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub epochs: BTreeMap<Qualified, String>,
    /// The folder of its sqlx offline data (`.sqlx`), as seen from the manifest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub statements: Option<PathBuf>,
    /// The database its tables will move to, for an operator.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<Url>,
    /// The same as the source's server reaches it, if that is another address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target_from_source: Option<Url>,
}

/// A use of what another one owns.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Borrowing {
    /// The owner that borrows.
    pub who: String,
    /// What it uses: the object of the finding that it explains.
    pub what: String,
    /// Only these columns, if any are named.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub columns: Vec<String>,
    /// The rights on it that the role needs; `grants` gives them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rights: Vec<String>,
    /// Why.
    pub why: String,
    /// The last day, as 2027-01-31.
    pub until: String,
}

/// A database URL, or the name of the variable that holds it. Its text is never shown: it holds a password.
#[derive(Clone, Serialize, Deserialize, PartialEq, Eq)]
#[serde(transparent)]
pub struct Url(pub String);

impl std::fmt::Debug for Url {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(if self.0.starts_with('$') { &self.0 } else { "(a URL)" })
    }
}

impl Url {
    /// The URL itself.
    ///
    /// # Errors
    /// If the variable is not set, or what is there is no Postgres URL. The message names the variable or `place`, not the URL.
    pub fn resolve(&self, place: &str) -> Result<String> {
        let (url, name) = match self.0.strip_prefix('$') {
            Some(variable) => {
                let value = std::env::var(variable).ok().filter(|value| !value.is_empty());
                (value.with_context(|| format!("{variable} is not set: {place} of the manifest names it"))?, variable)
            }
            None => (self.0.clone(), place),
        };
        let known = url.starts_with("postgres://") || url.starts_with("postgresql://");
        ensure!(
            known && url::Url::parse(&url).is_ok(),
            "{name} is not a Postgres URL (postgres://role:password@host:port/database)"
        );
        Ok(url)
    }
}

impl Owner {
    /// All that goes along when it moves: its tables and its views.
    pub fn relations(&self) -> Vec<Qualified> {
        [&self.tables[..], &self.views].concat()
    }
}

impl Manifest {
    /// Reads and checks the file.
    ///
    /// # Errors
    /// What is wrong with it, and where.
    pub fn read(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path)
            .with_context(|| format!("{} cannot be read; `splitctl init` drafts one", path.display()))?;
        let mut manifest: Self = toml::from_str(&text).with_context(|| format!("{} is not a manifest", path.display()))?;
        manifest.check().with_context(|| path.display().to_string())?;
        // Folders are as seen from the manifest.
        let folder = path.parent().unwrap_or(Path::new(""));
        for owner in manifest.owners.values_mut() {
            owner.statements = owner.statements.take().map(|statements| folder.join(statements));
        }
        Ok(manifest)
    }

    fn check(&self) -> Result<()> {
        ensure!(!self.owners.is_empty(), "there is no [owners.<name>]");
        let mut owners_of: BTreeMap<&Qualified, &str> = BTreeMap::new();
        for (name, owner) in &self.owners {
            let plain = |character: char| character.is_ascii_lowercase() || character.is_ascii_digit() || character == '_';
            ensure!(
                !name.is_empty() && name.len() <= 20 && name.chars().all(plain),
                "the owner `{name}` needs a name of at most 20 lower-case letters, digits and underscores"
            );
            ensure!(!owner.tables.is_empty(), "{name} owns no tables");
            for relation in owner.tables.iter().chain(&owner.views) {
                if let Some(other) = owners_of.insert(relation, name) {
                    bail!("{relation} is listed twice, by {other} and by {name}");
                }
            }
            for table in owner.rights.keys() {
                ensure!(
                    owner.tables.contains(table) || owner.views.contains(table),
                    "{name} has rights on {table}, which is not in its lists"
                );
            }
            check_rights(name, owner.rights.values().flatten())?;
        }
        for borrowing in &self.borrowings {
            let Borrowing { who, what, until, .. } = borrowing;
            ensure!(self.owners.contains_key(who), "a borrowing of {what} is by {who}, which is no owner");
            ensure!(is_day(until), "the borrowing of {what} by {who} ends on `{until}`: write a day as 2027-01-31");
            check_rights(&format!("the borrowing of {what} by {who}"), borrowing.rights.iter())?;
        }
        Ok(())
    }

    /// The owner of this name.
    ///
    /// # Errors
    /// If there is none: which ones there are.
    pub fn owner(&self, name: &str) -> Result<&Owner> {
        let known = || self.owners.keys().cloned().collect::<Vec<_>>().join(", ");
        self.owners.get(name).with_context(|| format!("the manifest knows no owner {name}, but {}", known()))
    }

    /// Who owns a table or view.
    pub fn owner_of(&self, relation: &Qualified) -> Option<&str> {
        let owns = |owner: &Owner| owner.tables.contains(relation) || owner.views.contains(relation);
        self.owners.iter().find(|(_, owner)| owns(owner)).map(|(name, _)| name.as_str())
    }
}

/// Only rights that Postgres knows: they become part of statements.
fn check_rights<'a>(whose: &str, mut rights: impl Iterator<Item = &'a String>) -> Result<()> {
    match rights.find(|right| !RIGHTS.contains(&right.to_lowercase().as_str())) {
        Some(wrong) => bail!("{whose}: `{wrong}` is no right; there are {}", RIGHTS.join(", ")),
        None => Ok(()),
    }
}

/// Whether it has the shape of a day.
fn is_day(text: &str) -> bool {
    let parts: Vec<&str> = text.split('-').collect();
    let number = |part: &str, digits: usize, most: u32| {
        part.len() == digits && part.parse::<u32>().is_ok_and(|number| (1..=most).contains(&number))
    };
    matches!(parts[..], [year, month, day] if number(year, 4, 9999) && number(month, 2, 12) && number(day, 2, 31))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Manifest> {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("split.toml");
        std::fs::write(&path, text).expect("written");
        Manifest::read(&path)
    }

    const TWO: &str = r#"
        source = "$DATABASE_URL"
        [owners.users]
        role = "users_svc"
        tables = ["users", "user_events"]
        [owners.users.rights]
        user_events = ["select", "insert"]
        [owners.orders]
        role = "orders_svc"
        tables = ["orders", 'shop."Order items"']
    "#;

    #[test]
    fn what_is_wrong_with_a_manifest_is_said_in_its_own_words() {
        let manifest = read(TWO).expect("a manifest");
        assert_eq!(manifest.owner_of(&Qualified::new("shop", "Order items")), Some("orders"));
        assert!(manifest.owner("billing").expect_err("unknown").to_string().contains("orders, users"));
        for (from, to, said) in [
            ("\"orders\", 'shop", "\"users\", 'shop", "users is listed twice"),
            ("[owners.orders]", "[owners.Orders]", "the owner `Orders` needs a name"),
            ("user_events = [", "orders = [", "users has rights on orders"),
            ("role = \"orders_svc\"", "rolle = \"orders_svc\"", "unknown field `rolle`"),
            (
                "[owners.users]",
                "borrowings = [{ who = 'x', what = 'y', why = 'z', until = '2027-01-31' }]\n[owners.users]",
                "x, which is no owner",
            ),
            ("\"insert\"]", "\"insert; drop\"]", "`insert; drop` is no right"),
            (
                "[owners.users]",
                "borrowings = [{ who = 'users', what = 'y', why = 'z', until = 'soon' }]\n[owners.users]",
                "write a day",
            ),
        ] {
            let text = TWO.replacen(from, to, 1);
            let error = format!("{:#}", read(&text).expect_err(said));
            assert!(error.contains(said), "{error}");
        }
    }

    #[test]
    fn a_url_that_cannot_be_used_is_named_and_not_shown() {
        let error = Url("$SPLITCTL_TEST_UNSET".to_owned()).resolve("source").expect_err("unset").to_string();
        assert!(error.contains("SPLITCTL_TEST_UNSET is not set"), "{error}");
        let error = Url("mysql://me:secret@host/db".to_owned()).resolve("source").expect_err("no URL").to_string();
        assert!(error.starts_with("source is not a Postgres URL") && !error.contains("secret"), "{error}");
        assert!(!format!("{:?}", Url("postgres://me:secret@host/db".to_owned())).contains("secret"));
    }
}
