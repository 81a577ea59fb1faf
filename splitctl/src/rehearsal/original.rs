//! A real database as a rehearsal reads it: in one snapshot, and without a change.

use anyhow::Result;
use sqlx::{FromRow, query_as, query_scalar};

use super::locale::Locale;
use crate::database::execute;
use crate::moving::plan::write_value;
use crate::moving::{Database, Side};
use crate::names::quote_ident;

/// A database in a read-only transaction, whose snapshot other sessions share.
pub struct Original {
    /// The session that holds the transaction.
    pub database: Database,
    /// The snapshot's name.
    pub snapshot: String,
    /// How the database sorts text.
    pub locale: Locale,
    /// The roles that the database names.
    pub roles: Vec<Role>,
    owner: String,
    grants: Vec<Grant>,
    settings: Vec<Setting>,
}

/// A role of the original.
#[derive(Debug, Clone, FromRow)]
pub struct Role {
    /// Its name.
    pub name: String,
    /// Whether it is a superuser.
    pub is_superuser: bool,
    /// What a stand-in has, too.
    pub attributes: String,
    /// The roles that it is a member of.
    pub member_of: Vec<String>,
    /// Settings that the role has in every database, as names and values.
    pub settings: Vec<String>,
}

/// A right on the database.
#[derive(Debug, FromRow)]
struct Grant {
    privilege: String,
    /// `None` for all roles.
    role: Option<String>,
    is_grantable: bool,
}

/// A setting of the database, or of a role in it.
#[derive(Debug, FromRow)]
struct Setting {
    role: Option<String>,
    pair: String,
}

impl Original {
    /// Begins the transaction, and reads what `pg_dump` leaves out. `named` are roles that the manifest names.
    pub async fn open(side: Side, url: &str, named: &[String]) -> Result<Self> {
        let mut database = Database::open_alone(side, url).await?;
        let connection = &mut database.connection;
        execute(connection, "begin transaction isolation level repeatable read read only").await?;
        let snapshot = query_scalar("select pg_export_snapshot()").fetch_one(&mut *connection).await?;
        let locale = Locale::read(connection).await?;
        let roles = query_as(ROLES).bind(named).fetch_all(&mut *connection).await?;
        let owner = query_scalar(OWNER).fetch_one(&mut *connection).await?;
        let grants = query_as(GRANTS).fetch_all(&mut *connection).await?;
        let settings = query_as(SETTINGS).fetch_all(connection).await?;
        Ok(Self { database, snapshot, locale, roles, owner, grants, settings })
    }

    /// Ends the transaction. The session can read on.
    pub async fn release(&mut self) -> Result<()> {
        Ok(execute(&mut self.database.connection, "rollback").await?)
    }

    /// The statements that give a database this one's owner, rights and settings.
    pub fn finishing(&self, name: &str) -> Vec<String> {
        let name = quote_ident(name);
        let mut statements = vec![format!("alter database {name} owner to {}", quote_ident(&self.owner))];
        if !self.grants.is_empty() {
            statements.push(format!("revoke all on database {name} from public, {}", quote_ident(&self.owner)));
        }
        statements.extend(self.grants.iter().map(|grant| {
            let role = grant.role.as_ref().map_or("public".to_owned(), |role| quote_ident(role));
            let option = if grant.is_grantable && grant.role.is_some() { " with grant option" } else { "" };
            format!("grant {} on database {name} to {role}{option}", grant.privilege)
        }));
        statements.extend(self.settings.iter().map(|Setting { role, pair }| match role {
            Some(role) => format!("alter role {} in database {name} set {}", quote_ident(role), assignment(pair)),
            None => format!("alter database {name} set {}", assignment(pair)),
        }));
        statements
    }
}

impl Role {
    /// The statements that give a stand-in this role's settings.
    pub fn finishing(&self) -> Vec<String> {
        let set = |pair: &String| format!("alter role {} set {}", quote_ident(&self.name), assignment(pair));
        self.settings.iter().map(set).collect()
    }
}

/// `name=value` of the catalog, as a statement writes it.
fn assignment(pair: &str) -> String {
    let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
    format!("{name} = {}", write_value(name, value))
}

const OWNER: &str = "select pg_get_userbyid(datdba)::text from pg_database where datname = current_database()";

/// The roles that own objects of the database, have rights on them or have settings in it, those that the manifest names,
/// and those that any of them is a member of. The first superuser is in no list of dependencies.
const ROLES: &str = r"
    with recursive
    database as (
        select oid, datdba, datacl from pg_database where datname = current_database()
    ),
    named (oid) as (
        select s.refobjid
        from pg_shdepend s
        join database d on s.dbid = d.oid
        where s.refclassid = 'pg_authid'::regclass
        union
        select datdba from database
        union
        select a.grantee from database d cross join lateral aclexplode(d.datacl) a
        union
        select s.setrole from pg_db_role_setting s join database d on s.setdatabase = d.oid
        union
        select oid from pg_roles where rolname = any ($1)
        union
        select 10
        union
        select m.roleid from named n join pg_auth_members m on m.member = n.oid
    )
    select
        r.rolname::text as name,
        r.rolsuper as is_superuser,
        concat(
            case when r.rolinherit then 'inherit' else 'noinherit' end,
            case when r.rolbypassrls and not r.rolsuper then ' bypassrls' end
        ) as attributes,
        array(
            select g.rolname::text
            from pg_auth_members m
            join pg_roles g on g.oid = m.roleid
            where m.member = r.oid
        ) as member_of,
        array(
            select c.pair
            from pg_db_role_setting s
            cross join lateral unnest(s.setconfig) c (pair)
            where s.setrole = r.oid
              and s.setdatabase = 0
        ) as settings
    from named n
    join pg_roles r on r.oid = n.oid
    where not starts_with(r.rolname::text, 'pg_')
    order by 1";

const GRANTS: &str = r"
    select a.privilege_type as privilege, r.rolname::text as role, a.is_grantable
    from pg_database d
    cross join lateral aclexplode(d.datacl) a
    left join pg_roles r on r.oid = a.grantee
    where d.datname = current_database()
      and (a.grantee = 0 or r.oid is not null)";

const SETTINGS: &str = r"
    select r.rolname::text as role, c.pair
    from pg_db_role_setting s
    join pg_database d on d.oid = s.setdatabase and d.datname = current_database()
    left join pg_roles r on r.oid = s.setrole
    cross join lateral unnest(s.setconfig) c (pair)";
