//! Finding `${ … }` in a string.

/// A part of a string.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Part<'t> {
    Text(String),
    Expression(&'t str),
}

/// Splits a string into text and expressions; `$${` is text. The error says what is wrong.
pub(super) fn parts(text: &str) -> Result<Vec<Part<'_>>, String> {
    let mut parts = Vec::new();
    let mut plain = String::new();
    let mut rest = text;
    while let Some(at) = rest.find("${") {
        let (before, tail) = rest.split_at(at);
        let inside = tail.get(2..).unwrap_or_default();
        if let Some(before) = before.strip_suffix('$') {
            plain.push_str(before);
            plain.push_str("${");
            rest = inside;
            continue;
        }
        plain.push_str(before);
        let end = expression_end(inside).ok_or_else(|| {
            let shown: String = tail.chars().take(30).collect();
            format!("`{shown}` has no closing brace; write `$${{` for a literal `${{`")
        })?;
        let (expression, tail) = inside.split_at(end);
        if expression.trim().is_empty() {
            return Err("`${}` holds no expression; write `$${` for a literal `${`".to_owned());
        }
        if !plain.is_empty() {
            parts.push(Part::Text(std::mem::take(&mut plain)));
        }
        parts.push(Part::Expression(expression));
        rest = tail.get(1..).unwrap_or_default();
    }
    plain.push_str(rest);
    if !plain.is_empty() {
        parts.push(Part::Text(plain));
    }
    Ok(parts)
}

/// What a closing bracket leads back to.
enum Open {
    Bracket,
    /// `\(` in a string.
    Interpolation,
}

/// Where the brace that ends the expression stands: the first that is neither inside of a jq string nor a comment, nor
/// closes a bracket opened before.
fn expression_end(text: &str) -> Option<usize> {
    let mut open = Vec::new();
    let mut in_string = false;
    let mut bytes = text.bytes().enumerate();
    while let Some((at, byte)) = bytes.next() {
        if in_string {
            match byte {
                b'"' => in_string = false,
                b'\\' => {
                    if let Some((_, b'(')) = bytes.next() {
                        open.push(Open::Interpolation);
                        in_string = false;
                    }
                }
                _ => {}
            }
            continue;
        }
        match byte {
            b'"' => in_string = true,
            b'#' => while bytes.next().is_some_and(|(_, byte)| byte != b'\n') {},
            b'{' | b'(' | b'[' => open.push(Open::Bracket),
            b'}' if open.is_empty() => return Some(at),
            b'}' | b')' | b']' => in_string = matches!(open.pop()?, Open::Interpolation),
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(text: &str) -> Vec<Part<'_>> {
        parts(text).unwrap()
    }

    #[test]
    fn braces_strings_and_comments_inside_of_an_expression_do_not_end_it() {
        assert_eq!(texts("${ {a: \"}\"} }"), [Part::Expression(" {a: \"}\"} ")]);
        assert_eq!(texts(r#"${ "a\({b: "}"} | .b)c}" }"#), [Part::Expression(r#" "a\({b: "}"} | .b)c}" "#)]);
        assert_eq!(texts("${ 1 # }\n}"), [Part::Expression(" 1 # }\n")]);
    }

    #[test]
    fn a_doubled_dollar_is_a_literal() {
        assert_eq!(texts("$${ a } costs $5"), [Part::Text("${ a } costs $5".into())]);
        assert_eq!(
            texts("a ${ .b } c"),
            [Part::Text("a ".into()), Part::Expression(" .b "), Part::Text(" c".into())]
        );
    }

    #[test]
    fn an_open_or_empty_expression_is_refused() {
        assert!(parts("${ .a").unwrap_err().contains("closing brace"));
        assert!(parts("${}").unwrap_err().contains("no expression"));
        assert!(parts("${ \"}").is_err());
    }
}
