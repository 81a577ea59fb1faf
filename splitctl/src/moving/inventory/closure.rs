//! Follows the catalog's dependencies from the moving tables, in both directions.

use std::collections::BTreeSet;

use sqlx::{PgConnection, query_as};

use super::{Id, Object};
use crate::database::execute;

/// The objects that hang on the moving relations or on the seeds, and those that they need. Relations that stay are not
/// among them, and nothing is followed through them. Of `ends`, nothing that they need is followed.
pub(super) async fn read(
    connection: &mut PgConnection,
    moving: &[i64],
    seeds: &BTreeSet<Id>,
    ends: &BTreeSet<Id>,
) -> Result<Vec<Object>, sqlx::Error> {
    // Compiling this statement takes longer than running it.
    execute(connection, "set jit = off").await?;
    let (classes, oids): (Vec<i64>, Vec<i64>) = seeds.iter().copied().unzip();
    let (end_classes, end_oids): (Vec<i64>, Vec<i64>) = ends.iter().copied().unzip();
    let reached = query_as(REACHED).bind(classes).bind(oids).bind(moving).bind(end_classes).bind(end_oids);
    reached.fetch_all(connection).await
}

/// A part depends automatically or internally. An extension brings its members, so only the extension is followed. Casts,
/// operators and their like act on every value of a type, though no table depends on them; so does a cast between built-in
/// types that somebody has added. A function hangs on a table if it takes or returns its rows.
const REACHED: &str = r"
    with recursive
    members as materialized (
        select classid as class, objid as oid
        from pg_depend
        where deptype = 'e'
    ),
    staying as materialized (
        select 'pg_class'::regclass::oid as class, c.oid
        from pg_class c
        where c.relkind in ('r', 'p', 'v', 'm', 'f')
          and c.oid >= 16384
          and c.oid <> all ($3::int8[]::oid[])
          and ('pg_class'::regclass::oid, c.oid) not in (select class, oid from members)
        union all
        select 'pg_type'::regclass, t.oid
        from pg_class c
        join pg_type r on r.oid = c.reltype
        join pg_type t on t.oid in (r.oid, r.typarray)
        where c.relkind in ('r', 'p', 'v', 'm', 'f')
          and c.oid >= 16384
          and c.oid <> all ($3::int8[]::oid[])
          and ('pg_class'::regclass::oid, c.oid) not in (select class, oid from members)
        union all
        select 'pg_class'::regclass, s.oid
        from pg_class s
        join pg_depend d
          on d.classid = 'pg_class'::regclass
         and d.objid = s.oid
         and d.refclassid = 'pg_class'::regclass
         and d.deptype in ('a', 'i')
        join pg_class t on t.oid = d.refobjid
        where s.relkind in ('S', 'i', 'I')
          and t.relkind in ('r', 'p', 'm', 'f')
          and t.oid >= 16384
          and t.oid <> all ($3::int8[]::oid[])
    ),
    of_rows as materialized (
        select 'pg_class'::regclass::oid as class, m.oid::oid
        from unnest($3::int8[]) m (oid)
        union all
        select 'pg_type'::regclass, t.oid
        from unnest($3::int8[]) m (oid)
        join pg_class c on c.oid = m.oid::oid
        join pg_type r on r.oid = c.reltype
        join pg_type t on t.oid in (r.oid, r.typarray)
    ),
    crossing as materialized (
        select 'pg_constraint'::regclass::oid as class, c.oid
        from pg_constraint c
        where c.contype = 'f'
          and (c.conrelid = any ($3::int8[]::oid[])) <> (c.confrelid = any ($3::int8[]::oid[]))
    ),
    ends as materialized (
        select e.class::oid, e.oid::oid
        from unnest($4::int8[], $5::int8[]) e (class, oid)
        union all
        select class, oid from crossing
    ),
    reached (class, oid, is_part) as (
        select 'pg_class'::regclass::oid, m.oid::oid, false
        from unnest($3::int8[]) m (oid)
        union
        select s.class::oid, s.oid::oid, false
        from unnest($1::int8[], $2::int8[]) s (class, oid)
        union
        select 'pg_cast'::regclass, c.oid, false
        from pg_cast c
        where c.oid >= 16384
          and c.castsource < 16384
          and c.casttarget < 16384
        union
        select 'pg_default_acl'::regclass, a.oid, false
        from pg_default_acl a
        where a.defaclrole in (select c.relowner from pg_class c where c.oid = any ($3::int8[]::oid[]))
          and a.defaclnamespace in (
              select 0
              union
              select c.relnamespace from pg_class c where c.oid = any ($3::int8[]::oid[])
          )
        union
        select n.class, n.oid, n.is_part
        from reached r
        cross join lateral (
            select d.classid as class, d.objid as oid, true as is_part
            from pg_depend d
            where d.refclassid = r.class
              and d.refobjid = r.oid
              and d.deptype in ('a', 'i', 'P', 'S')
              and (r.class, r.oid) not in (select class, oid from members)
            union all
            select d.refclassid, d.refobjid, false
            from pg_depend d
            where d.classid = r.class
              and d.objid = r.oid
              and d.refobjid >= 16384
              and (d.deptype = 'e' or (r.class, r.oid) not in (select class, oid from members))
              and (r.class, r.oid) not in (select class, oid from ends)
            union all
            select d.classid, d.objid, false
            from pg_depend d
            where r.class = 'pg_type'::regclass
              and d.refclassid = r.class
              and d.refobjid = r.oid
              and d.deptype = 'n'
              and d.classid in (
                  'pg_cast'::regclass, 'pg_operator'::regclass, 'pg_opclass'::regclass, 'pg_transform'::regclass
              )
            union all
            select d.classid, d.objid, false
            from pg_depend d
            where (r.class, r.oid) in (select class, oid from of_rows)
              and d.refclassid = r.class
              and d.refobjid = r.oid
              and d.deptype = 'n'
              and d.classid = 'pg_proc'::regclass
        ) n
        where (n.class, n.oid) not in (select class, oid from staying)
    ),
    blocked as materialized (
        select
            d.classid as class,
            d.objid as oid,
            min(case d.refclassid
                when 'pg_class'::regclass then d.refobjid::regclass::text
                else format('the row type of %s', d.refobjid::regtype)
            end) as relation
        from pg_depend d
        join staying s on s.class = d.refclassid and s.oid = d.refobjid
        where d.refclassid in ('pg_class'::regclass, 'pg_type'::regclass)
          and d.deptype = 'n'
          and (d.classid, d.objid) not in (select class, oid from crossing)
        group by 1, 2
    ),
    found as (
        select class, oid, bool_or(is_part) as is_part
        from reached
        where class <> 'pg_ts_template'::regclass
        group by class, oid
    )
    select
        f.class::int8 as class,
        f.oid::int8 as oid,
        i.type::text as kind,
        i.identity::text as identity,
        coalesce(a.object_names, '{}') as names,
        coalesce(a.object_args, '{}') as arguments,
        f.is_part,
        f.class = 'pg_class'::regclass and f.oid = any ($3::int8[]::oid[]) as holds_rows,
        (f.class, f.oid) in (select class, oid from members) as is_member,
        (f.class, f.oid) in (select class, oid from crossing)
            or i.type like 'publication%'
            or exists (
                select
                from pg_trigger t
                join pg_proc p on p.oid = t.tgfoid
                where f.class = 'pg_trigger'::regclass
                  and t.oid = f.oid
                  and (t.tgisinternal or p.pronamespace = to_regnamespace('splitctl'))
            )
            or coalesce(i.schema = 'splitctl', false) as stays,
        coalesce(b.relation, (
            select min(a.adrelid::regclass::text)
            from pg_depend d
            join pg_attrdef a on d.classid = 'pg_attrdef'::regclass and a.oid = d.objid
            where i.type = 'sequence'
              and not f.is_part
              and d.refclassid = f.class
              and d.refobjid = f.oid
              and a.adrelid <> all ($3::int8[]::oid[])
        )) as blocked_by,
        case f.class
            when 'pg_type'::regclass then true
            when 'pg_class'::regclass then not exists (
                select from pg_index x where x.indexrelid = f.oid and not x.indisunique and not x.indisexclusion
            )
            when 'pg_policy'::regclass then exists (
                select from pg_policy p where p.oid = f.oid and not p.polpermissive
            )
            when 'pg_attrdef'::regclass then exists (
                select
                from pg_attrdef a
                join pg_attribute t on t.attrelid = a.adrelid and t.attnum = a.adnum
                where a.oid = f.oid
                  and t.attgenerated <> ''
            )
            when 'pg_constraint'::regclass then exists (
                select from pg_constraint c where c.oid = f.oid and (c.contype <> 'c' or c.conrelid = 0)
            )
            else false
        end as is_binding,
        f.class in ('pg_attrdef'::regclass, 'pg_constraint'::regclass) as is_of_rows,
        false as crosses
    from found f
    cross join lateral pg_identify_object(f.class, f.oid, 0) i
    cross join lateral pg_identify_object_as_address(f.class, f.oid, 0) a
    left join blocked b on b.class = f.class and b.oid = f.oid
    where i.type is not null
    order by 1, 2";
