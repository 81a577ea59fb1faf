//! A service that follows the switch as ours do: when one side refuses a statement, it runs the statement on the other side.

use super::fixture::{Fixture, strings, try_execute};

/// A table that stays, a table that moves with a foreign key to it, the epoch of an event log, and an identity column.
pub const SCHEMA: &str = "
    create table tenants (id integer primary key);
    insert into tenants values (1);
    create function log_epoch() returns bigint language sql stable parallel safe as 'select 1::bigint';
    create table notes (
        id bigint generated always as identity primary key,
        tenant_id integer not null references tenants,
        token text not null unique,
        epoch bigint not null default log_epoch()
    );
    insert into notes (tenant_id, token) select 1, 'old ' || i from generate_series(1, 2000) i;
    grant select, insert, update on notes to shop_svc;
    grant select, insert on tenants to other_svc;
";

pub const MANIFEST: &str = r#"
    source = "$SOURCE_URL"
    [owners.shop]
    role = "shop_svc"
    tables = ["notes"]
    target = "$TARGET_URL"
    [owners.shop.rights]
    notes = ["select", "insert", "update"]
    [owners.shop.epochs]
    log_epoch = "notes.epoch"
    [owners.other]
    role = "other_svc"
    tables = ["tenants"]
"#;

/// The side that the service uses, and how many writes were acknowledged.
pub struct App<'a> {
    fixture: &'a Fixture,
    on_target: bool,
    acknowledged: usize,
}

impl<'a> App<'a> {
    pub fn new(fixture: &'a Fixture) -> Self {
        Self { fixture, on_target: false, acknowledged: 0 }
    }

    /// Writes one row, which must be possible in every state of the move.
    pub fn write(&mut self) {
        let statement = format!(
            "set lock_timeout = '2s'; set role shop_svc; insert into notes (tenant_id, token) values (1, 'new {}')",
            self.acknowledged
        );
        for _ in 0..2 {
            let url = if self.on_target { &self.fixture.target } else { &self.fixture.source };
            match try_execute(url, &statement) {
                Ok(()) => {
                    self.acknowledged += 1;
                    return;
                }
                Err(code) if code == "42501" => self.on_target = !self.on_target,
                Err(other) => panic!("write {} on {url}: {other}", self.acknowledged),
            }
        }
        panic!("refused on both sides");
    }

    /// Checks that every acknowledged write is there once, that there is no other, and that epochs only rise.
    pub fn check(&self) {
        let url = if self.on_target { &self.fixture.target } else { &self.fixture.source };
        let tokens = strings(url, "select token from notes where token like 'new %' order by id");
        assert_eq!(tokens.len(), self.acknowledged, "{tokens:?}");
        let mut expected: Vec<String> = (0..self.acknowledged).map(|number| format!("new {number}")).collect();
        expected.sort();
        let mut sorted = tokens;
        sorted.sort();
        assert_eq!(sorted, expected);
        assert_eq!(strings(url, "select count(*)::text from notes where token like 'old %'"), ["2000"]);
        let falls = "select count(*)::text
            from (select epoch, lag(epoch) over (order by id) as before from notes) n
            where epoch < before";
        assert_eq!(strings(url, falls), ["0"]);
    }
}
