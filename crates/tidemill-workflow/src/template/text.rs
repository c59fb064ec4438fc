//! Finding `${ … }` and `{{ … }}` in a string.

use super::braces::{self, Braces, Path};

/// A part of a string.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Part<'t> {
    Text(String),
    Expression(&'t str),
    Path(Path),
}

/// Whether a string may hold anything but text.
pub(super) fn is_plain(text: &str) -> bool {
    !text.contains("${") && !text.contains("{{")
}

/// Splits a string into text and expressions; `$${` is text. The error says what is wrong.
///
/// Whether `{{ … }}` is ours shows in the string alone, never in the tool that it is for: a definition means the same to
/// all who read it. So a string is ours or not as a whole. It is if one of its braces holds a path of ours, and then all
/// must; other strings keep their braces, as templates of tools do, and so does one with `{%`. Paths of ours start with
/// what there is everywhere, or with one of `placed`.
pub(super) fn parts<'t>(text: &'t str, placed: &'t [&'static str]) -> Result<Vec<Part<'t>>, String> {
    let mut split = Split { with_braces: !text.contains("{%"), placed, ..Split::default() };
    let mut rest = text;
    while let Some(at) = split.next(rest) {
        let (before, tail) = rest.split_at(at);
        rest = if tail.starts_with('$') {
            split.expression(before, tail)?
        } else {
            split.braces(before, tail)?
        };
    }
    split.plain.push_str(rest);
    split.finish()
}

/// A part of a string with expressions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TextPart<'t> {
    /// Text, of which `$${` stands for `${`.
    Text(&'t str),
    /// The inside of `${ … }`.
    Expression(&'t str),
}

/// Splits a string at its `${ … }`, and at nothing else.
///
/// # Errors
/// An expression is empty or has no end; the sentence says so.
pub fn text_parts(text: &str) -> Result<Vec<TextPart<'_>>, String> {
    let mut parts = Vec::new();
    let mut rest = text;
    let mut from = 0;
    while let Some(at) = rest.get(from..).and_then(|tail| tail.find("${")).map(|at| at + from) {
        if rest.get(..at).is_some_and(|before| before.ends_with('$')) {
            from = at + 2;
            continue;
        }
        let (before, tail) = rest.split_at(at);
        let mut split = Split::default();
        let after = split.expression("", tail)?;
        if !before.is_empty() {
            parts.push(TextPart::Text(before));
        }
        let length = tail.len() - after.len();
        parts.push(TextPart::Expression(tail.get(2..length - 1).unwrap_or_default()));
        (rest, from) = (after, 0);
    }
    if !rest.is_empty() {
        parts.push(TextPart::Text(rest));
    }
    Ok(parts)
}

/// The parts found so far.
#[derive(Default)]
struct Split<'t> {
    parts: Vec<Part<'t>>,
    /// Text since the last of them.
    plain: String,
    with_braces: bool,
    placed: &'t [&'static str],
    /// A `{{` of ours was found.
    is_ours: bool,
    /// The first `{{` of somebody else.
    stranger: Option<&'t str>,
}

impl<'t> Split<'t> {
    /// Where the next `${` or `{{` stands.
    fn next(&self, rest: &str) -> Option<usize> {
        let braces = rest.find("{{").filter(|_| self.with_braces);
        rest.find("${").into_iter().chain(braces).min()
    }

    fn push(&mut self, part: Part<'t>) {
        if !self.plain.is_empty() {
            self.parts.push(Part::Text(std::mem::take(&mut self.plain)));
        }
        self.parts.push(part);
    }

    /// Takes what `tail` starts with, `${ … }`, and gives what is left.
    fn expression(&mut self, before: &'t str, tail: &'t str) -> Result<&'t str, String> {
        let inside = tail.get(2..).unwrap_or_default();
        if let Some(before) = before.strip_suffix('$') {
            self.plain.push_str(before);
            self.plain.push_str("${");
            return Ok(inside);
        }
        self.plain.push_str(before);
        let end = expression_end(inside).ok_or_else(|| {
            let shown: String = tail.chars().take(30).collect();
            format!("`{shown}` has no closing brace; write `$${{` for a literal `${{`")
        })?;
        let (expression, tail) = inside.split_at(end);
        if expression.trim().is_empty() {
            return Err("`${}` holds no expression; write `$${` for a literal `${`".to_owned());
        }
        self.push(Part::Expression(expression));
        Ok(tail.get(1..).unwrap_or_default())
    }

    /// Takes what `tail` starts with, `{{ … }}`, and gives what is left.
    fn braces(&mut self, before: &str, tail: &'t str) -> Result<&'t str, String> {
        self.plain.push_str(before);
        let (braces, end) = braces::read(tail, self.placed)?;
        match braces {
            Braces::Path(path) => {
                self.is_ours = true;
                self.push(Part::Path(path));
            }
            Braces::Literal => {
                self.is_ours = true;
                self.plain.push_str("{{");
            }
            Braces::Foreign => {
                self.stranger.get_or_insert(tail);
                self.plain.push_str("{{");
                return Ok(tail.get(2..).unwrap_or_default());
            }
        }
        Ok(tail.get(end..).unwrap_or_default())
    }

    fn finish(mut self) -> Result<Vec<Part<'t>>, String> {
        let has = |wanted: fn(&Part<'_>) -> bool| self.parts.iter().any(wanted);
        if has(|part| matches!(part, Part::Expression(_))) && has(|part| matches!(part, Part::Path(_))) {
            return Err("holds both `${ … }` and `{{ … }}`; write all of them in one way".to_owned());
        }
        if let Some(stranger) = self.stranger.filter(|_| self.is_ours) {
            return Err(braces::stranger(stranger));
        }
        if !self.plain.is_empty() {
            self.parts.push(Part::Text(self.plain));
        }
        Ok(self.parts)
    }
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

    fn parts(text: &str) -> Result<Vec<Part<'_>>, String> {
        super::parts(text, &[])
    }

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
    fn parts_without_braces_leave_braces_alone() {
        use TextPart::{Expression, Text};
        assert_eq!(text_parts("${ .a }").unwrap(), [Expression(" .a ")]);
        assert_eq!(
            text_parts("{{ x }} ${ \"}\" } $${ b } ${.c}!").unwrap(),
            [Text("{{ x }} "), Expression(" \"}\" "), Text(" $${ b } "), Expression(".c"), Text("!")]
        );
        assert!(text_parts("${}").is_err());
        assert!(text_parts("a ${ b").is_err());
    }

    #[test]
    fn braces_of_others_are_text() {
        for text in [
            "{{ name }} of {{ order.id | upper }}",
            "{{",
            "}} {{ }}",
            "{% if input %}{{ input.x }}{% endif %}",
            "{{{ input.x }}}",
        ] {
            assert_eq!(texts(text), [Part::Text(text.into())]);
        }
        assert_eq!(texts("{{ a }} ${ .b }"), [Part::Text("{{ a }} ".into()), Part::Expression(" .b ")]);
        assert_eq!(texts("$${{ input.x }}"), [Part::Text("${{ input.x }}".into())]);
        assert_eq!(texts("${ \"{{ input.x }}\" }"), [Part::Expression(" \"{{ input.x }}\" ")]);
        assert_eq!(
            texts("{{ \"{{\" }} input.x }} ${ .b }"),
            [Part::Text("{{ input.x }} ".into()), Part::Expression(" .b ")]
        );
    }

    #[test]
    fn strings_of_two_minds_are_refused() {
        assert!(parts("{{ input.x }} ${ .input.y }").unwrap_err().contains("in one way"));
        assert!(parts("{{ name }} {{ input.x }}").unwrap_err().contains("`{{ name }} {{ input.x }}`"));
        assert!(parts("{{ input.x }} {{ name }}").unwrap_err().contains("`{{ name }}`"));
        assert!(parts("{{ \"{{\" }} {{ name }}").unwrap_err().contains("a literal"));
    }

    #[test]
    fn an_open_or_empty_expression_is_refused() {
        assert!(parts("${ .a").unwrap_err().contains("closing brace"));
        assert!(parts("${}").unwrap_err().contains("no expression"));
        assert!(parts("${ \"}").is_err());
    }
}
