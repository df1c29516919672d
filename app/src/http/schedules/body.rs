//! What a tenant says about a schedule, and what it is shown.

use actors::jobs::{Cadence, time_zone};
use actors::model::{TenantId, now_ms};
use actors::store::{MISFIRE_MAX, Misfire, NewSchedule, Overlap, Policies, Schedule};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;
use uuid::Uuid;

use super::super::ApiState;
use super::super::jobs::Work;
use super::super::resource::{Faults, time};

/// The clock of a cron pattern if nobody says otherwise.
const TIME_ZONE_DEFAULT: &str = "UTC";

/// The longest jitter, in milliseconds: one hour.
const JITTER_MAX_MS: u64 = 3_600_000;

/// The longest catch-up window, in milliseconds: 366 days.
const WINDOW_MAX_MS: u64 = 366 * 24 * 3_600_000;

/// The most fires that may be said to remain: what every client can count.
const REMAINING_MAX: u64 = 1_000_000_000;

/// Fires that a schedule shows of those to come.
const SHOWN: usize = 3;

/// What `POST /v1/schedules` takes: either `every_ms` or `cron`, the latter with an optional `time_zone`.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewScheduleBody {
    /// A kind that runs here.
    kind: String,
    /// What the kind takes, each time.
    payload: Value,
    #[schema(minimum = 1_000, maximum = 31_622_400_000_u64)]
    every_ms: Option<u64>,
    /// Five fields: minute, hour, day, month, weekday; or six, with seconds in front; or seven, with the year at the end.
    #[schema(max_length = 200)]
    cron: Option<String>,
    /// A name of the IANA database; UTC if it is not said.
    time_zone: Option<String>,
    /// The line its jobs wait in: one that is served.
    queue: Option<String>,
    /// Lower runs first.
    priority: Option<i32>,
    /// How often each job is tried before it is dead; 10, unless its kind says otherwise.
    #[schema(minimum = 1, maximum = 100)]
    max_attempts: Option<u32>,
    /// How long one attempt may take; otherwise as its kind or the operator says.
    #[schema(minimum = 1, maximum = 3_600_000)]
    timeout_ms: Option<u64>,
    /// How long each job is kept when it has ended; otherwise as long as the operator says.
    #[schema(maximum = 7_776_000_000u64)]
    keep_for_ms: Option<u64>,
    /// Spreads the jobs of many schedules that fire together: each waits for a part of this, always the same.
    #[schema(minimum = 0, maximum = 3_600_000)]
    jitter_ms: Option<u64>,
    /// Which fires are made up for that nobody was there to make; `latest` if it is not said.
    misfire: Option<MisfireName>,
    /// With `all`: so many at most, the latest.
    #[schema(minimum = 1, maximum = 1_000)]
    misfire_max: Option<u32>,
    /// Fires that are older than this are not made up for; the service's own setting if it is not said.
    #[schema(minimum = 0, maximum = 31_622_400_000_u64)]
    catch_up_window_ms: Option<u64>,
    /// What a fire does while the job of an earlier one has not ended; `skip` if it is not said.
    overlap: Option<OverlapName>,
    /// It does not fire before.
    #[schema(value_type = Option<String>, format = DateTime)]
    start_at: Option<Timestamp>,
    /// It does not fire after.
    #[schema(value_type = Option<String>, format = DateTime)]
    end_at: Option<Timestamp>,
    /// How often it fires at most from now on, what it skips not counted.
    #[schema(minimum = 1, maximum = 1_000_000_000)]
    remaining_fires: Option<u64>,
}

/// Which fires are made up for that were missed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum MisfireName {
    /// None, if it is more than a minute late.
    Skip,
    /// The latest.
    Latest,
    /// All of the catch-up window, at most `misfire_max`.
    All,
}

/// What a fire does while the job of an earlier fire waits, runs, or waits to be tried again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum OverlapName {
    /// It makes no job.
    Skip,
    /// It makes its job when the other has ended; one fire waits at most, the first.
    BufferOne,
    /// It makes its job all the same.
    Allow,
    /// It cancels all such jobs and makes its own.
    CancelPrevious,
}

impl From<OverlapName> for Overlap {
    fn from(name: OverlapName) -> Self {
        match name {
            OverlapName::Skip => Self::Skip,
            OverlapName::BufferOne => Self::BufferOne,
            OverlapName::Allow => Self::Allow,
            OverlapName::CancelPrevious => Self::CancelPrevious,
        }
    }
}

impl NewScheduleBody {
    /// The schedule that it means; what makes no sense becomes a fault.
    pub(super) fn read(self, state: &ApiState, tenant: TenantId, id: Uuid, faults: &mut Faults) -> Option<NewSchedule> {
        let work = Work {
            kind: &self.kind,
            payload: &self.payload,
            queue: self.queue.as_deref(),
            max_attempts: self.max_attempts,
            timeout_ms: self.timeout_ms,
            keep_for_ms: self.keep_for_ms,
        };
        work.check(state, faults);
        faults.within("jitter_ms", self.jitter_ms, 0, JITTER_MAX_MS);
        let policies = self.policies(faults);
        let cadence = self.cadence(faults)?;
        let of_kind = state.scheduler.handlers().max_attempts(&self.kind);
        let mut schedule = NewSchedule::new(tenant, cadence, self.kind, self.payload);
        schedule.id = id;
        schedule.policies = policies;
        schedule.queue = self.queue.unwrap_or(schedule.queue);
        schedule.max_attempts = self.max_attempts.or(of_kind).unwrap_or(schedule.max_attempts);
        schedule.priority = self.priority.unwrap_or(schedule.priority);
        schedule.timeout_ms = self.timeout_ms;
        schedule.keep_ms = self.keep_for_ms;
        schedule.jitter_ms = self.jitter_ms.unwrap_or(0);
        Some(schedule)
    }

    fn policies(&self, faults: &mut Faults) -> Policies {
        let is_all = self.misfire == Some(MisfireName::All);
        faults.require("misfire_max", is_all || self.misfire_max.is_none(), || "belongs to all only".to_owned());
        faults.within("misfire_max", self.misfire_max, 1, MISFIRE_MAX);
        faults.within("catch_up_window_ms", self.catch_up_window_ms, 0, WINDOW_MAX_MS);
        faults.within("remaining_fires", self.remaining_fires, 1, REMAINING_MAX);
        let is_forward = self.start_at.zip(self.end_at).is_none_or(|(start, end)| start <= end);
        faults.require("end_at", is_forward, || "is before start_at".to_owned());
        Policies {
            misfire: match self.misfire {
                None | Some(MisfireName::Latest) => Misfire::Latest,
                Some(MisfireName::Skip) => Misfire::Skip,
                Some(MisfireName::All) => Misfire::All { max: self.misfire_max.unwrap_or(MISFIRE_MAX) },
            },
            catch_up_window_ms: self.catch_up_window_ms,
            overlap: self.overlap.map(Overlap::from).unwrap_or_default(),
            start_at_ms: self.start_at.map(Timestamp::as_millisecond),
            end_at_ms: self.end_at.map(Timestamp::as_millisecond),
            remaining_fires: self.remaining_fires,
        }
    }

    fn cadence(&self, faults: &mut Faults) -> Option<Cadence> {
        let no_zone = self.cron.is_some() || self.time_zone.is_none();
        faults.require("time_zone", no_zone, || "belongs to cron only".to_owned());
        match (self.every_ms, &self.cron) {
            (Some(every_ms), None) => faults.keep("every_ms", Cadence::every(every_ms)),
            (None, Some(pattern)) => {
                let zone = self.time_zone.as_deref().unwrap_or(TIME_ZONE_DEFAULT);
                // A pattern is judged whether there is such a place or not.
                let zone = faults.keep("time_zone", time_zone(zone)).map_or(TIME_ZONE_DEFAULT, |_| zone);
                faults.keep("cron", Cadence::cron(pattern, zone, now_ms()))
            }
            _ => {
                faults.require("every_ms", false, || "exactly one of every_ms and cron is needed".to_owned());
                None
            }
        }
    }
}

/// A schedule as its tenant sees it.
#[derive(Debug, Serialize, ToSchema)]
pub struct ScheduleResource {
    id: Uuid,
    tenant: String,
    kind: String,
    payload: Value,
    queue: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    every_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cron: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    time_zone: Option<String>,
    max_attempts: u32,
    priority: i32,
    /// Absent if it is as the kind or the operator says.
    #[serde(skip_serializing_if = "Option::is_none")]
    timeout_ms: Option<u64>,
    /// Absent if it is as long as the operator says.
    #[serde(skip_serializing_if = "Option::is_none")]
    keep_for_ms: Option<u64>,
    jitter_ms: u64,
    #[schema(value_type = MisfireName)]
    misfire: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    misfire_max: Option<u32>,
    /// Absent if it is the service's own setting.
    #[serde(skip_serializing_if = "Option::is_none")]
    catch_up_window_ms: Option<u64>,
    #[schema(value_type = OverlapName)]
    overlap: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(format = DateTime)]
    start_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(format = DateTime)]
    end_at: Option<String>,
    /// Absent if there is no limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    remaining_fires: Option<u64>,
    /// Null while it is paused, and when it will not fire again.
    #[schema(format = DateTime)]
    next_fire_at: Option<String>,
    /// That one and the two behind it.
    next_fires: Vec<String>,
    #[schema(format = DateTime)]
    last_fire_at: Option<String>,
    /// The fire that waits for the end of the job before, if one does.
    #[schema(format = DateTime)]
    buffered_fire_at: Option<String>,
    /// How many fires have made a job.
    fires: u64,
    /// How many were too old to be made up for, or too many.
    missed: u64,
    /// How many made no job, because that of an earlier one had not ended.
    overlapped: u64,
    #[schema(format = DateTime)]
    created_at: String,
    /// Since when it is paused, if it is.
    #[schema(format = DateTime)]
    paused_at: Option<String>,
    last_error: Option<String>,
    origin_trace_id: Option<String>,
}

impl From<Schedule> for ScheduleResource {
    fn from(schedule: Schedule) -> Self {
        let (cron, time_zone) = schedule.cadence.cron_line().map(|(cron, zone)| (cron.into(), zone.into())).unzip();
        let shown = if schedule.paused_at_ms.is_some() { 0 } else { SHOWN };
        let next_fires = schedule.upcoming(now_ms(), shown).into_iter().map(time).collect();
        let policies = schedule.policies;
        Self {
            id: schedule.id,
            tenant: schedule.tenant.to_string(),
            kind: schedule.kind,
            payload: schedule.payload,
            queue: schedule.queue,
            every_ms: schedule.cadence.every_ms(),
            cron,
            time_zone,
            max_attempts: schedule.max_attempts,
            priority: schedule.priority,
            timeout_ms: schedule.timeout_ms,
            keep_for_ms: schedule.keep_ms,
            jitter_ms: schedule.jitter_ms,
            misfire: policies.misfire.as_str(),
            misfire_max: policies.misfire.max(),
            catch_up_window_ms: policies.catch_up_window_ms,
            overlap: policies.overlap.as_str(),
            start_at: policies.start_at_ms.map(time),
            end_at: policies.end_at_ms.map(time),
            remaining_fires: policies.remaining_fires,
            next_fire_at: schedule.next_fire_at_ms.map(time),
            next_fires,
            last_fire_at: schedule.last_fire_at_ms.map(time),
            buffered_fire_at: schedule.buffered_fire_at_ms.map(time),
            fires: schedule.tally.fires,
            missed: schedule.tally.missed,
            overlapped: schedule.tally.overlapped,
            created_at: time(schedule.created_at_ms),
            paused_at: schedule.paused_at_ms.map(time),
            last_error: schedule.last_error,
            origin_trace_id: schedule.context.origin(),
        }
    }
}
