//! Updating one place of a value: what `|=` and its kin come down to. An update without an output deletes the place.

use std::mem::take;
use std::ops::Range;
use std::rc::Rc;

use jaq_core::Exn;
use jaq_core::path::Opt;

use super::super::meter;
use super::jq::position;
use super::{Arr, Obj, Val};

pub(super) type ValX<'a> = Result<Val, Exn<'a, Val>>;
type Error = jaq_core::Error<Val>;

fn first<'a>(mut outputs: impl Iterator<Item = ValX<'a>>) -> Result<Option<Val>, Exn<'a, Val>> {
    outputs.next().transpose()
}

pub(super) fn member<'a, I: Iterator<Item = ValX<'a>>>(
    mut obj: Rc<Obj>,
    key: &Rc<str>,
    f: impl Fn(Val) -> I,
) -> ValX<'a> {
    // Taken out where nobody else holds the object: then the update of the inner value need not copy it either.
    let old = match Rc::get_mut(&mut obj) {
        Some(obj) => obj.members.get_mut(key).map(take),
        None => obj.members.get(key).cloned(),
    };
    if let Some(value) = first(f(old.unwrap_or_default()))? {
        meter::charge(4);
        let depth = meter::nest(value.depth());
        Obj::make_mut(&mut obj, depth).insert(Rc::clone(key), value);
    } else {
        meter::charge(obj.members.len() as u64);
        Obj::make_mut(&mut obj, 0).shift_remove(key);
    }
    Ok(Val::Obj(obj))
}

pub(super) fn element<'a, I: Iterator<Item = ValX<'a>>>(
    mut arr: Rc<Arr>,
    at: i64,
    opt: Opt,
    f: impl Fn(Val) -> I,
) -> ValX<'a> {
    let len = arr.values.len();
    let beyond = usize::try_from(at).ok().filter(|at| *at >= len);
    let Some(position) = position(at, len).or(beyond) else {
        return opt.fail(Val::Arr(arr), |_| Error::str(format_args!("index {at} is out of bounds")).into());
    };
    let old = match Rc::get_mut(&mut arr) {
        Some(arr) => arr.values.get_mut(position).map(take),
        None => arr.values.get(position).cloned(),
    };
    if let Some(value) = first(f(old.unwrap_or_default()))? {
        meter::charge(1 + position.saturating_sub(len) as u64);
        let depth = meter::nest(value.depth());
        let values = Arr::make_mut(&mut arr, depth);
        if position >= len {
            values.resize(position + 1, Val::Null);
        }
        if let Some(place) = values.get_mut(position) {
            *place = value;
        }
    } else if position < len {
        meter::charge((len - position) as u64);
        Arr::make_mut(&mut arr, 0).remove(position);
    }
    Ok(Val::Arr(arr))
}

pub(super) fn slice<'a, I: Iterator<Item = ValX<'a>>>(
    arr: &Arr,
    range: Range<usize>,
    f: impl Fn(Val) -> I,
) -> ValX<'a> {
    let inner = arr.values.get(range.clone()).unwrap_or_default().to_vec();
    let inner = match first(f(Val::arr(inner)))? {
        Some(Val::Arr(inner)) => inner.values.clone(),
        None => Vec::new(),
        Some(other) => return Err(Error::typ(other, "array").into()),
    };
    meter::charge((arr.values.len() + inner.len()) as u64);
    let mut values = arr.values.clone();
    values.splice(range, inner);
    Ok(Val::arr(values))
}

pub(super) fn substring<'a, I: Iterator<Item = ValX<'a>>>(
    text: &str,
    range: Range<usize>,
    f: impl Fn(Val) -> I,
) -> ValX<'a> {
    let inner = match first(f(Val::str(text.get(range.clone()).unwrap_or_default())))? {
        Some(Val::Str(inner)) => inner,
        None => Rc::from(""),
        Some(other) => return Err(Error::typ(other, "string").into()),
    };
    meter::charge_bytes(text.len() + inner.len());
    let mut text = text.to_owned();
    text.replace_range(range, &inner);
    Ok(Val::str(&text))
}
