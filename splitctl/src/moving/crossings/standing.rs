//! The crossings that stand, with all that it takes to create them again.

use std::collections::BTreeSet;

use anyhow::Result;
use sqlx::postgres::types::Oid;
use sqlx::{FromRow, PgConnection, query_as};

use super::crossing::{Crossing, Kind};
use super::parts;
use crate::manifest::Manifest;
use crate::moving::inventory::{Inventory, Part, PartKind};
use crate::moving::schema::pg_dump;
use crate::moving::{Move, relations};
use crate::names::Qualified;

/// The crossings that `detach` can drop, in an order in which they can be dropped. The manifest's own replacement of a
/// crossing, with `replace`, goes before.
pub async fn list(the_move: &mut Move) -> Result<Vec<Crossing>> {
    let Move { manifest, owner, source, .. } = the_move;
    let connection = &mut source.connection;
    let inventory = Inventory::read(connection, owner).await?;
    let parts: Vec<&Part> = inventory
        .crossing_parts()
        .filter(|part| part.can_be_detached() && !has_replacement(manifest, &part.object()))
        .collect();
    let (views, others): (Vec<&Part>, Vec<&Part>) = parts.into_iter().partition(|part| part.kind == PartKind::View);
    let ids: Vec<i64> = others.iter().map(|part| part.id.1).collect();
    let mut crossings: Vec<Crossing> = query_as(parts::PARTS).bind(ids).fetch_all(&mut *connection).await?;
    let views: Vec<i64> = views.iter().map(|part| part.relation).collect();
    let functions = inventory.crossing_functions().iter();
    let functions = functions.filter(|function| !has_replacement(manifest, &function.shown));
    let functions: Vec<i64> = functions.map(|function| function.oid).collect();
    let hanging = query_as::<_, Hanging>(HANGING).bind(&views).bind(functions);
    let mut known = BTreeSet::new();
    for Hanging { oid, is_function } in hanging.fetch_all(&mut *connection).await? {
        if known.insert((oid.0, is_function)) {
            let statement = if is_function { FUNCTION } else { VIEW };
            crossings.extend(query_as::<_, Crossing>(statement).bind(oid).fetch_optional(&mut *connection).await?);
        }
    }
    crossings.extend(foreign_keys(connection, &owner.tables).await?);
    for view in crossings.iter_mut().filter(|crossing| matches!(crossing.kind, Kind::View | Kind::MaterializedView)) {
        let program = pg_dump::find(source.version).await?;
        view.definition = pg_dump::definition(&program, &source.url, &view.table, source.version).await?;
    }
    Ok(crossings)
}

/// The event triggers whose functions use relations that move, with these relations. They fire for everybody, and one at
/// login lets nobody in when its function fails.
pub async fn event_triggers(connection: &mut PgConnection, inventory: &Inventory) -> Result<Vec<(String, String)>> {
    let functions = inventory.functions_using_moving();
    let oids: Vec<i64> = functions.keys().copied().collect();
    let found: Vec<(String, i64)> = query_as(EVENT_TRIGGERS).bind(oids).fetch_all(connection).await?;
    Ok(found.into_iter().map(|(trigger, function)| (trigger, functions[&function].clone())).collect())
}

const EVENT_TRIGGERS: &str = r"
    select quote_ident(e.evtname), e.evtfoid::int8
    from pg_event_trigger e
    where e.evtfoid = any ($1::int8[]::oid[])
      and e.evtenabled <> 'D'
    order by 1";

/// An object that a drop of a crossing would meet.
#[derive(FromRow)]
pub struct Depending {
    class: i64,
    oid: i64,
    /// The object.
    pub shown: String,
    /// The view or function that it depends on.
    pub needed: String,
}

/// What depends on the views and functions that `detach` drops, and is dropped by nobody.
pub async fn depending(
    connection: &mut PgConnection,
    manifest: &Manifest,
    inventory: &Inventory,
) -> Result<Vec<Depending>, sqlx::Error> {
    let parts = inventory.crossing_parts().filter(|part| part.kind == PartKind::View && part.can_be_detached());
    let views: Vec<i64> =
        parts.filter(|part| !has_replacement(manifest, &part.object())).map(|part| part.relation).collect();
    let functions = inventory.crossing_functions().iter();
    let functions = functions.filter(|function| !has_replacement(manifest, &function.shown));
    let functions: Vec<i64> = functions.map(|function| function.oid).collect();
    let found: Vec<Depending> = query_as(DEPENDING).bind(views).bind(functions).fetch_all(connection).await?;
    Ok(found.into_iter().filter(|object| inventory.part((object.class, object.oid)).is_none()).collect())
}

/// The foreign keys that cross.
pub async fn foreign_keys(connection: &mut PgConnection, tables: &[Qualified]) -> Result<Vec<Crossing>, sqlx::Error> {
    relations::select(connection, FOREIGN_KEYS, tables).await
}

/// Whether the manifest names the SQL that replaces an object.
pub fn has_replacement(manifest: &Manifest, object: &str) -> bool {
    manifest.borrowings.iter().any(|borrowing| borrowing.replace.is_some() && borrowing.what == object)
}

#[derive(FromRow)]
struct Hanging {
    oid: Oid,
    is_function: bool,
}

/// A partition's own key comes back after that of its root, which would take it over.
const FOREIGN_KEYS: &str = r"
    select
        'foreign-key' as kind,
        n.nspname::text as schema,
        t.relname::text as name,
        c.conname::text as part,
        pg_get_constraintdef(c.oid) as definition,
        case when d.description is null then '{}' else array[
            format('comment on constraint %I on %I.%I is %L', c.conname, n.nspname, t.relname, d.description)
        ] end as details,
        null::text as acl,
        '{}'::text[] as grants,
        false as is_filled
    from pg_constraint c
    join pg_class t on t.oid = c.conrelid
    join pg_namespace n on n.oid = t.relnamespace
    left join pg_description d on d.classoid = 'pg_constraint'::regclass and d.objoid = c.oid and d.objsubid = 0
    where c.contype = 'f'
      and c.conparentid = 0
      and (c.conrelid = any ($1)) <> (c.confrelid = any ($1))
    order by (select count(*) from pg_partition_ancestors(t.oid)) desc, 2, 3, 4";

/// A query over a view or function `t` of `tree`: these views and functions, and all that depend on them.
macro_rules! hanging {
    ($query:literal) => {
        concat!(
            r"
    with recursive tree (classid, objid, depth) as (
        select 'pg_class'::regclass::oid, v.oid, 0 from unnest($1::int8[]::oid[]) v (oid)
        union
        select 'pg_proc'::regclass, p.oid, 0 from unnest($2::int8[]::oid[]) p (oid)
        union
        select further.classid, further.objid, t.depth + 1
        from tree t
        join pg_depend d
          on (d.refclassid = t.classid and d.refobjid = t.objid)
          or (
              t.classid = 'pg_class'::regclass
              and d.refclassid = 'pg_type'::regclass
              and d.refobjid in (
                  select y.oid
                  from pg_type y
                  left join pg_type e on e.oid = y.typelem
                  where t.objid in (y.typrelid, e.typrelid)
              )
          )
        cross join lateral (
            select 'pg_class'::regclass::oid, v.oid
            from pg_rewrite r
            join pg_class v on v.oid = r.ev_class and v.relkind in ('v', 'm') and v.oid <> t.objid
            where d.classid = 'pg_rewrite'::regclass
              and r.oid = d.objid
            union
            select d.classid, d.objid
            where d.classid = 'pg_proc'::regclass
        ) further (classid, objid)
        where t.depth < 30
    )",
            $query
        )
    };
}

/// An object comes before those that it needs.
const HANGING: &str = hanging!(
    r"
    select t.objid as oid, t.classid = 'pg_proc'::regclass as is_function
    from tree t
    group by t.classid, t.objid
    order by max(t.depth) desc, t.objid"
);

/// What depends on these, and is neither a view or function nor gone with one.
const DEPENDING: &str = hanging!(
    r"
    select distinct
        d.classid::int8 as class,
        d.objid::int8 as oid,
        format('%s %s', i.type, i.identity) as shown,
        format('%s %s', n.type, n.identity) as needed
    from tree t
    join pg_depend d on d.refclassid = t.classid and d.refobjid = t.objid and d.deptype = 'n'
    left join pg_rewrite r on d.classid = 'pg_rewrite'::regclass and r.oid = d.objid
    left join pg_class v on v.oid = r.ev_class
    left join pg_proc p on d.classid = 'pg_proc'::regclass and p.oid = d.objid
    cross join lateral pg_identify_object(d.classid, d.objid, d.objsubid) i
    cross join lateral pg_identify_object(t.classid, t.objid, 0) n
    where not coalesce(v.relkind in ('v', 'm'), false)
      and not coalesce(p.prokind in ('f', 'p'), false)
      and not exists (
          select
          from pg_depend a
          join tree x on x.classid = a.refclassid and x.objid = a.refobjid
          where a.classid = d.classid
            and a.objid = d.objid
            and a.deptype in ('a', 'i')
      )
    order by 3, 4"
);

const VIEW: &str = r"
    select
        case c.relkind when 'm' then 'materialized-view' else 'view' end as kind,
        n.nspname::text as schema,
        c.relname::text as name,
        '' as part,
        '' as definition,
        array[format('alter table %I.%I owner to %I', n.nspname, c.relname, pg_get_userbyid(c.relowner))] || array(
            select concat_ws(
                '; ',
                pg_get_statisticsobjdef(x.oid),
                format('alter statistics %s owner to %I', i.identity, pg_get_userbyid(x.stxowner)),
                (
                    select format('comment on statistics %s is %L', i.identity, d.description)
                    from pg_description d
                    where d.classoid = 'pg_statistic_ext'::regclass
                      and d.objoid = x.oid
                )
            )
            from pg_statistic_ext x
            cross join lateral pg_identify_object('pg_statistic_ext'::regclass, x.oid, 0) i
            where x.stxrelid = c.oid
        ) as details,
        a.acl::text as acl,
        array(
            select format(
                b.by_grantor,
                format(
                    'grant %s on table %I.%I to %s%s',
                    string_agg(g.privilege_type, ', '),
                    n.nspname,
                    c.relname,
                    case when g.grantee = 0 then 'public' else quote_ident(pg_get_userbyid(g.grantee)) end,
                    case when g.is_grantable then ' with grant option' else '' end
                )
            )
            from aclexplode(a.acl) with ordinality g (grantor, grantee, privilege_type, is_grantable, nth)
            cross join lateral (
                select case
                    when g.grantor = c.relowner or not pg_has_role(g.grantor, 'MEMBER') then '%s'
                    else replace(format('set role %I; ', pg_get_userbyid(g.grantor)), '%', '%%') || '%s; reset role'
                end as by_grantor
            ) b
            group by b.by_grantor, g.grantee, g.is_grantable
            order by min(g.nth)
        ) || array(
            select format(
                b.by_grantor,
                format(
                    'grant %s (%I) on table %I.%I to %s%s',
                    g.privilege_type,
                    t.attname,
                    n.nspname,
                    c.relname,
                    case when g.grantee = 0 then 'public' else quote_ident(pg_get_userbyid(g.grantee)) end,
                    case when g.is_grantable then ' with grant option' else '' end
                )
            )
            from pg_attribute t
            cross join lateral aclexplode(t.attacl) with ordinality g (grantor, grantee, privilege_type, is_grantable, nth)
            cross join lateral (
                select case
                    when g.grantor = c.relowner or not pg_has_role(g.grantor, 'MEMBER') then '%s'
                    else replace(format('set role %I; ', pg_get_userbyid(g.grantor)), '%', '%%') || '%s; reset role'
                end as by_grantor
            ) b
            where t.attrelid = c.oid
            order by g.nth
        ) as grants,
        c.relkind = 'm' and c.relispopulated as is_filled
    from pg_class c
    join pg_namespace n on n.oid = c.relnamespace
    cross join lateral (select coalesce(c.relacl, acldefault('r', c.relowner)) as acl) a
    where c.oid = $1";

const FUNCTION: &str = r"
    select
        'function' as kind,
        n.nspname::text as schema,
        p.proname::text as name,
        oidvectortypes(p.proargtypes) as part,
        pg_get_functiondef(p.oid) as definition,
        array[format('alter routine %s owner to %I', p.oid::regprocedure, pg_get_userbyid(p.proowner))] || array(
            select format('comment on routine %s is %L', p.oid::regprocedure, d.description)
            from pg_description d
            where d.classoid = 'pg_proc'::regclass
              and d.objoid = p.oid
        ) as details,
        a.acl::text as acl,
        array(
            select format(
                b.by_grantor,
                format(
                    'grant execute on routine %s to %s%s',
                    p.oid::regprocedure,
                    case when g.grantee = 0 then 'public' else quote_ident(pg_get_userbyid(g.grantee)) end,
                    case when g.is_grantable then ' with grant option' else '' end
                )
            )
            from aclexplode(a.acl) with ordinality g (grantor, grantee, privilege_type, is_grantable, nth)
            cross join lateral (
                select case
                    when g.grantor = p.proowner or not pg_has_role(g.grantor, 'MEMBER') then '%s'
                    else replace(format('set role %I; ', pg_get_userbyid(g.grantor)), '%', '%%') || '%s; reset role'
                end as by_grantor
            ) b
            order by g.nth
        ) as grants,
        false as is_filled
    from pg_proc p
    join pg_namespace n on n.oid = p.pronamespace
    cross join lateral (select coalesce(p.proacl, acldefault('f', p.proowner)) as acl) a
    where p.oid = $1
      and p.prokind in ('f', 'p')";
