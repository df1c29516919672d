//! What an operator can turn.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::jobs::RetryPolicy;
use crate::model::TenantId;
use crate::store::PruneJobs;

/// What the claimer, and then the settler, may take to stop; long enough for one call to a store that is well.
pub(super) const CLAIMER_STOP: Duration = Duration::from_millis(500);
/// What the settler may take to write down the last ends.
pub(super) const SETTLER_STOP: Duration = Duration::from_millis(1_000);
/// What the firer, the sweeper and the reporter may take each.
pub(super) const SMALL_STOP: Duration = Duration::from_millis(250);
/// What the runners keep of their budget to give back what is left.
pub(super) const RUNNERS_MARGIN: Duration = Duration::from_millis(250);
/// What is kept of the whole budget for the supervisor's own steps.
const SUPERVISOR_MARGIN: Duration = Duration::from_millis(200);
/// All of the budget that is not the runners'.
const FIXED_STOP: Duration = CLAIMER_STOP
    .saturating_add(SETTLER_STOP)
    .saturating_add(SMALL_STOP)
    .saturating_add(SMALL_STOP)
    .saturating_add(SMALL_STOP)
    .saturating_add(SUPERVISOR_MARGIN);
/// The least that a drain is worth.
const DRAIN_MIN_MS: u64 = 250;

/// The settings of the scheduler.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// The queues that this process takes jobs from.
    pub queues: Vec<String>,
    /// Those that only other processes take jobs from. Jobs for them are accepted here.
    pub queues_elsewhere: Vec<String>,
    /// The longest time between two looks for due jobs, in milliseconds; up to a fifth less by jitter. A job that was
    /// enqueued does not wait for it, here or in another process, nor does one whose time is known.
    pub poll_interval_ms: u64,
    /// How long a claimed job belongs to this process without a heartbeat. After a kill -9 its jobs wait for so long.
    pub lease_ms: u64,
    /// Time between two heartbeats; at most half of the lease.
    pub heartbeat_ms: u64,
    /// Jobs in one claim at most. So many ends of jobs wait for no others; if more have ended while some were written, up
    /// to four times as many go into one transaction.
    pub batch: u32,
    /// Jobs that run at a time.
    pub concurrency: u32,
    /// Jobs of one tenant that run at a time, in all processes together, so that none can take all places.
    pub tenant_concurrency: u32,
    /// What one attempt may take if the job does not say.
    pub job_timeout_ms: u64,
    /// How long a cancelled handler may take to end by itself before it is dropped.
    pub cancel_grace_ms: u64,
    /// How long the end of a job waits for others, to be written in one transaction.
    pub settle_wait_ms: u64,
    /// The longest time between two looks for due schedules, in milliseconds; up to a fifth less by jitter.
    pub fire_interval_ms: u64,
    /// A fire that is older than this is not made up for, unless its schedule says otherwise.
    pub catch_up_window_ms: u64,
    /// Time between two looks for jobs that lost their runner, in milliseconds; up to a fifth less by jitter.
    pub sweep_interval_ms: u64,
    /// The first wait of a failed job is at most this long; each further one at most twice the one before.
    pub retry_base_ms: u64,
    /// No wait of a failed job is longer.
    pub retry_cap_ms: u64,
    /// So many crashes (panics, lost runners) quarantine a job.
    pub crashes_max: u32,
    /// How long jobs are kept that are done, unless they say so themselves.
    pub keep_done_ms: u64,
    /// How long those are kept that are dead.
    pub keep_dead_ms: u64,
    /// How long those are kept that were cancelled.
    pub keep_cancelled_ms: u64,
    /// How many finished jobs of one tenant are kept at most.
    pub tenant_finished_max: u64,
    /// While the store is away, the longest wait between two tries.
    pub park_max_ms: u64,
    /// The whole stop, in milliseconds; running jobs get what is left of it.
    pub stop_within_ms: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            queues: vec!["default".to_owned()],
            queues_elsewhere: Vec::new(),
            poll_interval_ms: 1_000,
            lease_ms: 30_000,
            heartbeat_ms: 10_000,
            batch: 100,
            concurrency: 32,
            tenant_concurrency: 16,
            job_timeout_ms: 60_000,
            cancel_grace_ms: 500,
            settle_wait_ms: 5,
            fire_interval_ms: 1_000,
            catch_up_window_ms: 3_600_000,
            sweep_interval_ms: 5_000,
            retry_base_ms: 1_000,
            retry_cap_ms: 600_000,
            crashes_max: 3,
            keep_done_ms: 7 * 24 * 3_600_000,
            keep_dead_ms: 30 * 24 * 3_600_000,
            keep_cancelled_ms: 7 * 24 * 3_600_000,
            tenant_finished_max: 100_000,
            park_max_ms: 5_000,
            stop_within_ms: 5_000,
        }
    }
}

/// One setting that cannot be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{key}: {reason}")]
pub struct SettingsFault {
    /// The key within this section.
    pub key: &'static str,
    /// What is wrong with it.
    pub reason: String,
}

/// More than any call to the store takes.
const SILENT_AFTER: Duration = Duration::from_secs(30);

impl Settings {
    /// Every contradiction at once.
    #[must_use]
    pub fn faults(&self) -> Vec<SettingsFault> {
        let mut faults = Vec::new();
        let mut at_least = |key, value: u64, least: u64| {
            if value < least {
                faults.push(SettingsFault { key, reason: format!("is {value}, must be at least {least}") });
            }
        };
        at_least("poll_interval_ms", self.poll_interval_ms, 10);
        at_least("heartbeat_ms", self.heartbeat_ms, 10);
        at_least("lease_ms", self.lease_ms, self.heartbeat_ms.saturating_mul(2));
        at_least("batch", self.batch.into(), 1);
        at_least("concurrency", self.concurrency.into(), 1);
        at_least("tenant_concurrency", self.tenant_concurrency.into(), 1);
        at_least("job_timeout_ms", self.job_timeout_ms, 1);
        at_least("fire_interval_ms", self.fire_interval_ms, 10);
        at_least("sweep_interval_ms", self.sweep_interval_ms, 10);
        at_least("retry_cap_ms", self.retry_cap_ms, self.retry_base_ms);
        at_least("crashes_max", self.crashes_max.into(), 1);
        at_least("park_max_ms", self.park_max_ms, 10);
        let fixed = FIXED_STOP + RUNNERS_MARGIN;
        at_least("stop_within_ms", self.stop_within_ms, fixed.as_millis() as u64 + self.cancel_grace_ms + DRAIN_MIN_MS);
        if self.queues.is_empty() || self.queues.iter().any(String::is_empty) {
            let reason = "must name at least one queue, and none may be empty".to_owned();
            faults.push(SettingsFault { key: "queues", reason });
        }
        if self.queues_elsewhere.iter().any(|queue| queue.is_empty() || self.queues.contains(queue)) {
            let reason = "none may be empty, or among `queues`".to_owned();
            faults.push(SettingsFault { key: "queues_elsewhere", reason });
        }
        faults
    }

    /// What follows from how an attempt ended.
    #[must_use]
    pub fn retry(&self) -> RetryPolicy {
        RetryPolicy { base_ms: self.retry_base_ms, cap_ms: self.retry_cap_ms, crashes_max: self.crashes_max }
    }

    /// Which finished jobs to forget, of those `limit` at once; tenants behind `after` are counted.
    pub(super) fn prune(&self, after: Option<TenantId>, limit: u32) -> PruneJobs {
        PruneJobs {
            done_ms: self.keep_done_ms,
            dead_ms: self.keep_dead_ms,
            cancelled_ms: self.keep_cancelled_ms,
            tenant_max: self.tenant_finished_max,
            after,
            limit,
        }
    }

    /// A claimer that runs has looked within this time: it waits for its poll or is parked, and then for a store that answers
    /// or is away.
    pub(super) fn silence(&self) -> Duration {
        Duration::from_millis(2 * self.poll_interval_ms.max(self.park_max_ms)) + SILENT_AFTER
    }

    /// What the whole subtree may take to stop.
    #[must_use]
    pub fn stop_budget(&self) -> Duration {
        Duration::from_millis(self.stop_within_ms)
    }

    /// What the runners may take to stop.
    pub(super) fn runners_stop(&self) -> Duration {
        self.stop_budget().saturating_sub(FIXED_STOP)
    }

    /// How long running jobs may go on after the stop has begun.
    pub(super) fn drain(&self) -> Duration {
        self.runners_stop().saturating_sub(Duration::from_millis(self.cancel_grace_ms) + RUNNERS_MARGIN)
    }

    /// Ends of jobs in one transaction.
    pub(super) fn ends_max(&self) -> usize {
        self.batch.saturating_mul(4) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_do_not_contradict_themselves() {
        assert_eq!(Settings::default().faults(), []);
        assert_eq!(Settings::default().drain(), Duration::from_millis(1_800));
    }

    #[test]
    fn all_contradictions_are_told_at_once() {
        let bad = Settings {
            lease_ms: 1_000,
            concurrency: 0,
            stop_within_ms: 1_000,
            queues: vec![],
            queues_elsewhere: vec![String::new()],
            ..Settings::default()
        };
        let told: Vec<String> = bad.faults().iter().map(ToString::to_string).collect();
        assert_eq!(
            told,
            [
                "lease_ms: is 1000, must be at least 20000",
                "concurrency: is 0, must be at least 1",
                "stop_within_ms: is 1000, must be at least 3450",
                "queues: must name at least one queue, and none may be empty",
                "queues_elsewhere: none may be empty, or among `queues`",
            ]
        );
    }
}
