//! `split.toml`: who owns what, where it will live, which borrowings are tolerated, and the SQL that ends them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;

use crate::endpoint::{self, Reader};
use crate::names::Qualified;

/// The rights on tables, views and sequences that Postgres 15 to 18 have.
const RIGHTS: [&str; 9] = ["select", "insert", "update", "delete", "truncate", "references", "trigger", "maintain", "usage"];

/// The manifest as its file spells it.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// The shared database as an operator: a URL, or `$NAME` of the variable that holds it.
    pub source: Url,
    /// The address by which the targets' servers reach the source, if it differs from `source`.
    pub source_from_target: Option<Url>,
    /// Standbys of the source that its URL does not name.
    #[serde(default)]
    pub source_standbys: Vec<Url>,
    /// Tables that no owner has, because each database keeps its own: those of migration tools. A move copies them once.
    #[serde(default)]
    pub unowned: Vec<Qualified>,
    /// Owners by name.
    pub owners: BTreeMap<String, Owner>,
    /// Couplings that the audit tolerates until a day.
    #[serde(default)]
    pub borrowings: Vec<Borrowing>,
}

/// A service or a team that changes these tables.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Owner {
    /// The role that it logs in with.
    pub role: String,
    /// Its tables. A partitioned table is listed by its root.
    pub tables: Vec<Qualified>,
    /// Its views. They move with it.
    #[serde(default)]
    pub views: Vec<Qualified>,
    /// The role's rights on a table that are not select, insert, update and delete.
    #[serde(default)]
    pub rights: BTreeMap<Qualified, Vec<String>>,
    /// Functions without parameters that return the epoch of an event log, with the column (`table.column`) whose default
    /// they are. Each switch raises the epoch above every stored one.
    #[serde(default)]
    pub epochs: BTreeMap<Qualified, String>,
    /// Objects that hang on its tables and do not move, as `plan` names them.
    #[serde(default)]
    pub leave: Vec<String>,
    /// Objects that come along although its tables need none of them, as `plan` names them: only statements of the
    /// application use them.
    #[serde(default)]
    pub bring: Vec<String>,
    /// The manifest's tables that no owner has.
    #[serde(skip)]
    pub unowned: Vec<Qualified>,
    /// Roles of the source, and those that take their place on the target, as owners and in rights and policies.
    #[serde(default)]
    pub owned_by: BTreeMap<String, String>,
    /// Errors of the plan that are known and accepted, as the plan names them: "roles: reporting".
    #[serde(default)]
    pub accept: Vec<String>,
    /// The folder of its sqlx offline data (`.sqlx`), relative to the manifest.
    pub statements: Option<PathBuf>,
    /// Files and folders with other statements that it runs: SQL, and logs of Postgres. Relative to the manifest.
    #[serde(default)]
    pub queries: Vec<PathBuf>,
    /// Statements that are known from elsewhere. It is no key: a rehearsal takes those of the real source.
    #[serde(skip)]
    pub known: Vec<KnownStatement>,
    /// The URL with which the application logs in on the target.
    pub login: Option<Url>,
    /// The database that its tables will move to, as an operator.
    pub target: Option<Url>,
    /// The address by which the source's server reaches the target, if it differs from `target`.
    pub target_from_source: Option<Url>,
    /// Standbys of the target that its URL does not name.
    #[serde(default)]
    pub target_standbys: Vec<Url>,
    /// Whether the slots of a move go to standbys, where the server can do that. By default they do.
    pub failover: Option<bool>,
}

/// A statement of the application.
#[derive(Debug, Clone)]
pub struct KnownStatement {
    /// Its text.
    pub text: String,
    /// Where it is known from, for people.
    pub place: String,
    /// Whether the role has run it: it may then be another part's of the application. If not, it stands in the sources.
    pub is_run: bool,
}

/// An owner's use of another owner's object, and the SQL files that replace the object. Paths are relative to the manifest.
///
/// `require` and `compare` hold one query each, `copy` holds one statement. `replace` and `restore` may hold several
/// statements. No file begins or commits a transaction.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Borrowing {
    /// The owner that borrows.
    pub who: String,
    /// The borrowed object, named as the audit's finding names it.
    pub what: String,
    /// The columns that the borrowing is limited to; empty for all.
    #[serde(default)]
    pub columns: Vec<String>,
    /// The rights that the role needs on the object; `splitctl grants` gives them.
    #[serde(default)]
    pub rights: Vec<String>,
    /// The reason, for people.
    pub why: String,
    /// The last day, as 2027-01-31.
    pub until: String,
    /// What must hold before `replace`: returns a row `message` for each condition that does not hold.
    pub require: Option<PathBuf>,
    /// Compares the object with its replacement: returns a row for each key, with `difference` null where both agree.
    /// `$1` limits the query to an array of keys.
    pub compare: Option<PathBuf>,
    /// Copies into the replacement what transactions from `$1` on have changed.
    pub copy: Option<PathBuf>,
    /// Puts the replacement in the object's place, so that the coupling ends.
    pub replace: Option<PathBuf>,
    /// Undoes `replace`.
    pub restore: Option<PathBuf>,
}

/// A database URL, or `$NAME` of the variable that holds it. A URL is never shown, because it holds a password.
#[derive(Clone, Deserialize, PartialEq, Eq)]
#[serde(transparent)]
pub struct Url(pub String);

impl std::fmt::Debug for Url {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(if self.0.starts_with('$') { &self.0 } else { "(a URL)" })
    }
}

impl Url {
    /// The URL, read from the variable if there is one. `place` is its key in the manifest.
    ///
    /// # Errors
    /// The variable is not set, or the text is not a Postgres URL. The message names the variable or `place`, not the URL.
    pub fn resolve(&self, place: &str) -> Result<String> {
        self.read(place, Reader::Both)
    }

    /// Does the same for a URL that only the server of the other side reads.
    ///
    /// # Errors
    /// As [`Url::resolve`].
    pub fn resolve_for_server(&self, place: &str) -> Result<String> {
        self.read(place, Reader::Server)
    }

    /// One URL for each host of these.
    ///
    /// # Errors
    /// As [`Url::resolve`].
    pub fn resolve_hosts(urls: &[Self], place: &str) -> Result<Vec<String>> {
        let urls = urls.iter().map(|url| url.resolve(place)).collect::<Result<Vec<String>>>()?;
        Ok(urls.iter().flat_map(|url| endpoint::each_host(url)).collect())
    }

    fn read(&self, place: &str, reader: Reader) -> Result<String> {
        let (url, name) = match self.0.strip_prefix('$') {
            Some(variable) => {
                let value = std::env::var(variable).ok().filter(|value| !value.is_empty());
                (value.with_context(|| format!("{variable} is not set: {place} of the manifest names it"))?, variable)
            }
            None => (self.0.clone(), place),
        };
        endpoint::check(&url, reader).with_context(|| format!("{name} cannot be used"))?;
        Ok(url)
    }
}

impl Owner {
    fn check(&self, name: &str) -> Result<()> {
        let plain = |character: char| character.is_ascii_lowercase() || character.is_ascii_digit() || character == '_';
        ensure!(
            !name.is_empty() && name.len() <= 20 && name.chars().all(plain),
            "the owner `{name}` needs a name of at most 20 lower-case letters, digits and underscores"
        );
        ensure!(!self.tables.is_empty(), "{name} owns no tables");
        let unlisted = self.rights.keys().find(|relation| !self.tables.contains(relation) && !self.views.contains(relation));
        if let Some(relation) = unlisted {
            bail!("{name} has rights on {relation}, which is not in its lists");
        }
        check_rights(name, self.rights.values().flatten())
    }

    /// The role that takes the place of this one on the target.
    pub fn on_target<'a>(&'a self, role: &'a str) -> &'a str {
        self.owned_by.get(role).map_or(role, String::as_str)
    }

    /// The tables and views that move with it.
    pub fn relations(&self) -> Vec<Qualified> {
        [&self.tables[..], &self.views].concat()
    }
}

impl Borrowing {
    fn check(&self, owners: &BTreeMap<String, Owner>) -> Result<()> {
        let Self { who, what, until, .. } = self;
        ensure!(owners.contains_key(who), "a borrowing of {what} is by {who}, which is no owner");
        ensure!(is_day(until), "the borrowing of {what} by {who} ends on `{until}`: write a day as 2027-01-31");
        ensure!(
            self.replace.is_some() == self.restore.is_some(),
            "the borrowing of {what} by {who} names only one of `replace` and `restore`: name both, so that it can be undone"
        );
        check_rights(&format!("the borrowing of {what} by {who}"), self.rights.iter())
    }

    fn files(&mut self) -> [&mut Option<PathBuf>; 5] {
        [&mut self.require, &mut self.compare, &mut self.copy, &mut self.replace, &mut self.restore]
    }
}

impl Manifest {
    /// Reads and checks the file. Its paths become relative to the current folder.
    ///
    /// # Errors
    /// The file's path, and what is wrong in it.
    pub fn read(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path)
            .with_context(|| format!("{} cannot be read; `splitctl init` drafts one", path.display()))?;
        let mut manifest: Self = toml::from_str(&text).with_context(|| format!("{} is not a manifest", path.display()))?;
        manifest.check().with_context(|| path.display().to_string())?;
        let Self { owners, unowned, .. } = &mut manifest;
        owners.values_mut().for_each(|owner| owner.unowned.clone_from(unowned));
        let folder = path.parent().unwrap_or(Path::new(""));
        let of_owners = manifest.owners.values_mut().flat_map(|owner| owner.statements.iter_mut().chain(&mut owner.queries));
        for path in of_owners.chain(manifest.borrowings.iter_mut().flat_map(Borrowing::files).flatten()) {
            *path = folder.join(&*path);
        }
        Ok(manifest)
    }

    fn check(&self) -> Result<()> {
        ensure!(!self.owners.is_empty(), "there is no [owners.<name>]");
        let mut owners_of: BTreeMap<&Qualified, &str> = BTreeMap::new();
        for (name, owner) in &self.owners {
            owner.check(name)?;
            for relation in owner.tables.iter().chain(&owner.views) {
                if let Some(other) = owners_of.insert(relation, name) {
                    bail!("{relation} is listed twice, by {other} and by {name}");
                }
            }
        }
        if let Some((table, owner)) = self.unowned.iter().find_map(|table| Some((table, owners_of.get(table)?))) {
            bail!("{table} is listed twice, by {owner} and as unowned");
        }
        let mut compared = BTreeSet::new();
        for borrowing in &self.borrowings {
            borrowing.check(&self.owners)?;
            let is_first = (borrowing.replace.is_none() && borrowing.compare.is_none()) || compared.insert(&borrowing.what);
            ensure!(is_first, "two borrowings of {0} name SQL files: `splitctl replace {0}` would have two", borrowing.what);
        }
        Ok(())
    }

    /// The owner of this name.
    ///
    /// # Errors
    /// The manifest has no such owner; the message lists the names that it has.
    pub fn owner(&self, name: &str) -> Result<&Owner> {
        let known = || self.owners.keys().cloned().collect::<Vec<_>>().join(", ");
        self.owners.get(name).with_context(|| format!("the manifest has no owner {name}; it has {}", known()))
    }

    /// The borrowing of this object that names SQL files.
    ///
    /// # Errors
    /// The manifest has no such borrowing; the message lists the objects that it has.
    pub fn borrowing(&self, what: &str) -> Result<&Borrowing> {
        let mut named =
            self.borrowings.iter().filter(|borrowing| borrowing.replace.is_some() || borrowing.compare.is_some());
        let known = || named.clone().map(|borrowing| borrowing.what.as_str()).collect::<Vec<_>>().join(", ");
        let none = format!("the manifest names no SQL files for a borrowing of {what}; it names some for: {}", known());
        named.find(|borrowing| borrowing.what == what).context(none)
    }

    /// The owner that lists a table or view.
    pub fn owner_of(&self, relation: &Qualified) -> Option<&str> {
        let owns = |owner: &Owner| owner.tables.contains(relation) || owner.views.contains(relation);
        self.owners.iter().find(|(_, owner)| owns(owner)).map(|(name, _)| name.as_str())
    }
}

/// Refuses rights that Postgres does not have, because rights become part of statements.
fn check_rights<'a>(whose: &str, mut rights: impl Iterator<Item = &'a String>) -> Result<()> {
    match rights.find(|right| !RIGHTS.contains(&right.to_lowercase().as_str())) {
        Some(wrong) => bail!("{whose}: `{wrong}` is no right; there are {}", RIGHTS.join(", ")),
        None => Ok(()),
    }
}

/// Whether the text has the shape of a day.
fn is_day(text: &str) -> bool {
    let parts: Vec<&str> = text.split('-').collect();
    let number = |part: &str, digits: usize, most: u32| {
        part.len() == digits && part.parse::<u32>().is_ok_and(|number| (1..=most).contains(&number))
    };
    matches!(parts[..], [year, month, day] if number(year, 4, 9999) && number(month, 2, 12) && number(day, 2, 31))
}

#[cfg(test)]
mod tests;
