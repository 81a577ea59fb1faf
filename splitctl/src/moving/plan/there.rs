//! Objects that the target has already: the copy leaves them as they are, so they must be as in the source. Nobody may gain
//! rights by a move.

use std::collections::BTreeSet;

use anyhow::Result;
use sqlx::{FromRow, PgConnection, query_as};

use super::Weight::{Error, Warning};
use super::{Plan, weigh_entry};
use crate::manifest::Owner;
use crate::moving::Move;
use crate::moving::inventory::{Id, Inventory, Object};
use crate::names::quote_ident;

/// Compares their owners, rights and definitions. The rights on tables and sequences are the switch's, which closes them.
pub(super) async fn check(
    plan: &mut Plan,
    the_move: &mut Move,
    inventory: &Inventory,
    lacking: &BTreeSet<Id>,
) -> Result<()> {
    let Move { owner, source, target, state, .. } = the_move;
    if state.is_open() {
        // The copy has created some of them.
        return Ok(());
    }
    let objects = inventory.moving().filter(|object| !object.is_part && !lacking.contains(&object.id()));
    for object in objects {
        let Some(here) = read(&mut source.connection, object).await? else { continue };
        let Some(there) = read(&mut target.connection, object).await? else { continue };
        compare(plan, owner, object, &here, &there);
    }
    Ok(())
}

fn compare(plan: &mut Plan, owner: &Owner, object: &Object, here: &Facts, there: &Facts) {
    let (shown, is_schema) = (object.shown(), object.kind == "schema");
    let mut add = |weight, text: String| match weight {
        Error => {
            let (weight, text) = weigh_entry(owner, &format!("there: {shown}"), &text);
            plan.add(weight, "there", text);
        }
        _ => plan.add(weight, "there", text),
    };
    // An extension serves everybody, whoever has installed it.
    if let (Some(its), Some(whose)) = (&there.owner, &here.owner)
        && object.kind != "extension"
        && owner.on_target(whose) != its
    {
        // A role that owns a schema alone has no rights on what is in it.
        let weight = if is_schema { Warning } else { Error };
        let role = quote_ident(owner.on_target(whose));
        let text = format!(
            "{shown}: on the target it belongs to {its}, in the source to {whose}: `alter {shown} owner to {role}` there, \
             or name {its} for {whose} in `owned_by`"
        );
        add(weight, text);
    }
    if here.definition != there.definition {
        add(Error, format!("{shown}: the target has another one of this name: make both equal, or drop that one"));
    }
    let mapped: BTreeSet<Right> = here.rights().map(|right| right.on_target(owner)).collect();
    let its: BTreeSet<Right> = there.rights().collect();
    for Right { role, privilege } in its.difference(&mapped) {
        let weight = if is_schema { Warning } else { Error };
        let text = format!(
            "{shown}: on the target {role} has the right {privilege}, and in the source it has not: \
             `revoke {privilege} on {shown} from {}` there",
            quoted(role)
        );
        add(weight, text);
    }
    // The copy grants the rights on schemas.
    for Right { role, privilege } in mapped.difference(&its).filter(|_| !is_schema) {
        let text = format!(
            "{shown}: on the target {role} lacks the right {privilege}: `grant {privilege} on {shown} to {}` there",
            quoted(role)
        );
        add(Warning, text);
    }
}

fn quoted(role: &str) -> String {
    if role == PUBLIC { role.to_owned() } else { quote_ident(role) }
}

const PUBLIC: &str = "public";

/// What one side says of an object.
#[derive(FromRow)]
struct Facts {
    /// `None` for an object that nobody owns.
    owner: Option<String>,
    /// The roles with rights, but for the owner, superusers and splitctl's own role.
    roles: Vec<String>,
    /// The right of each.
    privileges: Vec<String>,
    /// A text that is equal for equal objects. Empty if another check compares them.
    definition: String,
}

#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Right {
    role: String,
    privilege: String,
}

impl Facts {
    fn rights(&self) -> impl Iterator<Item = Right> {
        let pairs = self.roles.iter().zip(&self.privileges);
        pairs.map(|(role, privilege)| Right { role: role.clone(), privilege: privilege.clone() })
    }
}

impl Right {
    fn on_target(self, owner: &Owner) -> Self {
        let role = owner.on_target(&self.role).to_owned();
        Self { role, ..self }
    }
}

async fn read(connection: &mut PgConnection, object: &Object) -> Result<Option<Facts>, sqlx::Error> {
    let (names, arguments) = object.address();
    query_as(FACTS).bind(&object.kind).bind(names).bind(arguments).fetch_optional(connection).await
}

/// `pg_shdepend` does not record the role that `initdb` makes. The kinds of `acldefault` are all that have rights. A table's
/// definition is compared as a shape, and a function's by `check_functions`.
const FACTS: &str = r#"
    with object as (
        select a.classid, a.objid
        from pg_get_object_address($1, $2, $3) a
    ),
    listed (class, oid, acl, kind, owner) as (
        select 'pg_proc'::regclass, oid, proacl, 'f', proowner from pg_proc
        union all
        select 'pg_namespace'::regclass, oid, nspacl, 'n', nspowner from pg_namespace
        union all
        select 'pg_type'::regclass, oid, typacl, 'T', typowner from pg_type
        union all
        select 'pg_language'::regclass, oid, lanacl, 'l', lanowner from pg_language
        union all
        select 'pg_foreign_data_wrapper'::regclass, oid, fdwacl, 'F', fdwowner from pg_foreign_data_wrapper
        union all
        select 'pg_foreign_server'::regclass, oid, srvacl, 'S', srvowner from pg_foreign_server
    ),
    granted as (
        select
            case a.grantee when 0 then 'public' else r.rolname::text end as role,
            a.privilege_type as privilege
        from object o
        join listed l on l.class = o.classid and l.oid = o.objid
        cross join lateral aclexplode(coalesce(l.acl, acldefault(l.kind::"char", l.owner))) a
        left join pg_roles r on r.oid = a.grantee
        where a.grantee <> l.owner
          and not coalesce(r.rolsuper, false)
          and r.rolname is distinct from current_user
    )
    select
        (
            select r.rolname::text
            from pg_roles r
            where o.classid not in ('pg_cast'::regclass, 'pg_default_acl'::regclass, 'pg_transform'::regclass)
              and r.oid = coalesce(
                  (
                      select s.refobjid
                      from pg_shdepend s
                      where s.classid = o.classid
                        and s.objid = o.objid
                        and s.deptype = 'o'
                        and s.dbid = (select d.oid from pg_database d where d.datname = current_database())
                  ),
                  10
              )
        ) as owner,
        array(select g.role from granted g order by g.role, g.privilege) as roles,
        array(select g.privilege from granted g order by g.role, g.privilege) as privileges,
        coalesce(
            (
                select format('%s %s', pg_get_viewdef(c.oid), (select array_agg(x order by x) from unnest(c.reloptions) x))
                from pg_class c
                where o.classid = 'pg_class'::regclass
                  and c.oid = o.objid
                  and c.relkind in ('v', 'm')
            ),
            (
                select concat_ws(' ', format_type(s.seqtypid, null), s.seqincrement, s.seqmin, s.seqmax, s.seqcycle)
                from pg_sequence s
                where o.classid = 'pg_class'::regclass
                  and s.seqrelid = o.objid
            ),
            (
                select concat_ws(
                    ' ',
                    t.typtype,
                    format_type(nullif(t.typbasetype, 0), t.typtypmod),
                    t.typnotnull,
                    t.typdefault,
                    (select string_agg(e.enumlabel, ', ' order by e.enumsortorder) from pg_enum e where e.enumtypid = t.oid),
                    (
                        select string_agg(pg_get_constraintdef(k.oid), ', ' order by k.conname)
                        from pg_constraint k
                        where k.contypid = t.oid
                    ),
                    (
                        select string_agg(
                            format('%s %s', a.attname, format_type(a.atttypid, a.atttypmod)),
                            ', ' order by a.attnum
                        )
                        from pg_attribute a
                        where a.attrelid = t.typrelid
                          and a.attnum > 0
                          and not a.attisdropped
                    )
                )
                from pg_type t
                where o.classid = 'pg_type'::regclass
                  and t.oid = o.objid
            ),
            ''
        ) as definition
    from object o"#;
