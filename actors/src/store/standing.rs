//! Where a job stands: what the store knows about why it does not run, without a judgement.

use uuid::Uuid;

use super::Job;
use crate::model::Millis;

/// Jobs ahead of one are counted up to this many.
pub const AHEAD_MAX: u32 = 10_000;

/// A job and what surrounds it, all read at one moment.
#[derive(Debug, Clone, PartialEq)]
pub struct Standing {
    /// The job, as it was then.
    pub job: Job,
    /// That moment, by the store's clock.
    pub at_ms: Millis,
    /// Since when its tenant is disabled, if it is.
    pub tenant_disabled_at_ms: Option<Millis>,
    /// It lost its runner so often that it runs only while no other such job does in the same process.
    pub is_suspect: bool,
    /// Who has claimed it.
    pub owner: Option<Uuid>,
    /// Until when it is theirs without a heartbeat.
    pub lease_until_ms: Option<Millis>,
    /// Jobs of the tenant that run, in all processes and queues together.
    pub tenant_running: u32,
    /// How many may, if the tenant's row says so.
    pub tenant_running_max: Option<u32>,
    /// Until when its tenant may start no more of this queue, because it has a rate and has used it up.
    pub tenant_rate_until_ms: Option<Millis>,
    /// Ready jobs of the tenant in this queue that come before it; [`AHEAD_MAX`] stands for more.
    pub ahead: u32,
}
