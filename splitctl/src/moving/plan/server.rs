//! What each server must allow.

use anyhow::Result;
use sqlx::Row;

use super::Plan;
use crate::database::place;
use crate::moving::Side;

/// Each side publishes in its turn, and subscribes in its turn.
pub(super) async fn check(plan: &mut Plan, side: &mut Side, begun: bool) -> Result<()> {
    let (here, at) = (side.place, place(&side.url));
    let row = sqlx::query(
        "select current_setting('wal_level'), current_setting('synchronous_standby_names'),
             current_setting('max_replication_slots')::int - (select count(*) from pg_replication_slots)::int,
             current_setting('max_wal_senders')::int - (select count(*) from pg_stat_replication)::int,
             least(current_setting('max_logical_replication_workers')::int, current_setting('max_worker_processes')::int)
                 - (select count(*) from pg_stat_activity where backend_type like 'logical replication%')::int,
             r.rolsuper, r.rolsuper or r.rolreplication or exists (select from pg_roles m where m.rolname in ('rds_replication', 'cloudsqlreplica') and pg_has_role(r.oid, m.oid, 'USAGE')),
             has_database_privilege(current_database(), 'create'),
             (select coalesce(bool_or(pg_has_role(r.oid, m.oid, 'USAGE')), false) from pg_roles m where m.rolname = 'pg_create_subscription'),
             current_user::text, pg_is_in_recovery(),
             (select count(*) from pg_prepared_xacts)::int
         from pg_roles r where r.rolname = current_user",
    );
    let row = row.fetch_one(&mut side.connection).await?;
    let (level, standbys): (String, String) = (row.try_get(0)?, row.try_get(1)?);
    let (slots, senders, workers): (i32, i32, i32) = (row.try_get(2)?, row.try_get(3)?, row.try_get(4)?);
    let (superuser, replication, create, subscription): (bool, bool, bool, bool) =
        (row.try_get(5)?, row.try_get(6)?, row.try_get(7)?, row.try_get(8)?);
    let (role, standby, prepared): (String, bool, i32) = (row.try_get(9)?, row.try_get(10)?, row.try_get(11)?);
    if standby {
        plan.error("server", format!("{here} ({at}) is a standby: name the primary"));
    }
    if level != "logical" {
        plan.error(
            "wal_level",
            format!("{here} ({at}) has wal_level = {level}: `alter system set wal_level = logical`, and restart it"),
        );
    }
    for (name, left, least) in [
        ("max_replication_slots", slots, 4),
        ("max_wal_senders", senders, 4),
        ("max_logical_replication_workers", workers, 2),
    ] {
        // A move that has begun uses its own already.
        if left < least && !begun {
            plan.error(name, format!("{here} ({at}) has {left} left of {name}, the move takes up to {least}: raise it"));
        }
    }
    if !replication {
        plan.error("rights", format!("{role} has no REPLICATION on the {here}: `alter role {role} replication`"));
    }
    if !create {
        plan.error(
            "rights",
            format!("{role} may not create publications and schemas in the {here}: `grant create on database …`"),
        );
    }
    if !superuser && side.version < 16 {
        plan.error("rights", format!("a subscription takes a superuser on Postgres {}, and both sides have one in turn: {role} is none on the {here}", side.version));
    } else if !superuser && !subscription {
        plan.error("rights", format!("{role} may not subscribe on the {here}: `grant pg_create_subscription to {role}`"));
    }
    if !superuser {
        plan.warn("rights", format!("{role} is no superuser on the {here}: changes of the tables' definitions are found by comparing, and not refused"));
    }
    if prepared > 0 {
        plan.error("transactions", format!("the {here} has {prepared} prepared transactions: end them"));
    }
    if !standbys.is_empty() {
        plan.warn("standbys", format!("the {here} waits for synchronous standbys at each commit, and so does the cutover"));
    }
    Ok(())
}
