//! What functions use: the names in their bodies, resolved against the catalog. A name without a schema may mean an object
//! in any schema, since the caller sets the search path.

use std::collections::{BTreeMap, BTreeSet};

use sqlx::{FromRow, PgConnection, query_as};

use super::{Id, Unread};
use crate::audit::body;
use crate::audit::lexer::{Token, tokens};
use crate::names::{Qualified, parse_identifiers};

/// The characters of operators.
const OPERATORS: &str = "+-*/<>=~!@#%^&|`?";

#[derive(FromRow)]
struct Function {
    class: i64,
    oid: i64,
    identity: String,
    language: String,
    body: String,
    may_call: bool,
}

/// An object that a body can name.
#[derive(FromRow)]
struct Named {
    class: i64,
    oid: i64,
    kind: String,
    identity: String,
    /// Whether a body that names it reads or writes rows of it.
    holds_rows: bool,
}

/// The user's functions, and all that they can name.
pub(super) struct Code {
    functions: BTreeMap<Id, Function>,
    named: BTreeMap<String, Vec<(Qualified, Named)>>,
    operators: Vec<(String, Id)>,
    schemas: BTreeSet<String>,
    moving: BTreeSet<i64>,
}

impl Code {
    /// Reads them. `role` is the application's.
    pub(super) async fn read(connection: &mut PgConnection, moving: &[i64], role: &str) -> Result<Self, sqlx::Error> {
        let functions: Vec<Function> = query_as(FUNCTIONS).bind(role).fetch_all(&mut *connection).await?;
        let objects: Vec<Named> = query_as(NAMED).fetch_all(connection).await?;
        let mut schemas = BTreeSet::new();
        let (mut named, mut operators) = (BTreeMap::<_, Vec<_>>::new(), Vec::new());
        for object in objects {
            let name = object.identity.split('(').next().unwrap_or_default();
            if object.kind == "operator" {
                let symbol = name.trim_start_matches(|character| !OPERATORS.contains(character));
                operators.push((symbol.to_owned(), (object.class, object.oid)));
            } else if let Some([schema, name]) = parse_identifiers(name).as_deref() {
                schemas.insert(schema.clone());
                named.entry(name.clone()).or_default().push((Qualified::new(schema, name), object));
            }
        }
        let functions = functions.into_iter().map(|function| ((function.class, function.oid), function)).collect();
        Ok(Self { functions, named, operators, schemas, moving: moving.iter().copied().collect() })
    }

    /// The functions that use moving tables and no others, and that the application may call.
    pub(super) fn over_the_tables(&self) -> BTreeSet<Id> {
        let is_over = |function: &Function| {
            let mentions = self.mentions(function);
            let certain = mentions.relations.iter().filter(|(_, certain)| **certain);
            let mut held = certain.flat_map(|(name, _)| self.meant(name)).filter(|object| object.holds_rows).peekable();
            held.peek().is_some() && held.all(|object| self.moving.contains(&object.oid))
        };
        self.functions.iter().filter(|(_, function)| function.may_call && is_over(function)).map(|(id, _)| *id).collect()
    }

    /// The objects that a function names. Relations with rows are left out: the audit lists them as couplings.
    pub(super) fn used_by(&self, id: Id) -> impl Iterator<Item = Id> {
        let mut used = BTreeSet::new();
        if let Some(function) = self.functions.get(&id) {
            let mentions = self.mentions(function);
            let relations = mentions.relations.keys().flat_map(|name| self.meant(name));
            let called = mentions.functions.iter().flat_map(|name| self.meant(name));
            let objects = relations.filter(|object| !object.kind.is_empty()).chain(called);
            let quoted = self.literals(&function.body);
            used.extend(objects.chain(quoted).filter(|object| !object.holds_rows).map(|object| (object.class, object.oid)));
            used.extend(self.operators_in(&function.body));
        }
        used.into_iter()
    }

    /// A function outside of the inventory that uses an object of it.
    pub(super) fn other_user(&self, object: Id, inventory: &BTreeSet<Id>) -> Option<&str> {
        let others = self.functions.iter().filter(|(id, _)| !inventory.contains(id));
        others.filter(|(id, _)| self.used_by(**id).any(|used| used == object)).map(|(_, other)| &*other.identity).next()
    }

    /// Why the body of a function may use more than it shows.
    pub(super) fn unread(&self, id: Id) -> Option<Unread> {
        let Function { identity, language, body, .. } = self.functions.get(&id)?;
        let builds = || tokens(body).any(|token| token == Token::Word("execute".to_owned()));
        let why = match &**language {
            "sql" => return None,
            "plpgsql" if builds() => "it executes a text that it builds".to_owned(),
            "plpgsql" => return None,
            other => format!("its language is {other}"),
        };
        Some(Unread { function: identity.clone(), why })
    }

    fn mentions(&self, function: &Function) -> body::Mentions {
        body::read(&function.body, &|schema| self.schemas.contains(schema))
    }

    fn meant(&self, name: &body::Name) -> impl Iterator<Item = &Named> {
        let candidates = self.named.get(name.name()).into_iter().flatten();
        candidates.filter(|(qualified, _)| name.may_mean(qualified)).map(|(_, object)| object)
    }

    /// The objects whose name is a text in the body, as in `nextval('shop.numbers')`.
    fn literals<'a>(&'a self, body: &str) -> impl Iterator<Item = &'a Named> {
        let parts = tokens(body).filter_map(|token| match token {
            Token::Literal(text) => parse_identifiers(&text).filter(|parts| parts.len() <= 2),
            _ => None,
        });
        let found = parts.flat_map(|mut parts| {
            let name = parts.pop().unwrap_or_default();
            let candidates = self.named.get(&name).into_iter().flatten();
            candidates.filter(move |(known, _)| parts.first().is_none_or(|schema| *schema == known.schema))
        });
        found.map(|(_, object)| object).collect::<Vec<_>>().into_iter()
    }

    /// The user's operators whose characters stand in the body.
    fn operators_in(&self, body: &str) -> impl Iterator<Item = Id> {
        let symbols: String = tokens(body)
            .map(|token| match token {
                Token::Other(character) if OPERATORS.contains(character) => character,
                _ => ' ',
            })
            .collect();
        self.operators.iter().filter(move |(symbol, _)| symbols.contains(symbol.as_str())).map(|(_, id)| *id)
    }
}

const FUNCTIONS: &str = r"
    select
        'pg_proc'::regclass::oid::int8 as class,
        p.oid::int8 as oid,
        i.identity::text as identity,
        l.lanname::text as language,
        case when p.prosqlbody is null then p.prosrc else '' end as body,
        p.prokind in ('f', 'p')
            and p.prorettype not in ('trigger'::regtype, 'event_trigger'::regtype)
            and coalesce(has_function_privilege(r.oid, p.oid, 'execute'), false) as may_call
    from pg_proc p
    join pg_language l on l.oid = p.prolang
    cross join lateral pg_identify_object('pg_proc'::regclass, p.oid, 0) i
    left join pg_roles r on r.rolname = $1
    where p.oid >= 16384
      and p.pronamespace is distinct from to_regnamespace('splitctl')
      and not exists (
          select
          from pg_depend d
          where d.classid = 'pg_proc'::regclass
            and d.objid = p.oid
            and d.deptype = 'e'
      )";

/// A sequence that a table has is moved or stays with the table. The row type of a table has the table's name, and is not
/// named itself.
const NAMED: &str = r"
    select
        o.classid::int8 as class,
        o.objid::int8 as oid,
        i.type::text as kind,
        i.identity::text as identity,
        coalesce(c.relkind in ('r', 'p', 'v', 'm', 'f'), false) as holds_rows
    from (
        select classid, objid from pg_depend
        union
        select refclassid, refobjid from pg_depend
    ) o
    cross join lateral pg_identify_object(o.classid, o.objid, 0) i
    left join pg_class c on o.classid = 'pg_class'::regclass and c.oid = o.objid
    left join pg_type t on o.classid = 'pg_type'::regclass and t.oid = o.objid
    left join pg_class r on r.oid = t.typrelid
    where o.objid >= 16384
      and i.schema is not null
      and i.schema not in ('splitctl', 'pg_toast')
      and coalesce(c.relkind in ('r', 'p', 'v', 'm', 'f', 'S'), true)
      and coalesce(r.relkind = 'c', true)
      and not exists (
          select
          from pg_depend d
          where c.relkind = 'S'
            and d.classid = 'pg_class'::regclass
            and d.objid = o.objid
            and d.deptype in ('a', 'i')
      )";
