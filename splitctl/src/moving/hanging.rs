//! What hangs on the tables besides their shape, and the code that comes along: indexes, keys, triggers, policies, rules,
//! statistics, comments, views, functions. It may change during a move, and no stream carries such a change.

use std::collections::BTreeMap;

use anyhow::Result;
use serde::{Deserialize, Serialize};
use sqlx::{FromRow, PgConnection, query_as};

use super::inventory::{Id, Inventory};
use super::passing;
use super::side::{Database, Side};
use crate::manifest::Owner;
use crate::names::with_schema;

/// The definitions of all objects, by their kinds and names.
pub type Definitions = BTreeMap<String, String>;

/// Both sides at the end of the copy. The journal keeps them.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Known {
    source: Definitions,
    target: Definitions,
}

/// A change on the side where the tables live that the other side does not have.
pub struct Change {
    /// The object, and its definition.
    pub text: String,
    /// Whether it only concerns speed and documentation.
    pub is_harmless: bool,
}

/// Reads both sides.
pub async fn know(owner: &Owner, source: &mut Database, target: &mut Database) -> Result<Known> {
    let both = (read(&mut source.connection, owner), read(&mut target.connection, owner));
    let (source, target) = tokio::try_join!(both.0, both.1)?;
    Ok(Known { source, target })
}

/// Reads both sides, and lists what has changed since `known` on the side where the tables live, and not on the other side.
/// A move that an older release began knows nothing yet.
pub async fn compare(
    owner: &Owner,
    (source, target): (&mut Database, &mut Database),
    known: Option<&Known>,
    lives: Side,
) -> Result<(Known, Vec<Change>)> {
    let is_one_version = source.version == target.version;
    let now = know(owner, source, target).await?;
    let mut changes = known.map_or_else(Vec::new, |before| list_changes(before, &now, lives, is_one_version));
    changes.retain(|change| !owner.leave.iter().any(|left| change.text.starts_with(&format!("{left} is "))));
    Ok((now, changes))
}

/// What hangs on tables that somebody has created on the target, and is not as in the source: its name, and the difference.
/// Other checks compare policies, and what else moves.
pub async fn differences(owner: &Owner, source: &mut Database, target: &mut Database) -> Result<Vec<(String, Change)>> {
    let is_one_version = source.version == target.version;
    let Known { source: mut here, target: mut there } = know(owner, source, target).await?;
    let hangs = |name: &String| {
        let kinds = ["index ", "statistics object ", "trigger ", "rule ", "table constraint "];
        kinds.iter().any(|kind| name.starts_with(kind)) && !owner.leave.contains(name)
    };
    here.retain(|name, _| hangs(name));
    there.retain(|name, _| hangs(name));
    let mut differences = Vec::new();
    for (name, definition) in &here {
        let what = match there.remove(name) {
            None => format!("is not on the target: {definition}"),
            // Another version may write the same definition in other words.
            Some(other) if other != *definition && is_one_version => format!("is another one on the target: {other}"),
            Some(_) => continue,
        };
        differences.push((name.clone(), Change::of(name, &what)));
    }
    let more = there.into_keys();
    differences.extend(more.map(|name| (name.clone(), Change::of(&name, "is on the target, and not in the source"))));
    Ok(differences)
}

fn list_changes(before: &Known, now: &Known, lives: Side, is_one_version: bool) -> Vec<Change> {
    let ((before, other_before), (now, other)) = (before.order(lives), now.order(lives));
    // Another version may write the same definition in other words.
    let is_alike = |name: &String, definition: Option<&String>| {
        other.get(name) == definition || !is_one_version && other.get(name) != other_before.get(name)
    };
    let mut changes = Vec::new();
    for (name, definition) in now {
        if before.get(name) != Some(definition) && !is_alike(name, Some(definition)) {
            changes.push(Change::of(name, &format!("is now: {definition}")));
        }
    }
    for name in before.keys().filter(|name| !now.contains_key(*name) && !is_alike(name, None)) {
        changes.push(Change::of(name, "is gone"));
    }
    changes
}

impl Known {
    /// The side where the tables live, and the other one.
    fn order(&self, lives: Side) -> (&Definitions, &Definitions) {
        match lives {
            Side::Source => (&self.source, &self.target),
            Side::Target => (&self.target, &self.source),
        }
    }
}

impl Change {
    fn of(name: &str, what: &str) -> Self {
        // A definition may have several lines.
        let what = what.split_whitespace().collect::<Vec<_>>().join(" ");
        let harmless = ["index ", "statistics object ", "comment on "];
        Self { text: format!("{name} {what}"), is_harmless: harmless.iter().any(|kind| name.starts_with(kind)) }
    }
}

async fn read(connection: &mut PgConnection, owner: &Owner) -> Result<Definitions> {
    let inventory = Inventory::read(connection, owner).await?;
    let (classes, oids): (Vec<i64>, Vec<i64>) =
        inventory.moving().map(|object| object.id()).collect::<Vec<Id>>().into_iter().unzip();
    // A switch raises the epochs, on one side.
    let epochs: Vec<String> = owner.epochs.keys().map(|name| format!("function {}()", with_schema(name))).collect();
    let found: Vec<Found> = query_as(DEFINITIONS).bind(classes).bind(oids).fetch_all(&mut *connection).await?;
    // A switch closes these on one side.
    let closed: Vec<String> = passing::list(connection, &inventory).await?.into_iter().map(|one| one.identity).collect();
    let is_of_closed = |name: &str| {
        name.starts_with("the right of ") && closed.iter().any(|function| name.ends_with(&format!(" {function}")))
    };
    let found = found.into_iter().filter(|found| !epochs.contains(&found.name) && !is_of_closed(&found.name));
    Ok(found.map(|found| (found.name, found.definition)).collect())
}

#[derive(FromRow)]
struct Found {
    name: String,
    definition: String,
}

/// Parts of partitions follow from those of their root. A unique index and a check belong to the shape.
const DEFINITIONS: &str = r"
    with objects (class, oid) as (
        select o.class::oid, o.oid::oid
        from unnest($1::int8[], $2::int8[]) o (class, oid)
    ),
    defined (class, oid, definition) as materialized (
        select o.class, o.oid, pg_get_indexdef(o.oid)
        from objects o
        join pg_index x on o.class = 'pg_class'::regclass and x.indexrelid = o.oid and not x.indisunique
        join pg_class c on c.oid = o.oid and not c.relispartition
        union all
        select o.class, o.oid, concat_ws(' with ', pg_get_viewdef(o.oid), c.reloptions)
        from objects o
        join pg_class c on o.class = 'pg_class'::regclass and c.oid = o.oid and c.relkind in ('v', 'm')
        union all
        select
            o.class,
            o.oid,
            format('row security %s, for its owner %s', c.relrowsecurity, c.relforcerowsecurity)
        from objects o
        join pg_class c on o.class = 'pg_class'::regclass and c.oid = o.oid and c.relkind in ('r', 'p')
        union all
        select
            o.class,
            o.oid,
            format('%s from %s to %s by %s cycle %s', s.seqtypid::regtype, s.seqmin, s.seqmax, s.seqincrement, s.seqcycle)
        from objects o
        join pg_sequence s on o.class = 'pg_class'::regclass and s.seqrelid = o.oid
        union all
        select o.class, o.oid, pg_get_constraintdef(o.oid)
        from objects o
        join pg_constraint c on o.class = 'pg_constraint'::regclass and c.oid = o.oid and c.contype = 'f'
        where c.conparentid = 0
        union all
        select o.class, o.oid, format('%s, enabled %s', pg_get_triggerdef(o.oid), t.tgenabled)
        from objects o
        join pg_trigger t on o.class = 'pg_trigger'::regclass and t.oid = o.oid
        where t.tgparentid = 0
        union all
        select
            o.class,
            o.oid,
            format('%s for %s to %s using (%s) with check (%s)', p.permissive, p.cmd, p.roles, p.qual, p.with_check)
        from objects o
        join pg_policy y on o.class = 'pg_policy'::regclass and y.oid = o.oid
        join pg_class c on c.oid = y.polrelid
        join pg_namespace n on n.oid = c.relnamespace
        join pg_policies p on p.schemaname = n.nspname and p.tablename = c.relname and p.policyname = y.polname
        union all
        select o.class, o.oid, format('%s enabled %s', pg_get_ruledef(o.oid), r.ev_enabled)
        from objects o
        join pg_rewrite r on o.class = 'pg_rewrite'::regclass and r.oid = o.oid and r.rulename <> '_RETURN'
        union all
        select o.class, o.oid, pg_get_statisticsobjdef(o.oid)
        from objects o
        where o.class = 'pg_statistic_ext'::regclass
        union all
        select o.class, o.oid, pg_get_functiondef(o.oid)
        from objects o
        join pg_proc p on o.class = 'pg_proc'::regclass and p.oid = o.oid and p.prokind <> 'a'
    )
    select format('%s %s', i.type, i.identity) as name, d.definition
    from defined d
    cross join lateral pg_identify_object(d.class, d.oid, 0) i
    where d.definition is not null
    union all
    select format('comment on %s %s', i.type, i.identity), d.description
    from objects o
    join pg_description d on d.classoid = o.class and d.objoid = o.oid
    cross join lateral pg_identify_object(d.classoid, d.objoid, d.objsubid) i
    union all
    select
        format('the right of %s on %s %s', coalesce(r.rolname, 'public'), i.type, i.identity),
        case when g.is_grantable then 'to execute, and to grant that' else 'to execute' end
    from objects o
    join pg_proc p on o.class = 'pg_proc'::regclass and p.oid = o.oid
    cross join lateral aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) g
    left join pg_roles r on r.oid = g.grantee
    cross join lateral pg_identify_object(o.class, o.oid, 0) i
    where g.grantee <> p.proowner";
