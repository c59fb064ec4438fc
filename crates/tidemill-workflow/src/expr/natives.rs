//! Filters implemented in Rust, for [`Val`].

mod format;
mod path;
mod pattern;

use std::collections::BTreeSet;
use std::sync::LazyLock;

use jaq_core::RunPtr;
use jaq_core::native::{Filter, Fun, bome, run, unary, v};

use super::engine::Engine;
use super::value::Val;
use super::{json, meter};

type Error = jaq_core::Error<Val>;
type ValR = Result<Val, Error>;
type Natives = Vec<Filter<RunPtr<Engine>>>;

/// Every native: those of jaq that work on any value, and ours.
pub(super) fn all() -> impl Iterator<Item = Fun<Engine>> {
    let of_jaq =
        jaq_core::funs::<Engine>().chain(jaq_std::base_funs::<Engine>()).filter(|(name, ..)| *name != "halt");
    of_jaq.chain(own().into_iter().map(|native| run::<Engine>(native)))
}

/// Names and numbers of arguments of all natives, sorted.
static NAMES: LazyLock<Vec<(&'static str, usize)>> = LazyLock::new(|| {
    let names: BTreeSet<_> = all().map(|(name, args, _)| (name, args.len())).collect();
    names.into_iter().collect()
});

/// The native of this name and number of arguments, if there is one.
pub(super) fn find(name: &str, arity: usize) -> Option<(&'static str, usize)> {
    let at = NAMES.binary_search_by(|(known, args)| (*known, *args).cmp(&(name, arity))).ok()?;
    NAMES.get(at).copied()
}

/// The names of all natives.
pub(super) fn names() -> impl Iterator<Item = &'static str> {
    NAMES.iter().map(|(name, _)| *name)
}

fn own() -> Natives {
    let mut natives = values();
    natives.extend(numbers());
    natives.extend(format::natives());
    natives.extend(path::natives());
    natives.extend(pattern::natives());
    natives
}

fn values() -> Natives {
    vec![
        ("tojson", v(0), |cv| bome(Ok(json::to_val(&cv.1)))),
        ("fromjson", v(0), |cv| bome(from_json(&cv.1))),
        ("length", v(0), |cv| bome(length(&cv.1))),
        ("tonumber", v(0), |cv| bome(to_number(cv.1))),
        ("toboolean", v(0), |cv| bome(to_boolean(cv.1))),
        ("has", v(1), |cv| unary(cv, |value, key| has(&value, &key))),
        ("contains", v(1), |cv| unary(cv, |value, inner| Ok(contains(&value, &inner).into()))),
        ("indices", v(1), |cv| unary(cv, |value, inner| indices(&value, &inner))),
        ("bsearch", v(1), |cv| unary(cv, |value, wanted| search(value, &wanted))),
    ]
}

fn from_json(value: &Val) -> ValR {
    let text = value.as_text().ok_or_else(|| Error::typ(value.clone(), "string"))?;
    meter::charge_bytes(text.len());
    json::read(text.as_bytes())
        .map_err(|error| Error::str(format_args!("{value} is not valid JSON: {error}")))
}

fn length(value: &Val) -> ValR {
    match value {
        Val::Null => Ok(Val::Int(0)),
        Val::Bool(_) => Err(Error::str(format_args!("{value} has no length"))),
        Val::Int(int) => Ok(int.checked_abs().map_or(Val::Float(-(*int as f64)), Val::Int)),
        Val::Float(float) => Ok(Val::float(float.abs())),
        Val::Str(text) => {
            meter::charge_bytes(text.len());
            Ok(text.chars().count().into())
        }
        Val::Arr(arr) => Ok(arr.values.len().into()),
        Val::Obj(obj) => Ok(obj.members.len().into()),
    }
}

fn to_number(value: Val) -> ValR {
    match &value {
        Val::Int(_) | Val::Float(_) => Ok(value),
        Val::Str(text) => match serde_json::from_str::<Val>(text.trim()) {
            Ok(number @ (Val::Int(_) | Val::Float(_))) => Ok(number),
            _ => Err(Error::str(format_args!("{value} is no number"))),
        },
        _ => Err(Error::str(format_args!("{value} cannot be made a number"))),
    }
}

fn to_boolean(value: Val) -> ValR {
    match &value {
        Val::Bool(_) => Ok(value),
        Val::Str(text) if &**text == "true" => Ok(Val::Bool(true)),
        Val::Str(text) if &**text == "false" => Ok(Val::Bool(false)),
        _ => Err(Error::str(format_args!("{value} cannot be made a boolean"))),
    }
}

fn has(value: &Val, key: &Val) -> ValR {
    match (value, key) {
        (Val::Obj(obj), Val::Str(key)) => Ok(obj.members.contains_key(key).into()),
        (Val::Arr(arr), Val::Int(at)) => {
            Ok(usize::try_from(*at).is_ok_and(|at| at < arr.values.len()).into())
        }
        _ => Err(Error::index(value.clone(), key.clone())),
    }
}

fn contains(value: &Val, inner: &Val) -> bool {
    meter::charge(1);
    match (value, inner) {
        (Val::Str(text), Val::Str(inner)) => {
            meter::charge_bytes(text.len());
            text.contains(&**inner)
        }
        (Val::Arr(arr), Val::Arr(inner)) => {
            inner.values.iter().all(|inner| arr.values.iter().any(|value| contains(value, inner)))
        }
        (Val::Obj(obj), Val::Obj(inner)) => inner
            .members
            .iter()
            .all(|(key, inner)| obj.members.get(key).is_some_and(|value| contains(value, inner))),
        _ => value == inner,
    }
}

fn indices(value: &Val, inner: &Val) -> ValR {
    match (value, inner) {
        (Val::Null, _) => Ok(Val::Null),
        (Val::Str(text), Val::Str(inner)) => Ok(text_indices(text, inner)),
        (Val::Arr(_), Val::Arr(inner)) if inner.values.is_empty() => Ok(Val::arr(Vec::new())),
        (Val::Arr(arr), Val::Arr(inner)) => {
            let windows = arr.values.windows(inner.values.len()).enumerate();
            Ok(windows.filter(|(_, window)| *window == inner.values).map(|(at, _)| at.into()).collect())
        }
        (Val::Arr(arr), _) => {
            let found = arr.values.iter().enumerate().filter(|(_, value)| *value == inner);
            Ok(found.map(|(at, _)| at.into()).collect())
        }
        _ => Err(Error::index(value.clone(), inner.clone())),
    }
}

/// Positions in characters; matches may overlap.
fn text_indices(text: &str, inner: &str) -> Val {
    if inner.is_empty() {
        return Val::arr(Vec::new());
    }
    let starts = text.char_indices().enumerate().filter(|(_, (at, _))| {
        meter::charge(1 + inner.len() as u64 / 64);
        text.get(*at..).is_some_and(|rest| rest.starts_with(inner))
    });
    starts.map(|(at, _)| at.into()).collect()
}

fn search(value: Val, wanted: &Val) -> ValR {
    match &value {
        Val::Arr(arr) => Ok(match arr.values.binary_search(wanted) {
            Ok(at) => at.into(),
            Err(at) => Val::Int(-1 - i64::try_from(at).unwrap_or(i64::MAX - 1)),
        }),
        _ => Err(Error::typ(value, "array")),
    }
}

/// A filter from floats to floats.
macro_rules! float {
    ($name:literal, $f:expr) => {
        ($name, v(0), |cv| bome(float_of(&cv.1).map(|x| Val::float($f(x)))))
    };
}

fn float_of(value: &Val) -> Result<f64, Error> {
    value.as_float().ok_or_else(|| Error::typ(value.clone(), "number"))
}

fn numbers() -> Natives {
    vec![
        ("nan", v(0), |_| bome(Ok(Val::Float(f64::NAN)))),
        ("infinite", v(0), |_| bome(Ok(Val::Float(f64::INFINITY)))),
        ("isnan", v(0), |cv| bome(float_of(&cv.1).map(|x| x.is_nan().into()))),
        ("isinfinite", v(0), |cv| bome(float_of(&cv.1).map(|x| x.is_infinite().into()))),
        float!("sqrt", f64::sqrt),
        float!("exp", f64::exp),
        float!("exp2", f64::exp2),
        float!("exp10", |x: f64| 10_f64.powf(x)),
        float!("log", f64::ln),
        float!("log2", f64::log2),
        float!("log10", f64::log10),
        float!("fabs", f64::abs),
        float!("trunc", f64::trunc),
        float!("sin", f64::sin),
        float!("cos", f64::cos),
        float!("tan", f64::tan),
        ("pow", v(2), |mut cv| {
            let exponent = cv.0.pop_var();
            let base = cv.0.pop_var();
            bome((|| Ok(Val::float(float_of(&base)?.powf(float_of(&exponent)?))))())
        }),
        ("fmin", v(2), |mut cv| {
            let (right, left) = (cv.0.pop_var(), cv.0.pop_var());
            bome((|| Ok(Val::float(float_of(&left)?.min(float_of(&right)?))))())
        }),
        ("fmax", v(2), |mut cv| {
            let (right, left) = (cv.0.pop_var(), cv.0.pop_var());
            bome((|| Ok(Val::float(float_of(&left)?.max(float_of(&right)?))))())
        }),
    ]
}
