//! Finding a limit that nobody told: additive increase, multiplicative decrease (Chiu and Jain, 1989, show that of the linear
//! rules this one ends fair and near the optimum; TCP lives by it).

use crate::limit::{SECOND, scale_down};

/// The longest time over which use is judged: what was not asked for long ago says nothing.
const JUDGED_US: u64 = 10 * SECOND;

/// A limit that is looked for: 3/10 less when the service throttles, at most once a second; after each second in which four
/// fifths of it were used 1/50 more, at least 1, and 1/4 as long as nobody has objected yet (as TCP's slow start).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Aimd {
    limit: u64,
    since_us: Option<u64>,
    used: u64,
    cut_us: Option<u64>,
}

impl Aimd {
    /// Begins at `initial`.
    #[must_use]
    pub fn new(initial: u64) -> Self {
        Self { limit: initial.max(1), since_us: None, used: 0, cut_us: None }
    }

    /// The limit as it was last judged.
    #[must_use]
    pub const fn limit(&self) -> u64 {
        self.limit
    }

    /// Judges the time since it was last judged, if that is a second or more.
    pub fn judge(&mut self, now_us: u64, window_us: u64, max: u64) {
        let since = *self.since_us.get_or_insert(now_us);
        let passed = now_us.saturating_sub(since);
        if passed < SECOND {
            return;
        }
        let used = 10 * u128::from(self.used) * u128::from(window_us);
        if used >= 8 * u128::from(self.limit) * u128::from(passed.min(JUDGED_US)) {
            let part = if self.cut_us.is_some() { 50 } else { 4 };
            self.limit = self.limit.saturating_add((self.limit / part).max(1)).min(max.max(1));
        }
        self.since_us = Some(now_us);
        self.used = 0;
    }

    /// `amount` was granted.
    pub fn used(&mut self, amount: u64) {
        self.used = self.used.saturating_add(amount);
    }

    /// The service asked for less.
    pub fn throttled(&mut self, now_us: u64) {
        if self.cut_us.is_none_or(|cut| now_us.saturating_sub(cut) >= SECOND) {
            self.limit = scale_down(self.limit, 7, 10).max(1);
            self.cut_us = Some(now_us);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Aimd;
    use crate::limit::SECOND;
    use crate::limit::laws::config;
    use proptest::prelude::*;

    /// What was asked, granted and throttled in a second.
    struct Second {
        limit: u64,
        throttled: u64,
    }

    /// A caller that always asks, against a service that lets `hidden(second)` calls of each second pass.
    fn search(initial: u64, max: u64, seconds: u64, hidden: impl Fn(u64) -> u64) -> Vec<Second> {
        let mut aimd = Aimd::new(initial);
        (0..seconds)
            .map(|second| {
                let now_us = second * SECOND;
                aimd.judge(now_us, SECOND, max);
                let limit = aimd.limit();
                aimd.used(limit);
                let throttled = limit.saturating_sub(hidden(second));
                (0..throttled).for_each(|_| aimd.throttled(now_us + SECOND / 2));
                Second { limit, throttled }
            })
            .collect()
    }

    proptest! {
        #![proptest_config(config())]

        #[test]
        fn a_hidden_limit_is_found(initial in 1..3_000_u64, hidden in 5..2_000_u64) {
            let seconds = search(initial, 10_000, 600, |_| hidden);
            // it passed the limit once, came back, and from then on never stays above
            let passed = seconds.iter().position(|second| second.throttled > 0).unwrap();
            let is_near = |second: &Second| second.limit <= hidden + (hidden / 50).max(1);
            let found = passed + 1 + seconds[passed + 1..].iter().position(is_near).unwrap();
            prop_assert!(found <= 60, "only after {found} seconds");
            for pair in seconds[found..].windows(2) {
                prop_assert!(pair[0].throttled == 0 || pair[1].limit <= hidden, "above twice: {} {}", pair[0].limit, pair[1].limit);
                prop_assert!(pair[1].limit <= hidden + (hidden / 50).max(1));
            }
            let late = &seconds[400..];
            let mean = late.iter().map(|second| second.limit).sum::<u64>() / late.len() as u64;
            prop_assert!(mean * 100 >= hidden * 75 , "{mean} of {hidden}");
            let refused = late.iter().map(|second| second.throttled).sum::<u64>();
            // a fiftieth too much now and then; of a small limit one call is more than that
            prop_assert!(refused * 100 <= (hidden * 3 + 50) * late.len() as u64, "{refused} refused");
        }

        #[test]
        fn what_falls_is_followed_at_once(hidden in 100..1_000_u64) {
            let seconds = search(hidden, 10_000, 60, |second| if second < 30 { hidden } else { hidden / 4 });
            prop_assert!(seconds[36..].iter().all(|second| second.limit <= hidden / 4 + (hidden / 200).max(1)));
        }

        #[test]
        fn it_stays_between_one_and_its_maximum(
            initial in 0..50_u64, max in 0..100_u64, steps in prop::collection::vec((0..3 * SECOND, 0..200_u64, any::<bool>()), 0..200),
        ) {
            let (mut aimd, mut now_us) = (Aimd::new(initial.min(max)), 0);
            for (pass, used, throttled) in steps {
                now_us += pass;
                let before = aimd.limit();
                aimd.judge(now_us, SECOND, max);
                aimd.used(used);
                if throttled {
                    aimd.throttled(now_us);
                }
                prop_assert!((1..=max.max(1)).contains(&aimd.limit()));
                prop_assert!(aimd.limit() + 1 >= before * 7 / 10);
            }
        }
    }

    #[test]
    fn many_throttled_answers_of_one_second_cut_it_once() {
        let mut aimd = Aimd::new(1_000);
        (0..100).for_each(|step| aimd.throttled(SECOND + step));
        assert_eq!(aimd.limit(), 700);
        aimd.throttled(2 * SECOND);
        assert_eq!(aimd.limit(), 490);
    }

    #[test]
    fn what_nobody_uses_does_not_grow() {
        let mut aimd = Aimd::new(100);
        for second in 0..100 {
            aimd.judge(second * SECOND, SECOND, 10_000);
            aimd.used(79);
        }
        assert_eq!(aimd.limit(), 100);
        aimd.judge(200 * SECOND, SECOND, 10_000);
        aimd.used(80);
        aimd.judge(201 * SECOND, SECOND, 10_000);
        assert_eq!(aimd.limit(), 125, "nobody has objected yet");
        aimd.throttled(201 * SECOND);
        aimd.used(87);
        aimd.judge(202 * SECOND, SECOND, 10_000);
        assert_eq!(aimd.limit(), 88);
    }
}
