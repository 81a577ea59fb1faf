-- As a Rails application would have it: one role owns and uses everything.
create extension citext;
set role rails_app;

create table schema_migrations (version varchar not null primary key);
create table ar_internal_metadata (
    key varchar not null primary key,
    value varchar,
    created_at timestamp(6) not null,
    updated_at timestamp(6) not null
);
insert into schema_migrations values ('20260101000000'), ('20260401120000'), ('20260901083000');
insert into ar_internal_metadata values ('environment', 'production', '2026-01-01', '2026-01-01');

-- What stays.
create table accounts (id bigserial primary key, name varchar not null, plan varchar default 'free' not null);
create table users (
    id bigserial primary key,
    account_id bigint not null,
    email citext not null,
    posts_count integer default 0 not null,
    featured_post_id bigint,
    settings jsonb default '{}' not null,
    created_at timestamp(6) default current_timestamp not null,
    constraint fk_rails_61ac11da2b foreign key (account_id) references accounts (id)
);
create unique index index_users_on_email on users using btree (email);

-- What moves: single table inheritance, polymorphic columns, a generated search column, optimistic locks.
create table posts (
    id bigserial primary key,
    type varchar default 'Article' not null,
    user_id bigint not null,
    title citext not null,
    slug citext,
    body text,
    url varchar,
    comments_count integer default 0 not null,
    labels varchar[] default '{}' not null,
    metadata jsonb default '{}' not null,
    lock_version integer default 0 not null,
    published_at timestamp(6),
    deleted_at timestamp(6),
    created_at timestamp(6) default current_timestamp not null,
    search tsvector generated always as (
        setweight(to_tsvector('english', title::text), 'A') || to_tsvector('english', coalesce(body, ''))
    ) stored,
    constraint fk_rails_5b5ddfd518 foreign key (user_id) references users (id),
    constraint links_have_urls check (type <> 'Link' or url is not null)
);
create index index_posts_on_type_and_published_at on posts (type, published_at desc nulls last);
create unique index index_posts_on_slug on posts (slug) where deleted_at is null;
create index index_posts_on_search on posts using gin (search);
create index index_posts_on_metadata on posts using gin (metadata jsonb_path_ops);
create index index_posts_on_title_length on posts (char_length(title::text));
alter table users add constraint fk_rails_9f3c1a6b2e foreign key (featured_post_id) references posts (id) on delete set null;

create table comments (
    id bigserial primary key,
    commentable_type varchar not null,
    commentable_id bigint not null,
    parent_id bigint,
    user_id bigint not null,
    body text not null,
    comments_count integer default 0 not null,
    created_at timestamp(6) default current_timestamp not null,
    constraint fk_rails_parent foreign key (parent_id) references comments (id) on delete cascade deferrable,
    constraint fk_rails_03de2dc08c foreign key (user_id) references users (id) on delete cascade
);
create index index_comments_on_commentable on comments (commentable_type, commentable_id);
create table tags (
    id serial primary key,
    name citext not null constraint tags_name_key unique,
    taggings_count integer default 0
);
create table taggings (
    id serial primary key,
    tag_id integer not null references tags,
    taggable_type varchar not null,
    taggable_id bigint not null
);
create unique index taggings_idx on taggings (tag_id, taggable_id, taggable_type);
create table active_storage_blobs (
    id uuid default gen_random_uuid() not null primary key,
    key varchar not null,
    metadata text,
    byte_size bigint not null,
    checksum varchar
);
create unique index index_active_storage_blobs_on_key on active_storage_blobs (key);
create table active_storage_attachments (
    id uuid default gen_random_uuid() not null primary key,
    name varchar not null,
    record_type varchar not null,
    record_id bigint not null,
    blob_id uuid not null constraint fk_rails_c3b3935057 references active_storage_blobs
);
create table versions (
    id bigserial primary key,
    item_type varchar not null,
    item_id bigint not null,
    event varchar not null,
    whodunnit varchar,
    object jsonb,
    created_at timestamp(6)
);
create table posts_labels_join (post_id bigint not null, label_id integer not null);
comment on column posts.metadata is 'Anything; see {"schema": "https://example.org"}';

-- Counter caches. The first one is among the tables that move, the second one crosses.
create function comments_after_row_tr() returns trigger language plpgsql as $$
begin
    if tg_op <> 'INSERT' then
        if old.commentable_type = 'Post' then
            update posts set comments_count = comments_count - 1 where id = old.commentable_id;
        end if;
        update comments set comments_count = comments_count - 1 where id = old.parent_id;
    end if;
    if tg_op <> 'DELETE' then
        if new.commentable_type = 'Post' then
            update posts set comments_count = comments_count + 1 where id = new.commentable_id;
        end if;
        update comments set comments_count = comments_count + 1 where id = new.parent_id;
    end if;
    return null;
end $$;
create trigger comments_after_row_tr after insert or delete or update of commentable_id, commentable_type, parent_id
    on comments for each row execute function comments_after_row_tr();
create function posts_after_row_tr() returns trigger language plpgsql as $$
begin
    if tg_op <> 'INSERT' then
        update users set posts_count = posts_count - 1 where id = old.user_id;
    end if;
    if tg_op <> 'DELETE' then
        update users set posts_count = posts_count + 1 where id = new.user_id;
    end if;
    return null;
end $$;
create trigger posts_after_row_tr after insert or delete on posts for each row execute function posts_after_row_tr();
comment on trigger posts_after_row_tr on posts is 'counts the posts of a user';
create function logidze_version() returns trigger language plpgsql as $$
declare
    row_before jsonb := case when tg_op = 'INSERT' then null else to_jsonb(old) - 'search' end;
begin
    insert into versions (item_type, item_id, event, whodunnit, object, created_at)
    values ('Post', new.id, lower(tg_op), current_setting('app.whodunnit', true), row_before, now());
    return new;
end $$;
create trigger logidze_on_posts after update on posts
    for each row when (old.body is distinct from new.body) execute function logidze_version();

-- The gem scenic keeps views and materialised views.
create view published_posts as
select id, type, title, slug, comments_count from posts where published_at is not null and deleted_at is null;
create materialized view post_searches as
select p.id, p.title, p.search, count(c.id) as comments
from posts p
left join comments c on c.commentable_type = 'Post' and c.commentable_id = p.id
group by p.id;
create unique index index_post_searches_on_id on post_searches (id);
create index index_post_searches_on_search on post_searches using gin (search);
create view authors as select u.email, count(*) as posts from users u join posts p on p.user_id = u.id group by u.email;

insert into accounts (name) values ('one'), ('two');
insert into users (account_id, email) select 1 + i % 2, 'User' || i || '@example.org' from generate_series(1, 20) i;
insert into posts (type, user_id, title, slug, body, url, metadata, labels, published_at)
select
    case when i % 5 = 0 then 'Link' else 'Article' end,
    1 + i % 20,
    'Post ' || i,
    'post-' || i,
    repeat('Words of the post number ' || i || '. ', 1 + i % 7),
    case when i % 5 = 0 then 'https://example.org/' || i end,
    jsonb_build_object('views', i, 'tags', jsonb_build_array('a', i)),
    array['x', 'it''s ' || i],
    case when i % 3 > 0 then timestamp '2026-02-01' + i * interval '1 hour' end
from generate_series(1, 800) i;
insert into comments (commentable_type, commentable_id, user_id, body)
select case when i % 11 = 0 then 'User' else 'Post' end, 1 + i % 20, 1 + i % 20, 'comment ' || i
from generate_series(1, 1500) i;
insert into comments (commentable_type, commentable_id, parent_id, user_id, body)
select commentable_type, commentable_id, id, user_id, 'answer to ' || id from comments where id % 10 = 0;
insert into tags (name) values ('Rails'), ('Postgres'), ('SQL');
insert into taggings (tag_id, taggable_type, taggable_id) select 1 + i % 3, 'Post', 1 + i from generate_series(1, 300) i;
insert into active_storage_blobs (key, byte_size) select md5(i::text), i from generate_series(1, 100) i;
insert into active_storage_attachments (name, record_type, record_id, blob_id)
select 'image', 'Post', byte_size, id from active_storage_blobs;
insert into posts_labels_join select i, i % 7 from generate_series(1, 200) i;
update users set featured_post_id = id;
update posts set body = body || 'Edited.' where id % 50 = 0;
refresh materialized view post_searches;
