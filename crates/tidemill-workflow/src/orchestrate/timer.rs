//! Waiting for a time.
//!
//! A time is a number (Unix milliseconds), text as RFC 3339 with its offset, or a local time in the step's zone. A local time that the
//! zone skips (clocks go forward) is moved on by as much as is skipped; of one that it has twice (clocks go back) the first is meant.

use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use jiff::{Timestamp, Zoned};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::Then;
use super::draft::{Draft, Locals, Look, fail};
use crate::expr::ExprError;
use crate::plan::Wait;

/// The longest wait: a hundred years. What is longer is a mistake in a unit.
const LONGEST_MS: u64 = 100 * 366 * 24 * 3600 * 1000;

/// See the module.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Timer {
    at_ms: u64,
}

impl Timer {
    /// Renders when; or says how the step ends because there is no such time.
    pub(super) fn begin(
        wait: &Wait,
        look: &Look<'_>,
        locals: &Locals<'_>,
    ) -> Result<Result<Self, Then>, ExprError> {
        let at_ms = match wait {
            Wait::For(template) => duration_ms(&look.render(template, locals)?)
                .map(|ms| look.now_ms.saturating_add(ms))
                .map_err(|why| format!("wait.for_ms {why}")),
            Wait::Until { at, time_zone } => moment_ms(&look.render(at, locals)?, time_zone.as_deref())
                .map_err(|why| format!("wait.until {why}")),
            Wait::Signal(_) => Ok(look.now_ms),
        };
        let at_ms = at_ms.and_then(|at_ms| {
            if at_ms.saturating_sub(look.now_ms) > LONGEST_MS {
                return Err("wait lies more than 100 years ahead; times are in milliseconds".to_owned());
            }
            Ok(at_ms)
        });
        Ok(at_ms.map(|at_ms| Self { at_ms }).map_err(|why| fail("bad_wait", why)))
    }

    pub(super) fn look(&self, look: &Look<'_>, draft: &mut Draft) -> Then {
        let at_ms = self.at_ms;
        if look.now_ms >= at_ms {
            return Then::End(format!("{{\"at_ms\":{at_ms}}}").into_bytes());
        }
        draft.wake_at(at_ms);
        draft.waits(&format!("waits until {}", shown(at_ms)))
    }
}

/// A time as a person reads it.
pub(super) fn shown(at_ms: u64) -> String {
    let timestamp = i64::try_from(at_ms).ok().and_then(|at_ms| Timestamp::from_millisecond(at_ms).ok());
    timestamp.map_or_else(|| format!("{at_ms} ms after 1970"), |timestamp| timestamp.to_string())
}

fn duration_ms(text: &[u8]) -> Result<u64, String> {
    let value = value(text)?;
    match value.as_u64().or_else(|| value.as_f64().and_then(whole)) {
        Some(ms) => Ok(ms),
        None => Err(format!("gives {} where a number of milliseconds, 0 or more, is needed", kind(&value))),
    }
}

fn moment_ms(text: &[u8], time_zone: Option<&str>) -> Result<u64, String> {
    let value = value(text)?;
    if let Some(at_ms) = value.as_u64().or_else(|| value.as_f64().and_then(whole)) {
        return Ok(at_ms);
    }
    let Some(text) = value.as_str().map(str::trim) else {
        return Err(format!("gives {} where a time is needed", kind(&value)));
    };
    let timestamp = match (text.parse::<Timestamp>(), time_zone) {
        (Ok(timestamp), _) => timestamp,
        (Err(_), None) => {
            return Err(format!(
                "gives {text:?}, which is no time as RFC 3339 (2026-03-01T09:00:00+01:00); a local time needs time_zone"
            ));
        }
        (Err(_), Some(zone)) => local(text, zone)?.timestamp(),
    };
    // what was before 1970 is over, like all of the past
    Ok(u64::try_from(timestamp.as_millisecond()).unwrap_or(0))
}

/// A local time in a zone: moved on where the zone skips it, the first where the zone has it twice.
fn local(text: &str, zone: &str) -> Result<Zoned, String> {
    let time_zone = TimeZone::get(zone).map_err(|_| format!("has the unknown time_zone {zone:?}"))?;
    let time: DateTime = text.parse().map_err(|_| {
        format!("gives {text:?}, which is neither RFC 3339 nor a local time (2026-03-01T09:00)")
    })?;
    time_zone.to_zoned(time).map_err(|error| format!("gives {text:?}, which is no time in {zone}: {error}"))
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "within the bounds that are asked for; parts of a millisecond are dropped"
)]
fn whole(number: f64) -> Option<u64> {
    // times have their own bound; this one keeps the conversion exact
    (0.0..=(1_u64 << 53) as f64).contains(&number).then_some(number as u64)
}

fn value(text: &[u8]) -> Result<Value, String> {
    serde_json::from_slice(text).map_err(|error| format!("gives no JSON: {error}"))
}

fn kind(value: &Value) -> String {
    match value {
        Value::Null => "null".to_owned(),
        Value::Bool(value) => value.to_string(),
        Value::Number(number) => number.to_string(),
        Value::String(_) => "text".to_owned(),
        Value::Array(_) => "an array".to_owned(),
        Value::Object(_) => "an object".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str, zone: Option<&str>) -> Result<String, String> {
        moment_ms(text.as_bytes(), zone).map(shown)
    }

    #[test]
    fn a_time_is_a_number_or_has_an_offset_or_a_zone() {
        for (text, zone, shown) in [
            ("1772355600000", None, "2026-03-01T09:00:00Z"),
            ("1772355600000.7", None, "2026-03-01T09:00:00Z"),
            (r#""2026-03-01T09:00:00Z""#, None, "2026-03-01T09:00:00Z"),
            (r#""2026-03-01T09:00:00+01:00""#, Some("Asia/Tokyo"), "2026-03-01T08:00:00Z"),
            (r#""2026-03-01T09:00""#, Some("Europe/Berlin"), "2026-03-01T08:00:00Z"),
            (r#""2026-07-01 09:00:30""#, Some("Europe/Berlin"), "2026-07-01T07:00:30Z"),
            (r#""2026-07-01""#, Some("UTC"), "2026-07-01T00:00:00Z"),
            (r#""1912-01-01T00:00:00Z""#, None, "1970-01-01T00:00:00Z"),
        ] {
            assert_eq!(at(text, zone).as_deref(), Ok(shown), "{text} in {zone:?}");
        }
    }

    #[test]
    fn a_local_time_that_is_skipped_is_moved_on_and_of_two_the_first_is_meant() {
        let berlin = Some("Europe/Berlin");
        assert_eq!(
            at(r#""2026-03-29T02:30""#, berlin).as_deref(),
            Ok("2026-03-29T01:30:00Z"),
            "03:30 in summer"
        );
        assert_eq!(
            at(r#""2026-10-25T02:30""#, berlin).as_deref(),
            Ok("2026-10-25T00:30:00Z"),
            "02:30 in summer"
        );
    }

    #[test]
    fn what_is_no_time_says_what_would_be_one() {
        for (text, zone, why) in [
            (r#""2026-03-01T09:00""#, None, "a local time needs time_zone"),
            (r#""soon""#, Some("UTC"), "neither RFC 3339 nor a local time"),
            (r#""2026-03-01T09:00""#, Some("Mars/Base"), "unknown time_zone \"Mars/Base\""),
            ("null", None, "gives null where a time is needed"),
            ("-5", None, "gives -5 where a time is needed"),
        ] {
            let told = at(text, zone).unwrap_err();
            assert!(told.contains(why), "{told}");
        }
        for (text, why) in [("\"5\"", "gives text"), ("-1", "gives -1"), ("[5]", "gives an array")] {
            let told = duration_ms(text.as_bytes()).unwrap_err();
            assert!(told.contains(why), "{told}");
        }
        assert_eq!(duration_ms(b"1500.9"), Ok(1500));
    }
}
