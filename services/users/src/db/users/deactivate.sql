with open as (
    select open_count
    from open_orders
    where user_id = $1
),
changed as (
    update users
    set status = $2, updated_at = $3, version = $4
    where id = $1
      and version = $4::bigint - 1
      and not exists (select from open)
    returning id, version, updated_at
),
event as (
    insert into user_events (user_id, version, type, data, occurred_at)
    select id, version, $5, $6, updated_at
    from changed
)
select
    exists (select from changed) as "done!",
    exists (select from open) as "open!"
