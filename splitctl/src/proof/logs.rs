//! Statements in logs of Postgres: as `stderr`, `csv` or `json`, from `log_statement` or `log_min_duration_statement`.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader, Result};
use std::path::Path;

use serde_json::Value;

use crate::audit::lexer::without_values;

/// Whose statements are wanted.
pub(super) struct Of<'a> {
    pub role: &'a str,
    pub database: &'a str,
}

/// Columns of the `csv` format.
const USER: usize = 1;
const DATABASE: usize = 2;
const MESSAGE: usize = 13;
const QUERY: usize = 19;

/// Passes each statement of the role in the database to `found`. A log as `stderr` names the role only if `log_line_prefix`
/// holds `%u`; if no line names the role, all statements count.
pub(super) fn read(path: &Path, of: &Of<'_>, found: &mut dyn FnMut(&str)) -> Result<()> {
    let mut lines = Lines(BufReader::new(File::open(path)?));
    match path.extension().and_then(|ending| ending.to_str()) {
        Some("csv") => read_csv(&mut lines, of, found),
        Some("json") => read_json(&mut lines, of, found),
        _ => read_stderr(&mut lines, of, found),
    }
}

/// Lines with their ends. Bytes that are no text become question marks.
struct Lines<R>(R);

impl<R: BufRead> Lines<R> {
    fn next(&mut self) -> Result<Option<String>> {
        let mut bytes = Vec::new();
        let length = self.0.read_until(b'\n', &mut bytes)?;
        Ok((length > 0).then(|| String::from_utf8_lossy(&bytes).into_owned()))
    }
}

fn read_stderr(lines: &mut Lines<impl BufRead>, of: &Of<'_>, found: &mut dyn FnMut(&str)) -> Result<()> {
    let (mut of_role, mut of_any) = (BTreeMap::new(), BTreeMap::new());
    let mut open: Option<(bool, String)> = None;
    let mut keep = |entry: Option<(bool, String)>| {
        if let Some((names_role, text)) = entry {
            (if names_role { &mut of_role } else { &mut of_any }).entry(without_values(&text)).or_insert(text);
        }
    };
    while let Some(line) = lines.next()? {
        // A tab begins each further line of a message.
        if let (Some(more), Some((_, text))) = (line.strip_prefix('\t'), &mut open) {
            text.push_str(more);
            continue;
        }
        keep(open.take());
        let of_error = line.split_once("STATEMENT:  ").map(|(prefix, text)| (prefix, Some(text)));
        let entry = of_error.or_else(|| line.split_once("LOG:  ").map(|(prefix, message)| (prefix, statement(message))));
        if let Some((prefix, text)) = entry {
            open = text.map(|text| (names(prefix, of.role), text.to_owned()));
        }
    }
    keep(open);
    let wanted = if of_role.is_empty() { of_any } else { of_role };
    wanted.values().for_each(|text| found(text));
    Ok(())
}

fn read_csv(lines: &mut Lines<impl BufRead>, of: &Of<'_>, found: &mut dyn FnMut(&str)) -> Result<()> {
    let mut record = String::new();
    while let Some(line) = lines.next()? {
        record.push_str(&line);
        // A record goes on while a quote is open.
        if record.matches('"').count().is_multiple_of(2) {
            let fields = fields(&record);
            let field = |number: usize| fields.get(number).map_or("", String::as_str);
            if field(USER) == of.role && field(DATABASE) == of.database {
                statement(field(MESSAGE)).into_iter().for_each(&mut *found);
                Some(field(QUERY)).filter(|text| !text.is_empty()).into_iter().for_each(&mut *found);
            }
            record.clear();
        }
    }
    Ok(())
}

fn read_json(lines: &mut Lines<impl BufRead>, of: &Of<'_>, found: &mut dyn FnMut(&str)) -> Result<()> {
    while let Some(line) = lines.next()? {
        let Ok(entry) = serde_json::from_str::<Value>(&line) else { continue };
        let field = |name: &str| entry[name].as_str().unwrap_or_default();
        if field("user") == of.role && field("dbname") == of.database {
            statement(field("message")).into_iter().for_each(&mut *found);
            Some(field("statement")).filter(|text| !text.is_empty()).into_iter().for_each(&mut *found);
        }
    }
    Ok(())
}

/// The statement of a message: `statement: …`, or `execute <name>: …` of the extended protocol, behind a duration or not.
fn statement(message: &str) -> Option<&str> {
    let message = match message.strip_prefix("duration: ") {
        Some(rest) => rest.split_once(" ms  ")?.1,
        None => message,
    };
    let (kind, text) = message.split_once(": ")?;
    let is_statement = kind == "statement" || ["execute ", "parse ", "bind "].iter().any(|start| kind.starts_with(start));
    is_statement.then_some(text)
}

/// Whether the prefix of a line names the role, as a word of its own.
fn names(prefix: &str, role: &str) -> bool {
    let part = |character: char| character.is_alphanumeric() || character == '_';
    prefix.match_indices(role).any(|(at, _)| !prefix[..at].ends_with(part) && !prefix[at + role.len()..].starts_with(part))
}

/// The fields of a record of CSV.
fn fields(record: &str) -> Vec<String> {
    let (mut fields, mut field, mut quoted) = (Vec::new(), String::new(), false);
    let mut characters = record.trim_end_matches(['\r', '\n']).chars().peekable();
    while let Some(character) = characters.next() {
        match character {
            '"' if quoted && characters.next_if_eq(&'"').is_some() => field.push('"'),
            '"' => quoted = !quoted,
            ',' if !quoted => fields.push(std::mem::take(&mut field)),
            other => field.push(other),
        }
    }
    fields.push(field);
    fields
}

#[cfg(test)]
mod tests {
    use super::*;

    const OF: Of<'_> = Of { role: "app", database: "shop" };

    type Read<'a> = fn(&mut Lines<&'a [u8]>, &Of<'_>, &mut dyn FnMut(&str)) -> Result<()>;

    fn found<'a>(read: Read<'a>, log: &'a str) -> Vec<String> {
        let mut found = Vec::new();
        read(&mut Lines(log.as_bytes()), &OF, &mut |text| found.push(text.trim().to_owned())).expect("read");
        found.sort();
        found
    }

    #[test]
    fn a_log_as_text_has_the_statements_of_the_role() {
        let log = "2026-01-01 [7] app@shop LOG:  statement: select 1\n\
                   2026-01-01 [7] app@shop LOG:  duration: 0.123 ms  execute sqlx_s_1: select a\n\tfrom t\n\
                   2026-01-01 [7] app@shop DETAIL:  Parameters: $1 = '5'\n\
                   2026-01-01 [7] app@shop LOG:  duration: 0.1 ms\n\
                   2026-01-01 [8] app_other@shop LOG:  statement: select 2\n\
                   2026-01-01 [8] app@shop ERROR:  relation\n\
                   2026-01-01 [8] app@shop STATEMENT:  select b\n";
        assert_eq!(found(read_stderr, log), ["select 1", "select a\nfrom t", "select b"]);
        assert_eq!(found(read_stderr, "LOG:  duration: 1 ms  parse <unnamed>: select 4"), ["select 4"]);
    }

    #[test]
    fn a_log_as_csv_or_json_has_them_too() {
        let csv =
            |user: &str, message: &str| format!("t,{user},shop,7,,s,1,SELECT,t,3/0,0,LOG,00000,{message},,,,,,,,,app\n");
        let log = csv("app", "\"statement: select \"\"a\"\",\n 1\"") + &csv("other", "statement: select 2");
        assert_eq!(found(read_csv, &log), ["select \"a\",\n 1"]);
        let log = "{\"user\":\"app\",\"dbname\":\"shop\",\"message\":\"execute <unnamed>: select 1\"}\n\
                   {\"user\":\"app\",\"dbname\":\"other\",\"message\":\"statement: select 2\"}\nno json\n";
        assert_eq!(found(read_json, log), ["select 1"]);
    }
}
