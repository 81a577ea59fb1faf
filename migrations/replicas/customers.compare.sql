-- What users publishes beside what orders has read of it: one row for each user, `difference` null where both agree.
-- $1 limits the comparison to these ids; null compares all. `orders replica rebuild` fills a replica that stays different.
select
    coalesce(p.id, r.id)::text as key,
    case
        when r.id is null then 'missing'
        when p.id is null then 'extra'
        when (p.version, p.name, p.status) is distinct from (r.version, r.name, r.status) then 'different'
    end as difference,
    p.version as published_version,
    r.version as replica_version
from (
    select id, name, status, version
    from users
    where $1::text[] is null or id = any ($1::text[]::uuid[])
) p
full join (
    select id, name, status, version
    from customers_replica
    where $1::text[] is null or id = any ($1::text[]::uuid[])
) r on r.id = p.id
