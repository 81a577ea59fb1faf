-- Events are read in the order (epoch, xid, position). Transaction ids mean nothing in another cluster, so the epoch is
-- raised above every stored one whenever a log starts a life elsewhere: at a cutover, a rollback or a restore.
-- A function with the number in its body costs nothing at insert, and replacing it is one statement.
create function event_epoch() returns bigint
    language sql stable parallel safe
    as 'select 1::bigint';
comment on function event_epoch() is
    'The epoch that new events get. Raise it (create or replace) above every stored epoch after a restore to another cluster.';
