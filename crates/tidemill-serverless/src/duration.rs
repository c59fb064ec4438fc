//! Durations: an object of days to milliseconds, or text as in ISO 8601.

/// Milliseconds of ISO 8601 text: `P1DT2H30M5.25S`, `PT15M`, `P2W`. Months and years have no fixed length and are refused.
pub(crate) fn iso_ms(text: &str) -> Result<u64, String> {
    let wrong = || format!("`{text}` is no ISO 8601 duration such as `PT15M` or `P1DT2H`");
    let rest = text.strip_prefix('P').ok_or_else(wrong)?;
    let (date, time) = rest.split_once('T').map_or((rest, None), |(date, time)| (date, Some(time)));
    if (date.is_empty() && time.is_none()) || time == Some("") {
        return Err(wrong());
    }
    if date.ends_with(['Y', 'M']) || date.contains('Y') {
        return Err(format!("`{text}` has years or months, whose length is not fixed; give days"));
    }
    let date_ms = parts(date, &[('W', 604_800_000), ('D', 86_400_000)]).ok_or_else(wrong)?;
    let time_ms = parts(time.unwrap_or_default(), &[('H', 3_600_000), ('M', 60_000), ('S', 1000)]);
    time_ms.and_then(|time_ms| date_ms.checked_add(time_ms)).ok_or_else(wrong)
}

/// Numbers with their units, in the order of the units; none twice.
fn parts(text: &str, units: &[(char, u64)]) -> Option<u64> {
    let mut total = 0_u64;
    let mut rest = text;
    let mut units = units.iter();
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, tail) = rest.split_at(end);
        let unit = tail.chars().next()?;
        let (_, unit_ms) = units.find(|(name, _)| *name == unit)?;
        total = total.checked_add(scaled(number, *unit_ms, unit == 'S')?)?;
        rest = tail.get(unit.len_utf8()..)?;
    }
    Some(total)
}

/// A number of a unit in milliseconds; a fraction is taken of seconds only, to the millisecond.
fn scaled(number: &str, unit_ms: u64, has_fraction: bool) -> Option<u64> {
    let (whole, fraction) = match number.split_once('.') {
        None => (number, ""),
        Some((whole, fraction)) if has_fraction && !fraction.is_empty() => (whole, fraction),
        Some(_) => return None,
    };
    let digits: String = fraction.chars().chain("000".chars()).take(3).collect();
    let fraction_ms = if fraction.is_empty() { 0 } else { digits.parse().ok()? };
    whole.parse::<u64>().ok()?.checked_mul(unit_ms)?.checked_add(fraction_ms)
}

/// A time in ISO 8601, in UTC, from Unix milliseconds.
pub(crate) fn iso_time(at_ms: u64) -> String {
    let (days, ms) = (at_ms / 86_400_000, at_ms % 86_400_000);
    // days since 0000-03-01, so that the leap day ends a year; 400 years have 146,097 days
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    let (hour, minute, second, ms) = (ms / 3_600_000, ms / 60_000 % 60, ms / 1000 % 60, ms % 1000);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{ms:03}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn iso_durations_are_read_to_the_millisecond() {
        for (text, ms) in [
            ("PT0S", 0),
            ("PT15M", 900_000),
            ("P1DT2H3M4.5S", 93_784_500),
            ("P2W", 1_209_600_000),
            ("PT0.0015S", 1),
            ("PT2H30M", 9_000_000),
        ] {
            assert_eq!(iso_ms(text), Ok(ms), "{text}");
        }
    }

    #[test]
    fn what_is_no_duration_is_refused() {
        for text in
            ["", "P", "PT", "15M", "P1M", "P1Y", "PT1D", "PT1S1M", "PT1.5M", "PT.S", "PT1.S", "PT1S ", "P1DT"]
        {
            assert!(iso_ms(text).is_err(), "{text}");
        }
        assert!(iso_ms("P99999999999999999D").is_err());
    }

    #[test]
    fn times_are_written_in_utc() {
        for (ms, text) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_400_000, "2000-02-29T00:00:00.000Z"),
            (1_795_296_379_123, "2026-11-21T21:26:19.123Z"),
            (4_107_542_399_999, "2100-02-28T23:59:59.999Z"),
            (4_107_542_400_000, "2100-03-01T00:00:00.000Z"),
        ] {
            assert_eq!(iso_time(ms), text);
        }
    }
}
