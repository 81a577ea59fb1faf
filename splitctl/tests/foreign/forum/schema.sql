-- A federated forum. The shape follows Lemmy (github.com/LemmyNet/lemmy): triggers on statements with transition tables,
-- made by a procedure from texts; ranks in a schema of their own; trees of comments by ltree; aggregates; functions that
-- take a row. The statements are ours. One role owns and uses everything.
create extension ltree;
create extension pg_trgm;
set role forum;
create schema r;
create type actor_type as enum ('site', 'community', 'person');
create type listing as enum ('All', 'Local', 'Subscribed');

-- What stays: people, and where they come from.
create table instance (
    id integer generated always as identity primary key,
    domain varchar(255) not null unique,
    published timestamptz not null default now()
);
create table person (
    id serial primary key,
    name varchar(255) not null,
    instance_id integer not null references instance on update cascade on delete cascade,
    bot boolean not null default false,
    local boolean not null default true,
    admin boolean not null default false
);
create table person_aggregates (
    person_id integer primary key references person on delete cascade deferrable initially deferred,
    post_count bigint not null default 0,
    comment_count bigint not null default 0
);
create table local_user (
    id serial primary key,
    person_id integer not null unique references person,
    listing listing default 'Local'
);

-- What moves: communities, posts, comments, votes.
create table community (
    id serial primary key,
    name varchar(255) not null,
    actor varchar(255) not null default 'https://forum.example/' || gen_random_uuid(),
    instance_id integer not null references instance,
    deleted boolean not null default false,
    removed boolean not null default false,
    unique (name, instance_id)
);
create unique index idx_community_lower_actor on community (lower(actor::text));
create table community_aggregates (
    community_id integer primary key references community on delete cascade deferrable initially deferred,
    posts bigint not null default 0,
    comments bigint not null default 0,
    hot_rank double precision not null default 0.1728
);
create table post (
    id serial primary key,
    name varchar(200) not null,
    url varchar(2000),
    body text,
    creator_id integer not null references person on update cascade on delete cascade,
    community_id integer not null references community on update cascade on delete cascade,
    deleted boolean not null default false,
    removed boolean not null default false,
    published timestamptz not null default now(),
    updated timestamptz,
    alt text constraint alt_is_text check (alt <> '')
);
create index idx_post_trigram on post using gin (name gin_trgm_ops, body gin_trgm_ops);
create table post_aggregates (
    post_id integer primary key references post on delete cascade deferrable initially deferred,
    creator_id integer not null references person on delete cascade deferrable initially deferred,
    community_id integer not null references community on delete cascade deferrable initially deferred,
    comments bigint not null default 0,
    score bigint not null default 0,
    upvotes bigint not null default 0,
    downvotes bigint not null default 0,
    published timestamptz not null default now(),
    controversy_rank double precision not null default 0,
    newest_comment timestamptz not null default now()
);
create table post_actions (
    person_id integer not null references person on delete cascade,
    post_id integer not null references post on delete cascade,
    read timestamptz,
    saved timestamptz,
    liked timestamptz,
    like_score smallint constraint like_score_is_one check (like_score in (-1, 1)),
    primary key (person_id, post_id),
    constraint likes_have_both check (num_nonnulls(liked, like_score) in (0, 2))
);
create index idx_post_actions_saved on post_actions (person_id) where saved is not null;
create statistics post_actions_liked (dependencies, ndistinct) on person_id, post_id from post_actions;
create table comment (
    id serial primary key,
    creator_id integer not null references person on delete cascade,
    post_id integer not null references post on delete cascade,
    content text not null,
    deleted boolean not null default false,
    removed boolean not null default false,
    published timestamptz not null default now(),
    path ltree not null default '0'
);
create index idx_path_gist on comment using gist (path);
create table comment_aggregates (
    comment_id integer primary key references comment on delete cascade deferrable initially deferred,
    score bigint not null default 0,
    child_count integer not null default 0,
    hot_rank double precision not null default 0.1728
);
create table sent_activity (
    id bigserial primary key,
    data jsonb not null,
    inboxes text[] not null,
    communities integer[] not null default '{}',
    actor actor_type not null default 'person',
    published timestamptz not null default now()
);
create table secret (id serial primary key, jwt varchar not null default gen_random_uuid()::text);

create function r.controversy_rank(upvotes numeric, downvotes numeric) returns double precision
language sql immutable parallel safe
return case
    when upvotes <= 0 or downvotes <= 0 then 0
    else (upvotes + downvotes)
        ^ (least(upvotes, downvotes)::double precision / greatest(upvotes, downvotes)::double precision)
end;
create function r.hot_rank(score numeric, published timestamptz) returns double precision
language sql immutable parallel safe
return log(greatest(2, score + 2)) / power(extract(epoch from timestamptz '2040-01-01' - published) / 3600 + 2, 1.8);
create function r.is_counted(item record) returns boolean language plpgsql immutable parallel safe as $$
begin
    return coalesce(not (item.deleted or item.removed), false);
end $$;
create function r.creator_of(aggregates post_aggregates) returns integer immutable parallel safe
return aggregates.creator_id;
create function r.parents(path ltree) returns setof integer language sql immutable parallel safe
begin atomic
    select part::integer
    from string_to_table(ltree2text(path), '.') with ordinality as parts (part, place)
    where place > 1 and place < nlevel(path);
end;
create index idx_post_aggregates_hot on post_aggregates (r.hot_rank(score, published) desc, post_id);
create function r.random_name() returns text language sql volatile as
    $$ select string_agg(substr('abcdefghij', (random() * 9)::integer + 1, 1), '') from generate_series(1, 8) $$;

-- One trigger for each operation, from a text: `old_rows` and `new_rows` are there under each of them.
create procedure r.create_triggers(table_name text, body text) language plpgsql as $create$
declare
    operation text;
    tables text;
begin
    foreach operation in array array['insert', 'update', 'delete'] loop
        tables := case operation
            when 'insert' then 'new table as new_rows'
            when 'delete' then 'old table as old_rows'
            else 'old table as old_rows new table as new_rows'
        end;
        execute format(
            'create function r.%1$s_%2$s_statement() returns trigger language plpgsql as %3$L',
            table_name,
            operation,
            case operation
                when 'insert' then replace(body, 'old_rows', '(select * from new_rows where false)')
                when 'delete' then replace(body, 'new_rows', '(select * from old_rows where false)')
                else body
            end
        );
        execute format(
            'create trigger %2$s_statement after %2$s on %1$I referencing %3$s
             for each statement execute function r.%1$s_%2$s_statement()',
            table_name, operation, tables
        );
    end loop;
end $create$;

create function r.post_aggregates_from_post() returns trigger language plpgsql as $$
begin
    insert into post_aggregates (post_id, creator_id, community_id, published)
    select id, creator_id, community_id, published from new_post;
    return null;
end $$;
create trigger aggregates after insert on post referencing new table as new_post
    for each statement execute function r.post_aggregates_from_post();
create function r.comment_aggregates_from_comment() returns trigger language plpgsql as $$
begin
    insert into comment_aggregates (comment_id) select id from new_comment;
    return null;
end $$;
create trigger aggregates after insert on comment referencing new table as new_comment
    for each statement execute function r.comment_aggregates_from_comment();
create function r.community_aggregates_from_community() returns trigger language plpgsql as $$
begin
    insert into community_aggregates (community_id) select id from new_community;
    return null;
end $$;
create trigger aggregates after insert on community referencing new table as new_community
    for each statement execute function r.community_aggregates_from_community();

call r.create_triggers('post', $$
begin
    update community_aggregates a
    set posts = a.posts + d.difference
    from (
        select community_id, sum(difference) as difference
        from (
            select o.community_id, -1 as difference from old_rows o where r.is_counted(o)
            union all
            select n.community_id, 1 from new_rows n where r.is_counted(n)
        ) counted
        group by community_id
    ) d
    where a.community_id = d.community_id and d.difference <> 0;
    return null;
end $$);
call r.create_triggers('comment', $$
begin
    update comment_aggregates a
    set child_count = a.child_count + d.difference
    from (
        select parent, sum(difference) as difference
        from (
            select r.parents(o.path) as parent, -1 as difference from old_rows o
            union all
            select r.parents(n.path), 1 from new_rows n
        ) counted
        group by parent
    ) d
    where a.comment_id = d.parent and d.difference <> 0;
    with changed as (
        update post_aggregates a
        set comments = a.comments + d.difference, newest_comment = greatest(a.newest_comment, d.newest)
        from (
            select post_id, sum(difference) as difference, max(published) as newest
            from (
                select o.post_id, -1 as difference, null as published from old_rows o where r.is_counted(o)
                union all
                select n.post_id, 1, n.published from new_rows n where r.is_counted(n)
            ) counted
            group by post_id
        ) d
        where a.post_id = d.post_id and d.difference <> 0
        returning a.community_id, d.difference
    )
    update community_aggregates a
    set comments = a.comments + c.difference
    from (select community_id, sum(difference) as difference from changed group by community_id) c
    where a.community_id = c.community_id;
    return null;
end $$);
call r.create_triggers('post_actions', $$
begin
    update post_aggregates a
    set
        upvotes = a.upvotes + d.up,
        downvotes = a.downvotes + d.down,
        score = a.score + d.up - d.down,
        controversy_rank = r.controversy_rank((a.upvotes + d.up)::numeric, (a.downvotes + d.down)::numeric)
    from (
        select
            post_id,
            coalesce(sum(difference) filter (where like_score = 1), 0) as up,
            coalesce(sum(difference) filter (where like_score = -1), 0) as down
        from (
            select o.post_id, o.like_score, -1 as difference from old_rows o
            union all
            select n.post_id, n.like_score, 1 from new_rows n
        ) counted
        group by post_id
    ) d
    where a.post_id = d.post_id and (d.up, d.down) <> (0, 0);
    return null;
end $$);

-- These cross: a post counts for its creator, and a person that goes takes its posts along.
create function r.person_counts() returns trigger language plpgsql as $$
begin
    if tg_op = 'INSERT' then
        update person_aggregates set post_count = post_count + 1 where person_id = new.creator_id;
    else
        update person_aggregates set post_count = post_count - 1 where person_id = old.creator_id;
    end if;
    return null;
end $$;
create trigger counts_for_creator after insert or delete on post for each row execute function r.person_counts();
create function r.person_is_gone() returns trigger language plpgsql as $$
begin
    delete from comment where creator_id = old.id;
    delete from post where creator_id = old.id;
    return old;
end $$;
create trigger takes_posts_along before delete on person for each row execute function r.person_is_gone();
create function r.person_aggregates_from_person() returns trigger language plpgsql as $$
begin
    insert into person_aggregates (person_id) select id from new_person;
    return null;
end $$;
create trigger aggregates after insert on person referencing new table as new_person
    for each statement execute function r.person_aggregates_from_person();
create function r.active_people(since interval) returns table (people bigint, community integer)
language plpgsql stable as $$
begin
    return query
    select count(distinct p.creator_id), p.community_id
    from post p
    join person pe on pe.id = p.creator_id
    where p.published > now() - since and not pe.bot
    group by p.community_id;
end $$;
create function r.interactions(since interval) returns table (count_ numeric, community_id_ integer)
language plpgsql stable as $$
begin
    return query
    select coalesce(sum(comments + upvotes + downvotes), 0), community_id
    from post_aggregates
    where published >= current_timestamp - since
    group by community_id;
end $$;
comment on function r.hot_rank is 'how high a post stands';
comment on trigger aggregates on post is 'each post has its numbers';

insert into instance (domain) values ('forum.example'), ('elsewhere.example');
insert into person (name, instance_id) select 'person' || i, 1 + i % 2 from generate_series(1, 30) i;
insert into local_user (person_id) select id from person where instance_id = 1;
insert into community (name, instance_id) select 'community' || i, 1 + i % 2 from generate_series(1, 6) i;
insert into post (name, body, creator_id, community_id, published)
select 'Post ' || i, 'body ' || md5(i::text), 1 + i % 30, 1 + i % 6, timestamptz '2026-05-01' + i * interval '10 minutes'
from generate_series(1, 600) i;
insert into comment (creator_id, post_id, content)
select 1 + i % 30, 1 + i % 600, 'comment ' || i from generate_series(1, 1500) i;
update comment set path = ('0.' || id)::ltree where id % 3 > 0;
update comment set path = ('0.' || id - 1 || '.' || id)::ltree where id % 3 = 0;
insert into post_actions (person_id, post_id, liked, like_score)
select 1 + i % 30, 1 + i % 599, now(), case when i % 4 = 0 then -1 else 1 end from generate_series(1, 2000) i
on conflict do nothing;
insert into sent_activity (data, inboxes)
select jsonb_build_object('id', i), array['https://a.example/' || i] from generate_series(1, 300) i;
insert into secret default values;
