//! The many ways in which services write a time: seconds, milliseconds, `6m0s`, an epoch, an HTTP date, RFC 3339.

use std::time::{Duration, SystemTime};

use crate::http::head::Head;

/// Numbers from here on are seconds since the epoch; nothing that resets is that far away.
const EPOCH_SECONDS: f64 = 1e9;
/// Numbers from here on are milliseconds since the epoch: as seconds they would lie in the year 5138.
const EPOCH_MILLISECONDS: f64 = 1e11;
/// Numbers from here on are nothing.
const NO_TIME: f64 = 1e14;

/// The longest text of a number, in bytes.
const MAX_DIGITS: usize = 20;
/// The most parts of a duration, from days to nanoseconds.
const MAX_PARTS: usize = 8;

/// A number that is neither negative nor written with an exponent.
pub(super) fn number(text: &str) -> Option<f64> {
    let text = text.trim();
    let is_plain = text.len() <= MAX_DIGITS
        && text.starts_with(|c: char| c.is_ascii_digit())
        && text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    if is_plain { text.parse().ok() } else { None }
}

/// A number of seconds.
pub(super) fn seconds(text: &str) -> Option<Duration> {
    Duration::try_from_secs_f64(number(text)?).ok()
}

/// A number of milliseconds.
pub(super) fn milliseconds(text: &str) -> Option<Duration> {
    Duration::try_from_secs_f64(number(text)? / 1e3).ok()
}

/// In how long something resets: from a number of seconds, an epoch, a duration, or a date.
pub(super) fn until(text: &str, head: &Head) -> Option<Duration> {
    if let Some(number) = number(text) {
        return match number {
            number if number < EPOCH_SECONDS => Duration::try_from_secs_f64(number).ok(),
            number if number < EPOCH_MILLISECONDS => until_epoch(number, head),
            number if number < NO_TIME => until_epoch(number / 1e3, head),
            _ => None,
        };
    }
    duration(text).or_else(|| until_date(text, head))
}

/// In how long a date comes, by the clock of the server that names it; nothing left when it is past.
pub(super) fn until_date(text: &str, head: &Head) -> Option<Duration> {
    let date = httpdate::parse_http_date(text).ok().or_else(|| rfc3339(text))?;
    Some(date.duration_since(now(head)).unwrap_or_default())
}

fn until_epoch(seconds: f64, head: &Head) -> Option<Duration> {
    let date = SystemTime::UNIX_EPOCH.checked_add(Duration::try_from_secs_f64(seconds).ok()?)?;
    Some(date.duration_since(now(head)).unwrap_or_default())
}

/// When the response was made.
fn now(head: &Head) -> SystemTime {
    head.get("date").and_then(|date| httpdate::parse_http_date(date).ok()).unwrap_or_else(wall_clock)
}

#[expect(
    clippy::disallowed_methods,
    reason = "a date is compared with a date; only when the server sends no Date"
)]
fn wall_clock() -> SystemTime {
    SystemTime::now()
}

/// A duration as Go writes it: `6m0s`, `1.5s`, `20ms`.
fn duration(text: &str) -> Option<Duration> {
    let mut rest = text.trim();
    let mut sum = Duration::ZERO;
    for _ in 0..MAX_PARTS {
        let (amount, after) = rest.split_at_checked(rest.find(|c: char| c.is_alphabetic())?)?;
        let end = after.find(|c: char| !c.is_alphabetic()).unwrap_or(after.len());
        let (unit, after) = after.split_at_checked(end)?;
        let seconds = match unit {
            "d" => 86_400.0,
            "h" => 3_600.0,
            "m" => 60.0,
            "s" => 1.0,
            "ms" => 1e-3,
            // U+00B5 and U+03BC
            "us" | "µs" | "μs" => 1e-6,
            "ns" => 1e-9,
            _ => return None,
        };
        sum = sum.checked_add(Duration::try_from_secs_f64(number(amount)? * seconds).ok()?)?;
        rest = after;
        if rest.is_empty() {
            return Some(sum);
        }
    }
    None
}

/// A time as in RFC 3339: `2026-11-21T12:00:00.5+01:00`.
fn rfc3339(text: &str) -> Option<SystemTime> {
    let (date, time) = text.trim().split_once(['T', 't', ' '])?;
    let [year, month, day] = integers(date, '-', [4, 2, 2])?;
    let (time, offset_seconds) = match time.strip_suffix(['Z', 'z']) {
        Some(time) => (time, 0),
        None => {
            let (time, offset) = time.split_at_checked(time.rfind(['+', '-'])?)?;
            let [hours, minutes] = integers(offset.get(1..)?, ':', [2, 2])?;
            let seconds = hours * 3_600 + minutes * 60;
            (time, if offset.starts_with('-') { -seconds } else { seconds })
        }
    };
    let (time, fraction) = time.split_once('.').unwrap_or((time, "0"));
    let [hour, minute, second] = integers(time, ':', [2, 2, 2])?;
    let is_time = hour < 24 && minute < 60 && second <= 60;
    let is_date = year >= 1970 && (1..=12).contains(&month) && (1..=31).contains(&day);
    if !is_time || !is_date || !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let whole = days_since_epoch(year, month, day) * 86_400 + hour * 3_600 + minute * 60 + second;
    let whole = Duration::from_secs(u64::try_from(whole - offset_seconds).ok()?);
    let fraction = Duration::try_from_secs_f64(format!("0.{fraction}").parse().ok()?).ok()?;
    SystemTime::UNIX_EPOCH.checked_add(whole)?.checked_add(fraction)
}

/// Numbers of exactly so many digits, with a separator between them.
fn integers<const N: usize>(text: &str, separator: char, digits: [usize; N]) -> Option<[i64; N]> {
    let mut parts = text.split(separator);
    let mut numbers = [0; N];
    for (number, digits) in numbers.iter_mut().zip(digits) {
        let part = parts.next()?;
        if part.len() != digits || !part.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        *number = part.parse().ok()?;
    }
    parts.next().is_none().then_some(numbers)
}

/// Days from 1970-01-01 to a date after it. The year is taken to begin in March, so that its leap day is its last.
const fn days_since_epoch(year: i64, month: i64, day: i64) -> i64 {
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let leap_days = year / 4 - year / 100 + year / 400;
    // 719,468 days lie between 0000-03-01 and 1970-01-01
    year * 365 + leap_days + (153 * month + 2) / 5 + day - 1 - 719_468
}

#[cfg(test)]
mod tests {
    use super::{duration, number, rfc3339};
    use proptest::prelude::*;
    use std::time::{Duration, SystemTime};

    #[test]
    fn durations_are_read_as_services_write_them() {
        for (text, milliseconds) in [
            ("1s", 1_000),
            ("6m0s", 360_000),
            ("20ms", 20),
            ("1h2m3s", 3_723_000),
            ("2m59.56s", 179_560),
            ("7.66s", 7_660),
            ("1d", 86_400_000),
            ("1500000us", 1_500),
            ("0s", 0),
        ] {
            assert_eq!(duration(text), Some(Duration::from_millis(milliseconds)), "{text}");
        }
        for text in [
            "",
            "s",
            "5",
            "5x",
            "-5s",
            "1s2",
            "1e9s",
            "1..5s",
            "99999999999999999999s5h",
            "1s1s1s1s1s1s1s1s1s",
        ] {
            assert_eq!(duration(text), None, "{text}");
        }
    }

    #[test]
    fn only_plain_numbers_are_numbers() {
        assert_eq!(number(" 1470173023.123 "), Some(1_470_173_023.123));
        for text in [
            "",
            ".",
            ".5",
            "-1",
            "+1",
            "1e3",
            "inf",
            "NaN",
            "1 2",
            "0x1",
            "1.2.3",
            "100000000000000000000000",
        ] {
            assert_eq!(number(text), None, "{text}");
        }
    }

    #[test]
    fn a_time_that_does_not_exist_is_none() {
        for text in [
            "",
            "2026-11-21",
            "2026-13-01T00:00:00Z",
            "2026-00-01T00:00:00Z",
            "2026-01-32T00:00:00Z",
            "2026-01-01T24:00:00Z",
            "2026-01-01T00:60:00Z",
            "2026-01-01T00:00:00",
            "2026-01-01T00:00Z",
            "1969-12-31T23:59:59Z",
            "1970-01-01T00:00:00+01:00",
            "+026-01-01T00:00:00Z",
            "2026-01-01T00:00:00.Zz",
            "2026-1-1T0:0:0Z",
            "2026-01-01T00:00:00.1.2Z",
            "2026-01-01T00:00:00+é",
        ] {
            assert_eq!(rfc3339(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn times_of_rfc_3339_are_read_as_a_library_reads_them(
            seconds in 0_i64..253_370_764_800, milliseconds in 0_i64..1_000, hours in -23_i32..=23, minutes in 0_i32..60,
        ) {
            let offset = jiff::tz::Offset::from_seconds((hours.abs() * 3_600 + minutes * 60) * hours.signum()).expect("in bounds");
            let time = jiff::Timestamp::from_millisecond(seconds * 1_000 + milliseconds).expect("in bounds");
            let text = format!("{:.3}", time.display_with_offset(offset));
            prop_assume!(text.as_bytes()[0] != b'-' && !text.starts_with("1969"));
            let expected = SystemTime::from(time);
            let read = rfc3339(&text).expect("a time");
            let apart = read.duration_since(expected).unwrap_or_else(|error| error.duration());
            prop_assert!(apart < Duration::from_micros(1), "{text}: {apart:?}");
        }
    }
}
