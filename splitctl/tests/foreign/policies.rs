//! Row policies with helpers, views of three kinds, materialised views, and rights on columns. The target is in use.

use super::application::{Application, Load};
use super::fixture::{Fixture, execute, try_execute};
use super::journey::{End, Foreign, Journey, create_roles};

const ROLES: &str = "
    create role docs_owner nologin;
    create role docs_readers nologin;
    create role docs_app login password '{password}';
    create role docs_report login password '{password}' in role docs_readers;
    create role billing_app login password '{password}'";

const DOCUMENTS: Foreign = Foreign {
    owner: "docs",
    role: "docs_app",
    crosses: &["foreign-key:docs.tenants.tenants_plan_id_fkey", "published-view:billing:docs.public_documents"],
    work: include_str!("policies/work.sql"),
    refused: &[
        "set app.tenant = 3; select id from docs.documents",
        "set app.tenant = 3; insert into docs.documents (title) values ('x')",
        "set app.tenant = 3; select * from docs.my_documents",
        "select count(*) from docs.public_documents",
        "select count(*) from docs.document_counts",
        "set app.tenant = 3; delete from docs.shares",
    ],
    stored: "select substr(title, 6) from docs.documents where title like 'load %'",
    broken: "
        select 'the load ' || title || ' was not logged as it should'
        from docs.documents d
        where title like 'load %'
          and (select array_agg(what order by at) from docs.audit_log where what like '% ' || title)
              is distinct from array['INSERT ' || title, 'UPDATE ' || title]
        union all
        select 'a document of a wrong tenant ' || title from docs.documents where title like 'load %' and tenant_id <> 6
        union all
        select 'a stolen document' from docs.documents where title = 'stolen'",
};

const LOAD: &str = "
    begin;
    set local app.tenant = 6;
    insert into docs.documents (title, body) values ('load {n}', 'x');
    update docs.documents set body = 'y' where title = 'load {n}';
    insert into docs.shares (document_id, tenant_id) select id, 7 from docs.documents where title = 'load {n}';
    commit";

/// What a member of the readers may do.
const REPORT: [(&str, bool); 6] = [
    ("select id, title from docs.documents", true),
    ("select body from docs.documents", false),
    ("select name from docs.tenants", true),
    ("select plan_id from docs.tenants", false),
    ("select count(*) from docs.audit_log", true),
    ("select count(*) from docs.public_documents", true),
];

#[test]
fn row_policies_and_views_go_out_to_a_target_in_use_and_back() {
    let fixture = Fixture::two_clusters("", include_str!("policies/split.toml"));
    create_roles(&fixture, ROLES);
    execute(&fixture.source, "create extension pgcrypto");
    execute(&fixture.source, include_str!("policies/schema.sql"));
    execute(&fixture.target, include_str!("policies/target.sql"));
    let application = Application::new(&fixture, DOCUMENTS.role);
    let load = Load::of_statements(&application, LOAD);
    let report = Application::new(&fixture, "docs_report");
    Journey::new(&DOCUMENTS, &fixture, &application)
        .with_checks(|side| {
            for (statement, may) in REPORT {
                let refused = try_execute(report.url(side), statement);
                assert_eq!(refused.is_ok(), may, "on the {side}: {statement}: {refused:?}");
            }
        })
        .goes(load, End::Abort);
}
