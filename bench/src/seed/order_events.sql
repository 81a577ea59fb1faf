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
