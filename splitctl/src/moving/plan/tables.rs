//! What the tables, and the views that go along, must be.

use anyhow::Result;
use sqlx::PgConnection;

use super::{Plan, strings};
use crate::manifest::Owner;
use crate::moving::relations::{self, listed, oids};
use crate::moving::{Side, sequences};

/// Looks at everything by name that would not replicate, or not as it should.
pub(super) async fn check(plan: &mut Plan, source: &mut Side, owner: &Owner) -> Result<()> {
    let connection = &mut source.connection;
    let known = relations::tables(connection, &owner.tables).await?;
    for table in owner.tables.iter().filter(|table| !known.iter().any(|known| known.name == **table)) {
        plan.error("tables", format!("the source has no table {table}: correct the manifest"));
    }
    plan.rows = known.iter().map(|table| table.estimate).sum();
    plan.bytes = known.iter().map(|table| table.bytes).sum();
    plan.note(
        "tables",
        format!("{} tables, about {} rows, {} MB without indexes", known.len(), plan.rows, plan.bytes / 1_000_000),
    );
    for table in known.iter().filter(|table| table.key.is_empty()) {
        plan.warn("keys", format!("{} has no key that identifies a row: `copy` sets its replica identity to full, which makes its updates slower", table.name));
    }
    let moving = oids(&owner.tables);
    let tables = format!("from pg_class c join pg_namespace n on n.oid = c.relnamespace where c.oid in ({moving})");
    for (check, statement) in [
        (
            "persistence",
            format!(
                "select format('%I.%I is unlogged and would not replicate: `alter table … set logged`', n.nspname, c.relname) {tables} and c.relpersistence <> 'p'"
            ),
        ),
        (
            "keys",
            format!(
                "select format('%I.%I has replica identity nothing: `alter table … replica identity default`', n.nspname, c.relname) {tables} and c.relreplident = 'n' and c.relkind in ('r', 'p')"
            ),
        ),
        (
            "owner",
            format!(
                "select format('you own neither %I.%I nor are a member of its owner %I', n.nspname, c.relname, pg_get_userbyid(c.relowner)) {tables} and not pg_has_role(c.relowner, 'USAGE')"
            ),
        ),
        (
            "kinds",
            format!(
                "select format('%I.%I is a foreign table: it cannot move', n.nspname, c.relname) {tables} and c.relkind = 'f'"
            ),
        ),
        (
            "inheritance",
            format!(
                "select format('%I.%I has children by inheritance: list and move them as partitions, or detach them', n.nspname, c.relname) {tables} and c.relkind = 'r' and (exists (select from pg_inherits i where i.inhparent = c.oid) or exists (select from pg_inherits i where i.inhrelid = c.oid and not c.relispartition))"
            ),
        ),
        (
            "partitions",
            format!(
                "select format('%I.%I is a partition of a table that stays: list its root', n.nspname, c.relname) {tables} and c.relispartition and not exists (select from pg_inherits i where i.inhrelid = c.oid and i.inhparent in ({moving}))"
            ),
        ),
        (
            "triggers",
            format!(
                "select format('the trigger %I on %I.%I is enabled for replication too: it would fire again for copied changes', t.tgname, n.nspname, c.relname) from pg_trigger t join pg_class c on c.oid = t.tgrelid join pg_namespace n on n.oid = c.relnamespace where c.oid in ({moving}) and t.tgenabled in ('A', 'R') and not t.tgisinternal"
            ),
        ),
        (
            "large objects",
            format!(
                "select format('%I.%I.%I refers to large objects, which do not replicate: turn them into bytea first', n.nspname, c.relname, a.attname) from pg_attribute a join pg_class c on c.oid = a.attrelid join pg_namespace n on n.oid = c.relnamespace where c.oid in ({moving}) and a.attnum > 0 and not a.attisdropped and (a.atttypid = 'oid'::regtype or format_type(a.atttypid, null) in ('lo', 'public.lo')) and exists (select from pg_largeobject_metadata)"
            ),
        ),
        (
            "row security",
            format!(
                "select format('%I.%I hides rows from you by row security: use a role with bypassrls', n.nspname, c.relname) {tables} and c.relrowsecurity and not (select r.rolsuper or r.rolbypassrls from pg_roles r where r.rolname = current_user) and (c.relforcerowsecurity or not pg_has_role(c.relowner, 'USAGE'))"
            ),
        ),
    ] {
        for text in strings(connection, statement).await? {
            plan.error(check, text);
        }
    }
    for (check, statement) in [
        (
            "rules",
            format!(
                "select format('the rule %I on %I.%I does not work on copied changes', r.rulename, n.nspname, c.relname) from pg_rewrite r join pg_class c on c.oid = r.ev_class join pg_namespace n on n.oid = c.relnamespace where c.oid in ({moving})"
            ),
        ),
        (
            "bytes",
            format!(
                "select format('%I.%I is %s and is copied by one process', n.nspname, c.relname, pg_size_pretty(pg_table_size(c.oid))) {tables} and pg_table_size(c.oid) > 10::bigint * 1024 * 1024 * 1024"
            ),
        ),
    ] {
        for text in strings(connection, statement).await? {
            plan.warn(check, text);
        }
    }
    check_views(plan, connection, owner).await?;
    let shared = format!(
        "select format('the sequence %I.%I is used by %s as well, which stays: give each its own', n.nspname, s.relname, f.adrelid::regclass)
         from pg_attrdef f
         join pg_depend d on d.classid = 'pg_attrdef'::regclass and d.objid = f.oid and d.refclassid = 'pg_class'::regclass
         join pg_class s on s.oid = d.refobjid and s.relkind = 'S'
         join pg_namespace n on n.oid = s.relnamespace
         where f.adrelid not in ({moving}) and (n.nspname, s.relname) in ({})",
        match &sequences::of(connection, &owner.tables).await?[..] {
            [] => "select null::name, null::name limit 0".to_owned(),
            sequences => listed(sequences),
        }
    );
    for text in strings(connection, shared).await? {
        plan.error("sequences", text);
    }
    Ok(())
}

/// The owner's views go along, if they stand on its own tables alone.
async fn check_views(plan: &mut Plan, connection: &mut PgConnection, owner: &Owner) -> Result<()> {
    for view in &owner.views {
        let kind = sqlx::query_scalar::<_, String>("select relkind::text from pg_class where oid = to_regclass($1)");
        match kind.bind(view.sql()).fetch_optional(&mut *connection).await?.as_deref() {
            None => plan.error("views", format!("the source has no view {view}: correct the manifest")),
            Some("v") => {}
            Some("m") => plan
                .error("views", format!("{view} is materialised: take it off the manifest, and make it anew on the target")),
            Some(_) => plan.error("views", format!("{view} is no view: correct the manifest")),
        }
    }
    Ok(())
}
