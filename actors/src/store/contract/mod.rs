//! What every backend must do, as tests that take any store. A backend calls [`contract_tests`] once with a function that
//! opens an empty one, and has passed when they pass.

pub(crate) mod anything;
pub(crate) mod channels;
pub(crate) mod claims;
pub(crate) mod clock;
pub(crate) mod deliveries;
pub(crate) mod fair;
pub(crate) mod fires;
pub(crate) mod jobs;
pub(crate) mod lists;
pub(crate) mod overview;
pub(crate) mod redrive;
pub(crate) mod requests;
pub(crate) mod schedules;
pub(crate) mod standing;
pub(crate) mod tenants;
pub(crate) mod unique;

use std::any::Any;

use serde_json::json;
use telemetry::context::RequestId;
use uuid::Uuid;

use super::{ClaimJobs, Fence, Job, NewJob, Outcome, Settled, Settlement, SharedStore};
use crate::model::{Clock, Millis, TenantId, TraceContext};

/// The clock of every fixture stands here first: 2026-01-01T00:00:00Z.
pub(crate) const START_MS: Millis = 1_767_225_600_000;
/// A job has ended well.
const DONE: Outcome = Outcome::Done { result: None };
/// The lease of every claim here.
pub(crate) const LEASE_MS: u64 = 30_000;

/// So many deliveries of one channel may wait in every fixture: more than a backend buries at once, and few enough to make.
pub(crate) const PENDING_MAX: u32 = 1_200;

/// An empty store, and its clock.
pub(crate) struct Fixture {
    pub(crate) store: SharedStore,
    pub(crate) clock: Clock,
    pub(crate) owner: Uuid,
    /// What must live as long: a directory, a server.
    pub(crate) _keep: Box<dyn Any + Send + Sync>,
}

/// Makes one test for each sentence of the contract.
macro_rules! contract_tests {
    ($open:path) => {
        crate::store::contract::contract_tests!(@ $open; claims:
            a_claimed_job_is_nobody_elses
            urgent_jobs_come_first_then_old_ones
            a_job_for_later_waits_for_its_time
            every_tenant_gets_its_turn_beside_a_noisy_one
            tenants_take_turns_when_a_batch_is_smaller_than_their_number
            one_claim_alternates_between_tenants
            a_tenant_at_its_limit_leaves_room_for_others
            queues_do_not_mix
            a_full_batch_goes_to_the_only_tenant_that_waits
        );
        crate::store::contract::contract_tests!(@ $open; clock:
            a_job_whose_owner_lives_stays_its_own_however_the_clock_jumps
            a_job_whose_owner_is_gone_is_rescued_soon_however_the_clock_jumps
            due_jobs_run_and_later_ones_wait_however_the_clock_jumps
            a_schedule_fires_no_time_twice_however_the_clock_jumps
            a_tenant_with_a_rate_waits_no_longer_when_the_clock_has_gone_back
        );
        crate::store::contract::contract_tests!(@ $open; fair:
            jobs_are_claimed_by_the_weight_of_their_tenants
            whoever_comes_back_after_a_rest_has_saved_up_nothing
            a_tenants_own_limit_of_running_jobs_lies_over_the_default
            a_limit_of_running_jobs_is_for_all_queues_together
            a_rate_of_starts_is_kept_over_all_claims
            another_limit_holds_with_the_next_claim
            tenants_that_must_wait_hide_no_other
            more_queued_jobs_than_allowed_are_refused_all_together
            a_job_that_waits_again_is_never_refused
            a_fire_for_which_there_is_no_room_is_missed
        );
        crate::store::contract::contract_tests!(@ $open; jobs:
            a_job_reads_back_as_it_was_given
            a_call_takes_no_longer_than_its_caller_has
            a_batch_is_kept_whole_or_not_at_all
            a_late_answer_of_a_lost_worker_is_refused
            a_done_job_keeps_its_result
            a_retry_waits_and_tells_why
            progress_is_kept_with_its_job_and_fenced
            a_snoozed_job_waits_uncharged_and_tells_why
            the_span_of_a_run_stays_with_its_job_for_the_next_one
            a_released_job_is_not_charged
            a_released_claim_cannot_write_any_more
            a_heartbeat_keeps_the_lease_and_tells_what_is_lost
            a_sweep_rescues_a_job_whose_lease_ran_out
            the_third_crash_quarantines_a_job_with_the_reason
            good_jobs_beside_one_that_kills_its_runner_survive
            an_effect_is_committed_with_the_end_of_its_job_only
            a_job_whose_channel_is_full_is_tried_again_uncharged
            an_impossible_effect_costs_its_own_job_only
            finished_jobs_are_forgotten_by_age_and_those_of_a_tenant_by_number
            a_job_that_says_how_long_it_is_kept_is_kept_so_long
            counts_follow_a_job_through_its_life
            another_tenants_job_is_absent
        );
        crate::store::contract::contract_tests!(@ $open; overview:
            the_tenants_with_the_most_to_do_are_named_first
            a_tenant_of_which_only_dead_jobs_are_left_is_named_too
            the_channels_with_the_most_deliveries_that_have_not_ended_are_named_first
        );
        crate::store::contract::contract_tests!(@ $open; redrive:
            a_dead_job_is_redriven_under_its_id_with_all_its_attempts
            a_job_that_was_quarantined_is_redriven_alone
            only_what_ended_badly_is_redriven
            many_jobs_are_redriven_page_by_page
            a_job_whose_unique_key_another_has_is_not_redriven
            no_more_are_redriven_than_their_tenant_may_have_queued
        );
        crate::store::contract::contract_tests!(@ $open; standing:
            a_job_stands_behind_those_of_its_tenant_and_queue_that_come_first
            a_running_job_says_who_has_it_and_until_when
            a_job_stands_with_its_tenant_and_its_crashes
            a_job_stands_with_the_limits_of_its_tenant
        );
        crate::store::contract::contract_tests!(@ $open; unique:
            a_second_job_with_a_key_is_answered_with_the_first_until_that_has_ended
            within_its_period_a_job_that_is_done_still_has_its_key
            a_job_that_died_leaves_its_key_unless_it_said_all
            of_many_at_once_one_gets_the_key
            a_batch_with_a_key_twice_keeps_one
            a_forgotten_job_has_its_key_no_longer
            tenants_do_not_meet_in_their_unique_keys
            several_with_one_key_take_the_place_of_one
        );
        crate::store::contract::contract_tests!(@ $open; schedules:
            a_schedule_fires_once_for_each_time_it_is_due
            concurrent_firers_fire_once
            the_jobs_of_a_schedule_are_as_it_says_and_are_listed_by_it
            of_missed_fires_only_the_latest_is_made_up_for
            a_fire_that_is_too_old_is_missed
            a_cron_schedule_fires_by_the_clock_of_its_place
            jitter_delays_the_job_and_not_the_fire
            a_schedule_reads_back_as_it_was_given
            a_changed_schedule_goes_on_as_before_unless_its_cadence_is_another
            of_many_due_schedules_every_tenant_has_its_share
        );
        crate::store::contract::contract_tests!(@ $open; fires:
            missed_fires_are_made_up_for_as_the_policy_says_and_counted
            more_than_one_look_can_take_is_made_up_for_in_parts_and_nothing_is_lost
            a_fire_is_skipped_while_the_job_before_is_not_final
            overlapping_jobs_are_made_if_they_are_allowed
            the_first_fire_that_had_to_wait_starts_when_the_job_before_ends_whatever_its_end
            a_waiting_fire_is_dropped_by_a_pause
            a_fire_cancels_the_jobs_before_it_for_good
            a_schedule_fires_between_its_start_and_its_end_only
            a_schedule_fires_as_often_as_it_may
            a_triggered_schedule_fires_now_under_the_policy_that_was_asked_for
            a_paused_schedule_can_be_triggered_and_stays_paused
            past_fires_are_made_once_each
            concurrent_fires_triggers_and_backfills_make_each_job_once
            jobs_that_pile_up_before_they_are_cancelled_hold_up_no_other_schedule
            a_trigger_may_cancel_however_many_jobs
        );
        crate::store::contract::contract_tests!(@ $open; lists:
            jobs_are_listed_newest_first_whatever_state_they_are_in
            a_filter_leaves_out_what_it_does_not_name
            times_of_a_filter_are_exclusive_at_both_ends
            pages_stay_as_they_are_while_rows_are_added_and_jobs_end
            a_cancelled_job_is_final_whatever_it_did
            the_runner_of_a_cancelled_job_has_lost_it
            nobody_cancels_another_tenants_job_or_one_that_has_ended
            schedules_are_listed_newest_first
            a_deleted_schedule_fires_no_more_and_its_jobs_stay
            a_paused_schedule_does_not_fire_until_it_is_resumed
        );
        crate::store::contract::contract_tests!(@ $open; channels:
            a_channel_reads_back_with_its_secret
            a_disabled_channel_buries_its_deliveries_with_the_reason
            a_channel_with_a_long_line_is_disabled_at_once_and_nothing_of_it_comes_back
            what_is_left_of_a_disabled_channel_is_buried_on_a_beat
            what_arrived_while_its_channel_was_disabled_is_sent_and_all_else_stays_dead
            a_channel_that_must_wait_is_neither_due_nor_claimed
            a_channel_that_only_refuses_is_disabled_after_a_while
            a_channel_through_which_nothing_arrives_is_disabled_in_the_end
            an_enabled_channel_starts_anew
            a_deleted_channel_takes_its_deliveries_with_it
            due_channels_are_those_with_something_to_send
            a_tenant_with_many_due_channels_hides_no_other
            the_store_answers_a_ping
        );
        crate::store::contract::contract_tests!(@ $open; deliveries:
            a_delivery_for_no_channel_or_anothers_is_refused
            deliveries_of_a_channel_are_claimed_oldest_first
            a_late_answer_about_a_delivery_is_refused
            a_delivery_whose_sender_was_lost_is_due_again
            a_failed_delivery_waits_and_a_sent_one_is_final
            a_released_delivery_is_not_charged
            a_channel_takes_so_many_deliveries_and_more_when_some_are_gone
            deliveries_are_kept_all_or_none
            every_attempt_is_in_the_log_of_its_delivery
            a_dead_delivery_is_sent_again_under_its_id_with_all_its_attempts
            deliveries_are_listed_by_state_and_by_page
            finished_deliveries_are_forgotten_by_age_and_by_number
            a_busy_channel_pushes_out_nothing_of_another
        );
        crate::store::contract::contract_tests!(@ $open; requests:
            a_request_that_comes_again_is_pending_and_then_answered_the_same
            another_request_under_the_same_key_is_refused_but_for_another_tenants
            a_request_whose_runner_was_lost_may_be_tried_again_with_the_same_effect
            an_open_request_may_come_again_at_once_and_an_undone_key_is_free
            requests_are_forgotten_when_their_time_is_over
            a_tenant_has_so_many_requests_and_room_again_when_some_are_gone
        );
        crate::store::contract::contract_tests!(@ $open; tenants:
            a_tenant_is_found_by_its_key_only
            tenants_are_listed_by_name_page_by_page
            a_rotated_key_opens_nothing_and_the_new_one_does
            changes_are_told_in_their_order_and_each_once
            limits_of_a_tenant_are_replaced_all_at_once
            jobs_of_a_disabled_tenant_wait_and_go_on_when_it_is_enabled
            a_suspect_job_of_a_disabled_tenant_waits_too
            fires_of_a_disabled_tenants_schedule_are_missed_and_never_made_up_for
            deliveries_of_a_disabled_tenant_wait_and_go_on_when_it_is_enabled
        );
    };
    (@ $open:path; $module:ident: $($name:ident)*) => {
        mod $module {
            $(
                #[tokio::test]
                async fn $name() {
                    // None, when the backend's server is not there: then it says so itself.
                    let opened: Option<crate::store::contract::Fixture> = $open().await.into();
                    let Some(fixture) = opened else { return };
                    crate::store::contract::$module::$name(&fixture).await;
                }
            )*
        }
    };
}
pub(crate) use contract_tests;

impl Fixture {
    pub(crate) async fn enqueue(&self, jobs: Vec<NewJob>) -> Vec<Job> {
        self.store.enqueue(jobs).await.unwrap()
    }

    /// Enqueues and claims one job.
    async fn claimed(&self) -> Job {
        self.enqueue(vec![new_job("demo")]).await;
        self.claim(1).await.remove(0)
    }

    async fn claim(&self, limit: u32) -> Vec<Job> {
        self.store.claim(self.request(limit)).await.unwrap().jobs
    }

    fn request(&self, limit: u32) -> ClaimJobs<'static> {
        ClaimJobs { queue: "default", owner: self.owner, lease_ms: LEASE_MS, limit, tenant_running_max: 1_000 }
    }

    async fn settle(&self, fence: Fence, outcome: Outcome) -> Settled {
        self.store.settle(vec![Settlement::new(fence, outcome)]).await.unwrap().remove(0)
    }

    async fn read(&self, job: &Job) -> Job {
        self.store.get_job(&job.tenant, job.id).await.unwrap().unwrap()
    }

    fn advance(&self, by_ms: u64) {
        self.clock.advance(by_ms as i64);
    }
}

pub(crate) fn tenant(name: &str) -> TenantId {
    TenantId::new(name).unwrap()
}

pub(crate) fn new_job(of: &str) -> NewJob {
    NewJob::new(tenant(of), "publish", json!({ "topic": "t", "data": { "n": 1 } }))
}

/// A context as a request from outside would have.
fn context() -> TraceContext {
    let traceparent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    TraceContext::from_parts(Some(traceparent), Some("4bf92f3577b34da6a3ce929d0e0e4736"))
        .with_request_id(RequestId::parse("order-7"))
}
