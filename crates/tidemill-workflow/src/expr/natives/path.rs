//! Paths that fail where they lead nowhere: what `{{ … }}` compiles to.

use jaq_core::Cv;
use jaq_core::native::{bome, v};

use super::super::engine::Engine;
use super::super::meter;
use super::super::value::Val;
use super::{Error, Natives, ValR};

pub(super) fn natives() -> Natives {
    vec![
        ("strict_path", v(2), |cv| bome(walk(cv).map(|(value, _)| value))),
        ("strict_text", v(2), |cv| {
            bome(walk(cv).and_then(|(value, name)| match value {
                Val::Null => Err(Error::str(format_args!("`{name}` is null where text is needed"))),
                value => Ok(value),
            }))
        }),
    ]
}

/// Follows the keys from the input, whose name is the second argument, and gives the name of what is found, too.
fn walk(mut cv: Cv<'_, Engine>) -> Result<(Val, String), Error> {
    let (name, keys) = (cv.0.pop_var(), cv.0.pop_var());
    let mut name = name.as_text().ok_or_else(|| Error::typ(name.clone(), "string"))?.to_owned();
    let Val::Arr(keys) = &keys else { return Err(Error::typ(keys, "array")) };
    let mut value = cv.1;
    for key in &keys.values {
        meter::charge(1);
        value = step(&value, key, &name)?;
        match key.as_text().filter(|key| key.chars().all(|c| c.is_alphanumeric() || c == '_')) {
            Some(key) => name.extend([".", key]),
            None => name.push_str(&format!("[{key}]")),
        }
    }
    Ok((value, name))
}

/// Errors tell kinds and lengths only: values may be secrets.
fn step(value: &Val, key: &Val, name: &str) -> ValR {
    match (value, key) {
        (Val::Obj(obj), Val::Str(member)) => {
            obj.members.get(member).cloned().ok_or_else(|| Error::str(format_args!("`{name}` has no {key}")))
        }
        (Val::Arr(arr), Val::Int(at)) => {
            let length = arr.values.len();
            let from_end = usize::try_from(at.unsigned_abs()).ok().and_then(|back| length.checked_sub(back));
            let at = if *at < 0 { from_end } else { usize::try_from(*at).ok() };
            let found = at.and_then(|at| arr.values.get(at)).cloned();
            found.ok_or_else(|| Error::str(format_args!("`{name}` has {length} values, but none at [{key}]")))
        }
        _ => {
            let article = match value {
                Val::Null => "",
                Val::Arr(_) | Val::Obj(_) => "an ",
                Val::Bool(_) | Val::Int(_) | Val::Float(_) | Val::Str(_) => "a ",
            };
            Err(Error::str(format_args!("`{name}` is {article}{} and has no {key}", value.kind())))
        }
    }
}
