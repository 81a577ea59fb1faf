-- The journal in the source. `contract/switches.sql` creates the schema and the versions before.

create table if not exists splitctl.journal (
    id bigint generated always as identity,
    move integer not null,
    owner text not null,
    step text not null,
    event text not null check (event in ('intent', 'record')),
    detail jsonb not null,
    at timestamptz not null default clock_timestamp(),
    by_role text not null default session_user,
    constraint journal_pkey primary key (id)
);
comment on table splitctl.journal is 'What splitctl was about to do (intent) and has done (record). Append-only.';
-- Version 2: the intents of a switch hold the rights that it gives. Version 3: there are migrations.
insert into splitctl.versions as known (format, version, release)
values ('journal', 3, '0.1.0')
on conflict (format) do update
set version = excluded.version, release = excluded.release
where known.version < excluded.version;
