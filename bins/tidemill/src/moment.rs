//! Times and durations for people.

use jiff::Timestamp;

/// A duration, to about three digits: `320 ms`, `1.24 s`, `2 m 05 s`, `3 h 07 m`, `4 d 02 h`.
pub(crate) fn duration(ms: u64) -> String {
    let (seconds, minutes, hours) = (ms / 1_000, ms / 60_000, ms / 3_600_000);
    if ms < 1_000 {
        format!("{ms} ms")
    } else if ms < 10_000 {
        format!("{seconds}.{:02} s", ms % 1_000 / 10)
    } else if ms < 60_000 {
        format!("{seconds}.{} s", ms % 1_000 / 100)
    } else if minutes < 60 {
        format!("{minutes} m {:02} s", seconds % 60)
    } else if hours < 24 {
        format!("{hours} h {:02} m", minutes % 60)
    } else {
        format!("{} d {:02} h", hours / 24, hours % 24)
    }
}

/// A moment in UTC: `2026-11-21 16:08:13.250Z`.
pub(crate) fn moment(ms: u64) -> String {
    let at = i64::try_from(ms).ok().and_then(|ms| Timestamp::from_millisecond(ms).ok());
    at.map_or_else(|| format!("{ms} ms"), |at| at.strftime("%Y-%m-%d %H:%M:%S.%3fZ").to_string())
}

/// How long ago, or `in …` for what is to come.
pub(crate) fn relative(ms: u64, now_ms: u64) -> String {
    if ms > now_ms {
        format!("in {}", duration(ms - now_ms))
    } else {
        format!("{} ago", duration(now_ms - ms))
    }
}

#[cfg(test)]
mod tests {
    use super::{duration, moment, relative};

    #[test]
    fn durations_keep_about_three_digits() {
        let cases = [
            (0, "0 ms"),
            (999, "999 ms"),
            (1_245, "1.24 s"),
            (59_960, "59.9 s"),
            (125_000, "2 m 05 s"),
            (11_220_000, "3 h 07 m"),
            (352_800_000, "4 d 02 h"),
        ];
        for (ms, text) in cases {
            assert_eq!(duration(ms), text);
        }
    }

    #[test]
    fn moments_are_in_utc_and_never_fail() {
        assert_eq!(moment(1_732_000_000_123), "2024-11-19 07:06:40.123Z");
        assert_eq!(moment(u64::MAX), "18446744073709551615 ms");
        assert_eq!(
            (relative(5, 1_005), relative(1_005, 5)),
            ("1.00 s ago".to_owned(), "in 1.00 s".to_owned())
        );
    }
}
