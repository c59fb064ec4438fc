//! "Did you mean": the nearest of the names that exist.

/// The name nearest to `wanted`, if any is near enough to be what was meant.
#[must_use]
pub fn nearest<'n>(wanted: &str, names: impl Iterator<Item = &'n str>) -> Option<&'n str> {
    let allowed = wanted.len() / 3 + 1;
    names
        .map(|name| (strsim::damerau_levenshtein(wanted, name), name))
        .filter(|(distance, _)| *distance <= allowed)
        .min()
        .map(|(_, name)| name)
}
