//! The parts of relations, and what each uses.

/// Parts of tables and views, each with one relation or function that it uses by the catalog. A domain's check is a part of
/// each table that has the domain, in whatever type.
pub(super) const PARTS: &str = r"
    with recursive types (relid, oid) as (
        select a.attrelid, a.atttypid
        from pg_attribute a
        join pg_class c on c.oid = a.attrelid and c.relkind in ('r', 'p') and not c.relispartition
        where a.atttypid >= 16384
          and a.attnum > 0
          and not a.attisdropped
        union
        select y.relid, further.oid
        from types y
        join pg_type t on t.oid = y.oid
        cross join lateral (
            select t.typelem
            union all
            select t.typbasetype
            union all
            select r.rngsubtype from pg_range r where r.rngtypid = t.oid or r.rngmultitypid = t.oid
            union all
            select a.atttypid
            from pg_attribute a
            where a.attrelid = t.typrelid
              and a.attnum > 0
              and not a.attisdropped
        ) further (oid)
        where further.oid >= 16384
    ),
    parts (class, oid, relid, kind, part) as (
        select 'pg_trigger'::regclass::oid, t.oid, t.tgrelid, 'trigger', t.tgname
        from pg_trigger t
        where not t.tgisinternal
        union all
        select
            'pg_policy'::regclass,
            p.oid,
            p.polrelid,
            case when p.polpermissive then 'policy' else 'restrictive-policy' end,
            p.polname
        from pg_policy p
        union all
        select
            'pg_rewrite'::regclass,
            r.oid,
            r.ev_class,
            case when r.rulename = '_RETURN' then 'view' else 'rule' end,
            r.rulename
        from pg_rewrite r
        union all
        select
            'pg_attrdef'::regclass,
            f.oid,
            f.adrelid,
            case when a.attgenerated = '' then 'default' else 'generated' end,
            a.attname
        from pg_attrdef f
        join pg_attribute a on a.attrelid = f.adrelid and a.attnum = f.adnum
        union all
        select
            'pg_constraint'::regclass,
            c.oid,
            c.conrelid,
            case c.contype when 'c' then 'check' else 'constraint' end,
            c.conname
        from pg_constraint c
        where c.conrelid <> 0
          and c.contype in ('c', 'p', 'u', 'x')
        union all
        select 'pg_constraint'::regclass, c.oid, y.relid, 'constraint', c.conname
        from types y
        join pg_constraint c on c.contypid = y.oid
        union all
        select 'pg_class'::regclass, i.indexrelid, i.indrelid, 'index', c.relname
        from pg_index i
        join pg_class c on c.oid = i.indexrelid
    ),
    used as (
        select distinct
            p.class,
            p.oid,
            p.relid,
            p.kind,
            p.part,
            d.refclassid = 'pg_class'::regclass as is_relation,
            f.used
        from parts p
        join pg_depend d on d.classid = p.class and d.objid = p.oid and d.refobjid <> p.relid
        left join pg_operator o on d.refclassid = 'pg_operator'::regclass and o.oid = d.refobjid
        left join pg_aggregate g on d.refclassid = 'pg_proc'::regclass and g.aggfnoid = d.refobjid
        cross join lateral (
            select coalesce(o.oprcode::oid, d.refobjid)
            union all
            select unnest(array[
                g.aggtransfn, g.aggfinalfn, g.aggcombinefn, g.aggmtransfn, g.aggminvtransfn, g.aggmfinalfn
            ]::oid[])
        ) f (used)
        where d.refclassid in ('pg_class'::regclass, 'pg_proc'::regclass, 'pg_operator'::regclass)
          and d.refobjid >= 16384
          and f.used >= 16384
    )
    select
        u.class::int8,
        u.oid::int8,
        u.relid::int8 as relation,
        n.nspname::text as schema,
        c.relname::text as name,
        u.kind,
        u.part::text,
        case
            when u.kind <> 'view' then format('%s %s', i.type, i.identity)
            else format('%s %I.%I', case c.relkind when 'm' then 'materialized view' else 'view' end, n.nspname, c.relname)
        end as shown,
        c.relispartition and (
            (u.relid, u.kind, u.part) in (
                select h.inhrelid, r.kind, r.part
                from pg_inherits h
                join parts r on r.relid = h.inhparent
            )
            or (u.kind = 'index' and u.oid in (select inhrelid from pg_inherits))
        ) as is_clone,
        u.is_relation,
        u.used::int8
    from used u
    join pg_class c on c.oid = u.relid
    join pg_namespace n on n.oid = c.relnamespace
    cross join lateral pg_identify_object(u.class, u.oid, 0) i
    where i.type is not null
    order by u.class, u.oid, u.relid, u.used";
