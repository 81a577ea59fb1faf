//! What one side says of an object: its owner, the rights on it, and its definition.

use sqlx::{FromRow, PgConnection, query_as};

use super::inventory::Object;
use crate::manifest::Owner;
use crate::names::quote_ident;

const PUBLIC: &str = "public";

/// What one side says of an object.
#[derive(FromRow)]
pub struct Facts {
    /// `None` for an object that nobody owns.
    pub owner: Option<String>,
    /// The roles with rights, but for the owner, superusers and splitctl's own role.
    roles: Vec<String>,
    /// The right of each.
    privileges: Vec<String>,
    /// A text that is equal for equal objects. Empty if another check compares them.
    pub definition: String,
}

/// A right on an object.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
pub struct Right {
    /// Who has it.
    pub role: String,
    /// What it allows.
    pub privilege: String,
}

impl Facts {
    /// All of them.
    pub fn rights(&self) -> impl Iterator<Item = Right> {
        let pairs = self.roles.iter().zip(&self.privileges);
        pairs.map(|(role, privilege)| Right { role: role.clone(), privilege: privilege.clone() })
    }
}

impl Right {
    /// The role in a statement.
    pub fn grantee(&self) -> String {
        if self.role == PUBLIC { PUBLIC.to_owned() } else { quote_ident(&self.role) }
    }

    /// The same for the role that takes the place of this one.
    pub fn on_target(self, owner: &Owner) -> Self {
        let role = owner.on_target(&self.role).to_owned();
        Self { role, ..self }
    }
}

/// Reads them of an object that the side has.
pub async fn read(connection: &mut PgConnection, object: &Object) -> Result<Facts, sqlx::Error> {
    let (names, arguments) = object.address();
    query_as(FACTS).bind(&object.kind).bind(names).bind(arguments).fetch_one(connection).await
}

/// The common table of all objects that have rights of their own, but for relations: the kinds of `acldefault`.
macro_rules! listed {
    () => {
        "listed (class, oid, acl, kind, owner) as (
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
    )"
    };
}
pub(super) use listed;

/// `pg_shdepend` does not record the role that `initdb` makes. A table's definition is compared as a shape, and a function's
/// by `check_functions`.
const FACTS: &str = concat!(
    r#"
    with object as (
        select a.classid, a.objid
        from pg_get_object_address($1, $2, $3) a
    ),
"#,
    listed!(),
    r#",
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
                          and k.contype = 'c'
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
            (
                select concat_ws(
                    ' ',
                    l.collprovider,
                    l.collcollate,
                    l.collctype,
                    coalesce(to_jsonb(l) ->> 'colliculocale', to_jsonb(l) ->> 'colllocale'),
                    to_jsonb(l) ->> 'collicurules',
                    l.collisdeterministic
                )
                from pg_collation l
                where o.classid = 'pg_collation'::regclass
                  and l.oid = o.objid
            ),
            (
                select format('%s %s', y.tmplname, d.dictinitoption)
                from pg_ts_dict d
                join pg_ts_template y on y.oid = d.dicttemplate
                where o.classid = 'pg_ts_dict'::regclass
                  and d.oid = o.objid
            ),
            (
                select format(
                    '%s %s',
                    y.prsname,
                    (
                        select string_agg(
                            concat_ws(' ', m.maptokentype, m.mapdict::regdictionary),
                            ', ' order by m.maptokentype, m.mapseqno
                        )
                        from pg_ts_config_map m
                        where m.mapcfg = f.oid
                    )
                )
                from pg_ts_config f
                join pg_ts_parser y on y.oid = f.cfgparser
                where o.classid = 'pg_ts_config'::regclass
                  and f.oid = o.objid
            ),
            (
                select concat_ws(
                    ' ',
                    g.aggkind,
                    g.aggtransfn::regprocedure,
                    g.aggtranstype::regtype,
                    g.agginitval,
                    nullif(g.aggfinalfn, 0)::regprocedure,
                    nullif(g.aggsortop, 0)::regoperator
                )
                from pg_aggregate g
                where o.classid = 'pg_proc'::regclass
                  and g.aggfnoid = o.objid
            ),
            (
                select format('%s %s', x.oprresult::regtype, nullif(x.oprcode, 0)::regprocedure)
                from pg_operator x
                where o.classid = 'pg_operator'::regclass
                  and x.oid = o.objid
            ),
            (
                select concat_ws(' ', k.castcontext, k.castmethod, nullif(k.castfunc, 0)::regprocedure)
                from pg_cast k
                where o.classid = 'pg_cast'::regclass
                  and k.oid = o.objid
            ),
            ''
        ) as definition
    from object o"#
);
