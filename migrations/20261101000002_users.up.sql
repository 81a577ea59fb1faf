-- What the users service owns.
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
    epoch bigint not null default event_epoch(),
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

grant select, insert, update on users to users_svc;
grant select, insert on user_events to users_svc;
