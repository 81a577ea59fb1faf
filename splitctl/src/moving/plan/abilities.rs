//! What the servers cannot do with the tables: create them on the target, or find their rows by what replication sends.

use anyhow::Result;
use sqlx::{FromRow, query_as, query_scalar};

use super::Weight::{Error, Warning};
use super::{Plan, weigh_entry};
use crate::moving::relations::key_index;
use crate::moving::{Move, relations};

/// From this version on a server refuses an update of which replication would send a part of the identity only.
const REFUSES_PARTS: i32 = 18;

/// Checks both sides.
pub(super) async fn check(plan: &mut Plan, the_move: &mut Move) -> Result<()> {
    check_creation(plan, the_move).await?;
    check_identities(plan, the_move).await?;
    let Move { source, target, .. } = the_move;
    let here: Vec<String> = query_scalar(EVENT_TRIGGERS).fetch_all(&mut source.connection).await?;
    let there: Vec<String> = query_scalar(EVENT_TRIGGERS).fetch_all(&mut target.connection).await?;
    for trigger in here.iter().filter(|trigger| !there.contains(trigger)) {
        let text =
            format!("{trigger}: this event trigger does not come along: create it on the target if it is needed there");
        plan.add(Warning, "event triggers", text);
    }
    Ok(())
}

/// Something that a table has, and that not every server can create.
#[derive(FromRow)]
struct Needed {
    /// The table or view.
    relation: String,
    object: String,
    what: String,
    /// The tablespace, if it is one.
    tablespace: Option<String>,
    /// The oldest version that can create it.
    since: i32,
    is_lz4: bool,
}

/// What the target has already is left as it is.
async fn check_creation(plan: &mut Plan, Move { owner, source, target, .. }: &mut Move) -> Result<()> {
    let oids = relations::oids(&mut source.connection, &owner.relations()).await?;
    let needed: Vec<Needed> = query_as(NEEDED).bind(oids).fetch_all(&mut source.connection).await?;
    let relations: Vec<&str> = needed.iter().map(|needed| needed.relation.as_str()).collect();
    let lacking: Vec<String> = query_scalar(LACKING).bind(relations).fetch_all(&mut target.connection).await?;
    let spaces: Vec<String> =
        query_scalar("select spcname::text from pg_tablespace").fetch_all(&mut target.connection).await?;
    let has_lz4: bool = query_scalar(HAS_LZ4).fetch_one(&mut target.connection).await?;
    let created = needed.into_iter().filter(|needed| lacking.contains(&needed.relation));
    for Needed { object, what, tablespace, since, is_lz4, .. } in created {
        let lacks_space = tablespace.is_some_and(|space| !spaces.contains(&space));
        if lacks_space || target.version < since || is_lz4 && !has_lz4 {
            let text = format!("{object}: it has {what}, which the target's server cannot create: change one of the two");
            plan.add(Error, "target", text);
        }
    }
    Ok(())
}

/// A table whose rows replication finds by a generated column, among others.
#[derive(FromRow)]
struct Identity {
    table: String,
    column: String,
    is_key: bool,
}

/// Replication does not send generated columns to a table that generates them itself.
async fn check_identities(plan: &mut Plan, Move { owner, source, target, .. }: &mut Move) -> Result<()> {
    let oids = relations::oids(&mut source.connection, &owner.tables).await?;
    let found: Vec<Identity> = query_as(IDENTITIES).bind(oids).fetch_all(&mut source.connection).await?;
    for Identity { table, column, is_key } in found {
        if is_key {
            let text = format!(
                "{table}: its key has the generated column {column}, which replication does not send: create a unique index \
                 on other columns that are not null, and run `alter table {table} replica identity using index …`"
            );
            let (weight, text) = weigh_entry(owner, &format!("keys: {table}"), &text);
            plan.add(weight, "keys", text);
        } else if source.version.max(target.version) >= REFUSES_PARTS {
            let text = format!(
                "{table}: a whole row identifies it for replication, and the column {column} is generated: from Postgres \
                 {REFUSES_PARTS} on its updates and deletes would be refused: give it a key, and `replica identity default`"
            );
            let (weight, text) = weigh_entry(owner, &format!("keys: {table}"), &text);
            plan.add(weight, "keys", text);
        }
    }
    Ok(())
}

/// The newer columns are not in every version's catalog.
const NEEDED: &str = r"
    with relations (oid, relation) as (
        select c.oid, c.oid
        from pg_class c
        where c.oid = any ($1)
        union
        select i.indexrelid, i.indrelid
        from pg_index i
        where i.indrelid = any ($1)
    )
    select
        r.relation::regclass::text as relation,
        c.oid::regclass::text as object,
        format('the tablespace %I', t.spcname) as what,
        t.spcname::text as tablespace,
        0 as since,
        false as is_lz4
    from relations r
    join pg_class c on c.oid = r.oid
    join pg_tablespace t on t.oid = c.reltablespace
    union all
    select
        a.attrelid::regclass::text,
        format('%s.%I', a.attrelid::regclass, a.attname),
        case a.attgenerated when 'v' then 'a virtual generated column' else 'the compression lz4' end,
        null,
        case a.attgenerated when 'v' then 18 else 0 end,
        a.attcompression = 'l'
    from pg_attribute a
    where a.attrelid = any ($1)
      and a.attnum > 0
      and not a.attisdropped
      and (a.attgenerated = 'v' or a.attcompression = 'l')
    union all
    select
        o.conrelid::regclass::text,
        o.conrelid::regclass::text,
        format('the constraint %I (%s)', o.conname, pg_get_constraintdef(o.oid)),
        null,
        case o.contype when 'x' then 17 else 18 end,
        false
    from pg_constraint o
    join pg_class c on c.oid = o.conrelid
    where o.conrelid = any ($1)
      and (
          not coalesce((to_jsonb(o) ->> 'conenforced')::boolean, true)
          or coalesce((to_jsonb(o) ->> 'conperiod')::boolean, false)
          or (o.contype = 'n' and (not o.convalidated or o.connoinherit))
          or (o.contype = 'x' and c.relkind = 'p')
      )
    order by 1, 2, 3";

const LACKING: &str = "select r.name from unnest($1::text[]) r (name) where to_regclass(r.name) is null";

const HAS_LZ4: &str = "select 'lz4' = any (enumvals) from pg_settings where name = 'default_toast_compression'";

/// Without a key of its own, a table gets all of its columns as its identity.
const IDENTITIES: &str = concat!(
    r"
    select
        c.oid::regclass::text as table,
        quote_ident(min(a.attname)) as column,
        i.columns is not null as is_key
    from pg_class c
    left join lateral (
        select x.indkey::int2[] as columns",
    key_index!(),
    r"
    ) i on c.relreplident <> 'f'
    join pg_attribute a
      on a.attrelid = c.oid
     and a.attnum > 0
     and not a.attisdropped
     and a.attgenerated <> ''
     and (i.columns is null or a.attnum = any (i.columns))
    where c.oid = any ($1)
      and c.relkind = 'r'
    group by c.oid, i.columns
    order by 1"
);

const EVENT_TRIGGERS: &str = r"
    select quote_ident(e.evtname)
    from pg_event_trigger e
    where not starts_with(e.evtname::text, 'splitctl_')
      and e.evtenabled <> 'D'
      and not exists (
          select
          from pg_depend d
          where d.classid = 'pg_event_trigger'::regclass
            and d.objid = e.oid
            and d.deptype = 'e'
      )
    order by 1";
