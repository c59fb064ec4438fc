//! When a cron expression fires, in a time zone.

use std::str::FromStr;

use jiff::Timestamp;
use jiff::tz::{TimeZone, TimeZoneDatabase};

/// A cron expression in a time zone.
///
/// At changes of the clock: a time that the clock leaps over fires at the first moment after the leap; a fixed time that the clock
/// repeats fires the first time only; expressions with a wildcard or a step in minute or hour go by elapsed time.
#[derive(Debug, Clone)]
pub struct Schedule {
    cron: croner::Cron,
    zone: TimeZone,
}

/// Why an expression or a time zone is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ScheduleError {
    /// The expression is none.
    #[error(
        "schedule {schedule:?} is not valid: {problem}; write five fields (minute hour day month weekday), six with seconds first, or @daily and the like"
    )]
    Expression {
        /// As it was given.
        schedule: String,
        /// What is wrong.
        problem: String,
    },
    /// There is no such time zone.
    #[error("time zone {0:?} is unknown; use a name of the IANA database such as Europe/Berlin, or UTC")]
    TimeZone(String),
}

impl Schedule {
    /// Reads an expression of five or six fields (or `@hourly` and the like) and the name of a time zone.
    ///
    /// # Errors
    /// [`ScheduleError`].
    pub fn parse(schedule: &str, time_zone: &str) -> Result<Self, ScheduleError> {
        let cron = croner::Cron::from_str(schedule).map_err(|error| ScheduleError::Expression {
            schedule: schedule.to_owned(),
            problem: error.to_string(),
        })?;
        // the database that is built in: every scheduler of a pool must see the same one
        let zone = TimeZoneDatabase::bundled().get(time_zone);
        let zone = zone.map_err(|_| ScheduleError::TimeZone(time_zone.to_owned()))?;
        Ok(Self { cron, zone })
    }

    /// The first time after `after_ms`, both in Unix milliseconds; `None` when there is none (the 30th of February).
    #[must_use]
    pub fn next_after(&self, after_ms: u64) -> Option<u64> {
        let after = Timestamp::from_millisecond(i64::try_from(after_ms).ok()?).ok()?;
        // whole seconds: a time within the second that has begun is over
        let after = Timestamp::from_second(after.as_second()).ok()?.to_zoned(self.zone.clone());
        let next = self.cron.find_next_occurrence(&after, false).ok()?.timestamp();
        u64::try_from(next.as_millisecond()).ok().filter(|next_ms| *next_ms > after_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::{Schedule, ScheduleError};
    use jiff::Timestamp;

    fn ms(text: &str) -> u64 {
        u64::try_from(text.parse::<Timestamp>().unwrap().as_millisecond()).unwrap()
    }

    /// The next so many times, in UTC.
    fn times(schedule: &str, zone: &str, after: &str, count: usize) -> Vec<String> {
        let schedule = Schedule::parse(schedule, zone).unwrap();
        let mut at = ms(after);
        (0..count)
            .map(|_| {
                at = schedule.next_after(at).unwrap();
                Timestamp::from_millisecond(i64::try_from(at).unwrap()).unwrap().to_string()
            })
            .collect()
    }

    #[test]
    fn times_are_those_of_the_zone() {
        assert_eq!(
            times("0 9 * * 1-5", "Asia/Tokyo", "2026-03-06T12:00:00Z", 2),
            ["2026-03-09T00:00:00Z", "2026-03-10T00:00:00Z"]
        );
        assert_eq!(
            times("@daily", "UTC", "2026-03-06T00:00:00Z", 1),
            ["2026-03-07T00:00:00Z"],
            "strictly after"
        );
        assert_eq!(
            times("*/10 * * * * *", "UTC", "2026-03-06T00:00:09.5Z", 2),
            ["2026-03-06T00:00:10Z", "2026-03-06T00:00:20Z"]
        );
        assert_eq!(times("0 0 L * *", "UTC", "2028-02-10T00:00:00Z", 1), ["2028-02-29T00:00:00Z"]);
    }

    #[test]
    fn a_fixed_time_in_the_spring_gap_fires_once_right_after_it() {
        // Berlin, 29 March 2026: 02:00 becomes 03:00, which is 01:00 UTC
        let fired = times("30 2 * * *", "Europe/Berlin", "2026-03-28T12:00:00Z", 2);
        assert_eq!(fired, ["2026-03-29T01:00:00Z", "2026-03-30T00:30:00Z"]);
    }

    #[test]
    fn a_fixed_time_in_the_repeated_autumn_hour_fires_once() {
        // Berlin, 25 October 2026: 03:00 becomes 02:00, which is 01:00 UTC
        let fired = times("30 2 * * *", "Europe/Berlin", "2026-10-24T12:00:00Z", 2);
        assert_eq!(fired, ["2026-10-25T00:30:00Z", "2026-10-26T01:30:00Z"]);
        let new_york = times("30 1 * * *", "America/New_York", "2026-11-01T00:00:00Z", 2);
        assert_eq!(new_york, ["2026-11-01T05:30:00Z", "2026-11-02T06:30:00Z"]);
    }

    #[test]
    fn an_interval_goes_by_elapsed_time_through_both_changes() {
        let spring = times("*/30 * * * *", "Europe/Berlin", "2026-03-29T00:29:00Z", 4);
        assert_eq!(
            spring,
            ["2026-03-29T00:30:00Z", "2026-03-29T01:00:00Z", "2026-03-29T01:30:00Z", "2026-03-29T02:00:00Z"]
        );
        let autumn = times("*/30 * * * *", "Europe/Berlin", "2026-10-24T23:59:00Z", 6);
        let expected =
            ["00:00", "00:30", "01:00", "01:30", "02:00", "02:30"].map(|t| format!("2026-10-25T{t}:00Z"));
        assert_eq!(autumn, expected);
    }

    #[test]
    fn a_date_that_never_comes_has_no_next_time() {
        assert_eq!(Schedule::parse("0 0 30 2 *", "UTC").unwrap().next_after(0), None);
        assert_eq!(Schedule::parse("* * * * *", "UTC").unwrap().next_after(u64::MAX), None);
    }

    #[test]
    fn nonsense_is_refused_with_what_is_possible() {
        for bad in ["", "* * * *", "61 * * * *", "every day", "* * * * * * * *"] {
            let text = Schedule::parse(bad, "UTC").unwrap_err().to_string();
            assert!(text.contains("five fields"), "{bad:?}: {text}");
        }
        let error = Schedule::parse("@daily", "Mars/Olympus").unwrap_err();
        assert_eq!(error, ScheduleError::TimeZone("Mars/Olympus".to_owned()));
    }
}
