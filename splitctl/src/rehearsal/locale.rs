//! How a database sorts and encodes text.

use sqlx::{FromRow, PgConnection, query_as};

use crate::names::quote_literal;

/// What a database is created with.
#[derive(Debug, FromRow)]
pub struct Locale {
    /// The encoding.
    pub encoding: String,
    collation: String,
    character_type: String,
    provider: String,
    locale: Option<String>,
    rules: Option<String>,
}

impl Locale {
    /// Reads it from the database of a session.
    pub async fn read(connection: &mut PgConnection) -> Result<Self, sqlx::Error> {
        query_as(LOCALE).fetch_one(connection).await
    }

    /// The options of `create database`.
    pub fn options(&self) -> String {
        let mut options = format!("encoding {}", quote_literal(&self.encoding));
        let names = [("lc_collate", &self.collation), ("lc_ctype", &self.character_type)];
        for (option, value) in names {
            options += &format!(" {option} {}", quote_literal(value));
        }
        let provider = match self.provider.as_str() {
            "i" => "icu",
            "b" => "builtin",
            _ => return options,
        };
        options += &format!(" locale_provider {provider}");
        for (option, value) in [(format!("{provider}_locale"), &self.locale), ("icu_rules".to_owned(), &self.rules)] {
            options += &value.as_ref().map(|value| format!(" {option} {}", quote_literal(value))).unwrap_or_default();
        }
        options
    }
}

const LOCALE: &str = r"
    select
        pg_encoding_to_char(d.encoding)::text as encoding,
        d.datcollate::text as collation,
        d.datctype::text as character_type,
        d.datlocprovider::text as provider,
        coalesce(j.fields ->> 'datlocale', j.fields ->> 'daticulocale') as locale,
        j.fields ->> 'daticurules' as rules
    from pg_database d
    cross join lateral to_jsonb(d) j (fields)
    where d.datname = current_database()";
