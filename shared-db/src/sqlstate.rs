//! What each SQLSTATE says about who must act: <https://www.postgresql.org/docs/current/errcodes-appendix.html>.

/// Who must act on an error of Postgres.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Blame {
    /// The connection's prepared statements no longer fit the schema, or are gone. The statement has done nothing.
    Statements,
    /// The connection is over.
    Connection,
    /// The server's state or the operator's set-up. A retry later may succeed.
    Server,
    /// The statement or its values.
    Request,
}

/// SQLSTATEs and classes of them. The longest that fits decides; where none fits, it is [`Blame::Request`].
const TABLE: [(&str, Blame); 19] = [
    ("08", Blame::Connection), // connection exception
    (OUTDATED_OR_UNSUPPORTED, Blame::Statements),
    (READ_ONLY, Blame::Server),
    ("25P03", Blame::Connection), // idle in a transaction for too long
    ("25P04", Blame::Connection), // a transaction took too long
    ("26000", Blame::Statements), // no such prepared statement: DEALLOCATE, or a pooler gave another session
    ("28", Blame::Server),        // invalid authorisation
    ("3D000", Blame::Server),     // no such database
    ("40", Blame::Server),        // transaction rollback: serialisation failure, deadlock
    ("42501", Blame::Server),     // no right to the object
    ("42P01", Blame::Server),     // no such table: not migrated
    ("42P05", Blame::Connection), // the prepared statement exists already: a pooler gave another session
    ("53", Blame::Server),        // insufficient resources: disk full, too many connections
    ("55006", Blame::Server),     // the object is in use
    (LOCK_NOT_AVAILABLE, Blame::Server),
    ("57", Blame::Server),      // operator intervention: statement_timeout
    ("57P", Blame::Connection), // shut down, crashed, starting, dropped, idle for too long
    ("58", Blame::Server),      // system error outside Postgres
    ("72000", Blame::Server),   // snapshot too old
];

/// The server takes no writes: a standby, during a failover, or an operator's setting.
pub(crate) const READ_ONLY: &str = "25006";

/// The result of a prepared statement has another type than when it was prepared; or the server lacks a feature.
pub(crate) const OUTDATED_OR_UNSUPPORTED: &str = "0A000";

/// Whether a rule of the schema refuses by this SQLSTATE: a constraint, or a rule that a trigger stands for. The standard
/// leaves class RU to implementations, and Postgres does not use it.
pub(crate) fn is_of_a_rule(code: &str) -> bool {
    code.starts_with("23") || code.starts_with("RU")
}

/// A lock was not available in time: another transaction holds the row.
pub(crate) const LOCK_NOT_AVAILABLE: &str = "55P03";

/// Who must act on an error with this SQLSTATE.
pub(crate) fn blame(code: &str) -> Blame {
    let fitting = TABLE.iter().filter(|(class, _)| code.starts_with(class));
    fitting.max_by_key(|(class, _)| class.len()).map_or(Blame::Request, |(_, blame)| *blame)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_specific_entry_decides() {
        for (code, expected) in [
            ("57014", Blame::Server),
            ("57P01", Blame::Connection),
            ("08006", Blame::Connection),
            ("0A000", Blame::Statements),
            ("26000", Blame::Statements),
            ("40P01", Blame::Server),
            ("42501", Blame::Server),
            ("42703", Blame::Request),
            ("55P03", Blame::Server),
            ("23505", Blame::Request),
            ("RU001", Blame::Request),
        ] {
            assert_eq!(blame(code), expected, "{code}");
        }
    }
}
