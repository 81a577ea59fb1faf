//! The rights that the database has, and those of them that the manifest does not give.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result};
use sqlx::{PgConnection, query_scalar};

use super::implied::{Implied, Target, right, word};
use crate::audit::Ownership;
use crate::audit::catalog::{Catalog, RelationKind};
use crate::audit::rights::{Granted, Rights};
use crate::manifest::Manifest;
use crate::names::{Qualified, quote_ident};

/// The manifest's roles, and all grants.
pub struct Actual {
    /// The manifest's roles that exist.
    pub roles: BTreeSet<String>,
    by_oid: BTreeMap<i64, String>,
    granted: Vec<Granted>,
    /// Owners by role.
    owners: BTreeMap<String, String>,
    listed: BTreeSet<Qualified>,
}

impl Actual {
    /// Reads roles and grants.
    pub async fn read(connection: &mut PgConnection, manifest: &Manifest) -> Result<Self> {
        let names: Vec<&str> = manifest.owners.values().map(|owner| owner.role.as_str()).collect();
        let Rights { roles, granted } = Rights::read(connection, &names).await?;
        let by_oid: BTreeMap<i64, String> = roles.into_iter().map(|role| (role.oid, role.name)).collect();
        let owners = manifest.owners.iter().map(|(name, owner)| (owner.role.clone(), name.clone())).collect();
        let listed = manifest.owners.values().flat_map(|owner| owner.views.iter().cloned()).collect();
        Ok(Self { roles: by_oid.values().cloned().collect(), by_oid, granted, owners, listed })
    }

    /// Whether the role may use the schema, by any grant or membership.
    pub async fn may_use(&self, connection: &mut PgConnection, role: &str, schema: &str) -> Result<bool> {
        if !self.roles.contains(role) {
            return Ok(false);
        }
        let may = query_scalar("select has_schema_privilege($1::name, $2::text, 'usage')").bind(role).bind(schema);
        may.fetch_one(connection).await.map_err(Into::into)
    }

    /// Whether the role has the right, by any grant or membership.
    pub async fn may(&self, connection: &mut PgConnection, target: &Target, right: &str) -> Result<bool> {
        if !self.roles.contains(&target.role) {
            return Ok(false);
        }
        let may = query_scalar(MAY).bind(&target.role).bind(target.relation).bind(right).bind(&target.columns);
        let may = may.fetch_one(connection).await;
        may.with_context(|| format!("the manifest gives {} a right `{right}` that cannot be asked for", target.role))
    }

    /// The statements that revoke what the manifest does not give, and notes on rights of PUBLIC.
    pub fn beyond(&self, implied: &Implied, catalog: &Catalog, owners: &Ownership) -> (Vec<String>, Vec<String>) {
        let mut extra: BTreeMap<(i64, &str, Option<&str>), BTreeSet<&str>> = BTreeMap::new();
        let mut public: BTreeMap<i64, BTreeSet<&str>> = BTreeMap::new();
        for granted in self.granted.iter().filter(|granted| owners.get(granted.relation).is_some()) {
            let Granted { relation, grantee, right, column } = granted;
            if *grantee == 0 {
                public.entry(*relation).or_default().insert(right);
            } else if let Some(role) = self.by_oid.get(grantee).filter(|role| implied.roles.contains(*role))
                && !self.allowed(implied, catalog, owners, granted, role)
            {
                extra.entry((*relation, role, column.as_deref())).or_default().insert(right);
            }
        }
        let sql = |((relation, role, column), rights): ((i64, &str, Option<&str>), BTreeSet<&str>)| {
            let columns: Vec<String> = column.map(str::to_owned).into_iter().collect();
            let rights: Vec<String> = rights.into_iter().map(|name| right(name, &columns)).collect();
            let relation = &catalog.relations[&relation];
            let (rights, name) = (rights.join(", "), relation.name.sql());
            format!("revoke {rights} on {} {name} from {}", word(relation.kind), quote_ident(role))
        };
        let note = |(relation, rights): (i64, BTreeSet<&str>)| {
            let rights = rights.into_iter().collect::<Vec<_>>().join(", ");
            let relation = &catalog.relations[&relation];
            let (word, name) = (word(relation.kind), relation.name.sql());
            format!(
                "PUBLIC, so every role, may {rights} on {name}: if no other role needs that, \
                 revoke {rights} on {word} {name} from public"
            )
        };
        (extra.into_iter().map(sql).collect(), public.into_iter().map(note).collect())
    }

    /// Whether the manifest gives a right, or the right follows from what the manifest gives.
    fn allowed(&self, implied: &Implied, catalog: &Catalog, owners: &Ownership, granted: &Granted, role: &str) -> bool {
        let relation = &catalog.relations[&granted.relation];
        let own = owners.get(granted.relation) == self.owners.get(role).map(String::as_str);
        let follows = match relation.kind {
            // Reading a sequence changes nothing; `grant … on all sequences` gives it to many.
            RelationKind::Sequence => granted.right != "update",
            // A view that no owner lists reads what the role may read anyway.
            RelationKind::View => !self.listed.contains(&relation.name),
            RelationKind::Table | RelationKind::Foreign => false,
        };
        // The rights on a partition matter only to statements that name it instead of its root.
        let gives = |relation| implied.gives(role, relation, granted.column.as_deref(), &granted.right);
        own && follows || gives(relation.root) || gives(granted.relation)
    }
}

const MAY: &str = r"
    select case
        when c.relkind = 'S' then has_sequence_privilege($1::name, c.oid, $3)
        when $4 = '{}'::text[] then has_table_privilege($1::name, c.oid, $3)
        else (select bool_and(has_column_privilege($1::name, c.oid, x, $3)) from unnest($4) x)
    end
    from pg_class c
    where c.oid = $2::oid";
