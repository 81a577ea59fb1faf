-- Three orders of five belong to regular customers, spread over the whole table. The statuses are equally frequent.
insert into orders (id, user_id, status, currency, total_minor, placed_at, updated_at, version)
select
    o.id,
    ('{id_prefix}' || {first} + o.customer)::uuid,
    (array['placed', 'paid', 'shipped', 'delivered', 'cancelled'])[s.status],
    'EUR',
    i.total_minor,
    o.placed_at,
    o.placed_at + (s.version - 1) * interval '1 hour',
    s.version
from (
    select
        ('{id_prefix}' || {first} + n)::uuid as id,
        case when n % 5 < 3 then 1 + (n / 5 * 3 + n % 5) % {regulars}
            else {regulars} + 1 + (n / 5 * 2 + n % 5 - 3) % ({users} - {regulars})
        end as customer,
        1 + n / 5 % 5 as status,
        timestamptz '2026-04-01 00:00:00.123456' + n * interval '20 seconds' as placed_at
    from generate_series(1, {orders}) n
) o
cross join lateral (
    -- A deactivated user has no open order.
    select case when o.customer > {active_users} then 4 else o.status end as status
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
