//! The rights of owners' roles on other owners' relations: by a grant, by membership in a role, by PUBLIC, or because grants
//! do not limit the role.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Result;
use sqlx::{PgConnection, query_as};

use super::catalog::{Catalog, RelationKind};
use super::finding::{Finding, Kind};
use super::ownership::Ownership;

/// A granted right. Grants to a relation's owner are left out.
#[derive(Debug, Clone, sqlx::FromRow)]
pub struct Granted {
    /// The relation.
    pub relation: i64,
    /// The grantee's oid, or 0 for PUBLIC.
    pub grantee: i64,
    /// The right, in lower case.
    pub right: String,
    /// The column that the right is limited to.
    pub column: Option<String>,
}

/// A role of the manifest, as the cluster has it.
#[derive(Debug, sqlx::FromRow)]
pub struct Role {
    /// Its name.
    pub name: String,
    /// Its oid.
    pub oid: i64,
    /// Whether it is a superuser, which has every right.
    pub superuser: bool,
    /// The roles that it can act as: itself, and the roles that it is a member of.
    pub acts_as: Vec<i64>,
    /// Their names.
    pub acts_as_names: Vec<String>,
}

/// The roles and grants of the database.
#[derive(Debug)]
pub struct Rights {
    /// The manifest's roles that exist.
    pub roles: Vec<Role>,
    /// All grants on relations.
    pub granted: Vec<Granted>,
}

/// Roles whose members read or write every table.
const EVERYWHERE: [&str; 2] = ["pg_read_all_data", "pg_write_all_data"];

impl Rights {
    /// Reads all grants, and the roles with these names.
    pub async fn read(connection: &mut PgConnection, roles: &[&str]) -> Result<Self> {
        let roles = query_as(ROLES).bind(roles).fetch_all(&mut *connection).await?;
        let granted = query_as(GRANTED).fetch_all(connection).await?;
        Ok(Self { roles, granted })
    }
}

/// All rights that cross. `roles` holds owners by role.
pub fn findings(rights: &Rights, catalog: &Catalog, owners: &Ownership, roles: &BTreeMap<&str, &str>) -> Vec<Finding> {
    let mut findings = Vec::new();
    for role in &rights.roles {
        let from = roles[role.name.as_str()];
        let unbounded = unbounded(role, from, catalog, owners);
        let unbounded_to: BTreeSet<&str> = unbounded.iter().flat_map(|finding| finding.to.split(", ")).collect();
        let mut used: BTreeMap<i64, Vec<&Granted>> = BTreeMap::new();
        for granted in &rights.granted {
            let other = owners.get(granted.relation).filter(|owner| *owner != from && !unbounded_to.contains(owner));
            if other.is_some() && (granted.grantee == 0 || role.acts_as.contains(&granted.grantee)) {
                used.entry(granted.relation).or_default().push(granted);
            }
        }
        for (relation, granted) in used {
            findings.push(grant(role, from, relation, &granted, catalog, owners));
        }
        findings.extend(unbounded);
    }
    findings
}

/// A finding for a role that grants do not limit, for all owners whose relations it can use.
fn unbounded(role: &Role, from: &str, catalog: &Catalog, owners: &Ownership) -> Option<Finding> {
    let everything = || owners.others(from, catalog.relations.keys().copied());
    let all_data = role.acts_as_names.iter().find(|name| EVERYWHERE.contains(&name.as_str()));
    let (to, reason) = if role.superuser {
        (everything(), "is a superuser".to_owned())
    } else if let Some(name) = all_data {
        (everything(), format!("is a member of {name}"))
    } else {
        let owns = |oid: &i64| role.acts_as_names.contains(&catalog.relations[oid].role);
        let to = owners.others(from, catalog.relations.keys().copied().filter(owns));
        (to, "owns relations of another owner, or is a member of the role that does".to_owned())
    };
    let detail = format!("the role {} {reason}: grants do not limit it", role.name);
    to.map(|to| Finding::new(Kind::Role, format!("role {}", role.name), from, &to, detail))
}

fn grant(role: &Role, from: &str, oid: i64, granted: &[&Granted], catalog: &Catalog, owners: &Ownership) -> Finding {
    let relation = &catalog.relations[&oid];
    let rights: BTreeSet<String> = granted.iter().map(|granted| granted.right.clone()).collect();
    let whole = granted.iter().any(|granted| granted.column.is_none());
    let columns: BTreeSet<String> = if whole {
        relation.columns.iter().cloned().collect()
    } else {
        granted.iter().filter_map(|granted| granted.column.clone()).collect()
    };
    let by = if granted.iter().any(|granted| granted.grantee == 0) {
        " through PUBLIC"
    } else if granted.iter().any(|granted| granted.grantee != role.oid) {
        " through a role it is a member of"
    } else {
        ""
    };
    let on = if whole {
        relation.name.to_string()
    } else {
        format!("{} ({})", relation.name, columns.iter().cloned().collect::<Vec<_>>().join(", "))
    };
    let list = rights.iter().cloned().collect::<Vec<_>>().join(", ");
    let kind = if relation.kind == RelationKind::View { Kind::PublishedView } else { Kind::Grant };
    let to = owners.get(oid).unwrap_or_default();
    let detail = format!("the role {} may {list} on {on}{by}", role.name);
    let finding = Finding::new(kind, relation.name.to_string(), from, to, detail).by();
    let columns = (relation.kind != RelationKind::Sequence).then_some(columns);
    Finding { columns, rights: Some(rights), ..finding }
}

/// A membership counts if the role may become the other role. A superuser may become every role.
const ROLES: &str = r"
    select
        r.rolname::text as name,
        r.oid::int8 as oid,
        r.rolsuper as superuser,
        array(select g.oid::int8 from pg_roles g where pg_has_role(r.oid, g.oid, 'member') order by g.oid) as acts_as,
        array(
            select g.rolname::text
            from pg_roles g
            where pg_has_role(r.oid, g.oid, 'member')
            order by g.oid
        ) as acts_as_names
    from pg_roles r
    where r.rolname = any ($1)
    order by r.rolname";

const GRANTED: &str = r#"
    select c.oid::int8 as relation, g.grantee::int8, lower(g.privilege_type) as "right", null::text as "column"
    from pg_class c
    cross join lateral aclexplode(c.relacl) g
    where g.grantee <> c.relowner
    union all
    select c.oid::int8, g.grantee::int8, lower(g.privilege_type), a.attname::text
    from pg_attribute a
    join pg_class c on c.oid = a.attrelid
    cross join lateral aclexplode(a.attacl) g
    where g.grantee <> c.relowner
      and not a.attisdropped
    order by 1, 2, 3, 4"#;
