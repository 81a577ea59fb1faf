//! Partitions of partitions, enumerations, and domains over domains.

use super::application::{Application, Load};
use super::fixture::{Fixture, execute, strings, try_execute};
use super::journey::{End, Foreign, Journey, create_roles};

const ROLES: &str = "
    create role meter_owner nologin;
    create role meter_app login password '{password}';
    create role meter_audit login password '{password}';
    create role site_app login password '{password}'";

const METERS: Foreign = Foreign {
    owner: "meters",
    role: "meter_app",
    crosses: &["foreign-key:meters.meters.meters_site_id_fkey"],
    work: include_str!("partitions/work.sql"),
    refused: &[
        "select id from meters.readings where meter = 'AB-1' and read_at < '2025-12-01'",
        "insert into meters.readings (meter, read_at, amount) values ('AB-1', now(), 1)",
        "update meters.readings set note = 'x' where read_at > '2030-01-01'",
        "delete from meters.alarms",
        "select * from meters.usage_of('AB-1')",
    ],
    stored: "select substr(note, 6) from meters.readings where note like 'load %' and quality = 'corrected'",
    broken: "
        select 'no reading for the alarm ' || a.id
        from meters.alarms a
        left join meters.readings r on (r.id, r.read_at, r.quality, r.meter) = (a.reading_id, a.read_at, a.quality, a.meter)
        where r.id is null
        union all
        select 'the load ' || r.note || ' has no change'
        from meters.readings r
        where r.note like 'load %'
          and not exists (select from meters.changes c where c.reading_id = r.id and c.was = 'measured')
        union all
        select 'the number ' || id || ' is there twice' from meters.readings group by id having count(*) > 1",
};

/// Inserts a row, and moves it to another partition.
const LOAD: &str = "
    begin;
    insert into meters.readings (meter, read_at, amount, note)
    values ('AB-' || (1 + {n} % 40), timestamptz '2026-01-20 00:00:07+00' + {n} * interval '1 minute', {n} % 50, 'load {n}');
    update meters.readings set quality = 'corrected' where note = 'load {n}';
    update meters.readings set read_at = read_at + interval '12 days' where note = 'load {n}';
    commit";

/// Statements that the proof before each switch knows; the driver does not know the type of the first one's result.
const QUERIES: &str = "
    select seen from meters.meters where code = $1;
    select sum(amount::numeric) from meters.readings where meter = $1 and quality = $2;
    insert into meters.readings (meter, read_at, amount) values ($1, $2, $3) returning id, gross;
";

/// A role that may read some partitions and no other.
const AUDIT: [(&str, bool); 4] = [
    ("select count(*) from meters.readings_2026_01_b", true),
    ("update meters.readings_2026_01_b set note = 'seen' where false", true),
    ("select count(*) from meters.readings_2026_01_a", false),
    ("select count(*) from meters.readings", false),
];

#[test]
fn partitions_of_partitions_go_out_and_back() {
    let fixture = Fixture::two_clusters("", include_str!("partitions/split.toml"));
    create_roles(&fixture, ROLES);
    // An exclusion constraint over an integer needs it, on the target, too.
    execute(&fixture.source, "create extension btree_gist");
    execute(&fixture.source, include_str!("partitions/schema.sql"));
    std::fs::write(fixture.folder.path().join("queries.sql"), QUERIES).expect("written");
    let application = Application::new(&fixture, METERS.role);
    let load = Load::of_statements(&application, LOAD);
    let auditor = Application::new(&fixture, "meter_audit");
    Journey::new(&METERS, &fixture, &application)
        .with_checks(|side| {
            for (statement, may) in AUDIT {
                let refused = try_execute(auditor.url(side), statement);
                assert_eq!(refused.is_ok(), may, "on the {side}: {statement}: {refused:?}");
            }
        })
        .goes(load, End::Abort);
    let places = "select tableoid::regclass::text from meters.readings where note like 'load %' group by 1 order by 1";
    assert_eq!(strings(&fixture.source, places), ["meters.readings_2026_02_measured"]);
}
