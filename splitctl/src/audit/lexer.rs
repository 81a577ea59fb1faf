//! SQL as words, literals and other characters: the one lexer for bodies of functions, statements and the write-ahead log.

use std::ops::Range;

/// A piece of SQL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Token {
    /// A keyword or an identifier, as the catalog has it: unquoted, and in lower case unless it was quoted.
    Word(String),
    /// The content of a text in single quotes or dollar quotes.
    Literal(String),
    /// Any other character.
    Other(char),
}

/// The tokens of a text, without comments and white space.
pub fn tokens(text: &str) -> impl Iterator<Item = Token> {
    located(text).map(|(_, token)| token)
}

/// The same tokens, each with its place in the text, in bytes.
pub fn located(text: &str) -> impl Iterator<Item = (Range<usize>, Token)> {
    let mut at = 0;
    std::iter::from_fn(move || {
        loop {
            let (token, length) = next(&text[at..])?;
            let place = at..at + length;
            at += length;
            if let Some(token) = token {
                return Some((place, token));
            }
        }
    })
}

/// The statements of a script, which semicolons outside of quotes and comments end.
pub fn statements(script: &str) -> Vec<&str> {
    let (mut found, mut begin, mut at) = (Vec::new(), 0, 0);
    while let Some((token, length)) = next(&script[at..]) {
        if token == Some(Token::Other(';')) {
            found.push(&script[begin..at]);
            begin = at + length;
        }
        at += length;
    }
    found.push(&script[begin..]);
    found
}

/// A statement without its values, comments and white space: what is left is the same each time that it runs.
pub fn without_values(statement: &str) -> String {
    let mut normal = String::new();
    for token in tokens(statement) {
        match token {
            Token::Word(word) => {
                normal.push(' ');
                normal.push_str(&word);
            }
            Token::Literal(_) => normal.push('?'),
            Token::Other(digit) if digit.is_ascii_digit() && normal.ends_with('?') => {}
            Token::Other(digit) if digit.is_ascii_digit() => normal.push('?'),
            Token::Other(';') => {}
            Token::Other(other) => normal.push(other),
        }
    }
    normal
}

/// The text with a mark in the place of each text in quotes: what people wrote into the database is not for reports.
pub fn without_literals(text: &str) -> String {
    let (mut shown, mut at) = (String::new(), 0);
    while let Some((token, length)) = next(&text[at..]) {
        match token {
            Some(Token::Literal(_)) => shown.push_str("'…'"),
            _ => shown.push_str(&text[at..at + length]),
        }
        at += length;
    }
    shown
}

/// The token at the start of the text, unless that is a comment or white space, and its length in bytes.
fn next(text: &str) -> Option<(Option<Token>, usize)> {
    let first = text.chars().next()?;
    Some(if text.starts_with("--") {
        (None, text.find('\n').unwrap_or(text.len()))
    } else if text.starts_with("/*") {
        (None, comment(text))
    } else if text.starts_with("E'") || text.starts_with("e'") {
        let (content, length) = quoted(&text[1..], '\'', Escapes::Backslash);
        (Some(Token::Literal(content)), length + 1)
    } else if first == '\'' || first == '"' {
        let (content, length) = quoted(text, first, Escapes::None);
        (Some(if first == '"' { Token::Word(content) } else { Token::Literal(content) }), length)
    } else if let Some(escaped) = text.strip_prefix(['e', 'E']).filter(|rest| rest.starts_with('\'')) {
        let (content, length) = with_escapes(escaped);
        (Some(Token::Literal(content)), length + 1)
    } else if let Some(tag) = dollar_tag(text) {
        let body = &text[tag.len()..];
        let end = body.find(tag).unwrap_or(body.len());
        (Some(Token::Literal(body[..end].to_owned())), (tag.len() + end + tag.len()).min(text.len()))
    } else if first.is_alphabetic() || first == '_' {
        let part = |character: char| character.is_alphanumeric() || character == '_' || character == '$';
        let end = text.find(|character| !part(character)).unwrap_or(text.len());
        (Some(Token::Word(text[..end].to_lowercase())), end)
    } else {
        ((!first.is_whitespace()).then_some(Token::Other(first)), first.len_utf8())
    })
}

/// The length of a comment. Comments nest.
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

/// What a backslash between quotes means.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Escapes {
    None,
    /// The next character is a part of the text.
    Backslash,
}

/// The text between two quotes, with doubled quotes as single ones, and its length with the quotes.
fn quoted(text: &str, quote: char, escapes: Escapes) -> (String, usize) {
    let mut content = String::new();
    let mut characters = text.char_indices().skip(1).peekable();
    while let Some((at, character)) = characters.next() {
        if character == '\\' && escapes == Escapes::Backslash {
            content.extend(characters.next().map(|(_, escaped)| escaped));
        } else if character != quote {
            content.push(character);
        } else if characters.next_if(|(_, next)| *next == quote).is_some() {
            content.push(quote);
        } else {
            return (content, at + 1);
        }
    }
    (content, text.len())
}

/// The same for a text in which a backslash escapes the next character, as in `E'it\'s'`. An escaped letter becomes a space.
fn with_escapes(text: &str) -> (String, usize) {
    let mut content = String::new();
    let mut characters = text.char_indices().skip(1).peekable();
    while let Some((at, character)) = characters.next() {
        match character {
            '\\' => content.push(characters.next().map_or(' ', |(_, next)| if next.is_alphanumeric() { ' ' } else { next })),
            '\'' if characters.next_if(|(_, next)| *next == '\'').is_some() => content.push('\''),
            '\'' => return (content, at + 1),
            other => content.push(other),
        }
    }
    (content, text.len())
}

/// The tag `$tag$` at the start of the text.
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

    #[test]
    fn a_script_is_split_where_a_statement_ends_and_nowhere_else() {
        let script = "select ';'; -- one; two\nselect E'it\\'s; 1', $$;$$ /* ; */; ";
        assert_eq!(statements(script), ["select ';'", " -- one; two\nselect E'it\\'s; 1', $$;$$ /* ; */", " "]);
    }

    #[test]
    fn a_report_shows_no_literals() {
        assert_eq!(without_literals("select 'Ada', E'a\\'b', \"a b\", $1"), "select '…', '…', \"a b\", $1");
    }
}
