//! The sections of the five subsystems: each has its interval, its restart budget, its backoff and its stop budget, and
//! then what is its own.
//!
//! As in `sections.rs`, a field of type [`Duration`] is the key with `_ms` behind it.

use std::time::Duration;

use serde::Deserialize;

use super::restarting::{Backoff, Restart};
use super::types;

/// `[scheduler]`: durable jobs and schedules.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scheduler {
    /// The longest time between two looks for due jobs; one posted here, or whose time is known, does not wait for it.
    #[serde(rename = "interval_ms", deserialize_with = "types::ms::<10, 3_600_000, _>")]
    pub interval: Duration,
    /// What its end may take; running jobs get what is left of it.
    #[serde(rename = "stop_budget_ms", deserialize_with = "types::ms::<1, 600_000, _>")]
    pub stop_budget: Duration,
    /// The queues that this process takes jobs from.
    #[serde(deserialize_with = "types::words")]
    pub queues: Vec<String>,
    /// Those that only other processes take jobs from. Jobs for them are accepted here.
    #[serde(deserialize_with = "types::words")]
    pub queues_elsewhere: Vec<String>,
    /// How long a claimed job belongs to this process without a sign of life.
    #[serde(rename = "lease_ms", deserialize_with = "types::ms::<100, 3_600_000, _>")]
    pub lease: Duration,
    /// How often the leases of running jobs are renewed; less than half of `lease_ms`.
    #[serde(rename = "heartbeat_ms", deserialize_with = "types::ms::<10, 3_600_000, _>")]
    pub heartbeat: Duration,
    /// Jobs in one claim at most. So many ends of jobs wait for no others; if more have ended while some were written, up
    /// to four times as many go into one transaction.
    #[serde(deserialize_with = "types::int::<1, 1_000, _, _>")]
    pub batch: u32,
    /// Jobs that run at a time in this process.
    #[serde(deserialize_with = "types::int::<1, 10_000, _, _>")]
    pub concurrency: u32,
    /// Jobs of one tenant that run at a time, in all processes together.
    #[serde(deserialize_with = "types::int::<1, 10_000, _, _>")]
    pub tenant_concurrency: u32,
    /// What one attempt may take if the job does not say.
    #[serde(rename = "job_timeout_ms", deserialize_with = "types::ms::<1, 86_400_000, _>")]
    pub job_timeout: Duration,
    /// How long a cancelled handler may take to end by itself.
    #[serde(rename = "cancel_grace_ms", deserialize_with = "types::ms::<0, 60_000, _>")]
    pub cancel_grace: Duration,
    /// How long the end of a job waits for others, to be written in one transaction.
    #[serde(rename = "settle_wait_ms", deserialize_with = "types::ms::<0, 1_000, _>")]
    pub settle_wait: Duration,
    /// The longest time between two looks for due schedules.
    #[serde(rename = "fire_interval_ms", deserialize_with = "types::ms::<10, 3_600_000, _>")]
    pub fire_interval: Duration,
    /// A fire that is older than this is not made up for.
    #[serde(rename = "catch_up_window_ms", deserialize_with = "types::ms::<0, 604_800_000, _>")]
    pub misfire_window: Duration,
    /// Time between two looks for jobs that lost their runner.
    #[serde(rename = "sweep_interval_ms", deserialize_with = "types::ms::<10, 3_600_000, _>")]
    pub sweep_interval: Duration,
    /// The first wait of a failed job is at most this long.
    #[serde(rename = "retry_base_ms", deserialize_with = "types::ms::<0, 86_400_000, _>")]
    pub retry_base: Duration,
    /// No wait of a failed job is longer.
    #[serde(rename = "retry_cap_ms", deserialize_with = "types::ms::<0, 604_800_000, _>")]
    pub retry_cap: Duration,
    /// So many crashes (panics, lost runners) quarantine a job.
    #[serde(deserialize_with = "types::int::<1, 100, _, _>")]
    pub crashes_max: u32,
    /// How long jobs are kept that are done, unless they say so themselves.
    #[serde(rename = "keep_done_ms", deserialize_with = "types::ms::<0, 31_622_400_000, _>")]
    pub keep_done: Duration,
    /// How long those are kept that are dead.
    #[serde(rename = "keep_dead_ms", deserialize_with = "types::ms::<0, 31_622_400_000, _>")]
    pub keep_dead: Duration,
    /// How long those are kept that were cancelled.
    #[serde(rename = "keep_cancelled_ms", deserialize_with = "types::ms::<0, 31_622_400_000, _>")]
    pub keep_cancelled: Duration,
    /// How many finished jobs of one tenant are kept at most.
    #[serde(deserialize_with = "types::int::<0, 1_000_000_000, _, _>")]
    pub tenant_finished_max: u64,
    /// While the store is away, the longest wait between two tries.
    #[serde(rename = "park_max_ms", deserialize_with = "types::ms::<10, 3_600_000, _>")]
    pub park_max: Duration,
    /// Its restart budget.
    pub restart: Restart,
    /// Its backoff.
    pub backoff: Backoff,
}

/// `[broadcaster]`: events from the bus to the sockets.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Broadcaster {
    /// How often it sends a probe through its own path.
    #[serde(rename = "interval_ms", deserialize_with = "types::ms::<10, 3_600_000, _>")]
    pub interval: Duration,
    /// What its end may take.
    #[serde(rename = "stop_budget_ms", deserialize_with = "types::ms::<1, 600_000, _>")]
    pub stop_budget: Duration,
    /// How often every socket is looked at; a slow one lives this much longer at most.
    #[serde(rename = "sweep_interval_ms", deserialize_with = "types::ms::<10, 60_000, _>")]
    pub sweep_interval: Duration,
    /// Sockets of all tenants.
    #[serde(deserialize_with = "types::int::<1, 1_000_000, _, _>")]
    pub sockets_max: usize,
    /// Sockets of one tenant.
    #[serde(deserialize_with = "types::int::<1, 1_000_000, _, _>")]
    pub tenant_sockets_max: usize,
    /// Subscriptions of one tenant, over all its sockets.
    #[serde(deserialize_with = "types::int::<1, 10_000_000, _, _>")]
    pub tenant_subscriptions_max: usize,
    /// Topics of one socket.
    #[serde(deserialize_with = "types::int::<1, 10_000, _, _>")]
    pub topics_per_socket_max: usize,
    /// Bytes that may wait for one socket; more, and it is closed as too slow.
    #[serde(deserialize_with = "types::int::<1_024, 1_073_741_824, _, _>")]
    pub queue_bytes_max: usize,
    /// Frames that may wait for one socket.
    #[serde(deserialize_with = "types::int::<1, 1_000_000, _, _>")]
    pub queue_frames_max: usize,
    /// How old the oldest frame that a socket has not taken may be.
    #[serde(rename = "behind_max_ms", deserialize_with = "types::ms::<10, 600_000, _>")]
    pub behind_max: Duration,
    /// A socket is sent a ping when nothing was heard of it for this long.
    #[serde(rename = "ping_after_ms", deserialize_with = "types::ms::<100, 3_600_000, _>")]
    pub ping_after: Duration,
    /// How long it may take to answer a ping.
    #[serde(rename = "pong_within_ms", deserialize_with = "types::ms::<100, 600_000, _>")]
    pub pong_within: Duration,
    /// Its restart budget, and that of each part of it.
    pub restart: Restart,
    /// Its backoff, and that of each part of it.
    pub backoff: Backoff,
}

/// `[channel_manager]`: deliveries to the tenants' receivers.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ChannelManager {
    /// The longest time between two looks for due deliveries.
    #[serde(rename = "interval_ms", deserialize_with = "types::ms::<10, 3_600_000, _>")]
    pub interval: Duration,
    /// What its end may take; requests under way get what is left of it.
    #[serde(rename = "stop_budget_ms", deserialize_with = "types::ms::<1_500, 600_000, _>")]
    pub stop_budget: Duration,
    /// A channel with nothing to do for this long gives its actor back; at least `interval_ms`.
    #[serde(rename = "idle_after_ms", deserialize_with = "types::ms::<10, 86_400_000, _>")]
    pub idle_after: Duration,
    /// Channels in use at a time; the next ones wait until one is idle.
    #[serde(deserialize_with = "types::int::<1, 100_000, _, _>")]
    pub channels_max: usize,
    /// Channels in use at a time by one tenant.
    #[serde(deserialize_with = "types::int::<1, 100_000, _, _>")]
    pub tenant_channels_max: usize,
    /// Deliveries under way at a time for one channel.
    #[serde(deserialize_with = "types::int::<1, 1_000, _, _>")]
    pub in_flight_max: usize,
    /// How long a claimed delivery belongs to this process; longer than `request_timeout_ms` by 5 s.
    #[serde(rename = "lease_ms", deserialize_with = "types::ms::<100, 3_600_000, _>")]
    pub lease: Duration,
    /// How long one whole request to a receiver may take.
    #[serde(rename = "request_timeout_ms", deserialize_with = "types::ms::<10, 600_000, _>")]
    pub request_timeout: Duration,
    /// Bytes of a receiver's answer that are read.
    #[serde(deserialize_with = "types::int::<0, 1_048_576, _, _>")]
    pub answer_max_bytes: usize,
    /// The delays before each retry; their number is the number of retries.
    #[serde(rename = "retry_delays_ms", deserialize_with = "types::list_of_ms::<1, 604_800_000, _>")]
    pub retry_delays: Vec<Duration>,
    /// The longest wait that a receiver can ask for.
    #[serde(rename = "retry_after_max_ms", deserialize_with = "types::ms::<1, 604_800_000, _>")]
    pub retry_after_max: Duration,
    /// Failures in a row after which a receiver gets a rest.
    #[serde(deserialize_with = "types::int::<1, 1_000, _, _>")]
    pub breaker_failures_max: u32,
    /// How long that rest is.
    #[serde(rename = "breaker_open_ms", deserialize_with = "types::ms::<1, 86_400_000, _>")]
    pub breaker_open: Duration,
    /// Refusals (401, 403, 404) in a row after which a channel is disabled ...
    #[serde(deserialize_with = "types::int::<1, 1_000, _, _>")]
    pub refusals_max: u32,
    /// ... if nothing has arrived for this long.
    #[serde(rename = "refused_for_ms", deserialize_with = "types::ms::<0, 31_622_400_000, _>")]
    pub refused_for: Duration,
    /// A channel through which nothing arrives for this long is disabled.
    #[serde(rename = "failing_for_ms", deserialize_with = "types::ms::<1_000, 31_622_400_000, _>")]
    pub failing_for: Duration,
    /// How many deliveries of one channel may wait or be under way; one more is refused with 429.
    #[serde(deserialize_with = "types::int::<1, 1_000_000, _, _>")]
    pub pending_max: u32,
    /// How long finished deliveries are kept, with the log of their attempts.
    #[serde(rename = "keep_finished_ms", deserialize_with = "types::ms::<0, 31_622_400_000, _>")]
    pub keep_finished: Duration,
    /// How many finished deliveries of one channel are kept at most.
    #[serde(deserialize_with = "types::int::<0, 1_000_000_000, _, _>")]
    pub keep_finished_max: u64,
    /// Whether receivers may be called by plain `http`. Refused in production.
    #[serde(deserialize_with = "types::boolean")]
    pub allow_http: bool,
    /// Whether receivers may have loopback and private addresses. Refused in production.
    #[serde(deserialize_with = "types::boolean")]
    pub allow_private_addresses: bool,
    /// Ports that a receiver's URL may name; none means any.
    #[serde(deserialize_with = "types::list_of_int::<1, 65_535, _, _>")]
    pub ports: Vec<u16>,
    /// Where Slack's incoming webhooks are. The rules for receivers hold here, too.
    #[serde(deserialize_with = "types::text")]
    pub slack_base_url: String,
    /// Where Telegram's Bot API is; likewise.
    #[serde(deserialize_with = "types::text")]
    pub telegram_base_url: String,
    /// Its restart budget, and that of each part of it.
    pub restart: Restart,
    /// Its backoff, and that of each part of it.
    pub backoff: Backoff,
}

/// `[health_sweep]`: probes what we stand on.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HealthSweep {
    /// How often everything is probed.
    #[serde(rename = "interval_ms", deserialize_with = "types::ms::<10, 3_600_000, _>")]
    pub interval: Duration,
    /// What its end may take.
    #[serde(rename = "stop_budget_ms", deserialize_with = "types::ms::<1, 600_000, _>")]
    pub stop_budget: Duration,
    /// How long one probe may take; not longer than `interval_ms`.
    #[serde(rename = "probe_timeout_ms", deserialize_with = "types::ms::<1, 600_000, _>")]
    pub probe_timeout: Duration,
    /// How many bad sweeps in a row end readiness.
    #[serde(deserialize_with = "types::int::<1, 100, _, _>")]
    pub bad_sweeps: u32,
    /// How many good sweeps in a row bring it back.
    #[serde(deserialize_with = "types::int::<1, 100, _, _>")]
    pub good_sweeps: u32,
    /// Its restart budget.
    pub restart: Restart,
    /// Its backoff.
    pub backoff: Backoff,
}

/// `[liveness_monitor]`: watches the heartbeats of all the others.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LivenessMonitor {
    /// How often the heartbeats are looked at.
    #[serde(rename = "interval_ms", deserialize_with = "types::ms::<10, 3_600_000, _>")]
    pub interval: Duration,
    /// What its end may take.
    #[serde(rename = "stop_budget_ms", deserialize_with = "types::ms::<1, 600_000, _>")]
    pub stop_budget: Duration,
    /// A critical part without a tick for this long is wedged, and `/healthz` says so.
    #[serde(rename = "wedged_after_ms", deserialize_with = "types::ms::<100, 3_600_000, _>")]
    pub wedged_after: Duration,
    /// The main runtime is stuck when it has not run a task for this long. It beats every second, so less than two of
    /// them would mean nothing.
    #[serde(rename = "runtime_stuck_after_ms", deserialize_with = "types::ms::<2_000, 3_600_000, _>")]
    pub runtime_stuck_after: Duration,
    /// Its restart budget.
    pub restart: Restart,
    /// Its backoff.
    pub backoff: Backoff,
}
