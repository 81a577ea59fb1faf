//! An event trigger refuses changes of the tables' definitions during a move. Only a superuser may create one; without it, the
//! comparison of the definitions before each step finds a change.

use anyhow::Result;

use super::relations;
use super::side::Database;
use crate::database::execute;
use crate::names::Qualified;

/// Creates the event trigger for the tables and their partitions, if splitctl's role may.
pub async fn guard(database: &mut Database, owner_name: &str, tables: &[Qualified]) -> Result<()> {
    if !database.superuser {
        return Ok(());
    }
    let oids = relations::oids(&mut database.connection, tables).await?;
    let oids = oids.iter().map(|oid| oid.0.to_string()).collect::<Vec<_>>().join(", ");
    let statements = GUARD.replace("{name}", &name(owner_name)).replace("{oids}", &oids);
    Ok(execute(&mut database.connection, statements).await?)
}

/// Drops the event trigger.
pub async fn unguard(database: &mut Database, owner_name: &str) -> Result<()> {
    if !database.superuser {
        return Ok(());
    }
    let name = name(owner_name);
    let drop = format!("drop event trigger if exists {name}; drop function if exists splitctl.{name}()");
    Ok(execute(&mut database.connection, drop).await?)
}

fn name(owner_name: &str) -> String {
    format!("splitctl_definitions_{owner_name}")
}

const GUARD: &str = r"
    begin;
    create or replace function splitctl.{name}()
    returns event_trigger
    language plpgsql
    set search_path = pg_catalog
    as $$
    declare
        command record;
    begin
        if coalesce(current_setting('splitctl.at_work', true), '') = 'yes' then
            return;
        end if;
        for command in
            select c.objid, c.object_identity
            from pg_event_trigger_ddl_commands() c
            where c.command_tag in ('ALTER TABLE', 'CREATE INDEX', 'CREATE TABLE', 'CREATE RULE')
        loop
            if command.objid in ({oids})
                or exists (
                    select from pg_index i
                    where i.indexrelid = command.objid and i.indrelid in ({oids}) and i.indisunique
                )
                or exists (
                    select from pg_inherits i
                    where i.inhrelid = command.objid and i.inhparent in ({oids})
                )
            then
                raise exception '%: it is moving to another database, so its definition cannot change', command.object_identity
                    using errcode = 'object_not_in_prerequisite_state', hint = 'wait for splitctl complete, or splitctl abort';
            end if;
        end loop;
    end $$;
    drop event trigger if exists {name};
    create event trigger {name} on ddl_command_end execute function splitctl.{name}();
    commit";
