//! A federated forum, in the shape of Lemmy: triggers with transition tables, trees, aggregates, a schema of functions.

use super::application::{Application, Load};
use super::fixture::{Fixture, execute, try_execute};
use super::journey::{End, Foreign, Journey, create_roles};

const FORUM: Foreign = Foreign {
    owner: "content",
    role: "forum",
    crosses: &[
        "foreign-key:comment.comment_creator_id_fkey",
        "foreign-key:community.community_instance_id_fkey",
        "foreign-key:post.post_creator_id_fkey",
        "foreign-key:post_actions.post_actions_person_id_fkey",
        "foreign-key:post_aggregates.post_aggregates_creator_id_fkey",
        "function:r.active_people(interval)",
        "role:people:role forum",
        "role:role forum",
        "trigger:person.takes_posts_along",
        "trigger:post.counts_for_creator",
    ],
    work: include_str!("forum/work.sql"),
    refused: &[
        "select id from post",
        "insert into comment (creator_id, post_id, content) values (1, 1, 'x')",
        "update post_actions set saved = now()",
        "delete from community",
        "select * from r.interactions('1 day')",
        "select r.parents(path) from comment",
    ],
    stored: "select substr(name, 6) from post where name like 'load %'",
    broken: "
        select 'the posts of the community ' || a.community_id
        from community_aggregates a
        where a.posts <> (select count(*) from post p where p.community_id = a.community_id and not (p.deleted or p.removed))
        union all
        select 'the comments of the post ' || a.post_id
        from post_aggregates a
        where a.comments <> (select count(*) from comment c where c.post_id = a.post_id)
        union all
        select 'the score of the post ' || a.post_id
        from post_aggregates a
        where a.score <> (select coalesce(sum(like_score), 0) from post_actions l where l.post_id = a.post_id)
        union all
        select 'the children of the comment ' || a.comment_id
        from comment_aggregates a
        join comment c on c.id = a.comment_id
        where a.child_count <> (select count(*) from comment o where o.path <@ c.path and o.id <> c.id and c.path <> '0')",
};

const LOAD: &str = "
    begin;
    insert into post (name, creator_id, community_id) values ('load {n}', 1 + {n} % 20, 1 + {n} % 6);
    insert into post_actions (person_id, post_id, liked, like_score)
    select 1 + {n} % 30, id, now(), 1 from post where name = 'load {n}';
    insert into comment (creator_id, post_id, content) select 3, id, 'of the load' from post where name = 'load {n}';
    commit";

/// What stays is used all the time.
const STAYS: &str = "
    insert into person (name, instance_id) values ('new', 1);
    update local_user set listing = 'All' where id = 1;
    select post_count from person_aggregates";

#[test]
fn a_forum_in_the_shape_of_lemmy_goes_out_and_back() {
    let fixture = Fixture::two_clusters("", include_str!("forum/split.toml"));
    create_roles(&fixture, "create role forum login password '{password}'");
    for (cluster, database) in fixture.clusters.iter().zip(["before", "after"]) {
        execute(&cluster.url("postgres"), &format!("alter database {database} owner to forum"));
        execute(&cluster.url(database), "alter schema public owner to forum");
    }
    execute(&fixture.source, include_str!("forum/schema.sql"));
    let application = Application::new(&fixture, FORUM.role);
    let load = Load::of_statements(&application, LOAD);
    Journey::new(&FORUM, &fixture, &application)
        .with_checks(|_| assert_eq!(try_execute(application.url("source"), STAYS), Ok(())))
        .goes(load, End::Abort);
}
