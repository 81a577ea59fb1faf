//! A sample of rows is closed under foreign keys, whatever their shape.

use super::fixture::{OWNER, strings};
use super::shop::{record, shop};

/// Keys to the table itself, keys in a circle, keys from and to partitioned tables, and a key of two columns.
const KEYS: &str = "
    select format('%s %s', conrelid::regclass, conname)
    from pg_constraint
    where contype = 'f'
      and conparentid = 0
      and convalidated
      and (conrelid = any ($1) or $1 is null)
    order by 1";

#[test]
fn a_sample_brings_the_rows_that_its_keys_need() {
    let fixture = shop();
    fixture.done(&["rehearse", OWNER, "--rows", "sample", "--keep"]);
    let record = record(&fixture);
    assert_eq!(record["unchecked"], serde_json::json!([]), "a key does not hold among the rows");
    assert_eq!(record["rows"]["rows"], "sample");
    let server = fixture.target.rsplit_once('/').expect("a database").0;
    let [source, target] = ["source", "target"].map(|side| format!("{server}/splitctl_rehearsal_{OWNER}_{side}"));
    // The server checks a key when it creates it: those that are there hold.
    let all = KEYS.replace("$1", "null::oid[]");
    let staying = KEYS.replace("$1", "'{customers}'::regclass[]::oid[]");
    let mut moved = strings(&fixture.source, &all);
    moved.retain(|key| key != "orders orders_customer_id_fkey" && !key.starts_with("customers "));
    assert_eq!(strings(&target, &all), moved);
    assert_eq!(strings(&source, &staying), strings(&fixture.source, &staying));
    let rows = "select format('%s', least(1, count(*))) from orders where replaces is not null
        union all select format('%s', count(*) between 1000 and 11999) from lines
        union all select format('%s', count(*) between 1000 and 2999) from payments
        union all select format('%s', count(*) between 500 and 1499) from refunds";
    assert_eq!(strings(&target, rows), ["1", "t", "t", "t"]);
    assert_eq!(strings(&source, "select format('%s', count(*) between 1000 and 4000) from customers"), ["t"]);
    // The next rehearsal drops what this one has kept.
    fixture.done(&["rehearse", OWNER, "--rows", "none"]);
    super::shop::assert_nothing_is_left(&fixture.target);
}
