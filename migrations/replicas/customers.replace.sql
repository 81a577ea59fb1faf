-- The view and the rule of orders read orders' own replica instead of users' table.
create or replace view customers as
select
    id,
    name,
    status,
    version
from customers_replica;

-- The same rule on the replica. It locks the customer's row, so the consumer that applies a deactivation waits for orders
-- that are being placed, and then finds them.
create or replace function orders_refuse_inactive_user() returns trigger
    language plpgsql volatile security definer
    set search_path = pg_catalog, public, pg_temp
as $$
declare
    user_status text;
begin
    select c.status into user_status
    from public.customers_replica c
    where c.id = new.user_id
    for share;
    if user_status is null then
        raise exception 'user % is not known here yet', new.user_id
            using errcode = 'RU002', schema = 'public', table = 'orders', constraint = 'orders_user_known';
    elsif user_status <> 'active' then
        raise exception 'user % is %', new.user_id, user_status
            using errcode = 'RU001', schema = 'public', table = 'orders', constraint = 'orders_user_active';
    end if;
    return new;
end
$$;
