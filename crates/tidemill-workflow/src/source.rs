//! The text of a definition as a tree of values that know their place.

mod json;
mod yaml;

use serde_json::Value;

use crate::problem::ProblemCode;

/// Longest text, in bytes.
pub(crate) const SOURCE_BYTES: usize = 1 << 20;
/// Deepest nesting.
const DEPTH: usize = 64;
/// Most values in one document, those that aliases repeat included.
const VALUES: usize = 1_000_000;

/// Where something stands; line and column count from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Place {
    /// The line.
    pub line: u32,
    /// The column, in characters.
    pub column: u32,
}

/// A value and its place.
#[derive(Debug, Clone)]
pub struct Node {
    /// Where it stands.
    pub place: Place,
    /// What it is.
    pub kind: Kind,
}

/// What a value is.
#[derive(Debug, Clone)]
pub enum Kind {
    /// Null, a boolean, a number or a string.
    Scalar(Value),
    /// An array.
    Array(Vec<Node>),
    /// An object, its members in the order of the text; a name may stand twice.
    Object(Vec<Member>),
}

/// A member of an object: its name, the place of the name, its value.
#[derive(Debug, Clone)]
pub struct Member {
    /// Its name.
    pub name: String,
    /// Where the name stands.
    pub place: Place,
    /// Its value.
    pub value: Node,
}

/// Why a text gives no tree.
#[derive(Debug)]
pub struct Refusal {
    /// Where reading stopped.
    pub place: Place,
    /// The kind of problem.
    pub code: ProblemCode,
    /// What is wrong.
    pub message: String,
}

impl Refusal {
    fn syntax(place: Place, message: impl Into<String>) -> Self {
        Self { place, code: ProblemCode::BadSyntax, message: message.into() }
    }

    fn too_large(place: Place, message: impl Into<String>) -> Self {
        Self { place, code: ProblemCode::TooLarge, message: message.into() }
    }
}

/// Reads YAML, or JSON where the text starts with `{`.
///
/// # Errors
/// The text is neither, or larger or deeper than allowed.
pub fn read(text: &str) -> Result<Node, Refusal> {
    let start = Place { line: 1, column: 1 };
    if text.len() > SOURCE_BYTES {
        let message =
            format!("the definition is {} bytes long; at most {SOURCE_BYTES} are allowed", text.len());
        return Err(Refusal::too_large(start, message));
    }
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    if text.trim_start().starts_with('{') {
        // YAML flow style starts like JSON: what is not JSON is read as YAML, whose message then counts.
        return json::read(text).or_else(|refusal| match refusal.code {
            ProblemCode::BadSyntax => yaml::read(text).map_err(|_| refusal),
            _ => Err(refusal),
        });
    }
    yaml::read(text)
}

impl Node {
    /// The plain value, without places. Of a member given twice the first counts.
    #[must_use]
    pub fn to_value(&self) -> Value {
        match &self.kind {
            Kind::Scalar(value) => value.clone(),
            Kind::Array(values) => Value::Array(values.iter().map(Self::to_value).collect()),
            Kind::Object(members) => {
                let mut object = serde_json::Map::new();
                for member in members {
                    object.entry(member.name.clone()).or_insert_with(|| member.value.to_value());
                }
                Value::Object(object)
            }
        }
    }

    /// The word for the kind of value, for messages.
    #[must_use]
    pub const fn kind_name(&self) -> &'static str {
        match &self.kind {
            Kind::Scalar(Value::Null) => "null",
            Kind::Scalar(Value::Bool(_)) => "a boolean",
            Kind::Scalar(Value::Number(_)) => "a number",
            Kind::Scalar(_) => "a string",
            Kind::Array(_) => "an array",
            Kind::Object(_) => "an object",
        }
    }

    /// The value under a member.
    #[must_use]
    pub fn member(&self, name: &str) -> Option<&Member> {
        match &self.kind {
            Kind::Object(members) => members.iter().find(|member| member.name == name),
            _ => None,
        }
    }

    /// The value at a position of an array.
    #[must_use]
    pub fn at(&self, at: usize) -> Option<&Self> {
        match &self.kind {
            Kind::Array(values) => values.get(at),
            _ => None,
        }
    }

    /// What lies under `path`.
    #[must_use]
    pub fn member_at(&self, path: &[Segment]) -> Option<&Self> {
        path.iter().try_fold(self, |node, segment| match segment {
            Segment::Name(name) => node.member(name).map(|member| &member.value),
            Segment::At(at) => node.at(*at),
        })
    }

    /// The place of what lies under `path`, or of the nearest that exists.
    #[must_use]
    pub fn place_of(&self, path: &[Segment]) -> Place {
        let mut node = self;
        let mut place = self.place;
        for segment in path {
            let next = match (segment, &node.kind) {
                (Segment::Name(name), _) => node.member(name).map(|member| (&member.value, member.place)),
                (Segment::At(at), Kind::Array(values)) => values.get(*at).map(|value| (value, value.place)),
                _ => None,
            };
            let Some((inner, found)) = next else { break };
            node = inner;
            place = found;
        }
        place
    }
}

/// One step of a path into a document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Segment {
    /// A member of an object.
    Name(String),
    /// A position of an array.
    At(usize),
}

/// `steps[2].with.url`
#[must_use]
pub fn path_text(path: &[Segment]) -> String {
    let mut text = String::new();
    for segment in path {
        match segment {
            Segment::Name(name) if text.is_empty() => text.push_str(name),
            Segment::Name(name) => {
                text.push('.');
                text.push_str(name);
            }
            Segment::At(at) => text.push_str(&format!("[{at}]")),
        }
    }
    text
}
