//! URI templates, as far as the specification has them: `{name}` is replaced by a top-level member, percent-encoded.

use serde_json::Value;

/// Expands the variables of a template; a name that is missing leaves nothing.
///
/// # Errors
/// A variable is an array or an object, or a brace has no end; the sentence says which.
pub(crate) fn expand(template: &str, value: impl Fn(&str) -> Option<Value>) -> Result<String, String> {
    let mut out = String::new();
    let mut rest = template;
    while let Some((before, tail)) = rest.split_once('{') {
        out.push_str(before);
        let (name, after) = tail
            .split_once('}')
            .ok_or_else(|| format!("`{{` has no closing brace in the URI `{template}`"))?;
        match value(name) {
            None | Some(Value::Null) => {}
            Some(Value::String(text)) => encode(&text, &mut out),
            Some(scalar @ (Value::Bool(_) | Value::Number(_))) => encode(&scalar.to_string(), &mut out),
            Some(Value::Array(_) | Value::Object(_)) => {
                return Err(format!(
                    "`{{{name}}}` in the URI `{template}` is no string, number, boolean or null"
                ));
            }
        }
        rest = after;
    }
    out.push_str(rest);
    Ok(out)
}

/// Percent-encodes all but the unreserved characters of RFC 3986.
pub(crate) fn encode(text: &str, out: &mut String) {
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
}

/// Why a template can never be expanded, if so.
pub(crate) fn refusal(template: &str) -> Option<String> {
    let mut rest = template;
    while let Some((_, tail)) = rest.split_once('{') {
        let Some((name, after)) = tail.split_once('}') else {
            return Some(format!("`{{` has no closing brace in the URI `{template}`"));
        };
        if name.is_empty()
            || name.starts_with(['+', '#', '.', '/', ';', '?', '&'])
            || name.contains(['*', ',', '{'])
        {
            return Some(format!(
                "`{{{name}}}` is no simple variable; only `{{name}}` is supported in a URI"
            ));
        }
        rest = after;
    }
    None
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn variables_are_encoded_so_that_they_stay_in_their_place() {
        let data = json!({"id": 7, "name": "a/b c?ü", "flag": true, "pet.id": "x"});
        let get = |name: &str| data.get(name).cloned();
        assert_eq!(
            expand("http://h/{id}/{name}/{flag}{none}?q={pet.id}", get).unwrap(),
            "http://h/7/a%2Fb%20c%3F%C3%BC/true?q=x"
        );
    }

    #[test]
    fn objects_and_open_braces_are_refused() {
        assert!(expand("/{a}", |_| Some(json!([]))).unwrap_err().contains("{a}"));
        assert!(expand("/{a", |_| None).is_err());
        for text in ["/{a", "/{+a}", "/{a*}", "/{}", "/{a,b}"] {
            assert!(refusal(text).is_some(), "{text}");
        }
        assert!(refusal("/{a.b}/{c}").is_none());
    }
}
