//! What waits in the store, of all tenants together: where an operator looks who does not know yet whose work it is.

use serde::Serialize;
use uuid::Uuid;

use super::error::Inner;
use super::rows::{Columns, tenant};
use crate::model::{Millis, TenantId};

/// Dead jobs are counted up to this many, of all tenants together.
pub const DEAD_COUNTED_MAX: u32 = 100_000;

/// The tenants and the channels with the most to do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Overview {
    /// Those with the most jobs that have not ended or are dead.
    pub tenants: Vec<TenantAtWork>,
    /// Those with the most deliveries that have not ended.
    pub channels: Vec<Backlog>,
}

/// A tenant that has jobs which have not ended, or which are dead.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TenantAtWork {
    /// Whose.
    pub tenant: TenantId,
    /// Jobs that wait for their time, for a place or for another attempt.
    pub queued: u64,
    /// Jobs that run, in all processes.
    pub running: u64,
    /// Jobs that are dead, and kept; of [`DEAD_COUNTED_MAX`] of all tenants.
    pub dead: u64,
}

/// A channel with deliveries that have not ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Backlog {
    /// The channel.
    pub channel: Uuid,
    /// Whose it is.
    pub tenant: TenantId,
    /// Its kind.
    pub kind: String,
    /// How many have not ended.
    pub pending: u64,
    /// When the first of them is due, in milliseconds since 1970.
    pub due_at_ms: Millis,
}

pub(super) fn tenant_at_work(row: &impl Columns) -> Inner<TenantAtWork> {
    Ok(TenantAtWork {
        tenant: tenant(row.text("tenant")?)?,
        queued: row.number("queued")?,
        running: row.number("running")?,
        dead: row.number("dead")?,
    })
}

pub(super) fn backlog(row: &impl Columns) -> Inner<Backlog> {
    Ok(Backlog {
        channel: row.id("channel_id")?,
        tenant: tenant(row.text("tenant")?)?,
        kind: row.string("kind")?,
        pending: row.number("pending")?,
        due_at_ms: row.number("due_at_ms")?,
    })
}
