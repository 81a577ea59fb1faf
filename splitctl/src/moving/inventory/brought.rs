//! Objects that only statements of the application use: those that the manifest's `bring` names, and those that it should.

use std::collections::BTreeSet;

use anyhow::Result;
use sqlx::{FromRow, PgConnection, query_as};

use super::{Id, Inventory, Object, closure, presence};

/// An object that a line of `bring` names.
#[derive(FromRow)]
struct Found {
    class: i64,
    oid: i64,
    shown: String,
    holds_rows: bool,
    is_part: bool,
}

/// A function or a sequence that nothing in the database uses.
#[derive(FromRow)]
pub struct Unused {
    /// Its kind and name, as the manifest's `bring` names it.
    pub shown: String,
    /// Whether its owner gave the role rights on it: then the role's statements most likely use it.
    pub is_granted: bool,
}

/// The objects that the lines name, and the lines that cannot be followed, with the reason.
pub(super) async fn find(
    connection: &mut PgConnection,
    lines: &[String],
) -> Result<(BTreeSet<Id>, Vec<(String, &'static str)>), sqlx::Error> {
    let found: Vec<Found> = match lines {
        [] => Vec::new(),
        lines => query_as(FIND).bind(lines).fetch_all(connection).await?,
    };
    let (mut brought, mut refused) = (BTreeSet::new(), Vec::new());
    for line in lines {
        match found.iter().find(|object| object.shown == *line) {
            None => refused.push((line.clone(), "the source has no such object")),
            Some(object) if object.holds_rows => refused.push((line.clone(), "list it in `tables` or `views`")),
            Some(object) if object.is_part => refused.push((line.clone(), "it comes and stays with what it is a part of")),
            Some(object) => _ = brought.insert((object.class, object.oid)),
        }
    }
    Ok((brought, refused))
}

impl Inventory {
    /// The objects that the manifest brings and that cannot come: they use both sides.
    pub fn brought_in_vain(&self) -> impl Iterator<Item = &Object> {
        self.objects.iter().filter(|object| self.is_brought(object) && object.crosses)
    }

    /// Whether the manifest brings an object.
    pub fn is_brought(&self, object: &Object) -> bool {
        self.brought.contains(&object.id())
    }

    /// What these statements name, or what that needs, if it does not come along and the target lacks it.
    ///
    /// # Errors
    /// If a database does not answer.
    pub async fn missing_for(
        &self,
        source: &mut PgConnection,
        target: &mut PgConnection,
        statements: impl Iterator<Item = &str>,
    ) -> Result<Vec<Object>> {
        let known: BTreeSet<Id> = self.objects.iter().map(Object::id).collect();
        let moves = |id: Id| known.contains(&id);
        let named: BTreeSet<Id> = statements.flat_map(|statement| self.code.named_in(statement, moves)).collect();
        let seeds: BTreeSet<Id> = named.difference(&known).copied().collect();
        if seeds.is_empty() {
            return Ok(Vec::new());
        }
        let mut needed = closure::read(source, &[], &seeds, &BTreeSet::new()).await?;
        needed.retain(|object| object.must_be_there() && !known.contains(&object.id()));
        Ok(presence::lacking(target, needed).await?)
    }

    /// The functions and sequences that nothing in the database uses, and that the target lacks: they do not come along, and
    /// a statement of `role` may use them.
    ///
    /// # Errors
    /// If a database does not answer.
    pub async fn unused(
        &self,
        source: &mut PgConnection,
        target: &mut PgConnection,
        role: &str,
    ) -> Result<Vec<Unused>, sqlx::Error> {
        let known: BTreeSet<Id> = self.objects.iter().map(Object::id).collect();
        let mut but = known.clone();
        but.extend(self.across.touching().map(|oid| (super::PG_PROC, oid)));
        let uncalled: Vec<i64> = self.code.uncalled(&but).into_iter().map(|(_, oid)| oid).collect();
        let known_oids: Vec<i64> = known.iter().map(|(_, oid)| *oid).collect();
        let mut unused: Vec<Unused> = query_as(UNUSED).bind(uncalled).bind(known_oids).bind(role).fetch_all(source).await?;
        let shown: Vec<&str> = unused.iter().map(|object| &*object.shown).collect();
        let there: Vec<Found> = query_as(FIND).bind(shown).fetch_all(target).await?;
        unused.retain(|object| !there.iter().any(|found| found.shown == object.shown));
        Ok(unused)
    }
}

const FIND: &str = r"
    select
        o.class::int8 as class,
        o.oid::int8 as oid,
        format('%s %s', i.type, i.identity) as shown,
        coalesce(c.relkind in ('r', 'p', 'v', 'm', 'f'), false) as holds_rows,
        exists (
            select
            from pg_depend d
            where d.classid = o.class
              and d.objid = o.oid
              and d.objsubid = 0
              and d.deptype in ('a', 'i', 'P', 'S', 'e')
        ) as is_part
    from (
        select classid, objid from pg_depend
        union
        select refclassid, refobjid from pg_depend
        union
        select 'pg_extension'::regclass, oid from pg_extension
    ) o (class, oid)
    cross join lateral pg_identify_object(o.class, o.oid, 0) i
    left join pg_class c on o.class = 'pg_class'::regclass and c.oid = o.oid
    where o.oid >= 12000
      and format('%s %s', i.type, i.identity) = any ($1)";

/// What a trigger, a view, a default or another object uses is recorded.
const UNUSED: &str = r"
    select
        format('%s %s', i.type, i.identity) as shown,
        exists (
            select
            from aclexplode(o.acl) a
            join pg_roles r on r.oid = a.grantee
            where r.rolname = $3
              and r.oid <> o.owner
        ) as is_granted
    from (
        select 'pg_proc'::regclass, p.oid, p.proowner, p.proacl
        from pg_proc p
        where p.oid = any ($1::int8[]::oid[])
        union all
        select 'pg_class'::regclass, c.oid, c.relowner, c.relacl
        from pg_class c
        where c.relkind = 'S'
          and c.oid >= 16384
          and c.oid <> all ($2::int8[]::oid[])
          and c.relnamespace is distinct from to_regnamespace('splitctl')
          and not exists (
              select
              from pg_depend d
              where d.classid = 'pg_class'::regclass
                and d.objid = c.oid
                and d.deptype in ('a', 'i', 'e')
          )
    ) o (class, oid, owner, acl)
    cross join lateral pg_identify_object(o.class, o.oid, 0) i
    where not exists (
        select
        from pg_depend d
        where d.refclassid = o.class
          and d.refobjid = o.oid
          and d.deptype = 'n'
    )
    order by 1";
