-- One epoch for both logs again: the greater of the two is above every stored one of either.
do $$
begin
    execute format(
        'create function event_epoch() returns bigint language sql stable parallel safe as %L',
        format('select %s::bigint', greatest(user_event_epoch(), order_event_epoch())));
end
$$;
comment on function event_epoch() is
    'The epoch that new events get. Raise it (create or replace) above every stored epoch after a restore to another cluster.';

alter table user_events alter column epoch set default event_epoch();
alter table order_events alter column epoch set default event_epoch();
drop function user_event_epoch();
drop function order_event_epoch();
