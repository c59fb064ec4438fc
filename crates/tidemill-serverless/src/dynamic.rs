//! Values with runtime expressions in them.

use serde_json::{Map, Value};
use tidemill_workflow::{BoundFilter, ExprError, Limits, TextPart, text_parts};

/// A value, compiled.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Dynamic {
    Constant(Value),
    Filter(BoundFilter),
    /// Text around expressions.
    Text(Vec<Piece>),
    Array(Vec<Self>),
    Object(Vec<(String, Self)>),
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Piece {
    Text(String),
    Filter(BoundFilter),
}

/// What an expression is evaluated on.
pub(crate) struct View<'a> {
    /// `.`
    pub(crate) dot: &'a Value,
    /// Values of variables.
    pub(crate) variable: &'a dyn Fn(&str) -> Value,
    pub(crate) limits: &'a Limits,
}

/// A text that cannot be compiled, with the path below the value.
pub(crate) struct Refused {
    pub(crate) path: Vec<tidemill_workflow::source::Segment>,
    pub(crate) message: String,
}

/// Compiles jq text with or without `${ … }` around it.
pub(crate) fn expression(text: &str, variables: &[&str]) -> Result<BoundFilter, String> {
    let parts = text_parts(text.trim())?;
    let inside = match parts.as_slice() {
        [TextPart::Expression(inside)] => inside,
        _ => text,
    };
    BoundFilter::compile(inside, variables)
}

/// Compiles a value, in whose strings expressions stand in `${ … }`.
pub(crate) fn template(value: &Value, variables: &[&str]) -> Result<Dynamic, Refused> {
    let mut path = Vec::new();
    compile(value, variables, &mut path).map_err(|message| Refused { path, message })
}

fn compile(
    value: &Value,
    variables: &[&str],
    path: &mut Vec<tidemill_workflow::source::Segment>,
) -> Result<Dynamic, String> {
    use tidemill_workflow::source::Segment;
    match value {
        Value::String(text) => compile_text(text, variables),
        Value::Array(values) => {
            let mut all = Vec::with_capacity(values.len());
            for (at, value) in values.iter().enumerate() {
                path.push(Segment::At(at));
                all.push(compile(value, variables, path)?);
                path.pop();
            }
            Ok(Dynamic::Array(all).folded())
        }
        Value::Object(members) => {
            let mut all = Vec::with_capacity(members.len());
            for (name, value) in members {
                path.push(Segment::Name(name.clone()));
                all.push((name.clone(), compile(value, variables, path)?));
                path.pop();
            }
            Ok(Dynamic::Object(all).folded())
        }
        _ => Ok(Dynamic::Constant(value.clone())),
    }
}

fn compile_text(text: &str, variables: &[&str]) -> Result<Dynamic, String> {
    if !text.contains("${") {
        return Ok(Dynamic::Constant(text.into()));
    }
    // a line break after the only expression, as a YAML block leaves it, does not count
    if let [TextPart::Expression(inside)] = text_parts(text.trim())?.as_slice() {
        return BoundFilter::compile(inside, variables).map(Dynamic::Filter);
    }
    let piece = |part: &TextPart<'_>| match part {
        TextPart::Text(text) => Ok(Piece::Text(text.replace("$${", "${"))),
        TextPart::Expression(inside) => BoundFilter::compile(inside, variables).map(Piece::Filter),
    };
    let pieces = text_parts(text)?.iter().map(piece).collect::<Result<Vec<_>, _>>()?;
    Ok(match pieces.as_slice() {
        [Piece::Text(text)] => Dynamic::Constant(text.as_str().into()),
        _ => Dynamic::Text(pieces),
    })
}

impl Dynamic {
    /// Constant where all its parts are.
    fn folded(self) -> Self {
        match &self {
            Self::Array(values) => {
                let constants: Option<Vec<Value>> =
                    values.iter().map(|value| value.constant().cloned()).collect();
                constants.map(|values| Self::Constant(values.into())).unwrap_or(self)
            }
            Self::Object(members) => {
                let constants: Option<Map<String, Value>> = members
                    .iter()
                    .map(|(name, value)| value.constant().map(|value| (name.clone(), value.clone())))
                    .collect();
                constants.map(|members| Self::Constant(members.into())).unwrap_or(self)
            }
            Self::Constant(_) | Self::Filter(_) | Self::Text(_) => self,
        }
    }

    /// Its value, where it has no expression.
    pub(crate) const fn constant(&self) -> Option<&Value> {
        match self {
            Self::Constant(value) => Some(value),
            _ => None,
        }
    }

    pub(crate) fn evaluate(&self, view: &View<'_>) -> Result<Value, ExprError> {
        match self {
            Self::Constant(value) => Ok(value.clone()),
            Self::Filter(filter) => view.run(filter),
            Self::Text(pieces) => {
                let mut text = String::new();
                for piece in pieces {
                    match piece {
                        Piece::Text(piece) => text.push_str(piece),
                        Piece::Filter(filter) => text.push_str(&plain_text(&view.run(filter)?)),
                    }
                }
                Ok(text.into())
            }
            Self::Array(values) => values.iter().map(|value| value.evaluate(view)).collect(),
            Self::Object(members) => members
                .iter()
                .map(|(name, value)| Ok((name.clone(), value.evaluate(view)?)))
                .collect::<Result<Map<_, _>, _>>()
                .map(Value::Object),
        }
    }
}

impl View<'_> {
    pub(crate) fn run(&self, filter: &BoundFilter) -> Result<Value, ExprError> {
        filter.run(self.dot, self.variable, self.limits)
    }

    /// Runs a condition, which must give true or false.
    pub(crate) fn decide(&self, filter: &BoundFilter) -> Result<bool, ExprError> {
        let value = self.run(filter)?;
        value.as_bool().ok_or_else(|| ExprError {
            expression: filter.source().trim().chars().take(80).collect(),
            fault: tidemill_workflow::Fault::NotBoolean { got: kind(&value) },
        })
    }
}

/// A value inside of text: strings as they are, anything else as JSON.
pub(crate) fn plain_text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// The JSON word for the kind of value.
pub(crate) const fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn evaluated(value: &Value, dot: &Value) -> Value {
        let compiled = template(value, &["one"]).map_err(|refused| refused.message).unwrap();
        let view = View { dot, variable: &|_| json!(1), limits: &Limits::default() };
        compiled.evaluate(&view).unwrap()
    }

    #[test]
    fn expressions_stand_in_braces_wherever_a_string_may_stand() {
        let value = json!({"a": "${ .x }", "b": ["n ${ .x | length }, ${ $one }", "$${ x }"], "c": 1, "d": "${ .x }\n"});
        let expected = json!({"a": [1, 2], "b": ["n 2, 1", "${ x }"], "c": 1, "d": [1, 2]});
        assert_eq!(evaluated(&value, &json!({"x": [1, 2]})), expected);
    }

    #[test]
    fn what_holds_no_expression_is_constant() {
        let compiled =
            template(&json!({"a": [1, "x"], "b": {"c": null}}), &[]).map_err(|refused| refused.message);
        assert_eq!(compiled.unwrap().constant(), Some(&json!({"a": [1, "x"], "b": {"c": null}})));
    }

    #[test]
    fn a_bad_expression_is_refused_with_its_path() {
        let refused = template(&json!({"a": [0, "${ .x | }"]}), &[]).unwrap_err();
        assert_eq!(tidemill_workflow::source::path_text(&refused.path), "a[1]");
        assert!(template(&json!("${ $two }"), &["one"]).unwrap_err().message.contains("$two"));
    }

    #[test]
    fn a_condition_gives_true_or_false() {
        let view = View { dot: &json!({"x": null}), variable: &|_| Value::Null, limits: &Limits::default() };
        assert_eq!(view.decide(&expression("${ .x == null }", &[]).unwrap()), Ok(true));
        assert!(view.decide(&expression(".x", &[]).unwrap()).unwrap_err().to_string().contains("null"));
    }
}
