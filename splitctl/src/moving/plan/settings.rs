//! Settings with which sessions that use the tables begin: those of the database, of the role and of the server.

use anyhow::Result;
use sqlx::{FromRow, query_as, query_scalar};

use super::Plan;
use super::Weight::Warning;
use super::logins::Login;
use super::servers::Servers;
use crate::database::describe;
use crate::moving::Move;
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
    /// The role that it is for. `None` if it is for all.
    role: Option<String>,
    name: String,
    value: String,
}

impl Setting {
    /// The subject of a statement that changes it on the target.
    fn subject(&self, database: &str) -> String {
        match (&self.role, self.database) {
            (Some(role), true) => format!("role {} in database {}", quote_ident(role), quote_ident(database)),
            (Some(role), false) => format!("role {}", quote_ident(role)),
            (None, true) => format!("database {}", quote_ident(database)),
            (None, false) => "role all".to_owned(),
        }
    }

    fn is_of_the_same(&self, other: &Self) -> bool {
        (self.database, &self.role, &self.name) == (other.database, &other.role, &other.name)
    }
}

/// Compares both sides. A role that the target lacks is another check's finding.
pub(super) async fn check(plan: &mut Plan, the_move: &mut Move, logins: &[Login]) -> Result<()> {
    let servers = match Servers::read(the_move).await {
        Ok(servers) => servers,
        Err(error) => {
            plan.add(Warning, "settings", format!("the settings of both servers were not compared: {}", describe(&error)));
            Servers::default()
        }
    };
    let (here, there) = read(the_move, logins).await?;
    let database: String =
        query_scalar("select current_database()::text").fetch_one(&mut the_move.target.connection).await?;
    for setting in here.iter().filter(|setting| !there.contains(setting)) {
        let Setting { name, value, .. } = setting;
        let other = there.iter().find(|other| other.is_of_the_same(setting)).map_or("not set", |other| &other.value);
        let (subject, written) = (setting.subject(&database), write_value(name, value));
        let text = format!(
            "{name}: the source sets it to {value}, and on the target it is {other}: \
             run `alter {subject} set {name} = {written}` there"
        );
        plan.add(Warning, "settings", text);
    }
    for setting in there.iter().filter(|setting| !here.iter().any(|other| other.is_of_the_same(setting))) {
        let (subject, Setting { name, value, .. }) = (setting.subject(&database), setting);
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

/// The settings of both sides, those of the source with the roles of the target. A role that the target lacks has none.
async fn read(Move { owner, source, target, .. }: &mut Move, logins: &[Login]) -> Result<(Vec<Setting>, Vec<Setting>)> {
    let roles: Vec<&str> = logins.iter().map(|login| login.role.as_str()).collect();
    let its_roles: Vec<&str> = roles.iter().map(|role| owner.on_target(role)).collect();
    let found: Vec<String> = query_scalar(ROLES).bind(&its_roles).fetch_all(&mut target.connection).await?;
    let mut here: Vec<Setting> = query_as(SETTINGS).bind(roles).fetch_all(&mut source.connection).await?;
    for role in here.iter_mut().filter_map(|setting| setting.role.as_mut()) {
        *role = owner.on_target(role).to_owned();
    }
    here.retain(|setting| setting.role.as_ref().is_none_or(|role| found.contains(role)));
    Ok((here, query_as(SETTINGS).bind(its_roles).fetch_all(&mut target.connection).await?))
}

const SETTINGS: &str = r"
    select
        s.setdatabase <> 0 as database,
        r.rolname::text as role,
        split_part(c.pair, '=', 1) as name,
        substr(c.pair, strpos(c.pair, '=') + 1) as value
    from pg_db_role_setting s
    left join pg_database d on d.oid = s.setdatabase
    left join pg_roles r on r.oid = s.setrole
    cross join lateral unnest(s.setconfig) c (pair)
    where (s.setdatabase = 0 or d.datname = current_database())
      and (s.setrole = 0 or r.rolname = any ($1))
    order by 1, 2, 3";

const ROLES: &str = "select rolname::text from pg_roles where rolname = any ($1)";
