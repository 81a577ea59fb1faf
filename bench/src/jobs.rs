//! The jobs: four requests, each also as a script for pgbench.

use std::ops::RangeInclusive;

use bench::statements::{ORDER_CREATE, ORDER_PAGE, ORDER_READ, POINT_READ, fill};
use serde::Serialize;

/// Users in the database.
pub const USERS: u64 = 100_000;
/// Users who may order: those with the lowest numbers. The others are deactivated.
pub const ACTIVE_USERS: u64 = 95_000;
/// Users with about 30 orders each: those with the lowest numbers.
pub const REGULARS: u64 = 10_000;
/// Orders in the database at the start.
pub const ORDERS: u64 = 500_000;

/// Rows that the service reads for a page: one more than the page shows.
pub const PAGE_ROWS: usize = 21;

/// The id of user or order n is this and the 12 digits of [`FIRST`] + n, which pgbench can make, too.
pub const ID_PREFIX: &str = "01900000-0000-7000-8000-";
/// Gives every id 12 digits.
pub const FIRST: u64 = 100_000_000_000;

/// The id as an SQL expression over a number that includes [`FIRST`].
const ID: &str = "('01900000-0000-7000-8000-' || :n)::uuid";
/// Stands for the digits of an id in a request's text.
const DIGITS: &str = "############";

/// A kind of request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Job {
    /// Reads a user.
    PointRead,
    /// Reads an order with its items and its customer.
    OrderRead,
    /// Reads the newest 20 orders of a user who has more.
    OrderPage,
    /// Places an order of two items.
    OrderCreate,
}

impl Job {
    pub const ALL: [Self; 4] = [Self::PointRead, Self::OrderRead, Self::OrderPage, Self::OrderCreate];

    /// The name in tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::PointRead => "point read",
            Self::OrderRead => "order read",
            Self::OrderPage => "order page",
            Self::OrderCreate => "order create",
        }
    }

    /// The range of the users or orders that it reads or writes, plus [`FIRST`].
    pub fn numbers(self) -> RangeInclusive<u64> {
        let last = match self {
            Self::PointRead => USERS,
            Self::OrderRead => ORDERS,
            Self::OrderPage => REGULARS,
            Self::OrderCreate => ACTIVE_USERS,
        };
        FIRST + 1..=FIRST + last
    }

    /// The status of a good answer.
    pub fn status(self) -> u16 {
        if self == Self::OrderCreate { 201 } else { 200 }
    }

    /// The path of the request for the user or order `n`, a number or [`DIGITS`].
    pub fn path(self, n: impl std::fmt::Display) -> String {
        match self {
            Self::PointRead => format!("/users/{ID_PREFIX}{n}"),
            Self::OrderRead => format!("/orders/{ID_PREFIX}{n}"),
            Self::OrderPage => format!("/orders?user_id={ID_PREFIX}{n}&limit=20"),
            Self::OrderCreate => "/orders".to_owned(),
        }
    }

    /// The body of the request, empty for a `GET`.
    pub fn body(self, n: impl std::fmt::Display) -> String {
        match self {
            Self::OrderCreate => {
                let tea = r#"{"sku":"tea-0001","quantity":2,"unit_price_minor":350}"#;
                let cup = r#"{"sku":"cup-0002","quantity":1,"unit_price_minor":1200}"#;
                format!(r#"{{"user_id":"{ID_PREFIX}{n}","currency":"EUR","items":[{tea},{cup}]}}"#)
            }
            _ => String::new(),
        }
    }

    /// The request without the digits.
    pub fn request(self) -> Request {
        let (path, body) = (self.path(DIGITS), self.body(DIGITS));
        Request::new(&match self {
            Self::OrderCreate => format!(
                "POST {path} HTTP/1.1\r\nhost: bench\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
                body.len()
            ),
            _ => format!("GET {path} HTTP/1.1\r\nhost: bench\r\n\r\n"),
        })
    }

    /// The service's statement in pgbench's variables: `:n` is one of [`Job::numbers`], `:local` the dials' position.
    pub fn statement(self) -> String {
        match self {
            Self::PointRead => fill(POINT_READ, &[ID]),
            Self::OrderRead => fill(ORDER_READ, &[":local", ID]),
            Self::OrderPage => fill(ORDER_PAGE, &[":local", "'ffffffff-ffff-ffff-ffff-ffffffffffff'", ":rows", ID]),
            Self::OrderCreate => fill(ORDER_CREATE, &NEW_ORDER),
        }
    }

    /// The statement as a script for pgbench.
    pub fn script(self) -> String {
        let (numbers, statement) = (self.numbers(), self.statement());
        format!(
            "\\set n random({}, {})\n\\set rows {PAGE_ROWS}\n\\set local true\n{statement};\n",
            numbers.start(),
            numbers.end()
        )
    }
}

/// pgbench's values for the parameters of the statement that places an order. The larger ones depend on `:n`, so Postgres
/// evaluates them each time, as it does the service's.
const NEW_ORDER: [&str; 18] = [
    // A UUIDv7: milliseconds, version, random bits.
    "encode(set_bit(set_bit(overlay(uuid_send(gen_random_uuid()) placing substring(int8send(
        (extract(epoch from clock_timestamp()) * 1000)::bigint) from 3) from 1 for 6), 52, 1), 53, 1), 'hex')::uuid",
    ID,
    "'placed'",
    "'EUR'",
    "1900",
    "statement_timestamp()",
    "statement_timestamp()",
    "1",
    "nullif(:n::text, :n::text)",
    "nullif(:n::text, :n::text)::bytea",
    "array['tea-0001', 'cup-0002']",
    "array[2, 1]",
    "array[350, 1200]",
    "'order.placed.v1'",
    r#"('{"id": "01a00000-0000-7000-8000-' || :n || '", "user_id": "01900000-0000-7000-8000-' || :n || '",
        "status": "placed", "currency": "EUR", "items": [
        {"line_no": 1, "sku": "tea-0001", "quantity": 2, "unit_price_minor": 350},
        {"line_no": 2, "sku": "cup-0002", "quantity": 1, "unit_price_minor": 1200}],
        "total_minor": 1900, "placed_at": "2026-01-01T00:00:00.000001Z",
        "updated_at": "2026-01-01T00:00:00.000001Z", "version": 1}')::jsonb"#,
    ":local",
    // Nobody shows a token, or traces.
    "nullif(:n::text, :n::text)",
    "nullif(:n::text, :n::text)",
];

/// A request that is sent again and again, each time with other digits.
#[derive(Debug, Clone)]
pub struct Request {
    bytes: Vec<u8>,
    at: usize,
}

impl Request {
    fn new(text: &str) -> Self {
        let at = text.find(DIGITS).expect("every request names a user or an order");
        Self { bytes: text.as_bytes().to_vec(), at }
    }

    /// The request for the user or order with this number.
    pub fn with(&mut self, mut n: u64) -> &[u8] {
        for digit in self.bytes[self.at..self.at + DIGITS.len()].iter_mut().rev() {
            *digit = b"0123456789"[(n % 10) as usize];
            n /= 10;
        }
        &self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_parameter_of_every_statement_has_a_value() {
        for job in Job::ALL {
            let statement = job.statement();
            assert!(!statement.contains('$'), "{statement}");
        }
    }

    #[test]
    fn a_request_names_the_number_it_is_made_with() {
        for job in Job::ALL {
            let mut request = job.request();
            let text = String::from_utf8(request.with(FIRST + 42).to_vec()).expect("text");
            assert!(text.contains(&format!("{ID_PREFIX}100000000042")), "{text}");
        }
    }
}
