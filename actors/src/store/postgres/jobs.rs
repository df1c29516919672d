//! Jobs: keeping new ones, extending leases, reading, forgetting.

use std::collections::{BTreeMap, HashMap, HashSet};

use telemetry::context::RequestId;
use uuid::Uuid;

use super::session::{Session, Statement};
use super::{PostgresStore, Run, Write, clean, columns, list, loads, span, unique};
use crate::jobs::Progress;
use crate::model::{Millis, TenantId};
use crate::store::error::{Inner, Trouble};
use crate::store::rows::{self, Columns};
use crate::store::{Fence, Job, JobCounts, NewJob, Settled};

/// One statement for any number of jobs. What is due already is not dated back.
const INSERT: &str = concat!("
    WITH clock AS MATERIALIZED (SELECT now_ms() AS now), new AS (
        SELECT *, CASE WHEN schedule_id IS NULL THEN greatest(run_at, now) ELSE run_at END AS due
        FROM clock, unnest($1::uuid[], $2::text[], $3::text[], $4::text[], $5::text[], $6::bigint[], $7::bigint[],
                           $8::bigint[], $9::bigint[], $10::uuid[], $11::bigint[], $12::text[], $13::text[], $14::text[],
                           $15::text[], $16::bigint[])
            AS new (id, tenant, queue, kind, payload, priority, max_attempts, timeout_ms, run_at, schedule_id, fire_at_ms,
                    traceparent, origin_trace_id, request_id, unique_key, keep_ms)
    )
    INSERT INTO jobs (id, tenant, queue, kind, payload, state, priority, max_attempts, timeout_ms, run_at_ms,
                      created_at_ms, schedule_id, fire_at_ms, traceparent, origin_trace_id, request_id,
                      unique_key, keep_ms)
    SELECT id, tenant, queue, kind, payload, CASE WHEN due <= now THEN 'ready' ELSE 'waiting' END, priority,
           max_attempts, timeout_ms, due, now, schedule_id, fire_at_ms, traceparent, origin_trace_id, request_id,
           unique_key, keep_ms
    FROM new
    RETURNING ", columns::job!());

// Rows are locked in the order of their ids by all who lock several, so that no two wait for each other.
const HEARTBEAT: &str = "
    WITH held AS MATERIALIZED (
        SELECT jobs.id FROM jobs JOIN unnest($1::uuid[], $2::bigint[]) AS held (id, attempt)
            ON jobs.id = held.id AND jobs.attempt = held.attempt
        WHERE state = 'running' AND owner = $3
        ORDER BY jobs.id FOR UPDATE OF jobs
    )
    UPDATE jobs SET lease_until_ms = now_ms() + $4 FROM held WHERE jobs.id = held.id
    RETURNING jobs.id, jobs.attempt";

/// The columns of an insert, one list for each.
#[derive(Default)]
pub(super) struct Inserts {
    ids: Vec<Uuid>,
    tenants: Vec<String>,
    queues: Vec<String>,
    kinds: Vec<String>,
    payloads: Vec<String>,
    priorities: Vec<i64>,
    max_attempts: Vec<i64>,
    timeouts: Vec<Option<i64>>,
    run_at: Vec<Option<Millis>>,
    schedules: Vec<Option<Uuid>>,
    fire_at: Vec<Option<Millis>>,
    traceparents: Vec<Option<String>>,
    origins: Vec<Option<String>>,
    requests: Vec<Option<String>>,
    unique_keys: Vec<Option<String>>,
    keep: Vec<Option<i64>>,
}

impl Inserts {
    /// Adds a job, of a schedule's fire if `fired` says so.
    pub(super) fn add(&mut self, job: &NewJob, run_at: Option<Millis>, fired: Option<(Uuid, Millis)>) {
        self.ids.push(job.id);
        self.tenants.push(job.tenant.to_string());
        self.queues.push(clean(&job.queue));
        self.kinds.push(clean(&job.kind));
        self.payloads.push(job.payload.to_string());
        self.priorities.push(job.priority.into());
        self.max_attempts.push(job.max_attempts.into());
        self.timeouts.push(job.timeout_ms.map(rows::signed));
        self.run_at.push(run_at);
        self.schedules.push(fired.map(|(schedule, _)| schedule));
        self.fire_at.push(fired.map(|(_, fire_at)| fire_at));
        self.traceparents.push(job.context.traceparent());
        self.origins.push(job.context.origin());
        self.unique_keys.push(job.unique.as_ref().map(|unique| clean(&unique.key)));
        self.keep.push(job.keep_ms.map(span));
        self.requests.push(job.context.request_id().map(|id| RequestId::as_str(id).to_owned()));
    }

    /// Whether there is none.
    pub(super) fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }

    /// The statement that keeps them all.
    pub(super) fn statement(self) -> Statement<'static> {
        sqlx::query(INSERT)
            .bind(self.ids)
            .bind(self.tenants)
            .bind(self.queues)
            .bind(self.kinds)
            .bind(self.payloads)
            .bind(self.priorities)
            .bind(self.max_attempts)
            .bind(self.timeouts)
            .bind(self.run_at)
            .bind(self.schedules)
            .bind(self.fire_at)
            .bind(self.traceparents)
            .bind(self.origins)
            .bind(self.requests)
            .bind(self.unique_keys)
            .bind(self.keep)
    }
}

pub(super) async fn enqueue(store: &PostgresStore, jobs: Vec<NewJob>) -> Inner<Vec<Job>> {
    if jobs.is_empty() {
        return Ok(Vec::new());
    }
    let mut session = store.session().await?;
    match try_enqueue(&mut session, &jobs).await {
        // Now that the limit is near, the next try has it to itself.
        Err(trouble) if loads::has_come_near(&trouble) => try_enqueue(&mut session, &jobs).await,
        tried => tried,
    }
}

async fn try_enqueue(session: &mut Session, jobs: &[NewJob]) -> Inner<Vec<Job>> {
    if jobs.iter().all(|job| job.unique.is_none()) {
        return keep(session, jobs).await;
    }
    let mut write = session.begin().await?;
    let kept = keep_unique(&mut write, jobs).await;
    write.end(kept).await
}

/// Keeps jobs whose keys are theirs. Answers in their order. The server refuses those that are too many.
pub(super) async fn keep<'a>(on: &mut impl Run, jobs: impl IntoIterator<Item = &'a NewJob>) -> Inner<Vec<Job>> {
    let mut inserts = Inserts::default();
    for job in jobs {
        inserts.add(job, job.run_at_ms, None);
    }
    let order = inserts.ids.clone();
    let mut by_id = HashMap::with_capacity(order.len());
    for row in &on.all(inserts.statement()).await? {
        by_id.insert(row.id("id")?, rows::live_job(row, row.number("created_at_ms")?)?);
    }
    let absent = |id: &Uuid| Trouble::Corrupt(format!("the job {id} was not kept"));
    order.iter().map(|id| by_id.remove(id).ok_or_else(|| absent(id))).collect()
}

/// Keeps jobs but for those whose keys others have, also others of the same batch: these are answered in their place.
async fn keep_unique(write: &mut Write<'_>, jobs: &[NewJob]) -> Inner<Vec<Job>> {
    let now: Millis = write.one(sqlx::query("SELECT now_ms() AS now_ms")).await?.number("now_ms")?;
    let mut of_key: BTreeMap<(&str, &str), Vec<&NewJob>> = BTreeMap::new();
    for job in jobs {
        if let Some(unique) = &job.unique {
            of_key.entry((job.tenant.as_str(), unique.key.as_str())).or_default().push(job);
        }
    }
    let mut held: HashMap<Uuid, Job> = HashMap::new();
    let mut same: HashMap<Uuid, Uuid> = HashMap::new();
    for of_one in of_key.into_values() {
        let Some((first, others)) = of_one.split_first() else { continue };
        let Some(unique) = &first.unique else { continue };
        match unique::take(write, &first.tenant, first.id, unique, now).await? {
            Some(holder) => held.extend(of_one.iter().map(|job| (job.id, holder.clone()))),
            None => same.extend(others.iter().map(|job| (job.id, first.id))),
        }
    }
    let is_new = |job: &&NewJob| !held.contains_key(&job.id) && !same.contains_key(&job.id);
    let new: Vec<&NewJob> = jobs.iter().filter(is_new).collect();
    let mut kept: HashMap<Uuid, Job> = HashMap::new();
    if !new.is_empty() {
        kept.extend(keep(write, new).await?.into_iter().map(|job| (job.id, job)));
    }
    let answer = |id: &Uuid| held.get(id).or_else(|| kept.get(same.get(id).unwrap_or(id))).cloned();
    let absent = |id: &Uuid| Trouble::Corrupt(format!("the job {id} was not kept"));
    jobs.iter().map(|job| answer(&job.id).ok_or_else(|| absent(&job.id))).collect()
}

const REPORT: &str = "
    WITH held AS MATERIALIZED (
        SELECT jobs.id, word FROM jobs JOIN unnest($1::uuid[], $2::bigint[], $3::text[]) AS held (id, attempt, word)
            ON jobs.id = held.id AND jobs.attempt = held.attempt
        WHERE state = 'running'
        ORDER BY jobs.id FOR UPDATE OF jobs
    )
    UPDATE jobs SET progress = word FROM held WHERE jobs.id = held.id
    RETURNING jobs.id";

/// What `plans` looks at.
#[cfg(test)]
pub(super) const HOT: &[&str] = &[INSERT, HEARTBEAT, REPORT];

pub(super) async fn report_progress(store: &PostgresStore, reports: &[(Fence, Progress)]) -> Inner<Vec<Settled>> {
    if reports.is_empty() {
        return Ok(Vec::new());
    }
    let (ids, attempts) = columns(reports.iter().map(|(fence, _)| fence));
    let words: Vec<String> = reports.iter().map(|(_, progress)| serde_json::json!(progress).to_string()).collect();
    let written = store.session().await?.all(sqlx::query(REPORT).bind(ids).bind(attempts).bind(words)).await?;
    let written: HashSet<Uuid> = written.iter().map(|row| row.id("id")).collect::<Inner<_>>()?;
    let answer = |(fence, _): &(Fence, Progress)| match written.contains(&fence.id) {
        true => Settled::Applied,
        false => Settled::Late,
    };
    Ok(reports.iter().map(answer).collect())
}

pub(super) async fn heartbeat(store: &PostgresStore, owner: Uuid, lease_ms: u64, held: &[Fence]) -> Inner<Vec<Fence>> {
    if held.is_empty() {
        return Ok(Vec::new());
    }
    let (ids, attempts) = columns(held.iter());
    let statement = sqlx::query(HEARTBEAT).bind(ids).bind(attempts).bind(owner).bind(span(lease_ms));
    let mut still_owned = HashSet::with_capacity(held.len());
    for row in store.session().await?.all(statement).await? {
        still_owned.insert(Fence { id: row.id("id")?, attempt: row.number("attempt")? });
    }
    Ok(held.iter().filter(|fence| !still_owned.contains(fence)).copied().collect())
}

/// Fences as two lists.
pub(super) fn columns<'f>(fences: impl Iterator<Item = &'f Fence>) -> (Vec<Uuid>, Vec<i64>) {
    fences.map(|fence| (fence.id, i64::from(fence.attempt))).unzip()
}

pub(super) async fn get(store: &PostgresStore, tenant: &TenantId, id: Uuid) -> Inner<Option<Job>> {
    let mut session = store.session().await?;
    // One snapshot: a job moves between the tables in both directions.
    let mut read = session.begin_with(list::READ).await?;
    let job = read_in(&mut read, tenant, id).await;
    read.end(job).await
}

/// A job in whichever table it is, as this transaction sees it.
pub(super) async fn read_in(read: &mut Write<'_>, tenant: &TenantId, id: Uuid) -> Inner<Option<Job>> {
    let live = sqlx::query(concat!(
        "SELECT ",
        columns::job!(),
        ", now_ms() AS now_ms FROM jobs WHERE id = $1 AND tenant = $2"
    ));
    if let Some(row) = read.optional(live.bind(id).bind(tenant.as_str())).await? {
        return rows::live_job(&row, row.number("now_ms")?).map(Some);
    }
    let finished =
        sqlx::query(concat!("SELECT ", columns::finished_job!(), " FROM jobs_done WHERE id = $1 AND tenant = $2"));
    let finished = read.optional(finished.bind(id).bind(tenant.as_str())).await?;
    finished.map(|row| rows::finished_job(&row)).transpose()
}

pub(super) async fn counts(store: &PostgresStore) -> Inner<JobCounts> {
    let counts = sqlx::query(
        "SELECT (SELECT count(*) FROM jobs WHERE state = 'waiting') AS waiting,
                (SELECT count(*) FROM jobs WHERE state = 'ready' AND NOT suspect)
                    + (SELECT count(*) FROM jobs WHERE state = 'ready' AND suspect) AS ready,
                (SELECT count(*) FROM jobs WHERE state = 'running') AS running,
                (SELECT count(*) FROM jobs_done WHERE state = 'done') AS done,
                (SELECT count(*) FROM jobs_done WHERE state = 'dead') AS dead,
                (SELECT count(*) FROM jobs_done WHERE state = 'cancelled') AS cancelled",
    );
    let row = store.session().await?.one(counts).await?;
    Ok(JobCounts {
        waiting: row.number("waiting")?,
        ready: row.number("ready")?,
        running: row.number("running")?,
        done: row.number("done")?,
        dead: row.number("dead")?,
        cancelled: row.number("cancelled")?,
    })
}
