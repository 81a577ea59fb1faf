//! Which relations and functions the text of a function mentions. PL/pgSQL keeps no record of it, so this reads words:
//! rather one coupling too many than one too few, but not those that only a comment or a message names.

use std::collections::{BTreeMap, BTreeSet};

use crate::names::Qualified;

/// Words after which a name is one of a table.
const BEFORE_TABLES: [&str; 8] = ["from", "join", "into", "update", "only", "table", "using", "truncate"];
/// Words that end a list of tables.
const AFTER_TABLES: [&str; 11] =
    ["where", "group", "having", "order", "limit", "on", "set", "values", "select", "returning", "loop"];

/// What a body mentions.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Mentions {
    /// Names that may be relations, and whether one stands where only a relation can.
    pub relations: BTreeMap<Name, bool>,
    /// Names that are called.
    pub functions: BTreeSet<Name>,
}

/// A name as it is written, with its schema or without.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Name {
    schema: Option<String>,
    name: String,
}

impl Name {
    /// Without the schema.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether it may mean this one. Without a schema it may mean one in any: the search path is the caller's.
    pub fn may_mean(&self, other: &Qualified) -> bool {
        self.name == other.name && self.schema.as_ref().is_none_or(|schema| *schema == other.schema)
    }
}

#[derive(Debug, Clone, PartialEq)]
enum Token {
    Word(String),
    Literal(String),
    Other(char),
}

/// Reads a body. `is_schema` tells a schema's name from that of a table or variable before a dot.
pub fn read(body: &str, is_schema: &dyn Fn(&str) -> bool) -> Mentions {
    let tokens = tokens(body);
    let mut mentions = Mentions::default();
    collect(&tokens, is_schema, false, &mut mentions);
    // Only a body that executes texts has SQL in them; elsewhere they are messages and values.
    if tokens.iter().any(|token| matches!(token, Token::Word(word) if word == "execute")) {
        for token in &tokens {
            if let Token::Literal(text) = token {
                collect(&self::tokens(text), is_schema, true, &mut mentions);
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

/// Words as the catalog has them, texts, and other characters; without comments and white space.
fn tokens(text: &str) -> Vec<Token> {
    let mut tokens = Vec::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let length = if rest.starts_with("--") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            comment(rest)
        } else if first == '\'' || first == '"' {
            let (content, length) = quoted(rest, first);
            tokens.push(if first == '"' { Token::Word(content) } else { Token::Literal(content) });
            length
        } else if let Some(tag) = dollar_tag(rest) {
            let body = &rest[tag.len()..];
            let end = body.find(tag).unwrap_or(body.len());
            tokens.push(Token::Literal(body[..end].to_owned()));
            (tag.len() + end + tag.len()).min(rest.len())
        } else if first.is_alphabetic() || first == '_' {
            let part = |character: char| character.is_alphanumeric() || character == '_' || character == '$';
            let end = rest.find(|character| !part(character)).unwrap_or(rest.len());
            tokens.push(Token::Word(rest[..end].to_lowercase()));
            end
        } else {
            if !first.is_whitespace() {
                tokens.push(Token::Other(first));
            }
            first.len_utf8()
        };
        rest = &rest[length..];
    }
    tokens
}

/// The length of a comment, with those inside it.
fn comment(text: &str) -> usize {
    let (mut depth, mut at) = (0, 0);
    while at < text.len() {
        let rest = &text[at..];
        if rest.starts_with("/*") {
            (depth, at) = (depth + 1, at + 2);
        } else if rest.starts_with("*/") {
            (depth, at) = (depth - 1, at + 2);
            if depth == 0 {
                return at;
            }
        } else {
            at += rest.chars().next().map_or(1, char::len_utf8);
        }
    }
    text.len()
}

/// What is between two quotes, a doubled one being one, and how long it is with them.
fn quoted(text: &str, quote: char) -> (String, usize) {
    let mut content = String::new();
    let mut characters = text.char_indices().skip(1).peekable();
    while let Some((at, character)) = characters.next() {
        if character != quote {
            content.push(character);
        } else if characters.next_if(|(_, next)| *next == quote).is_some() {
            content.push(quote);
        } else {
            return (content, at + 1);
        }
    }
    (content, text.len())
}

/// `$tag$`, if one starts here.
fn dollar_tag(text: &str) -> Option<&str> {
    let end = text.strip_prefix('$')?.find('$')? + 1;
    let tag = &text[1..end];
    let valid = tag.chars().all(|character| character.is_alphanumeric() || character == '_')
        && !tag.starts_with(|first: char| first.is_ascii_digit());
    valid.then(|| &text[..=end])
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
