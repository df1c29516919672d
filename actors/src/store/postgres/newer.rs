//! A schema to which a newer program has added what this one does not know, as `compatibility` allows: columns with a default,
//! an index, a table and a trigger. This program does all its work on it, also when that comes about while it runs.

use serde_json::json;
use uuid::Uuid;

use super::tests::open_with_clock;
use super::*;
use crate::jobs::Cadence;
use crate::store::contract::anything::Anything;
use crate::store::contract::channels::webhook;
use crate::store::contract::requests::request;
use crate::store::contract::{Fixture, LEASE_MS, contract_tests, new_job, tenant};
use crate::store::{
    Before, ClaimDeliveries, DeliveryOutcome, DeliverySettlement, DeliveryState, JobFilter, KeyHash, NewDelivery,
    NewJob, NewSchedule, Overlap, SharedStore, Store,
};

/// What the newer program has brought.
const ADDED: &str = include_str!("newer.sql");

async fn change_the_schema(store: &PostgresStore) {
    let mut session = store.session().await.unwrap();
    sqlx::raw_sql(ADDED).execute(session.parts().0).await.unwrap();
}

async fn open() -> Option<Fixture> {
    let (store, fixture) = open_with_clock().await?;
    change_the_schema(&store).await;
    store.prepare().await.unwrap();
    Some(fixture)
}

contract_tests!(super::open);

/// What there is to be asked for beside what [`Anything`] does.
struct House {
    store: SharedStore,
    schedule: Uuid,
    channel: Uuid,
    job: Uuid,
}

impl House {
    async fn new(fixture: &Fixture) -> House {
        let (store, demo) = (fixture.store.clone(), tenant("demo"));
        store.create_tenant(&demo, &KeyHash::of("demo")).await.unwrap();
        let every = Cadence::every(3_600_000).unwrap();
        let schedule = NewSchedule::new(demo.clone(), every, "publish", json!({}));
        let schedule = store.create_schedule(schedule).await.unwrap().id;
        let later = NewJob { run_at_ms: Some(i64::MAX), ..new_job("demo") };
        let job = store.enqueue(vec![later]).await.unwrap()[0].id;
        House { schedule, channel: webhook(fixture, "demo").await.id, job, store }
    }

    async fn call(&self) {
        let (store, demo) = (&self.store, tenant("demo"));
        assert!(store.get_job(&demo, self.job).await.unwrap().is_some());
        assert!(store.job_standing(&demo, self.job).await.unwrap().is_some());
        assert!(!store.list_jobs(&demo, &JobFilter::default(), None, 9).await.unwrap().is_empty());
        assert!(store.get_schedule(&demo, self.schedule).await.unwrap().is_some());
        assert_eq!(store.list_schedules(&demo, None, 9).await.unwrap().len(), 1);
        assert!(store.pause_schedule(&demo, self.schedule).await.unwrap().is_some());
        assert!(store.resume_schedule(&demo, self.schedule).await.unwrap().is_some());
        let every = Cadence::every(3_600_000).unwrap();
        let same = NewSchedule { id: self.schedule, ..NewSchedule::new(demo.clone(), every, "publish", json!({})) };
        assert!(store.update_schedule(same).await.unwrap().is_some());
        assert!(store.backfill_schedule(&demo, self.schedule, &[1], Overlap::Allow).await.unwrap().is_some());
        let delivery = NewDelivery::new(demo.clone(), self.channel, json!(1));
        let delivery = store.create_deliveries(vec![delivery]).await.unwrap()[0].id;
        let due = store.due_channels(9, 9).await.unwrap().channels;
        assert!(due.iter().any(|due| due.id == self.channel));
        let claim = ClaimDeliveries { channel: self.channel, owner: Uuid::now_v7(), lease_ms: LEASE_MS, limit: 1 };
        let claimed = store.claim_deliveries(claim).await.unwrap().deliveries.remove(0);
        let outcome = DeliveryOutcome::Dead { reason: "no".to_owned(), status: None };
        let dead = DeliverySettlement::new(claimed.fence(), outcome);
        store.settle_delivery(dead).await.unwrap();
        assert!(store.get_delivery(&demo, delivery).await.unwrap().is_some());
        store.redeliver(&demo, self.channel, claimed.id).await.unwrap();
        store.list_attempts(claimed.id).await.unwrap();
        for state in [None, Some(DeliveryState::Pending)] {
            let listed = store.list_deliveries(&demo, self.channel, state, Before::newest(9)).await.unwrap();
            assert!(!listed.is_empty());
        }
        assert!(store.get_channel(&demo, self.channel).await.unwrap().is_some());
        assert_eq!(store.list_channels(&demo, Before::newest(9)).await.unwrap().len(), 1);
        assert!(store.tenant_by_key_hash(&KeyHash::of("demo")).await.unwrap().is_some());
        assert!(store.get_tenant(&demo).await.unwrap().is_some());
        assert!(!store.list_tenants(None, 9).await.unwrap().is_empty());
        store.rotate_tenant_key(&demo, &KeyHash::of("demo")).await.unwrap();
        assert!(!store.changed_tenants(0, 9).await.unwrap().is_empty());
        for _ in 0..2 {
            store.begin_request(request("demo", "key", "body")).await.unwrap();
        }
        store.ping().await.unwrap();
    }
}

#[tokio::test]
async fn work_goes_on_while_a_newer_program_changes_the_schema() {
    let Some((store, fixture)) = open_with_clock().await else { return };
    let house = House::new(&fixture).await;
    let mut anything = Anything::begin(&fixture).await;
    for part in 0..2 {
        for _ in 0..300 {
            anything.step().await;
        }
        house.call().await;
        if part == 0 {
            change_the_schema(&store).await;
        }
    }
    let told = store.session().await.unwrap().one(sqlx::query("SELECT count(*) AS told FROM moods")).await.unwrap();
    assert!(told.number::<u64>("told").unwrap() > 100, "the trigger of the newer program was passed by");
}
