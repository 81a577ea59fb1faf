insert into customers_replica as known (id, name, status, version, refreshed_at)
select id, name, status, version, $5::timestamptz
from unnest($1::uuid[], $2::text[], $3::text[], $4::bigint[]) as news (id, name, status, version)
on conflict (id) do update
set name = excluded.name, status = excluded.status, version = excluded.version,
    refreshed_at = greatest(known.refreshed_at, excluded.refreshed_at)
where excluded.version >= known.version
    or known.refreshed_at < excluded.refreshed_at
