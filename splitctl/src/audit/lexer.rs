//! SQL as words, literals and other characters: the one lexer for bodies of functions, statements and the write-ahead log.

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
    let mut rest = text;
    std::iter::from_fn(move || {
        loop {
            let (token, length) = next(rest)?;
            rest = &rest[length..];
            if token.is_some() {
                return token;
            }
        }
    })
}

/// The token at the start of the text, unless that is a comment or white space, and its length in bytes.
fn next(text: &str) -> Option<(Option<Token>, usize)> {
    let first = text.chars().next()?;
    Some(if text.starts_with("--") {
        (None, text.find('\n').unwrap_or(text.len()))
    } else if text.starts_with("/*") {
        (None, comment(text))
    } else if first == '\'' || first == '"' {
        let (content, length) = quoted(text, first);
        (Some(if first == '"' { Token::Word(content) } else { Token::Literal(content) }), length)
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

/// The text between two quotes, with doubled quotes as single ones, and its length with the quotes.
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

/// The tag `$tag$` at the start of the text.
fn dollar_tag(text: &str) -> Option<&str> {
    let end = text.strip_prefix('$')?.find('$')? + 1;
    let tag = &text[1..end];
    let valid = tag.chars().all(|character| character.is_alphanumeric() || character == '_')
        && !tag.starts_with(|first: char| first.is_ascii_digit());
    valid.then(|| &text[..=end])
}
