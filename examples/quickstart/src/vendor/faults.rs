//! Which calls fail, and how.

use std::hash::{DefaultHasher, Hash, Hasher};

use serde::Serialize;

/// How many calls of a thousand fail.
pub(crate) const FAULTS_PER_THOUSAND: u64 = 50;

/// A way in which a call fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Fault {
    /// Status 500.
    Error500,
    /// Status 503 with `Retry-After: 1`.
    Busy503,
    /// Status 429 with `Retry-After: 1`.
    Throttled429,
    /// The connection is cut in place of an answer.
    Cut,
    /// The connection is cut in the middle of the answer.
    Torn,
    /// No answer comes.
    Forgotten,
}

impl Fault {
    pub(crate) const ALL: [Self; 6] =
        [Self::Error500, Self::Busy503, Self::Throttled429, Self::Cut, Self::Torn, Self::Forgotten];

    /// The fault of the `nth` call with this key, if it is one that fails: the same for the same seed, in whatever order
    /// the calls come.
    pub(crate) fn of(seed: u64, key: &str, nth: u32) -> Option<Self> {
        let mut hasher = DefaultHasher::new();
        (seed, key, nth).hash(&mut hasher);
        let drawn = hasher.finish();
        let kind = usize::try_from(drawn / 1_000 % 6).unwrap_or(0);
        (drawn % 1_000 < FAULTS_PER_THOUSAND).then(|| Self::ALL[kind])
    }

    /// For people.
    pub(crate) const fn describe(self) -> &'static str {
        match self {
            Self::Error500 => "status 500",
            Self::Busy503 => "status 503, Retry-After 1 s",
            Self::Throttled429 => "status 429, Retry-After 1 s",
            Self::Cut => "connection cut",
            Self::Torn => "answer cut in the middle",
            Self::Forgotten => "no answer at all",
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::Fault;

    #[test]
    fn one_call_in_twenty_fails_in_every_way_there_is() {
        let mut seen: BTreeMap<Fault, u32> = BTreeMap::new();
        for n in 0..20_000 {
            if let Some(fault) = Fault::of(7, &format!("city-{n:05}/port"), 1) {
                *seen.entry(fault).or_default() += 1;
            }
        }
        let all: u32 = seen.values().sum();
        assert!((900..1_100).contains(&all), "{all} of 20,000");
        assert_eq!(seen.len(), Fault::ALL.len(), "{seen:?}");
        assert!(seen.values().all(|count| *count > 100), "{seen:?}");
    }

    #[test]
    fn the_same_seed_fails_the_same_calls() {
        let drawn = |seed| (0..1_000).map(|nth| Fault::of(seed, "city-00001/port", nth)).collect::<Vec<_>>();
        assert_eq!(drawn(1), drawn(1));
        assert_ne!(drawn(1), drawn(2));
    }
}
