//! Medians, quantiles and spreads.

/// The median, the least and the most.
pub(crate) fn median_and_spread(values: &[f64]) -> Option<(f64, f64, f64)> {
    let mut sorted = values.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    let (least, most) = (*sorted.first()?, *sorted.last()?);
    let middle = sorted.len() / 2;
    let median = if sorted.len().is_multiple_of(2) {
        f64::midpoint(*sorted.get(middle - 1)?, *sorted.get(middle)?)
    } else {
        *sorted.get(middle)?
    };
    Some((median, least, most))
}

/// The value that this share of all values does not exceed (nearest rank); zero for none.
pub(crate) fn quantile(values: &mut [f64], share: f64) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    let rank = (share * values.len() as f64).ceil() as usize;
    let last = values.len().saturating_sub(1);
    values.get(rank.saturating_sub(1).min(last)).copied().unwrap_or(0.0)
}

#[cfg(test)]
mod tests {
    use super::{median_and_spread, quantile};

    #[test]
    fn medians_and_quantiles_are_those_of_the_sorted_values() {
        assert_eq!(median_and_spread(&[3.0, 1.0, 2.0]), Some((2.0, 1.0, 3.0)));
        assert_eq!(median_and_spread(&[4.0, 1.0]), Some((2.5, 1.0, 4.0)));
        assert_eq!(median_and_spread(&[]), None);
        let mut hundred: Vec<f64> = (1..=100).rev().map(f64::from).collect();
        assert_eq!(quantile(&mut hundred, 0.5), 50.0);
        assert_eq!(quantile(&mut hundred, 0.99), 99.0);
        assert_eq!(quantile(&mut hundred, 1.0), 100.0);
        assert_eq!(quantile(&mut [], 0.5), 0.0);
    }
}
