//! Runs the program as a person does, on the test's own manifest.

#![allow(clippy::disallowed_methods, reason = "tests ask the database what they like")]
#![allow(dead_code, reason = "each test program uses a part of it")]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use dev::postgres::{TestDatabase, connect};
use dev::wait::block_on;
use serde_json::Value;
use sqlx::{AssertSqlSafe, Executor};

/// The manifest of this project.
pub const OUR_MANIFEST: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../split.toml");

/// A folder with a manifest, and the database that the manifest describes.
pub struct Program {
    pub folder: tempfile::TempDir,
    url: String,
    manifest: PathBuf,
}

/// The exit code and the output of a run.
pub struct Ran {
    pub code: i32,
    pub out: String,
    pub err: String,
}

impl Program {
    pub fn new(url: &str, manifest: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("split.toml");
        if !manifest.is_empty() {
            std::fs::write(&path, manifest).expect("written");
        }
        Self { folder, url: url.to_owned(), manifest: path }
    }

    /// Uses this project's manifest.
    pub fn ours(url: &str) -> Self {
        Self { manifest: OUR_MANIFEST.into(), ..Self::new(url, "") }
    }

    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_splitctl"));
        // The program reads `.env` in its own folder and in the folders above, so it gets an empty one.
        command.current_dir(self.folder.path()).env("DATABASE_URL", &self.url);
        command.arg("--manifest").arg(&self.manifest).args(arguments);
        command
    }

    pub fn run(&self, arguments: &[&str]) -> Ran {
        Ran::of(self.command(arguments).output().expect("the program starts"))
    }

    /// The audit's document, and its exit code.
    pub fn audit(&self, arguments: &[&str]) -> (i32, Value) {
        let ran = self.run(&[&["audit", "--format", "json"], arguments].concat());
        let document = serde_json::from_str(&ran.out).unwrap_or_else(|error| panic!("{error}: {}{}", ran.out, ran.err));
        (ran.code, document)
    }
}

impl Ran {
    pub fn of(output: Output) -> Self {
        Self {
            code: output.status.code().expect("it ends by itself"),
            out: String::from_utf8(output.stdout).expect("text"),
            err: String::from_utf8(output.stderr).expect("text"),
        }
    }
}

/// The ids of the findings of a severity.
pub fn ids<'a>(document: &'a Value, severity: &str) -> Vec<&'a str> {
    let findings = document["findings"].as_array().expect("findings");
    let of = findings.iter().filter(|finding| finding["severity"] == severity);
    of.map(|finding| finding["id"].as_str().expect("an id")).collect()
}

/// The finding with this id.
pub fn finding<'a>(document: &'a Value, id: &str) -> &'a Value {
    let mut findings = document["findings"].as_array().expect("findings").iter();
    findings.find(|finding| finding["id"] == id).unwrap_or_else(|| panic!("no {id} in {document:#}"))
}

pub fn execute(url: &str, statements: &str) {
    let done = block_on(async || connect(url).await?.execute(AssertSqlSafe(statements.to_owned())).await);
    done.unwrap_or_else(|error| panic!("{error} in {statements}"));
}

pub fn write(folder: &Path, name: &str, text: &str) {
    std::fs::create_dir_all(folder).expect("made");
    std::fs::write(folder.join(name), text).expect("written");
}

/// A database without this project's schema: quoted names, a serial, an enumeration, partitions, and two roles.
pub struct Foreign {
    pub database: TestDatabase,
    pub crm: String,
    pub billing: String,
}

impl Foreign {
    pub fn create() -> Self {
        let database = TestDatabase::empty();
        let name = database.url().rsplit('/').next().expect("a name").to_owned();
        let tag = &name[name.len() - 8..];
        let (crm, billing) = (format!("crm_{tag}_svc"), format!("Billing {tag}"));
        let statements = SCHEMA.replace("{crm}", &crm).replace("{billing}", &billing);
        let foreign = Self { database, crm, billing };
        execute(foreign.url(), &statements);
        foreign
    }

    pub fn url(&self) -> &str {
        self.database.url()
    }

    /// A manifest of the owners without borrowings. `more` is appended.
    pub fn manifest(&self, more: &str) -> String {
        MANIFEST.replace("{crm}", &self.crm).replace("{billing}", &self.billing) + more
    }
}

impl Drop for Foreign {
    fn drop(&mut self) {
        let Self { crm, billing, .. } = &*self;
        execute(self.url(), &format!(r#"drop owned by "{crm}", "{billing}" cascade; drop role "{crm}", "{billing}""#));
    }
}

const MANIFEST: &str = r#"
source = "$DATABASE_URL"
[owners.crm]
role = "{crm}"
tables = ["clients", "client_notes"]
[owners.billing]
role = "{billing}"
tables = ['"Back office"."Odd invoices"', '"Back office".ledger']
"#;

const SCHEMA: &str = r#"
create role "{crm}" login password 'kept secret';
create role "{billing}" nologin;
create schema "Back office";
create type level as enum ('low', 'high');

create table clients (id serial primary key, name text, level level);
create table client_notes (id bigint generated always as identity primary key, client_id integer references clients);

create table "Back office"."Odd invoices" (
    id bigint primary key,
    client_id integer constraint "Odd fk" references clients,
    level level,
    amount integer
);
create table "Back office".ledger (
    day date not null,
    number integer default nextval('clients_id_seq')
) partition by range (day);
create table "Back office".ledger_2026 partition of "Back office".ledger for values from ('2026-01-01') to ('2027-01-01');

create materialized view client_totals as
select c.id, sum(i.amount) as total
from clients c
join "Back office"."Odd invoices" i on i.client_id = c.id
group by c.id;
create view client_names as select id, name from clients;

create function settle(integer) returns void language plpgsql as $$
begin
    update "Back office"."Odd invoices" set amount = 0 where client_id = $1;
    update clients set level = 'low' where id = $1;
end $$;
revoke execute on function settle(integer) from public;
create function total(integer) returns bigint language sql
begin atomic
    select sum(i.amount) from clients c join "Back office"."Odd invoices" i on i.client_id = c.id where c.id = $1;
end;
create function ledger_check() returns trigger language plpgsql as $$
begin
    -- It mentions "Odd invoices" here only.
    perform 1 from clients where id = new.number;
    return new;
end $$;
create trigger "Checks clients" before insert on "Back office".ledger for each row execute function ledger_check();

grant usage on schema public, "Back office" to "{crm}", "{billing}";
grant select, insert, update, delete on clients to "{crm}";
grant usage on sequence clients_id_seq to "{crm}", "{billing}";
grant select, insert, update, delete on "Back office"."Odd invoices" to "{billing}";
grant select, insert on "Back office".ledger to "{billing}";
grant select (id, name) on clients to "{billing}";
grant select on client_names to "{billing}", "{crm}";
"#;
