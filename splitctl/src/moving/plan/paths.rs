//! Functions that run while rows are copied and changes are applied. Postgres applies with an empty search path, so a body
//! that leaves out the schemas of its tables and functions would stop the stream.

use std::collections::BTreeSet;

use anyhow::Result;
use sqlx::FromRow;

use super::{Plan, weigh_entry};
use crate::moving::inventory::Inventory;
use crate::moving::{Move, relations};
use crate::names::{quote_ident, with_schema};

/// A function, and a part of the tables that calls it for each row.
#[derive(FromRow)]
struct Called {
    oid: i64,
    function: String,
    part: String,
}

pub(super) async fn check(plan: &mut Plan, the_move: &mut Move, inventory: &Inventory) -> Result<()> {
    let Move { owner, source, .. } = the_move;
    for Called { oid, function, part } in relations::select(&mut source.connection, CALLED, &owner.tables).await? {
        let Some(found) = inventory.by_path.get(&oid) else { continue };
        let names: Vec<String> = found.iter().map(with_schema).collect();
        let schemas: BTreeSet<String> = found.iter().map(|name| quote_ident(&name.schema)).collect();
        let schemas: Vec<String> = schemas.into_iter().collect();
        let text = format!(
            "function {function}: {part} calls it for each row, also where Postgres applies changes, with an empty search \
             path. There it does not find {}: name their schemas in its body, or run `alter function {function} set \
             search_path = {}`",
            names.join(", "),
            schemas.join(", ")
        );
        let (weight, text) = weigh_entry(owner, &format!("paths: {function}"), &text);
        plan.add(weight, "paths", text);
    }
    Ok(())
}

/// Checks, generated columns, indexes and domains. Defaults and triggers do not act on what is applied.
const CALLED: &str = r"
    with parts (class, oid) as (
        select 'pg_constraint'::regclass::oid, o.oid
        from pg_constraint o
        where o.contype in ('c', 'x')
          and (
              o.conrelid = any ($1)
              or o.contypid in (select a.atttypid from pg_attribute a where a.attrelid = any ($1) and a.attnum > 0)
          )
        union all
        select 'pg_class'::regclass, i.indexrelid
        from pg_index i
        where i.indrelid = any ($1)
        union all
        select 'pg_attrdef'::regclass, d.oid
        from pg_attrdef d
        join pg_attribute a on a.attrelid = d.adrelid and a.attnum = d.adnum and a.attgenerated <> ''
        where d.adrelid = any ($1)
    )
    select
        p.oid::int8 as oid,
        f.identity::text as function,
        min(format('%s %s', i.type, i.identity)) as part
    from parts
    join pg_depend d on d.classid = parts.class and d.objid = parts.oid
    left join pg_operator o on d.refclassid = 'pg_operator'::regclass and o.oid = d.refobjid
    join pg_proc p on p.oid = coalesce(o.oprcode::oid, case d.refclassid when 'pg_proc'::regclass then d.refobjid end)
    cross join lateral pg_identify_object(parts.class, parts.oid, 0) i
    cross join lateral pg_identify_object('pg_proc'::regclass, p.oid, 0) f
    where p.oid >= 16384
    group by p.oid, f.identity
    order by 2";
