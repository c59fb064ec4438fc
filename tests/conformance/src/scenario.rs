//! One scenario.

use serde_json::Value;

/// A document, its input, and what must come of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Scenario {
    /// The feature that it belongs to.
    pub feature: String,
    /// Its name.
    pub name: String,
    /// The document.
    pub document: Value,
    /// The input of the run.
    pub input: Value,
    /// What must hold.
    pub checks: Vec<Check>,
}

/// Something that must hold of a run.
#[derive(Debug, Clone, PartialEq)]
pub enum Check {
    /// It completes.
    Completes,
    /// It completes with this output.
    Output(Value),
    /// It faults.
    Faults,
    /// It faults with an error that has at least these members.
    Fault(Value),
    /// The output has a property at each of these paths.
    Has(Vec<String>),
    /// The output has this value at a path.
    Value(String, Value),
    /// The output has so many items at a path.
    Items(String, usize),
    /// A task ran first, last, or before or after another.
    Ran(String, Order),
}

/// When a task ran.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Order {
    /// Before all others.
    First,
    /// After all others.
    Last,
    /// Before this one.
    Before(String),
    /// After this one.
    After(String),
}

/// What stands at a path of names with dots between.
#[must_use]
pub fn lookup<'v>(value: &'v Value, path: &str) -> Option<&'v Value> {
    path.split('.').try_fold(value, |value, name| value.get(name))
}

impl Check {
    /// Whether it holds: of how the run ended, and of the names of its tasks in the order in which they began.
    ///
    /// # Errors
    /// What does not hold, as a sentence.
    pub fn holds(&self, ended: &Result<Value, Value>, ran: &[String]) -> Result<(), String> {
        let output = || ended.as_ref().map_err(|fault| format!("it faulted with {fault}"));
        let at = |path: &str| {
            let output = output()?;
            lookup(output, path).ok_or_else(|| format!("the output has no {path:?}: {output}"))
        };
        let fault = || ended.as_ref().err().ok_or_else(|| format!("it completed with {ended:?}"));
        let is = |holds: bool, otherwise: String| if holds { Ok(()) } else { Err(otherwise) };
        match self {
            Self::Completes => output().map(|_| ()),
            Self::Output(wanted) => {
                let output = output()?;
                is(output == wanted, format!("the output is {output}, not {wanted}"))
            }
            Self::Faults => fault().map(|_| ()),
            Self::Fault(wanted) => {
                let fault = fault()?;
                let members = wanted.as_object().into_iter().flatten();
                members.clone().try_for_each(|(name, wanted)| {
                    let got = fault.get(name);
                    is(got == Some(wanted), format!("{name} of the error is {got:?}, not {wanted}"))
                })
            }
            Self::Has(paths) => paths.iter().try_for_each(|path| at(path).map(|_| ())),
            Self::Value(path, wanted) => {
                let got = at(path)?;
                is(got == wanted, format!("{path} of the output is {got}, not {wanted}"))
            }
            Self::Items(path, wanted) => {
                let got = at(path)?.as_array().map(Vec::len);
                is(got == Some(*wanted), format!("{path} of the output has {got:?} items, not {wanted}"))
            }
            Self::Ran(task, order) => order.holds(task, ran),
        }
    }
}

impl Order {
    fn holds(&self, task: &str, ran: &[String]) -> Result<(), String> {
        let place = |name: &str| {
            ran.iter().position(|ran| ran == name).ok_or_else(|| format!("{name} did not run, but {ran:?}"))
        };
        let own = place(task)?;
        let holds = match self {
            Self::First => own == 0,
            Self::Last => own + 1 == ran.len(),
            Self::Before(other) => own < place(other)?,
            Self::After(other) => own > place(other)?,
        };
        if holds { Ok(()) } else { Err(format!("{task} did not run {self:?}: {ran:?}")) }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn checks_fail_where_they_should() {
        let good: Result<Value, Value> = Ok(json!({"a": {"b": [1, 2]}}));
        let bad: Result<Value, Value> = Err(json!({"status": 400}));
        let ran = ["x".to_owned(), "y".to_owned()];
        for (check, holds, fails) in [
            (Check::Completes, &good, &bad),
            (Check::Faults, &bad, &good),
            (Check::Fault(json!({"status": 400})), &bad, &Err(json!({"status": 401}))),
            (Check::Has(vec!["a.b".into()]), &good, &bad),
            (Check::Items("a.b".into(), 2), &good, &Ok(json!({"a": {"b": [1]}}))),
            (Check::Value("a.b".into(), json!([1, 2])), &good, &Ok(json!({"a": {"b": [2]}}))),
            (Check::Output(json!({"a": {"b": [1, 2]}})), &good, &Ok(json!({}))),
        ] {
            assert_eq!(check.holds(holds, &ran), Ok(()));
            assert!(check.holds(fails, &ran).is_err(), "{check:?}");
        }
        for (task, order, holds) in [
            ("x", Order::First, true),
            ("y", Order::First, false),
            ("y", Order::Last, true),
            ("x", Order::Before("y".into()), true),
            ("x", Order::After("y".into()), false),
            ("z", Order::Last, false),
        ] {
            assert_eq!(Check::Ran(task.into(), order).holds(&good, &ran).is_ok(), holds);
        }
    }
}
