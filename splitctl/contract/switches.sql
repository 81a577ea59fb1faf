-- The contract between splitctl and a service whose tables move. It has two parts: this table, and SQLSTATE 42501. A third
-- one is up to the service: its report.
--
-- splitctl moves the tables of an owner between two databases: the source, which is the shared one, and the target, which
-- is the owner's own. Each switch from one side to the other is one commit in the database that the tables leave. That
-- commit revokes the rights of the owner's role on the tables, and inserts one row into splitctl.switches.
--
-- What a service does:
--   1. At its start it reads its newest row on both sides: the highest generation of both. The tables live on that row's
--      side; without any row they live in the source.
--   2. When a statement fails with SQLSTATE 42501, the statement has changed nothing. The service reads its newest row in
--      the database that refused. If the generation is higher than the one it knows, it runs the statement on that side.
--      If not, the role lacks a right for another reason, and the error stands.
--   3. A service that was idle for a second reads its newest row again before its next statement. splitctl leaves three
--      seconds between two switches, so no service can miss one.
--   4. It may report how long its requests waited, and `splitctl cutover` prints that. In the database that it has turned
--      to, each process runs `select pg_notify('splitctl_waits', ...)` twice, with a JSON object. Within 200 ms:
--      {"owner": "orders", "generation": 3}. And within 3 s, about its requests that were under way when it turned:
--      {"owner": "orders", "generation": 3, "requests": 17, "longest_ms": 34.2}
--
-- splitctl runs this file on both sides before a copy, then grants the owner's role usage on the schema and select on
-- splitctl.switches. Running it again changes nothing.

create schema if not exists splitctl;

create table if not exists splitctl.switches (
    -- The owner, as the manifest names it.
    owner text not null,
    -- Grows by one with each switch of this owner. The highest over both databases counts.
    generation bigint not null,
    -- Where the tables live from this switch on.
    side text not null check (side in ('source', 'target')),
    at timestamptz not null default clock_timestamp(),
    -- For splitctl alone: where the stream to the other side begins in the WAL of this side.
    way_back pg_lsn,
    constraint switches_pkey primary key (owner, generation)
);
comment on table splitctl.switches is
    'Where an owner''s tables live after each switch. The commit that closes a side writes the row on that side; '
    'the highest generation over both databases counts.';

-- For splitctl alone: the versions of what it keeps here. A database without this table has version 1 of everything.
-- A release refuses a version that is higher than the one it knows, before it touches anything.
create table if not exists splitctl.versions (
    -- 'switches' or 'journal'.
    format text not null,
    version integer not null,
    -- The first release of splitctl that knows this version.
    release text not null,
    constraint versions_pkey primary key (format)
);
comment on table splitctl.versions is
    'The versions of the tables in this schema, and the first release of splitctl that knows each.';

insert into splitctl.versions as known (format, version, release)
values ('switches', 1, '0.1.0')
on conflict (format) do update
set version = excluded.version, release = excluded.release
where known.version < excluded.version;
