//! `{{ path }}`: a path into what an expression sees, for those who want no jq. It compiles to jq that is stricter than
//! jq's own paths: what is not there is an error, and so is null inside of a text.

use serde_json::Value;

use crate::expr::CONTEXT;

/// Most parts of one path.
const PARTS: usize = 100;
/// What a step has.
const OF_STEP: [&str; 3] = ["output", "state", "error"];
/// What a run has.
const OF_RUN: [&str; 6] = ["id", "workflow", "version", "tenant", "state", "error"];

/// What stands between `{{` and `}}`.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Braces {
    /// A path.
    Path(Path),
    /// `"{{"`, which stands for itself.
    Literal,
    /// Nothing of ours: a template of a tool, say.
    Foreign,
}

/// A path, such as `steps.order.output[0].id`.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Path {
    /// The text, with its braces.
    pub(super) source: String,
    root: &'static str,
    keys: Vec<Key>,
}

#[derive(Debug, PartialEq, Eq)]
enum Key {
    Name(String),
    At(i32),
}

/// What is wrong, and where in the text that was read.
struct Wrong {
    at: usize,
    message: String,
}

/// Reads what `text` starts with, which is `{{`, and how many bytes of it that is. Besides what there is everywhere, a path may
/// start with one of `placed`.
///
/// # Errors
/// What is wrong with something that can only be meant as a path.
pub(super) fn read(text: &str, placed: &[&'static str]) -> Result<(Braces, usize), String> {
    let mut cursor = Cursor { text, at: 2, placed };
    let braces = cursor.braces().map_err(|wrong| {
        let end = text.find("}}").map_or(text.len(), |end| end + 2);
        let shown: String = text.get(..end).unwrap_or(text).chars().take(60).collect();
        let column = text.get(..wrong.at).map_or(0, |before| before.chars().count()) + 1;
        format!("template `{shown}`: column {column}: {}", wrong.message)
    })?;
    Ok((braces, cursor.at))
}

/// That a string with paths of ours has something else in braces as well.
pub(super) fn stranger(text: &str) -> String {
    let shown: String = text.chars().take(30).collect();
    format!(
        "`{shown}` in a string with other templates starts with none of {}; write `{{{{ \"{{{{\" }}}}` for a literal \
         `{{{{`",
        CONTEXT.map(|name| format!("`{name}`")).join(", ")
    )
}

struct Cursor<'t> {
    text: &'t str,
    at: usize,
    placed: &'t [&'static str],
}

impl<'t> Cursor<'t> {
    fn roots(&self) -> impl Iterator<Item = &'static str> {
        CONTEXT.into_iter().chain(self.placed.iter().copied())
    }

    /// The root that is one letter off.
    fn near(&self, name: &str) -> Option<&'static str> {
        self.roots().find(|root| strsim::damerau_levenshtein(name, root) == 1)
    }

    fn rest(&self) -> &'t str {
        self.text.get(self.at..).unwrap_or_default()
    }

    fn eats(&mut self, token: &str) -> bool {
        let found = self.rest().starts_with(token);
        if found {
            self.at += token.len();
        }
        found
    }

    fn spaces(&mut self) {
        let rest = self.rest();
        self.at += rest.len() - rest.trim_start().len();
    }

    fn wrong<T>(&self, message: impl Into<String>) -> Result<T, Wrong> {
        Err(Wrong { at: self.at, message: message.into() })
    }

    fn braces(&mut self) -> Result<Braces, Wrong> {
        self.spaces();
        if self.eats("\"{{\"") || self.eats("'{{'") {
            self.spaces();
            return Ok(if self.eats("}}") { Braces::Literal } else { Braces::Foreign });
        }
        self.eats(".");
        let start = self.at;
        let Some(name) = self.name() else { return Ok(Braces::Foreign) };
        let Some(root) = self.roots().find(|root| *root == name) else {
            return match self.near(name).filter(|_| self.rest().starts_with(['.', '['])) {
                Some(near) => {
                    let message = format!("there is no `{name}`; did you mean `{near}`?");
                    Err(Wrong { at: start, message })
                }
                None => Ok(Braces::Foreign),
            };
        };
        let keys = self.keys(root)?;
        self.spaces();
        if !self.eats("}}") {
            return self.wrong(self.not_closed());
        }
        let source = self.text.get(..self.at).unwrap_or_default().to_owned();
        Ok(Braces::Path(Path { source, root, keys }))
    }

    fn not_closed(&self) -> String {
        match self.rest().chars().next() {
            None => "has no closing `}}`".to_owned(),
            Some(found) => format!(
                "expected `.name`, `[0]`, `[\"name\"]` or `}}}}`, but found `{found}`; it is a path and nothing else: \
                 write jq, `${{ … }}`, for more"
            ),
        }
    }

    /// A name, if one follows. A dash belongs to it only where it goes on behind.
    fn name(&mut self) -> Option<&'t str> {
        let rest = self.rest();
        let part = |c: char| c.is_alphanumeric() || c == '_';
        let mut end = 0;
        for (at, c) in rest.char_indices() {
            let dash = c == '-' && rest.get(at + 1..).is_some_and(|behind| behind.starts_with(part));
            let fits = if at == 0 { c.is_alphabetic() || c == '_' } else { part(c) || dash };
            if !fits {
                break;
            }
            end = at + c.len_utf8();
        }
        self.at += end;
        rest.get(..end).filter(|name| !name.is_empty())
    }

    fn keys(&mut self, root: &str) -> Result<Vec<Key>, Wrong> {
        let mut keys = Vec::new();
        loop {
            let at = self.at;
            let key = if self.eats(".") {
                self.member()?
            } else if self.eats("[") {
                self.bracket()?
            } else {
                return Ok(keys);
            };
            if let Some(message) = misfit(root, keys.len(), &key) {
                return Err(Wrong { at, message });
            }
            keys.push(key);
            if keys.len() > PARTS {
                return self.wrong(format!("has more than {PARTS} parts"));
            }
        }
    }

    fn member(&mut self) -> Result<Key, Wrong> {
        if let Some(name) = self.name() {
            return Ok(Key::Name(name.to_owned()));
        }
        let digit = self.rest().starts_with(|c: char| c.is_ascii_digit());
        self.wrong(if digit {
            "a position is written `[0]`, not `.0`"
        } else {
            "a name must follow the dot; one of other characters is written `[\"a b\"]`"
        })
    }

    fn bracket(&mut self) -> Result<Key, Wrong> {
        self.spaces();
        let key = match self.rest().chars().next() {
            Some(quote @ ('"' | '\'')) => self.quoted(quote)?,
            _ => self.position()?,
        };
        self.spaces();
        if self.eats("]") { Ok(key) } else { self.wrong("has no closing `]`") }
    }

    fn quoted(&mut self, quote: char) -> Result<Key, Wrong> {
        let inside = self.rest().get(1..).unwrap_or_default();
        let Some(end) = inside.find(quote) else {
            return self.wrong(format!("has no closing {quote}"));
        };
        self.at += end + 2;
        Ok(Key::Name(inside.get(..end).unwrap_or_default().to_owned()))
    }

    fn position(&mut self) -> Result<Key, Wrong> {
        let rest = self.rest();
        let end = rest.find(|c: char| c != '-' && !c.is_ascii_digit()).unwrap_or(rest.len());
        match rest.get(..end).unwrap_or_default().parse() {
            Ok(at) => {
                self.at += end;
                Ok(Key::At(at))
            }
            Err(_) => self.wrong("a whole number or a quoted name must stand between `[` and `]`"),
        }
    }
}

/// Why there can be nothing at this key, the `depth`th below the root.
fn misfit(root: &str, depth: usize, key: &Key) -> Option<String> {
    let one_of = |known: &[&str]| known.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
    match (root, depth, key) {
        ("steps", 0, Key::At(_)) => Some("a step is named by its id: `steps.ID.output`".to_owned()),
        ("steps", 1, Key::Name(name)) if OF_STEP.contains(&name.as_str()) => None,
        ("steps", 1, _) => {
            Some(format!("a step has {}; its own members are below `output`", one_of(&OF_STEP)))
        }
        ("run", 0, Key::Name(name)) if OF_RUN.contains(&name.as_str()) => None,
        ("run", 0, _) => Some(format!("a run has {}", one_of(&OF_RUN))),
        ("index" | "iteration", 0, _) => Some(format!("`{root}` is a number and has nothing below it")),
        _ => None,
    }
}

impl Path {
    /// How many of the keys lie in what every expression sees, rather than in somebody's data.
    fn sure(&self) -> usize {
        let sure = match self.root {
            "steps" => 2,
            "run" => 1,
            _ => 0,
        };
        self.keys.len().min(sure)
    }

    /// The jq for the value; `as_text`, for its place in a text.
    pub(super) fn to_jq(&self, as_text: bool) -> String {
        let (sure, rest) = self.keys.split_at_checked(self.sure()).unwrap_or_default();
        let mut jq = format!(".{}", self.root);
        let mut name = self.root.to_owned();
        for key in sure {
            jq.push_str(&format!("[{}]", key.to_jq()));
            name.push_str(&format!(".{}", key.plain()));
        }
        if rest.is_empty() && !as_text {
            return jq;
        }
        let keys: Vec<String> = rest.iter().map(Key::to_jq).collect();
        let filter = if as_text { "strict_text" } else { "strict_path" };
        format!("{jq} | {filter}([{}]; {})", keys.join(", "), Value::from(name))
    }

    /// The names on the way to a whole document, if it is such a path.
    pub(super) fn document(&self) -> Option<Vec<String>> {
        (self.sure() == self.keys.len())
            .then(|| std::iter::once(self.root.to_owned()).chain(self.keys.iter().map(Key::plain)).collect())
    }
}

impl Key {
    /// The literal in jq, which takes the escapes of JSON.
    fn to_jq(&self) -> String {
        match self {
            Self::Name(name) => Value::from(name.as_str()).to_string(),
            Self::At(at) => at.to_string(),
        }
    }

    fn plain(&self) -> String {
        match self {
            Self::Name(name) => name.clone(),
            Self::At(at) => at.to_string(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<(Braces, usize), String> {
        super::read(text, &[])
    }

    fn jq(text: &str) -> String {
        match read(text) {
            Ok((Braces::Path(path), end)) if end == text.len() => path.to_jq(false),
            other => format!("{other:?}"),
        }
    }

    #[test]
    fn a_path_becomes_jq() {
        assert_eq!(jq("{{ input }}"), ".input");
        assert_eq!(jq("{{input.x}}"), r#".input | strict_path(["x"]; "input")"#);
        assert_eq!(jq("{{ .steps.a-b.output }}"), r#".steps["a-b"]["output"]"#);
        assert_eq!(
            jq("{{ steps['a'].output[ -1 ].y[\"it's\"] }}"),
            r#".steps["a"]["output"] | strict_path([-1, "y", "it's"]; "steps.a.output")"#
        );
        assert_eq!(jq("{{ run.id }}"), r#".run["id"]"#);
        assert_eq!(jq("{{\n  item.größe_1\n}}"), r#".item | strict_path(["größe_1"]; "item")"#);
        let Ok((Braces::Path(path), _)) = read("{{ index }} and more") else { panic!("it is a path") };
        assert_eq!(
            (path.source.as_str(), path.to_jq(true).as_str()),
            ("{{ index }}", r#".index | strict_text([]; "index")"#)
        );
    }

    #[test]
    fn a_quoted_pair_of_braces_is_a_literal() {
        assert_eq!(read("{{ \"{{\" }}x"), Ok((Braces::Literal, 10)));
        assert_eq!(read("{{'{{'}}"), Ok((Braces::Literal, 8)));
        assert_eq!(read("{{ '{{' + 1 }}").map(|(braces, _)| braces), Ok(Braces::Foreign));
    }

    #[test]
    fn what_starts_with_another_name_is_not_ours() {
        for text in [
            "{{ name }}",
            "{{ inputs }}",
            "{{ items | join }}",
            "{{ order.id }}",
            "{{{ input }}}",
            "{{",
            "{{ 5 }}",
            "{{ 'a' }}",
            "{{- input }}",
        ] {
            assert_eq!(read(text).map(|(braces, _)| braces), Ok(Braces::Foreign), "{text}");
        }
    }

    #[test]
    fn what_is_wrong_is_told_with_its_column() {
        for (text, column, message) in [
            ("{{ input.x | upper }}", 12, "found `|`"),
            ("{{ input.x + 1 }}", 12, "write jq, `${ … }`"),
            ("{{ input.x", 11, "no closing `}}`"),
            ("{{ input.0 }}", 10, "written `[0]`"),
            ("{{ input. }}", 10, "a name must follow"),
            ("{{ input[x] }}", 10, "between `[` and `]`"),
            ("{{ input[1.5] }}", 11, "no closing `]`"),
            ("{{ input[99999999999] }}", 10, "a whole number"),
            ("{{ input['a] }}", 10, "no closing '"),
            ("{{ inputs.x }}", 4, "did you mean `input`?"),
            ("{{ step.a.output }}", 4, "did you mean `steps`?"),
            ("{{ steps.a.body }}", 11, "`output`, `state`, `error`"),
            ("{{ steps[0] }}", 9, "named by its id"),
            ("{{ run.name }}", 7, "`tenant`"),
            ("{{ index.x }}", 9, "is a number"),
            ("{{ input.x-}}", 11, "found `-`"),
        ] {
            let error = read(text).unwrap_err();
            assert!(error.contains(&format!(": column {column}: ")) && error.contains(message), "{error}");
        }
        let long = format!("{{{{ input{} }}}}", ".a".repeat(101));
        assert!(read(&long).unwrap_err().contains("more than 100 parts"));
    }
}
