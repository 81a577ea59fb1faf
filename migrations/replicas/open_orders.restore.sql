-- View and rule as the migrations `*_crossings*` define them. Keep EVENTS_VIA on until users' consumer has caught up.
-- A test compares both definitions.
create or replace view open_orders as
select
    user_id,
    count(*) as open_count
from orders
where status in ('placed', 'paid', 'shipped')
group by user_id;

create or replace function users_refuse_open_orders() returns trigger
    language plpgsql volatile security definer
    set search_path = pg_catalog, public, pg_temp
as $$
begin
    if exists (
        select
        from public.orders o
        where o.user_id = new.id
          and o.status in ('placed', 'paid', 'shipped')
    ) then
        raise exception 'user % has open orders', new.id
            using errcode = 'RU003', schema = 'public', table = 'users', constraint = 'users_no_open_orders';
    end if;
    return new;
end
$$;
