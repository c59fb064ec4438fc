//! `key=value`: changes of a definition, one key at a time.
//!
//! A key is a path with dots (`breaker.open_ms`, `per_tenant."a.b".concurrency`). A value is JSON, or the text that it is; for keys
//! in milliseconds also a time (`5s`); `none` takes a key back to its default. `limits.<unit>=<amount>/<window>[,<contract>]`
//! sets the limit of a unit.

use serde_json::{Map, Value, json};

/// Keys whose values are lists of words.
const LISTS: [&str; 4] = ["tools", "counts", "fallback_on", "on"];

/// Carries out one assignment.
pub(super) fn assign(document: &mut Value, assignment: &str) -> Result<(), String> {
    let (path, value) = split_assignment(assignment)
        .ok_or_else(|| format!("{assignment:?} is no assignment; write key=value, such as concurrency=50"))?;
    let path = keys(path)?;
    let (last, parents) = path.split_last().ok_or_else(|| format!("{assignment:?} names no key"))?;
    if let Some((limits, unit)) = of_limit(&path) {
        return set_limit(descend(document, limits)?, unit, value);
    }
    let parent = descend(document, parents)?;
    match parsed(last, value)? {
        Some(value) => parent.insert(last.clone(), value),
        None => parent.remove(last),
    };
    Ok(())
}

/// Splits at the first `=` that stands in no quotes.
fn split_assignment(text: &str) -> Option<(&str, &str)> {
    let mut quoted = false;
    let at = text.char_indices().find_map(|(at, c)| {
        quoted ^= c == '"';
        (c == '=' && !quoted).then_some(at)
    })?;
    Some((text.get(..at)?, text.get(at + 1..)?))
}

fn keys(path: &str) -> Result<Vec<String>, String> {
    let (mut keys, mut key, mut quoted) = (Vec::new(), String::new(), false);
    for c in path.chars() {
        match c {
            '"' => quoted = !quoted,
            '.' if !quoted => keys.push(std::mem::take(&mut key)),
            c => key.push(c),
        }
    }
    keys.push(key);
    if quoted || keys.iter().any(String::is_empty) {
        return Err(format!(
            "{path:?} is no key: names with dots in between; a name that has dots stands in quotes"
        ));
    }
    Ok(keys)
}

/// `limits.<unit>`, alone or inside a scope.
fn of_limit(path: &[String]) -> Option<(&[String], &str)> {
    match path {
        [scope @ .., limits, unit] if limits == "limits" => Some((scope, unit)),
        _ => None,
    }
}

fn descend<'d>(document: &'d mut Value, path: &[String]) -> Result<&'d mut Map<String, Value>, String> {
    let mut at = document;
    for (depth, key) in path.iter().enumerate() {
        let Value::Object(members) = at else { return Err(no_object(path.get(..depth).unwrap_or_default())) };
        at = members.entry(key.clone()).or_insert_with(|| json!({}));
        if at.is_null() {
            *at = json!({});
        }
    }
    match at {
        Value::Object(members) => Ok(members),
        _ => Err(no_object(path)),
    }
}

fn no_object(path: &[String]) -> String {
    format!("{:?} has no keys below it; set it as a whole", path.join("."))
}

fn parsed(key: &str, value: &str) -> Result<Option<Value>, String> {
    if value.is_empty() || value == "none" || value == "null" {
        return Ok(None);
    }
    if key.ends_with("_ms")
        && let Ok(ms) = milliseconds(value)
    {
        return Ok(Some(ms.into()));
    }
    if let Ok(value) = serde_json::from_str(value) {
        return Ok(Some(value));
    }
    if value.starts_with(['{', '[', '"']) {
        return Err(format!("{key}={value}: this begins like JSON and is none"));
    }
    if LISTS.contains(&key) {
        return Ok(Some(value.split(',').map(str::trim).filter(|word| !word.is_empty()).collect()));
    }
    Ok(Some(value.into()))
}

fn set_limit(scope: &mut Map<String, Value>, unit: &str, value: &str) -> Result<(), String> {
    let limits = scope.entry("limits").or_insert_with(|| json!([]));
    let Value::Array(limits) = limits else { return Err("limits is no list; set it as a whole".to_owned()) };
    let is_of_unit = |limit: &Value| limit["unit"] == unit;
    if value.is_empty() || value == "none" {
        limits.retain(|limit| !is_of_unit(limit));
        return Ok(());
    }
    let wanted = limit(unit, value)?;
    let same_window =
        limits.iter().position(|limit| is_of_unit(limit) && limit["window_ms"] == wanted["window_ms"]);
    let mut of_unit = (0..limits.len()).filter(|at| is_of_unit(&limits[*at]));
    let only = of_unit.next().filter(|_| of_unit.next().is_none());
    match same_window.or(only).and_then(|at| limits.get_mut(at)) {
        // what suited another amount or contract may not suit this one
        Some(known) => {
            let contract = known["contract"].clone();
            *known = wanted;
            if known.get("contract").is_none() && !contract.is_null() {
                known["contract"] = contract;
            }
        }
        None => limits.push(wanted),
    }
    Ok(())
}

/// `600/1m`, `90000/1m,average`, `auto/1s`.
fn limit(unit: &str, text: &str) -> Result<Value, String> {
    let wrong = || {
        format!(
            "limits.{unit}={text}: write an amount (or auto), `/`, a window, and a contract if it is not strict, such as \
             600/1m or 90000/1m,average"
        )
    };
    let (amount, rest) = text.split_once('/').ok_or_else(wrong)?;
    let (window, contract) = match rest.split_once(',') {
        Some((window, contract)) => (window, Some(contract.trim())),
        None => (rest, None),
    };
    let amount = match amount.trim() {
        "auto" => json!("auto"),
        number => number.replace('_', "").parse::<u64>().map(Value::from).map_err(|_| wrong())?,
    };
    let window = milliseconds(window.trim()).map_err(|_| wrong())?;
    let mut limit = json!({ "unit": unit, "limit": amount, "window_ms": window });
    if let Some(contract) = contract {
        limit["contract"] = contract.into();
    }
    Ok(limit)
}

/// A time in milliseconds: `500ms`, `30s`, `5m`, `2h`, `1d`.
pub(in crate::commands) fn milliseconds(text: &str) -> Result<u64, String> {
    let wrong = || format!("{text:?} is no time; write a number and ms, s, m, h or d, such as 30s");
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at_checked(digits).ok_or_else(wrong)?;
    let number: u64 = number.parse().map_err(|_| wrong())?;
    let ms = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return Err(wrong()),
    };
    number.checked_mul(ms).filter(|ms| *ms > 0).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::assign;
    use serde_json::{Value, json};

    fn assigned(mut document: Value, assignments: &[&str]) -> Result<Value, String> {
        assignments.iter().try_for_each(|one| assign(&mut document, one))?;
        Ok(document)
    }

    #[test]
    fn keys_take_json_texts_times_and_lists() {
        let changes = [
            "concurrency=50",
            "breaker.open_ms=5s",
            "breaker.failure_ratio=0.25",
            "model=.model",
            "tools=llm.chat, openai.*",
            "per_tenant.\"a=b.c\".concurrency=2",
            "estimate.total_tokens=.max_tokens // 1000",
            "redis_loss={\"local_share\":0.1}",
        ];
        let wanted = json!({ "concurrency": 50, "breaker": { "open_ms": 5000, "failure_ratio": 0.25 }, "model": ".model",
            "tools": ["llm.chat", "openai.*"], "per_tenant": { "a=b.c": { "concurrency": 2 } },
            "estimate": { "total_tokens": ".max_tokens // 1000" }, "redis_loss": { "local_share": 0.1 } });
        assert_eq!(assigned(json!({}), &changes).unwrap(), wanted);
        let back = assigned(wanted, &["concurrency=none", "model=", "breaker.open_ms=null"]).unwrap();
        assert_eq!((&back["concurrency"], &back["model"]), (&Value::Null, &Value::Null));
        assert_eq!(back["breaker"], json!({ "failure_ratio": 0.25 }));
    }

    #[test]
    fn a_limit_is_set_by_its_unit() {
        let one = assigned(json!({}), &["limits.requests=600/1m", "limits.total_tokens=90_000/1m,average"])
            .unwrap();
        let requests = json!({ "unit": "requests", "limit": 600, "window_ms": 60000 });
        let tokens =
            json!({ "unit": "total_tokens", "limit": 90000, "window_ms": 60000, "contract": "average" });
        assert_eq!(one["limits"], json!([requests, tokens]));
        let changed = assigned(one.clone(), &["limits.total_tokens=5/2s"]).unwrap();
        let halved = json!({ "unit": "total_tokens", "limit": 5, "window_ms": 2000, "contract": "average" });
        assert_eq!(changed["limits"][1], halved, "the contract stays");
        let two = json!({ "limits": [requests, { "unit": "requests", "limit": 10, "window_ms": 1000 }] });
        let second = assigned(two.clone(), &["limits.requests=20/1s"]).unwrap();
        assert_eq!((&second["limits"][0]["limit"], &second["limits"][1]["limit"]), (&json!(600), &json!(20)));
        let third = assigned(two, &["limits.requests=auto/1h"]).unwrap();
        assert_eq!(third["limits"][2]["limit"], "auto");
        assert_eq!(assigned(one, &["limits.requests=none"]).unwrap()["limits"], json!([tokens]));
        let scoped = assigned(json!({}), &["per_model.*.limits.requests=3/1s"]).unwrap();
        assert_eq!(scoped["per_model"]["*"]["limits"][0]["limit"], 3);
    }

    #[test]
    fn what_cannot_be_meant_is_told() {
        for (assignment, words) in [
            ("concurrency", "no assignment"),
            ("=5", "is no key"),
            ("a..b=5", "is no key"),
            ("a.\"b=5", "no assignment"),
            ("limits.requests=600", "600/1m"),
            ("limits.requests=x/1m", "600/1m"),
            ("limits.requests=5/0s", "600/1m"),
            ("tools=[1,", "begins like JSON"),
            ("tools.x=1", "no keys below it"),
        ] {
            let error = assigned(json!({ "tools": ["a"] }), &[assignment]).unwrap_err();
            assert!(error.contains(words), "{assignment}: {error}");
        }
    }
}
