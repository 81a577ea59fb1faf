//! The preflight: everything that would stop or surprise a move, all findings at once. Nothing is changed.

use std::time::Duration;

use anyhow::Result;
use serde::Serialize;
use sqlx::{AssertSqlSafe, PgConnection, Row};

use super::relations::{self, listed, oids};
use super::side::Side;
use super::{Move, crossings, journal, rights, schema, sequences, stream};
use crate::database::place;
use crate::manifest::Owner;
use crate::names::Qualified;

/// How a finding weighs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Weight {
    /// The copy would fail, or not be right.
    Error,
    /// It has to be seen to before the cutover, or known.
    Warning,
    /// What will be done.
    Note,
}

/// A finding: what it is, and what to do.
#[derive(Debug, Clone, Serialize)]
pub struct Finding {
    /// How it weighs.
    pub weight: Weight,
    /// What was looked at.
    pub check: &'static str,
    /// What was found, and what to do.
    pub text: String,
}

/// What was found.
#[derive(Debug, Serialize)]
pub struct Plan {
    /// Whose move.
    pub owner: String,
    /// Everything, errors first.
    pub findings: Vec<Finding>,
    /// Rows to copy, as the statistics guess.
    pub rows: i64,
    /// Bytes to copy, without indexes.
    pub bytes: i64,
}

impl Plan {
    /// Those that would stop it.
    pub fn errors(&self) -> impl Iterator<Item = &Finding> {
        self.findings.iter().filter(|finding| finding.weight == Weight::Error)
    }

    fn add(&mut self, weight: Weight, check: &'static str, text: impl Into<String>) {
        self.findings.push(Finding { weight, check, text: text.into() });
    }

    fn error(&mut self, check: &'static str, text: impl Into<String>) {
        self.add(Weight::Error, check, text);
    }

    fn warn(&mut self, check: &'static str, text: impl Into<String>) {
        self.add(Weight::Warning, check, text);
    }

    fn note(&mut self, check: &'static str, text: impl Into<String>) {
        self.add(Weight::Note, check, text);
    }
}

/// Looks at both databases.
///
/// # Errors
/// If they cannot be asked; what they say is in the plan.
pub async fn make(moving: &mut Move) -> Result<Plan> {
    let owner = moving.moving().clone();
    let mut plan = Plan { owner: moving.owner.clone(), findings: Vec::new(), rows: 0, bytes: 0 };
    if let Some((_, by)) = journal::open_move(&mut moving.source.connection).await? {
        if by == moving.owner {
            plan.note("move", format!("the move of {by} is open already: `splitctl status {by}` tells how far it is"));
        } else {
            plan.error("move", format!("a move of {by} is open: complete or abort that first"));
        }
    }
    check_server(&mut plan, &mut moving.source).await?;
    check_server(&mut plan, &mut moving.target).await?;
    if let Err(error) = schema::find_pg_dump(moving.source.version).await {
        plan.error("pg_dump", error.to_string());
    }
    check_tables(&mut plan, &mut moving.source, &owner).await?;
    check_target(&mut plan, &mut moving.source, &mut moving.target, &owner, moving.state.is_some()).await?;
    check_roles(&mut plan, &mut moving.source, &mut moving.target, &owner).await?;
    for side in [&mut moving.source, &mut moving.target] {
        for transaction in stream::long_transactions(&mut side.connection, Duration::from_secs(5)).await? {
            plan.warn("transactions", format!("{}: {transaction}; a new replication slot waits for its end", side.place));
        }
    }
    for crossing in crossings::standing(moving).await? {
        plan.warn("crossings", format!("{crossing}; the copy may begin, the cutover is refused while it stands"));
    }
    if moving.source.identity.system == moving.target.identity.system && moving.source.identity != moving.target.identity {
        plan.warn(
            "cluster",
            format!(
                "source and target are one cluster: while the first copy runs ({} MB), its transactions hold the horizon back, and event feeds wait for it",
                plan.bytes / 1_000_000
            ),
        );
    }
    plan.findings.sort_by_key(|finding| finding.weight);
    Ok(plan)
}

async fn strings(connection: &mut PgConnection, statement: String) -> Result<Vec<String>> {
    Ok(sqlx::query_scalar(AssertSqlSafe(statement)).fetch_all(connection).await?)
}

/// Each side publishes in its turn, and subscribes in its turn.
async fn check_server(plan: &mut Plan, side: &mut Side) -> Result<()> {
    let (here, at) = (side.place, place(&side.url));
    let row = sqlx::query(
        "select current_setting('wal_level'), current_setting('synchronous_standby_names'),
             current_setting('max_replication_slots')::int - (select count(*) from pg_replication_slots)::int,
             current_setting('max_wal_senders')::int - (select count(*) from pg_stat_replication)::int,
             current_setting('max_logical_replication_workers')::int,
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
        ("max_logical_replication_workers", workers, 3),
    ] {
        if left < least {
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

async fn check_tables(plan: &mut Plan, source: &mut Side, owner: &Owner) -> Result<()> {
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

async fn check_target(plan: &mut Plan, source: &mut Side, target: &mut Side, owner: &Owner, begun: bool) -> Result<()> {
    let setting = "select pg_encoding_to_char(encoding)::text, datcollate::text, datctype::text from pg_database where datname = current_database()";
    let (here, there) = (
        sqlx::query(setting).fetch_one(&mut source.connection).await?,
        sqlx::query(setting).fetch_one(&mut target.connection).await?,
    );
    let texts =
        |row: &sqlx::postgres::PgRow| Ok::<[String; 3], sqlx::Error>([row.try_get(0)?, row.try_get(1)?, row.try_get(2)?]);
    let ([encoding, collate, ctype], [its_encoding, its_collate, its_ctype]) = (texts(&here)?, texts(&there)?);
    if encoding != its_encoding {
        plan.error(
            "encoding",
            format!("the source is {encoding}, the target {its_encoding}: create the target with `encoding '{encoding}'`"),
        );
    }
    if (&collate, &ctype) != (&its_collate, &its_ctype) {
        plan.warn("collation", format!("the source sorts by {collate} ({ctype}), the target by {its_collate} ({its_ctype}): text may come in another order"));
    }
    check_target_tables(plan, source, target, owner, begun).await?;
    let extensions = format!(
        "with moving as ({})
         select distinct e.extname::text
         from moving m
         join pg_attribute a on a.attrelid = m.relid and a.attnum > 0 and not a.attisdropped
         join pg_type t on t.oid = a.atttypid
         join pg_depend d on d.classid = 'pg_type'::regclass and d.objid in (t.oid, t.typelem) and d.deptype = 'e'
         join pg_extension e on e.oid = d.refobjid",
        oids(&owner.tables)
    );
    for extension in strings(&mut source.connection, extensions).await? {
        let available = sqlx::query_scalar("select exists (select from pg_available_extensions where name = $1)");
        if !available.bind(&extension).fetch_one(&mut target.connection).await? {
            plan.error("extensions", format!("a column's type is of the extension {extension}, which the target's server does not have: install it there"));
        }
    }
    Ok(())
}

/// None of the tables, or all of them: of the same shape, and empty.
async fn check_target_tables(
    plan: &mut Plan,
    source: &mut Side,
    target: &mut Side,
    owner: &Owner,
    begun: bool,
) -> Result<()> {
    let there: Vec<Qualified> =
        relations::tables(&mut target.connection, &owner.tables).await?.into_iter().map(|table| table.name).collect();
    if there.is_empty() {
        plan.note("target", "the tables will be made there as they are here");
        return Ok(());
    }
    for table in owner.tables.iter().filter(|table| !there.contains(table)) {
        plan.error("target", format!("the target has some of the tables, but not {table}: make all of them, or none"));
    }
    let (shape, its_shape) = (
        relations::shape(&mut source.connection, &owner.tables).await?,
        relations::shape(&mut target.connection, &owner.tables).await?,
    );
    for line in relations::differences(&shape, &its_shape) {
        plan.error("target", format!("the tables differ (- source, + target): {line}"));
    }
    if begun {
        return Ok(());
    }
    for table in &there {
        if sqlx::query_scalar(AssertSqlSafe(format!("select exists (select from {})", table.sql())))
            .fetch_one(&mut target.connection)
            .await?
        {
            plan.error("target", format!("{table} has rows on the target: empty it, or name another database"));
        }
    }
    Ok(())
}

/// Who reads and writes the tables must be there too, and must be somebody whom the fence can hold.
async fn check_roles(plan: &mut Plan, source: &mut Side, target: &mut Side, owner: &Owner) -> Result<()> {
    let rights = rights::read(&mut source.connection, owner).await?;
    let mut roles = rights.roles;
    if !roles.contains(&owner.role) {
        roles.push(owner.role.clone());
    }
    for role in roles {
        let exists = sqlx::query_scalar("select exists (select from pg_roles where rolname = $1)");
        if !exists.bind(&role).fetch_one(&mut target.connection).await? {
            plan.error("roles", format!("{role} has rights on the tables, and the target has no such role: `splitctl grants --on {} --apply` makes the owner's, or create it", plan.owner));
        }
    }
    let held = format!(
        "select case when r.rolsuper then 'is a superuser' else 'owns its tables' end
         from pg_roles r
         where r.rolname = {} and (r.rolsuper or exists (select from pg_class c where c.oid in ({}) and pg_has_role(r.oid, c.relowner, 'USAGE')))",
        crate::names::quote_literal(&owner.role),
        oids(&owner.tables)
    );
    for text in strings(&mut source.connection, held).await? {
        plan.warn(
            "roles",
            format!("{} {text}: after a switch its writes are refused on the side that was left, but its reads are not. Give the service a role of its own (`splitctl grants`), or turn it by hooks", owner.role),
        );
    }
    let known = sqlx::query_scalar("select exists (select from pg_roles where rolname = $1)");
    if !known.bind(&owner.role).fetch_one(&mut source.connection).await? {
        plan.error("roles", format!("the source has no role {}: correct the manifest", owner.role));
    }
    Ok(())
}
