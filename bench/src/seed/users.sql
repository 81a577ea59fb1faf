insert into users (id, email, name, status, created_at, updated_at, version)
select
    ('{id_prefix}' || {first} + n)::uuid,
    'customer-' || n || '@example.org',
    'Customer Number ' || n,
    case when n <= {active_users} then 'active' else 'deactivated' end,
    timestamptz '2026-01-01 00:00:00.123456' + n * interval '1 minute',
    timestamptz '2026-01-01 00:00:00.123456' + n * interval '1 minute',
    case when n <= {active_users} then 1 else 2 end
from generate_series(1, {users}) n
