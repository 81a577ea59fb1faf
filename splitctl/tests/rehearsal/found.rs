//! The rehearsal finds what no catalog shows: each fault is planted, and each is named.

use super::fixture::{OWNER, execute};
use super::shop::{MANIFEST, assert_nothing_is_left, record, shop};

/// A trigger whose function builds the name of a helper; a policy whose function reads a table that stays; a function that
/// is found by the role's search path; a type that only a statement names; rights on a schema and on a function.
const FAULTS: &str = r#"
    create schema hidden;
    create function hidden.discount(numeric) returns numeric language sql as 'select $1 * 0.9';
    create function price() returns trigger language plpgsql as $$
    declare
        reduced numeric;
    begin
        execute format('select %I.discount($1)', 'hid' || 'den') into reduced using new.amount;
        new.amount := reduced;
        return new;
    end $$;
    create trigger lines_price before insert on lines for each row execute function price();
    create function is_known() returns boolean language plpgsql stable as $$
    declare
        known boolean;
    begin
        execute 'select exists (select from cust' || 'omers)' into known;
        return known;
    end $$;
    create policy known_customers on payments as restrictive using (is_known());
    create function "Shop tools".shorten(text) returns text language sql as 'select left($1, 3)';
    create schema kinds;
    create type kinds.colour as enum ('red', 'blue');
    create schema ready;
    create function ready.now() returns timestamptz language sql as 'select pg_catalog.now()';
    create function ready.secret() returns text language sql as $$ select 'x' $$;
    revoke execute on function ready.secret() from public;
    grant execute on function ready.secret() to shop_svc;
    grant usage on schema hidden, kinds, ready to shop_svc;
    grant select on customers to shop_svc;
    alter role shop_svc in database before set statement_timeout = '30s';
"#;

/// The target has the schema already. It lacks the rights on it.
const READY: &str = r"
    create schema ready;
    create function ready.now() returns timestamptz language sql as 'select pg_catalog.now()';
    create schema open;
    grant usage on schema open to shop_svc;
";

const QUERIES: &str = r"
    select o.id, c.name from orders o join customers c on c.id = o.customer_id where o.id = $1;
    select shorten(note) from orders where id = $1;
    select id from orders where note = ('red'::kinds.colour)::text;
    select id, ready.now() from orders;
    select id, note from orders where id = $1;
";

#[test]
fn each_planted_fault_is_named() {
    let fixture = shop();
    execute(&fixture.source, FAULTS);
    execute(&fixture.target, READY);
    let manifest = MANIFEST.replace("target = \"$TARGET_URL\"", "target = \"$TARGET_URL\"\n    queries = [\"queries.sql\"]");
    std::fs::write(fixture.folder.path().join("split.toml"), manifest).expect("written");
    std::fs::write(fixture.folder.path().join("queries.sql"), QUERIES).expect("written");
    let text = fixture.refused(&["rehearse", OWNER], "went out, back and out again, and found");
    let record = record(&fixture);
    let findings = record["findings"].as_array().expect("findings").iter();
    let errors: Vec<&str> =
        findings.filter(|finding| finding["weight"] == "error").filter_map(|finding| finding["text"].as_str()).collect();
    for (fault, parts) in [
        ("a body that builds a name", ["insert on lines", "hidden"]),
        ("a policy's function that reads a table that stays", ["on payments", "customers"]),
        ("a statement that uses a table that stays", ["queries.sql", "customers"]),
        ("a function that the search path finds", ["queries.sql", "shorten"]),
        ("a type that only a statement names", ["queries.sql", "kinds"]),
        ("a right on a schema", ["queries.sql", "ready"]),
    ] {
        let named = |error: &&&str| parts.iter().all(|part| error.contains(part));
        assert!(errors.iter().find(named).is_some(), "{fault} is not among {errors:#?}\n{text}");
    }
    // What works is no finding.
    assert!(errors.iter().all(|error| !error.contains("insert on orders") && !error.contains("on refunds")), "{errors:#?}");
    let settings = record["plan"].to_string();
    assert!(settings.contains("statement_timeout") && settings.contains("search_path"), "{settings}");
    let proofs = record["proofs"].as_array().expect("proofs");
    assert_eq!(proofs.len(), 4);
    assert_eq!(proofs[0]["statements"], 5, "{proofs:#?}");
    assert_nothing_is_left(&fixture.target);
}
