//! Names of relations and functions, read and written as SQL does.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The schema of a name that is written without one.
const DEFAULT_SCHEMA: &str = "public";

/// A relation or function with its schema. Both parts are unquoted, as in the catalog.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, sqlx::FromRow)]
pub struct Qualified {
    /// Its schema.
    pub schema: String,
    /// Its name within the schema.
    pub name: String,
}

impl Qualified {
    /// Takes both parts unquoted.
    pub fn new(schema: impl Into<String>, name: impl Into<String>) -> Self {
        Self { schema: schema.into(), name: name.into() }
    }

    /// The schemas and the names of several, as two parameters of a statement.
    pub fn arrays(all: &[Self]) -> (Vec<&str>, Vec<&str>) {
        all.iter().map(|one| (one.schema.as_str(), one.name.as_str())).unzip()
    }

    /// `"schema"."name"`, safe in any statement.
    pub fn sql(&self) -> String {
        format!("{}.{}", quote_ident(&self.schema), quote_ident(&self.name))
    }

    /// What a query reads a table's rows from. Tables that inherit from it are tables of their own, and partitions are not.
    pub fn rows(&self, is_partitioned: bool) -> String {
        if is_partitioned { self.sql() } else { format!("only {}", self.sql()) }
    }
}

/// For people and manifests: quoted only where necessary, and without the schema `public`.
impl fmt::Display for Qualified {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.schema != DEFAULT_SCHEMA {
            write!(formatter, "{}.", shown(&self.schema))?;
        }
        formatter.write_str(&shown(&self.name))
    }
}

/// Reads a name as SQL does: `orders`, `billing.orders`, `"Odd schema"."Odd.name"`. Unquoted letters become lower case.
impl FromStr for Qualified {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}` is not a name: write table, schema.table or \"Odd schema\".\"Odd table\"");
        let mut parts = parse_identifiers(text).ok_or_else(wrong)?;
        let (name, schema) = (parts.pop().ok_or_else(wrong)?, parts.pop().unwrap_or_else(|| DEFAULT_SCHEMA.to_owned()));
        if parts.is_empty() { Ok(Self { schema, name }) } else { Err(wrong()) }
    }
}

impl<'de> Deserialize<'de> for Qualified {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

impl Serialize for Qualified {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// Splits a name at the dots outside of quotes. Returns `None` if a part cannot be an identifier.
pub fn parse_identifiers(text: &str) -> Option<Vec<String>> {
    let mut parts = Vec::new();
    let mut rest = text.trim();
    loop {
        let part = if let Some(quoted) = rest.strip_prefix('"') {
            let mut part = String::new();
            let mut characters = quoted.char_indices();
            let end = loop {
                match characters.next()? {
                    (at, '"') if !quoted[at + 1..].starts_with('"') => break at + 1,
                    (_, '"') => {
                        characters.next();
                        part.push('"');
                    }
                    (_, character) => part.push(character),
                }
            };
            rest = &quoted[end..];
            part
        } else {
            let end = rest.find('.').unwrap_or(rest.len());
            let part = rest[..end].to_lowercase();
            if !part.chars().all(|character| character.is_alphanumeric() || character == '_' || character == '$') {
                return None;
            }
            rest = &rest[end..];
            part
        };
        if part.is_empty() {
            return None;
        }
        parts.push(part);
        if rest.is_empty() {
            return Some(parts);
        }
        rest = rest.strip_prefix('.')?;
    }
}

/// Quotes an identifier for a statement.
pub fn quote_ident(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// Quotes a text for a statement. The result does not depend on `standard_conforming_strings`.
pub fn quote_literal(text: &str) -> String {
    let escaped = text.replace('\'', "''");
    if text.contains('\\') { format!("E'{}'", escaped.replace('\\', "\\\\")) } else { format!("'{escaped}'") }
}

/// Schema and name for people, each quoted only where necessary.
pub fn with_schema(name: &Qualified) -> String {
    format!("{}.{}", shown(&name.schema), shown(&name.name))
}

/// An identifier for people, quoted only where necessary.
pub fn shown(name: &str) -> String {
    let plain = name.starts_with(|first: char| first.is_ascii_lowercase() || first == '_')
        && name.chars().all(|character| character.is_ascii_lowercase() || character.is_ascii_digit() || character == '_');
    if plain { name.to_owned() } else { quote_ident(name) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_sql_reads_them_and_shown_as_they_were_written() {
        for (text, schema, name) in [
            ("users", "public", "users"),
            ("Users", "public", "users"),
            ("billing.invoice_2", "billing", "invoice_2"),
            (r#""Odd ""schema"""."a.b""#, "Odd \"schema\"", "a.b"),
        ] {
            let read: Qualified = text.parse().expect(text);
            assert_eq!(read, Qualified::new(schema, name));
            assert_eq!(read.to_string().parse(), Ok(read));
        }
        for text in ["", ".", "a.", "a.b.c", "a b", "\"a", "\"a\"b", "a;drop"] {
            assert!(text.parse::<Qualified>().is_err(), "{text}");
        }
    }
}
