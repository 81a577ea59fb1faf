//! What reaches outside of the database when a table is written: a rollback does not take that back.

use std::collections::{BTreeMap, BTreeSet};

use sqlx::{FromRow, PgConnection, query_as, query_scalar};

use crate::audit::body::{self, Mentions};
use crate::audit::lexer::{Token, tokens};
use crate::names::Qualified;

/// The tables whose writes reach outside, each with the way.
#[derive(Debug, Default)]
pub(super) struct Outside {
    of: BTreeMap<Qualified, String>,
    /// For people: each function that reaches outside, and why.
    pub listed: Vec<String>,
}

impl Outside {
    /// How a write to the table reaches outside.
    pub fn of(&self, table: &Qualified) -> Option<&str> {
        self.of.get(table).map(String::as_str)
    }

    /// Reads it from the catalog and the bodies of functions. Partitions count for their root.
    pub async fn read(connection: &mut PgConnection, tables: &[Qualified]) -> Result<Self, sqlx::Error> {
        let (schemas, names) = Qualified::arrays(tables);
        let functions: Vec<Function> = query_as(FUNCTIONS).fetch_all(&mut *connection).await?;
        let foreign: Vec<Qualified> = query_as(FOREIGN).fetch_all(&mut *connection).await?;
        let uses: Vec<Use> = query_as(USES).bind(schemas).bind(names).fetch_all(&mut *connection).await?;
        let closed: Vec<String> = query_scalar(CLOSED).fetch_all(connection).await?;
        let mut known =
            Known { closed: closed.into_iter().collect(), foreign, reach: BTreeMap::new(), tables: BTreeMap::new() };
        let mentions: Vec<Mentions> = functions.iter().map(|function| body::read(&function.body, &|_| true)).collect();
        // Functions may call each other, and write tables whose triggers reach outside.
        loop {
            let before = (known.reach.len(), known.tables.len());
            for (function, mentions) in functions.iter().zip(&mentions) {
                if !known.reach.contains_key(&function.oid)
                    && let Some(why) = known.why(function, mentions, &functions)
                {
                    known.reach.insert(function.oid, why);
                }
            }
            for used in &uses {
                if known.reach.contains_key(&used.function) {
                    let table = used.table.clone();
                    known.tables.entry(table).or_insert_with(|| format!("its {} reaches outside", used.object));
                }
            }
            if before == (known.reach.len(), known.tables.len()) {
                break;
            }
        }
        let used: BTreeSet<i64> = uses.iter().map(|used| used.function).collect();
        let listed = functions.iter().filter(|function| used.contains(&function.oid));
        let listed = listed.filter_map(|function| {
            let why = known.reach.get(&function.oid)?;
            let objects = uses.iter().filter(|used| used.function == function.oid);
            let objects: Vec<String> = objects.map(|used| format!("{} of {}", used.object, used.table)).collect();
            Some(format!("{}: {why}; used by {}", function.identity, objects.join(", ")))
        });
        Ok(Self { listed: listed.collect(), of: known.tables })
    }
}

#[derive(FromRow)]
struct Function {
    oid: i64,
    #[sqlx(flatten)]
    name: Qualified,
    identity: String,
    body: String,
    /// Why its language or its extension reaches outside.
    reason: Option<String>,
}

/// A trigger, default, constraint or the like of a table, and a function that it calls.
#[derive(FromRow)]
struct Use {
    #[sqlx(flatten)]
    table: Qualified,
    object: String,
    function: i64,
}

struct Known {
    /// Functions of Postgres that are closed to PUBLIC, such as those that read files.
    closed: BTreeSet<String>,
    foreign: Vec<Qualified>,
    reach: BTreeMap<i64, String>,
    tables: BTreeMap<Qualified, String>,
}

impl Known {
    fn why(&self, function: &Function, mentions: &Mentions, functions: &[Function]) -> Option<String> {
        if let Some(reason) = &function.reason {
            return Some(reason.clone());
        }
        let words: Vec<String> = tokens(&function.body)
            .filter_map(|token| if let Token::Word(word) = token { Some(word) } else { None })
            .collect();
        let has = |word: &str| words.iter().any(|other| other == word);
        if copies_outside(&function.body) {
            return Some("it copies from or to a program or a file".to_owned());
        }
        if has("notify") || has("pg_notify") {
            return Some("it notifies".to_owned());
        }
        let called = |name: &Qualified| mentions.functions.iter().any(|known| known.may_mean(name));
        if let Some(closed) = self.closed.iter().find(|name| called(&Qualified::new("pg_catalog", name.as_str()))) {
            return Some(format!("it calls {closed}"));
        }
        let named = |name: &Qualified| mentions.relations.iter().any(|(known, certain)| *certain && known.may_mean(name));
        if let Some(table) = self.foreign.iter().find(|table| named(table)) {
            return Some(format!("it uses the foreign table {table}"));
        }
        if let Some(table) = self.tables.keys().find(|table| named(table)) {
            return Some(format!("it uses {table}, whose writes reach outside"));
        }
        let reaching = functions.iter().filter(|other| self.reach.contains_key(&other.oid) && other.oid != function.oid);
        let mut reaching = reaching.filter(|other| called(&other.name));
        reaching.next().map(|other| format!("it calls {}", other.identity))
    }
}

/// Whether a body, or a text that it executes, holds `copy … to '/file'` or `copy … from program 'command'`.
fn copies_outside(body: &str) -> bool {
    let (mut copies, mut directed) = (false, false);
    tokens(body).any(|token| match token {
        Token::Word(word) if word == "copy" => {
            (copies, directed) = (true, false);
            false
        }
        Token::Word(word) => {
            let is_outside = copies && directed && word == "program";
            directed = matches!(word.as_str(), "to" | "from");
            is_outside
        }
        Token::Literal(text) => (copies && directed) || (text.len() < body.len() && copies_outside(&text)),
        Token::Other(other) => {
            (copies, directed) = (copies && other != ';', false);
            false
        }
    })
}

/// Members of an extension that Postgres trusts do not reach outside.
const FUNCTIONS: &str = r"
    select
        p.oid::int8,
        n.nspname::text as schema,
        p.proname::text as name,
        i.identity::text,
        case
            when l.lanname in ('c', 'internal') then ''
            when p.prosqlbody is null then p.prosrc
            else pg_get_function_sqlbody(p.oid)
        end as body,
        case
            when l.lanname = 'internal' or coalesce(v.trusted, false) then null
            when l.lanname = 'c' and e.extname is not null then format('it belongs to the extension %s', e.extname)
            when not l.lanpltrusted then format('its language is %s', l.lanname)
        end as reason
    from pg_proc p
    join pg_namespace n on n.oid = p.pronamespace
    join pg_language l on l.oid = p.prolang
    cross join lateral pg_identify_object('pg_proc'::regclass, p.oid, 0) i
    left join pg_depend d on d.classid = 'pg_proc'::regclass and d.objid = p.oid and d.deptype = 'e'
    left join pg_extension e on d.refclassid = 'pg_extension'::regclass and e.oid = d.refobjid
    left join pg_available_extension_versions v on v.name = e.extname and v.version = e.extversion
    where p.oid >= 16384
      and p.prokind in ('f', 'p')
      and n.nspname <> 'splitctl'
    order by 1";

const FOREIGN: &str = r"
    select n.nspname::text as schema, c.relname::text as name
    from pg_class c
    join pg_namespace n on n.oid = c.relnamespace
    where c.relkind = 'f'";

const CLOSED: &str = r"
    select distinct p.proname::text
    from pg_proc p
    where p.oid < 16384
      and p.proacl is not null
      and not exists (select from aclexplode(p.proacl) a where a.grantee = 0)";

/// What belongs to a table and calls a function: triggers, defaults, constraints, policies, indexes, rules.
const USES: &str = r"
    select
        l.schema,
        l.name,
        i.type || ' ' || split_part(i.identity, ' on ', 1) as object,
        f.refobjid::int8 as function
    from unnest($1::text[], $2::text[]) l (schema, name)
    join pg_namespace n on n.nspname = l.schema
    join pg_class r on r.relnamespace = n.oid and r.relname = l.name
    cross join lateral (
        select r.oid as relid
        union
        select p.relid::oid from pg_partition_tree(r.oid) p
    ) t
    join pg_depend d on d.refclassid = 'pg_class'::regclass and d.refobjid = t.relid
    join pg_depend f on f.classid = d.classid and f.objid = d.objid and f.refclassid = 'pg_proc'::regclass
    cross join lateral pg_identify_object(d.classid, d.objid, 0) i
    where f.refobjid >= 16384
    group by 1, 2, 3, 4
    order by 1, 2, 3";

#[cfg(test)]
mod tests {
    use super::copies_outside;

    #[test]
    fn a_copy_to_a_file_or_a_program_reaches_outside() {
        for (body, expected) in [
            ("copy notes to '/tmp/notes'", true),
            ("begin execute 'copy (select 1) to program $$mail$$'; end", true),
            ("copy notes from program 'cat'", true),
            ("new.copy := 'from'; select 'to' from notes where copy = 'x'", false),
            ("copy notes to stdout; select 'x' from y", false),
        ] {
            assert_eq!(copies_outside(body), expected, "{body}");
        }
    }
}
