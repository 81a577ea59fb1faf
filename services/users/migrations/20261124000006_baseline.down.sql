drop view open_orders;
drop table users_parked_events;
drop table users_cursors;
drop table open_orders_replica;
drop table user_events;
drop table users;
drop function users_refuse_open_orders();
drop function user_event_epoch();
revoke all on _sqlx_migrations from users_svc;
revoke all on schema public from users_svc;

-- Dropped only if no database of the cluster uses it and we may: otherwise it stays.
do $$
begin
    drop role if exists users_svc;
exception
    -- Used elsewhere; not ours to drop; dropped by another database's revert at this very moment.
    when dependent_objects_still_exist or insufficient_privilege or internal_error then null;
end
$$;
