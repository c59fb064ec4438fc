//! What a run's audit tells: how its steps ended, how many attempts that took, how long they worked.

use std::collections::{BTreeMap, HashMap};

use tidemill_protocol::{AuditRecord, StepState};

/// What one run took.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Timing {
    /// Steps by their last state.
    pub(super) ended: BTreeMap<String, u64>,
    /// Attempts that began.
    pub(super) attempts: u64,
    /// Those of them that were put aside to be tried again.
    pub(super) retries: u64,
    /// Attempts of the steps that call the vendor.
    pub(super) vendor_attempts: u64,
    /// All attempts one after the other.
    pub(super) busy_ms: u64,
    /// From the run's first record to its last; none when it never started.
    pub(super) run_ms: Option<u64>,
}

impl Timing {
    /// Adds up the audit of one run, in its order; `calls_vendor` tells which steps do.
    pub(super) fn of(records: &[AuditRecord], calls_vendor: impl Fn(&str) -> bool) -> Self {
        let mut timing = Self::default();
        let mut running: HashMap<&str, u64> = HashMap::new();
        let mut last: BTreeMap<&str, &str> = BTreeMap::new();
        for record in records.iter().filter(|record| record.subject != "@") {
            if let Some(since) = running.remove(record.subject.as_str()) {
                timing.busy_ms += record.at_ms.saturating_sub(since);
            }
            if record.to == StepState::Running.as_str() {
                timing.attempts += 1;
                timing.vendor_attempts += u64::from(calls_vendor(&record.subject));
                running.insert(&record.subject, record.at_ms);
            }
            timing.retries += u64::from(record.to == StepState::Retrying.as_str());
            last.insert(&record.subject, &record.to);
        }
        for state in last.into_values() {
            *timing.ended.entry(state.to_owned()).or_default() += 1;
        }
        if let (Some(first), Some(end)) = (records.first(), records.last()) {
            timing.run_ms = Some(end.at_ms.saturating_sub(first.at_ms));
        }
        timing
    }
}

/// The smallest of the sorted values that so many per cent do not exceed; 0 when there are none.
pub(super) fn percentile(sorted: &[u64], per_cent: usize) -> u64 {
    let rank = (sorted.len() * per_cent).div_ceil(100).max(1);
    sorted.get(rank - 1).copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use tidemill_protocol::AuditRecord;

    use super::{Timing, percentile};

    #[test]
    fn attempts_and_their_time_follow_from_the_audit() {
        let lines = [
            "@ queued running 1000 0 -",
            "a pending ready 1000 1 -",
            "a ready running 1010 1 w",
            "a running retrying 1110 1 w",
            "a retrying ready 1300 2 s",
            "a ready running 1305 2 w",
            "a running succeeded 1405 2 w",
            "b pending ready 1405 1 -",
            "b ready skipped 1406 1 w",
            "@ running succeeded 1410 0 w",
        ];
        let records: Vec<_> =
            (1..).zip(lines).filter_map(|(seq, line)| AuditRecord::parse(seq, line)).collect();
        let timing = Timing::of(&records, |step| step == "a");
        assert_eq!(timing.vendor_attempts, 2);
        assert_eq!((timing.attempts, timing.retries, timing.busy_ms, timing.run_ms), (2, 1, 200, Some(410)));
        assert_eq!(
            timing.ended.into_iter().collect::<Vec<_>>(),
            [("skipped".into(), 1), ("succeeded".into(), 1)]
        );
    }

    #[test]
    fn percentiles_are_values_that_occurred() {
        let values: Vec<u64> = (1..=200).collect();
        assert_eq!([50, 99, 100].map(|p| percentile(&values, p)), [100, 198, 200]);
        assert_eq!(percentile(&[], 99), 0);
        assert_eq!(percentile(&[7], 50), 7);
    }
}
