//! What the jq interpreter asks of a value: building it, reading and updating by index, range and iteration.

use std::ops::Range;
use std::rc::Rc;

use jaq_core::Exn;
use jaq_core::box_iter::box_once;
use jaq_core::path::Opt;

use super::super::{json, meter};
use super::update::{self, ValX};
use super::{Arr, Members, Obj, Val};

type Error = jaq_core::Error<Val>;
type ValR = Result<Val, Error>;

impl From<bool> for Val {
    fn from(value: bool) -> Self {
        Self::Bool(value)
    }
}

impl From<isize> for Val {
    fn from(value: isize) -> Self {
        Self::Int(value as i64)
    }
}

impl From<usize> for Val {
    fn from(value: usize) -> Self {
        i64::try_from(value).map_or(Self::Float(f64::MAX), Self::Int)
    }
}

impl From<f64> for Val {
    fn from(value: f64) -> Self {
        Self::float(value)
    }
}

impl From<String> for Val {
    fn from(text: String) -> Self {
        Self::str(&text)
    }
}

impl From<Range<Option<Self>>> for Val {
    fn from(range: Range<Option<Self>>) -> Self {
        let member = |key: &str, value: Option<Self>| (Rc::from(key), value.unwrap_or_default());
        Self::obj(Members::from_iter([member("start", range.start), member("end", range.end)]))
    }
}

impl FromIterator<Self> for Val {
    fn from_iter<T: IntoIterator<Item = Self>>(iter: T) -> Self {
        Self::arr(iter.into_iter().inspect(|_| meter::charge(1)).collect())
    }
}

/// Where `index` points in a sequence of `len`, negative ones counted from the end.
pub(super) fn position(index: i64, len: usize) -> Option<usize> {
    let len = i64::try_from(len).ok()?;
    let index = if index < 0 { index.checked_add(len)? } else { index };
    usize::try_from(index).ok().filter(|_| index < len)
}

/// A bound of a range, clipped to the sequence.
fn bound(value: Option<&Val>, len: usize, default: usize) -> Result<usize, Error> {
    let index = match value {
        None | Some(Val::Null) => return Ok(default),
        Some(Val::Int(index)) => *index,
        Some(Val::Float(index)) => index.floor() as i64,
        Some(other) => return Err(Error::typ(other.clone(), "integer")),
    };
    let len = i64::try_from(len).unwrap_or(i64::MAX);
    let index = if index < 0 { index.saturating_add(len).max(0) } else { index.min(len) };
    Ok(usize::try_from(index).unwrap_or(0))
}

pub(super) fn bounds(range: &Range<Option<&Val>>, len: usize) -> Result<Range<usize>, Error> {
    let start = bound(range.start, len, 0)?;
    Ok(start..bound(range.end, len, len)?.max(start))
}

/// The bytes of `text` that hold the characters of `range`.
pub(super) fn char_bounds(range: &Range<Option<&Val>>, text: &str) -> Result<Range<usize>, Error> {
    meter::charge_bytes(text.len());
    let chars = bounds(range, text.chars().count())?;
    let byte_of = |n: usize| text.char_indices().nth(n).map_or(text.len(), |(at, _)| at);
    Ok(byte_of(chars.start)..byte_of(chars.end))
}

/// Elements are handed out one by one, so that `first(.[])` of a shared array copies nothing.
pub(super) fn elements(arr: Rc<Arr>) -> impl Iterator<Item = (usize, Val)> {
    (0..arr.values.len()).filter_map(move |at| {
        meter::charge(1);
        arr.values.get(at).map(|value| (at, value.clone()))
    })
}

pub(super) fn members(obj: Rc<Obj>) -> impl Iterator<Item = (Rc<str>, Val)> {
    (0..obj.members.len()).filter_map(move |at| {
        meter::charge(1);
        obj.members.get_index(at).map(|(key, value)| (Rc::clone(key), value.clone()))
    })
}

impl jaq_core::ValT for Val {
    fn from_num(text: &str) -> ValR {
        text.parse().map(Self::float).map_err(|_| Error::str(format_args!("{text} is no number")))
    }

    fn from_map<I: IntoIterator<Item = (Self, Self)>>(iter: I) -> ValR {
        let members = iter.into_iter().map(|(key, value)| match key {
            Self::Str(key) => Ok((key, value)),
            other => {
                Err(Error::str(format_args!("{other} cannot be the key of an object; keys are strings")))
            }
        });
        Ok(Self::obj(members.collect::<Result<_, _>>()?))
    }

    fn key_values(self) -> Box<dyn Iterator<Item = Result<(Self, Self), Error>>> {
        match self {
            Self::Arr(arr) => Box::new(elements(arr).map(|(at, value)| Ok((Self::from(at), value)))),
            Self::Obj(obj) => Box::new(members(obj).map(|(key, value)| Ok((Self::Str(key), value)))),
            other => box_once(Err(Error::typ(other, "array or object"))),
        }
    }

    fn values(self) -> Box<dyn Iterator<Item = ValR>> {
        match self {
            Self::Arr(arr) => Box::new(elements(arr).map(|(_, value)| Ok(value))),
            Self::Obj(obj) => Box::new(members(obj).map(|(_, value)| Ok(value))),
            other => box_once(Err(Error::typ(other, "array or object"))),
        }
    }

    fn index(self, index: &Self) -> ValR {
        meter::charge(1);
        match (&self, index) {
            (Self::Null, Self::Str(_) | Self::Int(_) | Self::Float(_) | Self::Null) => Ok(Self::Null),
            (Self::Obj(obj), Self::Str(key)) => Ok(obj.members.get(key).cloned().unwrap_or_default()),
            (Self::Arr(arr), Self::Int(at)) => Ok(position(*at, arr.values.len())
                .and_then(|at| arr.values.get(at))
                .cloned()
                .unwrap_or_default()),
            (Self::Arr(_), Self::Float(at)) if at.is_finite() => self.index(&Self::Int(at.floor() as i64)),
            (_, Self::Obj(range)) => self.range(range.members.get("start")..range.members.get("end")),
            _ => Err(Error::index(self, index.clone())),
        }
    }

    fn range(self, range: Range<Option<&Self>>) -> ValR {
        match &self {
            Self::Null => Ok(Self::Null),
            Self::Arr(arr) => {
                let range = bounds(&range, arr.values.len())?;
                Ok(Self::arr(arr.values.get(range).unwrap_or_default().to_vec()))
            }
            Self::Str(text) => Ok(Self::str(text.get(char_bounds(&range, text)?).unwrap_or_default())),
            _ => Err(Error::typ(self, "array or string")),
        }
    }

    fn map_values<'a, I: Iterator<Item = ValX<'a>>>(self, opt: Opt, f: impl Fn(Self) -> I) -> ValX<'a> {
        match self {
            Self::Arr(arr) => elements(arr).flat_map(|(_, value)| f(value)).collect(),
            Self::Obj(obj) => {
                let updated =
                    members(obj).filter_map(|(key, value)| Some(f(value).next()?.map(|value| (key, value))));
                Ok(Self::obj(updated.collect::<Result<_, Exn<'a, Self>>>()?))
            }
            other => opt.fail(other, |v| Error::typ(v, "array or object").into()),
        }
    }

    fn map_index<'a, I: Iterator<Item = ValX<'a>>>(
        self,
        index: &Self,
        opt: Opt,
        f: impl Fn(Self) -> I,
    ) -> ValX<'a> {
        meter::charge(1);
        match (self, index) {
            (this @ (Self::Str(_) | Self::Arr(_)), Self::Obj(range)) => {
                this.map_range(range.members.get("start")..range.members.get("end"), opt, f)
            }
            (Self::Null, Self::Str(_)) => Self::obj(Members::new()).map_index(index, opt, f),
            (Self::Null, Self::Int(_)) => Self::arr(Vec::new()).map_index(index, opt, f),
            (Self::Obj(obj), Self::Str(key)) => update::member(obj, key, f),
            (Self::Arr(arr), Self::Int(at)) => update::element(arr, *at, opt, f),
            (this, _) => opt.fail(this, |v| Error::index(v, index.clone()).into()),
        }
    }

    fn map_range<'a, I: Iterator<Item = ValX<'a>>>(
        self,
        range: Range<Option<&Self>>,
        opt: Opt,
        f: impl Fn(Self) -> I,
    ) -> ValX<'a> {
        match &self {
            Self::Arr(arr) => update::slice(arr, bounds(&range, arr.values.len())?, f),
            Self::Str(text) => update::substring(text, char_bounds(&range, text)?, f),
            _ => opt.fail(self, |v| Error::typ(v, "array or string").into()),
        }
    }

    fn as_bool(&self) -> bool {
        !matches!(self, Self::Null | Self::Bool(false))
    }

    fn into_string(self) -> Self {
        if matches!(self, Self::Str(_)) { self } else { json::to_val(&self) }
    }
}

impl jaq_std::ValT for Val {
    fn into_seq<S: FromIterator<Self>>(self) -> Result<S, Self> {
        match self {
            Self::Arr(arr) => {
                meter::charge(1 + arr.values.len() as u64);
                Ok(arr.values.iter().cloned().collect())
            }
            other => Err(other),
        }
    }

    fn is_int(&self) -> bool {
        matches!(self, Self::Int(_))
    }

    fn as_isize(&self) -> Option<isize> {
        match self {
            Self::Int(int) => isize::try_from(*int).ok(),
            _ => None,
        }
    }

    fn as_f64(&self) -> Option<f64> {
        self.as_float()
    }

    fn is_utf8_str(&self) -> bool {
        matches!(self, Self::Str(_))
    }

    fn as_bytes(&self) -> Option<&[u8]> {
        let text = self.as_text()?;
        // Whoever asks for the bytes is about to walk over them.
        meter::charge_bytes(text.len());
        Some(text.as_bytes())
    }

    fn as_sub_str(&self, sub: &[u8]) -> Self {
        Self::str(&String::from_utf8_lossy(sub))
    }

    fn from_utf8_bytes(bytes: impl AsRef<[u8]> + Send + 'static) -> Self {
        Self::str(&String::from_utf8_lossy(bytes.as_ref()))
    }
}
