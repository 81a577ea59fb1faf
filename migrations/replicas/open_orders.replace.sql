-- The view and the rule of users read users' own replica instead of orders' table.
create or replace view open_orders as
select
    user_id,
    count(*) as open_count
from open_orders_replica
where is_open
group by user_id;

create or replace function users_refuse_open_orders() returns trigger
    language plpgsql volatile security definer
    set search_path = pg_catalog, public, pg_temp
as $$
begin
    if exists (
        select
        from public.open_orders_replica o
        where o.user_id = new.id
          and o.is_open
    ) then
        raise exception 'user % has open orders', new.id
            using errcode = 'RU003', schema = 'public', table = 'users', constraint = 'users_no_open_orders';
    end if;
    return new;
end
$$;
