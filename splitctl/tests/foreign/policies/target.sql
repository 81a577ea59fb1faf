-- The target is in use: it has one of the schemas, an extension, and objects of others.
create schema app;
create schema reports;
grant usage on schema app to docs_readers;
create table reports.lines (id integer generated always as identity primary key, said text);
insert into reports.lines (said) values ('here before');
grant select on reports.lines to docs_readers;
create function app.other() returns integer language sql as 'select 1';
create view reports.said as select said from reports.lines;
create extension pgcrypto;
