//! The shape of the tables: the definitions that must not change during a move, as lines that are the same on both sides.
//! Rights, triggers, comments and foreign keys are not part of it. Partitions are, because they route rows.

use std::collections::HashSet;

use anyhow::Result;
use sqlx::postgres::types::Oid;
use sqlx::{PgConnection, query_scalar};

use super::relations;
use super::side::{Database, Side};
use crate::manifest::Owner;
use crate::names::{Qualified, parse_identifiers};

/// How many differences a message lists.
const SHOWN: usize = 8;

/// Reads the shape of the owner's tables, without the defaults and checks that the manifest leaves behind.
pub async fn read(connection: &mut PgConnection, owner: &Owner) -> Result<Vec<String>> {
    let lines = relations::select_lines(connection, SHAPE, &owner.tables).await?;
    leave_out(connection, owner, lines).await
}

/// A stamp of the catalog's rows for the tables: if it is the same as before, so is the shape. Reading it takes a fraction
/// of the time, because nothing is put into words.
#[derive(Debug, Default)]
pub struct Stamp {
    oids: Vec<Oid>,
    text: String,
}

impl Stamp {
    /// Reads it.
    pub async fn read(connection: &mut PgConnection, owner: &Owner) -> Result<Self, sqlx::Error> {
        let oids = relations::oids(connection, &owner.tables).await?;
        let text = query_scalar(STAMP).bind(&oids).fetch_one(connection).await?;
        Ok(Self { oids, text })
    }

    /// Whether it is the same now. What takes the place of a table has another oid, and a new partition a row of its own.
    pub async fn stands(&self, connection: &mut PgConnection) -> Result<bool, sqlx::Error> {
        let text: String = query_scalar(STAMP).bind(&self.oids).fetch_one(connection).await?;
        Ok(text == self.text)
    }
}

/// Whether the tables still have this shape, which they had at the time of the stamp.
pub async fn stands(connection: &mut PgConnection, owner: &Owner, shape: &[String], stamp: &Stamp) -> Result<bool> {
    Ok(stamp.stands(connection).await? || differences(&read(connection, owner).await?, shape).is_empty())
}

/// The row security of the tables, and their policies but for those that the manifest leaves behind. The lines of the source
/// have the roles that take the place of others on the target.
pub async fn row_security(Database { side, connection, .. }: &mut Database, owner: &Owner) -> Result<Vec<String>> {
    let oids = relations::oids(connection, &owner.tables).await?;
    let replaced = owner.owned_by.iter().filter(|_| *side == Side::Source);
    let (roles, others): (Vec<&String>, Vec<&String>) = replaced.unzip();
    let lines = query_scalar(ROW_SECURITY).bind(oids).bind(roles).bind(others).fetch_all(&mut *connection).await?;
    leave_out(connection, owner, lines).await
}

/// The first few lines that only one of two shapes has.
pub fn differences(here: &[String], there: &[String]) -> Vec<String> {
    let (here, there) = (&by_root(here)[..], &by_root(there)[..]);
    let only = |a: &[String], b: &[String], sign: char| {
        a.iter().filter(|line| !b.contains(line)).map(|line| format!("{sign} {line}")).collect::<Vec<_>>()
    };
    let mut lines = only(here, there, '-');
    lines.extend(only(there, here, '+'));
    lines.truncate(SHOWN);
    lines
}

/// The lines without the identities of partitions' columns: from Postgres 17 on, these have that of their root.
fn by_root(lines: &[String]) -> Vec<String> {
    let partition = |line: &String| {
        let (name, rest) = line.strip_prefix("partition ")?.split_once(" is ")?;
        (rest.starts_with("FOR VALUES") || rest == "DEFAULT").then(|| name.to_owned())
    };
    let partitions: HashSet<String> = lines.iter().filter_map(partition).collect();
    let is_of_partition = |line: &str| {
        let column = line.strip_prefix("column ").unwrap_or_default();
        column.match_indices(" of ").any(|(at, _)| partitions.contains(&column[..at]))
    };
    let by_root = |line: &String| match is_of_partition(line) {
        true => IDENTITIES.iter().fold(line.clone(), |line, identity| line.replace(identity, " ")),
        false => line.clone(),
    };
    lines.iter().map(by_root).collect()
}

/// As [`SHAPE`] writes them.
const IDENTITIES: [&str; 2] = [" identity a ", " identity d "];

async fn leave_out(connection: &mut PgConnection, owner: &Owner, mut lines: Vec<String>) -> Result<Vec<String>> {
    for left in owner.leave.iter().filter_map(|line| Left::parse(line)) {
        let tables = relations::with_partitions(connection, std::slice::from_ref(left.table())).await?;
        for table in &tables {
            lines = lines.into_iter().filter_map(|line| left.without(table, line)).collect();
        }
    }
    Ok(lines)
}

/// A default, a check or a policy that the manifest leaves behind.
enum Left {
    Default { table: Qualified, column: String },
    Check { table: Qualified, name: String },
    Policy { table: Qualified, name: String },
}

impl Left {
    /// Reads a line of `leave`, as `pg_identify_object` writes it.
    fn parse(line: &str) -> Option<Self> {
        if let Some(column) = line.strip_prefix("default value for ") {
            let [schema, table, column] = <[String; 3]>::try_from(parse_identifiers(column)?).ok()?;
            return Some(Self::Default { table: Qualified::new(schema, table), column });
        }
        let named = |rest: &str| {
            let (name, table) = rest.rsplit_once(" on ")?;
            Some((table.parse().ok()?, parse_identifiers(name)?.pop()?))
        };
        if let Some((table, name)) = line.strip_prefix("policy ").and_then(named) {
            return Some(Self::Policy { table, name });
        }
        let (table, name) = line.strip_prefix("table constraint ").and_then(named)?;
        Some(Self::Check { table, name })
    }

    fn table(&self) -> &Qualified {
        match self {
            Self::Default { table, .. } | Self::Check { table, .. } | Self::Policy { table, .. } => table,
        }
    }

    /// The line of a shape without it, for the table or one of its partitions.
    fn without(&self, Qualified { schema, name: table }: &Qualified, line: String) -> Option<String> {
        match self {
            Self::Default { column, .. } if line.starts_with(&format!("column {schema}.{table} of {column} is ")) => {
                let kept = line.split(" default ").next().unwrap_or_default();
                Some(format!("{kept} default left behind"))
            }
            Self::Check { name, .. } if line.starts_with(&format!("constraint {name} on {schema}.{table} is ")) => None,
            Self::Policy { name, .. } if line.starts_with(&format!("policy {name} on {schema}.{table} is ")) => None,
            _ => Some(line),
        }
    }
}

/// The journal of an open move holds these lines: to change their text is to change the journal's version.
pub(super) const SHAPE: &str = r"
    select format(
        'column %s.%s of %s is %s%s%s%s%s',
        n.nspname,
        c.relname,
        a.attname,
        format_type(a.atttypid, a.atttypmod),
        case when a.attnotnull then ' not null' else '' end,
        case when a.attidentity <> '' then ' identity ' || a.attidentity::text else '' end,
        case when a.attgenerated <> '' then ' generated as ' else ' default ' end,
        coalesce(pg_get_expr(d.adbin, d.adrelid), 'none')
    )
    from pg_class c
    join pg_namespace n on n.oid = c.relnamespace
    join pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
    left join pg_attrdef d on d.adrelid = a.attrelid and d.adnum = a.attnum
    where c.oid = any ($1)
      and c.relkind in ('r', 'p')
    union all
    select format('constraint %s on %s.%s is %s', o.conname, n.nspname, c.relname, pg_get_constraintdef(o.oid))
    from pg_class c
    join pg_namespace n on n.oid = c.relnamespace
    join pg_constraint o on o.conrelid = c.oid and o.contype in ('p', 'u', 'c', 'x')
    where c.oid = any ($1)
    union all
    select format('unique index %s on %s.%s is %s', i.relname, n.nspname, c.relname, pg_get_indexdef(x.indexrelid))
    from pg_class c
    join pg_namespace n on n.oid = c.relnamespace
    join pg_index x on x.indrelid = c.oid and x.indisunique
    join pg_class i on i.oid = x.indexrelid and (x.indisvalid or i.relkind = 'I')
    where c.oid = any ($1)
    union all
    select format(
        'partition %s.%s is %s',
        n.nspname,
        c.relname,
        coalesce(pg_get_expr(c.relpartbound, c.oid), pg_get_partkeydef(c.oid))
    )
    from pg_class c
    join pg_namespace n on n.oid = c.relnamespace
    where c.oid = any ($1)
      and (c.relispartition or c.relkind = 'p')
    union all
    select format('type %s has the values %s', t.oid::regtype, v.listed)
    from pg_type t
    cross join lateral (
        select string_agg(quote_literal(e.enumlabel), ', ' order by e.enumsortorder) as listed
        from pg_enum e
        where e.enumtypid = t.oid
    ) v
    where t.typtype = 'e'
      and t.oid in (
          select coalesce(nullif(y.typelem, 0), y.oid)
          from pg_attribute a
          join pg_type y on y.oid = a.atttypid
          where a.attrelid = any ($1)
            and a.attnum > 0
            and not a.attisdropped
      )
    order by 1";

/// Every change of a definition writes a row with a new transaction, or removes one. Writers wait for this statement: joined
/// like this, it is planned in no time, and by no parallel workers, however many tables there are.
const STAMP: &str = r"
    with tables as materialized (select unnest($1) as oid)
    select format('%s rows, %s', count(*), coalesce(sum(s.xmin::text::int8), 0))
    from (
        select c.xmin from tables t join pg_class c on c.oid = t.oid
        union all
        select a.xmin from tables t join pg_attribute a on a.attrelid = t.oid
        union all
        select d.xmin from tables t join pg_attrdef d on d.adrelid = t.oid
        union all
        select o.xmin from tables t join pg_constraint o on o.conrelid = t.oid
        union all
        select x.xmin from tables t join pg_index x on x.indrelid = t.oid
        union all
        select i.xmin from tables t join pg_inherits i on i.inhparent = t.oid
        union all
        select e.xmin
        from pg_enum e
        where e.enumtypid in (
            select coalesce(nullif(y.typelem, 0), y.oid)
            from tables t
            join pg_attribute a on a.attrelid = t.oid
            join pg_type y on y.oid = a.atttypid
        )
    ) s";

const ROW_SECURITY: &str = r"
    select format(
        'row security of %s.%s is on%s',
        n.nspname,
        c.relname,
        case when c.relforcerowsecurity then ', for its owner too' else '' end
    )
    from pg_class c
    join pg_namespace n on n.oid = c.relnamespace
    where c.oid = any ($1)
      and c.relrowsecurity
    union all
    select format(
        'policy %s on %s.%s is %s for %s to %s using (%s) with check (%s)',
        p.policyname, p.schemaname, p.tablename, p.permissive, p.cmd, array(
            select coalesce(o.other, r.role::text)
            from unnest(p.roles) r (role)
            left join unnest($2::text[], $3::text[]) o (role, other) on o.role = r.role::text
            order by 1
        ), p.qual, p.with_check
    )
    from pg_policies p
    join pg_namespace n on n.nspname = p.schemaname
    join pg_class c on c.relnamespace = n.oid and c.relname = p.tablename
    where c.oid = any ($1)
    order by 1";

#[cfg(test)]
mod tests {
    use super::differences;

    #[test]
    fn the_identity_of_a_partition_is_the_one_of_its_root() {
        let shape = |identity: &str| {
            let column = |table: &str, identity: &str| {
                format!("column public.{table} of id is integer not null{identity} default none")
            };
            let partition = "partition public.a of b is FOR VALUES FROM (1) TO (2)".to_owned();
            vec![column("root", " identity a"), column("a of b", identity), partition]
        };
        assert_eq!(differences(&shape(""), &shape(" identity a")), Vec::<String>::new());
        let other = differences(&shape(""), &shape("")[1..]);
        assert_eq!(other, ["- column public.root of id is integer not null identity a default none"]);
    }
}
