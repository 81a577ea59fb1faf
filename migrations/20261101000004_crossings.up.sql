-- Everything that crosses the line between the two owners stands in this file and nowhere else.
-- The split is finished when each of these five objects has been replaced.

-- 1. users publishes its customers. A view works with its owner's rights, so orders_svc needs none on users.
create view customers as
select
    id,
    name,
    status,
    version
from users;
comment on view customers is 'Published by users for orders: who may order, and under which name.';
comment on column customers.id is 'The user''s id.';
comment on column customers.name is 'The user''s name.';
comment on column customers.status is 'active or deactivated.';
comment on column customers.version is 'The user''s version.';
grant select on customers to orders_svc;

-- 2. orders publishes how many open orders a user has. Users without any have no row.
create view open_orders as
select
    user_id,
    count(*) as open_count
from orders
where status in ('placed', 'paid', 'shipped')
group by user_id;
comment on view open_orders is 'Published by orders for users: who has open orders, and how many.';
comment on column open_orders.user_id is 'The user''s id.';
comment on column open_orders.open_count is 'Orders that are placed, paid or shipped.';
grant select on open_orders to users_svc;

-- 3. An order belongs to a user that exists.
alter table orders
    add constraint orders_user_id_fkey foreign key (user_id) references users (id);

-- 4. and 5. An order is placed for an active user only, and a user with open orders is not deactivated. Each side locks
-- the user's row before it looks, so of two at once one waits and then sees what the other committed. The functions are
-- volatile for that: each of their queries takes a fresh snapshot after the wait, which a check inside the updating
-- statement would not.
create function orders_refuse_inactive_user() returns trigger
    language plpgsql volatile security definer
    set search_path = pg_catalog, public, pg_temp
as $$
declare
    user_status text;
begin
    select u.status into user_status
    from public.users u
    where u.id = new.user_id
    for share;
    -- A user that does not exist is the foreign key's to refuse.
    if user_status <> 'active' then
        raise exception 'user % is %', new.user_id, user_status
            using errcode = 'check_violation', schema = 'public', table = 'orders', constraint = 'orders_user_active';
    end if;
    return new;
end
$$;
comment on function orders_refuse_inactive_user() is 'Refuses an order for a user who is not active (orders_user_active).';
create trigger orders_user_active
    before insert on orders
    for each row
    -- An order that is over concerns its user no more: `orders rebuild` may put one back.
    when (new.status in ('placed', 'paid', 'shipped'))
    execute function orders_refuse_inactive_user();

create function users_refuse_open_orders() returns trigger
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
            using errcode = 'check_violation', schema = 'public', table = 'users', constraint = 'users_no_open_orders';
    end if;
    return new;
end
$$;
comment on function users_refuse_open_orders() is 'Refuses to deactivate a user with open orders (users_no_open_orders).';
create trigger users_no_open_orders
    before update of status on users
    for each row
    when (old.status = 'active' and new.status <> 'active')
    execute function users_refuse_open_orders();

revoke execute on function orders_refuse_inactive_user(), users_refuse_open_orders() from public;
