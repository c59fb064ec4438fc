//! Compiling and running one jq filter.

use jaq_core::data::HasLut;
use jaq_core::load::lex::Lexer;
use jaq_core::load::parse::{Parser, Term};
use jaq_core::load::{Arena, File, Loader, span};
use jaq_core::{Compiler, Ctx, DataT, Lut, Vars};

use super::uses::{self, Uses};
use super::value::Val;
use super::{Fault, Limits, json, meter, natives, prelude};

/// Longest filter text.
const SOURCE_BYTES: usize = 16 << 10;
/// Up to this length a filter is compiled on the caller's stack, beyond it on a stack of its own: parser and compiler
/// recurse once per operator.
const SHALLOW_BYTES: usize = 160;
const COMPILE_STACK_BYTES: usize = 192 << 20;

/// Ties the interpreter to our values and to the meter.
pub(super) struct Engine;

impl DataT for Engine {
    type V<'a> = Val;
    type Data<'a> = Metered<'a>;
}

/// The look-up table of terms. The interpreter asks for it before it runs any term: that is where each step is charged.
#[derive(Clone)]
pub(super) struct Metered<'a>(&'a Lut<Engine>);

impl<'a> HasLut<'a, Engine> for Metered<'a> {
    fn lut(&self) -> &'a Lut<Engine> {
        meter::charge(1);
        self.0
    }
}

/// A compiled filter; shared between threads.
pub(super) struct Program {
    filter: jaq_core::Filter<Engine>,
    uses: Uses,
    splice: Option<Vec<String>>,
}

impl Program {
    /// Compiles `source`; the error says what is wrong, and at which column of it.
    pub(super) fn compile(source: &str) -> Result<Self, String> {
        Self::compile_with(source, &[])
    }

    /// The same where the variables of these names, each with its `$`, are given when it is run.
    pub(super) fn compile_with(source: &str, variables: &[&str]) -> Result<Self, String> {
        if source.len() > SOURCE_BYTES {
            return Err(format!("is {} bytes long; at most {SOURCE_BYTES} are allowed", source.len()));
        }
        if source.len() <= SHALLOW_BYTES {
            return compile(source, variables);
        }
        let compiled = std::thread::scope(|scope| {
            let thread = std::thread::Builder::new().stack_size(COMPILE_STACK_BYTES);
            let handle = thread
                .spawn_scoped(scope, || compile(source, variables))
                .map_err(|error| error.to_string())?;
            handle.join().map_err(|_| "the jq compiler broke on it".to_owned())
        });
        compiled.map_err(|error| format!("cannot be compiled: {error}"))?
    }

    pub(super) const fn uses(&self) -> &Uses {
        &self.uses
    }

    /// The members that a filter of the form `.a.b` walks down, if it has that form.
    pub(super) fn plain_path(&self) -> Option<&[String]> {
        self.splice.as_deref()
    }

    /// Runs the filter on `input` and hands its only output to `then`, all under `limits`, which keep the fuel left.
    pub(super) fn run<T>(
        &self,
        input: Val,
        limits: &mut Limits,
        then: impl FnOnce(Val) -> Result<T, Fault>,
    ) -> Result<T, Fault> {
        self.run_with(input, Vec::new(), limits, then)
    }

    /// The same with the values of its variables, in the order of their names.
    pub(super) fn run_with<T>(
        &self,
        input: Val,
        variables: Vec<Val>,
        limits: &mut Limits,
        then: impl FnOnce(Val) -> Result<T, Fault>,
    ) -> Result<T, Fault> {
        let fuel = limits.fuel;
        let outcome = meter::metered(limits, move || {
            let ctx = Ctx::<Engine>::new(Metered(&self.filter.lut), Vars::new(variables));
            let mut outputs = self.filter.id.run((ctx, input));
            let Some(first) = outputs.next() else { return Err(Fault::NoOutput) };
            let first = first.map_err(failed)?;
            match outputs.next() {
                None => then(first),
                Some(Ok(_)) => Err(Fault::ManyOutputs),
                Some(Err(error)) => Err(failed(error)),
            }
        });
        match outcome {
            Ok(result) => result,
            Err(Some(meter::Stop::Fuel)) => Err(Fault::OutOfFuel { fuel }),
            Err(Some(meter::Stop::Stack)) => Err(Fault::TooRecursive),
            Err(Some(meter::Stop::Depth)) => Err(Fault::TooDeep { depth: limits.depth }),
            Err(None) => Err(Fault::Failed {
                message: "the jq interpreter broke; please report the expression".into(),
            }),
        }
    }

    /// Runs the filter and writes its only output as JSON onto `out`.
    pub(super) fn write(&self, input: Val, limits: &mut Limits, out: &mut Vec<u8>) -> Result<(), Fault> {
        let limit_bytes = limits.output_bytes;
        self.run(input, limits, |value| {
            json::write(&value, out, limit_bytes)
                .map_err(|json::TooLong| Fault::OutputTooLarge { limit_bytes })
        })
    }
}

fn failed(error: jaq_core::Exn<'_, Val>) -> Fault {
    let message = match error.get_err() {
        Ok(error) => match error.into_val() {
            Val::Str(text) => text.chars().take(1000).collect(),
            other => other.to_string(),
        },
        Err(_) => "break without its label".to_owned(),
    };
    Fault::Failed { message }
}

fn compile(source: &str, variables: &[&str]) -> Result<Program, String> {
    let term = parse(source)?;
    if let Some(refusal) = uses::refusal(&term) {
        return Err(refusal);
    }
    let (uses, calls) = uses::of_expression(&term);
    let needed = prelude::needed(&calls);
    let arena = Arena::default();
    let file = File { code: source, path: () };
    let modules = Loader::new(needed.defs).load(&arena, file).map_err(|_| "cannot be loaded".to_owned())?;
    // most expressions call no native, and none calls more than a few of them
    let called = |fun: &jaq_core::native::Fun<Engine>| needed.natives.contains(&(fun.0, fun.1.len()));
    let funs = (!needed.natives.is_empty()).then(natives::all).into_iter().flatten().filter(called);
    let compiler = Compiler::default().with_funs(funs).with_global_vars(variables.iter().copied());
    let filter = compiler.compile(modules).map_err(|errors| {
        let undefined = errors.into_iter().flat_map(|(_, errors)| errors).next();
        undefined.map_or_else(
            || "cannot be compiled".to_owned(),
            |(name, what)| undefined_message(source, name, what.as_str()),
        )
    })?;
    let splice = plain_path(&term);
    Ok(Program { filter, uses, splice })
}

fn parse(source: &str) -> Result<Term<&str>, String> {
    let place = |part: &str| span(source, part).start + 1;
    let tokens = Lexer::new(source).lex().map_err(|errors| {
        errors.first().map_or_else(String::new, |(expected, found)| {
            format!("column {}: expected {} {}", place(found), expected.as_str(), found_text(found))
        })
    })?;
    Parser::new(&tokens).parse(|parser| parser.term()).map_err(|errors| {
        errors.first().map_or_else(String::new, |(expected, found)| match found {
            Some(token) => {
                format!("column {}: expected {} {}", place(token.0), expected.as_str(), found_text(token.0))
            }
            None => format!("expected {} at its end", expected.as_str()),
        })
    })
}

fn found_text(found: &str) -> String {
    if found.is_empty() {
        return "at its end".to_owned();
    }
    let shown: String = found.chars().take(20).collect();
    format!("but found `{shown}`")
}

fn undefined_message(source: &str, name: &str, what: &str) -> String {
    // A name inside our own definitions has no place in the source.
    let inside = source.as_bytes().as_ptr_range().contains(&name.as_ptr());
    let place = if inside { format!("column {}: ", span(source, name).start + 1) } else { String::new() };
    let hint = match (what, prelude::suggestion(name)) {
        ("filter", Some(near)) if near != name => format!("; did you mean `{near}`?"),
        ("filter", Some(_)) => "; it takes another number of arguments".to_owned(),
        ("variable", _) if name == "$ENV" || name == "$__loc__" => {
            "; expressions cannot read their surroundings".into()
        }
        _ => String::new(),
    };
    format!("{place}{what} `{name}` does not exist{hint}")
}

/// `.a.b["c"]`, with plain strings only.
fn plain_path(term: &Term<&str>) -> Option<Vec<String>> {
    let Term::Path(base, path) = term else { return None };
    if !matches!(**base, Term::Id) {
        return None;
    }
    let name = |(part, _): &(jaq_core::path::Part<Term<&str>>, _)| match part {
        jaq_core::path::Part::Index(index) => uses::literal(index).map(str::to_owned),
        jaq_core::path::Part::Range(..) => None,
    };
    path.0.iter().map(name).collect()
}
