with placed as (
    insert into orders (
        id, user_id, status, currency, total_minor, placed_at, updated_at, version,
        idempotency_key, idempotency_hash
    )
    select $1, $2, $3, $4, $5, $6, $7, $8, $9, $10
    where not exists (select 1 from orders where idempotency_key = $9)
    on conflict (idempotency_key) where idempotency_key is not null do nothing
    returning id, user_id, version, updated_at
),
items as (
    insert into order_items (order_id, line_no, sku, quantity, unit_price_minor)
    select p.id, i.line_no, i.sku, i.quantity, i.unit_price_minor
    from placed p
    cross join unnest($11::text[], $12::integer[], $13::bigint[])
        with ordinality as i (sku, quantity, unit_price_minor, line_no)
),
event as (
    insert into order_events (order_id, version, type, data, occurred_at, actor, traceparent)
    select id, version, $14, $15, updated_at, $17, $18
    from placed
    returning epoch, xid, position
)
select
    c.name as "name?", c.status as "status?", c.version as "version?",
    e.epoch as "epoch!", e.xid::text::bigint as "xid!", e.position as "position!"
from placed p
cross join event e
left join customers c on c.id = p.user_id and $16::boolean
