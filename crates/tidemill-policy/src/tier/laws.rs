//! What a tier promises: all or nothing, the longest wait, and everything in its order.

use proptest::prelude::*;

use super::{Amounts, Answer, Ask, SECOND, TierState, Why, ask_all};
use crate::breaker::{CallOutcome, Ended};
use crate::limit::laws::config;
use crate::service::TierRules;

const START: u64 = 1_763_750_000_000_000;

fn tier(text: &str) -> TierState {
    TierState::new(&TierRules::parse(text).unwrap())
}

fn first(amounts: Amounts) -> Ask {
    Ask { amounts, ..Ask::default() }
}

fn tokens(amount: u64) -> Ask {
    first(Amounts::default().with("total_tokens", amount))
}

fn granted(answer: &Answer) -> bool {
    matches!(answer, Answer::Granted { .. })
}

fn why(answer: Answer) -> Why {
    let Answer::Wait { why, .. } = answer else { panic!("{answer:?} is no wait") };
    why
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn a_call_passes_all_of_its_tiers_or_takes_from_none(
        asks in prop::collection::vec((0..200_000_u64, 1..400_u64, 0..4_usize), 1..200),
    ) {
        let texts = [
            "c=3 d=requests,s,100,1000000,2,4000,0,100,100",
            "d=total_tokens,a,2000,1000000,200,0,0,2000,2000",
            "d=requests,f,20,1000000,20,0,0,20,20 d=total_tokens,s,1500,1000000,10,4000,0,1500,1500",
        ];
        let mut tiers = texts.map(tier);
        let mut now_us = START;
        for (pass, amount, leaving) in asks {
            now_us += pass;
            (0..leaving).for_each(|_| tiers[0].leave());
            let mut alone = tiers.clone();
            let verdicts = alone.each_mut().map(|tier| granted(&tier.ask(now_us, &tokens(amount))));
            let waits = alone.each_mut().map(|tier| match tier.ask(now_us, &tokens(amount)) {
                Answer::Wait { us, .. } => us,
                Answer::Granted { .. } | Answer::TooLarge(_) => 0,
            });
            let refused = verdicts.iter().zip(waits).filter(|(granted, _)| !**granted).map(|(_, us)| us);
            let mut asked = tiers.clone();
            match ask_all(&mut asked, now_us, &tokens(amount)) {
                Answer::Granted { .. } => {
                    prop_assert!(verdicts == [true; 3]);
                    prop_assert_ne!(&asked, &tiers);
                    tiers = asked;
                }
                Answer::Wait { us, .. } => {
                    prop_assert_eq!(Some(us), refused.max(), "the longest of those who refuse");
                    // as if nobody had asked
                    let again = |mut tiers: [TierState; 3]| tiers.each_mut().map(|tier| tier.ask(now_us, &tokens(1)));
                    prop_assert_eq!(again(asked), again(tiers.clone()));
                }
                Answer::TooLarge(unit) => prop_assert!(false, "{unit} is not too large"),
            }
        }
    }

    #[test]
    fn no_more_calls_are_under_way_than_there_are_places(cap in 1..20_u64, steps in prop::collection::vec(any::<bool>(), 1..200)) {
        let mut tier = tier(&format!("c={cap}"));
        let mut under_way = 0;
        for comes in steps {
            if comes {
                let answer = tier.ask(START, &Ask::default());
                prop_assert_eq!(granted(&answer), under_way < cap);
                under_way += u64::from(granted(&answer));
            } else if under_way > 0 {
                tier.leave();
                under_way -= 1;
            }
        }
    }
}

#[test]
fn a_pause_ends_by_itself_but_not_one_by_hand() {
    let mut tier = tier("");
    tier.pause(START + 3 * SECOND);
    tier.pause(START + SECOND);
    let paused = Answer::Wait { us: 3 * SECOND, why: Why::Pause };
    assert_eq!(tier.ask(START, &Ask::default()), paused, "no pause is shortened by another");
    assert!(granted(&tier.ask(START + 3 * SECOND, &Ask::default())));
    tier.pause_by_hand();
    tier.pause(START + 4 * SECOND);
    assert_eq!(why(tier.ask(START + 3_600 * SECOND, &Ask::default())), Why::Pause);
    tier.resume();
    assert!(granted(&tier.ask(START + 3_600 * SECOND, &Ask::default())));
}

#[test]
fn a_total_that_is_not_known_is_that_of_input_and_output() {
    let amounts = Amounts::default().with("input_tokens", 30).with("output_tokens", 12);
    assert_eq!(["requests", "total_tokens", "cost"].map(|unit| amounts.of(unit)), [1, 42, 0]);
    assert_eq!(amounts.with("total_tokens", 50).of("total_tokens"), 50);
}

#[test]
fn what_holds_a_call_is_told_in_its_order() {
    let mut tier = tier(
        "c=1 d=total_tokens,s,100,1000000,50,0,0,100,100 b=c,10,1,0.5,0,1,5000000,60000000,1,30000000 r=0.01,0,1",
    );
    assert!(granted(&tier.ask(START, &tokens(50))));
    assert_eq!(why(tier.ask(START, &tokens(50))), Why::Concurrency);
    tier.leave();
    assert_eq!(why(tier.ask(START, &tokens(60))), Why::Limit("total_tokens".to_owned()));
    assert_eq!(tier.ask(START, &tokens(101)), Answer::TooLarge("total_tokens".to_owned()));
    let failed = Ended { outcome: CallOutcome::Failed, latency_us: 1, epoch: 0, probe: false };
    tier.record(START, &failed, 0);
    assert_eq!(tier.ask(START, &tokens(1)), Answer::Wait { us: 5 * SECOND, why: Why::Breaker });
    tier.pause(START + SECOND);
    assert_eq!(why(tier.ask(START, &tokens(1))), Why::Pause);
    let retry = Ask { retry: true, ..tokens(1) };
    assert_eq!(why(tier.ask(START, &retry)), Why::Pause);
    // half-open: the only probe is a retry, which spends the budget
    let now_us = START + 5 * SECOND;
    assert_eq!(tier.ask(now_us, &retry), Answer::Granted { probe: true, epoch: 1 });
    assert_eq!(why(tier.ask(now_us, &retry)), Why::RetryBudget);
    assert_eq!(why(tier.ask(now_us, &tokens(1))), Why::Breaker);
}

#[test]
fn what_was_not_used_is_for_others() {
    let mut tier = tier("d=total_tokens,s,100,1000000,50,0,0,100,100 d=requests,a,10,1000000,5,0,0,10,10");
    assert!(granted(&tier.ask(START, &tokens(50))));
    assert!(!granted(&tier.ask(START, &tokens(50))));
    let (taken, used) = (tokens(50).amounts, tokens(0).amounts.with("requests", 0));
    tier.reconcile(START, START, (&taken, &used));
    // what is given back is rounded down
    assert!(granted(&tier.ask(START + 1, &tokens(50))));
}
