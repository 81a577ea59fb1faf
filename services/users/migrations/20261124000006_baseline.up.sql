-- The users service's own database: its part of the shared schema as that is with the replicas behind the views, and nothing of
-- orders'. It has the version of the newest shared migration, so the service finds what it was built for in either. A test
-- compares the two; a later migration of users' tables is written for both.
do $$
begin
    -- A role belongs to the cluster: it may exist already, or be made at this very moment, and is left as it is then. No login
    -- yet: an operator gives it one (`alter role users_svc login password '…'`).
    create role users_svc nologin;
exception
    when duplicate_object or unique_violation then null;
end
$$;

grant usage on schema public to users_svc;

-- The service asks at its start whether the schema it needs has been applied.
grant select on _sqlx_migrations to users_svc;

-- Events are read in the order (epoch, xid, position). Transaction ids mean nothing in another cluster, so the epoch is raised
-- above every stored one when the log moves here.
create function user_event_epoch() returns bigint
    language sql stable parallel safe
    as 'select 1::bigint';
comment on function user_event_epoch() is
    'The epoch that new events of users get. Raise it (create or replace) above every stored epoch after a restore to another cluster.';

create table users (
    id uuid not null,
    email text not null,
    name text not null,
    status text not null,
    created_at timestamptz not null,
    updated_at timestamptz not null,
    version bigint not null,
    constraint users_pkey primary key (id),
    constraint users_email_length check (char_length(email) between 1 and 254),
    constraint users_name_length check (char_length(name) between 1 and 200),
    constraint users_status_known check (status in ('active', 'deactivated')),
    constraint users_version_positive check (version >= 1)
);
-- "C": ASCII letters only, the same in every cluster and locale; an email address has no others.
create unique index users_email_key on users (lower(email collate "C"));

comment on table users is 'People who place orders. Owner: users.';
comment on column users.id is 'UUIDv7 made by the service: newest last.';
comment on column users.email is 'As typed, trimmed; unique without regard to case.';
comment on column users.name is 'How the person wants to be called, 1 to 200 characters.';
comment on column users.status is 'active or deactivated; users are never deleted.';
comment on column users.created_at is 'When the user was registered.';
comment on column users.updated_at is 'When the newest event of this user occurred.';
comment on column users.version is 'Number of this user''s events; the entity tag.';

create table user_events (
    user_id uuid not null,
    version bigint not null,
    type text not null,
    data jsonb not null,
    occurred_at timestamptz not null,
    epoch bigint not null default user_event_epoch(),
    xid xid8 not null default pg_current_xact_id(),
    position bigint not null generated always as identity,
    constraint user_events_pkey primary key (user_id, version),
    constraint user_events_version_positive check (version >= 1)
);
create unique index user_events_feed on user_events (epoch, xid, position);

comment on table user_events is 'Append-only log of users: history, event store and outbox. Owner: users.';
comment on column user_events.user_id is 'The user the event is about.';
comment on column user_events.version is 'The user''s version after the event: 1, 2, 3 …';
comment on column user_events.type is 'CloudEvents type, such as user.registered.v1.';
comment on column user_events.data is 'The user after the event, as published.';
comment on column user_events.occurred_at is 'When it happened, by the service''s clock; never earlier than the event before it.';
comment on column user_events.epoch is 'Life of the log: first part of the feed''s order.';
comment on column user_events.xid is 'Transaction that appended the event: second part of the feed''s order.';
comment on column user_events.position is 'Third part of the feed''s order.';

-- What users keeps of the orders, and how far it has read.
create table open_orders_replica (
    order_id uuid not null,
    user_id uuid not null,
    is_open boolean not null,
    version bigint not null,
    refreshed_at timestamptz not null default clock_timestamp(),
    constraint open_orders_replica_pkey primary key (order_id)
);
create index open_orders_replica_open on open_orders_replica (user_id) where is_open;
comment on table open_orders_replica is 'What users has read of orders, from their events; a row for each order, so that repeats are harmless. Owner: users.';
comment on column open_orders_replica.order_id is 'The order''s id.';
comment on column open_orders_replica.user_id is 'Who placed it.';
comment on column open_orders_replica.is_open is 'Whether it is placed, paid or shipped.';
comment on column open_orders_replica.version is 'The order''s version; an older event changes nothing.';
comment on column open_orders_replica.refreshed_at is 'When the row was last written.';

create table users_cursors (
    log text not null,
    cursor text not null,
    stored_at timestamptz not null default clock_timestamp(),
    constraint users_cursors_pkey primary key (log)
);
comment on table users_cursors is 'How far users has read: orders'' feed, and its own log on the way to the broker. Owner: users.';
comment on column users_cursors.log is 'What is read, and for what.';
comment on column users_cursors.cursor is 'Where to go on: opaque to all but the log''s owner.';
comment on column users_cursors.stored_at is 'When it last went on.';

create table users_parked_events (
    id text not null,
    type text not null,
    data text not null,
    error text not null,
    parked_at timestamptz not null default clock_timestamp(),
    constraint users_parked_events_pkey primary key (id)
);
comment on table users_parked_events is 'Events of orders that users could not apply: `users replica retry` tries them again. Owner: users.';
comment on column users_parked_events.id is 'The CloudEvent''s id.';
comment on column users_parked_events.type is 'The CloudEvent''s type.';
comment on column users_parked_events.data is 'The CloudEvent''s data, as it came.';
comment on column users_parked_events.error is 'Why it could not be applied.';
comment on column users_parked_events.parked_at is 'When that was.';

create view open_orders as
select
    user_id,
    count(*) as open_count
from open_orders_replica
where is_open
group by user_id;
comment on view open_orders is 'Published by orders for users: who has open orders, and how many.';
comment on column open_orders.user_id is 'The user''s id.';
comment on column open_orders.open_count is 'Orders that are placed, paid or shipped.';

-- A user with open orders, as far as users has heard of them, is not deactivated.
create function users_refuse_open_orders() returns trigger
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
revoke execute on function users_refuse_open_orders() from public;

grant select, insert, update on users to users_svc;
grant select, insert on user_events to users_svc;
-- delete: a parked event goes once it is applied.
grant select, insert, update, delete on users_parked_events to users_svc;
grant select, insert, update on open_orders_replica, users_cursors to users_svc;
grant select on open_orders to users_svc;
