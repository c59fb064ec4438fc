//! A Jinja engine whose work and memory are bounded, whatever the template says.
//!
//! minijinja's fuel counts instructions, but one instruction can double a string or compare two huge lists. So the compiled
//! program is rewritten before it runs: whatever can make something larger, or walks something large, first pays for the
//! size of what it takes, out of a budget for the whole rendering. Filters, tests and functions pay in the same way, and so
//! does every piece of output, captured or not.

use std::cell::Cell;
use std::collections::BTreeMap;

use minijinja::machinery::{self, CodeGenerator, Instruction, Instructions};
use minijinja::value::{Rest, Value, ValueKind};
use minijinja::{
    AutoEscape, Environment, Error, ErrorKind, Output, State, UndefinedBehavior, escape_formatter,
};
use minijinja::{filters, functions, tests};

/// The filter that makes its value pay.
const METER: &str = "!meter";
/// The filter that lets only numbers pass.
const NUMBER: &str = "!number";
/// What every value costs beside its bytes.
const NODE_COST: u64 = 16;
/// How deep a value may nest.
const MAX_DEPTH: u32 = 128;
/// The flag of `{% for … recursive %}` in the compiled program.
const RECURSIVE_LOOP: u8 = 2;

thread_local! {
    /// What the rendering on this thread may still spend. Rendering never leaves its thread.
    static BUDGET: Cell<u64> = const { Cell::new(0) };
    /// What the rendering on this thread may still print.
    static OUTPUT: Cell<u64> = const { Cell::new(0) };
}

/// Bounds of one rendering.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    /// Bytes and values that are copied, compared or walked.
    pub(crate) work: u64,
    /// Bytes of the output.
    pub(crate) output_bytes: u64,
}

fn exhausted(why: &'static str) -> Error {
    Error::new(ErrorKind::OutOfFuel, why)
}

fn spend(units: u64) -> Result<(), Error> {
    BUDGET.with(|budget| match budget.get().checked_sub(units) {
        Some(rest) => {
            budget.set(rest);
            Ok(())
        }
        None => {
            budget.set(0);
            Err(exhausted(
                "the template copies, compares or walks more than template.max_work; make it simpler",
            ))
        }
    })
}

/// Pays for a value as a tree: what it shares with itself counts every time, as it would when printed.
fn meter(value: &Value, depth: u32) -> Result<(), Error> {
    if depth > MAX_DEPTH {
        return Err(exhausted("a value in the template nests too deep"));
    }
    spend(NODE_COST)?;
    match value.kind() {
        ValueKind::String | ValueKind::Bytes => {
            spend(value.len().and_then(|len| u64::try_from(len).ok()).unwrap_or_default())
        }
        ValueKind::Map => {
            for key in value.try_iter()? {
                meter(&key, depth + 1)?;
                meter(&value.get_item(&key)?, depth + 1)?;
            }
            Ok(())
        }
        ValueKind::Seq | ValueKind::Iterable => {
            for part in value.try_iter()? {
                meter(&part, depth + 1)?;
            }
            Ok(())
        }
        _ => Ok(()),
    }
}

fn metered(value: Value) -> Result<Value, Error> {
    meter(&value, 0)?;
    Ok(value)
}

fn number(value: Value) -> Result<Value, Error> {
    if value.is_number() {
        return Ok(value);
    }
    Err(Error::new(ErrorKind::InvalidOperation, "only numbers are multiplied; repeat text with a `for`"))
}

/// Prints one value, which pays for itself first.
fn print(out: &mut Output<'_>, state: &mut State<'_, '_>, value: &Value) -> Result<(), Error> {
    meter(value, 0)?;
    let text;
    let value = match value.kind() {
        ValueKind::Map | ValueKind::Seq | ValueKind::Iterable => {
            text = Value::from(value.to_string());
            &text
        }
        _ => value,
    };
    let length = value.as_str().map_or(32, str::len);
    OUTPUT.with(|left| match left.get().checked_sub(u64::try_from(length).unwrap_or(u64::MAX)) {
        Some(rest) => {
            left.set(rest);
            Ok(())
        }
        None => Err(exhausted("the template prints more than template.max_output_bytes")),
    })?;
    escape_formatter(out, state, value)
}

/// Registers filters that pay before they run, also when `map` or `select` calls them.
macro_rules! metered_filters {
    ($environment:ident: $($name:literal => $filter:expr,)*) => {$(
        $environment.add_filter(concat!("!", $name), $filter);
        $environment.add_filter($name, |state: &mut State<'_, '_>, args: Rest<Value>| {
            for arg in args.iter() {
                meter(arg, 0)?;
            }
            state.apply_filter(concat!("!", $name), &args)
        });
    )*};
}

/// The same for tests.
macro_rules! metered_tests {
    ($environment:ident: $($name:literal => $test:expr,)*) => {$(
        $environment.add_test(concat!("!", $name), $test);
        $environment.add_test($name, |state: &mut State<'_, '_>, args: Rest<Value>| {
            for arg in args.iter() {
                meter(arg, 0)?;
            }
            state.perform_test(concat!("!", $name), &args)
        });
    )*};
}

/// The environment: no templates but the one, no macros, no includes, no access to anything but the data.
pub(crate) fn environment(fuel: u64) -> Environment<'static> {
    let mut environment = Environment::empty();
    environment.set_fuel(Some(fuel));
    environment.set_recursion_limit(64);
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    environment.set_formatter(print);
    environment.add_filter(METER, metered);
    environment.add_filter(NUMBER, number);
    environment.add_function("range", functions::range);
    add_text_filters(&mut environment);
    add_list_filters(&mut environment);
    add_tests(&mut environment);
    environment
}

fn add_text_filters(environment: &mut Environment<'static>) {
    metered_filters!(environment:
        "safe" => filters::safe, "escape" => filters::escape, "e" => filters::escape, "lower" => filters::lower,
        "upper" => filters::upper, "title" => filters::title, "capitalize" => filters::capitalize,
        "replace" => replace, "trim" => filters::trim, "join" => join, "split" => filters::split,
        "lines" => filters::lines, "string" => filters::string, "tojson" => filters::tojson,
    );
}

fn add_list_filters(environment: &mut Environment<'static>) {
    metered_filters!(environment:
        "length" => filters::length, "count" => filters::length, "dictsort" => filters::dictsort,
        "items" => filters::items, "reverse" => filters::reverse, "default" => filters::default,
        "d" => filters::default, "round" => filters::round, "abs" => filters::abs, "int" => filters::int,
        "float" => filters::float, "attr" => filters::attr, "first" => filters::first, "last" => filters::last,
        "min" => filters::min, "max" => filters::max, "sort" => filters::sort, "list" => filters::list,
        "bool" => filters::bool, "select" => filters::select, "reject" => filters::reject,
        "selectattr" => filters::selectattr, "rejectattr" => filters::rejectattr, "map" => filters::map,
        "groupby" => filters::groupby, "unique" => filters::unique, "sum" => sum,
    );
}

fn add_tests(environment: &mut Environment<'static>) {
    metered_tests!(environment:
        "undefined" => tests::is_undefined, "defined" => tests::is_defined, "none" => tests::is_none,
        "boolean" => tests::is_boolean, "odd" => tests::is_odd, "even" => tests::is_even,
        "divisibleby" => tests::is_divisibleby, "number" => tests::is_number, "integer" => tests::is_integer,
        "float" => tests::is_float, "string" => tests::is_string, "sequence" => tests::is_sequence,
        "iterable" => tests::is_iterable, "mapping" => tests::is_mapping, "startingwith" => tests::is_startingwith,
        "endingwith" => tests::is_endingwith, "eq" => tests::is_eq, "ne" => tests::is_ne, "lt" => tests::is_lt,
        "le" => tests::is_le, "gt" => tests::is_gt, "ge" => tests::is_ge, "in" => tests::is_in,
        "true" => tests::is_true, "false" => tests::is_false,
    );
}

/// As minijinja's, but pays for what it makes before it makes it.
fn replace(text: &str, from: &str, to: &str) -> Result<String, Error> {
    let times = if from.is_empty() { text.chars().count() + 1 } else { text.matches(from).count() };
    spend(u64::try_from(times.saturating_mul(to.len())).unwrap_or(u64::MAX))?;
    Ok(text.replace(from, to))
}

/// Joins the parts as text; pays for what it makes before it makes it.
fn join(parts: &Value, separator: Option<&str>) -> Result<String, Error> {
    let separator = separator.unwrap_or_default();
    let mut joined = String::new();
    for (index, part) in parts.try_iter()?.enumerate() {
        if index > 0 {
            spend(u64::try_from(separator.len()).unwrap_or(u64::MAX))?;
            joined.push_str(separator);
        }
        match part.as_str() {
            Some(text) => joined.push_str(text),
            None => joined.push_str(&part.to_string()),
        }
    }
    Ok(joined)
}

/// The sum of numbers.
fn sum(parts: &Value) -> Result<Value, Error> {
    let mut whole = Some(0_i128);
    let mut broken = 0.0_f64;
    for part in parts.try_iter()? {
        broken += f64::try_from(number(part.clone())?)?;
        whole = if part.is_integer() {
            whole.zip(i128::try_from(part).ok()).and_then(|(sum, part)| sum.checked_add(part))
        } else {
            None
        };
    }
    Ok(whole.map_or_else(|| Value::from(broken), Value::from))
}

/// Renders one template; the error names its line.
pub(crate) fn render(
    environment: &Environment<'static>,
    source: &str,
    data: Value,
    escape: AutoEscape,
    bounds: Bounds,
) -> Result<String, Error> {
    let program = compile(source)?;
    let blocks = BTreeMap::new();
    BUDGET.set(bounds.work);
    OUTPUT.set(bounds.output_bytes);
    let mut text = String::new();
    let mut output = machinery::make_string_output(&mut text);
    machinery::eval(environment, &program, data, &blocks, &mut output, escape)?;
    drop(output);
    Ok(text)
}

/// Whether a template compiles.
pub(crate) fn check(source: &str) -> Result<(), Error> {
    compile(source).map(drop)
}

fn compile(source: &str) -> Result<Instructions<'_>, Error> {
    super::tokens::check(source)?;
    let syntax_tree = machinery::parse(source, "template", minijinja::syntax::SyntaxConfig::default())?;
    let mut generator = CodeGenerator::new("template", source);
    generator.compile_stmt(&syntax_tree);
    let (program, _) = generator.finish();
    rewrite(&program, source)
}

/// The same program, in which everything that grows or walks pays first.
fn rewrite<'source>(
    program: &Instructions<'source>,
    source: &'source str,
) -> Result<Instructions<'source>, Error> {
    let mut places = Vec::new();
    let mut expanded = Vec::new();
    let mut index = 0;
    while let Some(instruction) = program.get(index) {
        places.push(u32::try_from(expanded.len()).map_err(|_| exhausted("the template is too long"))?);
        let line = program.get_line(index).and_then(|line| u16::try_from(line).ok()).unwrap_or_default();
        expand(instruction, &mut |instruction| expanded.push((instruction, line)))?;
        index += 1;
    }
    places.push(u32::try_from(expanded.len()).map_err(|_| exhausted("the template is too long"))?);
    let mut rewritten = Instructions::new("template", source);
    for (mut instruction, line) in expanded {
        if let Instruction::Iterate(target)
        | Instruction::Jump(target)
        | Instruction::JumpIfFalse(target)
        | Instruction::JumpIfFalseOrPop(target)
        | Instruction::JumpIfTrueOrPop(target) = &mut instruction
        {
            let place = usize::try_from(*target).ok().and_then(|target| places.get(target));
            *target = *place
                .ok_or_else(|| Error::new(ErrorKind::BadSerialization, "the template jumps out of itself"))?;
        }
        rewritten.add_with_line(instruction, line);
    }
    Ok(rewritten)
}

fn expand<'source>(
    instruction: &Instruction<'source>,
    push: &mut impl FnMut(Instruction<'source>),
) -> Result<(), Error> {
    let check = |name: &'static str| Instruction::ApplyFilter(name, Some(1), u8::MAX);
    let before = match instruction {
        Instruction::EmitRaw(text) => {
            push(Instruction::LoadConst(Value::from_safe_string((*text).to_owned())));
            push(Instruction::Emit);
            return Ok(());
        }
        Instruction::PushLoop(flags) if flags & RECURSIVE_LOOP != 0 => {
            return Err(Error::new(ErrorKind::InvalidOperation, "`recursive` loops are not supported"));
        }
        Instruction::PushLoop(_) | Instruction::StoreLocal(_) => {
            push(check(METER));
            None
        }
        Instruction::Mul => Some(NUMBER),
        Instruction::Add
        | Instruction::StringConcat
        | Instruction::In
        | Instruction::CompareAndPreserve(_) => Some(METER),
        Instruction::Eq
        | Instruction::Ne
        | Instruction::Gt
        | Instruction::Gte
        | Instruction::Lt
        | Instruction::Lte => Some(METER),
        _ => None,
    };
    if let Some(name) = before {
        push(Instruction::Swap);
        push(check(name));
        push(Instruction::Swap);
        push(check(name));
    }
    push(instruction.clone());
    Ok(())
}
