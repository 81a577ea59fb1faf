//! A schema as Rails applications have it: one role owns and uses what moves and what stays.

use super::application::{Application, Load};
use super::fixture::{Fixture, execute, strings, try_execute};
use super::journey::{End, Foreign, Journey, create_roles};

const RAILS: Foreign = Foreign {
    owner: "content",
    role: "rails_app",
    crosses: &[
        "foreign-key:comments.fk_rails_03de2dc08c",
        "foreign-key:posts.fk_rails_5b5ddfd518",
        "foreign-key:users.fk_rails_9f3c1a6b2e",
        "role:people:role rails_app",
        "role:role rails_app",
        "trigger:posts.posts_after_row_tr",
        "view:authors",
    ],
    work: include_str!("rails/work.sql"),
    refused: &[
        "select id from posts where slug = 'post-1'",
        "select count(*) from published_posts",
        "select count(*) from post_searches",
        "insert into comments (commentable_type, commentable_id, user_id, body) values ('Post', 1, 1, 'x')",
        "update tags set name = 'x'",
        "delete from taggings",
    ],
    stored: "select substr(slug::text, 6) from posts where slug like 'load-%'",
    broken: "
        select 'the post ' || p.id || ' counts wrong'
        from posts p
        where p.comments_count <> (
            select count(*) from comments c where c.commentable_type = 'Post' and c.commentable_id = p.id
        )
        union all
        select 'the load ' || p.slug::text || ' has ' || count(c.id)
        from posts p
        left join comments c on c.commentable_type = 'Post' and c.commentable_id = p.id
        where p.slug like 'load-%'
        group by p.slug
        having count(c.id) <> 1",
};

const LOAD: &str = "
    begin;
    insert into posts (user_id, title, slug, body) values (1 + {n} % 20, 'Load {n}', 'load-{n}', 'load');
    insert into comments (commentable_type, commentable_id, user_id, body)
    select 'Post', id, 1, 'of the load' from posts where slug = 'load-{n}';
    update posts set body = body || '!', lock_version = lock_version + 1 where slug = 'load-{n}';
    commit";

/// What the role does in the source at any time, because these tables stay.
const STAYS: &str = "
    update users set settings = '{\"seen\": true}' where email = 'USER1@example.org';
    insert into accounts (name) values ('new')";

#[test]
fn one_role_of_a_rails_application_goes_out_and_back() {
    let fixture = Fixture::two_clusters("", include_str!("rails/split.toml"));
    create_roles(&fixture, "create role rails_app login password '{password}'");
    for (cluster, database) in fixture.clusters.iter().zip(["before", "after"]) {
        execute(&cluster.url("postgres"), &format!("alter database {database} owner to rails_app"));
    }
    execute(&fixture.source, "grant create on schema public to rails_app");
    execute(&fixture.target, "grant create on schema public to rails_app");
    execute(&fixture.source, include_str!("rails/schema.sql"));
    let application = Application::new(&fixture, RAILS.role);
    let load = Load::of_statements(&application, LOAD);
    Journey::new(&RAILS, &fixture, &application).goes(load, End::Abort);
    assert_eq!(try_execute(application.url("source"), STAYS), Ok(()));
    let views = strings(&fixture.source, "select (count(*) > 0)::text from authors");
    assert_eq!(views, ["true"]);
}
