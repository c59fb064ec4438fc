//! What an expression reads, found by looking at its syntax tree: which members of the context, which steps.
//!
//! The answer is an upper bound: where the tree does not show what is read, everything is taken to be. It decides what
//! a worker fetches before it evaluates, so it must never miss a step; being precise only makes it fast.

use std::collections::{BTreeMap, BTreeSet};

use jaq_core::load::lex::StrPart;
use jaq_core::load::parse::{BinaryOp, Def, Pattern, Term};
use jaq_core::path::{Opt, Part};

/// Members of the context that an expression can read anywhere, as far as `for_each` allows.
pub(crate) const CONTEXT: [&str; 5] = ["input", "steps", "run", "item", "index"];
/// Members of the context that there are in some places only.
pub(crate) const PLACED: [&str; 4] = ["feedback", "iteration", "output", "previous"];

/// What an expression reads of its context.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Uses {
    pub(crate) input: bool,
    pub(crate) item: bool,
    /// `.item` or `.index` is named, where `.` is surely the context.
    pub(crate) certain_item: bool,
    /// Members of [`PLACED`] that may be read.
    pub(crate) placed: BTreeSet<&'static str>,
    /// Those of them that are named where `.` is surely the context.
    pub(crate) certain_placed: BTreeSet<&'static str>,
    pub(crate) run: bool,
    /// Members of the run read by name.
    pub(crate) of_run: BTreeSet<String>,
    /// Every step that could be in scope, because the syntax does not show which.
    pub(crate) all_steps: bool,
    /// Steps read by name.
    pub(crate) steps: BTreeSet<String>,
    /// Members asked of the context that it never has.
    pub(crate) unknown: BTreeSet<String>,
}

/// What is called, with the number of arguments: the definitions that have to be loaded.
pub(super) type Calls<'s> = BTreeSet<(&'s str, usize)>;

/// Where `.` stands in a part of the tree.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Dot {
    /// At the context, for certain.
    Context,
    /// At the context or anywhere else.
    Maybe,
    /// Never at the whole context.
    Inside,
}

/// Definitions that do nothing with `.` but hand it to their arguments.
const TRANSPARENT: &[(&str, usize)] = &[
    ("true", 0),
    ("false", 0),
    ("null", 0),
    ("empty", 0),
    ("nan", 0),
    ("infinite", 0),
    ("error", 1),
    ("range", 1),
    ("range", 2),
    ("range", 3),
    ("first", 1),
    ("last", 1),
    ("limit", 2),
    ("skip", 2),
    ("nth", 2),
    ("isempty", 1),
    ("add", 1),
    ("any", 2),
    ("all", 2),
    ("IN", 2),
];

/// Finds what a whole expression reads, and what it calls.
pub(super) fn of_expression<'s>(term: &Term<&'s str>) -> (Uses, Calls<'s>) {
    let mut walk = Walk::default();
    walk.term(term, Dot::Context);
    (walk.uses, walk.calls)
}

/// What a definition calls.
pub(super) fn of_definition<'s>(def: &Def<&'s str>) -> Calls<'s> {
    let mut walk = Walk::default();
    walk.term(&def.body, Dot::Inside);
    walk.calls
}

/// Why an expression that parses is refused all the same: what it does would recurse over the native stack where the
/// meter does not see it.
pub(super) fn refusal(term: &Term<&str>) -> Option<String> {
    let mut walk = Walk::default();
    walk.term(term, Dot::Inside);
    if let Some(name) = walk.recursive {
        // Such a definition can wrap its argument anew on each call, and so build a chain of closures as long as fuel
        // allows, which is dropped by recursion. Nothing useful needs it.
        return Some(format!("`{name}` takes a filter and calls itself; pass values (`$x`) instead"));
    }
    (walk.longest_path > PATH_PARTS)
        .then(|| format!("a path has {} parts; at most {PATH_PARTS} are allowed", walk.longest_path))
}

/// Most parts of one path, such as `.a[0].b`.
const PATH_PARTS: usize = 100;

#[derive(Default)]
struct Walk<'s> {
    uses: Uses,
    calls: Calls<'s>,
    /// Definitions being walked that take filters, with how many of each.
    local: BTreeMap<(&'s str, usize), usize>,
    /// A definition that takes filters and calls itself.
    recursive: Option<&'s str>,
    longest_path: usize,
}

impl<'s> Walk<'s> {
    fn term(&mut self, term: &Term<&'s str>, dot: Dot) {
        match term {
            Term::Id | Term::Recurse => self.whole(dot),
            Term::Num(_) | Term::Var(_) | Term::Break(_) | Term::Arr(None) => {}
            Term::Str(format, parts) => self.string(*format, parts, dot),
            Term::Arr(Some(inner)) | Term::Neg(inner) | Term::Label(_, inner) => self.term(inner, dot),
            Term::Obj(members) => {
                members.iter().for_each(|(key, value)| self.member(key, value.as_ref(), dot));
            }
            Term::BinOp(l, op, r) => self.operation(l, op, r, dot),
            Term::Fold(_, source, pattern, args) => self.fold(source, pattern, args, dot),
            Term::TryCatch(body, catch) => {
                self.term(body, dot);
                if let Some(catch) = catch {
                    self.term(catch, Dot::Inside);
                }
            }
            Term::IfThenElse(branches, otherwise) => {
                for (condition, then) in branches {
                    self.term(condition, dot);
                    self.term(then, dot);
                }
                match otherwise {
                    Some(otherwise) => self.term(otherwise, dot),
                    None => self.whole(dot),
                }
            }
            Term::Def(defs, rest) => {
                defs.iter().for_each(|def| self.definition(def, dot));
                self.term(rest, dot);
            }
            Term::Call(name, args) => self.call(name, args, dot),
            Term::Path(base, path) => self.path(base, &path.0, dot),
        }
    }

    /// `.` is used as a whole.
    fn whole(&mut self, dot: Dot) {
        if dot != Dot::Inside {
            self.uses.input = true;
            self.uses.item = true;
            self.uses.placed.extend(PLACED);
            self.uses.run = true;
            self.uses.all_steps = true;
        }
    }

    fn string(&mut self, format: Option<&'s str>, parts: &[StrPart<&'s str, Term<&'s str>>], dot: Dot) {
        if let Some(format) = format {
            self.calls.insert((format, 0));
        }
        for part in parts {
            if let StrPart::Term(term) = part {
                self.term(term, dot);
            }
        }
    }

    fn member(&mut self, key: &Term<&'s str>, value: Option<&Term<&'s str>>, dot: Dot) {
        self.term(key, dot);
        if value.is_none() && !matches!(key, Term::Var(_)) {
            match literal(key) {
                Some(name) => self.first(name, None, dot),
                None => self.whole(dot),
            }
        }
        if let Some(value) = value {
            self.term(value, dot);
        }
    }

    fn operation(&mut self, l: &Term<&'s str>, op: &BinaryOp<&'s str>, r: &Term<&'s str>, dot: Dot) {
        match op {
            BinaryOp::Pipe(None) if matches!(l, Term::Id) => self.term(r, dot),
            BinaryOp::Pipe(None) => {
                self.term(l, dot);
                self.term(r, Dot::Inside);
            }
            BinaryOp::Pipe(Some(pattern)) => {
                self.term(l, dot);
                self.pattern(pattern, dot);
                self.term(r, dot);
            }
            BinaryOp::Comma
            | BinaryOp::Alt
            | BinaryOp::Or
            | BinaryOp::And
            | BinaryOp::Math(_)
            | BinaryOp::Cmp(_) => {
                self.term(l, dot);
                self.term(r, dot);
            }
            // An update gives the whole of `.`, changed.
            BinaryOp::Assign | BinaryOp::Update | BinaryOp::UpdateMath(_) | BinaryOp::UpdateAlt => {
                self.whole(dot);
                self.term(l, dot);
                self.term(r, dot);
            }
        }
    }

    fn fold(&mut self, source: &Term<&'s str>, pattern: &Pattern<&'s str>, args: &[Term<&'s str>], dot: Dot) {
        self.term(source, dot);
        self.pattern(pattern, dot);
        for (at, arg) in args.iter().enumerate() {
            // The first argument is the start; in the others `.` is what was accumulated.
            self.term(arg, if at == 0 { dot } else { Dot::Inside });
        }
    }

    fn pattern(&mut self, pattern: &Pattern<&'s str>, dot: Dot) {
        match pattern {
            Pattern::Var(_) => {}
            Pattern::Arr(inner) => inner.iter().for_each(|pattern| self.pattern(pattern, dot)),
            Pattern::Obj(members) => {
                for (key, pattern) in members {
                    self.term(key, dot);
                    self.pattern(pattern, dot);
                }
            }
        }
    }

    fn definition(&mut self, def: &Def<&'s str>, dot: Dot) {
        let key = (def.name, def.args.len());
        let takes_filters = def.args.iter().any(|arg| !arg.starts_with('$'));
        if takes_filters {
            *self.local.entry(key).or_default() += 1;
        }
        self.term(&def.body, if dot == Dot::Inside { Dot::Inside } else { Dot::Maybe });
        if takes_filters && let Some(open) = self.local.get_mut(&key) {
            *open -= 1;
        }
    }

    fn call(&mut self, name: &'s str, args: &[Term<&'s str>], dot: Dot) {
        let key = (name, args.len());
        self.calls.insert(key);
        if self.local.get(&key).is_some_and(|open| *open > 0) {
            self.recursive.get_or_insert(name);
        }
        if !TRANSPARENT.contains(&key) {
            self.whole(dot);
        }
        // Whether an argument is run on `.` or on something else is up to what is called.
        let dot = if dot == Dot::Inside { Dot::Inside } else { Dot::Maybe };
        args.iter().for_each(|arg| self.term(arg, dot));
    }

    fn path(&mut self, base: &Term<&'s str>, parts: &[(Part<Term<&'s str>>, Opt)], dot: Dot) {
        self.longest_path = self.longest_path.max(parts.len());
        for (part, _) in parts {
            match part {
                Part::Index(index) => self.term(index, dot),
                Part::Range(from, to) => from.iter().chain(to).for_each(|bound| self.term(bound, dot)),
            }
        }
        if !matches!(base, Term::Id) {
            return self.term(base, dot);
        }
        match parts.first() {
            Some((Part::Index(index), _)) if literal(index).is_some() => {
                let second = match parts.get(1) {
                    Some((Part::Index(index), _)) => literal(index),
                    _ => None,
                };
                self.first(literal(index).unwrap_or_default(), second, dot);
            }
            _ => self.whole(dot),
        }
    }

    /// `.name` or `.name.second`.
    fn first(&mut self, name: &str, second: Option<&str>, dot: Dot) {
        if dot == Dot::Inside {
            return;
        }
        match (name, second) {
            ("input", _) => self.uses.input = true,
            ("run", member) => {
                self.uses.run = true;
                self.uses.of_run.extend(member.filter(|_| dot == Dot::Context).map(str::to_owned));
            }
            ("item" | "index", _) => {
                self.uses.item = true;
                self.uses.certain_item |= dot == Dot::Context;
            }
            (name, _) if PLACED.contains(&name) => {
                let known = PLACED.into_iter().find(|known| *known == name);
                self.uses.placed.extend(known);
                self.uses.certain_placed.extend(known.filter(|_| dot == Dot::Context));
            }
            ("steps", Some(step)) if dot == Dot::Context => {
                self.uses.steps.insert(step.to_owned());
            }
            // A name under a `.steps` that may be something else says nothing for certain.
            ("steps", _) => self.uses.all_steps = true,
            _ if dot == Dot::Context => {
                self.uses.unknown.insert(name.to_owned());
            }
            _ => {}
        }
    }
}

/// The text of a term that is a plain string.
pub(super) fn literal<'s>(term: &Term<&'s str>) -> Option<&'s str> {
    match term {
        Term::Str(None, parts) => match parts.as_slice() {
            [StrPart::Str(text)] => Some(text),
            _ => None,
        },
        _ => None,
    }
}
