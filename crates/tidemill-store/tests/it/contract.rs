//! What every kind of server must do: each promise is a test of its own on a Redis of its own, and every other kind of server
//! must keep all of them at once.
//!
//! There each promise has a namespace of its own, which also decides its partition. By default that is the core of them;
//! `TIDEMILL_TEST_ALL=1` takes all.

use std::pin::Pin;
use std::sync::Arc;

use futures_util::future::join_all;

use crate::place::Place;
use crate::pool::Pool;
use crate::{cache, definitions, duties, endings, groups, intake, items, jobs, lines, runs, verify};

type Promise = (&'static str, for<'a> fn(&'a Pool) -> Pin<Box<dyn Future<Output = ()> + 'a>>);

macro_rules! promises {
    ($list:ident: $($subject:ident :: $name:ident),* $(,)?) => {
        const $list: &[Promise] = &[$((stringify!($name), |pool| Box::pin($subject::$name(pool)))),*];
        $(
            #[tokio::test]
            async fn $name() {
                Box::pin($subject::$name(&Pool::start().await)).await;
            }
        )*
    };
}

promises! { CORE:
    jobs::a_settled_job_leaves_nothing_behind,
    jobs::a_moved_job_keeps_its_fields_and_its_old_owner_settles_nothing,
    jobs::a_retry_waits_in_redis_and_is_promoted_once,
    jobs::a_buried_job_keeps_its_original_fields_byte_for_byte,
    jobs::the_first_of_an_id_is_the_job_and_a_moved_one_is_not_a_repetition,
    intake::an_answer_tells_what_became_of_each_job,
    runs::a_run_goes_through_its_graph_and_its_audit_has_no_gap,
    runs::a_failed_step_ends_the_run_and_leaves_a_letter_that_can_be_replayed,
    items::items_run_as_many_at_once_as_allowed_and_are_gathered_once,
    endings::a_computed_output_ends_the_run_once,
    lines::a_line_goes_by_priority_then_in_turns_between_tenants_then_by_age,
    lines::a_parked_step_comes_back_with_its_record,
    duties::a_cron_entry_fires_once,
    duties::a_consumer_is_forgotten_only_where_it_holds_nothing,
    cache::of_all_who_miss_at_once_one_may_fill,
    verify::a_run_fits_its_audit_at_every_point_of_its_life,
    definitions::a_version_lives_from_draft_to_archive_and_each_move_is_told_once,
    groups::who_asked_first_enters_first_and_a_place_lasts_until_its_run_leaves,
    groups::a_refused_run_is_on_record_and_its_caller_is_told,
}

promises! { REST:
    groups::of_many_that_ask_at_once_as_many_enter_as_there_are_places,
    groups::the_newest_runs_of_a_group_send_the_oldest_away,
    groups::a_full_group_refuses_where_nobody_may_wait,
    groups::foreign_keys_of_a_group_are_told_and_left_alone,
    groups::of_many_requests_of_one_run_that_wait_the_first_stays,
    groups::who_is_cancelled_while_it_waits_leaves_its_group,
    definitions::of_many_who_move_a_version_at_once_one_wins,
    jobs::of_many_settlers_one_wins,
    jobs::nothing_is_taken_from_a_worker_that_still_beats,
    intake::a_full_queue_refuses_and_takes_again_when_there_is_room,
    intake::an_answer_never_claims_more_safety_than_there_is,
    intake::delayed_work_waits_and_keeps_its_id,
    runs::of_a_thousand_settlers_of_a_step_one_wins,
    runs::a_second_run_of_the_same_id_is_dropped,
    runs::a_step_that_is_retried_or_parked_comes_back_with_its_record,
    runs::a_step_of_a_dead_worker_moves_with_its_record,
    runs::a_fan_out_wider_than_one_call_goes_on_where_it_stopped,
    items::an_item_that_is_retried_taken_or_lost_comes_back_with_its_record,
    items::failed_items_beyond_what_is_tolerated_stop_the_rest,
    endings::a_run_is_cancelled_once_and_its_steps_record_their_own_end,
    endings::a_run_ends_at_its_deadline_and_not_before,
    endings::a_run_that_is_gone_refuses_everything,
    cache::a_fill_that_came_to_nothing_passes_on_and_a_renewed_one_does_not,
    cache::an_answer_is_fresh_then_kept_for_fallback_then_gone,
    cache::clearing_also_holds_for_calls_under_way,
    duties::waiting_work_is_cancelled_at_once_and_running_work_is_asked_to_stop,
    duties::a_lost_entry_is_dispatched_again_once,
    duties::an_overlooked_step_is_dispatched_once,
    duties::a_beat_tells_what_was_cancelled_since,
    lines::a_called_up_job_brings_its_ticket_and_goes_back_to_its_place,
    lines::a_place_of_a_line_that_is_gone_is_not_worse_than_a_new_one,
    lines::a_member_is_called_up_once_and_only_its_owner_parks_it,
    lines::a_step_lost_from_its_line_is_dispatched_again,
    lines::a_job_is_cancelled_in_line_and_tells_where_it_stands,
    lines::a_step_of_an_ended_run_is_called_up_only_to_end,
    lines::foreign_keys_hold_up_their_own_line_only,
}

const PARTITIONS: u32 = 8;

/// Keeps all promises at once, with the kind's interruption in the middle of each.
async fn keep(place: Place) {
    let all = std::env::var_os("TIDEMILL_TEST_ALL").is_some_and(|value| value == "1");
    let promises: Vec<&Promise> = if all { CORE.iter().chain(REST).collect() } else { CORE.iter().collect() };
    let (place, gate) = (Arc::new(place), Arc::new(tokio::sync::Barrier::new(promises.len())));
    let kept = promises.into_iter().map(|(name, promise)| {
        let (place, gate) = (Arc::clone(&place), Arc::clone(&gate));
        async move {
            let pool = Pool::on(place, name, PARTITIONS).await.meeting(gate);
            promise(&pool).await;
            // one without a middle meets the others at its end
            pool.interruption().await;
        }
    });
    join_all(kept).await;
}

#[tokio::test]
async fn eight_partitions_of_one_redis_keep_every_promise() {
    keep(Place::redis().await).await;
}

#[tokio::test]
async fn a_cluster_of_three_masters_keeps_every_promise() {
    keep(Place::cluster().await).await;
}

#[tokio::test]
async fn a_failover_in_the_middle_breaks_no_promise() {
    keep(Place::sentinel().await).await;
}

#[tokio::test]
async fn valkey_keeps_every_promise() {
    match Place::valkey().await {
        Some(place) => keep(place).await,
        None => println!("skipped: TIDEMILL_VALKEY does not name a valkey-server"),
    }
}
