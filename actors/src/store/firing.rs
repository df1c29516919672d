//! Firing schedules: what every backend does alike around its own statements. What follows from a fire is decided in
//! `policy.rs`.

use std::collections::{HashMap, HashSet, VecDeque};

use uuid::Uuid;

use super::policy::{Meeting, Plan, Standing};
use super::{Backfilled, Fence, FireReport, Fired, NewJob, Schedule, Triggered, rows};
use crate::model::{Millis, TenantId, new_id};

/// The last error of a job that makes room for the next fire of its schedule.
pub(super) const OVERTAKEN: &str = "cancelled: a later fire of its schedule took its place";

/// So many jobs one transaction cancels at most to make room for fires. If there are more, nothing fires in their place before
/// the last of them is cancelled: those of other schedules are not to wait for it.
pub(super) const CANCEL_MAX: usize = 1_000;

/// What a transaction did that was to fire.
pub(super) enum Tried<T> {
    /// It has cancelled so many that another one must fire.
    Cancelled(Vec<Fence>),
    /// Its answer.
    Fired(T),
}

impl Triggered {
    /// With jobs that were cancelled before.
    pub(super) fn after(self, mut before: Vec<Fence>) -> Self {
        match self {
            Self::Started { fired, cancelled } => {
                before.extend(cancelled);
                Self::Started { fired, cancelled: before }
            }
            other => other,
        }
    }
}

impl Backfilled {
    /// With jobs that were cancelled before.
    pub(super) fn after(self, mut before: Vec<Fence>) -> Self {
        before.extend(self.cancelled);
        Self { cancelled: before, ..self }
    }
}

/// How many due schedules of each of so many tenants to read. Beside others nobody can have more than twice its share anyway.
pub(super) fn of_each(limit: u32, tenants: usize) -> u32 {
    let tenants = u32::try_from(tenants).unwrap_or(u32::MAX).max(1);
    if tenants > 1 { limit.div_ceil(tenants).saturating_mul(2).min(limit) } else { limit }
}

/// Of every queue the same number, and the rest of whoever has it, at most `limit` in all.
pub(super) fn by_turns<T>(mut queues: VecDeque<VecDeque<T>>, limit: usize) -> Vec<T> {
    let mut taken = Vec::with_capacity(limit);
    while taken.len() < limit
        && let Some(mut queue) = queues.pop_front()
    {
        if let Some(next) = queue.pop_front() {
            taken.push(next);
            queues.push_back(queue);
        }
    }
    taken
}

/// These fires of each schedule, and the one that it has buffered.
pub(super) fn all_of<'a>(fires: impl Iterator<Item = (&'a Schedule, &'a [Millis])>) -> Vec<(Uuid, Millis)> {
    let of_one = |(schedule, fires): (&'a Schedule, &'a [Millis])| {
        fires.iter().copied().chain(schedule.buffered_fire_at_ms).map(|fire| (schedule.id, fire))
    };
    fires.flat_map(of_one).collect()
}

/// What changes in a schedule's row beside what was decided.
pub(super) struct Change {
    pub(super) next: Option<Millis>,
    pub(super) last: Option<Millis>,
    pub(super) missed: u64,
    pub(super) remaining: Option<u64>,
}

/// How many more jobs each tenant may have queued in one look; what is made in it counts.
#[derive(Default)]
pub(super) struct Rooms(HashMap<TenantId, usize>);

impl Rooms {
    /// What is left, if it was asked before.
    pub(super) fn left(&self, tenant: &TenantId) -> Option<usize> {
        self.0.get(tenant).copied()
    }
}

/// What a due schedule does, as it stands in the transaction. Fires that have made a job before (`present`) make no other, and
/// those for which there is no room are missed.
pub(super) fn meet(
    schedule: &Schedule,
    plan: &Plan,
    standing: Standing,
    present: &HashSet<(Uuid, Millis)>,
    room: usize,
    rooms: &mut Rooms,
) -> (Meeting, Change) {
    let is_new = |fire: &Millis| !present.contains(&(schedule.id, *fire));
    let fires: Vec<Millis> = plan.fires.iter().copied().filter(is_new).collect();
    let standing = Standing { buffered: standing.buffered.filter(is_new), ..standing };
    let (meeting, full) = standing.meet_within(room, &fires, schedule.policies.overlap);
    if full > 0 {
        let (tenant, schedule) = (&schedule.tenant, schedule.id);
        tracing::warn!(%tenant, %schedule, full, "fires are missed: the tenant has as many jobs queued as it may");
    }
    rooms.0.insert(schedule.tenant.clone(), room.saturating_sub(meeting.starts.len()));
    let change = Change {
        next: meeting.next(plan.next),
        last: meeting.starts.last().copied(),
        missed: plan.missed + full,
        remaining: meeting.remaining,
    };
    (meeting, change)
}

impl FireReport {
    /// Counts in what one schedule did, beside those that it cancelled.
    pub(super) fn add(&mut self, meeting: &Meeting, change: &Change, fired: Vec<Fired>) {
        self.missed += change.missed;
        self.overlapped += meeting.overlapped;
        self.buffered += u64::from(meeting.is_newly_buffered);
        self.fired.extend(fired);
    }
}

/// The jobs of these fires, each with its time and with what is told of it. That of the last fire has the id `last`, if there
/// is one.
pub(super) fn jobs_of(
    schedule: &Schedule,
    fires: &[Millis],
    last: Option<Uuid>,
    now: Millis,
) -> Vec<(NewJob, Millis, Fired)> {
    let of_one = |(place, fire_at): (usize, &Millis)| {
        let job = NewJob {
            id: last.filter(|_| place + 1 == fires.len()).unwrap_or_else(new_id),
            queue: schedule.queue.clone(),
            max_attempts: schedule.max_attempts,
            priority: schedule.priority,
            timeout_ms: schedule.timeout_ms,
            keep_ms: schedule.keep_ms,
            context: schedule.context.clone(),
            ..NewJob::new(schedule.tenant.clone(), schedule.kind.clone(), schedule.payload.clone())
        };
        let late_ms = now.saturating_sub(*fire_at).max(0).unsigned_abs();
        let fired = Fired { schedule: schedule.id, job: job.id, fire_at_ms: *fire_at, late_ms };
        (job, fire_at.saturating_add(jitter(schedule)), fired)
    };
    fires.iter().enumerate().map(of_one).collect()
}

/// The same part of the schedule's jitter each time: the end of its id is random.
fn jitter(schedule: &Schedule) -> i64 {
    let (_, random) = schedule.id.as_u64_pair();
    random.checked_rem(schedule.jitter_ms).map_or(0, rows::signed)
}

/// What became of a fire that a tenant asked for itself, and that made its job at once if it `is_started`.
pub(super) fn triggered(fire_at: Millis, is_started: bool, mut fired: Vec<Fired>, cancelled: Vec<Fence>) -> Triggered {
    match fired.pop() {
        Some(fired) if is_started => Triggered::Started { fired, cancelled },
        _ => Triggered::Buffered { fire_at_ms: fire_at },
    }
}

/// What became of past fires that a tenant asked for, of which `present` had made a job before.
pub(super) fn backfilled(meeting: &Meeting, present: usize, fired: Vec<Fired>, cancelled: Vec<Fence>) -> Backfilled {
    Backfilled {
        fired,
        cancelled,
        present: present as u64,
        overlapped: meeting.overlapped,
        buffered_fire_at_ms: meeting.buffered.filter(|_| meeting.is_newly_buffered),
    }
}
