//! The relations and functions that the text of a function mentions. PL/pgSQL records no dependencies, so this reads words.
//! It prefers a coupling too many to one too few, and leaves out names in comments and messages.

use std::collections::{BTreeMap, BTreeSet};

use super::lexer::{Token, tokens};
use crate::names::Qualified;

/// Words that stand before the name of a table.
const BEFORE_TABLES: [&str; 8] = ["from", "join", "into", "update", "only", "table", "using", "truncate"];
/// Words that end a list of tables.
const AFTER_TABLES: [&str; 11] =
    ["where", "group", "having", "order", "limit", "on", "set", "values", "select", "returning", "loop"];

/// The names that a body mentions.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Mentions {
    /// Names that may be relations, and whether the name stands where only a relation can.
    pub relations: BTreeMap<Name, bool>,
    /// Names before an opening bracket.
    pub functions: BTreeSet<Name>,
}

/// A name as the body writes it, with or without its schema.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Name {
    schema: Option<String>,
    name: String,
}

impl Name {
    /// The name without its schema.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether the body leaves it to the search path in which schema the object is.
    pub fn needs_path(&self) -> bool {
        self.schema.is_none()
    }

    /// Whether it may mean this object. Without a schema it may mean one in any, since the caller sets the search path.
    pub fn may_mean(&self, other: &Qualified) -> bool {
        self.name == other.name && self.schema.as_ref().is_none_or(|schema| *schema == other.schema)
    }
}

/// Reads a body. `is_schema` distinguishes a schema before a dot from a table or variable.
pub fn read(body: &str, is_schema: &dyn Fn(&str) -> bool) -> Mentions {
    let tokens: Vec<Token> = tokens(body).collect();
    let mut mentions = Mentions::default();
    collect(&tokens, is_schema, false, &mut mentions);
    // Literals hold SQL only in a body that executes them; elsewhere they are messages and values.
    if tokens.iter().any(|token| matches!(token, Token::Word(word) if word == "execute")) {
        for token in &tokens {
            if let Token::Literal(text) = token {
                let inner: Vec<Token> = self::tokens(text).collect();
                // A text that is a name and nothing else is what `format` puts into a statement.
                let is_name = matches!(inner[..], [Token::Word(_)] | [Token::Word(_), Token::Other('.'), Token::Word(_)]);
                collect(&inner, is_schema, !is_name, &mut mentions);
            }
        }
    }
    mentions
}

fn collect(tokens: &[Token], is_schema: &dyn Fn(&str) -> bool, in_text: bool, mentions: &mut Mentions) {
    let word = |at: Option<usize>| match at.and_then(|at| tokens.get(at)) {
        Some(Token::Word(word)) => Some(word.as_str()),
        _ => None,
    };
    let is = |at: Option<usize>, character: char| at.and_then(|at| tokens.get(at)) == Some(&Token::Other(character));
    let mut in_list = false;
    for (at, token) in tokens.iter().enumerate() {
        in_list = match token {
            Token::Word(word) if BEFORE_TABLES.contains(&word.as_str()) => true,
            Token::Word(word) if AFTER_TABLES.contains(&word.as_str()) => false,
            Token::Other(';') => false,
            _ => in_list,
        };
        let (Some(name), before) = (word(Some(at)), at.checked_sub(1)) else { continue };
        let mut first = at;
        let mut schema = None;
        if is(before, '.') {
            match word(at.checked_sub(2)).filter(|schema| is_schema(schema)) {
                Some(known) => (schema, first) = (Some(known.to_owned()), at - 2),
                None => continue, // A column of a table or record.
            }
        }
        let leading = word(first.checked_sub(1));
        let name = Name { schema, name: name.to_owned() };
        if is(Some(at + 1), '(') && leading != Some("into") {
            mentions.functions.insert(name);
        } else if leading != Some("as") {
            let listed = in_list && is(first.checked_sub(1), ',');
            let led = leading.is_some_and(|word| BEFORE_TABLES.contains(&word));
            // `orders.id`, `orders%rowtype`
            let qualifies = is(Some(at + 1), '.') || is(Some(at + 1), '%');
            let certain = listed || led || qualifies || name.schema.is_some();
            if certain || !in_text {
                *mentions.relations.entry(name).or_default() |= certain;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn relations(body: &str) -> Vec<String> {
        let wanted = ["orders", "users", "Odd name"];
        let mentions = read(body, &|schema| schema == "shop");
        let known = mentions.relations.into_keys().filter(|name| wanted.contains(&name.name.as_str()));
        known.map(|name| format!("{}{}", name.schema.map(|schema| schema + ".").unwrap_or_default(), name.name)).collect()
    }

    #[test]
    fn names_count_wherever_a_table_may_stand_and_not_in_comments_and_messages() {
        for (body, expected) in [
            ("select 1 from users u join shop.orders o on true", &["users", "shop.orders"][..]),
            ("r users%rowtype; begin", &["users"]),
            ("insert into Users(id) values (1)", &["users"]),
            ("delete from shop.\"Odd name\" using \"orders\"", &["orders", "shop.Odd name"]),
            ("-- from users\n/* from /* orders */ users */ select 1", &[]),
            ("raise exception 'user % has open orders', new.id", &[]),
            ("execute 'update orders set x = 1'; raise 'no users'", &["orders"]),
            ("execute format($q$select from only users where x = %L$q$, 'it''s')", &["users"]),
            ("execute format('delete from %I', 'users')", &["users"]),
            ("execute format('delete from %I.%I', 'shop', 'orders') -- users", &["orders"]),
            (r"raise E'it\'s from users'; execute E'update orders set x = \'a\''", &["orders"]),
            ("new.users := old.orders; select count(*) as orders, users(1)", &[]),
            ("select 'unfinished from users", &[]),
        ] {
            assert_eq!(relations(body), expected, "{body}");
        }
    }

    #[test]
    fn a_name_is_certain_only_where_a_table_stands() {
        for (body, certain) in [
            ("select id, status from orders o, status", true),
            ("select id, status from orders", false),
            ("new.id := status;", false),
            ("r status%rowtype;", true),
            ("delete from orders using status where true", true),
            ("update orders set id = 1, status = 2", false),
        ] {
            let mentions = read(body, &|_| false);
            let status = mentions.relations.iter().find(|(name, _)| name.name == "status").expect("mentioned");
            assert_eq!(*status.1, certain, "{body}");
        }
    }

    #[test]
    fn names_before_a_bracket_are_called() {
        let mentions = read("perform shop.tell(1); insert into users (id) select lower(x)", &|schema| schema == "shop");
        let called: Vec<_> = mentions.functions.iter().map(|name| name.name.as_str()).collect();
        assert_eq!(called, ["lower", "tell"]);
    }
}
