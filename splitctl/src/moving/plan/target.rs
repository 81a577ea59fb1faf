//! What the target must have: the source's encoding, extensions and roles, and either none of the tables or all of them,
//! empty.

use std::collections::BTreeSet;

use anyhow::Result;
use sqlx::{FromRow, query_as, query_scalar};

use super::Plan;
use super::Weight::{Error, Note, Warning};
use crate::database::fetch_value;
use crate::moving::{Move, relations, shape};

/// Compares the target with the source, where `users` have rights on what moves.
pub(super) async fn check(plan: &mut Plan, the_move: &mut Move, users: &[String]) -> Result<()> {
    check_settings(plan, the_move).await?;
    check_tables(plan, the_move).await?;
    check_roles(plan, the_move, users).await
}

#[derive(FromRow, PartialEq)]
struct Settings {
    encoding: String,
    collation: String,
    character_type: String,
    version: String,
    /// The provider, with its locale if that is not the one of the operating system.
    provider: String,
}

impl Settings {
    fn order(&self) -> String {
        let Self { collation, character_type, version, provider, .. } = self;
        format!("{provider}, {collation} ({character_type}) {version}").trim_end().to_owned()
    }
}

async fn check_settings(plan: &mut Plan, Move { source, target, .. }: &mut Move) -> Result<()> {
    let here: Settings = query_as(SETTINGS).fetch_one(&mut source.connection).await?;
    let there: Settings = query_as(SETTINGS).fetch_one(&mut target.connection).await?;
    if here.encoding == "SQL_ASCII" {
        let text = "source: its encoding is SQL_ASCII. The copy reads rows as UTF-8, and stops at a value that is not";
        plan.add(Warning, "encoding", text);
    }
    if here.encoding != there.encoding {
        let (here, there) = (here.encoding, there.encoding);
        let text = format!("target: its encoding is {there}, the source has {here}: create it with `encoding '{here}'`");
        plan.add(Error, "encoding", text);
    } else if here != there {
        let text =
            format!("target: it sorts by {}, the source by {}: the order of text may differ", there.order(), here.order());
        plan.add(Warning, "collation", text);
    }
    Ok(())
}

async fn check_tables(plan: &mut Plan, Move { owner, source, target, state, .. }: &mut Move) -> Result<()> {
    let known = relations::tables(&mut target.connection, &owner.tables).await?;
    if known.is_empty() {
        plan.add(Note, "target", "the copy creates the tables there as they are in the source");
        return Ok(());
    }
    for table in owner.tables.iter().filter(|table| !known.iter().any(|known| known.name == **table)) {
        let text = format!("{table}: the target has others of the tables, but not this one: create all of them, or none");
        plan.add(Error, "target", text);
    }
    // A copy that has begun makes the keys after the rows.
    if !state.begun.made_tables || state.copied {
        let here = shape::read(&mut source.connection, owner).await?;
        for line in shape::differences(&here, &shape::read(&mut target.connection, owner).await?) {
            plan.add(Error, "target", format!("the definitions differ (- source, + target): {line}"));
        }
    }
    if !state.begun.made_tables {
        let here = shape::row_security(source, owner).await?;
        let there = shape::row_security(target, owner).await?;
        for line in shape::differences(&here, &there) {
            let text = format!("row security differs (- source, + target), so other rows would be seen: {line}");
            plan.add(Error, "row security", text);
        }
    }
    // The copy of a move that has begun brings rows.
    for table in known.iter().filter(|_| !state.is_open()) {
        let some_row = format!("select true from {} limit 1", table.rows());
        if fetch_value::<bool>(&mut target.connection, some_row).await?.is_some() {
            let text = format!("{}: the target has rows in it: delete them, or name another database", table.name);
            plan.add(Error, "target", text);
        }
    }
    Ok(())
}

async fn check_roles(plan: &mut Plan, the_move: &mut Move, users: &[String]) -> Result<()> {
    let Move { owner, owner_name, target, .. } = the_move;
    let roles: BTreeSet<&str> = users.iter().chain([&owner.role]).map(|role| owner.on_target(role)).collect();
    let roles: Vec<&str> = roles.into_iter().collect();
    let missing = "select r.name from unnest($1::text[]) r (name) where r.name not in (select rolname from pg_roles)";
    let missing: Vec<String> = query_scalar(missing).bind(roles).fetch_all(&mut target.connection).await?;
    for role in missing {
        let text = format!(
            "{role}: the role has rights on the tables, and the target has no such role: create it there, name another one \
             for it in `owners.{owner_name}.owned_by`, or run `splitctl grants --on {owner_name} --apply` for the owner's \
             role"
        );
        plan.add(Error, "roles", text);
    }
    Ok(())
}

const SETTINGS: &str = r"
    select
        pg_encoding_to_char(encoding)::text as encoding,
        datcollate::text as collation,
        datctype::text as character_type,
        coalesce(datcollversion, '') as version,
        concat_ws(
            ' ',
            case datlocprovider when 'c' then 'libc' when 'i' then 'ICU' else 'Postgres'' own order' end,
            coalesce(to_jsonb(d) ->> 'daticulocale', to_jsonb(d) ->> 'datlocale')
        ) as provider
    from pg_database d
    where datname = current_database()";
