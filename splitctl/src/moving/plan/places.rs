//! Where the copy creates objects. A superuser may do so anywhere; any other role needs CREATE on the schema, and so does
//! the role that it gives the object to.

use std::collections::BTreeSet;

use anyhow::Result;
use sqlx::{FromRow, query_as, query_scalar};

use super::Plan;
use super::Weight::Error;
use crate::moving::Move;
use crate::moving::inventory::{Id, Inventory};
use crate::names::quote_ident;

/// Names each right that is missing in a schema that the target has.
pub(super) async fn check(
    plan: &mut Plan,
    the_move: &mut Move,
    inventory: &Inventory,
    lacking: &BTreeSet<Id>,
) -> Result<()> {
    let Move { owner, source, target, .. } = the_move;
    if target.superuser {
        return Ok(());
    }
    let created = inventory.moving().filter(|object| !object.is_part && lacking.contains(&object.id()));
    let (classes, oids): (Vec<i64>, Vec<i64>) = created.map(|object| object.id()).unzip();
    let places: Vec<Place> = query_as(PLACES).bind(classes).bind(oids).fetch_all(&mut source.connection).await?;
    let operator: String = query_scalar("select current_user::text").fetch_one(&mut target.connection).await?;
    let mut needed = BTreeSet::new();
    for place in &places {
        needed.insert((operator.as_str(), place.schema.as_str()));
        needed.insert((owner.on_target(&place.owner), place.schema.as_str()));
    }
    for (role, schema) in needed {
        let lacks: Option<bool> =
            query_scalar(LACKS_CREATE).bind(role).bind(schema).fetch_optional(&mut target.connection).await?;
        if lacks == Some(true) {
            let text = format!(
                "{role}: the role may not create objects in the schema {schema} of the target, where the copy puts some: \
                 `grant create on schema {} to {}` there",
                quote_ident(schema),
                quote_ident(role)
            );
            plan.add(Error, "rights", text);
        }
    }
    Ok(())
}

/// A role that owns objects in a schema.
#[derive(FromRow)]
struct Place {
    owner: String,
    schema: String,
}

const PLACES: &str = r"
    select distinct pg_get_userbyid(coalesce(s.refobjid, 10))::text as owner, i.schema::text as schema
    from unnest($1::int8[], $2::int8[]) o (class, oid)
    cross join lateral pg_identify_object(o.class::oid, o.oid::oid, 0) i
    left join pg_shdepend s
      on s.classid = o.class::oid
     and s.objid = o.oid::oid
     and s.deptype = 'o'
     and s.dbid = (select d.oid from pg_database d where d.datname = current_database())
    where i.schema is not null";

/// No row for a schema that the copy creates too, or for a role that another check misses.
const LACKS_CREATE: &str = r"
    select not has_schema_privilege(r.oid, n.oid, 'create')
    from pg_roles r
    join pg_namespace n on n.nspname = $2
    where r.rolname = $1";
