//! What uses both the relations that move and those that stay: parts of tables, views, and functions.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Result;
use sqlx::{FromRow, PgConnection, query_as};

use super::Id;
use super::parts::PARTS;
use crate::audit::catalog::{Catalog, RelationKind};
use crate::audit::functions::{self, Touching};
use crate::manifest::Owner;
use crate::names::{Qualified, shown, with_schema};

/// What kind of part it is, as far as that decides what becomes of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, sqlx::Type)]
#[sqlx(type_name = "text", rename_all = "kebab-case")]
pub enum PartKind {
    /// A trigger.
    Trigger,
    /// A rule of a table.
    Rule,
    /// A policy that permits.
    Policy,
    /// A policy that restricts.
    RestrictivePolicy,
    /// A default.
    Default,
    /// A generated column.
    Generated,
    /// A check.
    Check,
    /// Another constraint.
    Constraint,
    /// An index.
    Index,
    /// The query of a view.
    View,
}

/// A part of a relation that uses relations of the other side.
#[derive(Debug, Clone)]
pub struct Part {
    /// Its class and oid.
    pub id: Id,
    /// Its kind.
    pub kind: PartKind,
    /// For people, and for the manifest's `leave`.
    pub shown: String,
    /// The relation that it is a part of.
    pub relation: i64,
    /// The name of that relation.
    pub table: Qualified,
    /// Its name within the relation.
    pub name: String,
    /// Whether that relation moves.
    pub moves: bool,
    /// Whether it is a partition's, and repeats the root's: it comes and goes with that.
    pub is_clone: bool,
    /// The relations of the other side that it uses, and the functions in between.
    pub uses: String,
    /// The functions by which it uses them.
    pub(super) functions: BTreeSet<i64>,
}

impl Part {
    /// Whether `detach` drops it. A policy, default or check of a table that moves decides which rows the target shows and
    /// takes, so the manifest has to say what becomes of it.
    pub fn can_be_detached(&self) -> bool {
        match self.kind {
            PartKind::Trigger | PartKind::Rule => true,
            PartKind::View | PartKind::Policy | PartKind::Default | PartKind::Check => !self.moves,
            _ => false,
        }
    }

    /// Whether a table is created with it, and can be without it.
    pub(super) fn is_of_rows(&self) -> bool {
        matches!(self.kind, PartKind::Default | PartKind::Check)
    }

    /// As a borrowing names it.
    pub fn object(&self) -> String {
        match self.kind {
            PartKind::View => self.table.to_string(),
            _ => format!("{}.{}", self.table, shown(&self.name)),
        }
    }
}

/// A function that uses relations of both sides, and that no trigger calls: those are covered by their triggers.
#[derive(Debug, Clone)]
pub struct Function {
    /// Its oid.
    pub oid: i64,
    /// Its name and the types of its arguments.
    pub shown: String,
    /// The relations that move and that stay.
    pub uses: (String, String),
}

/// Everything that crosses but foreign keys.
#[derive(Debug, Default)]
pub struct Across {
    /// Parts of relations, by class and oid.
    pub parts: BTreeMap<Id, Part>,
    /// Functions.
    pub functions: Vec<Function>,
    /// The functions that use a relation that stays, with these relations.
    using_staying: BTreeMap<i64, String>,
    /// The functions that use a relation that moves, with these relations.
    pub(super) using_moving: BTreeMap<i64, String>,
    /// The functions that use relations that move, and no others.
    over: BTreeSet<i64>,
}

impl Across {
    /// Reads it. `moving` holds the relations that move, with their partitions.
    pub(super) async fn read(connection: &mut PgConnection, owner: &Owner, moving: &[i64]) -> Result<Self> {
        let catalog = Catalog::of_move(connection, owner).await?;
        let touching = functions::touching(connection, &catalog).await?;
        let rows: Vec<Row> = query_as(PARTS).fetch_all(connection).await?;
        let sides = Sides { catalog: &catalog, moving: moving.iter().copied().collect() };
        let mut across = Self { parts: sides.parts(&rows, &touching), ..Self::default() };
        let of_triggers: BTreeSet<i64> =
            rows.iter().filter(|row| row.kind == PartKind::Trigger).map(|row| row.used).collect();
        for Touching { oid, shown, relations } in touching {
            let (moving, staying) = (sides.listed(&relations, true), sides.listed(&relations, false));
            if !moving.is_empty() {
                across.using_moving.insert(oid, moving.clone());
            }
            if !staying.is_empty() {
                across.using_staying.insert(oid, staying.clone());
            } else if !moving.is_empty() {
                across.over.insert(oid);
            }
            if !moving.is_empty() && !staying.is_empty() && !of_triggers.contains(&oid) {
                across.functions.push(Function { oid, shown, uses: (moving, staying) });
            }
        }
        Ok(across)
    }

    /// The parts of relations that move.
    pub(super) fn of_moving(&self) -> impl Iterator<Item = &Part> {
        self.parts.values().filter(|part| part.moves)
    }

    /// The relations that stay and that a function uses.
    pub(super) fn staying_of(&self, function: i64) -> Option<&String> {
        self.using_staying.get(&function)
    }

    /// The functions that use relations of either side.
    pub(super) fn touching(&self) -> impl Iterator<Item = i64> {
        self.using_staying.keys().chain(&self.over).copied()
    }

    /// The functions that use relations that move, and no others.
    pub(super) fn over(&self) -> impl Iterator<Item = i64> {
        self.over.iter().copied()
    }

    /// Whether a function is one of them.
    pub(super) fn is_over(&self, function: i64) -> bool {
        self.over.contains(&function)
    }
}

/// A relation or function that a part uses.
#[derive(FromRow)]
struct Row {
    class: i64,
    oid: i64,
    relation: i64,
    #[sqlx(flatten)]
    table: Qualified,
    kind: PartKind,
    part: String,
    shown: String,
    is_clone: bool,
    is_relation: bool,
    used: i64,
}

/// Which relations move, and which stay. Relations that each database keeps for itself are on neither side.
struct Sides<'a> {
    catalog: &'a Catalog,
    moving: BTreeSet<i64>,
}

impl Sides<'_> {
    fn parts(&self, rows: &[Row], touching: &[Touching]) -> BTreeMap<Id, Part> {
        let functions: BTreeMap<i64, &Touching> = touching.iter().map(|function| (function.oid, function)).collect();
        let (mut parts, mut said) = (BTreeMap::<Id, Part>::new(), BTreeSet::new());
        for row in rows {
            let Some(moves) = self.moves(row.relation) else { continue };
            let uses = if row.is_relation {
                self.listed(&BTreeSet::from([row.used]), !moves)
            } else {
                let Some(function) = functions.get(&row.used) else { continue };
                let used = self.listed(&function.relations, !moves);
                if used.is_empty() { used } else { format!("{used} (through {})", function.shown) }
            };
            if uses.is_empty() {
                continue;
            }
            let (id, table, name) = ((row.class, row.oid), row.table.clone(), row.part.clone());
            let functions: BTreeSet<i64> = (!row.is_relation).then_some(row.used).into_iter().collect();
            match parts.get_mut(&id) {
                // Many tables may use one domain, in the same way.
                Some(part) if !said.insert((id, uses.clone())) || part.moves != moves => part.functions.extend(functions),
                Some(part) => {
                    part.uses = format!("{}, {uses}", part.uses);
                    part.functions.extend(functions);
                }
                None => {
                    said.insert((id, uses.clone()));
                    let Row { kind, shown, relation, is_clone, .. } = row;
                    let is_clone = *is_clone;
                    let part = Part {
                        id,
                        kind: *kind,
                        shown: shown.clone(),
                        relation: *relation,
                        table,
                        name,
                        moves,
                        is_clone,
                        uses,
                        functions,
                    };
                    parts.insert(id, part);
                }
            }
        }
        parts
    }

    /// Whether a table or view moves; `None` for anything else.
    fn moves(&self, relation: i64) -> Option<bool> {
        let known = self.catalog.relations.get(&relation)?;
        (known.kind != RelationKind::Sequence).then(|| self.moving.contains(&relation))
    }

    /// The names of those relations that move, or of those that stay.
    fn listed(&self, relations: &BTreeSet<i64>, moving: bool) -> String {
        let listed = relations.iter().filter(|relation| self.moves(**relation) == Some(moving));
        let name = |relation: &i64| with_schema(&self.catalog.relations[relation].name);
        listed.map(name).collect::<Vec<_>>().join(", ")
    }
}
