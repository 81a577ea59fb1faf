with updated as (
    update orders
    set user_id = $2, status = $3, currency = $4, total_minor = $5, placed_at = $6, updated_at = $7, version = $8
    where id = $1
    returning id
)
insert into orders (id, user_id, status, currency, total_minor, placed_at, updated_at, version)
select $1, $2, $3, $4, $5, $6, $7, $8
where not exists (select 1 from updated)
