//! The inventory: every object that hangs on the moving tables, or that they need, and what becomes of it.
//!
//! It comes from the catalog's own dependencies, whatever the class of the object, and from the names in the bodies of
//! functions, which the catalog does not record. `plan` shows it, and `copy` takes along what it says.

mod bodies;
mod closure;

use std::collections::BTreeSet;

use sqlx::{FromRow, PgConnection, query_as, query_scalar};

use super::relations;
use crate::database::sqlstate;
use crate::manifest::Owner;
use crate::names::Qualified;

/// The class and the oid of an object.
pub type Id = (i64, i64);

/// An object that hangs on the moving tables, or that they need.
#[derive(Debug, Clone, FromRow)]
pub struct Object {
    /// Its class in the catalog.
    pub class: i64,
    /// Its oid.
    pub oid: i64,
    /// Its kind, as `pg_identify_object` names it.
    pub kind: String,
    /// Its name within its kind.
    pub identity: String,
    /// Its address, for `pg_get_object_address`.
    names: Vec<String>,
    arguments: Vec<String>,
    /// Whether it lives and dies with another object of the inventory, as an index does.
    pub is_part: bool,
    /// Whether it is a table or a view.
    pub holds_rows: bool,
    /// Whether an extension brings it.
    pub is_member: bool,
    /// Whether it is a foreign key to a table that stays, or a part of somebody's publication.
    pub stays: bool,
    /// A relation that stays, without which the object cannot be created.
    pub blocked_by: Option<String>,
    /// Whether leaving it out would show more rows, or change what a row may be.
    pub is_binding: bool,
}

impl Object {
    /// Its class and oid.
    pub fn id(&self) -> Id {
        (self.class, self.oid)
    }

    /// For people, and for the manifest's `leave`.
    pub fn shown(&self) -> String {
        format!("{} {}", self.kind, self.identity)
    }

    /// Whether a database has it.
    pub async fn is_in(&self, connection: &mut PgConnection) -> Result<bool, sqlx::Error> {
        let found = query_scalar::<_, bool>("select (pg_get_object_address($1, $2, $3)).objid is not null");
        match found.bind(&self.kind).bind(&self.names).bind(&self.arguments).fetch_one(connection).await {
            Ok(found) => Ok(found),
            // An undefined object, of whatever class, or a class without addresses.
            Err(error) if sqlstate(&error).is_some_and(|state| ["42", "3F", "22"].contains(&&state[..2])) => Ok(false),
            Err(error) => Err(error),
        }
    }
}

/// A body that cannot be read as a whole.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Unread {
    /// The function.
    pub function: String,
    /// Why.
    pub why: String,
}

/// All objects, and the bodies that hide some.
#[derive(Debug, Default)]
pub struct Inventory {
    /// The objects.
    pub objects: Vec<Object>,
    /// Functions that come along, and may use more than the inventory knows.
    pub unread: BTreeSet<Unread>,
    left_out: BTreeSet<String>,
}

impl Inventory {
    /// Reads it from one side.
    pub async fn read(connection: &mut PgConnection, owner: &Owner) -> Result<Self, sqlx::Error> {
        let moving: Vec<i64> =
            relations::oids(connection, &owner.relations()).await?.iter().map(|oid| i64::from(oid.0)).collect();
        let code = bodies::Code::read(connection, &moving, &owner.role).await?;
        let mut seeds: BTreeSet<Id> = code.over_the_tables();
        let (mut inventory, mut known) = (Self::default(), BTreeSet::new());
        loop {
            inventory.objects = closure::read(connection, &moving, &seeds).await?;
            let reached: BTreeSet<Id> = inventory.objects.iter().map(Object::id).collect();
            let new: Vec<Id> = reached.iter().filter(|id| known.insert(**id)).copied().collect();
            let before = seeds.len();
            for id in new {
                seeds.extend(code.used_by(id).filter(|used| !reached.contains(used)));
                inventory.unread.extend(code.unread(id));
            }
            if seeds.len() == before {
                break;
            }
        }
        for object in inventory.objects.iter_mut().filter(|object| object.kind == "sequence" && !object.is_part) {
            let other = code.other_user(object.id(), &known);
            object.blocked_by = object.blocked_by.take().or(other.map(|function| format!("function {function}")));
        }
        inventory.left_out = owner.leave.iter().cloned().collect();
        Ok(inventory)
    }

    /// The objects that are created on the target.
    pub fn moving(&self) -> impl Iterator<Item = &Object> {
        self.objects.iter().filter(|object| !object.stays && !object.is_member && !self.leaves_out(object))
    }

    /// The objects that cannot be created there, because they use a relation that stays.
    pub fn blocked(&self) -> impl Iterator<Item = (&Object, &str)> {
        self.moving().filter_map(|object| Some((object, object.blocked_by.as_deref()?)))
    }

    /// The objects that the manifest leaves out, although the target would then show or take other rows.
    pub fn wrongly_left_out(&self) -> impl Iterator<Item = &Object> {
        self.objects.iter().filter(|object| object.is_binding && self.leaves_out(object))
    }

    /// The lines of the manifest's `leave` that name no object.
    pub fn unknown(&self) -> impl Iterator<Item = &String> {
        self.left_out.iter().filter(|line| !self.objects.iter().any(|object| object.shown() == **line))
    }

    fn leaves_out(&self, object: &Object) -> bool {
        self.left_out.contains(&object.shown())
    }

    /// The objects that stand on their own and that the target does not have.
    pub async fn lacking(&self, target: &mut PgConnection) -> Result<Vec<&Object>, sqlx::Error> {
        let mut lacking = Vec::new();
        for object in self.moving().filter(|object| !object.is_part) {
            if !object.is_in(target).await? {
                lacking.push(object);
            }
        }
        Ok(lacking)
    }

    /// The sequences among the objects.
    pub async fn sequences(&self, connection: &mut PgConnection) -> Result<Vec<Qualified>, sqlx::Error> {
        let oids: Vec<i64> = self.moving().filter(|object| object.kind == "sequence").map(|object| object.oid).collect();
        query_as(NAMES).bind(oids).fetch_all(connection).await
    }

    /// The roles that own the objects that are created, or that their rights and policies name. The rights on tables are
    /// left out: the switch gives them.
    pub async fn roles(&self, connection: &mut PgConnection, lacking: &BTreeSet<Id>) -> Result<Vec<Role>, sqlx::Error> {
        let created = self.moving().filter(|object| object.is_part || lacking.contains(&object.id()));
        let (ids, parts): (Vec<Id>, Vec<bool>) = created.map(|object| (object.id(), object.is_part)).unzip();
        let (classes, oids): (Vec<i64>, Vec<i64>) = ids.into_iter().unzip();
        query_as(ROLES).bind(classes).bind(oids).bind(parts).fetch_all(connection).await
    }
}

/// A role that the objects name.
#[derive(Debug, FromRow)]
pub struct Role {
    /// Its name.
    pub name: String,
    /// Whether it owns one of them.
    pub owns: bool,
    /// One of them.
    pub object: String,
}

const NAMES: &str = r"
    select n.nspname::text as schema, c.relname::text as name
    from pg_class c
    join pg_namespace n on n.oid = c.relnamespace
    where c.oid = any ($1::int8[]::oid[])
    order by 1, 2";

/// `pg_shdepend` does not record the role that `initdb` makes.
const ROLES: &str = r"
    with created as (
        select o.class::oid, o.oid::oid, o.is_part
        from unnest($1::int8[], $2::int8[], $3::bool[]) o (class, oid, is_part)
    ),
    named as (
        select s.refobjid as role, s.deptype = 'o' as owns, o.class, o.oid
        from created o
        join pg_shdepend s
          on s.classid = o.class
         and s.objid = o.oid
         and s.refclassid = 'pg_authid'::regclass
         and s.dbid = (select d.oid from pg_database d where d.datname = current_database())
        where s.deptype in ('o', 'r')
           or (s.deptype = 'a' and o.class <> 'pg_class'::regclass)
    )
    select
        r.rolname::text as name,
        bool_or(n.owns) as owns,
        min(format('%s %s', i.type, i.identity)) as object
    from (
        select role, owns, class, oid from named
        union all
        select 10, true, o.class, o.oid
        from created o
        where not o.is_part
          and not exists (select from named n where n.owns and (n.class, n.oid) = (o.class, o.oid))
          and o.class not in ('pg_cast'::regclass, 'pg_default_acl'::regclass, 'pg_transform'::regclass)
    ) n
    join pg_roles r on r.oid = n.role
    cross join lateral pg_identify_object(n.class, n.oid, 0) i
    group by r.rolname
    order by 1";
