//! Calls that are given up in the middle of a transaction, because their caller has no time left: nothing of them stays,
//! no row and no lock, whether the server gets on with them or not.

use std::time::Duration;

use serde_json::json;
use sqlx::AssertSqlSafe;
use telemetry::context::with_deadline;
use tokio::time::{Instant, timeout};
use uuid::Uuid;

use super::session::Session;
use super::tests::open_real_within;
use super::{PostgresStore, Run};
use crate::jobs::Cadence;
use crate::store::contract::anything::Anything;
use crate::store::contract::{LEASE_MS, new_job, tenant};
use crate::store::postgres::tests::open_with_clock;
use crate::store::rows::Columns;
use crate::store::{
    ClaimJobs, Effect, Fault, Fence, FireDue, JobFilter, NewChannel, NewDelivery, NewJob, NewSchedule, Outcome,
    Settlement, Store, StoreError, Unique,
};

/// Of the store: the server ends by itself what takes longer.
const DEADLINE_MS: u64 = 2_000;

/// Of the caller.
const LITTLE: Duration = Duration::from_millis(300);

const SOON: Duration = Duration::from_secs(30);

/// What a call may write.
const TABLES: [&str; 12] = [
    "jobs",
    "jobs_done",
    "job_keys",
    "schedules",
    "channels",
    "deliveries",
    "loads",
    "shares",
    "queues",
    "paces",
    "arrivals",
    "departures",
];

/// The calls, each with a table on which it is held when it has locked, and written, something else before.
const CALLS: [(&str, &str); 5] =
    [("enqueue", "jobs"), ("claim", "queues"), ("settle", "deliveries"), ("fire", "jobs"), ("redrive", "jobs")];

/// A store with something to do for each of the calls.
struct House {
    store: PostgresStore,
    held: Fence,
    channel: Uuid,
}

impl House {
    async fn new() -> Option<House> {
        let store = open_real_within(DEADLINE_MS).await?;
        let channel = NewChannel {
            id: Uuid::now_v7(),
            tenant: tenant("demo"),
            kind: "webhook".to_owned(),
            url: "https://example.com/".to_owned(),
            secret: "whsec_c2VjcmV0".to_owned().into(),
            chat: None,
        };
        let channel = store.create_channel(channel).await.unwrap().id;
        store.enqueue(vec![new_job("demo"), new_job("demo")]).await.unwrap();
        let mut jobs = store.claim(Self::request()).await.unwrap().jobs;
        let dead = Outcome::Dead { reason: "no".to_owned(), fault: Fault::Failure };
        store.settle(vec![Settlement::new(jobs.remove(0).fence(), dead)]).await.unwrap();
        store.enqueue(vec![new_job("demo")]).await.unwrap();
        let every = Cadence::every(3_600_000).unwrap();
        store.create_schedule(NewSchedule::new(tenant("demo"), every, "publish", json!({}))).await.unwrap();
        Some(House { store, held: jobs[0].fence(), channel })
    }

    fn request() -> ClaimJobs<'static> {
        let (owner, lease_ms) = (Uuid::now_v7(), LEASE_MS);
        ClaimJobs { queue: "default", owner, lease_ms, limit: 9, tenant_running_max: 9 }
    }

    /// Answers how much it has done.
    async fn call(&self, what: &str) -> Result<usize, StoreError> {
        match what {
            "enqueue" => {
                let once = NewJob { unique: Some(Unique::new("once", None)), ..new_job("demo") };
                Ok(self.store.enqueue(vec![once]).await?.len())
            }
            "claim" => Ok(self.store.claim(Self::request()).await?.jobs.len()),
            "settle" => {
                let effects = vec![Effect::Deliver(NewDelivery::new(tenant("demo"), self.channel, json!(1)))];
                let done = Settlement::new(self.held, Outcome::Done { result: None });
                let settled = self.store.settle(vec![Settlement { effects, ..done }]).await?;
                Ok(usize::from(settled == [crate::store::Settled::Applied]))
            }
            "fire" => Ok(self.store.fire_due(FireDue { limit: 9, catch_up_window_ms: 3_600_000 }).await?.fired.len()),
            _ => {
                let redriven = self.store.redrive_jobs(&tenant("demo"), &JobFilter::default(), None, 9).await?;
                Ok(redriven.count as usize)
            }
        }
    }

    /// All that is kept.
    async fn picture(&self) -> Vec<String> {
        let mut session = session(&self.store).await;
        let mut all = Vec::new();
        for table in TABLES {
            let sql = format!(
                "SELECT '{table}: ' || coalesce(string_agg(t::text, ' ' ORDER BY t::text), '') AS kept FROM {table} t"
            );
            all.push(session.one(sqlx::query(AssertSqlSafe(sql))).await.unwrap().string("kept").unwrap());
        }
        all
    }
}

/// A connection, though on a busy machine a new one may take longer than a call of so short a deadline waits for it.
async fn session(store: &PostgresStore) -> Session {
    let patient = async {
        loop {
            if let Ok(session) = store.session().await {
                return session;
            }
        }
    };
    timeout(SOON, patient).await.expect("there is no connection")
}

/// Waits until nobody has, or waits for, a lock on any table of this store but the connection `but`. It looks by a
/// connection that is there already: to prepare a new one takes locks too, and waits for others.
async fn until_nobody_has_a_lock(by: &mut Session, but: i64) {
    let held = "SELECT count(*) AS held FROM pg_locks JOIN pg_class ON pg_class.oid = relation
                WHERE relnamespace = current_schema()::regnamespace AND pid NOT IN (pg_backend_pid(), $1)";
    let look = async { while by.one(sqlx::query(held).bind(but)).await.unwrap().number::<i64>("held").unwrap() > 0 {} };
    timeout(SOON, look).await.expect("a lock is left");
}

#[tokio::test]
async fn a_call_that_is_given_up_in_the_middle_leaves_no_lock_and_nothing_half_written() {
    for lets_go_at_once in [true, false] {
        let Some(house) = House::new().await else { return };
        let mut looker = session(&house.store).await;
        for (what, table) in CALLS {
            let before = house.picture().await;
            let mut other = session(&house.store).await;
            let mut write = other.begin().await.unwrap();
            // This one may sleep in a transaction.
            write.execute(sqlx::query("SET LOCAL idle_in_transaction_session_timeout = 0")).await.unwrap();
            let me = write.one(sqlx::query("SELECT pg_backend_pid()::bigint AS me")).await.unwrap();
            let me: i64 = me.number("me").unwrap();
            write.execute(sqlx::query(AssertSqlSafe(format!("LOCK TABLE {table} IN SHARE MODE")))).await.unwrap();
            let late = with_deadline(Instant::now() + LITTLE, house.call(what)).await.unwrap_err();
            assert_eq!(late.kind(), "out_of_time", "{what}: {late}");
            if lets_go_at_once {
                // The server gets on with the statement, and finds nobody who wants its answer.
                write.rollback().await.unwrap();
                until_nobody_has_a_lock(&mut looker, me).await;
            } else {
                until_nobody_has_a_lock(&mut looker, me).await;
                write.rollback().await.unwrap();
            }
            assert_eq!(house.picture().await, before, "{what}");
        }
        for (what, _) in CALLS {
            assert_eq!(house.call(what).await.unwrap(), if what == "claim" { 2 } else { 1 }, "{what}");
        }
    }
}

#[tokio::test]
async fn calls_that_are_dropped_at_any_moment_leave_no_lock_and_right_counters() {
    let Some((store, fixture)) = open_with_clock().await else { return };
    let mut first = Anything::begin(&fixture).await;
    let mut all: Vec<Anything> = (0..3).map(|_| first.beside()).collect();
    let mut dropped = 0;
    for _ in 0..50 {
        let moment = || Duration::from_micros(fastrand::u64(0..8_000));
        let calls = all.iter_mut().map(|one| timeout(moment(), one.step()));
        let ends = futures_util::future::join(futures_util::future::join_all(calls), first.step()).await.0;
        dropped += ends.iter().filter(|end| end.is_err()).count();
    }
    assert!(dropped > 10, "only {dropped} calls were dropped");
    until_nobody_has_a_lock(&mut session(&store).await, 0).await;
    super::loads::tests::assert_counted(&store, "all of it").await;
}
