-- The orders service's own database: its part of the shared schema as that is with the replicas behind the views, and nothing of
-- users'. It has the version of the newest shared migration, so the service finds what it was built for in either. A test
-- compares the two; a later migration of orders' tables is written for both.
do $$
begin
    -- A role belongs to the cluster: it may exist already, or be made at this very moment, and is left as it is then. No login
    -- yet: an operator gives it one (`alter role orders_svc login password '…'`).
    create role orders_svc nologin;
exception
    when duplicate_object or unique_violation then null;
end
$$;

grant usage on schema public to orders_svc;

-- The service asks at its start whether the schema it needs has been applied.
grant select on _sqlx_migrations to orders_svc;

-- Events are read in the order (epoch, xid, position). Transaction ids mean nothing in another cluster, so the epoch is raised
-- above every stored one when the log moves here.
create function order_event_epoch() returns bigint
    language sql stable parallel safe
    as 'select 1::bigint';
comment on function order_event_epoch() is
    'The epoch that new events of orders get. Raise it (create or replace) above every stored epoch after a restore to another cluster.';

create table orders (
    id uuid not null,
    user_id uuid not null,
    status text not null,
    currency text not null,
    total_minor bigint not null,
    placed_at timestamptz not null,
    updated_at timestamptz not null,
    version bigint not null,
    idempotency_key text,
    idempotency_hash bytea,
    constraint orders_pkey primary key (id),
    constraint orders_status_known check (status in ('placed', 'paid', 'shipped', 'delivered', 'cancelled')),
    constraint orders_currency_shape check (currency ~ '^[A-Z]{3}$'),
    constraint orders_total_not_negative check (total_minor >= 0),
    constraint orders_version_positive check (version >= 1),
    constraint orders_idempotency_complete check ((idempotency_key is null) = (idempotency_hash is null))
);
create unique index orders_idempotency_key on orders (idempotency_key) where idempotency_key is not null;
-- Pages of one user's orders and of one status, newest first.
create index orders_user_id_id on orders (user_id, id);
create index orders_status_id on orders (status, id);
create index orders_user_id_open on orders (user_id) where status in ('placed', 'paid', 'shipped');

comment on table orders is 'Orders as they are now: the fold of order_events. Owner: orders.';
comment on column orders.id is 'UUIDv7 made by the service: newest last.';
comment on column orders.user_id is 'Who placed it.';
comment on column orders.status is 'placed, paid, shipped, delivered or cancelled; the first three are open.';
comment on column orders.currency is 'ISO 4217 code of every amount of the order.';
comment on column orders.total_minor is 'Sum of quantity × unit price, in minor units of the currency.';
comment on column orders.placed_at is 'When the order was placed.';
comment on column orders.updated_at is 'When the newest event of this order occurred.';
comment on column orders.version is 'Number of this order''s events; the entity tag.';
comment on column orders.idempotency_key is 'The Idempotency-Key the order was placed with, if any.';
comment on column orders.idempotency_hash is 'SHA-256 of the request behind that key.';

create table order_items (
    order_id uuid not null,
    line_no integer not null,
    sku text not null,
    quantity integer not null,
    unit_price_minor bigint not null,
    constraint order_items_pkey primary key (order_id, line_no),
    constraint order_items_order_id_fkey foreign key (order_id) references orders (id),
    constraint order_items_line_no_range check (line_no between 1 and 100),
    constraint order_items_sku_length check (char_length(sku) between 1 and 64),
    constraint order_items_quantity_range check (quantity between 1 and 10000),
    constraint order_items_unit_price_range check (unit_price_minor between 0 and 1000000000)
);

comment on table order_items is 'What was ordered; fixed when the order is placed. Owner: orders.';
comment on column order_items.order_id is 'The order the line belongs to.';
comment on column order_items.line_no is '1, 2, 3 … in the order the client gave.';
comment on column order_items.sku is 'Stock keeping unit, 1 to 64 characters.';
comment on column order_items.quantity is '1 to 10000.';
comment on column order_items.unit_price_minor is 'Price of one, in minor units of the order''s currency.';

-- No foreign key to orders: the log is the truth that the orders rows are made from, not the other way round.
create table order_events (
    order_id uuid not null,
    version bigint not null,
    type text not null,
    data jsonb not null,
    occurred_at timestamptz not null,
    epoch bigint not null default order_event_epoch(),
    xid xid8 not null default pg_current_xact_id(),
    position bigint not null generated always as identity,
    constraint order_events_pkey primary key (order_id, version),
    constraint order_events_version_positive check (version >= 1)
);
create unique index order_events_feed on order_events (epoch, xid, position);

comment on table order_events is 'Append-only log of orders: history, event store and outbox. Owner: orders.';
comment on column order_events.order_id is 'The order the event is about.';
comment on column order_events.version is 'The order''s version after the event: 1, 2, 3 …';
comment on column order_events.type is 'CloudEvents type, such as order.placed.v1.';
comment on column order_events.data is 'The order after the event, as published.';
comment on column order_events.occurred_at is 'When it happened, by the service''s clock; never earlier than the event before it.';
comment on column order_events.epoch is 'Life of the log: first part of the feed''s order.';
comment on column order_events.xid is 'Transaction that appended the event: second part of the feed''s order.';
comment on column order_events.position is 'Third part of the feed''s order.';

-- What orders keeps of the users, and how far it has read.
create table customers_replica (
    id uuid not null,
    name text not null,
    status text not null,
    version bigint not null,
    refreshed_at timestamptz not null default clock_timestamp(),
    constraint customers_replica_pkey primary key (id)
);
comment on table customers_replica is 'What orders has read of users, from their events. Owner: orders.';
comment on column customers_replica.id is 'The user''s id.';
comment on column customers_replica.name is 'The user''s name.';
comment on column customers_replica.status is 'active or deactivated.';
comment on column customers_replica.version is 'The user''s version; an older event changes nothing.';
comment on column customers_replica.refreshed_at is 'When the row was last written.';

create table orders_cursors (
    log text not null,
    cursor text not null,
    stored_at timestamptz not null default clock_timestamp(),
    constraint orders_cursors_pkey primary key (log)
);
comment on table orders_cursors is 'How far orders has read: users'' feed, and its own log on the way to the broker. Owner: orders.';
comment on column orders_cursors.log is 'What is read, and for what.';
comment on column orders_cursors.cursor is 'Where to go on: opaque to all but the log''s owner.';
comment on column orders_cursors.stored_at is 'When it last went on.';

create table orders_parked_events (
    id text not null,
    type text not null,
    data text not null,
    error text not null,
    parked_at timestamptz not null default clock_timestamp(),
    constraint orders_parked_events_pkey primary key (id)
);
comment on table orders_parked_events is 'Events of users that orders could not apply: `orders replica retry` tries them again. Owner: orders.';
comment on column orders_parked_events.id is 'The CloudEvent''s id.';
comment on column orders_parked_events.type is 'The CloudEvent''s type.';
comment on column orders_parked_events.data is 'The CloudEvent''s data, as it came.';
comment on column orders_parked_events.error is 'Why it could not be applied.';
comment on column orders_parked_events.parked_at is 'When that was.';

create view customers as
select
    id,
    name,
    status,
    version
from customers_replica;
comment on view customers is 'Published by users for orders: who may order, and under which name.';
comment on column customers.id is 'The user''s id.';
comment on column customers.name is 'The user''s name.';
comment on column customers.status is 'active or deactivated.';
comment on column customers.version is 'The user''s version.';

-- An order is placed for an active customer only. The rule holds the customer's row, so that whoever brings the news of a
-- deactivation waits for orders being placed, and then finds them.
create function orders_refuse_inactive_user() returns trigger
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
            using errcode = 'check_violation', schema = 'public', table = 'orders', constraint = 'orders_user_known';
    elsif user_status <> 'active' then
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
revoke execute on function orders_refuse_inactive_user() from public;

grant select, insert, update on orders to orders_svc;
-- delete: `orders rebuild` replaces lines that differ from the log.
grant select, insert, delete on order_items to orders_svc;
grant select, insert on order_events to orders_svc;
-- delete: a rebuild forgets customers that users does not have; a parked event goes once it is applied.
grant select, insert, update, delete on customers_replica, orders_parked_events to orders_svc;
grant select, insert, update on orders_cursors to orders_svc;
grant select on customers to orders_svc;
