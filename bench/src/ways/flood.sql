-- Changes the first {n} users, each with its event.
with changed as (
    update users
    set name = 'Changed ' || version,
        version = version + 1,
        updated_at = clock_timestamp()
    where id <= ('{id_prefix}' || {first} + {n})::uuid
    returning id, email, name, status, created_at, updated_at, version
)
insert into user_events (user_id, version, type, data, occurred_at)
select
    id,
    version,
    'user.changed.v1',
    jsonb_build_object(
        'id', id, 'email', email, 'name', name, 'status', status,
        'created_at', created_at, 'updated_at', updated_at, 'version', version
    ),
    updated_at
from changed
