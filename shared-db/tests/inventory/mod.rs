//! What is in a database.

use sqlx::PgConnection;

/// Everything a migration can leave, as text: relations, columns, constraints, indexes, functions, triggers, comments,
/// rights.
pub const INVENTORY: &str = "
    select format('%s %s %s', c.relkind, c.relname, c.relacl) from pg_class c where relnamespace = 'public'::regnamespace
    union all
    select format('column %s.%s %s %s %s %s', attrelid::regclass, attname, attnum, atttypid::regtype, attnotnull,
        (select pg_get_expr(adbin, adrelid) from pg_attrdef where adrelid = attrelid and adnum = attnum))
    from pg_attribute a join pg_class c on c.oid = attrelid
    where relnamespace = 'public'::regnamespace and attnum > 0 and not attisdropped
    union all
    select format('constraint %s %s %s', conrelid::regclass, conname, pg_get_constraintdef(oid))
    from pg_constraint where connamespace = 'public'::regnamespace
    union all
    select indexdef from pg_indexes where schemaname = 'public'
    union all
    select format('%s %s', pg_get_functiondef(oid), proacl) from pg_proc where pronamespace = 'public'::regnamespace
    union all
    select pg_get_triggerdef(oid) from pg_trigger where not tgisinternal
    union all
    select format('comment %s.%s %s', objoid::regclass, objsubid, description)
    from pg_description where classoid = 'pg_class'::regclass
        and objoid in (select oid from pg_class where relnamespace = 'public'::regnamespace)
    union all
    select format('comment %s %s', objoid::regprocedure, description)
    from pg_description where classoid = 'pg_proc'::regclass
        and objoid in (select oid from pg_proc where pronamespace = 'public'::regnamespace)
    union all
    select format('schema %s', nspacl) from pg_namespace where nspname = 'public'
    union all
    select format('database %s', datacl) from pg_database where datname = current_database()
    union all
    select format('setting of %s: %s', setrole::regrole, pair)
    from pg_db_role_setting
    cross join lateral unnest(setconfig) pair
    where setdatabase = (select oid from pg_database where datname = current_database())
    order by 1";

/// The only column of a query.
pub async fn strings(connection: &mut PgConnection, query: &'static str) -> Vec<String> {
    sqlx::query_scalar(query).fetch_all(connection).await.expect(query)
}
