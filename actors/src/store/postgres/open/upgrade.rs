//! A schema as each older program has left it, with rows of everything, is brought up to date by this one: every row is kept,
//! and worked on as if this program had written it.

use std::collections::BTreeSet;

use serde_json::json;
use sqlx::{AssertSqlSafe, Connection, PgConnection};
use uuid::Uuid;

use super::tests::empty;
use super::{MIGRATIONS, PostgresStore, known};
use crate::model::{TenantId, new_id};
use crate::store::contract::{LEASE_MS, new_job, tenant};
use crate::store::postgres::loads::tests::assert_counted;
use crate::store::{
    ClaimDeliveries, ClaimJobs, Effect, Fence, FireDue, JobFilter, JobState, KeyHash, NewDelivery, NewJob, Outcome,
    Quotas, Settled, Settlement, Store, Unique,
};

/// Jobs of `demo`, by their ids.
const READY: Uuid = Uuid::from_u128(1);
const DUE: Uuid = Uuid::from_u128(2);
const FOR_LATER: Uuid = Uuid::from_u128(3);
const RUNNING: Uuid = Uuid::from_u128(4);
const LOST: Uuid = Uuid::from_u128(5);
const DONE: Uuid = Uuid::from_u128(6);
const DEAD: Uuid = Uuid::from_u128(7);
/// Its schedule, its channel, and what waits for that.
const SCHEDULE: Uuid = Uuid::from_u128(8);
const CHANNEL: Uuid = Uuid::from_u128(9);
const DELIVERY: Uuid = Uuid::from_u128(10);
/// The job with its unique key, for later too.
const KEYED: Uuid = Uuid::from_u128(11);
/// Jobs of a tenant without a row.
const SUSPECT: Uuid = Uuid::from_u128(12);
const OTHERS: Uuid = Uuid::from_u128(13);
/// Who runs what runs.
const OWNER: Uuid = Uuid::from_u128(14);

/// What a program wrote, whose newest migration was one of these.
const ROWS: &[(std::ops::RangeInclusive<i64>, &str)] = &[
    (1..=i64::MAX, "INSERT INTO tenants (id, key_hash, created_at_ms) VALUES ('demo', 'HASH', 1)"),
    (
        1..=i64::MAX,
        "INSERT INTO jobs (id, tenant, queue, kind, payload, state, priority, attempt, crashes, suspect, max_attempts,
                           run_at_ms, created_at_ms, claimed_at_ms, owner, lease_until_ms)
         SELECT ('00000000-0000-0000-0000-' || lpad(to_hex(id), 12, '0'))::uuid, tenant, 'default', 'publish', '{}', state, 0,
                attempt, crashes, suspect, 9, now_ms() + due_in, 1, CASE WHEN attempt > 0 THEN 1 END, owner,
                now_ms() + lease
         FROM (VALUES
            (1, 'demo', 'ready', 0, 0, false, 0, NULL::uuid, NULL::bigint),
            (2, 'demo', 'waiting', 1, 0, false, 0, NULL, NULL),
            (3, 'demo', 'waiting', 0, 0, false, 86400000, NULL, NULL),
            (4, 'demo', 'running', 3, 1, false, 0, '00000000-0000-0000-0000-00000000000e', 60000),
            (5, 'demo', 'running', 1, 0, false, 0, '00000000-0000-0000-0000-00000000000e', -60000),
            (12, 'other', 'ready', 2, 2, true, 0, NULL, NULL),
            (13, 'other', 'ready', 0, 0, false, 0, NULL, NULL)
         ) AS old (id, tenant, state, attempt, crashes, suspect, due_in, owner, lease)",
    ),
    (
        1..=i64::MAX,
        "INSERT INTO jobs_done (id, tenant, queue, kind, payload, state, priority, attempt, refunds, crashes, max_attempts,
                                run_at_ms, created_at_ms, claimed_at_ms, finished_at_ms, last_error, result)
         VALUES ('00000000-0000-0000-0000-000000000006', 'demo', 'default', 'publish', '{}', 'done', 0, 1, 0, 0, 9, 1, 1, 2,
                 3, NULL, '[7]'),
                ('00000000-0000-0000-0000-000000000007', 'demo', 'default', 'publish', '{}', 'dead', 0, 9, 0, 0, 9, 1, 1, 2,
                 3, 'why', NULL)",
    ),
    (
        1..=i64::MAX,
        "INSERT INTO schedules (id, tenant, every_ms, queue, kind, payload, jitter_ms, max_attempts, next_fire_at_ms,
                                created_at_ms)
         VALUES ('00000000-0000-0000-0000-000000000008', 'demo', 60000, 'default', 'publish', '{}', 0, 3, now_ms(), 1)",
    ),
    (
        1..=i64::MAX,
        "INSERT INTO channels (id, tenant, kind, url, secret, created_at_ms)
         VALUES ('00000000-0000-0000-0000-000000000009', 'demo', 'webhook', 'https://example.com/', 'whsec_c2VjcmV0', 1)",
    ),
    (
        1..=i64::MAX,
        "INSERT INTO deliveries (id, tenant, channel_id, data, state, due_at_ms, created_at_ms)
         VALUES ('00000000-0000-0000-0000-00000000000a', 'demo', '00000000-0000-0000-0000-000000000009', '[1]', 'pending', 0,
                 1)",
    ),
    (1..=8, "INSERT INTO turns (queue, tenant, turn) VALUES ('default', 'demo', 7), ('default', 'gone', 6)"),
    (
        8..=i64::MAX,
        "INSERT INTO jobs (id, tenant, queue, kind, payload, state, priority, max_attempts, run_at_ms, created_at_ms,
                           unique_key)
         VALUES ('00000000-0000-0000-0000-00000000000b', 'demo', 'default', 'publish', '{}', 'waiting', 0, 9,
                 now_ms() + 86400000, 1, 'once')",
    ),
    (
        8..=i64::MAX,
        "INSERT INTO job_keys (tenant, key, job_id, states)
         VALUES ('demo', 'once', '00000000-0000-0000-0000-00000000000b', 'incomplete')",
    ),
    (9..=i64::MAX, "INSERT INTO queues (queue, vtime) VALUES ('default', 5000)"),
    (9..=11, "INSERT INTO shares (queue, tenant, vtime) VALUES ('default', 'demo', 5000), ('default', 'gone', 4000)"),
    (9..=i64::MAX, "INSERT INTO paces (tenant, paid_until_us) VALUES ('demo', 1)"),
];

/// A store with the rows of the program whose newest migration has this number, opened by this program.
async fn upgraded_from(version: i64) -> Option<PostgresStore> {
    let store = empty().await?;
    let mut old = PgConnection::connect_with(&store.connect).await.unwrap();
    let mut migrations = known();
    migrations.migrations.to_mut().retain(|migration| migration.version <= version);
    migrations.run_direct(None, &mut old, false).await.unwrap();
    for (programs, rows) in ROWS {
        if programs.contains(&version) {
            let rows = rows.replace("HASH", KeyHash::of("pk_one").as_str());
            sqlx::raw_sql(AssertSqlSafe(rows)).execute(&mut old).await.unwrap();
        }
    }
    old.close().await.unwrap();
    store.prepare().await.unwrap();
    Some(store)
}

async fn claim(store: &PostgresStore) -> BTreeSet<Uuid> {
    let owner = new_id();
    let request = ClaimJobs { queue: "default", owner, lease_ms: LEASE_MS, limit: 50, tenant_running_max: 1_000 };
    store.claim(request).await.unwrap().jobs.iter().map(|job| job.id).collect()
}

async fn state(store: &PostgresStore, of: &TenantId, id: Uuid) -> JobState {
    store.get_job(of, id).await.unwrap().unwrap().state
}

#[tokio::test]
async fn what_any_older_program_has_left_is_kept_and_worked_on() {
    for (version, ..) in MIGRATIONS {
        let Some(store) = upgraded_from(version).await else { return };
        let demo = tenant("demo");
        assert_counted(&store, &format!("the upgrade from {version}")).await;
        let known = store.tenant_by_key_hash(&KeyHash::of("pk_one")).await.unwrap().unwrap();
        assert_eq!((known.id, known.quotas), (demo.clone(), Quotas::default()), "{version}");
        let job = store.get_job(&demo, DONE).await.unwrap().unwrap();
        assert_eq!((job.state, job.result, job.redrives), (JobState::Done, Some(json!([7])), 0), "{version}");

        let claimed = claim(&store).await;
        assert_eq!(claimed, BTreeSet::from([READY, DUE, SUSPECT, OTHERS]), "the first claim after {version}");

        let held = Fence { id: RUNNING, attempt: 3 };
        assert_eq!(store.heartbeat(OWNER, LEASE_MS, &[held]).await.unwrap(), [], "{version}");
        let effects = vec![Effect::Deliver(NewDelivery::new(demo.clone(), CHANNEL, json!([2])))];
        let done = Settlement { effects, ..Settlement::new(held, Outcome::Done { result: None }) };
        assert_eq!(store.settle(vec![done]).await.unwrap(), [Settled::Applied], "{version}");
        assert_eq!(state(&store, &demo, RUNNING).await, JobState::Done, "{version}");

        let swept = store.sweep(5, 50).await.unwrap();
        assert_eq!((swept.rescued, swept.quarantined), (1, 0), "{version}");
        assert_eq!(claim(&store).await, BTreeSet::from([LOST]), "the rescued one after {version}");

        let fired = store.fire_due(FireDue { catch_up_window_ms: 60_000, limit: 9 }).await.unwrap().fired;
        assert_eq!(fired.iter().map(|fired| fired.schedule).collect::<Vec<_>>(), [SCHEDULE], "{version}");
        assert_eq!(claim(&store).await, BTreeSet::from([fired[0].job]), "the fired one after {version}");

        store.redrive_job(&demo, DEAD).await.unwrap();
        assert_eq!(claim(&store).await, BTreeSet::from([DEAD]), "the redriven one after {version}");
        assert!(store.cancel_job(&demo, FOR_LATER, "no").await.unwrap().is_some(), "{version}");

        if version >= 8 {
            let once = NewJob { unique: Some(Unique::new("once", None)), ..new_job("demo") };
            assert_eq!(store.enqueue(vec![once]).await.unwrap()[0].id, KEYED, "{version}");
        }
        let listed = store.list_jobs(&demo, &JobFilter::default(), None, 50).await.unwrap();
        let listed: BTreeSet<Uuid> = listed.iter().map(|job| job.id).collect();
        let there = [READY, DUE, FOR_LATER, RUNNING, LOST, DONE, DEAD, fired[0].job];
        let there = there.into_iter().chain((version >= 8).then_some(KEYED));
        assert_eq!(listed, there.collect(), "{version}");

        let due = store.due_channels(9, 9).await.unwrap().channels;
        assert_eq!(due.iter().map(|due| due.id).collect::<Vec<_>>(), [CHANNEL], "{version}");
        let send = ClaimDeliveries { channel: CHANNEL, owner: OWNER, lease_ms: LEASE_MS, limit: 9 };
        let sent = store.claim_deliveries(send).await.unwrap().deliveries;
        assert_eq!((sent[0].id, &sent[0].data, &sent[1].data), (DELIVERY, &json!([1]), &json!([2])), "{version}");

        let counts = store.job_counts().await.unwrap();
        let most = u32::try_from(counts.waiting + counts.ready).unwrap() + 3;
        let quotas = Quotas { jobs_queued: Some(most), ..Quotas::default() };
        store.set_tenant_quotas(&demo, quotas).await.unwrap();
        let mut added = BTreeSet::new();
        let refused = loop {
            match store.enqueue(vec![new_job("demo")]).await {
                Ok(kept) => assert!(added.insert(kept[0].id) && added.len() <= 3, "too many after {version}"),
                Err(refused) => break refused,
            }
        };
        assert_eq!((refused.kind(), added.len()), ("limit", 3), "{version}: {refused}");
        assert_eq!(claim(&store).await, added, "new ones after {version}");
        assert_counted(&store, &format!("all of it, from {version}")).await;
    }
}
