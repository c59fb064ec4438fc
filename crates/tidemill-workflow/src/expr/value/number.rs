//! Arithmetic of expressions: `+ - * / %` and negation, with the meaning of jq.

use std::collections::BTreeSet;
use std::ops::{Add, Div, Mul, Neg, Rem, Sub};
use std::rc::Rc;

use jaq_core::ops::Math;

use super::super::meter;
use super::{Arr, Obj, Val};

type Error = jaq_core::Error<Val>;
type ValR = Result<Val, Error>;

impl Val {
    /// The value as a floating-point number.
    pub(in super::super) const fn as_float(&self) -> Option<f64> {
        match self {
            Self::Int(int) => Some(*int as f64),
            Self::Float(float) => Some(*float),
            Self::Null | Self::Bool(_) | Self::Str(_) | Self::Arr(_) | Self::Obj(_) => None,
        }
    }

    /// A number that is an integer where it can be one without loss.
    pub(in super::super) fn float(float: f64) -> Self {
        const EXACT: f64 = 9_007_199_254_740_992.0;
        if float.fract() == 0.0 && float.abs() < EXACT { Self::Int(float as i64) } else { Self::Float(float) }
    }
}

/// Integers stay integers as long as they fit, then become floats.
fn arithmetic(
    (l, op, r): (Val, Math, Val),
    int: fn(i64, i64) -> Option<i64>,
    float: fn(f64, f64) -> f64,
) -> ValR {
    if let (Val::Int(x), Val::Int(y)) = (&l, &r)
        && let Some(z) = int(*x, *y)
    {
        return Ok(Val::Int(z));
    }
    match (l.as_float(), r.as_float()) {
        (Some(x), Some(y)) => Ok(Val::float(float(x, y))),
        _ => Err(Error::math(l, op, r)),
    }
}

impl Add for Val {
    type Output = ValR;
    fn add(self, rhs: Self) -> ValR {
        meter::charge(1);
        match (self, rhs) {
            (Self::Null, x) | (x, Self::Null) => Ok(x),
            (Self::Str(l), Self::Str(r)) => {
                meter::charge_bytes(l.len() + r.len());
                Ok(Self::Str([&*l, &*r].concat().into()))
            }
            (Self::Arr(l), Self::Arr(r)) if l.values.is_empty() => Ok(Self::Arr(r)),
            (Self::Arr(mut l), Self::Arr(r)) => {
                meter::charge(1 + r.values.len() as u64);
                Arr::make_mut(&mut l, r.depth).extend(r.values.iter().cloned());
                Ok(Self::Arr(l))
            }
            (Self::Obj(mut l), Self::Obj(r)) => {
                meter::charge(1 + 4 * r.members.len() as u64);
                let added = r.members.iter().map(|(key, value)| (Rc::clone(key), value.clone()));
                Obj::make_mut(&mut l, r.depth).extend(added);
                Ok(Self::Obj(l))
            }
            (l, r) => arithmetic((l, Math::Add, r), i64::checked_add, |x, y| x + y),
        }
    }
}

impl Sub for Val {
    type Output = ValR;
    fn sub(self, rhs: Self) -> ValR {
        meter::charge(1);
        match (self, rhs) {
            (Self::Arr(l), Self::Arr(r)) => {
                let drop: BTreeSet<&Self> = r.values.iter().collect();
                Ok(Self::arr(l.values.iter().filter(|value| !drop.contains(value)).cloned().collect()))
            }
            (l, r) => arithmetic((l, Math::Sub, r), i64::checked_sub, |x, y| x - y),
        }
    }
}

impl Mul for Val {
    type Output = ValR;
    fn mul(self, rhs: Self) -> ValR {
        meter::charge(1);
        match (self, rhs) {
            (Self::Str(text), times @ (Self::Int(_) | Self::Float(_)))
            | (times @ (Self::Int(_) | Self::Float(_)), Self::Str(text)) => Ok(repeat(&text, &times)),
            (Self::Obj(l), Self::Obj(r)) => Ok(merge(l, &r)),
            (l, r) => arithmetic((l, Math::Mul, r), i64::checked_mul, |x, y| x * y),
        }
    }
}

/// `"ab" * 3`; null where jq gives null. Charged before a byte is copied.
fn repeat(text: &str, times: &Val) -> Val {
    let times = times.as_float().unwrap_or(0.0);
    if times.is_nan() || times <= 0.0 {
        return Val::Null;
    }
    let times = (times as usize).max(1);
    meter::charge_bytes(text.len().saturating_mul(times));
    Val::Str(text.repeat(times).into())
}

/// `{a: {b: 1}} * {a: {c: 2}}`: objects are merged, other values replaced.
fn merge(mut l: Rc<Obj>, r: &Rc<Obj>) -> Val {
    for (key, value) in &r.members {
        meter::charge(1);
        let value = match (l.members.get(key), value) {
            (Some(Val::Obj(inner)), Val::Obj(over)) => merge(Rc::clone(inner), over),
            _ => value.clone(),
        };
        let depth = meter::nest(value.depth());
        Obj::make_mut(&mut l, depth).insert(Rc::clone(key), value);
    }
    Val::Obj(l)
}

impl Div for Val {
    type Output = ValR;
    fn div(self, rhs: Self) -> ValR {
        meter::charge(1);
        match (&self, &rhs) {
            (Self::Str(text), Self::Str(separator)) => Ok(split(text, separator)),
            (Self::Int(_) | Self::Float(_), Self::Int(0)) => Err(zero_divisor(&self)),
            (Self::Int(_) | Self::Float(_), Self::Float(zero)) if *zero == 0.0 => Err(zero_divisor(&self)),
            _ => {
                let exact = |x: i64, y: i64| {
                    x.checked_rem(y).filter(|rest| *rest == 0).and_then(|_| x.checked_div(y))
                };
                arithmetic((self, Math::Div, rhs), exact, |x, y| x / y)
            }
        }
    }
}

fn zero_divisor(l: &Val) -> Error {
    Error::str(format_args!("{l} cannot be divided by zero"))
}

fn split(text: &str, separator: &str) -> Val {
    meter::charge_bytes(text.len());
    if text.is_empty() {
        return Val::arr(Vec::new());
    }
    if separator.is_empty() {
        return Val::arr(text.chars().map(|c| Val::str(c.encode_utf8(&mut [0; 4]))).collect());
    }
    Val::arr(text.split(separator).map(Val::str).collect())
}

impl Rem for Val {
    type Output = ValR;
    fn rem(self, rhs: Self) -> ValR {
        meter::charge(1);
        match (&self, &rhs) {
            (Self::Int(_) | Self::Float(_), Self::Int(0)) => Err(zero_divisor(&self)),
            _ => arithmetic((self, Math::Rem, rhs), i64::checked_rem, |x, y| x % y),
        }
    }
}

impl Neg for Val {
    type Output = ValR;
    fn neg(self) -> ValR {
        meter::charge(1);
        match self {
            Self::Int(int) => Ok(int.checked_neg().map_or_else(|| Self::float(-(int as f64)), Self::Int)),
            Self::Float(float) => Ok(Self::Float(-float)),
            other => Err(Error::typ(other, "number")),
        }
    }
}
