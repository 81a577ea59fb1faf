-- An epoch for each log, as a step towards a database for each service. At a rollback the epoch of the log that moves back is
-- raised while the other service goes on writing: with one function for both, what the other has in flight with the older
-- epoch would be shown past the horizon, and a reader that had gone past it would miss it for ever.
-- Both go on from the epoch of before.
do $$
begin
    execute format(
        'create function user_event_epoch() returns bigint language sql stable parallel safe as %L',
        format('select %s::bigint', event_epoch()));
    execute format(
        'create function order_event_epoch() returns bigint language sql stable parallel safe as %L',
        format('select %s::bigint', event_epoch()));
end
$$;
comment on function user_event_epoch() is
    'The epoch that new events of users get. Raise it (create or replace) above every stored epoch after a restore to another cluster.';
comment on function order_event_epoch() is
    'The epoch that new events of orders get. Raise it (create or replace) above every stored epoch after a restore to another cluster.';

alter table user_events alter column epoch set default user_event_epoch();
alter table order_events alter column epoch set default order_event_epoch();
drop function event_epoch();
