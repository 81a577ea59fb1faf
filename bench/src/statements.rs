//! The services' own statements, for pgbench and for `bench-peer`. The services put the two selects together from parts, so
//! the bench has them as a whole, and a test compares them with what the services run.

/// Reads a user by id.
pub const POINT_READ: &str = include_str!("../statements/point_read.sql");
/// Reads an order with its items and its customer by id.
pub const ORDER_READ: &str = include_str!("../statements/order_read.sql");
/// Reads a page of a user's orders.
pub const ORDER_PAGE: &str = include_str!("../statements/order_page.sql");
/// Places an order.
pub const ORDER_CREATE: &str = include_str!("../../services/orders/src/db/orders/insert.sql");

/// The statement with `values` in the places of its parameters `$1`, `$2`, …
///
/// # Panics
/// If a parameter has no value.
pub fn fill(statement: &str, values: &[&str]) -> String {
    // In one pass: a value may itself contain a parameter.
    let mut parts = statement.split('$');
    let mut filled = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let digits = part.bytes().take_while(u8::is_ascii_digit).count();
        let number: usize = part[..digits].parse().expect("a parameter has a number");
        filled += values[number - 1];
        filled += &part[digits..];
    }
    filled
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;

    fn words(statement: &str) -> Vec<&str> {
        statement.split_whitespace().collect()
    }

    #[test]
    fn each_statement_is_one_that_its_service_runs() {
        let services = Path::new(env!("CARGO_MANIFEST_DIR")).join("../services");
        for (service, name, statement) in
            [("users", "point_read", POINT_READ), ("orders", "order_read", ORDER_READ), ("orders", "order_page", ORDER_PAGE)]
        {
            let known = fs::read_dir(services.join(service).join(".sqlx")).expect("query data").flatten().any(|file| {
                let text = fs::read_to_string(file.path()).expect("query data");
                let data: serde_json::Value = serde_json::from_str(&text).expect("JSON");
                words(data["query"].as_str().expect("a statement")) == words(statement)
            });
            assert!(
                known,
                "{service} does not run bench/statements/{name}.sql any more: copy its new statement into that file"
            );
        }
    }

    #[test]
    fn a_value_may_contain_a_parameter() {
        assert_eq!(fill("select $2, $1, $10", &["$2", "b", "", "", "", "", "", "", "", "j"]), "select b, $2, j");
    }
}
