//! Rows that this program cannot have written. Types and checks of the server keep most damage out; what they let through
//! costs the row itself, and stops no other.

use serde_json::json;
use sqlx::AssertSqlSafe;
use uuid::Uuid;

use super::tests::open_with_clock;
use super::{PostgresStore, Run};
use crate::jobs::Cadence;
use crate::store::contract::channels::webhook;
use crate::store::contract::{Fixture, LEASE_MS, new_job, tenant};
use crate::store::rows::Columns;
use crate::store::{
    ClaimDeliveries, ClaimJobs, FireDue, JobState, NewDelivery, NewSchedule, Outcome, Overlap, Policies, Settled,
    Settlement, Store,
};

/// Sets something in the row of this id.
async fn damage(store: &PostgresStore, table: &str, set: &str, id: Uuid) {
    let sql = AssertSqlSafe(format!("UPDATE {table} SET {set} WHERE id = $1"));
    assert_eq!(store.session().await.unwrap().execute(sqlx::query(sql).bind(id)).await.unwrap(), 1, "{set}");
}

/// What stands in a column of the row of this id.
async fn kept(store: &PostgresStore, table: &str, column: &str, id: Uuid) -> Option<String> {
    let sql = AssertSqlSafe(format!("SELECT {column}::text AS kept FROM {table} WHERE id = $1"));
    store.session().await.unwrap().one(sqlx::query(sql).bind(id)).await.unwrap().string_or_none("kept").unwrap()
}

fn claim(fixture: &Fixture) -> ClaimJobs<'static> {
    ClaimJobs { queue: "default", owner: fixture.owner, lease_ms: LEASE_MS, limit: 9, tenant_running_max: 9 }
}

const FIRE: FireDue = FireDue { limit: 9, catch_up_window_ms: 3_600_000 };

#[tokio::test]
async fn a_job_that_cannot_be_read_is_dead_and_stops_no_other() {
    let Some((store, fixture)) = open_with_clock().await else { return };
    let damages = [
        "payload = 'not JSON'",
        "tenant = 'NO TENANT'",
        "priority = 5000000000",
        "max_attempts = 5000000000",
        "crashes = -1",
        "progress = 'far'",
        "timeout_ms = NULL, refunds = -7",
    ];
    for set in damages {
        let jobs = fixture.enqueue(vec![new_job("demo"), new_job("demo"), new_job("demo")]).await;
        damage(&store, "jobs", set, jobs[1].id).await;
        let claimed = store.claim(claim(&fixture)).await.unwrap().jobs;
        assert_eq!(claimed.iter().map(|job| job.id).collect::<Vec<_>>(), [jobs[0].id, jobs[2].id], "{set}");
        assert_eq!(kept(&store, "jobs_done", "state", jobs[1].id).await.as_deref(), Some("dead"), "{set}");
        let why = kept(&store, "jobs_done", "last_error", jobs[1].id).await.unwrap();
        assert!(why.starts_with("it cannot be read: "), "{set}: {why}");
        let ends = claimed.iter().map(|job| Settlement::new(job.fence(), Outcome::Done { result: None })).collect();
        assert_eq!(store.settle(ends).await.unwrap(), [Settled::Applied, Settled::Applied]);
        if !set.starts_with("tenant") {
            assert_eq!(store.get_job(&tenant("demo"), jobs[1].id).await.unwrap_err().kind(), "corrupt", "{set}");
        }
    }
}

#[tokio::test]
async fn a_job_with_a_column_of_another_type_is_dead_and_stops_no_other() {
    let Some((store, fixture)) = open_with_clock().await else { return };
    let jobs = fixture.enqueue(vec![new_job("demo"), new_job("demo"), new_job("demo")]).await;
    let other = "ALTER TABLE jobs ALTER COLUMN traceparent TYPE bigint USING NULL";
    store.session().await.unwrap().execute(sqlx::query(other)).await.unwrap();
    damage(&store, "jobs", "traceparent = 7", jobs[1].id).await;
    let claimed = store.claim(claim(&fixture)).await.unwrap().jobs;
    assert_eq!(claimed.iter().map(|job| job.id).collect::<Vec<_>>(), [jobs[0].id, jobs[2].id]);
    let why = kept(&store, "jobs_done", "last_error", jobs[1].id).await.unwrap();
    assert!(why.starts_with("it cannot be read: ") && why.contains("traceparent"), "{why}");
}

#[tokio::test]
async fn a_running_job_that_cannot_be_read_is_settled_rescued_and_quarantined_as_any_other() {
    let Some((store, fixture)) = open_with_clock().await else { return };
    let jobs = fixture.enqueue(vec![new_job("demo"), new_job("demo")]).await;
    let claimed = store.claim(claim(&fixture)).await.unwrap().jobs;
    for job in &jobs {
        damage(&store, "jobs", "payload = ''", job.id).await;
    }
    let held = [claimed[0].fence()];
    assert_eq!(store.heartbeat(fixture.owner, LEASE_MS, &held).await.unwrap(), []);
    let done = Settlement::new(held[0], Outcome::Done { result: None });
    assert_eq!(store.settle(vec![done]).await.unwrap(), [Settled::Applied]);
    fixture.clock.advance(LEASE_MS as i64 + 1);
    assert_eq!(store.sweep(3, 9).await.unwrap().rescued, 1);
    assert_eq!(store.claim(claim(&fixture)).await.unwrap().jobs, []);
    assert_eq!(kept(&store, "jobs_done", "state", jobs[1].id).await.as_deref(), Some("dead"));
}

#[tokio::test]
async fn a_channel_that_cannot_be_read_is_disabled_and_stops_no_other() {
    let Some((store, fixture)) = open_with_clock().await else { return };
    let (bad, good) = (webhook(&fixture, "demo").await, webhook(&fixture, "demo").await);
    for channel in [&bad, &good] {
        store.create_delivery(NewDelivery::new(channel.tenant.clone(), channel.id, json!(1))).await.unwrap();
    }
    damage(&store, "channels", "tenant = 'NO TENANT'", bad.id).await;
    let due = store.due_channels(9, 9).await.unwrap().channels;
    assert_eq!(due.iter().map(|due| due.id).collect::<Vec<_>>(), [good.id]);
    let why = kept(&store, "channels", "disabled", bad.id).await.unwrap();
    assert!(why.starts_with("it cannot be read: "), "{why}");
}

#[tokio::test]
async fn a_delivery_that_cannot_be_read_is_dead_and_stops_no_other() {
    let Some((store, fixture)) = open_with_clock().await else { return };
    let channel = webhook(&fixture, "demo").await;
    for set in ["data = 'not JSON'", "tenant = 'NO TENANT'", "refunds = -1", "attempts_max = -1"] {
        let new = || NewDelivery::new(channel.tenant.clone(), channel.id, json!(1));
        let made = store.create_deliveries(vec![new(), new()]).await.unwrap();
        damage(&store, "deliveries", set, made[0].id).await;
        let claim = ClaimDeliveries { channel: channel.id, owner: fixture.owner, lease_ms: LEASE_MS, limit: 9 };
        let claimed = store.claim_deliveries(claim).await.unwrap().deliveries;
        assert_eq!(claimed.iter().map(|claimed| claimed.id).collect::<Vec<_>>(), [made[1].id], "{set}");
        assert_eq!(kept(&store, "deliveries", "state", made[0].id).await.as_deref(), Some("dead"), "{set}");
        let why = kept(&store, "deliveries", "last_error", made[0].id).await.unwrap();
        assert!(why.starts_with("it cannot be read: "), "{set}: {why}");
    }
}

#[tokio::test]
async fn a_schedule_that_cannot_be_read_fires_no_more_and_stops_no_other() {
    let Some((store, fixture)) = open_with_clock().await else { return };
    let damages = ["payload = 'not JSON'", "tenant = 'NO TENANT'", "max_attempts = 5000000000"];
    let cron = |pattern| Cadence::cron(pattern, "Europe/Berlin", fixture.clock.now_ms()).unwrap();
    let new = |cadence| NewSchedule::new(tenant("demo"), cadence, "publish", json!({}));
    let good = store.create_schedule(new(cron("* * * * *"))).await.unwrap();
    for set in ["cron = 'at tea time'", "time_zone = 'Europe/Atlantis'"].into_iter().chain(damages) {
        let bad = store.create_schedule(new(cron("* * * * *"))).await.unwrap();
        damage(&store, "schedules", set, bad.id).await;
        fixture.clock.advance(60_000);
        let fired = store.fire_due(FIRE).await.unwrap().fired;
        assert_eq!(fired.iter().map(|fired| fired.schedule).collect::<Vec<_>>(), [good.id], "{set}");
        assert_eq!(kept(&store, "schedules", "next_fire_at_ms", bad.id).await, None, "{set}");
        assert!(kept(&store, "schedules", "last_error", bad.id).await.is_some(), "{set}");
        for job in store.claim(claim(&fixture)).await.unwrap().jobs {
            store.settle(vec![Settlement::new(job.fence(), Outcome::Done { result: None })]).await.unwrap();
        }
    }
}

#[tokio::test]
async fn a_fire_cancels_a_job_that_cannot_be_read() {
    let Some((store, fixture)) = open_with_clock().await else { return };
    let policies = Policies { overlap: Overlap::CancelPrevious, ..Policies::default() };
    let every = Cadence::every(10_000).unwrap();
    let new = NewSchedule { policies, ..NewSchedule::new(tenant("demo"), every, "publish", json!({})) };
    store.create_schedule(new).await.unwrap();
    let first = store.fire_due(FIRE).await.unwrap().fired.remove(0);
    damage(&store, "jobs", "payload = 'not JSON'", first.job).await;
    fixture.clock.advance(10_000);
    let report = store.fire_due(FIRE).await.unwrap();
    assert_eq!(report.cancelled.iter().map(|fence| fence.id).collect::<Vec<_>>(), [first.job]);
    let second = store.get_job(&tenant("demo"), report.fired[0].job).await.unwrap().unwrap();
    assert_eq!(second.state, JobState::Ready);
}
