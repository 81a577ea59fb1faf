begin;
insert into posts (user_id, title, slug, body, metadata, published_at)
values (3, 'Work {n}', 'work-{n}', 'the quick brown fox number {n}', '{"views": 1}', now());
insert into comments (commentable_type, commentable_id, user_id, body)
select 'Post', id, 4, 'first' from posts where slug = 'WORK-{n}';
insert into tags (name) values ('RAILS'), ('tag {n}')
on conflict (name) do update set taggings_count = tags.taggings_count + 1;
insert into taggings (tag_id, taggable_type, taggable_id)
select t.id, 'Post', p.id from tags t join posts p on p.slug = 'work-{n}' where t.name in ('rails', 'Tag {n}');
commit

set app.whodunnit = 'worker';
update posts set body = body || ' again', lock_version = lock_version + 1 where slug = 'work-{n}' and lock_version = 0

do $$
begin
    assert (select comments_count from posts where slug = 'work-{n}') = 1, 'the counter cache';
    assert (
        select count(*) from versions v join posts p on p.id = v.item_id where p.slug = 'work-{n}' and whodunnit = 'worker'
    ) = 1, 'the version';
    assert (select count(*) from posts where search @@ websearch_to_tsquery('english', '"brown foxes" {n}')) = 1,
        'the search';
    assert (select count(*) from published_posts where slug = 'Work-{n}') = 1, 'the view';
    assert (select count(*) from posts where metadata @> '{"views": 1}' and slug = 'work-{n}') = 1, 'the metadata';
end $$

delete from comments where id = (select max(id) from comments where body = 'first')

refresh materialized view concurrently post_searches

do $$
begin
    assert (select comments from post_searches where title = 'work {n}') = 0, 'the materialised view';
end $$

insert into active_storage_blobs (key, byte_size) values ('work {n}', 1);
insert into active_storage_attachments (name, record_type, record_id, blob_id)
select 'file', 'Post', 1, id from active_storage_blobs where key = 'work {n}'

insert into posts_labels_join values ({n}, 1); delete from posts_labels_join where post_id = {n} and label_id = 1
