drop view customers;
drop table orders_parked_events;
drop table orders_cursors;
drop table customers_replica;
drop table order_events;
drop table order_items;
drop table orders;
drop function orders_refuse_inactive_user();
drop function order_event_epoch();
revoke all on _sqlx_migrations from orders_svc;
revoke all on schema public from orders_svc;

-- Dropped only if no database of the cluster uses it and we may: otherwise it stays.
do $$
begin
    drop role if exists orders_svc;
exception
    -- Used elsewhere; not ours to drop; dropped by another database's revert at this very moment.
    when dependent_objects_still_exist or insufficient_privilege or internal_error then null;
end
$$;
