//! The two verbs of which there is one for every job, a whole batch in one statement: each statement is a way to the
//! driver's thread and back, which costs more than what it does there.

use std::collections::{BTreeSet, HashMap};

use serde_json::json;
use telemetry::context::RequestId;
use uuid::Uuid;

use super::settle::kept;
use super::{Inner, Write, columns, fires, rows};
use crate::model::Millis;
use crate::store::{Job, NewJob, Outcome, Settled, Settlement};

const INSERT_ALL: &str = "
    INSERT INTO jobs (id, tenant, queue, kind, payload, state, priority, max_attempts, timeout_ms, run_at_ms,
                      created_at_ms, traceparent, origin_trace_id, request_id, keep_ms)
    SELECT value ->> 0, value ->> 1, value ->> 2, value ->> 3, value ->> 4, value ->> 5, value ->> 6, value ->> 7,
           value ->> 8, value ->> 9, ?2, value ->> 10, value ->> 11, value ->> 12, value ->> 13
    FROM json_each(?1)";

// Of a claim that holds.
macro_rules! held {
    () => {
        "FROM (SELECT value ->> 0 AS ended_id, value ->> 1 AS ended_attempt, value ->> 2 AS ended_result,
                      value ->> 3 AS ended_run, value ->> 4 AS ended_progress FROM json_each(?1))
              CROSS JOIN jobs ON id = ended_id
         WHERE attempt = ended_attempt AND jobs.state = 'running'"
    };
}

const HELD: &str = concat!("SELECT json_group_array(json_array(id, schedule_id)) ", held!());

const FINISH_ALL: &str = concat!(
    "INSERT INTO jobs_done (",
    kept!(),
    ", state, refunds, redrives, crashes, snoozes, progress, run_at_ms, claimed_at_ms, finished_at_ms, forget_at_ms,
      last_error, result, run_traceparent)
     SELECT ",
    kept!(),
    ", 'done', refunds, redrives, crashes, snoozes, coalesce(ended_progress, progress), run_at_ms, claimed_at_ms, ?2,
      ?2 + keep_ms, last_error, ended_result, coalesce(ended_run, run_traceparent) ",
    held!()
);

const LEAVE_ALL: &str = "DELETE FROM jobs WHERE id IN (SELECT value FROM json_each(?1))";

/// Inserts jobs that no schedule fired and that have no unique key, and answers in their order.
pub(super) async fn insert(write: &mut Write, jobs: &[&NewJob], now: Millis) -> Inner<Vec<Job>> {
    let list: Vec<_> = jobs.iter().map(|job| row_of(job, now)).collect();
    sqlx::query(INSERT_ALL).bind(json!(list).to_string()).bind(now).execute(&mut **write).await?;
    Ok(jobs.iter().map(|job| Job::of(job, now)).collect())
}

fn row_of(job: &NewJob, now: Millis) -> serde_json::Value {
    let run_at = job.run_at_ms.unwrap_or(now).max(now);
    json!([
        job.id.to_string(),
        job.tenant.as_str(),
        job.queue,
        job.kind,
        job.payload.to_string(),
        if run_at <= now { "ready" } else { "waiting" },
        job.priority,
        job.max_attempts,
        job.timeout_ms.map(rows::signed),
        run_at,
        job.context.traceparent(),
        job.context.origin(),
        job.context.request_id().map(RequestId::as_str),
        job.keep_ms.map(rows::signed),
    ])
}

/// Writes down those of a batch that ended well and did no more; answers which of its places these are, with their
/// answers. What is told of one job twice is left to its order.
pub(super) async fn finish(write: &mut Write, batch: &[Settlement], now: Millis) -> Inner<HashMap<usize, Settled>> {
    let mut times: HashMap<Uuid, u32> = HashMap::with_capacity(batch.len());
    batch.iter().for_each(|settlement| *times.entry(settlement.fence.id).or_default() += 1);
    let mut ended = Vec::with_capacity(batch.len());
    let mut answers = HashMap::with_capacity(batch.len());
    for (place, Settlement { fence, outcome, effects, run, progress }) in batch.iter().enumerate() {
        let Outcome::Done { result } = outcome else { continue };
        if effects.is_empty() && times[&fence.id] == 1 {
            let result = result.as_ref().map(ToString::to_string);
            let progress = progress.as_ref().map(|progress| json!(progress).to_string());
            ended.push((fence.id.to_string(), fence.attempt, result, run.traceparent(), progress));
            answers.insert(place, Settled::Late);
        }
    }
    if ended.is_empty() {
        return Ok(answers);
    }
    let told = json!(ended).to_string();
    let held = sqlx::query_scalar::<_, String>(HELD).bind(&told).fetch_one(&mut **write).await?;
    let held: HashMap<Uuid, Option<String>> = columns::list::<(Uuid, _)>(&held)?.into_iter().collect();
    sqlx::query(FINISH_ALL).bind(&told).bind(now).execute(&mut **write).await?;
    let left: Vec<&Uuid> = held.keys().collect();
    sqlx::query(LEAVE_ALL).bind(json!(left).to_string()).execute(&mut **write).await?;
    for schedule in held.values().flatten().collect::<BTreeSet<_>>() {
        fires::release(write, schedule).await?;
    }
    for (place, answer) in &mut answers {
        if held.contains_key(&batch[*place].fence.id) {
            *answer = Settled::Applied;
        }
    }
    Ok(answers)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::sqlite::tests::{open_in, plan};

    #[tokio::test]
    async fn a_batch_looks_its_jobs_up_by_their_ids() {
        let directory = tempfile::tempdir().unwrap();
        let (store, _) = open_in(&directory).await;
        for sql in [HELD, FINISH_ALL, LEAVE_ALL] {
            let steps = plan(&store, sql).await;
            assert!(steps.iter().any(|step| step.starts_with("SEARCH jobs USING")), "{sql}: {steps:#?}");
            assert!(!steps.iter().any(|step| step.starts_with("SCAN jobs")), "{sql}: {steps:#?}");
        }
    }
}
