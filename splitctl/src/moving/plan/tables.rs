//! What the tables, the views and the owner's role must be. A table that fails one of these checks would not replicate, or not
//! correctly.

use super::Check;
use super::Weight::{Error, Warning};
use crate::moving::Side;

const SOURCE: Option<Side> = Some(Side::Source);

pub(super) const CHECKS: &[Check] = &[
    Check {
        weight: Error,
        name: "persistence",
        on: SOURCE,
        statement: r"
            select c.oid::regclass::text as object
            from pg_class c
            where c.oid = any ($1)
              and c.relpersistence <> 'p'",
        message: "the table is unlogged and would not replicate: `alter table … set logged`",
    },
    Check {
        weight: Error,
        name: "keys",
        on: SOURCE,
        statement: r"
            select c.oid::regclass::text as object
            from pg_class c
            where c.oid = any ($1)
              and c.relkind in ('r', 'p')
              and c.relreplident = 'n'",
        message: "its replica identity is nothing: `alter table … replica identity default`",
    },
    Check {
        weight: Error,
        name: "owner",
        on: SOURCE,
        statement: r"
            select c.oid::regclass::text as object, pg_get_userbyid(c.relowner)::text as detail
            from pg_class c
            where c.oid = any ($1)
              and not pg_has_role(c.relowner, 'USAGE')",
        message: "you are not its owner {}, and not a member of that role",
    },
    Check {
        weight: Error,
        name: "kinds",
        on: SOURCE,
        statement: "select c.oid::regclass::text as object from pg_class c where c.oid = any ($1) and c.relkind = 'f'",
        message: "the table is a foreign table: it cannot move",
    },
    Check {
        weight: Error,
        name: "keys",
        on: SOURCE,
        statement: r"
            select c.oid::regclass::text as object
            from pg_class c
            where c.oid = any ($1)
              and c.relkind = 'r'
              and c.relispartition
              and c.relreplident <> 'f'
              and not exists (
                  select
                  from pg_index i
                  where i.indrelid = c.oid
                    and i.indisvalid
                    and i.indimmediate
                    and (i.indisreplident or (i.indisprimary and c.relreplident = 'd'))
              )
              and exists (
                  select
                  from pg_partition_ancestors(c.oid) r (relid)
                  join pg_index i on i.indrelid = r.relid and i.indisprimary and i.indimmediate
              )",
        message: "the root has a key that identifies a row for replication, and this partition has none: give it a primary key \
                  that is not deferrable, or `alter table … replica identity full`",
    },
    Check {
        weight: Error,
        name: "types",
        on: SOURCE,
        statement: r"
            select
                c.oid::regclass::text as object,
                format('%s of its column %I', format_type(a.atttypid, a.atttypmod), a.attname) as detail
            from pg_class c
            join pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
            where c.oid = any ($1)
              and c.relkind = 'r'
              and not exists (
                  select
                  from pg_index i
                  where i.indrelid = c.oid
                    and i.indisvalid
                    and i.indimmediate
                    and (i.indisprimary or i.indisreplident)
              )
              and format_type(a.atttypid, null) in (
                  'json', 'xml', 'point', 'line', 'lseg', 'box', 'path', 'polygon', 'circle'
              )",
        message: "it has no key, and values of the type {} cannot be compared, so replication could not find its rows: give it \
                  a primary key",
    },
    Check {
        weight: Error,
        name: "types",
        on: SOURCE,
        statement: r"
            select
                format('%s.%I', c.oid::regclass, a.attname) as object,
                format_type(a.atttypid, null) as detail
            from pg_attribute a
            join pg_class c on c.oid = a.attrelid
            where c.oid = any ($1)
              and a.attnum > 0
              and not a.attisdropped
              and format_type(a.atttypid, null) like 'reg%'",
        message: "the column holds oids of this database's catalog ({}): turn it into text",
    },
    Check {
        weight: Error,
        name: "subscriptions",
        on: SOURCE,
        statement: r"
            select r.srrelid::regclass::text as object, quote_ident(s.subname) as detail
            from pg_subscription_rel r
            join pg_subscription s on s.oid = r.srsubid and not starts_with(s.subname::text, 'splitctl_')
            where r.srrelid = any ($1)",
        message: "the subscription {} writes to the table, and the fence does not stop it: move the publisher's table instead",
    },
    Check {
        weight: Error,
        name: "inheritance",
        on: SOURCE,
        statement: r"
            select c.oid::regclass::text as object
            from pg_class c
            where c.oid = any ($1)
              and c.relkind = 'r'
              and exists (
                  select
                  from pg_inherits i
                  where i.inhparent = c.oid
                     or (i.inhrelid = c.oid and not c.relispartition)
              )",
        message: "the table has children by inheritance: make them partitions, or detach them",
    },
    Check {
        weight: Error,
        name: "partitions",
        on: SOURCE,
        statement: r"
            select c.oid::regclass::text as object
            from pg_class c
            where c.oid = any ($1)
              and c.relispartition
              and not exists (
                  select
                  from pg_inherits i
                  where i.inhrelid = c.oid
                    and i.inhparent = any ($1)
              )",
        message: "it is a partition of a table that stays: list the root",
    },
    Check {
        weight: Error,
        name: "triggers",
        on: SOURCE,
        statement: r"
            select t.tgrelid::regclass::text as object, quote_ident(t.tgname) as detail
            from pg_trigger t
            where t.tgrelid = any ($1)
              and t.tgenabled in ('A', 'R')
              and not t.tgisinternal",
        message: "the trigger {} also fires for replication, so it would fire again for copied changes",
    },
    Check {
        weight: Error,
        name: "large objects",
        on: SOURCE,
        statement: r"
            select format('%s.%I', c.oid::regclass, a.attname) as object
            from pg_attribute a
            join pg_class c on c.oid = a.attrelid
            where c.oid = any ($1)
              and a.attnum > 0
              and not a.attisdropped
              and (a.atttypid = 'oid'::regtype or format_type(a.atttypid, null) in ('lo', 'public.lo'))
              and exists (select from pg_largeobject_metadata)",
        message: "the column refers to large objects, which do not replicate: turn them into bytea first",
    },
    Check {
        weight: Error,
        name: "row security",
        on: SOURCE,
        statement: r"
            select c.oid::regclass::text as object
            from pg_class c
            join pg_roles r on r.rolname = current_user and not r.rolsuper and not r.rolbypassrls
            where c.oid = any ($1)
              and c.relrowsecurity
              and (c.relforcerowsecurity or not pg_has_role(c.relowner, 'USAGE'))",
        message: "row security hides rows from you: use a role with bypassrls",
    },
    Check {
        weight: Error,
        name: "sequences",
        on: SOURCE,
        statement: r"
            select s.oid::regclass::text as object, f.adrelid::regclass::text as detail
            from pg_attrdef f
            join pg_depend d on d.classid = 'pg_attrdef'::regclass and d.objid = f.oid and d.refclassid = 'pg_class'::regclass
            join pg_class s on s.oid = d.refobjid and s.relkind = 'S'
            where f.adrelid <> all ($1)
              and exists (
                  select
                  from pg_depend u
                  left join pg_attrdef o on u.classid = 'pg_attrdef'::regclass and o.oid = u.objid
                  where (u.refclassid = 'pg_class'::regclass and u.refobjid = s.oid and o.adrelid = any ($1))
                     or (
                         u.classid = 'pg_class'::regclass
                         and u.objid = s.oid
                         and u.refclassid = 'pg_class'::regclass
                         and u.refobjid = any ($1)
                         and u.deptype in ('a', 'i')
                     )
              )",
        message: "the table {}, which stays, uses this sequence too: give each table its own",
    },
    Check {
        weight: Error,
        name: "views",
        on: SOURCE,
        statement: r"
            select
                v.name as object,
                case when c.oid is null then 'does not exist' else 'is not a view' end as detail
            from unnest($4::text[]) v (name)
            left join pg_class c on c.oid = to_regclass(v.name)
            where c.relkind is null
               or c.relkind not in ('v', 'm')",
        message: "it {}: correct the manifest",
    },
    Check {
        weight: Error,
        name: "views",
        on: SOURCE,
        statement: r"
            select v.name as object
            from unnest($4::text[]) v (name)
            join pg_class c on c.oid = to_regclass(v.name) and c.relkind = 'm'",
        message: "the view is materialised: remove it from the manifest, and create it again on the target",
    },
    Check {
        weight: Warning,
        name: "rules",
        on: SOURCE,
        statement: r"
            select r.ev_class::regclass::text as object, quote_ident(r.rulename) as detail
            from pg_rewrite r
            where r.ev_class = any ($1)",
        message: "the rule {} does not apply to copied changes",
    },
    Check {
        weight: Warning,
        name: "publications",
        on: SOURCE,
        statement: r"
            select distinct c.oid::regclass::text as object, quote_ident(p.pubname) as detail
            from pg_publication_tables p
            join pg_namespace n on n.nspname = p.schemaname
            join pg_class c on c.relnamespace = n.oid and c.relname = p.tablename
            where c.oid = any ($1)
              and not starts_with(p.pubname::text, 'splitctl_')",
        message: "the publication {} publishes it: its subscribers receive nothing after the cutover",
    },
    Check {
        weight: Warning,
        name: "bytes",
        on: SOURCE,
        statement: r"
            select c.oid::regclass::text as object, pg_size_pretty(pg_table_size(c.oid)) as detail
            from pg_class c
            where c.oid = any ($1)
              and pg_table_size(c.oid) > 10::int8 * 1024 * 1024 * 1024",
        message: "it has {}, and one process copies it",
    },
    Check {
        weight: Warning,
        name: "roles",
        on: SOURCE,
        statement: r"
            select
                r.rolname::text as object,
                case when r.rolsuper then 'is a superuser' else 'owns its tables' end as detail
            from pg_roles r
            where r.rolname = $3
              and (
                  r.rolsuper
                  or exists (
                      select
                      from pg_class c
                      where c.oid = any ($1)
                        and pg_has_role(r.oid, c.relowner, 'USAGE')
                  )
              )",
        message: "the role {}: after a switch it can still read the old side and sees stale data; only its writes are refused. \
                  Give the service a role of its own (`splitctl grants`), or switch it by hooks",
    },
    Check {
        weight: Error,
        name: "roles",
        on: SOURCE,
        statement: "select $3::text as object where not exists (select from pg_roles where rolname = $3)",
        message: "the source has no such role: correct the manifest",
    },
];
