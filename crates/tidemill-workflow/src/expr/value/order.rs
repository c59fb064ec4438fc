//! The order of values: null < booleans < numbers < strings < arrays < objects. Comparing charges for what it looks at.

use std::cmp::Ordering;
use std::rc::Rc;

use super::super::meter;
use super::{Obj, Val};

impl Val {
    const fn rank(&self) -> u8 {
        match self {
            Self::Null => 0,
            Self::Bool(_) => 1,
            Self::Int(_) | Self::Float(_) => 2,
            Self::Str(_) => 3,
            Self::Arr(_) => 4,
            Self::Obj(_) => 5,
        }
    }
}

fn compare_floats(x: f64, y: f64) -> Ordering {
    // What is not a number is below every number, and equal to itself, as `Ord` needs it.
    x.partial_cmp(&y).unwrap_or_else(|| y.is_nan().cmp(&x.is_nan()))
}

fn compare_text(x: &str, y: &str) -> Ordering {
    meter::charge(x.len().min(y.len()) as u64 / 64);
    x.cmp(y)
}

fn sorted_keys(obj: &Obj) -> Vec<Rc<str>> {
    let mut keys: Vec<_> = obj.members.keys().cloned().collect();
    keys.sort_unstable_by(|l, r| compare_text(l, r));
    keys
}

fn compare_objects(x: &Obj, y: &Obj) -> Ordering {
    meter::charge((x.members.len() + y.members.len()) as u64);
    let (left, right) = (sorted_keys(x), sorted_keys(y));
    left.cmp(&right).then_with(|| {
        left.iter().map(|key| x.members.get(key)).cmp(right.iter().map(|key| y.members.get(key)))
    })
}

impl Ord for Val {
    fn cmp(&self, other: &Self) -> Ordering {
        meter::charge(1);
        match (self, other) {
            (Self::Bool(x), Self::Bool(y)) => x.cmp(y),
            (Self::Int(x), Self::Int(y)) => x.cmp(y),
            (Self::Str(x), Self::Str(y)) => compare_text(x, y),
            (Self::Arr(x), Self::Arr(y)) => x.values.cmp(&y.values),
            (Self::Obj(x), Self::Obj(y)) => compare_objects(x, y),
            _ => match (self.as_float(), other.as_float()) {
                (Some(x), Some(y)) => compare_floats(x, y),
                _ => self.rank().cmp(&other.rank()),
            },
        }
    }
}

impl PartialOrd for Val {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Val {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Val {}
