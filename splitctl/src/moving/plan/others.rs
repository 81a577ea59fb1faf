//! Who else works with the tables: extensions that keep their names in tables of their own, and jobs.

use anyhow::Result;
use sqlx::{AssertSqlSafe, FromRow, query_as, query_scalar};

use super::Plan;
use super::Weight::{Error, Warning};
use crate::audit::body;
use crate::moving::{Move, relations};
use crate::names::{Qualified, quote_literal};

/// Names what would fail during the move, or would work on the old tables after it.
pub(super) async fn check(plan: &mut Plan, the_move: &mut Move) -> Result<()> {
    check_distributed(plan, the_move).await?;
    check_partitions(plan, the_move).await?;
    check_jobs(plan, the_move).await
}

/// The tables that Citus distributes, by the columns of its catalog. Their rows are on other servers: no stream carries
/// them, and none brings them there.
async fn check_distributed(plan: &mut Plan, Move { owner, source, target, .. }: &mut Move) -> Result<()> {
    let columns = ["logicalrelid", "partmethod", "partkey"];
    for database in [source, target] {
        let oids = relations::oids(&mut database.connection, &owner.tables).await?;
        for catalog in query_as::<_, Qualified>(TABLES).bind(&columns[..]).fetch_all(&mut database.connection).await? {
            let rows = format!("select logicalrelid::regclass::text from {} where logicalrelid = any ($1)", catalog.sql());
            let known = query_scalar::<_, String>(AssertSqlSafe(rows)).bind(&oids);
            for table in known.fetch_all(&mut database.connection).await? {
                let text = format!(
                    "{table}: Citus distributes the table on the {}, and a stream only carries the coordinator's rows: \
                     `select undistribute_table('{table}')`, or leave the table out of `tables`",
                    database.side
                );
                plan.add(Error, "engines", text);
            }
        }
    }
    Ok(())
}

/// The tables of `pg_partman`, by their columns: the guard refuses the partitions that its maintenance makes.
async fn check_partitions(plan: &mut Plan, Move { owner, source, .. }: &mut Move) -> Result<()> {
    let oids = relations::oids(&mut source.connection, &owner.tables).await?;
    let columns = ["parent_table", "control", "partition_interval"];
    for config in query_as::<_, Qualified>(TABLES).bind(&columns[..]).fetch_all(&mut source.connection).await? {
        let rows = format!(
            "select parent_table::text from {} where to_regclass(parent_table::text) = any ($1) order by 1",
            config.sql()
        );
        let parents: Vec<String> = query_scalar(AssertSqlSafe(rows)).bind(&oids).fetch_all(&mut source.connection).await?;
        for parent in parents {
            let text = format!(
                "{parent}: {config} has its partitions made, and no partition can be made during the move. Make those that \
                 are needed until it ends, and switch the maintenance off: `update {} set automatic_maintenance = 'off' \
                 where parent_table = {}`. After the cutover, configure it on the target",
                config.sql(),
                quote_literal(&parent)
            );
            plan.add(Warning, "partitions", text);
        }
    }
    Ok(())
}

#[derive(FromRow)]
struct Job {
    schedule: String,
    command: String,
}

/// The jobs of `pg_cron`, by their columns.
async fn check_jobs(plan: &mut Plan, Move { owner, source, .. }: &mut Move) -> Result<()> {
    let columns = ["jobid", "schedule", "command"];
    for jobs in query_as::<_, Qualified>(TABLES).bind(&columns[..]).fetch_all(&mut source.connection).await? {
        let rows = format!("select schedule::text, command::text from {} order by jobid", jobs.sql());
        for Job { schedule, command } in query_as(AssertSqlSafe(rows)).fetch_all(&mut source.connection).await? {
            let relations = owner.relations();
            let is_schema = |schema: &str| relations.iter().any(|relation| relation.schema == schema);
            let mentions = body::read(&command, &is_schema);
            let used = relations.iter().find(|table| mentions.relations.keys().any(|name| name.may_mean(table)));
            if let Some(table) = used {
                let text = format!(
                    "{table}: a job of {jobs} uses it ({schedule}: {command}), and will fail after the cutover: schedule it \
                     on the target"
                );
                plan.add(Warning, "jobs", text);
            }
        }
    }
    Ok(())
}

/// Tables with all these columns.
const TABLES: &str = r"
    select n.nspname::text as schema, c.relname::text as name
    from pg_class c
    join pg_namespace n on n.oid = c.relnamespace
    where c.relkind = 'r'
      and not exists (
          select
          from unnest($1::text[]) wanted (name)
          where not exists (
              select
              from pg_attribute a
              where a.attrelid = c.oid
                and a.attname = wanted.name
                and not a.attisdropped
          )
      )
    order by 1, 2";
