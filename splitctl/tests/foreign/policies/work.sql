set app.tenant = 3;
insert into docs.documents (title, body, is_public) values ('work {n}', 'of tenant 3', true);
insert into docs.my_documents (title, body) values ('by the view {n}', 'of tenant 3');
update docs.my_documents set body = body || '!' where title = 'by the view {n}';
insert into docs.shares (document_id, tenant_id) select id, 4 from docs.documents where title = 'by the view {n}'

do $$
begin
    perform set_config('app.tenant', '4', false);
    assert (select count(*) from docs.documents where title in ('work {n}', 'by the view {n}')) = 2, 'tenant 4 sees both';
    assert (select count(*) from docs.my_documents where title in ('work {n}', 'by the view {n}')) = 0, 'none is its own';
    assert (select count(*) from docs.public_documents where title = 'work {n}') = 1, 'one is public';
    update docs.documents set title = 'stolen' where title in ('work {n}', 'by the view {n}');
    assert not found, 'tenant 4 may not write';
    perform set_config('app.tenant', '5', false);
    assert (select count(*) from docs.documents where title = 'by the view {n}') = 0, 'tenant 5 does not see it';
    assert (select count(distinct tenant_id) from docs.documents) > 1, 'tenant 5 sees what is public';
    perform set_config('app.tenant', '', false);
    assert (select count(*) from docs.documents) = 0, 'nobody sees nothing';
end $$

do $$
begin
    perform set_config('app.tenant', '3', false);
    insert into docs.documents (title, tenant_id) values ('for tenant 4', 4);
    raise 'a document of another tenant was taken';
exception when insufficient_privilege then
    assert sqlerrm like '%row-level security%', sqlerrm;
end $$

do $$
begin
    perform secret from docs.documents;
    raise 'the secret was read';
exception when insufficient_privilege then
    assert sqlerrm like 'permission denied for table%', sqlerrm;
end $$

do $$
begin
    perform from docs.audit_log;
    raise 'the log was read';
exception when insufficient_privilege then null;
end $$

set app.tenant = 3;
delete from docs.titles;
select app.refresh_counts();
do $$
begin
    assert (select documents from docs.document_counts where tenant_id = 3)
        = (select count(*) from docs.my_documents), 'the count is fresh';
    assert (select percent from docs.published_share where name = 'tenant 3') > 0, 'the share is fresh';
    assert app.document_number('work {n}') = (select number from docs.documents where title = 'work {n}'), 'the number';
    assert (select count(*) from docs.titles where title = 'work {n}') = 1, 'the titles are kept';
end $$

set app.tenant = 3; delete from docs.documents where title = 'by the view {n}'
