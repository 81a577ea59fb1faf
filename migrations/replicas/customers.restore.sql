-- View and rule as the migrations `*_crossings*` define them. Keep EVENTS_VIA on until orders' consumer has caught up.
-- A test compares both definitions.
create or replace view customers as
select
    id,
    name,
    status,
    version
from users;

create or replace function orders_refuse_inactive_user() returns trigger
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
            using errcode = 'RU001', schema = 'public', table = 'orders', constraint = 'orders_user_active';
    end if;
    return new;
end
$$;
