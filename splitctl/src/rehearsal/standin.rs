//! A throw-away copy of a real database: its definitions, roles, settings, and rows if it has any.

use std::path::Path;

use anyhow::{Context, Result};
use sqlx::{FromRow, PgConnection, query, query_as, query_scalar};

use super::original::{Original, Role};
use super::rows::{self, Choice, Rows};
use super::scratch::Scratch;
use super::tables::{self, Filled};
use crate::database::{connect, execute};
use crate::moving::{Database, Side, crash_point, pg_dump};
use crate::names::quote_ident;
use crate::output::note;

/// Settings of the sessions that create objects: no trigger of the user fires in them. Only a superuser may set that.
const QUIET: &str = "-c session_replication_role=replica -c log_min_error_statement=panic";

/// What was made.
#[derive(Debug, Default)]
pub struct Made {
    /// The rows that the stand-in has, and why these.
    pub choice: Option<Choice>,
    /// How many.
    pub filled: Filled,
    /// What differs from the original, and what could not be created.
    pub notes: Vec<String>,
    /// The roles that stand in for missing ones.
    pub roles: Vec<String>,
}

/// Makes the stand-in of the source, with rows. `roles` are those that the load acts as.
///
/// # Errors
/// If a server does not answer or refuses a database, a role or a login.
pub async fn of_source(
    scratch: &mut Scratch,
    source: &mut Original,
    roles: &[String],
    wanted: Option<Rows>,
) -> Result<Made> {
    let mut made = Made::default();
    let folder = tempfile::tempdir()?;
    let archive = folder.path().join("definitions");
    begin(scratch, source, &archive, &mut made).await?;
    let mut visitor = visit(scratch, roles, &mut made).await?;
    let (tables, left_out) = tables::list(&mut source.database.connection, &mut visitor).await?;
    made.notes.extend(left_out);
    let choice = rows::choose(wanted, &mut source.database.connection, &mut visitor, &tables).await?;
    note(format_args!("rehearsal: {} of {} tables: {}", choice.rows.shown(), tables.len(), choice.why));
    made.filled = rows::fill(choice.rows, &mut source.database.connection, &mut visitor, &tables).await?;
    made.notes.append(&mut made.filled.missing);
    made.choice = Some(choice);
    // While the snapshot is open, vacuum keeps the rows that it sees.
    source.release().await?;
    drop(visitor);
    crash_point("stand-in filled");
    end(scratch, source, &archive, &mut made).await?;
    Ok(made)
}

/// Makes the stand-in of the target, without rows.
///
/// # Errors
/// As [`of_source`].
pub async fn of_target(scratch: &mut Scratch, target: &mut Original) -> Result<Made> {
    let mut made = Made::default();
    let folder = tempfile::tempdir()?;
    let archive = folder.path().join("definitions");
    begin(scratch, target, &archive, &mut made).await?;
    end(scratch, target, &archive, &mut made).await?;
    Ok(made)
}

/// Creates the database, the roles, and what comes before the rows.
async fn begin(scratch: &mut Scratch, original: &mut Original, archive: &Path, made: &mut Made) -> Result<()> {
    let side = original.database.side;
    made.notes.extend(scratch.create_database(side, &original.locale).await?);
    create_roles(scratch, &original.roles, made).await?;
    crash_point("roles made");
    let program = pg_dump::find(original.database.version).await?;
    let snapshot = format!("--snapshot={}", original.snapshot);
    pg_dump::dump(&program, &original.database.url, archive, &[snapshot]).await?;
    restore(scratch, original, archive, "pre-data", made).await
}

/// Creates what comes after the rows: keys, triggers, policies. Then it sets sequences, fills materialised views, and gives
/// the database its owner, rights and settings.
async fn end(scratch: &mut Scratch, original: &mut Original, archive: &Path, made: &mut Made) -> Result<()> {
    let side = original.database.side;
    restore(scratch, original, archive, "post-data", made).await?;
    let url = scratch.url(side);
    let mut standin = Database::open_alone(side, &url).await?;
    set_sequences(&mut original.database.connection, &mut standin.connection).await?;
    refresh(&mut original.database.connection, &mut standin.connection, made).await?;
    execute(&mut standin.connection, "analyze").await?;
    let name = scratch.database(side);
    let mut statements = original.finishing(&name);
    let is_new = |role: &&Role| made.roles.contains(&role.name);
    statements.extend(original.roles.iter().filter(is_new).flat_map(Role::finishing));
    for statement in statements {
        if let Err(error) = execute(&mut scratch.admin, statement.clone()).await {
            made.notes.push(format!("the stand-in of the {side} differs: `{statement}`: {error}"));
        }
    }
    let connecting = format!("grant connect on database {} to {}", quote_ident(&name), quote_ident(&scratch.visitor()));
    execute(&mut scratch.admin, connecting).await?;
    crash_point("stand-in made");
    Ok(())
}

async fn restore(scratch: &Scratch, original: &Original, archive: &Path, section: &str, made: &mut Made) -> Result<()> {
    let program = pg_dump::find(original.database.version).await?;
    let side = original.database.side;
    let options = if scratch.is_superuser { QUIET } else { "" };
    let refused = pg_dump::restore_into(&program, &scratch.url(side), archive, section, options).await?;
    // What another move has put there needs splitctl's own schema, which does not come along.
    let of_the_user = refused.into_iter().filter(|refused| !refused.contains("splitctl"));
    made.notes.extend(of_the_user.map(|refused| format!("the stand-in of the {side} lacks {refused}")));
    Ok(())
}

/// Creates the roles that the server lacks. None of them can log in, and none is a superuser.
async fn create_roles(scratch: &mut Scratch, roles: &[Role], made: &mut Made) -> Result<()> {
    let names: Vec<&str> = roles.iter().map(|role| role.name.as_str()).collect();
    let missing: Vec<String> = query_scalar(MISSING).bind(names).fetch_all(&mut scratch.admin).await?;
    let missing: Vec<&Role> = roles.iter().filter(|role| missing.contains(&role.name)).collect();
    for role in &missing {
        let attributes = if scratch.is_superuser { role.attributes.as_str() } else { "" };
        scratch.create_role(&role.name, attributes).await?;
        made.roles.push(role.name.clone());
        if role.is_superuser {
            made.notes.push(format!("{}: a superuser, and its stand-in is none", role.name));
        }
    }
    for role in &missing {
        let groups: Vec<String> = query_scalar(GROUPS).bind(&role.member_of).fetch_all(&mut scratch.admin).await?;
        for group in groups {
            let grant = format!("grant {} to {}", quote_ident(&group), quote_ident(&role.name));
            if let Err(error) = execute(&mut scratch.admin, grant).await {
                made.notes.push(format!("{}: its stand-in is no member of {group}: {error}", role.name));
            }
        }
    }
    Ok(())
}

/// The session that fills the rows: checks and domains may call the application's functions, so it is no superuser's. The
/// visitor may act as these roles from now on.
async fn visit(scratch: &mut Scratch, roles: &[String], made: &mut Made) -> Result<PgConnection> {
    let visitor = quote_ident(&scratch.visitor());
    for role in query_scalar::<_, String>(GROUPS).bind(roles).fetch_all(&mut scratch.admin).await? {
        if let Err(error) = execute(&mut scratch.admin, format!("grant {} to {visitor}", quote_ident(&role))).await {
            made.notes.push(format!("{role}: the rehearsal's role may not act as it: {error}"));
        }
    }
    let url = if scratch.is_superuser { scratch.visitor_url(Side::Source)? } else { scratch.url(Side::Source) };
    connect(&url).await.with_context(|| {
        format!("{visitor}: the rehearsal's role cannot log in by password: allow it in pg_hba.conf, or use --scratch")
    })
}

async fn set_sequences(original: &mut PgConnection, standin: &mut PgConnection) -> Result<()> {
    let known: Vec<Sequence> = query_as(SEQUENCES).fetch_all(original).await?;
    let (names, values): (Vec<String>, Vec<i64>) = known.into_iter().map(|known| (known.name, known.value)).unzip();
    query(SET_SEQUENCES).bind(names).bind(values).execute(standin).await?;
    Ok(())
}

/// A materialised view may read another one, which is then filled first.
async fn refresh(original: &mut PgConnection, standin: &mut PgConnection, made: &mut Made) -> Result<()> {
    let mut left: Vec<String> = query_scalar(FILLED_VIEWS).fetch_all(original).await?;
    loop {
        let mut refused = Vec::new();
        for view in &left {
            if let Err(error) = execute(standin, format!("refresh materialized view {view}")).await {
                refused.push((view.clone(), error));
            }
        }
        if refused.is_empty() || refused.len() == left.len() {
            let why = refused.iter().map(|(view, error)| format!("{view}: the stand-in of it has no rows: {error}"));
            made.notes.extend(why);
            return Ok(());
        }
        left = refused.into_iter().map(|(view, _)| view).collect();
    }
}

#[derive(FromRow)]
struct Sequence {
    name: String,
    value: i64,
}

const MISSING: &str = r"
    select r.name
    from unnest($1::text[]) r (name)
    where not exists (select from pg_roles where rolname = r.name)";

const GROUPS: &str = r"
    select rolname::text
    from pg_roles
    where rolname = any ($1)
      and not rolsuper";

const SEQUENCES: &str = r"
    select format('%I.%I', schemaname, sequencename) as name, last_value as value
    from pg_sequences
    where last_value is not null
      and schemaname <> 'splitctl'";

const SET_SEQUENCES: &str = r"
    select setval(to_regclass(s.name), s.value)
    from unnest($1::text[], $2::int8[]) s (name, value)
    where to_regclass(s.name) is not null";

const FILLED_VIEWS: &str = r"
    select format('%I.%I', n.nspname, c.relname)
    from pg_class c
    join pg_namespace n on n.oid = c.relnamespace
    where c.relkind = 'm'
      and c.relispopulated
      and n.nspname <> 'splitctl'
    order by c.oid";
