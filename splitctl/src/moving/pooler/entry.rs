//! The entry of a database in `PgBouncer`'s file. Only the keys that a switch changes are rewritten.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::ops::Range;
use std::os::unix::fs::{MetadataExt, chown};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};

use super::Keys;

/// The keys that say where an entry leads.
pub const ADDRESS: [&str; 3] = ["host", "port", "dbname"];

/// One entry, in the text around it.
pub struct Entry {
    /// Without links: a link stays one.
    file: PathBuf,
    database: String,
    text: String,
    /// Where its connection string stands.
    at: Range<usize>,
    /// What it says, in its order.
    said: Vec<(String, String)>,
}

impl Entry {
    /// Finds the entry of a database in a file: in its part `[databases]`, or anywhere if it has no parts, as an included
    /// file.
    ///
    /// # Errors
    /// If the file cannot be read, or does not hold the entry once.
    pub fn read(file: &Path, database: &str) -> Result<Self> {
        let shown = file.display();
        let file = fs::canonicalize(file).with_context(|| format!("{shown} cannot be read"))?;
        let text = fs::read_to_string(&file).with_context(|| format!("{shown} cannot be read"))?;
        let mut found = ranges(&text, database);
        let (Some(at), None) = (found.pop(), found.pop()) else {
            bail!("{shown} must have one entry `{database} = …` in its part [databases]");
        };
        let said = pairs(&text[at.clone()]).with_context(|| format!("{shown}: the entry `{database}`"))?;
        Ok(Self { file, database: database.to_owned(), text, at, said })
    }

    /// What the entry says. Without a name of its own, the database is called as the entry.
    pub fn said(&self) -> Keys {
        let mut said: Keys = self.said.iter().cloned().collect();
        said.entry("dbname".to_owned()).or_insert_with(|| self.database.clone());
        said.entry("port".to_owned()).or_insert_with(|| "5432".to_owned());
        said
    }

    /// Where it leads.
    pub fn address(&self) -> String {
        address(&self.said())
    }

    /// Whether it says this already.
    pub fn leads_to(&self, keys: &Keys) -> bool {
        let said = self.said();
        keys.iter().all(|(key, value)| said.get(key) == Some(value))
    }

    /// Rewrites the entry, unless it says this already.
    ///
    /// # Errors
    /// If the file cannot be written. It is as before then.
    pub fn point_to(&self, keys: &Keys) -> Result<()> {
        if self.leads_to(keys) {
            return Ok(());
        }
        let mut said = self.said.clone();
        for (key, value) in keys {
            match said.iter_mut().find(|(known, _)| known == key) {
                Some((_, old)) => old.clone_from(value),
                None => said.push((key.clone(), value.clone())),
            }
        }
        let words: Vec<String> = said.iter().map(|(key, value)| format!("{key}={}", quote(value))).collect();
        let text = format!("{}{}{}", &self.text[..self.at.start], words.join(" "), &self.text[self.at.end..]);
        replace(&self.file, &text).with_context(|| format!("{} cannot be written", self.file.display()))
    }

    /// Whether the file can be written, although its text stays.
    ///
    /// # Errors
    /// The system's, with the file's name.
    pub fn try_to_write(&self) -> Result<()> {
        let beside = self.file.parent().map(tempfile::NamedTempFile::new_in);
        let opened = OpenOptions::new().append(true).open(&self.file);
        ensure!(
            matches!(beside, Some(Ok(_))) || opened.is_ok(),
            "{} cannot be written: run splitctl where it can, or change the entry by --after-switch",
            self.file.display()
        );
        Ok(())
    }
}

/// Host, port and database of an entry.
pub fn address(keys: &Keys) -> String {
    let part = |key: &str, otherwise: &str| keys.get(key).map_or(otherwise, String::as_str).to_owned();
    format!("{}:{}/{}", part("host", "(a socket)"), part("port", "5432"), part("dbname", ""))
}

/// Reads `key=value` pairs.
///
/// # Errors
/// If the text is something else. The message does not repeat it.
pub fn keys(text: &str) -> Result<Keys> {
    Ok(pairs(text)?.into_iter().collect())
}

/// Puts a new text in the place of a file, at once if its folder can be written. Owner and rights stay.
fn replace(file: &Path, text: &str) -> Result<()> {
    let before = fs::metadata(file)?;
    let beside = || -> Result<()> {
        let folder = file.parent().context("it has no folder")?;
        let mut new = tempfile::NamedTempFile::new_in(folder)?;
        new.write_all(text.as_bytes())?;
        fs::set_permissions(new.path(), before.permissions())?;
        if chown(new.path(), Some(before.uid()), Some(before.gid())).is_err() {
            // Who may not give a file away can own it only if it was theirs.
            ensure!(fs::metadata(new.path())?.uid() == before.uid(), "its owner would change");
        }
        new.as_file().sync_all()?;
        new.persist(file)?;
        Ok(())
    };
    // A file that is mounted alone, or in a folder of others, cannot be replaced.
    if beside().is_err() {
        let mut same = OpenOptions::new().write(true).truncate(true).open(file)?;
        same.write_all(text.as_bytes())?;
        same.sync_all()?;
    }
    Ok(())
}

/// Where the connection strings of this database stand.
fn ranges(text: &str, database: &str) -> Vec<Range<usize>> {
    let (mut found, mut is_inside, mut begin) = (Vec::new(), true, 0);
    for line in text.split_inclusive('\n') {
        let trimmed = line.trim();
        if let Some(part) = trimmed.strip_prefix('[') {
            is_inside = part.trim_end_matches(']').trim() == "databases";
        } else if is_inside
            && !trimmed.starts_with([';', '#', '%'])
            && let Some((name, value)) = split_entry(line.trim_end())
            && name == database
        {
            found.push(begin + value..begin + line.trim_end().len());
        }
        begin += line.len();
    }
    found
}

/// The name of an entry, and where its value begins in the line.
fn split_entry(line: &str) -> Option<(String, usize)> {
    let start = line.len() - line.trim_start().len();
    let rest = &line[start..];
    let (name, end) = match rest.strip_prefix('"') {
        Some(quoted) => {
            let mut name = String::new();
            let mut characters = quoted.char_indices().peekable();
            let end = loop {
                match characters.next()? {
                    (_, '"') if characters.peek().is_some_and(|(_, next)| *next == '"') => {
                        characters.next();
                        name.push('"');
                    }
                    (at, '"') => break at + 2,
                    (_, other) => name.push(other),
                }
            };
            (name, end)
        }
        None => {
            let end = rest.find(|character: char| character == '=' || character.is_whitespace())?;
            (rest[..end].to_owned(), end)
        }
    };
    let value = rest[end..].trim_start().strip_prefix('=')?.trim_start();
    Some((name, line.len() - value.len()))
}

/// The pairs of a connection string. A value with spaces stands in quotes, and a quote in it is doubled.
fn pairs(text: &str) -> Result<Vec<(String, String)>> {
    const SHAPE: &str = "it must consist of key=value";
    let (mut found, mut rest) = (Vec::new(), text.trim());
    while !rest.is_empty() {
        let (key, value) = rest.split_once('=').context(SHAPE)?;
        let key = key.trim();
        let is_key = |character: char| character.is_ascii_alphanumeric() || character == '_';
        ensure!(!key.is_empty() && key.chars().all(is_key), SHAPE);
        let value = value.trim_start();
        let (value, behind) = match value.strip_prefix('\'') {
            Some(quoted) => unquote(quoted).context(SHAPE)?,
            None => {
                let end = value.find(char::is_whitespace).unwrap_or(value.len());
                (value[..end].to_owned(), &value[end..])
            }
        };
        found.push((key.to_owned(), value));
        rest = behind.trim_start();
    }
    Ok(found)
}

/// The text up to the closing quote, and what stands behind that.
fn unquote(quoted: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut characters = quoted.char_indices().peekable();
    loop {
        match characters.next()? {
            (_, '\'') if characters.peek().is_some_and(|(_, next)| *next == '\'') => {
                characters.next();
                value.push('\'');
            }
            (at, '\'') => return Some((value, &quoted[at + 1..])),
            (_, other) => value.push(other),
        }
    }
}

fn quote(value: &str) -> String {
    let is_plain = !value.is_empty() && !value.contains(|character: char| character == '\'' || character.is_whitespace());
    if is_plain { value.to_owned() } else { format!("'{}'", value.replace('\'', "''")) }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::{Entry, Keys, keys};

    fn target() -> Keys {
        keys("host=10.0.0.2 port=7 dbname='it''s new'").expect("pairs")
    }

    #[test]
    fn only_the_address_of_the_entry_changes() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("pgbouncer.ini");
        let before = "; orders = no\n[databases]\n  orders = host=a user=me password='p w' pool_size=5\n\
                      orders_old = host=b\n\"orders\"\"x\" = host=c\n[users]\norders = pool_mode=session\n[other]\nx = 1";
        fs::write(&file, before).expect("written");
        fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).expect("set");
        let link = folder.path().join("link.ini");
        symlink(&file, &link).expect("linked");
        let entry = Entry::read(&link, "orders").expect("an entry");
        assert_eq!(entry.address(), "a:5432/orders");
        entry.try_to_write().expect("it can be written");
        entry.point_to(&target()).expect("written");
        let wanted = before.replace(
            "host=a user=me password='p w' pool_size=5",
            "host=10.0.0.2 user=me password='p w' pool_size=5 dbname='it''s new' port=7",
        );
        assert_eq!(fs::read_to_string(&file).expect("read"), wanted);
        assert_eq!(fs::metadata(&file).expect("there").permissions().mode() & 0o777, 0o640);
        assert!(fs::symlink_metadata(&link).expect("there").is_symlink());
        let entry = Entry::read(&file, "orders").expect("an entry");
        assert!(entry.leads_to(&target()) && !entry.leads_to(&keys("host=a").expect("pairs")));
        let odd = Entry::read(&file, "orders\"x").expect("an entry");
        assert_eq!(odd.address(), "c:5432/orders\"x");
    }

    #[test]
    fn an_entry_that_is_missing_or_there_twice_or_odd_is_an_error() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("databases.ini");
        for (text, reason) in [
            ("orders = host=a\norders = host=b\n", "one entry"),
            ("[pgbouncer]\norders = host=a\n", "one entry"),
            ("orders\n", "one entry"),
            ("orders = host='a\n", "key=value"),
            ("orders = secret\n", "key=value"),
        ] {
            fs::write(&file, text).expect("written");
            let error = format!("{:#}", Entry::read(&file, "orders").err().expect(text));
            assert!(error.contains(reason) && !error.contains("secret"), "{error}");
        }
        fs::write(&file, "orders =").expect("written");
        assert_eq!(Entry::read(&file, "orders").expect("an entry").address(), "(a socket):5432/orders");
        assert!(Entry::read(&folder.path().join("none"), "orders").is_err());
    }
}
