begin;
insert into community (name, instance_id) values ('work {n}', 1);
insert into post (name, body, creator_id, community_id)
select 'work {n} ' || place, 'trigrams of {n}', 1 + place, id
from community, generate_series(1, 3) place
where name = 'work {n}';
insert into post_actions (person_id, post_id, liked, like_score)
select person, p.id, now(), case person when 1 then -1 else 1 end
from post p, generate_series(1, 4) person
where p.name = 'work {n} 1'
on conflict (person_id, post_id) do update set like_score = excluded.like_score;
commit

with parent as (
    insert into comment (creator_id, post_id, content)
    select 1, id, 'parent {n}' from post where name = 'work {n} 1'
    returning id
)
update comment set content = content from parent where comment.id = parent.id;
update comment set path = text2ltree('0.' || id) where content = 'parent {n}';
insert into comment (creator_id, post_id, content, path)
select 2, post_id, 'child {n}', path || currval('comment_id_seq')::text from comment where content = 'parent {n}'

do $$
begin
    assert (select posts from community_aggregates join community on id = community_id where name = 'work {n}') = 3, 'posts';
    assert (
        select (score, upvotes, downvotes, comments, controversy_rank > 1)
        from post_aggregates a
        join post p on p.id = a.post_id
        where name = 'work {n} 1'
    ) = (2::bigint, 3::bigint, 1::bigint, 2::bigint, true), 'the numbers of the post';
    assert (select count(*) from post where body % 'trigrams of {n}' and name like 'work {n} %') = 3, 'the trigrams';
    assert (select count(*) from comment where path ~ '0.*{1,}' and content like '% {n}') >= 1, 'the tree';
    assert (select count_ from r.interactions('1 hour') join community on id = community_id_ where name = 'work {n}') = 6,
        'the interactions';
end $$

do $$
begin
    perform r.hot_rank(score, published) from post_aggregates order by r.hot_rank(score, published) desc, post_id limit 10;
    insert into post_actions (person_id, post_id, like_score) select 9, max(id), 1 from post;
    raise 'half a like was taken';
exception when check_violation then null;
end $$

update post set removed = true where name = 'work {n} 2';
delete from post where name = 'work {n} 3'

do $$
begin
    assert (select posts from community_aggregates join community on id = community_id where name = 'work {n}') = 1, 'posts';
end $$

insert into sent_activity (data, inboxes, actor) values ('{"id": "work {n}"}', '{a,b}', 'community');
delete from sent_activity where data @> '{"id": "work {n}"}'
