//! Which objects a database has.

use serde_json::json;
use sqlx::{PgConnection, query, query_scalar};

use super::Object;
use crate::database::execute;

/// For each object, in their order, whether a database has it: three round trips, however many they are.
pub(super) async fn list(connection: &mut PgConnection, objects: &[&Object]) -> Result<Vec<bool>, sqlx::Error> {
    let sought: Vec<_> = objects.iter().map(|object| json!([object.kind, object.names, object.arguments])).collect();
    query("select set_config('splitctl.sought', $1, false)")
        .bind(json!(sought).to_string())
        .execute(&mut *connection)
        .await?;
    execute(connection, FIND).await?;
    query_scalar("select b = '1' from regexp_split_to_table(current_setting('splitctl.found'), '') b where b <> ''")
        .fetch_all(connection)
        .await
}

/// The objects that a database lacks.
pub(super) async fn lacking(connection: &mut PgConnection, objects: Vec<Object>) -> Result<Vec<Object>, sqlx::Error> {
    let found = list(connection, &objects.iter().collect::<Vec<_>>()).await?;
    Ok(objects.into_iter().zip(found).filter(|(_, is_there)| !is_there).map(|(object, _)| object).collect())
}

/// `pg_get_object_address` fails for an object that is not there. A block can go on after that, a query cannot; and a
/// function would be an object of the database.
const FIND: &str = r"
    do $find$
    declare
        object json;
        is_there boolean;
        found text := '';
    begin
        for object in select json_array_elements(current_setting('splitctl.sought')::json) loop
            begin
                is_there := (pg_get_object_address(
                    object ->> 0,
                    array(select json_array_elements_text(object -> 1)),
                    array(select json_array_elements_text(object -> 2))
                )).objid is not null;
            exception when others then
                -- An undefined object, of whatever class, or a class without addresses.
                if left(sqlstate, 2) not in ('42', '3F', '22') then
                    raise;
                end if;
                is_there := false;
            end;
            found := found || is_there::int;
        end loop;
        perform set_config('splitctl.found', found, false);
    end
    $find$";
