//! The records: cities of the crate `cities`, with their coordinates.

use serde::Serialize;

/// Where the records come from, for people.
pub(crate) const SOURCE: &str =
    "the crate `cities` 0.2.0 of crates.io (licence MIT in its manifest, Unlicense in its text)";

/// The input of one run.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Record {
    #[serde(skip)]
    pub(crate) id: String,
    pub(crate) city: &'static str,
    pub(crate) country: &'static str,
    pub(crate) latitude: f64,
    pub(crate) longitude: f64,
    pub(crate) altitude_m: f64,
}

/// How many records there are at most.
pub(crate) fn available() -> usize {
    cities::all().len()
}

/// So many records, spread evenly over the whole set, which is sorted by country. Always the same ones.
pub(crate) fn take(count: usize) -> Vec<Record> {
    let all = cities::all();
    let count = count.min(all.len());
    let chosen = (0..count).filter_map(|n| all.get(n * all.len() / count));
    chosen
        .map(|city| Record {
            id: format!("city-{:05}", city.id),
            city: city.city,
            country: city.country,
            latitude: city.latitude,
            longitude: city.longitude,
            altitude_m: city.altitude,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::{available, take};

    #[test]
    fn records_are_distinct_and_from_all_over_the_world() {
        let records = take(600);
        let ids: BTreeSet<_> = records.iter().map(|record| &record.id).collect();
        let countries: BTreeSet<_> = records.iter().map(|record| record.country).collect();
        assert_eq!((records.len(), ids.len()), (600, 600));
        assert!(countries.len() > 100, "{} countries", countries.len());
    }

    /// Four cities have no name; the workflow refuses them, which is what dead letters are for.
    #[test]
    fn every_record_has_usable_coordinates() {
        for record in take(available()) {
            assert!(!record.country.is_empty(), "{record:?}");
            assert!(record.latitude.abs() <= 90.0 && record.longitude.abs() <= 180.0, "{record:?}");
            assert!(record.altitude_m.is_finite(), "{record:?}");
        }
    }

    #[test]
    fn more_than_there_are_gives_all() {
        assert_eq!(take(usize::MAX).len(), available());
    }
}
