//! Tables that no owner has, because each database keeps its own: those of migration tools, and those that the manifest
//! lists as `unowned`.

use std::collections::BTreeSet;
use std::sync::LazyLock;

use anyhow::Result;
use serde::Deserialize;
use serde_json::Value;
use sqlx::{PgConnection, query_scalar};

/// How the tables of migration tools are recognised.
static TOOLS: LazyLock<Tools> =
    LazyLock::new(|| toml::from_str(include_str!("migration_tools.toml")).expect("the list of migration tools is TOML"));

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Tools {
    pattern: String,
    names: Vec<String>,
    shapes: Value,
}

/// The oids of the tables that look like those of migration tools.
pub async fn recognise(connection: &mut PgConnection) -> Result<BTreeSet<i64>> {
    let Tools { pattern, names, shapes } = &*TOOLS;
    let found = query_scalar(RECOGNISED).bind(names).bind(pattern).bind(shapes);
    Ok(found.fetch_all(connection).await?.into_iter().collect())
}

const RECOGNISED: &str = r"
    select c.oid::int8
    from pg_class c
    cross join lateral (
        select to_jsonb(array_agg(lower(a.attname))) as names
        from pg_attribute a
        where a.attrelid = c.oid
          and a.attnum > 0
          and not a.attisdropped
    ) columns
    where c.relkind in ('r', 'p')
      and (
          lower(c.relname) = any ($1)
          or c.relname ~* $2 and not exists (
              select
              from pg_constraint k
              where k.contype = 'f'
                and c.oid in (k.conrelid, k.confrelid)
                and k.conrelid <> k.confrelid
          )
          or exists (
              select
              from jsonb_array_elements($3) shape
              where shape <@ columns.names
                and jsonb_array_length(columns.names) <= jsonb_array_length(shape) + 1
          )
      )";
