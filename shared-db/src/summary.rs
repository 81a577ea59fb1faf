//! What a statement does, in a few words without a value: `INSERT orders INSERT order_items`. It is `db.query.summary` of
//! <https://opentelemetry.io/docs/specs/semconv/db/database-spans/>.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock, PoisonError, RwLock};

/// The longest summary, in bytes.
const LONGEST: usize = 255;
/// The most texts that are remembered. The services' statements are constants, a few dozen of them.
const MOST: usize = 1000;

/// A statement, in a few words.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Summary {
    /// What it does: the first operation that writes, or else SELECT.
    pub(crate) operation: &'static str,
    /// All its operations, each with the tables that it touches.
    pub(crate) text: String,
}

/// The summary of the statement with this text, which is read once: reading it takes as long as a request.
pub(crate) fn summary_of(sql: &str) -> Arc<Summary> {
    static KNOWN: LazyLock<RwLock<HashMap<Box<str>, Arc<Summary>>>> = LazyLock::new(RwLock::default);
    if let Some(known) = KNOWN.read().unwrap_or_else(PoisonError::into_inner).get(sql) {
        return known.clone();
    }
    let summary = Arc::new(summarize(sql));
    let mut known = KNOWN.write().unwrap_or_else(PoisonError::into_inner);
    if known.len() < MOST {
        known.insert(sql.into(), summary.clone());
    }
    summary
}

/// Reads the text of a statement: lower-case keywords, and no table called like one.
fn summarize(sql: &str) -> Summary {
    let words: Vec<&str> = words(sql).collect();
    let at = |index: usize| words.get(index).copied().unwrap_or_default();
    // A table that the statement itself makes: `with name as (`.
    let is_own = |name: &str| {
        (0..words.len())
            .any(|index| at(index) == name && at(index + 1) == "as" && ["(", "materialized"].contains(&at(index + 2)))
    };
    let mut steps: Vec<(&'static str, Vec<&str>)> = Vec::new();
    let mut current = None;
    let mut outer = Vec::new();
    for (index, word) in words.iter().enumerate() {
        let before = index.checked_sub(1).map_or("", at);
        let begins = operation(word).filter(|_| !["for", "do", "key"].contains(&before));
        match (*word, begins) {
            ("(", _) => outer.push(current),
            (")", _) => current = outer.pop().flatten(),
            (_, Some(operation)) => {
                current = Some(steps.len());
                steps.push((operation, Vec::new()));
            }
            _ => {}
        }
        let (table, behind) = (at(index + 1), at(index + 2));
        let names_table = match *word {
            "into" => true,
            "update" => begins.is_some(),
            // What a parenthesis follows is a function.
            "from" | "join" => before != "distinct" && behind != "(",
            _ => false,
        };
        if names_table
            && table != "("
            && !is_own(table)
            && let Some((_, tables)) = current.and_then(|step: usize| steps.get_mut(step))
            && !tables.contains(&table)
        {
            tables.push(table);
        }
    }
    finish(&steps)
}

fn operation(word: &str) -> Option<&'static str> {
    match word {
        "select" => Some("SELECT"),
        "insert" => Some("INSERT"),
        "update" => Some("UPDATE"),
        "delete" => Some("DELETE"),
        _ => None,
    }
}

fn finish(steps: &[(&'static str, Vec<&str>)]) -> Summary {
    let mut text = String::new();
    let mut seen = Vec::new();
    for step in steps {
        // What reads only what the statement itself has made says nothing. What comes twice is said once.
        if step.1.is_empty() || seen.contains(&step) {
            continue;
        }
        seen.push(step);
        let (operation, tables) = step;
        let more = format!("{}{operation} {}", if text.is_empty() { "" } else { " " }, tables.join(" "));
        if text.len() + more.len() > LONGEST {
            break;
        }
        text += &more;
    }
    let writes = steps.iter().map(|(operation, _)| *operation).find(|operation| *operation != "SELECT");
    let operation = writes.unwrap_or("SELECT");
    if text.is_empty() {
        operation.clone_into(&mut text);
    }
    Summary { operation, text }
}

/// The words and the parentheses of a statement, without its strings, quoted names and comments.
fn words(sql: &str) -> impl Iterator<Item = &str> {
    let mut rest = sql;
    std::iter::from_fn(move || {
        loop {
            let first = rest.chars().next()?;
            let length = match first {
                '\'' | '"' => rest[1..].find(first).map_or(rest.len(), |end| end + 2),
                '-' if rest.starts_with("--") => rest.find('\n').unwrap_or(rest.len()),
                _ if is_part(first) => rest.find(|letter| !is_part(letter)).unwrap_or(rest.len()),
                _ => first.len_utf8(),
            };
            let (word, behind) = rest.split_at(length);
            rest = behind;
            if is_part(first) || matches!(first, '(' | ')') {
                return Some(word);
            }
        }
    })
}

fn is_part(letter: char) -> bool {
    letter.is_alphanumeric() || matches!(letter, '_' | '.' | '$')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(sql: &str, operation: &'static str, text: &str) {
        assert_eq!(summarize(sql), Summary { operation, text: text.to_owned() }, "{sql}");
    }

    #[test]
    fn a_statement_is_told_by_its_operations_and_tables() {
        check("select id, email from users where id = $1", "SELECT", "SELECT users");
        check("delete from users_parked_events where id = $1", "DELETE", "DELETE users_parked_events");
        check("select version() as \"version!\"", "SELECT", "SELECT");
        check(
            "select o.id from orders o
            cross join lateral (
                select coalesce(array_agg(l.sku), '{}') as skus
                from (select sku from order_items where order_id = o.id order by line_no) l
            ) i
            left join customers c on c.id = o.user_id and $1::boolean",
            "SELECT",
            "SELECT orders customers SELECT order_items",
        );
    }

    #[test]
    fn a_statement_that_makes_its_own_tables_is_told_by_the_others() {
        check(
            "with open as (select open_count from open_orders where user_id = $1),
            changed as (
                update users set status = $2 where id = $1 and not exists (select 1 from open) returning id
            ),
            event as (insert into user_events (user_id) select id from changed)
            select exists (select 1 from changed) as \"done!\"",
            "UPDATE",
            "SELECT open_orders UPDATE users INSERT user_events",
        );
        check(
            "with recursive page as (
                (select id from user_events order by epoch limit 1)
                union all
                select next.id from page cross join lateral (select id from user_events limit 1) next
            )
            select id from page left join users_cursors mark on mark.log = 'own log, from archived'",
            "SELECT",
            "SELECT user_events SELECT users_cursors",
        );
    }

    #[test]
    fn words_that_are_no_operation_are_not_told() {
        check(
            "insert into users_cursors (log, cursor) values ($1, 'it''s from nowhere') -- from here
            on conflict (log) do update set cursor = excluded.cursor",
            "INSERT",
            "INSERT users_cursors",
        );
        check("select id from orders where id = $1 for update", "SELECT", "SELECT orders");
        check("select extract(year from age($1)) from orders where a is distinct from b.c", "SELECT", "SELECT orders");
        check("insert into replica select id from unnest($1::uuid[]) as news (id)", "INSERT", "INSERT replica");
    }
}
