select
    o.id, o.user_id, o.status as "status: Status", o.currency, o.total_minor, o.placed_at, o.updated_at, o.version,
    i.skus as "skus!", i.quantities as "quantities!", i.unit_prices as "unit_prices!",
    c.name as "customer_name?", c.status as "customer_status?", c.version as "customer_version?"
from orders o
cross join lateral (
    select
        coalesce(array_agg(l.sku), '{}') as skus,
        coalesce(array_agg(l.quantity), '{}') as quantities,
        coalesce(array_agg(l.unit_price_minor), '{}') as unit_prices
    from (
        select sku, quantity, unit_price_minor
        from order_items
        where order_id = o.id
        order by line_no
    ) l
) i
left join customers c on c.id = o.user_id and $1::boolean
where o.user_id = $4 and o.id < $2 order by o.id desc limit $3
