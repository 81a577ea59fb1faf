-- What each service keeps of the other's data, and how far it has read. Nothing here crosses: each table has one owner.

-- The tables below take the place of the views' present sources when an operator says so (`cargo xtask replica use`).
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

-- delete: a rebuild forgets customers that users does not have; a parked event goes once it is applied.
grant select, insert, update, delete on customers_replica, orders_parked_events to orders_svc;
grant select, insert, update, delete on users_parked_events to users_svc;
grant select, insert, update on orders_cursors to orders_svc;
grant select, insert, update on open_orders_replica, users_cursors to users_svc;
