//! Regular expressions: what `test`, `match`, `capture`, `scan`, `split`, `sub` and `gsub` of the prelude call.
//!
//! The `regex` crate never backtracks, so that time grows with pattern × text only; both are charged for.

use jaq_core::native::{bome, v};
use jaq_core::{Cv, ValT as _};
use regex::{Captures, Regex, RegexBuilder};

use super::super::engine::Engine;
use super::super::meter;
use super::super::value::Val;
use super::{Error, Natives, ValR};

/// Compiled size that a pattern may have.
const PATTERN_BYTES: usize = 256 << 10;
/// Compiling a pattern costs about as much as this many steps.
const COMPILE_TICKS: u64 = 500;

pub(super) fn natives() -> Natives {
    vec![
        ("matches", v(2), |cv| bome(apply(cv, false, true))),
        ("split_matches", v(2), |cv| bome(apply(cv, true, true))),
        ("split_", v(2), |cv| bome(apply(cv, true, false))),
    ]
}

struct Flags {
    global: bool,
    skip_empty: bool,
}

/// The pieces of the input: what lies between matches (`gaps`), the matches themselves (`found`), in order.
fn apply(mut cv: Cv<'_, Engine>, gaps: bool, found: bool) -> ValR {
    let flags = cv.0.pop_var();
    let pattern = cv.0.pop_var();
    let text = cv.1.as_text().ok_or_else(|| Error::typ(cv.1.clone(), "string"))?;
    let (regex, flags) = compile(&pattern, &flags)?;
    meter::charge_bytes(text.len().saturating_mul(4));
    let names: Vec<Option<&str>> = regex.capture_names().collect();
    let mut cursor = Cursor { text, byte: 0, chars: 0 };
    let mut pieces = Vec::new();
    let mut last = 0;
    for captures in regex.captures_iter(text) {
        let Some(whole) = captures.get(0) else { continue };
        if flags.skip_empty && whole.is_empty() {
            continue;
        }
        if gaps {
            pieces.push(Val::str(text.get(last..whole.start()).unwrap_or_default()));
            last = whole.end();
        }
        if found {
            pieces.push(describe(&captures, &names, &mut cursor)?);
        }
        if !flags.global {
            break;
        }
    }
    if gaps {
        pieces.push(Val::str(text.get(last..).unwrap_or_default()));
    }
    Ok(Val::arr(pieces))
}

fn compile(pattern: &Val, flags: &Val) -> Result<(Regex, Flags), Error> {
    let source = pattern.as_text().ok_or_else(|| Error::typ(pattern.clone(), "string"))?;
    let letters = match flags {
        Val::Null => "",
        other => other.as_text().ok_or_else(|| Error::typ(other.clone(), "string"))?,
    };
    meter::charge(COMPILE_TICKS);
    meter::charge_bytes(source.len().saturating_mul(64));
    let mut builder = RegexBuilder::new(source);
    builder.size_limit(PATTERN_BYTES).dfa_size_limit(PATTERN_BYTES).nest_limit(50);
    let mut flags = Flags { global: false, skip_empty: false };
    for letter in letters.chars() {
        match letter {
            'g' => flags.global = true,
            'n' => flags.skip_empty = true,
            'i' => drop(builder.case_insensitive(true)),
            'x' => drop(builder.ignore_whitespace(true)),
            's' => drop(builder.dot_matches_new_line(true)),
            'l' => drop(builder.swap_greed(true)),
            'm' => drop(builder.multi_line(true)),
            'p' => drop(builder.multi_line(true).dot_matches_new_line(true)),
            other => {
                return Err(Error::str(format_args!(
                    "{other:?} is no flag of a regular expression (g n i x s l m p)"
                )));
            }
        }
    }
    let regex = builder.build().map_err(|error| {
        // The library draws the pattern over several lines; its last one says what is wrong.
        let text = error.to_string();
        let why = text.lines().last().unwrap_or_default().trim();
        Error::str(format_args!("{pattern} is not a valid regular expression: {why}"))
    })?;
    Ok((regex, flags))
}

/// A match and its groups, each as `{offset, length, string, name?}`.
fn describe(captures: &Captures<'_>, names: &[Option<&str>], cursor: &mut Cursor<'_>) -> ValR {
    let mut groups = Vec::new();
    for (group, name) in captures.iter().zip(names) {
        let (offset, string) = match group {
            Some(found) => (Val::from(cursor.char_at(found.start())), Val::str(found.as_str())),
            None => (Val::Int(-1), Val::Null),
        };
        let length = group.map_or(0, |found| found.as_str().chars().count());
        let key = |name: &str| Val::Str(name.into());
        let mut members =
            vec![(key("offset"), offset), (key("length"), length.into()), (key("string"), string)];
        if let Some(name) = name {
            members.push((key("name"), Val::str(name)));
        }
        groups.push(Val::from_map(members)?);
    }
    Ok(Val::arr(groups))
}

/// Turns byte offsets into character offsets, going back only within one match.
struct Cursor<'t> {
    text: &'t str,
    byte: usize,
    chars: usize,
}

impl Cursor<'_> {
    fn char_at(&mut self, byte: usize) -> usize {
        if byte < self.byte {
            let back = self.text.get(byte..self.byte).unwrap_or_default();
            meter::charge_bytes(back.len());
            return self.chars - back.chars().count();
        }
        self.chars += self.text.get(self.byte..byte).unwrap_or_default().chars().count();
        self.byte = byte;
        self.chars
    }
}
