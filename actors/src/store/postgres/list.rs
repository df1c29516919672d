//! Lists of a tenant's rows, newest first, each page behind a place. Every statement walks one index in its order and
//! stops when the page is full; what a filter leaves out is walked over, and only what runs is sorted here.

use super::session::Statement;
use super::{PostgresStore, Run, Write, clean, columns};
use crate::model::{Millis, TenantId};
use crate::store::error::Inner;
use crate::store::listing::{FINISHED_STATES, LIVE_STATES, START, from, is_wanted, merged};
use crate::store::rows::{self, Columns};
use crate::store::{Job, JobFilter, JobState, Place, Schedule};

// What a live job's state is depends on the time, as in `rows::live_job`.
macro_rules! live {
    ($is:literal) => {
        concat!(
            "WITH clock AS MATERIALIZED (SELECT now_ms() AS now)
             SELECT ",
            columns::job!(),
            ", (SELECT now FROM clock) AS now_ms FROM jobs
             WHERE tenant = $1 AND state ",
            $is,
            " 'running' AND (created_at_ms, id) < ($2, $3) AND created_at_ms > $4
               AND ($5::text IS NULL OR kind = $5) AND ($6::text IS NULL OR queue = $6)
               AND ($8::uuid IS NULL OR schedule_id = $8)
               AND CASE WHEN state <> 'waiting' THEN state WHEN run_at_ms <= (SELECT now FROM clock) THEN 'ready'
                        WHEN attempt > refunds THEN 'retrying' ELSE 'scheduled' END = ANY ($9::text[])
             ORDER BY created_at_ms DESC, id DESC LIMIT $7"
        )
    };
}

const QUEUED: &str = live!("<>");
/// These stand in no list, which each claim would have to change; a tenant has few.
const RUNNING: &str = live!("=");

const FINISHED: &str = concat!(
    "
    SELECT ",
    columns::finished_job!(),
    " FROM jobs_done
    WHERE tenant = $1 AND state = $9 AND (created_at_ms, id) < ($2, $3) AND created_at_ms > $4
      AND ($5::text IS NULL OR kind = $5) AND ($6::text IS NULL OR queue = $6)
      AND ($8::uuid IS NULL OR schedule_id = $8)
    ORDER BY created_at_ms DESC, id DESC LIMIT $7"
);

const SCHEDULES: &str = concat!(
    "
    SELECT ",
    columns::schedule!(),
    " FROM schedules WHERE tenant = $1 AND (created_at_ms, id) < ($2, $3)
    ORDER BY created_at_ms DESC, id DESC LIMIT $4"
);

/// What `plans` looks at.
#[cfg(test)]
pub(super) const HOT: &[&str] = &[QUEUED, RUNNING, FINISHED, SCHEDULES];

/// One snapshot for all lists of a page: a job that moves from one table to the other meanwhile is seen in one of them.
pub(super) const READ: &str = "BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY";

pub(super) async fn jobs(
    store: &PostgresStore,
    tenant: &TenantId,
    filter: &JobFilter,
    after: Option<Place>,
    limit: u32,
) -> Inner<Vec<Job>> {
    let list = JobList { tenant, filter, from: from(filter, after), limit };
    let mut session = store.session().await?;
    let mut read = session.begin_with(READ).await?;
    let mut jobs = list.live(&mut read).await?;
    for state in FINISHED_STATES.into_iter().filter(|state| is_wanted(filter, *state)) {
        jobs.extend(list.finished(&mut read, state).await?);
    }
    read.commit().await?;
    Ok(merged(jobs, limit))
}

/// Jobs that have ended badly, newest first, those behind `after` only.
pub(super) async fn redrivable(
    read: &mut Write<'_>,
    tenant: &TenantId,
    filter: &JobFilter,
    after: Option<Place>,
    limit: u32,
) -> Inner<Vec<Job>> {
    let list = JobList { tenant, filter, from: from(filter, after), limit };
    let mut jobs = Vec::new();
    for state in FINISHED_STATES.into_iter().filter(|state| state.can_be_redriven() && is_wanted(filter, *state)) {
        jobs.extend(list.finished(read, state).await?);
    }
    Ok(merged(jobs, limit))
}

struct JobList<'a> {
    tenant: &'a TenantId,
    filter: &'a JobFilter,
    from: Place,
    limit: u32,
}

impl JobList<'_> {
    async fn live(&self, read: &mut Write<'_>) -> Inner<Vec<Job>> {
        let wanted = LIVE_STATES.into_iter().filter(|state| is_wanted(self.filter, *state));
        let wanted: Vec<&str> = wanted.map(JobState::as_str).collect();
        if wanted.is_empty() {
            return Ok(Vec::new());
        }
        let mut found = Vec::new();
        for sql in [QUEUED, RUNNING] {
            found.extend(read.all(self.statement(sql).bind(wanted.clone())).await?);
        }
        found.iter().map(|row| rows::live_job(row, row.number("now_ms")?)).collect()
    }

    async fn finished(&self, read: &mut Write<'_>, state: JobState) -> Inner<Vec<Job>> {
        let found = read.all(self.statement(FINISHED).bind(state.as_str())).await?;
        found.iter().map(rows::finished_job).collect()
    }

    /// A statement with the parameters 1 to 8, which all lists of jobs share.
    fn statement(&self, sql: &'static str) -> Statement<'static> {
        sqlx::query(sql)
            .bind(self.tenant.to_string())
            .bind(self.from.at_ms)
            .bind(self.from.id)
            .bind(self.filter.created_after_ms.unwrap_or(Millis::MIN))
            .bind(self.filter.kind.clone().map(clean))
            .bind(self.filter.queue.clone().map(clean))
            .bind(i64::from(self.limit))
            .bind(self.filter.schedule)
    }
}

pub(super) async fn schedules(
    store: &PostgresStore,
    tenant: &TenantId,
    after: Option<Place>,
    limit: u32,
) -> Inner<Vec<Schedule>> {
    let from = after.unwrap_or(START);
    let select = sqlx::query(SCHEDULES).bind(tenant.as_str()).bind(from.at_ms).bind(from.id).bind(i64::from(limit));
    store.session().await?.all(select).await?.iter().map(rows::schedule).collect()
}
