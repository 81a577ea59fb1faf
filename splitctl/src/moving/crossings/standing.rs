//! The crossings that stand, with all that it takes to create them again.

use std::collections::BTreeSet;

use anyhow::Result;
use sqlx::postgres::types::Oid;
use sqlx::{FromRow, PgConnection, query_as};

use super::crossing::{Crossing, Kind};
use crate::audit::{self, Finding};
use crate::manifest::Manifest;
use crate::moving::schema::pg_dump;
use crate::moving::{Move, relations};
use crate::names::Qualified;

/// The crossings that `detach` can drop, in an order in which they can be dropped. The manifest's own replacement of a
/// crossing, with `replace`, goes before.
pub async fn list(the_move: &mut Move) -> Result<Vec<Crossing>> {
    let Move { manifest, owner_name, owner, source, .. } = the_move;
    let connection = &mut source.connection;
    let code = audit::code_across(connection, manifest, owner_name).await?;
    let code: Vec<&Finding> = code.iter().filter(|finding| !has_replacement(manifest, &finding.object)).collect();
    let oids = |kind: audit::Kind| -> Vec<Oid> {
        let of_kind = code.iter().filter(|finding| finding.kind == kind);
        of_kind.filter_map(|finding| Some(Oid(u32::try_from(finding.oid?).ok()?))).collect()
    };
    let mut crossings: Vec<Crossing> =
        query_as(TRIGGERS).bind(oids(audit::Kind::Trigger)).fetch_all(&mut *connection).await?;
    let moving = relations::oids(connection, &owner.relations()).await?;
    let views: Vec<(Oid, String, String)> = query_as(VIEWS).bind(&moving).fetch_all(&mut *connection).await?;
    let mut views: Vec<Oid> = views
        .into_iter()
        .filter(|(_, schema, name)| !has_replacement(manifest, &Qualified::new(schema, name).to_string()))
        .map(|(oid, ..)| oid)
        .collect();
    // A view whose function uses tables of both owners.
    views.extend(oids(audit::Kind::Default));
    let hanging = query_as::<_, Hanging>(HANGING).bind(&views).bind(oids(audit::Kind::Function));
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

/// The foreign keys that cross.
pub async fn foreign_keys(connection: &mut PgConnection, tables: &[Qualified]) -> Result<Vec<Crossing>, sqlx::Error> {
    relations::select(connection, FOREIGN_KEYS, tables).await
}

fn has_replacement(manifest: &Manifest, object: &str) -> bool {
    manifest.borrowings.iter().any(|borrowing| borrowing.replace.is_some() && borrowing.what == object)
}

#[derive(FromRow)]
struct Hanging {
    oid: Oid,
    is_function: bool,
}

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
    order by 2, 3, 4";

/// A partition's trigger comes and goes with its root's.
const TRIGGERS: &str = r"
    select
        'trigger' as kind,
        n.nspname::text as schema,
        c.relname::text as name,
        t.tgname::text as part,
        pg_get_triggerdef(t.oid) as definition,
        array(
            select format('comment on trigger %I on %I.%I is %L', t.tgname, n.nspname, c.relname, d.description)
            from pg_description d
            where d.classoid = 'pg_trigger'::regclass
              and d.objoid = t.oid
            union all
            select format('alter table %I.%I %s trigger %I', n.nspname, c.relname, e.word, t.tgname)
            from (values ('D', 'disable'), ('R', 'enable replica'), ('A', 'enable always')) e (state, word)
            where e.state = t.tgenabled::text
        ) as details,
        null::text as acl,
        '{}'::text[] as grants,
        false as is_filled
    from pg_trigger t
    join pg_class c on c.oid = t.tgrelid
    join pg_namespace n on n.oid = c.relnamespace
    where t.oid = any ($1)
    order by 2, 3, 4";

/// Views that stay and read tables that move. A view that moves is replaced by hand: its rights go to the target.
const VIEWS: &str = r"
    select distinct v.oid, n.nspname::text, v.relname::text
    from pg_rewrite r
    join pg_class v on v.oid = r.ev_class and v.relkind in ('v', 'm')
    join pg_namespace n on n.oid = v.relnamespace
    join pg_depend d
      on d.classid = 'pg_rewrite'::regclass
     and d.objid = r.oid
     and d.refclassid = 'pg_class'::regclass
     and d.refobjid <> v.oid
    where v.oid <> all ($1)
      and d.refobjid = any ($1)
      and n.nspname not in ('pg_catalog', 'information_schema')";

/// These views and functions, and all views and functions that depend on them: an object comes before those that it needs.
const HANGING: &str = r"
    with recursive tree (classid, objid, depth) as (
        select 'pg_class'::regclass::oid, v.oid, 0 from unnest($1::oid[]) v (oid)
        union
        select 'pg_proc'::regclass, p.oid, 0 from unnest($2::oid[]) p (oid)
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
    )
    select objid as oid, classid = 'pg_proc'::regclass as is_function
    from tree
    group by classid, objid
    order by max(depth) desc, objid";

const VIEW: &str = r"
    select
        case c.relkind when 'm' then 'materialized-view' else 'view' end as kind,
        n.nspname::text as schema,
        c.relname::text as name,
        '' as part,
        '' as definition,
        array[format('alter table %I.%I owner to %I', n.nspname, c.relname, pg_get_userbyid(c.relowner))] as details,
        a.acl::text as acl,
        array(
            select format(
                'grant %s on table %I.%I to %s%s',
                string_agg(g.privilege_type, ', '),
                n.nspname,
                c.relname,
                case when g.grantee = 0 then 'public' else quote_ident(pg_get_userbyid(g.grantee)) end,
                case when g.is_grantable then ' with grant option' else '' end
            )
            from aclexplode(a.acl) with ordinality g (grantor, grantee, privilege_type, is_grantable, nth)
            group by g.grantee, g.is_grantable
            order by min(g.nth)
        ) || array(
            select format(
                'grant %s (%I) on table %I.%I to %s%s',
                g.privilege_type,
                t.attname,
                n.nspname,
                c.relname,
                case when g.grantee = 0 then 'public' else quote_ident(pg_get_userbyid(g.grantee)) end,
                case when g.is_grantable then ' with grant option' else '' end
            )
            from pg_attribute t
            cross join lateral aclexplode(t.attacl) g
            where t.attrelid = c.oid
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
                'grant execute on routine %s to %s%s',
                p.oid::regprocedure,
                case when g.grantee = 0 then 'public' else quote_ident(pg_get_userbyid(g.grantee)) end,
                case when g.is_grantable then ' with grant option' else '' end
            )
            from aclexplode(a.acl) with ordinality g (grantor, grantee, privilege_type, is_grantable, nth)
            order by g.nth
        ) as grants,
        false as is_filled
    from pg_proc p
    join pg_namespace n on n.oid = p.pronamespace
    cross join lateral (select coalesce(p.proacl, acldefault('f', p.proowner)) as acl) a
    where p.oid = $1
      and p.prokind in ('f', 'p')";
