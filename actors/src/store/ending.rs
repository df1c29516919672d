//! What follows from the end of a claim, and how it is told: the part of it that needs no store.

use serde_json::Value;
use uuid::Uuid;

use super::rows::signed;
use super::{DeliveryOutcome, DisableRules, Fault, JobState};
use crate::model::{Millis, TenantId};

/// How many attempts of one delivery are kept: more than any schedule has, a few redeliveries included.
pub(super) const KEPT_MAX: u32 = 50;

/// No job is leased for longer, which the settings hold to: a lease that ends later was given before the clock went back.
pub(super) const LEASE_MAX_MS: i64 = 3_600_000;
/// So much of such a lease is left, for the next heartbeat of an owner that lives.
pub(super) const LEASE_LEFT_MS: i64 = 60_000;

/// How a job moves to the finished ones.
pub(super) enum End<'a> {
    /// Well.
    Done { result: Option<Value> },
    /// Badly.
    Dead { reason: &'a str, fault: Fault },
}

/// How many crashes a fault counts.
pub(super) fn crashes(fault: Fault) -> i64 {
    i64::from(fault == Fault::Crash)
}

/// Why a job that was lost too often is dead.
pub(super) fn quarantined(crashes: i64) -> String {
    format!("quarantined after {crashes} crashes: its runner was lost, the lease ran out")
}

/// Why a row that cannot be read is dead, or disabled.
pub(super) fn unreadable(what: &str) -> String {
    format!("it cannot be read: {what}")
}

/// What is wrong with a delivery to no channel, or to another tenant's.
pub(super) fn no_channel(channel: Uuid) -> String {
    format!("the tenant has no channel {channel}")
}

/// What is wrong with a delivery to a disabled channel.
pub(super) fn disabled_channel(channel: Uuid, why: &str) -> String {
    format!("the channel {channel} is disabled: {why}")
}

/// What is wrong with a delivery to a channel that has enough.
pub(super) fn full_channel(channel: Uuid, pending_max: u32) -> String {
    format!("the channel {channel} has {pending_max} deliveries to send, the most that may wait")
}

/// What is wrong with jobs that would be too many.
pub(super) fn too_many_queued(queued: i64, most: i64) -> String {
    format!("the tenant may have {most} jobs queued, it has {queued}")
}

/// What is wrong with a job that has not ended badly, for a redrive.
pub(super) fn not_redrivable(state: JobState) -> String {
    format!("the job is {}, only one that is dead or cancelled is redriven", state.as_str())
}

/// What is wrong with a redrive of a job whose key is another's.
pub(super) fn key_of(holder: Uuid) -> String {
    format!("another job has its unique key: {holder}")
}

/// What is wrong with an unknown job.
pub(super) fn no_job(job: Uuid) -> String {
    format!("the tenant has no job {job}")
}

/// What is wrong with a redelivery.
pub(super) fn not_dead(delivery: Uuid, state: &str) -> String {
    format!("the delivery {delivery} is {state}, only a dead one can be sent again")
}

/// What is wrong with a tenant of the same name.
pub(super) fn same_name(tenant: &TenantId) -> String {
    format!("there is a tenant {tenant} already")
}

/// What is wrong with another tenant's key. Whose it is is never told.
pub(super) fn same_key(tenant: &TenantId) -> String {
    format!("the tenant {tenant} would have the key of another tenant")
}

/// What is wrong with an unknown tenant.
pub(super) fn no_tenant(tenant: &TenantId) -> String {
    format!("there is no tenant {tenant}")
}

/// The columns of a delivery that an attempt changes.
pub(super) struct Attempted {
    /// The state after it.
    pub(super) state: &'static str,
    /// Not before this time.
    pub(super) due_at: Millis,
    /// When it ended for good.
    pub(super) finished_at: Option<Millis>,
    /// The receiver's status.
    pub(super) status: Option<u16>,
    /// What went wrong.
    pub(super) error: Option<String>,
    /// What the receiver calls it.
    pub(super) provider_id: Option<String>,
}

impl Attempted {
    /// What an outcome writes.
    pub(super) fn by(outcome: DeliveryOutcome, now: Millis) -> Self {
        let (state, due_at, status, error, provider_id) = match outcome {
            DeliveryOutcome::Sent { status, provider_id } => ("sent", now, status, None, provider_id),
            DeliveryOutcome::Dead { status, reason } => ("dead", now, status, Some(reason), None),
            DeliveryOutcome::Retry { after_ms, status, error } => {
                ("pending", now.saturating_add(signed(after_ms)), status, Some(error), None)
            }
            DeliveryOutcome::Release { .. } => ("pending", now, None, None, None),
        };
        let finished_at = (state != "pending").then_some(now);
        Self { state, due_at, finished_at, status, error, provider_id }
    }
}

/// Whether a channel has failed enough, and how that is told.
pub(super) fn failed_enough(refusals: u32, failing_ms: Millis, rules: DisableRules, reason: &str) -> Option<String> {
    if refusals >= rules.refusals_max && failing_ms >= signed(rules.refused_for_ms) {
        return Some(format!("refused {refusals} times in a row, at last: {reason}"));
    }
    let hours = failing_ms / 3_600_000;
    (failing_ms >= signed(rules.failing_for_ms))
        .then(|| format!("nothing has arrived for {hours} h, at last: {reason}"))
}
