//! The rights on the objects that the copy makes.

use serde_json::json;
use sqlx::{FromRow, query_as};

use crate::manifest::Owner;
use crate::moving::facts::listed;
use crate::moving::inventory::Object;
use crate::moving::side::Database;
use crate::names::quote_literal;

/// Builds a statement that gives objects, which were just created on the target, the rights that they have in the source.
/// `pg_dump` writes what differs from Postgres' defaults, and the target may have default privileges of its own. Rights on
/// relations are the switch's.
pub async fn as_in_source(source: &mut Database, owner: &Owner, objects: Vec<&Object>) -> Result<String, sqlx::Error> {
    let objects: Vec<(&Object, String)> =
        objects.into_iter().filter_map(|object| Some((object, object.in_grants()?))).collect();
    let (classes, oids): (Vec<i64>, Vec<i64>) = objects.iter().map(|(object, _)| object.id()).unzip();
    let rights: Vec<Right> = query_as(RIGHTS).bind(classes).bind(oids).fetch_all(&mut source.connection).await?;
    let mut rights = rights.into_iter().peekable();
    let mut made = Vec::new();
    for (number, (object, shown)) in (1..).zip(&objects) {
        let mut given = Vec::new();
        while let Some(right) = rights.next_if(|right| right.number == number) {
            let role = right.role.as_deref().map(|role| owner.on_target(role));
            given.push(json!([role, right.privilege, right.is_grantable]));
        }
        let (names, arguments) = object.address();
        made.push(json!([object.kind, names, arguments, shown, given]));
    }
    if made.is_empty() {
        return Ok(String::new());
    }
    Ok(format!("do {}", quote_literal(&GIVING.replace("{made}", &quote_literal(&json!(made).to_string())))))
}

/// A right on an object of the source.
#[derive(FromRow)]
struct Right {
    /// The place of the object among those that were asked for, from 1.
    number: i64,
    /// `None` for all roles.
    role: Option<String>,
    privilege: String,
    is_grantable: bool,
}

const RIGHTS: &str = concat!(
    "
    with ",
    listed!(),
    r#"
    select
        o.number,
        case when a.grantee <> 0 then pg_get_userbyid(a.grantee)::text end as role,
        a.privilege_type as privilege,
        a.is_grantable
    from unnest($1::int8[], $2::int8[]) with ordinality o (class, oid, number)
    join listed l on l.class = o.class::oid and l.oid = o.oid::oid
    cross join lateral aclexplode(coalesce(l.acl, acldefault(l.kind::"char", l.owner))) a
    where a.grantee <> l.owner
      and pg_get_userbyid(a.grantee) not like 'splitctl\_%\_applier'
    order by o.number, 2, 3"#
);

/// Each object of `{made}` is its kind, names and arguments, what it is called in `grant`, and its rights.
const GIVING: &str = concat!(
    "
    declare
        made json;
        statement text;
    begin
        for made in select json_array_elements({made}::json) loop
            for statement in
                with ",
    listed!(),
    r#",
                has as (
                    select
                        case when a.grantee <> 0 then pg_get_userbyid(a.grantee)::text end as role,
                        a.privilege_type as privilege,
                        bool_or(a.is_grantable) as is_grantable
                    from pg_get_object_address(
                        made ->> 0,
                        array(select json_array_elements_text(made -> 1)),
                        array(select json_array_elements_text(made -> 2))
                    ) o
                    join listed l on l.class = o.classid and l.oid = o.objid
                    cross join lateral aclexplode(coalesce(l.acl, acldefault(l.kind::"char", l.owner))) a
                    where a.grantee <> l.owner
                    group by 1, 2
                ),
                given as (
                    select g ->> 0 as role, g ->> 1 as privilege, bool_or((g ->> 2)::boolean) as is_grantable
                    from json_array_elements(made -> 4) g
                    group by 1, 2
                ),
                both_sides as (
                    select
                        coalesce(quote_ident(coalesce(h.role, g.role)), 'public') as role,
                        coalesce(h.privilege, g.privilege) as privilege,
                        h.privilege is not null as has,
                        coalesce(h.is_grantable, false) as has_grantable,
                        g.privilege is not null as given,
                        coalesce(g.is_grantable, false) as given_grantable
                    from (select * from has where role is distinct from current_user) h
                    full join (
                        select * from given
                        where role is null or exists (select from pg_roles r where r.rolname = role)
                    ) g on g.privilege = h.privilege and coalesce(g.role, '') = coalesce(h.role, '')
                )
                select format(
                    'revoke %s%s on %s from %s',
                    case when b.given then 'grant option for ' else '' end,
                    b.privilege,
                    made ->> 3,
                    b.role
                )
                from both_sides b
                where b.has and (not b.given or b.has_grantable and not b.given_grantable)
                union all
                select format(
                    'grant %s on %s to %s%s',
                    b.privilege,
                    made ->> 3,
                    b.role,
                    case when b.given_grantable then ' with grant option' else '' end
                )
                from both_sides b
                where b.given and (not b.has or b.given_grantable and not b.has_grantable)
            loop
                execute statement;
            end loop;
        end loop;
    end"#
);
