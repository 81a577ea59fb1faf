//! The inventory: every object that hangs on the moving tables, or that they need, and what becomes of it.
//!
//! It comes from the catalog's own dependencies, whatever the class of the object, and from the names in the bodies of
//! functions, which the catalog does not record. `plan` shows it, and `copy` takes along what it says.

mod across;
mod bodies;
mod brought;
mod closure;
mod parts;
mod presence;

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Result;
use sqlx::{FromRow, PgConnection, query_as, query_scalar};

use super::relations;
use crate::manifest::Owner;
use crate::names::Qualified;
use across::Across;
pub use across::{Function, Part, PartKind};
pub use brought::Unused;

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
    is_binding: bool,
    /// Whether it is a default or a constraint: a table is created with it.
    is_of_rows: bool,
    /// Whether it uses both sides, and `detach` drops it: it is not created.
    crosses: bool,
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

    /// How `grant` and `revoke` name it. `None` if there are no rights on its kind; those on relations are the switch's.
    pub fn in_grants(&self) -> Option<String> {
        let kind = match self.kind.as_str() {
            kind @ ("function" | "procedure" | "type" | "schema" | "language") => kind,
            "aggregate" => "function",
            "server" => "foreign server",
            "foreign-data wrapper" => "foreign data wrapper",
            _ => return None,
        };
        Some(format!("{kind} {}", self.identity))
    }

    /// Whether the manifest may leave it behind. A default or a check may be left only where it cannot come along.
    pub fn can_be_left(&self) -> bool {
        !self.is_binding && (!self.is_of_rows || self.blocked_by.is_some())
    }

    /// Notes what the analysis of both sides says of it.
    fn mark(&mut self, across: &Across) {
        if self.class == PG_PROC && across.functions.iter().any(|function| function.oid == self.oid) {
            self.crosses = true;
        } else if let Some(part) = across.parts.get(&self.id()) {
            self.crosses = part.can_be_detached() || part.is_clone;
            self.blocked_by = self.blocked_by.take().or_else(|| Some(part.uses.clone()));
        } else if self.class == PG_PROC {
            self.blocked_by = self.blocked_by.take().or_else(|| across.staying_of(self.oid).cloned());
        }
    }

    /// Whether what needs it fails without it, and nothing else brings it. Rights, casts and schemas are not needed.
    fn must_be_there(&self) -> bool {
        let comes_otherwise = self.is_part || self.holds_rows || self.is_member || self.stays;
        !comes_otherwise && !["default acl", "cast", "schema"].contains(&self.kind.as_str())
    }

    /// Its address, for `pg_get_object_address`: names and arguments.
    pub fn address(&self) -> (&[String], &[String]) {
        (&self.names, &self.arguments)
    }
}

/// A body or an expression that cannot be read as a whole.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Unread {
    /// The function, or the object that the expression belongs to.
    pub user: String,
    /// Why.
    pub why: String,
}

/// All objects, and the bodies that hide some.
#[derive(Debug, Default)]
pub struct Inventory {
    /// The objects.
    pub objects: Vec<Object>,
    /// What comes along and may use more than the inventory knows.
    pub unread: BTreeSet<Unread>,
    /// The functions among the objects that find others by the search path, with what they find.
    pub by_path: BTreeMap<i64, BTreeSet<Qualified>>,
    across: Across,
    left_out: BTreeSet<String>,
    /// The objects that the manifest brings.
    brought: BTreeSet<Id>,
    /// The lines of the manifest's `bring` that cannot be followed, with the reason.
    pub not_brought: Vec<(String, &'static str)>,
    code: bodies::Code,
}

impl Inventory {
    /// Reads it from one side.
    pub async fn read(connection: &mut PgConnection, owner: &Owner) -> Result<Self> {
        let moving: Vec<i64> =
            relations::oids(connection, &owner.relations()).await?.iter().map(|oid| i64::from(oid.0)).collect();
        let mut across = Across::read(connection, owner, &moving).await?;
        let left_out: BTreeSet<String> = owner.leave.iter().cloned().collect();
        let code = bodies::Code::read(connection).await?;
        // What is left behind goes on to call its functions in the source.
        let left = across.parts.values().filter(|part| left_out.contains(&part.shown));
        let kept = code.with_called(left.flat_map(|part| part.functions.iter().copied()));
        across.functions.retain(|function| !kept.contains(&function.oid));
        // What only a crossing needs does not come along.
        let mut ends: BTreeSet<Id> = across.of_moving().map(|part| part.id).collect();
        let (brought, not_brought) = brought::find(connection, &owner.bring).await?;
        let mut seeds = code.over_the_tables(&across);
        seeds.extend(&brought);
        let (mut inventory, seeds) = Self::reach(connection, &code, &moving, seeds, &ends).await?;
        let known: BTreeSet<Id> = inventory.objects.iter().map(Object::id).collect();
        for object in &mut inventory.objects {
            object.mark(&across);
            if object.kind == "sequence" && !object.is_part {
                object.blocked_by = object.blocked_by.take().or(code.other_user(object.id(), &known));
            }
        }
        // A default or a check that is left behind is created with its table, and dropped at once.
        let before = ends.len();
        ends.retain(|id| !(across.parts[id].is_of_rows() && left_out.contains(&across.parts[id].shown)));
        if ends.len() < before {
            let more = Self::reach(connection, &code, &moving, seeds, &ends).await?.0.objects;
            inventory.objects.extend(more.into_iter().filter(|object| !known.contains(&object.id())));
        }
        Ok(Self { across, left_out, brought, not_brought, code, ..inventory })
    }

    /// What the catalog says that a table needs, and another database lacks.
    pub async fn lacking_for(
        connection: &mut PgConnection,
        other: &mut PgConnection,
        table: &Qualified,
    ) -> Result<Vec<Object>, sqlx::Error> {
        let oids = relations::oids(connection, std::slice::from_ref(table)).await?;
        let oids: Vec<i64> = oids.iter().map(|oid| i64::from(oid.0)).collect();
        let mut needed = closure::read(connection, &oids, &BTreeSet::new(), &BTreeSet::new()).await?;
        needed.retain(Object::must_be_there);
        presence::lacking(other, needed).await
    }

    /// Follows the catalog and the bodies until nothing new is found.
    async fn reach(
        connection: &mut PgConnection,
        code: &bodies::Code,
        moving: &[i64],
        mut seeds: BTreeSet<Id>,
        ends: &BTreeSet<Id>,
    ) -> Result<(Self, BTreeSet<Id>)> {
        let (mut inventory, mut known) = (Self::default(), BTreeSet::new());
        loop {
            inventory.objects = closure::read(connection, moving, &seeds, ends).await?;
            let reached: BTreeSet<Id> = inventory.objects.iter().map(Object::id).collect();
            let new: Vec<Id> = reached.difference(ends).filter(|id| known.insert(**id)).copied().collect();
            let before = seeds.len();
            for id in new {
                seeds.extend(code.used_by(id).filter(|used| !reached.contains(used)));
                inventory.unread.extend(code.unread(id));
                let found = code.found_by_path(id);
                if !found.is_empty() {
                    inventory.by_path.insert(id.1, found);
                }
            }
            if seeds.len() == before {
                return Ok((inventory, seeds));
            }
        }
    }

    /// The objects that are created on the target.
    pub fn moving(&self) -> impl Iterator<Item = &Object> {
        let stays = |object: &Object| object.stays || object.is_member || object.crosses || self.leaves_out(object);
        self.objects.iter().filter(move |object| !stays(object))
    }

    /// The objects that cannot be created there, because they use a relation that stays.
    pub fn blocked(&self) -> impl Iterator<Item = (&Object, &str)> {
        self.moving().filter_map(|object| Some((object, object.blocked_by.as_deref()?)))
    }

    /// The objects that the manifest leaves out, although the target would then show or take other rows.
    pub fn wrongly_left_out(&self) -> impl Iterator<Item = &Object> {
        self.objects.iter().filter(|object| !object.can_be_left() && self.leaves_out(object))
    }

    /// The lines of the manifest's `leave` that name no object.
    pub fn unknown(&self) -> impl Iterator<Item = &String> {
        self.left_out.iter().filter(|line| !self.objects.iter().any(|object| object.shown() == **line))
    }

    /// The parts that cross and that the manifest does not leave behind.
    pub fn crossing_parts(&self) -> impl Iterator<Item = &Part> {
        self.across.parts.values().filter(|part| !part.is_clone && !self.left_out.contains(&part.shown))
    }

    /// The part that an object is, if that crosses.
    pub fn part(&self, id: Id) -> Option<&Part> {
        self.across.parts.get(&id)
    }

    /// The functions that cross.
    pub fn crossing_functions(&self) -> &[Function] {
        &self.across.functions
    }

    /// The functions that use a relation that moves, with these relations.
    pub fn functions_using_moving(&self) -> &BTreeMap<i64, String> {
        &self.across.using_moving
    }

    /// The functions over the tables: they use no others.
    pub fn functions_over(&self) -> Vec<i64> {
        self.across.over().collect()
    }

    /// Statements that drop from the target the defaults and checks that are left behind: a table comes with them.
    pub async fn dropping_left(&self, source: &mut PgConnection) -> Result<String, sqlx::Error> {
        let left = self.objects.iter().filter(|object| object.is_of_rows && self.leaves_out(object));
        let oids: Vec<i64> = left.map(|object| object.oid).collect();
        let statements: Vec<String> = query_scalar(DROPPING_LEFT).bind(oids).fetch_all(source).await?;
        Ok(statements.join("; "))
    }

    fn leaves_out(&self, object: &Object) -> bool {
        self.left_out.contains(&object.shown())
    }

    /// The objects that stand on their own and that the target does not have.
    pub async fn lacking(&self, target: &mut PgConnection) -> Result<Vec<&Object>, sqlx::Error> {
        let alone: Vec<&Object> = self.moving().filter(|object| !object.is_part).collect();
        let found = presence::list(target, &alone).await?;
        Ok(alone.into_iter().zip(found).filter(|(_, is_there)| !is_there).map(|(object, _)| object).collect())
    }

    /// Of the objects that move and are among these: those that a database has, and those that it lacks.
    pub async fn find(
        &self,
        connection: &mut PgConnection,
        these: &BTreeSet<Id>,
    ) -> Result<(BTreeSet<Id>, BTreeSet<Id>), sqlx::Error> {
        let sought: Vec<&Object> = self.moving().filter(|object| these.contains(&object.id())).collect();
        let found = presence::list(connection, &sought).await?;
        let (there, lacking): (Vec<_>, Vec<_>) =
            sought.iter().map(|object| object.id()).zip(found).partition(|(_, is_there)| *is_there);
        let ids = |found: Vec<(Id, bool)>| found.into_iter().map(|(id, _)| id).collect();
        Ok((ids(there), ids(lacking)))
    }

    /// The sequences among the objects.
    pub async fn sequences(&self, connection: &mut PgConnection) -> Result<Vec<Qualified>, sqlx::Error> {
        let oids: Vec<i64> = self.moving().filter(|object| object.kind == "sequence").map(|object| object.oid).collect();
        query_as(NAMES).bind(oids).fetch_all(connection).await
    }

    /// The roles that own the objects that are created, or that their rights and policies name. The rights on tables are
    /// left out: the switch gives them. So are those on schemas: only roles that the target has get them.
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

/// The oid of the catalog's table of functions.
const PG_PROC: i64 = 1255;

const DROPPING_LEFT: &str = r"
    select format('alter table %s alter column %I drop default', f.adrelid::regclass, a.attname)
    from pg_attrdef f
    join pg_attribute a on a.attrelid = f.adrelid and a.attnum = f.adnum
    where f.oid = any ($1::int8[]::oid[])
    union all
    select format('alter table %s drop constraint if exists %I', c.conrelid::regclass, c.conname)
    from pg_constraint c
    where c.oid = any ($1::int8[]::oid[])
      and c.conrelid <> 0
    order by 1";

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
           or (s.deptype = 'a' and o.class not in ('pg_class'::regclass, 'pg_namespace'::regclass))
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
    join pg_roles r on r.oid = n.role and r.rolname not like 'splitctl\_%\_applier'
    cross join lateral pg_identify_object(n.class, n.oid, 0) i
    group by r.rolname
    order by 1";
