//! Fills a new database by SQL, since the services would need an hour.

use std::time::Instant;

use anyhow::{Context, Result};
use dev::postgres::{Cluster, ORDERS_ROLE, USERS_ROLE, allow_login, connect, create_database};
use shared_db::MIGRATOR;
use sqlx::{AssertSqlSafe, Executor};

use crate::jobs::{ACTIVE_USERS, FIRST, ID_PREFIX, ORDERS, REGULARS, USERS};

pub const DATABASE: &str = "bench";

/// Creates the database, its schema and its rows, and lets the services' roles log in.
pub async fn seed(cluster: &Cluster) -> Result<()> {
    create_database(&mut connect(&cluster.url("postgres")).await?, DATABASE).await?;
    let mut owner = connect(&cluster.url(DATABASE)).await?;
    MIGRATOR.run(&mut owner).await.context("the migrations cannot be applied")?;
    for role in [USERS_ROLE, ORDERS_ROLE] {
        allow_login(&mut owner, role, cluster.password()).await?;
    }
    // Switches off triggers and foreign keys: these statements make valid rows.
    owner.execute("set session_replication_role = replica; set timezone = 'UTC'").await?;
    for (what, statement) in steps() {
        let started = Instant::now();
        owner.execute(AssertSqlSafe(statement)).await.with_context(|| format!("seeding, {what}"))?;
        eprintln!("seeding: {what} ({:.1} s)", started.elapsed().as_secs_f64());
    }
    Ok(())
}

fn steps() -> [(&'static str, String); 8] {
    [
        ("users", users()),
        ("their events", USER_EVENTS.to_owned()),
        ("items", items()),
        ("orders", orders()),
        ("their events", ORDER_EVENTS.to_owned()),
        ("vacuum, analyze", "vacuum analyze".to_owned()),
        ("checkpoint", "checkpoint".to_owned()),
        ("the cache", CACHE.to_owned()),
    ]
}

fn users() -> String {
    format!(
        r#"
        insert into users (id, email, name, status, created_at, updated_at, version)
        select
            ('{ID_PREFIX}' || {FIRST} + n)::uuid,
            'customer-' || n || '@example.org',
            'Customer Number ' || n,
            case when n <= {ACTIVE_USERS} then 'active' else 'deactivated' end,
            timestamptz '2026-01-01 00:00:00.123456' + n * interval '1 minute',
            timestamptz '2026-01-01 00:00:00.123456' + n * interval '1 minute',
            case when n <= {ACTIVE_USERS} then 1 else 2 end
        from generate_series(1, {USERS}) n
        "#
    )
}

const USER_EVENTS: &str = r#"
    insert into user_events (user_id, version, type, data, occurred_at)
    select
        u.id,
        v,
        (array['user.registered.v1', 'user.deactivated.v1'])[v],
        jsonb_build_object(
            'id', u.id, 'email', u.email, 'name', u.name, 'status', (array['active', 'deactivated'])[v],
            'created_at', u.created_at, 'updated_at', u.updated_at, 'version', v
        ),
        u.updated_at
    from users u
    cross join generate_series(1, u.version) v
    order by u.id, v
"#;

fn items() -> String {
    format!(
        r#"
        insert into order_items (order_id, line_no, sku, quantity, unit_price_minor)
        select
            ('{ID_PREFIX}' || {FIRST} + n)::uuid,
            line_no,
            'sku-' || (n * 7 + line_no * 13) % 1000,
            1 + (n + line_no) % 5,
            100 + (n * 31 + line_no * 17) % 9900
        from generate_series(1, {ORDERS}) n
        cross join generate_series(1, 1 + n % 3) line_no
        order by n, line_no
        "#
    )
}

/// Three orders of five belong to regular customers, spread over the whole table; the statuses are equally frequent.
fn orders() -> String {
    format!(
        r#"
        insert into orders (id, user_id, status, currency, total_minor, placed_at, updated_at, version)
        select
            o.id,
            ('{ID_PREFIX}' || {FIRST} + o.customer)::uuid,
            (array['placed', 'paid', 'shipped', 'delivered', 'cancelled'])[s.status],
            'EUR',
            i.total_minor,
            o.placed_at,
            o.placed_at + (s.version - 1) * interval '1 hour',
            s.version
        from (
            select
                ('{ID_PREFIX}' || {FIRST} + n)::uuid as id,
                case when n % 5 < 3 then 1 + (n / 5 * 3 + n % 5) % {REGULARS}
                    else {REGULARS} + 1 + (n / 5 * 2 + n % 5 - 3) % ({USERS} - {REGULARS})
                end as customer,
                1 + n / 5 % 5 as status,
                timestamptz '2026-04-01 00:00:00.123456' + n * interval '20 seconds' as placed_at
            from generate_series(1, {ORDERS}) n
        ) o
        cross join lateral (
            -- A deactivated user has no open order.
            select case when o.customer > {ACTIVE_USERS} then 4 else o.status end as status
        ) possible
        cross join lateral (
            select possible.status, (array[1, 2, 3, 4, 2])[possible.status] as version
        ) s
        join (
            select order_id, sum(quantity * unit_price_minor)::bigint as total_minor
            from order_items
            group by order_id
        ) i on i.order_id = o.id
        order by o.id
        "#
    )
}

const ORDER_EVENTS: &str = r#"
    insert into order_events (order_id, version, type, data, occurred_at)
    select
        o.id,
        v,
        'order.' || s.status || '.v1',
        jsonb_build_object(
            'id', o.id, 'user_id', o.user_id, 'status', s.status, 'currency', o.currency, 'items', i.items,
            'total_minor', o.total_minor, 'placed_at', o.placed_at, 'updated_at', s.occurred_at, 'version', v
        ),
        s.occurred_at
    from orders o
    join (
        select
            order_id,
            jsonb_agg(
                jsonb_build_object(
                    'line_no', line_no, 'sku', sku, 'quantity', quantity, 'unit_price_minor', unit_price_minor
                )
                order by line_no
            ) as items
        from order_items
        group by order_id
    ) i on i.order_id = o.id
    cross join generate_series(1, o.version) v
    cross join lateral (
        select
            case when v = o.version then o.status else (array['placed', 'paid', 'shipped'])[v] end as status,
            o.placed_at + (v - 1) * interval '1 hour' as occurred_at
    ) s
    order by o.id, v
"#;

/// Loads the rows that the jobs read: the events, written last, have displaced them in the cache.
const CACHE: &str = r#"
    set enable_hashjoin = off;
    set enable_mergejoin = off;
    set enable_seqscan = off;
    select count(u.name), count(i.sku), count(o.status)
    from users u
    join orders o on o.user_id = u.id
    join order_items i on i.order_id = o.id
"#;
