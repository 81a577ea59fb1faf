//! What functions use: the names in their bodies, resolved against the catalog. A name without a schema may mean an object
//! in any schema, since the caller sets the search path.

use std::collections::{BTreeMap, BTreeSet};

use sqlx::{FromRow, PgConnection, query_as};

use super::across::Across;
use super::{Id, PG_PROC, Unread};
use crate::audit::body;
use crate::audit::lexer::{Token, tokens};
use crate::names::{Qualified, parse_identifiers};

/// The characters of operators.
const OPERATORS: &str = "+-*/<>=~!@#%^&|`?";

#[derive(Debug, FromRow)]
struct Function {
    class: i64,
    oid: i64,
    identity: String,
    language: String,
    body: String,
    /// Whether a statement can call it.
    is_callable: bool,
    /// Whether it sets its own search path.
    has_path: bool,
}

/// An object that a body can name.
#[derive(Debug, FromRow)]
struct Named {
    class: i64,
    oid: i64,
    kind: String,
    identity: String,
    /// Whether a body that names it reads or writes rows of it.
    holds_rows: bool,
    /// Whether it is a function or an operator, and Postgres has one of this name itself.
    is_overload: bool,
}

/// The user's functions, and all that they can name.
#[derive(Debug, Default)]
pub(super) struct Code {
    functions: BTreeMap<Id, Function>,
    named: BTreeMap<String, Vec<(Qualified, Named)>>,
    operators: Vec<Operator>,
    schemas: BTreeSet<String>,
    expressions: BTreeMap<Id, Expression>,
}

/// An operator of the user's.
#[derive(Debug)]
struct Operator {
    symbol: String,
    id: Id,
    is_overload: bool,
}

/// An expression that finds an object by a text when it runs, as `nextval('numbers'::text)` does, or a trigger with
/// arguments, which may name one for its function.
#[derive(Debug, FromRow)]
struct Expression {
    class: i64,
    oid: i64,
    identity: String,
    text: String,
    /// Whether it certainly finds one.
    is_certain: bool,
}

impl Code {
    /// Reads them.
    pub(super) async fn read(connection: &mut PgConnection) -> Result<Self, sqlx::Error> {
        let functions: Vec<Function> = query_as(FUNCTIONS).fetch_all(&mut *connection).await?;
        let expressions: Vec<Expression> = query_as(EXPRESSIONS).fetch_all(&mut *connection).await?;
        let objects: Vec<Named> = query_as(NAMED).fetch_all(connection).await?;
        let mut schemas = BTreeSet::new();
        let (mut named, mut operators) = (BTreeMap::<_, Vec<_>>::new(), Vec::new());
        for object in objects {
            let name = object.identity.split('(').next().unwrap_or_default();
            if object.kind == "operator" {
                let symbol = name.trim_start_matches(|character| !OPERATORS.contains(character));
                let (symbol, id) = (symbol.to_owned(), (object.class, object.oid));
                operators.push(Operator { symbol, id, is_overload: object.is_overload });
            } else if let Some([schema, name]) = parse_identifiers(name).as_deref() {
                schemas.insert(schema.clone());
                named.entry(name.clone()).or_default().push((Qualified::new(schema, name), object));
            }
        }
        let functions = functions.into_iter().map(|function| ((function.class, function.oid), function)).collect();
        let expressions =
            expressions.into_iter().map(|expression| ((expression.class, expression.oid), expression)).collect();
        Ok(Self { functions, named, operators, schemas, expressions })
    }

    /// The functions that use moving tables and no others. Trigger functions come with their triggers.
    pub(super) fn over_the_tables(&self, across: &Across) -> BTreeSet<Id> {
        let is_over = |function: &Function| function.is_callable && across.is_over(function.oid);
        self.functions.iter().filter(|(_, function)| is_over(function)).map(|(id, _)| *id).collect()
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
            used.extend(self.operators_in(&function.body).map(|operator| operator.id));
        }
        if let Some(expression) = self.expressions.get(&id) {
            let named = self.literals(&expression.text).filter(|object| !object.holds_rows);
            used.extend(named.map(|object| (object.class, object.oid)));
        }
        used.into_iter()
    }

    /// The objects without rows that a statement of the application names, where it can only mean such an object: functions
    /// and operators that it calls, and sequences. A statement that names tables, and none that `moves`, is another part's:
    /// it names nothing here.
    pub(super) fn named_in(&self, statement: &str, moves: impl Fn(Id) -> bool) -> BTreeSet<Id> {
        let mentions = body::read(statement, &|schema| self.schemas.contains(schema));
        let certain = mentions.relations.iter().filter(|(_, certain)| **certain).map(|(name, _)| name);
        let (tables, others): (Vec<_>, Vec<_>) =
            certain.flat_map(|name| self.meant(name)).partition(|object| object.holds_rows);
        if !tables.is_empty() && !tables.iter().any(|table| moves((table.class, table.oid))) {
            return BTreeSet::new();
        }
        let called = mentions.functions.iter().flat_map(|name| self.meant(name));
        let sequences = others.into_iter().chain(self.literals(statement)).filter(|object| object.kind == "sequence");
        // Where Postgres has one of the same name, the statement most likely means that.
        let named = called.chain(sequences).filter(|object| !object.holds_rows && !object.is_overload);
        let operators = self.operators_in(statement).filter(|operator| !operator.is_overload);
        named.map(|object| (object.class, object.oid)).chain(operators.map(|operator| operator.id)).collect()
    }

    /// The functions that a statement can call and that nothing in the database calls, but for these.
    pub(super) fn uncalled(&self, but: &BTreeSet<Id>) -> Vec<Id> {
        let mut called: BTreeSet<Id> = self.functions.keys().flat_map(|id| self.used_by(*id)).collect();
        called.extend(self.expressions.keys().flat_map(|id| self.used_by(*id)));
        let functions = self.functions.iter().filter(|(_, function)| function.is_callable);
        functions.map(|(id, _)| *id).filter(|id| !called.contains(id) && !but.contains(id)).collect()
    }

    /// These functions, and all that they call.
    pub(super) fn with_called(&self, functions: impl Iterator<Item = i64>) -> BTreeSet<i64> {
        let (mut all, mut left) = (BTreeSet::new(), functions.collect::<Vec<i64>>());
        while let Some(oid) = left.pop() {
            if all.insert(oid) {
                left.extend(self.used_by((PG_PROC, oid)).filter(|used| used.0 == PG_PROC).map(|used| used.1));
            }
        }
        all
    }

    /// A function or an expression outside of the inventory that uses an object of it.
    pub(super) fn other_user(&self, object: Id, inventory: &BTreeSet<Id>) -> Option<String> {
        let functions = self.functions.iter().map(|(id, other)| (id, format!("function {}", other.identity)));
        let expressions = self.expressions.iter().map(|(id, other)| (id, other.identity.clone()));
        let mut others = functions.chain(expressions).filter(|(id, _)| !inventory.contains(id));
        others.find(|(id, _)| self.used_by(**id).any(|used| used == object)).map(|(_, identity)| identity)
    }

    /// Why a function or an expression may use more than it shows.
    pub(super) fn unread(&self, id: Id) -> Option<Unread> {
        if let Some(expression) = self.expressions.get(&id) {
            let finds = self.literals(&expression.text).next().is_some();
            let why = "it finds an object by a text that it builds".to_owned();
            return (expression.is_certain && !finds).then(|| Unread { user: expression.identity.clone(), why });
        }
        let Function { identity, language, body, .. } = self.functions.get(&id)?;
        let builds = || tokens(body).any(|token| token == Token::Word("execute".to_owned()));
        let why = match &**language {
            "sql" | "internal" => return None,
            "plpgsql" if builds() => "it executes a text that it builds".to_owned(),
            "plpgsql" => return None,
            other => format!("its language is {other}"),
        };
        Some(Unread { user: identity.clone(), why })
    }

    /// What a function, and those that it calls, find by the search path of their caller.
    pub(super) fn found_by_path(&self, id: Id) -> BTreeSet<Qualified> {
        let (mut found, mut seen, mut left) = (BTreeSet::new(), BTreeSet::new(), vec![id]);
        while let Some(id) = left.pop() {
            let Some(function) = self.functions.get(&id).filter(|function| !function.has_path && seen.insert(id)) else {
                continue;
            };
            let mentions = self.mentions(function);
            let tables = mentions.relations.iter().filter(|(_, certain)| **certain).map(|(name, _)| name);
            for name in tables.chain(&mentions.functions) {
                let known = self.named.get(name.name()).into_iter().flatten();
                for (qualified, object) in known.filter(|(qualified, _)| name.may_mean(qualified)) {
                    if name.needs_path() {
                        found.insert(qualified.clone());
                    }
                    left.push((object.class, object.oid));
                }
            }
        }
        found
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
    fn operators_in(&self, body: &str) -> impl Iterator<Item = &Operator> {
        let symbols: String = tokens(body)
            .map(|token| match token {
                Token::Other(character) if OPERATORS.contains(character) => character,
                _ => ' ',
            })
            .collect();
        self.operators.iter().filter(move |operator| symbols.contains(operator.symbol.as_str()))
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
            and p.prorettype not in ('trigger'::regtype, 'event_trigger'::regtype) as is_callable,
        exists (select from unnest(p.proconfig) c (setting) where starts_with(c.setting, 'search_path=')) as has_path
    from pg_proc p
    join pg_language l on l.oid = p.prolang
    cross join lateral pg_identify_object('pg_proc'::regclass, p.oid, 0) i
    where p.oid >= 16384
      and p.pronamespace is distinct from to_regnamespace('splitctl')
      and not exists (
          select
          from pg_depend d
          where d.classid = 'pg_proc'::regclass
            and d.objid = p.oid
            and d.deptype = 'e'
      )";

const EXPRESSIONS: &str = r"
    select
        x.class::oid::int8 as class,
        x.oid::int8 as oid,
        format('%s %s', i.type, i.identity) as identity,
        x.text,
        x.text ~ '::text\)+::reg' as is_certain
    from (
        select 'pg_attrdef'::regclass, f.oid, pg_get_expr(f.adbin, f.adrelid), false from pg_attrdef f
        union all
        select 'pg_constraint'::regclass, c.oid, pg_get_constraintdef(c.oid), false
        from pg_constraint c
        where c.contype = 'c'
        union all
        select
            'pg_policy'::regclass,
            p.oid,
            concat_ws(' ', pg_get_expr(p.polqual, p.polrelid), pg_get_expr(p.polwithcheck, p.polrelid)),
            false
        from pg_policy p
        union all
        select 'pg_rewrite'::regclass, r.oid, pg_get_ruledef(r.oid), false from pg_rewrite r where r.oid >= 16384
        union all
        select 'pg_trigger'::regclass, t.oid, pg_get_triggerdef(t.oid), t.tgnargs > 0
        from pg_trigger t
        where not t.tgisinternal
          and (t.tgqual is not null or t.tgnargs > 0)
    ) x (class, oid, text, has_arguments)
    cross join lateral pg_identify_object(x.class, x.oid, 0) i
    where (x.has_arguments or x.text ~ '::text\)+::reg')
      and i.type is not null";

/// A sequence that a table has is moved or stays with the table. The row type of a table has the table's name, and is not
/// named itself.
const NAMED: &str = r"
    select
        o.classid::int8 as class,
        o.objid::int8 as oid,
        i.type::text as kind,
        i.identity::text as identity,
        coalesce(c.relkind in ('r', 'p', 'v', 'm', 'f'), false) as holds_rows,
        case o.classid
            when 'pg_proc'::regclass then exists (
                select
                from pg_proc p
                join pg_proc b on b.proname = p.proname and b.pronamespace = 'pg_catalog'::regnamespace
                where p.oid = o.objid
            )
            when 'pg_operator'::regclass then exists (
                select
                from pg_operator p
                join pg_operator b on b.oprname = p.oprname and b.oprnamespace = 'pg_catalog'::regnamespace
                where p.oid = o.objid
            )
            else false
        end as is_overload
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
