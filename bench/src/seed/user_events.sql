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
