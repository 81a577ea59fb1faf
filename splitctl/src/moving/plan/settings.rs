//! Settings with which the application's sessions begin: those of the database, of the role and of the server.

use anyhow::Result;
use sqlx::{FromRow, query_as, query_scalar};

use super::Plan;
use super::Weight::Warning;
use super::servers::Servers;
use crate::moving::{Move, Side};
use crate::names::{quote_ident, quote_literal};

/// Settings whose value is a list of names, which a statement writes as it is.
const LISTS: [&str; 6] = [
    "search_path",
    "temp_tablespaces",
    "local_preload_libraries",
    "session_preload_libraries",
    "shared_preload_libraries",
    "unix_socket_directories",
];

/// The value of a setting in a statement.
pub fn write_value(name: &str, value: &str) -> String {
    if LISTS.contains(&name) && !value.is_empty() { value.to_owned() } else { quote_literal(value) }
}

/// A setting for a database, a role, or a role in a database.
#[derive(FromRow, PartialEq)]
struct Setting {
    /// Whether it is for the database.
    database: bool,
    /// Whether it is for the role.
    role: bool,
    name: String,
    value: String,
}

impl Setting {
    /// The subject of a statement that changes it on the target.
    fn subject(&self, role: &str, database: &str) -> String {
        match (self.role, self.database) {
            (true, true) => format!("role {} in database {}", quote_ident(role), quote_ident(database)),
            (true, false) => format!("role {}", quote_ident(role)),
            (false, _) => format!("database {}", quote_ident(database)),
        }
    }
}

/// Compares both sides.
pub(super) async fn check(plan: &mut Plan, the_move: &mut Move) -> Result<()> {
    let servers = match Servers::read(the_move).await {
        Ok(servers) => servers,
        Err(error) => {
            plan.add(Warning, "settings", format!("the settings of both servers were not compared: {error:#}"));
            Servers::default()
        }
    };
    let Move { owner, source, target, .. } = the_move;
    let here: Vec<Setting> = query_as(SETTINGS).bind(&owner.role).fetch_all(&mut source.connection).await?;
    let role = Side::Target.role_of(owner);
    let there: Vec<Setting> = query_as(SETTINGS).bind(role).fetch_all(&mut target.connection).await?;
    let database: String = query_scalar("select current_database()::text").fetch_one(&mut target.connection).await?;
    let is_same = |a: &Setting, b: &Setting| (a.database, a.role, &a.name) == (b.database, b.role, &b.name);
    for setting in here.iter().filter(|setting| !there.contains(setting)) {
        let (subject, Setting { name, value, .. }) = (setting.subject(role, &database), setting);
        let other = there.iter().find(|other| is_same(other, setting)).map_or("not set", |other| &other.value);
        let written = write_value(name, value);
        let text = format!(
            "{name}: the source sets it to {value}, and on the target it is {other}: \
             run `alter {subject} set {name} = {written}` there"
        );
        plan.add(Warning, "settings", text);
    }
    for setting in there.iter().filter(|setting| !here.iter().any(|other| is_same(other, setting))) {
        let (subject, Setting { name, value, .. }) = (setting.subject(role, &database), setting);
        if servers.source.get(&name.to_lowercase()) == Some(value) {
            continue;
        }
        let text = format!(
            "{name}: the target sets it to {value}, and the source does not: check that the application expects it, or run \
             `alter {subject} reset {name}` there"
        );
        plan.add(Warning, "settings", text);
    }
    let is_set = |name: &str| here.iter().chain(&there).any(|setting| setting.name.eq_ignore_ascii_case(name));
    for (name, value, other) in servers.differences().filter(|(name, ..)| !is_set(name)) {
        let text = format!(
            "{name}: the source's server has {}, and the target's {}: run `alter database {} set {name} = {}` on the target",
            quote_literal(value),
            quote_literal(other),
            quote_ident(&database),
            write_value(name, value)
        );
        plan.add(Warning, "settings", text);
    }
    Ok(())
}

const SETTINGS: &str = r"
    select
        s.setdatabase <> 0 as database,
        s.setrole <> 0 as role,
        split_part(c.pair, '=', 1) as name,
        substr(c.pair, strpos(c.pair, '=') + 1) as value
    from pg_db_role_setting s
    left join pg_database d on d.oid = s.setdatabase
    left join pg_roles r on r.oid = s.setrole
    cross join lateral unnest(s.setconfig) c (pair)
    where (s.setdatabase = 0 or d.datname = current_database())
      and (s.setrole = 0 or r.rolname = $1)
    order by 1, 2, 3";
