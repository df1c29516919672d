//! Lists of a tenant's rows, newest first, each page behind a place. Every statement walks one index in its order and
//! stops when the page is full; what a filter leaves out is walked over, and nothing is ever sorted here.

use sqlx::{Sqlite, SqliteConnection};

use super::{Inner, SqliteStore, rows};
use crate::model::{Millis, TenantId};
use crate::store::listing::{FINISHED_STATES, LIVE_STATES, START, from, is_wanted, merged};
use crate::store::{Job, JobFilter, JobState, Place, Schedule};

// What a live job's state is depends on the time, as in `rows::live_job`.
const LIVE: &str = "
    SELECT * FROM jobs
    WHERE tenant = ?1 AND (created_at_ms, id) < (?2, ?3) AND created_at_ms > ?4
      AND (?5 IS NULL OR kind = ?5) AND (?6 IS NULL OR queue = ?6) AND (?8 IS NULL OR schedule_id = ?8)
      AND CASE WHEN state <> 'waiting' THEN state WHEN run_at_ms <= ?9 THEN 'ready'
               WHEN attempt > refunds THEN 'retrying' ELSE 'scheduled' END IN (?10, ?11, ?12, ?13)
    ORDER BY created_at_ms DESC, id DESC LIMIT ?7";

const FINISHED: &str = "
    SELECT * FROM jobs_done
    WHERE tenant = ?1 AND state = ?9 AND (created_at_ms, id) < (?2, ?3) AND created_at_ms > ?4
      AND (?5 IS NULL OR kind = ?5) AND (?6 IS NULL OR queue = ?6) AND (?8 IS NULL OR schedule_id = ?8)
    ORDER BY created_at_ms DESC, id DESC LIMIT ?7";

const SCHEDULES: &str = "
    SELECT * FROM schedules WHERE tenant = ?1 AND (created_at_ms, id) < (?2, ?3)
    ORDER BY created_at_ms DESC, id DESC LIMIT ?4";

pub(super) async fn jobs(
    store: &SqliteStore,
    tenant: &TenantId,
    filter: &JobFilter,
    after: Option<Place>,
    limit: u32,
) -> Inner<Vec<Job>> {
    let list = JobList { tenant, filter, from: from(filter, after), limit };
    let now = store.now();
    // One snapshot for all: a job that moves from one table to the other meanwhile is seen in one of them.
    let mut read = store.readers()?.begin().await?;
    let mut jobs = list.live(&mut read, now).await?;
    for state in FINISHED_STATES.into_iter().filter(|state| is_wanted(filter, *state)) {
        jobs.extend(list.finished(&mut read, state).await?);
    }
    read.commit().await?;
    Ok(merged(jobs, limit))
}

/// Jobs that have ended badly, newest first, those behind `after` only.
pub(super) async fn redrivable(
    read: &mut SqliteConnection,
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

/// A statement with the parameters 1 to 8, which all lists of jobs share.
type Query = sqlx::query::Query<'static, Sqlite, sqlx::sqlite::SqliteArguments>;

impl JobList<'_> {
    async fn live(&self, read: &mut SqliteConnection, now: Millis) -> Inner<Vec<Job>> {
        if !LIVE_STATES.iter().any(|state| is_wanted(self.filter, *state)) {
            return Ok(Vec::new());
        }
        let mut query = self.query(LIVE).bind(now);
        for state in LIVE_STATES {
            query = query.bind(is_wanted(self.filter, state).then(|| state.as_str()));
        }
        query.fetch_all(&mut *read).await?.iter().map(|row| rows::live_job(row, now)).collect()
    }

    async fn finished(&self, read: &mut SqliteConnection, state: JobState) -> Inner<Vec<Job>> {
        let query = self.query(FINISHED).bind(state.as_str());
        query.fetch_all(&mut *read).await?.iter().map(rows::finished_job).collect()
    }

    fn query(&self, sql: &'static str) -> Query {
        sqlx::query(sql)
            .bind(self.tenant.to_string())
            .bind(self.from.at_ms)
            .bind(self.from.id.to_string())
            .bind(self.filter.created_after_ms.unwrap_or(Millis::MIN))
            .bind(self.filter.kind.clone())
            .bind(self.filter.queue.clone())
            .bind(self.limit)
            .bind(self.filter.schedule.map(|id| id.to_string()))
    }
}

pub(super) async fn schedules(
    store: &SqliteStore,
    tenant: &TenantId,
    after: Option<Place>,
    limit: u32,
) -> Inner<Vec<Schedule>> {
    let from = after.unwrap_or(START);
    let select = sqlx::query(SCHEDULES).bind(tenant.as_str()).bind(from.at_ms).bind(from.id.to_string()).bind(limit);
    select.fetch_all(&store.readers()?).await?.iter().map(rows::schedule).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::sqlite::tests::{open_in, plan};

    #[tokio::test]
    async fn a_page_walks_one_index_from_its_place_on_and_sorts_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let (store, _) = open_in(&directory).await;
        for (sql, index) in [
            (LIVE, "SEARCH jobs USING INDEX jobs_list (tenant=? AND "),
            (FINISHED, "SEARCH jobs_done USING INDEX jobs_done_list (tenant=? AND state=? AND "),
            (SCHEDULES, "SEARCH schedules USING INDEX schedules_list (tenant=? AND "),
        ] {
            let steps = plan(&store, sql).await;
            assert!(steps.len() == 1 && steps[0].starts_with(index), "{steps:#?}");
            assert!(steps[0].contains("created_at_ms"), "not from the place on: {steps:#?}");
        }
    }
}
