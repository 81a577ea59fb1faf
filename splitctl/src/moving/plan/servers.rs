//! What each server must allow. Each side publishes and subscribes in turn.

use super::Check;
use super::Weight::{Error, Warning};

pub(super) const CHECKS: &[Check] = &[
    Check {
        weight: Error,
        name: "server",
        on: None,
        statement: "select current_database()::text as detail where pg_is_in_recovery()",
        message: "the server is a standby: name the primary",
    },
    Check {
        weight: Error,
        name: "wal_level",
        on: None,
        statement: "select setting as detail from pg_settings where name = 'wal_level' and setting <> 'logical'",
        message: "wal_level is {}: `alter system set wal_level = logical`, and restart the server",
    },
    Check {
        weight: Error,
        name: "max_replication_slots",
        on: None,
        statement: r"
            select (current_setting('max_replication_slots')::int8 - count(*))::text as detail
            from pg_replication_slots
            having current_setting('max_replication_slots')::int8 - count(*) < 4
               and not $2",
        message: "{} of max_replication_slots are left, and a move uses up to 4: raise it",
    },
    Check {
        weight: Error,
        name: "max_wal_senders",
        on: None,
        statement: r"
            select (current_setting('max_wal_senders')::int8 - count(*))::text as detail
            from pg_stat_replication
            having current_setting('max_wal_senders')::int8 - count(*) < 4
               and not $2",
        message: "{} of max_wal_senders are left, and a move uses up to 4: raise it",
    },
    Check {
        weight: Error,
        name: "max_logical_replication_workers",
        on: None,
        statement: r"
            select (s.workers - count(a.pid))::text as detail
            from (
                select least(
                    current_setting('max_logical_replication_workers')::int8,
                    current_setting('max_worker_processes')::int8
                ) as workers
            ) s
            left join pg_stat_activity a on a.backend_type like 'logical replication%'
            group by s.workers
            having s.workers - count(a.pid) < 2
               and not $2",
        message: "{} of max_logical_replication_workers are left, and a move uses up to 2: raise it",
    },
    Check {
        weight: Error,
        name: "rights",
        on: None,
        statement: r"
            select r.rolname::text as detail
            from pg_roles r
            where r.rolname = current_user
              and not r.rolsuper
              and not r.rolreplication
              and not exists (
                  select
                  from pg_roles m
                  where m.rolname in ('rds_replication', 'cloudsqlreplica')
                    and pg_has_role(r.oid, m.oid, 'USAGE')
              )",
        message: "the role {} has no REPLICATION: `alter role {} replication`",
    },
    Check {
        weight: Error,
        name: "rights",
        on: None,
        statement: "select current_user::text as detail where not has_database_privilege(current_database(), 'create')",
        message: "the role {} may not create publications and schemas: `grant create on database … to {}`",
    },
    Check {
        weight: Error,
        name: "rights",
        on: None,
        statement: r"
            select r.rolname::text as detail
            from pg_roles r
            where r.rolname = current_user
              and not r.rolsuper
              and current_setting('server_version_num')::int4 < 160000",
        message: "before Postgres 16 only a superuser can create a subscription, and {} is not one: use a superuser",
    },
    Check {
        weight: Error,
        name: "rights",
        on: None,
        statement: r"
            select r.rolname::text as detail
            from pg_roles r
            where r.rolname = current_user
              and not r.rolsuper
              and current_setting('server_version_num')::int4 >= 160000
              and not exists (
                  select
                  from pg_roles m
                  where m.rolname = 'pg_create_subscription'
                    and pg_has_role(r.oid, m.oid, 'USAGE')
              )",
        message: "the role {} may not create a subscription: `grant pg_create_subscription to {}`",
    },
    Check {
        weight: Warning,
        name: "rights",
        on: None,
        statement: "select rolname::text as detail from pg_roles where rolname = current_user and not rolsuper",
        message: "the role {} is not a superuser: changes of the tables' definitions are not refused, but each step finds them",
    },
    Check {
        weight: Error,
        name: "transactions",
        on: None,
        statement: "select count(*)::text as detail from pg_prepared_xacts having count(*) > 0",
        message: "{} prepared transactions are open: end them",
    },
    Check {
        weight: Warning,
        name: "standbys",
        on: None,
        statement: r"
            select s.setting as detail
            from pg_settings s
            where s.name = 'synchronous_standby_names'
              and s.setting <> ''",
        message: "each commit waits for the synchronous standbys {}, and so does the cutover",
    },
];
