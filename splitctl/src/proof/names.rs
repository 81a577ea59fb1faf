//! What the names in the statements mean on one side, for a session of the role there.

use std::collections::{BTreeMap, BTreeSet};

use sqlx::{FromRow, query_as};

use super::session::Session;
use crate::audit::lexer::{Token, tokens};
use crate::names::parse_identifiers;

/// An object that a statement may name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, FromRow)]
pub(super) struct Object {
    /// "table", "function", "type" and so on.
    pub kind: String,
    pub schema: String,
    pub name: String,
    /// With its schema, and the arguments of a function.
    pub identity: String,
    /// Whether the session finds it without its schema.
    pub is_visible: bool,
    /// Whether the role may use its schema.
    pub is_open: bool,
}

/// The objects by their names without schemas.
#[derive(Debug, Default)]
pub(super) struct Names(BTreeMap<String, Vec<Object>>);

impl Names {
    /// Reads what all these words mean: one statement.
    pub async fn read(session: &mut Session, words: &BTreeSet<String>) -> Result<Self, sqlx::Error> {
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let objects: Vec<Object> =
            query_as(OBJECTS).persistent(false).bind(words).fetch_all(&mut session.connection).await?;
        let mut names = Self::default();
        for object in objects {
            names.0.entry(object.name.clone()).or_default().push(object);
        }
        Ok(names)
    }

    /// The objects of this name.
    pub fn of(&self, word: &str) -> &[Object] {
        self.0.get(word).map_or(&[], Vec::as_slice)
    }

    /// The identities of the objects of a name and a kind that are found without their schemas.
    pub fn visible(&self, word: &str, kind: &str) -> BTreeSet<&str> {
        let of_kind = self.of(word).iter().filter(|object| object.is_visible && object.kind == kind);
        of_kind.map(|object| object.identity.as_str()).collect()
    }
}

/// A name in a statement.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Word {
    pub schema: Option<String>,
    pub name: String,
    /// Whether an opening bracket follows it.
    pub is_called: bool,
    /// Whether it stands in quotes, as in `nextval('numbers')`.
    pub is_text: bool,
}

/// The names in a statement. Some are columns or keywords.
pub(super) fn words(statement: &str) -> BTreeSet<Word> {
    let tokens: Vec<Token> = tokens(statement).collect();
    let mut words = BTreeSet::new();
    for (at, token) in tokens.iter().enumerate() {
        let is = |at: Option<usize>, character: char| at.and_then(|at| tokens.get(at)) == Some(&Token::Other(character));
        match token {
            Token::Word(name) => {
                let schema = match at.checked_sub(2).map(|before| &tokens[before]) {
                    Some(Token::Word(schema)) if is(at.checked_sub(1), '.') => Some(schema.clone()),
                    _ => None,
                };
                words.insert(Word { schema, name: name.clone(), is_called: is(Some(at + 1), '('), is_text: false });
            }
            Token::Literal(text) if text.len() < 130 => {
                if let Some(mut parts) = parse_identifiers(text).filter(|parts| parts.len() <= 2) {
                    let name = parts.pop().unwrap_or_default();
                    words.insert(Word { schema: parts.pop(), name, is_called: false, is_text: true });
                }
            }
            _ => {}
        }
    }
    words
}

/// Objects of Postgres itself are the same everywhere.
const OBJECTS: &str = r"
    with named as (
        select
            case c.relkind when 'S' then 'sequence' when 'v' then 'view' when 'm' then 'materialized view' else 'table' end
                as kind,
            c.relnamespace as schema,
            c.relname as name,
            '' as arguments,
            pg_table_is_visible(c.oid) as is_visible
        from pg_catalog.pg_class c
        where c.relkind in ('r', 'p', 'v', 'm', 'f', 'S')
          and c.relname = any ($1)
          and c.oid >= 16384
        union all
        select
            'function',
            p.pronamespace,
            p.proname,
            format('(%s)', pg_get_function_identity_arguments(p.oid)),
            pg_function_is_visible(p.oid)
        from pg_catalog.pg_proc p
        where p.proname = any ($1)
          and p.oid >= 16384
        union all
        select 'type', t.typnamespace, t.typname, '', pg_type_is_visible(t.oid)
        from pg_catalog.pg_type t
        left join pg_catalog.pg_class c on c.oid = t.typrelid
        where t.typname = any ($1)
          and t.oid >= 16384
          and coalesce(c.relkind = 'c', true)
        union all
        select 'collation', c.collnamespace, c.collname, '', pg_collation_is_visible(c.oid)
        from pg_catalog.pg_collation c
        where c.collname = any ($1)
          and c.oid >= 16384
        union all
        select 'text search configuration', t.cfgnamespace, t.cfgname, '', pg_ts_config_is_visible(t.oid)
        from pg_catalog.pg_ts_config t
        where t.cfgname = any ($1)
          and t.oid >= 16384
    )
    select
        o.kind,
        n.nspname::text as schema,
        o.name::text as name,
        format('%I.%I%s', n.nspname, o.name, o.arguments) as identity,
        o.is_visible,
        has_schema_privilege(n.oid, 'usage') as is_open
    from named o
    join pg_catalog.pg_namespace n on n.oid = o.schema
    where n.nspname not like 'pg\_%'
    order by 1, 4";
