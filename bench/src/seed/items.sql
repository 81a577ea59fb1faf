insert into order_items (order_id, line_no, sku, quantity, unit_price_minor)
select
    ('{id_prefix}' || {first} + n)::uuid,
    line_no,
    'sku-' || (n * 7 + line_no * 13) % 1000,
    1 + (n + line_no) % 5,
    100 + (n * 31 + line_no * 17) % 9900
from generate_series(1, {orders}) n
cross join generate_series(1, 1 + n % 3) line_no
order by n, line_no
