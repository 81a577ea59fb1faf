//! The roles that statements name: on the target, another role may take the place of one of the source.

use std::collections::BTreeMap;
use std::ops::Range;

use crate::audit::lexer::{Token, located};
use crate::names::quote_ident;

/// Replaces the roles that statements name by those that take their place on the target. `owned_by` maps them. Every
/// statement of a role in a dump or of this program is known here: owners, grants, default privileges, policies, user
/// mappings, and `set role`.
pub fn on_target(statements: &str, owned_by: &BTreeMap<String, String>) -> String {
    if owned_by.is_empty() {
        return statements.to_owned();
    }
    let tokens: Vec<Piece> = located(statements).map(|(place, token)| Piece::new(statements, place, token)).collect();
    let mut replaced = String::with_capacity(statements.len());
    let mut copied = 0;
    for statement in tokens.split(|piece| piece.is(";")) {
        for role in named(statement) {
            if let Some(other) = owned_by.get(&role.name) {
                replaced.push_str(&statements[copied..role.place.start]);
                replaced.push_str(&quote_ident(other));
                copied = role.place.end;
            }
        }
    }
    replaced.push_str(&statements[copied..]);
    replaced
}

/// The roles that statements name.
pub fn named_in(statements: &str) -> Vec<String> {
    let tokens: Vec<Piece> = located(statements).map(|(place, token)| Piece::new(statements, place, token)).collect();
    let named = tokens.split(|piece| piece.is(";")).flat_map(named);
    named.map(|role| role.name.clone()).collect()
}

/// A token of a statement.
struct Piece {
    place: Range<usize>,
    /// A word as the catalog has it, or another character.
    name: String,
    /// Whether it can be a keyword: a quoted word cannot.
    is_plain: bool,
    is_word: bool,
}

impl Piece {
    fn new(text: &str, place: Range<usize>, token: Token) -> Self {
        let is_plain = !text[place.clone()].starts_with('"');
        match token {
            Token::Word(name) => Self { place, name, is_plain, is_word: true },
            Token::Other(character) => Self { place, name: character.to_string(), is_plain, is_word: false },
            Token::Literal(_) => Self { place, name: String::new(), is_plain, is_word: false },
        }
    }

    fn is(&self, keyword: &str) -> bool {
        self.is_plain && self.name == keyword
    }
}

/// The roles of one statement, in their order.
fn named(statement: &[Piece]) -> Vec<&Piece> {
    let after = |at: Option<usize>| at.map_or(&[][..], |at| &statement[at + 1..]);
    let first = |keyword: &str| statement.iter().position(|piece| piece.is(keyword));
    let last = |keyword: &str| statement.iter().rposition(|piece| piece.is(keyword));
    let begins = |keywords: &[&str]| {
        statement.len() > keywords.len() && statement.iter().zip(keywords).all(|(piece, keyword)| piece.is(keyword))
    };
    if begins(&["alter", "default", "privileges"]) {
        let whose = list(after(first("role").or_else(|| first("user"))));
        whose.chain(list(after(last("to").max(last("from"))))).collect()
    } else if begins(&["grant"]) {
        list(after(last("to"))).collect()
    } else if begins(&["revoke"]) {
        list(after(last("from"))).collect()
    } else if begins(&["create", "policy"]) {
        let head = statement.iter().position(|piece| piece.is("(")).unwrap_or(statement.len());
        list(after(first("to").filter(|to| *to < head))).collect()
    } else if begins(&["create", "user", "mapping", "for"]) {
        list(&statement[4..]).collect()
    } else if begins(&["set", "session", "authorization"]) || begins(&["set", "local", "role"]) {
        list(&statement[3..]).collect()
    } else if begins(&["alter"]) && statement.len() > 3 && statement[statement.len() - 3].is("owner") {
        list(&statement[statement.len() - 1..]).collect()
    } else {
        Vec::new()
    }
}

/// The words that commas separate. `public` is no role.
fn list(pieces: &[Piece]) -> impl Iterator<Item = &Piece> {
    let in_list = |(at, piece): &(usize, &Piece)| if at % 2 == 0 { piece.is_word } else { piece.is(",") };
    let roles = pieces.iter().enumerate().take_while(in_list).step_by(2).map(|(_, piece)| piece);
    roles.filter(|piece| !piece.is("public"))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::on_target;

    #[test]
    fn a_role_is_replaced_wherever_a_statement_names_one_and_nowhere_else() {
        let owned_by =
            BTreeMap::from([("app".to_owned(), "My app".to_owned()), ("Odd role".to_owned(), "plain".to_owned())]);
        for (source, target) in [
            ("ALTER TABLE public.app OWNER TO app;", "ALTER TABLE public.app OWNER TO \"My app\";"),
            (
                "GRANT SELECT(app) ON TABLE app TO other, app WITH GRANT OPTION;",
                "GRANT SELECT(app) ON TABLE app TO other, \"My app\" WITH GRANT OPTION;",
            ),
            (
                "REVOKE ALL ON FUNCTION f(app integer) FROM \"Odd role\" CASCADE;",
                "REVOKE ALL ON FUNCTION f(app integer) FROM \"plain\" CASCADE;",
            ),
            (
                "ALTER DEFAULT PRIVILEGES FOR ROLE app IN SCHEMA app GRANT ALL ON TABLES TO app;",
                "ALTER DEFAULT PRIVILEGES FOR ROLE \"My app\" IN SCHEMA app GRANT ALL ON TABLES TO \"My app\";",
            ),
            (
                "CREATE POLICY \"x TO app\" ON app FOR SELECT TO app, other USING ((app = 'x; grant a to app'));",
                "CREATE POLICY \"x TO app\" ON app FOR SELECT TO \"My app\", other USING ((app = 'x; grant a to app'));",
            ),
            (
                "set local role app; grant select on t to public; reset role",
                "set local role \"My app\"; grant select on t to public; reset role",
            ),
            (
                "SET SESSION AUTHORIZATION app;\nGRANT ALL ON TABLE t TO \"APP\";",
                "SET SESSION AUTHORIZATION \"My app\";\nGRANT ALL ON TABLE t TO \"APP\";",
            ),
            ("CREATE USER MAPPING FOR app SERVER s;", "CREATE USER MAPPING FOR \"My app\" SERVER s;"),
        ] {
            assert_eq!(on_target(source, &owned_by), target);
        }
        let body =
            "CREATE FUNCTION f() RETURNS void AS $$\nGRANT app TO app;\n$$; COMMENT ON TABLE t IS E'\\'; grant a to app';";
        assert_eq!(on_target(body, &owned_by), body);
    }
}
