//! Places in lines, over all partitions, and when their turn comes.

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::future::join_all;
use tidemill_store::{Forecast, Outlook, Partition, Place, Slot, Store};

use super::LineView;
use crate::refusal::Refusal;

/// One step that may stand in a line: its queue and its slot.
pub(super) struct Parked<'a> {
    pub(super) queue: &'a str,
    pub(super) slot: Slot,
}

/// How these places look to people. With several partitions they are estimates: each has a line of its own.
///
/// # Errors
/// Redis is not available.
pub(crate) async fn line_views(store: &Store, places: Vec<Place>) -> Result<Vec<LineView>, Refusal> {
    let mut tiers: Vec<String> = places.iter().map(|place| place.tier.clone()).collect();
    tiers.sort();
    tiers.dedup();
    let mut totals: BTreeMap<&str, u64> = BTreeMap::new();
    for lengths in join_all(store.pool().iter().map(|one| one.line_lengths(&tiers))).await {
        for (tier, length) in tiers.iter().zip(lengths?) {
            *totals.entry(tier).or_default() += length.unwrap_or(0);
        }
    }
    let asked: Vec<Forecast<'_>> =
        tiers.iter().map(|tier| Forecast { tier, waiting: 0, unused: 0 }).collect();
    // where it stands can be told even if nobody can tell when it goes on
    let outlooks = store.services().forecast(Duration::ZERO, false, &asked).await.unwrap_or_default();
    let outlooks: BTreeMap<&str, &Outlook> = tiers.iter().map(String::as_str).zip(&outlooks).collect();
    let view = |place: Place| {
        let total = totals.get(&*place.tier).copied().unwrap_or(0);
        let outlook = outlooks.get(&*place.tier).copied();
        view_of(place, total, outlook)
    };
    Ok(places.into_iter().map(view).collect())
}

fn view_of(place: Place, total: u64, outlook: Option<&Outlook>) -> LineView {
    // its own partition's line may have been read a moment earlier
    let total = total.max(place.length);
    // a line of many is where the others of its kind are
    let ahead = u128::from(place.ahead) * u128::from(total) / u128::from(place.length.max(1));
    let ahead = u64::try_from(ahead).unwrap_or(u64::MAX);
    let rate = outlook.filter(|outlook| outlook.blocked_for.is_none()).and_then(|outlook| outlook.per_1000_s);
    let expected_in_ms = rate.map(|rate| ahead.saturating_add(1).saturating_mul(1_000_000) / rate);
    LineView {
        tier: place.tier,
        place: ahead.saturating_add(1),
        length: total,
        since_ms: place.since_ms,
        bound_by: outlook.map(|outlook| outlook.why.clone()).filter(|why| !why.is_empty()),
        expected_in_ms,
        is_paced: outlook.is_none_or(|outlook| outlook.lined),
    }
}

/// The places of parked steps; absent for those that stand in no line.
pub(super) async fn places_of(
    partition: &Partition,
    parked: &[Parked<'_>],
) -> Result<Vec<Option<Place>>, Refusal> {
    let found = parked.iter().map(async |one| {
        let member = one.slot.member();
        let tier = partition.lines_of(one.queue, std::slice::from_ref(&member)).await?.pop().flatten();
        match tier {
            Some(tier) => partition.place_in_line(&tier, &format!("{}|{member}", one.queue)).await,
            None => Ok(None),
        }
    });
    Ok(join_all(found).await.into_iter().collect::<Result<_, _>>()?)
}

impl LineView {
    /// What it waits for, in words.
    pub(crate) fn sentence(&self, noted: Option<&str>) -> String {
        let reason = self.bound_by.as_deref().map(reason).or_else(|| noted.map(ToOwned::to_owned));
        let reason = reason.map(|reason| format!(" ({reason})")).unwrap_or_default();
        let expected =
            self.expected_in_ms.map(|ms| format!(", expected {}", in_about(ms))).unwrap_or_default();
        let alone = if self.is_paced { "" } else { "; no scheduler calls it up: start one" };
        let (place, length) = (self.place, self.length);
        format!("waits in line for {}{reason}, place {place} of {length}{expected}{alone}", scope(&self.tier))
    }
}

/// A tier in words.
fn scope(tier: &str) -> String {
    let named = |text: &str| match text.split_once(':') {
        Some((kind, name)) => format!("{kind} {name}"),
        None => text.to_owned(),
    };
    match tier.strip_prefix('@') {
        Some("pool") => "the whole pool".to_owned(),
        Some(own) => named(own),
        None => match tier.split_once('/') {
            Some((service, of)) => format!("service {service}, {}", named(of)),
            None => format!("service {tier}"),
        },
    }
}

fn reason(bound_by: &str) -> String {
    match bound_by.split_once(':') {
        Some(("limit", unit)) => format!("limit of {}", unit.replace('_', " ")),
        _ => match bound_by {
            "concurrency" => "as many calls as may be at once are under way".to_owned(),
            "breaker" => "its breaker is open".to_owned(),
            "pause" => "it is paused".to_owned(),
            other => other.replace('_', " "),
        },
    }
}

fn in_about(ms: u64) -> String {
    match ms {
        0..1_000 => "within a second".to_owned(),
        1_000..120_000 => format!("in about {} s", ms / 1_000),
        120_000..7_200_000 => format!("in about {} min", ms / 60_000),
        _ => format!("in about {} h", ms / 3_600_000),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tidemill_store::{Outlook, Place};

    use super::view_of;

    fn place(tier: &str, ahead: u64, length: u64) -> Place {
        Place { tier: tier.to_owned(), ahead, length, since_ms: None }
    }

    fn outlook(why: &str, per_1000_s: u64) -> Outlook {
        Outlook {
            allowance: 0,
            blocked_for: None,
            why: why.to_owned(),
            per_1000_s: (per_1000_s > 0).then_some(per_1000_s),
            in_use: 0,
            lined: true,
        }
    }

    #[test]
    fn a_place_is_told_with_what_bounds_it_and_when_its_turn_comes() {
        let view = view_of(place("openai", 122, 10_000), 10_000, Some(&outlook("limit:requests", 10_000)));
        assert_eq!(
            view.sentence(Some("noted")),
            "waits in line for service openai (limit of requests), place 123 of 10000, expected in about 12 s"
        );
        let view =
            view_of(place("openai/tenant:acme", 0, 1), 1, Some(&outlook("limit:total_tokens", 5_000_000)));
        assert_eq!(
            view.sentence(None),
            "waits in line for service openai, tenant acme (limit of total tokens), place 1 of 1, expected within a second"
        );
    }

    #[test]
    fn several_partitions_make_one_line() {
        let view = view_of(place("@pool", 50, 100), 400, Some(&outlook("concurrency", 1_000)));
        assert_eq!((view.place, view.length, view.expected_in_ms), (201, 400, Some(201_000)));
        assert!(
            view.sentence(None).contains("the whole pool") && view.sentence(None).contains("in about 3 min")
        );
    }

    #[test]
    fn what_is_not_known_is_left_out() {
        let blocked = Outlook { blocked_for: Some(Duration::from_secs(5)), ..outlook("pause", 1_000) };
        let view = view_of(place("api", 0, 3), 3, Some(&blocked));
        assert_eq!(view.sentence(None), "waits in line for service api (it is paused), place 1 of 3");
        let alone = Outlook { lined: false, ..outlook("", 0) };
        let text = view_of(place("@tool:exec.run", 0, 3), 3, Some(&alone)).sentence(Some("limit"));
        assert_eq!(
            text,
            "waits in line for tool exec.run (limit), place 1 of 3; no scheduler calls it up: start one"
        );
        assert_eq!(
            view_of(place("api", 2, 3), 0, None).sentence(None),
            "waits in line for service api, place 3 of 3"
        );
    }
}
