insert into orders (id, user_id, status, currency, total_minor, placed_at, updated_at, version)
select
    ('{id_prefix}' || {first} + n)::uuid,
    ('{id_prefix}' || {first} + 1 + n % {users})::uuid,
    'paid',
    'EUR',
    1900,
    timestamptz '2026-01-01' + n * interval '1 second',
    timestamptz '2026-01-01' + n * interval '1 second',
    2
from generate_series({from}, {to}) n;

insert into order_items (order_id, line_no, sku, quantity, unit_price_minor)
select
    ('{id_prefix}' || {first} + n)::uuid,
    line_no,
    (array['tea-0001', 'cup-0002'])[line_no],
    (array[2, 1])[line_no],
    (array[350, 1200])[line_no]
from generate_series({from}, {to}) n
cross join generate_series(1, 2) line_no
order by n, line_no;

insert into order_events (order_id, version, type, data, occurred_at)
select
    ('{id_prefix}' || {first} + n)::uuid,
    v,
    'order.' || (array['placed', 'paid'])[v] || '.v1',
    jsonb_build_object(
        'id', ('{id_prefix}' || {first} + n)::uuid,
        'user_id', ('{id_prefix}' || {first} + 1 + n % {users})::uuid,
        'status', (array['placed', 'paid'])[v],
        'currency', 'EUR',
        'items', jsonb '[
            {"line_no": 1, "sku": "tea-0001", "quantity": 2, "unit_price_minor": 350},
            {"line_no": 2, "sku": "cup-0002", "quantity": 1, "unit_price_minor": 1200}
        ]',
        'total_minor', 1900,
        'placed_at', timestamptz '2026-01-01' + n * interval '1 second',
        'updated_at', timestamptz '2026-01-01' + n * interval '1 second',
        'version', v
    ),
    timestamptz '2026-01-01' + n * interval '1 second'
from generate_series({from}, {to}) n
cross join generate_series(1, 2) v
order by n, v;
