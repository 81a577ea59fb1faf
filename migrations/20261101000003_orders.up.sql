-- What the orders service owns.
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
    epoch bigint not null default event_epoch(),
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

grant select, insert, update on orders to orders_svc;
-- delete: `orders rebuild` replaces lines that differ from the log.
grant select, insert, delete on order_items to orders_svc;
grant select, insert on order_events to orders_svc;
