-- A commit is on the disk, and readers do not wait for it.
pragma journal_mode = wal;
pragma synchronous = full;

-- How far each source is read.
create table if not exists places (
    source text primary key,
    place text not null
) strict;

-- Every event that was read. The body is deleted once it is sent; the id stays, so that a repeated event is not sent again.
create table if not exists notifications (
    number integer primary key,
    id text not null unique,
    order_id text not null,
    body text,
    state text not null default 'waiting' check (state in ('waiting', 'sent', 'parked')),
    attempts integer not null default 0,
    due integer not null default 0,
    error text
) strict;
create index if not exists due on notifications (due, number) where state = 'waiting';
create index if not exists waiting on notifications (order_id, number) where state = 'waiting';

-- What was not sent, and why: a type that this program does not know, or events that were lost.
create table if not exists skipped (
    reason text primary key,
    events integer not null
) strict;
