//! One crossing: how it is dropped, and how it comes back as it was.

use std::fmt;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use sqlx::{FromRow, PgConnection, query_as, query_scalar};

use crate::database::execute;
use crate::moving::Database;
use crate::moving::fence::{self, Locking};
use crate::names::{Qualified, quote_ident};

/// Functions that rows are checked or computed with may find their tables by the path that the database has.
pub const APPLICATIONS_PATH: &str = "set search_path to default";

/// The kinds of crossings that `detach` drops.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, sqlx::Type)]
#[serde(rename_all = "kebab-case")]
#[sqlx(type_name = "text", rename_all = "kebab-case")]
pub enum Kind {
    /// A foreign key between a table that moves and one that stays. Older journals know no other kind.
    #[default]
    ForeignKey,
    /// A trigger whose function uses tables that move and tables that stay.
    Trigger,
    /// A function or procedure that uses both.
    Function,
    /// A view that reads both.
    View,
    /// A materialised view that reads both.
    MaterializedView,
    /// A rule whose action uses the other side.
    Rule,
    /// A policy of a table that stays, which reads what moves.
    Policy,
    /// A default of a table that stays.
    Default,
    /// A check of a table that stays.
    Check,
}

/// A crossing, with all that it takes to create it again. The journal keeps it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, FromRow)]
pub struct Crossing {
    /// Its kind.
    #[serde(default)]
    pub kind: Kind,
    /// The table of a key, a trigger or another part; else the object itself.
    #[sqlx(flatten)]
    pub table: Qualified,
    /// The name of such a part, the types of a function's arguments, nothing for a view.
    #[sqlx(rename = "part")]
    pub name: String,
    /// Of a key or a check: what follows its name. Else the statements that create the object.
    pub definition: String,
    /// Statements for its comment, its owner and the like.
    #[serde(default)]
    pub details: Vec<String>,
    /// Its ACL as a text. Objects without rights of their own have none.
    #[serde(default)]
    pub acl: Option<String>,
    /// The statements that grant what the ACL says.
    #[serde(default)]
    pub grants: Vec<String>,
    /// Whether a materialised view had rows.
    #[serde(default)]
    pub is_filled: bool,
}

/// For people.
impl fmt::Display for Crossing {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kind, table, name, .. } = self;
        match kind {
            Kind::ForeignKey => write!(formatter, "{table}: the foreign key {name}"),
            Kind::Trigger => write!(formatter, "{table}: the trigger {name}"),
            Kind::Function => write!(formatter, "{table}({name}): the function"),
            Kind::View => write!(formatter, "{table}: the view"),
            Kind::MaterializedView => write!(formatter, "{table}: the materialised view"),
            Kind::Rule => write!(formatter, "{table}: the rule {name}"),
            Kind::Policy => write!(formatter, "{table}: the policy {name}"),
            Kind::Default => write!(formatter, "{table}: the default of {name}"),
            Kind::Check => write!(formatter, "{table}: the check {name}"),
        }
    }
}

impl Crossing {
    /// Whether both are the same object, in whatever state.
    pub fn is(&self, other: &Self) -> bool {
        (self.kind, &self.table, &self.name) == (other.kind, &other.table, &other.name)
    }

    /// The statement that drops it.
    pub fn dropping(&self) -> String {
        let table = self.table.sql();
        match self.kind {
            Kind::ForeignKey | Kind::Check => format!("alter table {table} drop constraint {}", quote_ident(&self.name)),
            Kind::Rule => format!("drop rule {} on {table}", quote_ident(&self.name)),
            Kind::Policy => format!("drop policy {} on {table}", quote_ident(&self.name)),
            Kind::Default => format!("alter table {table} alter column {} drop default", quote_ident(&self.name)),
            Kind::Trigger => format!("drop trigger {} on {table}", quote_ident(&self.name)),
            Kind::Function => format!("drop routine {}", self.signature()),
            Kind::View => format!("drop view {table}"),
            Kind::MaterializedView => format!("drop materialized view {table}"),
        }
    }

    /// The statements that create it, for a person to run.
    pub fn creating(&self) -> String {
        let first = match self.kind {
            Kind::ForeignKey | Kind::Check => self.add_constraint(&self.definition),
            Kind::View | Kind::MaterializedView => without_remarks(&self.definition),
            _ => self.definition.clone(),
        };
        [&[first], &self.details[..], &self.grants].concat().join(";\n")
    }

    /// Creates it, unless it is there, with its comment, owner and rights.
    pub async fn restore(&self, source: &Database, locking: Locking) -> Result<()> {
        // Definitions change settings of their session.
        let mut connection = source.connect().await?;
        if matches!(self.kind, Kind::ForeignKey | Kind::Check) {
            return self.restore_constraint(&mut connection, source.version, locking).await;
        }
        if !self.exists(&mut connection).await? {
            // A body may use names that only the function's own search path finds.
            let create = format!("begin; set local check_function_bodies = off; {}", self.definition);
            fence::patiently(
                &mut connection,
                std::slice::from_ref(&self.table),
                locking,
                async |connection: &mut PgConnection| {
                    execute(connection, create.clone()).await?;
                    execute(connection, self.details.join(";\n")).await?;
                    self.restore_rights(connection).await?;
                    execute(connection, "commit").await
                },
            )
            .await?;
        }
        if self.is_filled && !self.has_rows(&mut connection).await? {
            // Row security holds for the view's owner, and a definition has switched it off.
            let mut connection = source.connect().await?;
            let refresh = format!("{APPLICATIONS_PATH}; refresh materialized view {}", self.table.sql());
            execute(&mut connection, refresh).await?;
        }
        Ok(())
    }

    /// A key or a check holds first for new rows, then for those that exist.
    async fn restore_constraint(&self, connection: &mut PgConnection, version: i32, locking: Locking) -> Result<()> {
        let (table, name) = (self.table.sql(), quote_ident(&self.name));
        // What is not enforced, as Postgres 18 can have it, is never valid.
        let is_enforced = !self.definition.ends_with(" NOT ENFORCED");
        let (definition, was_valid) = match self.definition.strip_suffix(" NOT VALID") {
            Some(definition) => (definition, false),
            None => (&*self.definition, is_enforced),
        };
        if !self.exists(connection).await? {
            let is_partitioned = query_scalar("select relkind = 'p' from pg_class where oid = to_regclass($1)").bind(&table);
            let is_partitioned: bool =
                is_partitioned.fetch_optional(&mut *connection).await?.context("the table is gone")?;
            // Before Postgres 18, a partitioned table takes no key without a check of its rows.
            let later = if !is_enforced || is_partitioned && version < 18 { "" } else { " not valid" };
            let add = [&[self.add_constraint(&format!("{definition}{later}"))], &self.details[..]].concat().join("; ");
            let tables = std::slice::from_ref(&self.table);
            fence::run_each(connection, tables, &[format!("begin; {add}; commit")], locking).await?;
        }
        if was_valid {
            let validate = format!("{APPLICATIONS_PATH}; alter table {table} validate constraint {name}");
            execute(connection, validate).await?;
        }
        Ok(())
    }

    /// Gives the object the rights that it had, whatever the default privileges gave it.
    async fn restore_rights(&self, connection: &mut PgConnection) -> Result<(), sqlx::Error> {
        let Some(acl) = &self.acl else { return Ok(()) };
        let (statement, name) = match self.kind {
            Kind::Function => (RIGHTS_OF_ROUTINE, self.signature()),
            _ => (RIGHTS_OF_RELATION, self.table.sql()),
        };
        let Rights { acl: now, revokes } = query_as(statement).bind(name).fetch_one(&mut *connection).await?;
        let revokes = if now == *acl { Vec::new() } else { revokes };
        execute(connection, [&revokes[..], &self.grants].concat().join(";\n")).await
    }

    async fn exists(&self, connection: &mut PgConnection) -> Result<bool, sqlx::Error> {
        let (table, statement) = match self.kind {
            Kind::ForeignKey | Kind::Check => (self.table.sql(), HAS_CONSTRAINT),
            Kind::Trigger => (self.table.sql(), HAS_TRIGGER),
            Kind::Rule => (self.table.sql(), HAS_RULE),
            Kind::Policy => (self.table.sql(), HAS_POLICY),
            Kind::Default => (self.table.sql(), HAS_DEFAULT),
            Kind::Function => (self.signature(), "select to_regprocedure($1) is not null or $2 is null"),
            _ => (self.table.sql(), "select to_regclass($1) is not null or $2 is null"),
        };
        query_scalar(statement).bind(table).bind(&self.name).fetch_one(connection).await
    }

    async fn has_rows(&self, connection: &mut PgConnection) -> Result<bool, sqlx::Error> {
        let statement = "select relispopulated from pg_class where oid = to_regclass($1)";
        query_scalar(statement).bind(self.table.sql()).fetch_one(connection).await
    }

    fn add_constraint(&self, definition: &str) -> String {
        format!("alter table {} add constraint {} {definition}", self.table.sql(), quote_ident(&self.name))
    }

    fn signature(&self) -> String {
        format!("{}({})", self.table.sql(), self.name)
    }
}

/// A dump of a view without its remarks and settings.
fn without_remarks(dump: &str) -> String {
    let is_remark = |line: &&str| {
        line.is_empty() || ["--", "SET ", "SELECT pg_catalog.set_config"].iter().any(|start| line.starts_with(start))
    };
    let lines: Vec<&str> = dump.lines().filter(|line| !is_remark(line)).collect();
    lines.join("\n").trim_end_matches(';').to_owned()
}

#[derive(FromRow)]
struct Rights {
    acl: String,
    revokes: Vec<String>,
}

const HAS_CONSTRAINT: &str = r"
    select exists (
        select
        from pg_constraint
        where conrelid = to_regclass($1)
          and conname = $2
    )";

const HAS_TRIGGER: &str = r"
    select exists (
        select
        from pg_trigger
        where tgrelid = to_regclass($1)
          and tgname = $2
    )";

const HAS_RULE: &str = r"
    select exists (
        select
        from pg_rewrite
        where ev_class = to_regclass($1)
          and rulename = $2
    )";

const HAS_POLICY: &str = r"
    select exists (
        select
        from pg_policy
        where polrelid = to_regclass($1)
          and polname = $2
    )";

const HAS_DEFAULT: &str = r"
    select exists (
        select
        from pg_attribute
        where attrelid = to_regclass($1)
          and attname = $2
          and atthasdef
    )";

const RIGHTS_OF_RELATION: &str = r"
    select
        a.acl::text as acl,
        array(
            select distinct format(
                'revoke all on table %s from %s',
                c.oid::regclass,
                case when g.grantee = 0 then 'public' else quote_ident(pg_get_userbyid(g.grantee)) end
            )
            from aclexplode(a.acl) g
        ) as revokes
    from pg_class c
    cross join lateral (select coalesce(c.relacl, acldefault('r', c.relowner)) as acl) a
    where c.oid = to_regclass($1)";

const RIGHTS_OF_ROUTINE: &str = r"
    select
        a.acl::text as acl,
        array(
            select distinct format(
                'revoke all on routine %s from %s',
                p.oid::regprocedure,
                case when g.grantee = 0 then 'public' else quote_ident(pg_get_userbyid(g.grantee)) end
            )
            from aclexplode(a.acl) g
        ) as revokes
    from pg_proc p
    cross join lateral (select coalesce(p.proacl, acldefault('f', p.proowner)) as acl) a
    where p.oid = to_regprocedure($1)";
