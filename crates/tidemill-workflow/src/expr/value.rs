//! The values that expressions work on.
//!
//! An own type rather than `jaq_json::Val`, for three reasons: each operation charges fuel; containers know their
//! nesting, so that no value is too deep to be dropped or written; numbers are 64-bit integers and floats, so that
//! repeated squaring cannot build a number of gigabytes.

mod jq;
mod number;
mod order;
mod update;

use std::fmt;
use std::rc::Rc;

use indexmap::IndexMap;

use super::meter;

/// Members of an object in the order in which they were set.
pub(crate) type Members = IndexMap<Rc<str>, Val>;

/// A JSON value. Cloning is cheap: strings and containers are shared.
#[derive(Clone, Debug, Default)]
pub(crate) enum Val {
    #[default]
    Null,
    Bool(bool),
    Int(i64),
    Float(f64),
    Str(Rc<str>),
    Arr(Rc<Arr>),
    Obj(Rc<Obj>),
}

/// An array and how deep it is nested, itself included (an upper bound: updates may leave it too high).
#[derive(Clone, Debug)]
pub(crate) struct Arr {
    depth: u32,
    pub(super) values: Vec<Val>,
}

/// An object and how deep it is nested, itself included (an upper bound: updates may leave it too high).
#[derive(Clone, Debug)]
pub(crate) struct Obj {
    depth: u32,
    pub(super) members: Members,
}

impl Val {
    /// A string; charged by its length.
    pub(crate) fn str(text: &str) -> Self {
        meter::charge_bytes(text.len());
        Self::Str(Rc::from(text))
    }

    /// An array; charged by its length, refused when nested too deep.
    pub(crate) fn arr(values: Vec<Self>) -> Self {
        meter::charge(1 + values.len() as u64);
        let depth = meter::nest(values.iter().map(Self::depth).max().unwrap_or(0));
        Self::Arr(Rc::new(Arr { depth, values }))
    }

    /// An object; charged by its size, refused when nested too deep.
    /// A member, if it is an object that has it.
    pub(crate) fn member(&self, name: &str) -> Option<&Self> {
        match self {
            Self::Obj(object) => object.members.get(name),
            _ => None,
        }
    }

    pub(crate) fn obj(members: Members) -> Self {
        meter::charge(8 + 4 * members.len() as u64);
        let depth = meter::nest(members.values().map(Self::depth).max().unwrap_or(0));
        Self::Obj(Rc::new(Obj { depth, members }))
    }

    /// How deep the value is nested; 0 for a scalar.
    fn depth(&self) -> u32 {
        match self {
            Self::Null | Self::Bool(_) | Self::Int(_) | Self::Float(_) | Self::Str(_) => 0,
            Self::Arr(arr) => arr.depth,
            Self::Obj(obj) => obj.depth,
        }
    }

    /// The text of a string.
    pub(crate) fn as_text(&self) -> Option<&str> {
        match self {
            Self::Str(text) => Some(text),
            _ => None,
        }
    }

    /// The JSON word for the kind of value.
    pub(crate) const fn kind(&self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Bool(_) => "boolean",
            Self::Int(_) | Self::Float(_) => "number",
            Self::Str(_) => "string",
            Self::Arr(_) => "array",
            Self::Obj(_) => "object",
        }
    }
}

impl Arr {
    /// The values for changing, such that the array is then nested `depth` deep; a shared array is copied, charged.
    fn make_mut(this: &mut Rc<Self>, depth: u32) -> &mut Vec<Val> {
        if Rc::strong_count(this) > 1 {
            meter::charge(1 + this.values.len() as u64);
        }
        let arr = Rc::make_mut(this);
        arr.depth = arr.depth.max(depth);
        &mut arr.values
    }
}

impl Obj {
    /// The members for changing, such that the object is then nested `depth` deep; a shared object is copied, charged.
    fn make_mut(this: &mut Rc<Self>, depth: u32) -> &mut Members {
        if Rc::strong_count(this) > 1 {
            meter::charge(8 + 4 * this.members.len() as u64);
        }
        let obj = Rc::make_mut(this);
        obj.depth = obj.depth.max(depth);
        &mut obj.members
    }
}

/// For error messages: JSON, cut off after 120 bytes, because values that share structure may be huge when written.
impl fmt::Display for Val {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN: usize = 120;
        let mut text = Vec::new();
        let whole = super::json::write(self, &mut text, SHOWN).is_ok();
        f.write_str(&String::from_utf8_lossy(&text))?;
        if whole { Ok(()) } else { f.write_str("…") }
    }
}
