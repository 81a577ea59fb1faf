//! Reads `Link` header fields: RFC 8288.

use axum::http::{HeaderMap, header};

/// The target of the first link whose relation types include `relation`.
pub(super) fn target(headers: &HeaderMap, relation: &str) -> Option<String> {
    let fields = headers.get_all(header::LINK).into_iter().filter_map(|field| field.to_str().ok());
    fields.filter_map(|field| target_in(field, relation)).next()
}

fn target_in(field: &str, relation: &str) -> Option<String> {
    let mut rest = field;
    loop {
        let (target, behind) = rest.trim_start_matches([' ', '\t', ',']).strip_prefix('<')?.split_once('>')?;
        let (relations, behind) = read_relations(behind);
        if relations.is_some_and(|types| types.split_ascii_whitespace().any(|one| one.eq_ignore_ascii_case(relation))) {
            return Some(target.to_owned());
        }
        rest = behind;
    }
}

/// The value of the first parameter `rel`, and what stands behind the link.
fn read_relations(parameters: &str) -> (Option<String>, &str) {
    let mut found = None;
    let mut rest = parameters;
    while let Some(parameter) = rest.trim_start().strip_prefix(';') {
        let end = parameter.find(['=', ';', ',']).unwrap_or(parameter.len());
        let (name, behind) = parameter.split_at(end);
        let (value, behind) = match behind.strip_prefix('=') {
            Some(value) => read_value(value.trim_start()),
            None => (String::new(), behind),
        };
        if found.is_none() && name.trim().eq_ignore_ascii_case("rel") {
            found = Some(value);
        }
        rest = behind;
    }
    (found, rest)
}

/// A token or a quoted string, and what stands behind it.
fn read_value(text: &str) -> (String, &str) {
    let Some(quoted) = text.strip_prefix('"') else {
        let (token, behind) = text.split_at(text.find([';', ',']).unwrap_or(text.len()));
        return (token.trim().to_owned(), behind);
    };
    let mut value = String::new();
    let mut characters = quoted.char_indices();
    while let Some((index, character)) = characters.next() {
        match character {
            '"' => return (value, &quoted[index + 1..]),
            '\\' => value.extend(characters.next().map(|(_, escaped)| escaped)),
            other => value.push(other),
        }
    }
    (value, "")
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    fn next(fields: &[&str]) -> Option<String> {
        let fields = fields.iter().map(|field| (header::LINK, HeaderValue::from_str(field).expect("a header")));
        target(&fields.collect(), "next")
    }

    #[test]
    fn the_next_link_is_found_however_it_is_written() {
        for field in [
            r#"</x?after=1>; rel="next""#,
            r#"</x?after=1>;rel=next"#,
            r#"</x?after=1>; REL="Next""#,
            r#"</x?after=1>; rel="prev next""#,
            r#"</x?after=1>; title="a, b; rel=\"x\""; rel=next"#,
            r#"</x?after=1>; crossorigin; rel="next"; rel="prev""#,
            r#"</first>; rel=first, </x?after=1>; rel=next, </last>; rel=last"#,
            r#"  ,</first>; rel="first" , </x?after=1> ; rel = "next""#,
        ] {
            assert_eq!(next(&[field]).as_deref(), Some("/x?after=1"), "{field}");
        }
        assert_eq!(next(&["</first>; rel=first", "</x>; rel=next"]).as_deref(), Some("/x"));
    }

    #[test]
    fn what_is_no_link_to_what_is_next_is_none() {
        for field in [
            "",
            "next",
            "</x>",
            "</x>; rel=prev",
            "</x>; rel=\"nextish\"",
            "</x; rel=next",
            "</x>; rel=prev; rel=next",
            "</x>; title=\"rel=next",
        ] {
            assert_eq!(next(&[field]), None, "{field}");
        }
    }
}
