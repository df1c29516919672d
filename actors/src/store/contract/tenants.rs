//! Tenants: their keys, their limits, and what becomes of a disabled one's work.

use super::*;
use crate::jobs::Cadence;
use crate::store::contract::channels::webhook;
use crate::store::{ClaimDeliveries, FireDue, KeyHash, NewDelivery, NewSchedule, Quotas, Tenant};

async fn create(fixture: &Fixture, name: &str) -> Tenant {
    fixture.store.create_tenant(&tenant(name), &key(name)).await.unwrap()
}

/// The first key of the tenant of that name.
fn key(name: &str) -> KeyHash {
    KeyHash::of(&format!("pk_{name}"))
}

pub(crate) async fn a_tenant_is_found_by_its_key_only(fixture: &Fixture) {
    let (key, other) = (KeyHash::of("pk_one"), KeyHash::of("pk_two"));
    let made = fixture.store.create_tenant(&tenant("demo"), &key).await.unwrap();
    fixture.advance(1);
    assert_eq!(fixture.store.create_tenant(&tenant("demo"), &key).await.unwrap(), made, "the same again");
    assert_eq!(fixture.store.tenant_by_key_hash(&key).await.unwrap(), Some(made.clone()));
    assert_eq!(fixture.store.tenant_by_key_hash(&other).await.unwrap(), None);
    for (name, key) in [("demo", &other), ("other", &key)] {
        let refused = fixture.store.create_tenant(&tenant(name), key).await.unwrap_err();
        assert_eq!(refused.kind(), "conflict");
    }
    assert_eq!(fixture.store.get_tenant(&tenant("demo")).await.unwrap(), Some(made));
    assert_eq!(fixture.store.get_tenant(&tenant("other")).await.unwrap(), None);
}

pub(crate) async fn tenants_are_listed_by_name_page_by_page(fixture: &Fixture) {
    for name in ["c", "a", "d", "b"] {
        create(fixture, name).await;
    }
    let first = fixture.store.list_tenants(None, 3).await.unwrap();
    let rest = fixture.store.list_tenants(Some(&first[2].id), 3).await.unwrap();
    let names = first.iter().chain(&rest).map(|tenant| tenant.id.as_str()).collect::<Vec<_>>();
    assert_eq!((first.len(), names), (3, vec!["a", "b", "c", "d"]));
}

pub(crate) async fn a_rotated_key_opens_nothing_and_the_new_one_does(fixture: &Fixture) {
    let (made, other) = (create(fixture, "demo").await, create(fixture, "other").await);
    let new = KeyHash::of("pk_new");
    let rotated = fixture.store.rotate_tenant_key(&made.id, &new).await.unwrap();
    assert_eq!(fixture.store.tenant_by_key_hash(&key("demo")).await.unwrap(), None);
    assert_eq!(fixture.store.tenant_by_key_hash(&new).await.unwrap(), Some(rotated));
    let taken = fixture.store.rotate_tenant_key(&made.id, &key("other")).await.unwrap_err();
    assert_eq!(taken.kind(), "conflict");
    let nobody = fixture.store.rotate_tenant_key(&tenant("nobody"), &KeyHash::of("pk_x")).await.unwrap_err();
    assert_eq!(nobody.kind(), "not_found");
    assert_eq!(fixture.store.tenant_by_key_hash(&key("other")).await.unwrap(), Some(other));
}

pub(crate) async fn changes_are_told_in_their_order_and_each_once(fixture: &Fixture) {
    let (one, two) = (create(fixture, "one").await.id, create(fixture, "two").await.id);
    create(fixture, "three").await;
    let store = &fixture.store;
    assert!(store.changed_tenants(0, 10).await.unwrap().is_empty(), "a new tenant has not changed");
    store.rotate_tenant_key(&two, &KeyHash::of("pk_new")).await.unwrap();
    let disabled = store.disable_tenant(&one).await.unwrap();
    let quotas = Quotas { sockets: Some(0), ..Quotas::default() };
    let limited = store.set_tenant_quotas(&two, quotas).await.unwrap();
    let both = [disabled.clone(), limited.clone()];
    assert_eq!(store.changed_tenants(0, 10).await.unwrap(), both);
    assert_eq!(store.changed_tenants(0, 1).await.unwrap(), both[..1]);
    assert_eq!(store.changed_tenants(disabled.version, 10).await.unwrap(), both[1..]);
    assert!(limited.key_version < disabled.version && limited.key_version > 0, "its key is older than its limits");
    assert_eq!(store.disable_tenant(&one).await.unwrap(), disabled, "the same again");
    assert!(store.changed_tenants(limited.version, 10).await.unwrap().is_empty());
}

pub(crate) async fn limits_of_a_tenant_are_replaced_all_at_once(fixture: &Fixture) {
    let id = create(fixture, "demo").await.id;
    let full = Quotas {
        requests_per_s: Some(1),
        requests_burst: Some(2),
        requests_at_once: Some(3),
        sockets: Some(4),
        subscriptions: Some(5),
        job_weight: Some(6),
        jobs_running: Some(7),
        jobs_queued: Some(8),
        job_starts_per_s: Some(9),
    };
    assert_eq!(fixture.store.set_tenant_quotas(&id, full).await.unwrap().quotas, full);
    let one = Quotas { sockets: Some(0), ..Quotas::default() };
    fixture.store.set_tenant_quotas(&id, one).await.unwrap();
    assert_eq!(fixture.store.get_tenant(&id).await.unwrap().unwrap().quotas, one);
    let nobody = fixture.store.set_tenant_quotas(&tenant("nobody"), one).await.unwrap_err();
    assert_eq!(nobody.kind(), "not_found");
}

pub(crate) async fn jobs_of_a_disabled_tenant_wait_and_go_on_when_it_is_enabled(fixture: &Fixture) {
    let (resting, other) = (create(fixture, "resting").await.id, create(fixture, "other").await.id);
    fixture.enqueue(vec![new_job("resting"), new_job("other"), new_job("resting")]).await;
    let disabled = fixture.store.disable_tenant(&resting).await.unwrap();
    assert_eq!(disabled.disabled_at_ms, Some(START_MS));
    let claimed = fixture.claim(10).await;
    assert_eq!(claimed.iter().map(|job| &job.tenant).collect::<Vec<_>>(), [&other]);
    assert_eq!(fixture.store.enable_tenant(&resting).await.unwrap().disabled_at_ms, None);
    assert_eq!(fixture.claim(10).await.len(), 2);
    for refused in [fixture.store.disable_tenant(&tenant("x")).await, fixture.store.enable_tenant(&tenant("x")).await] {
        assert_eq!(refused.unwrap_err().kind(), "not_found");
    }
}

pub(crate) async fn a_suspect_job_of_a_disabled_tenant_waits_too(fixture: &Fixture) {
    let id = create(fixture, "demo").await.id;
    fixture.claimed().await;
    fixture.advance(LEASE_MS + 1);
    // Two crashes quarantine, so one makes it a suspect.
    assert_eq!(fixture.store.sweep(2, 10).await.unwrap().rescued, 1);
    fixture.store.disable_tenant(&id).await.unwrap();
    assert!(fixture.claim(10).await.is_empty());
    fixture.store.enable_tenant(&id).await.unwrap();
    assert_eq!(fixture.claim(10).await.len(), 1);
}

pub(crate) async fn fires_of_a_disabled_tenants_schedule_are_missed_and_never_made_up_for(fixture: &Fixture) {
    let id = create(fixture, "demo").await.id;
    let schedule = NewSchedule::new(id.clone(), Cadence::every(10_000).unwrap(), "publish", json!({}));
    fixture.store.create_schedule(schedule).await.unwrap();
    fixture.store.disable_tenant(&id).await.unwrap();
    let fire = FireDue { limit: 10, catch_up_window_ms: 3_600_000 };
    let report = fixture.store.fire_due(fire).await.unwrap();
    assert_eq!((report.fired.len(), report.missed, report.next_due_in_ms), (0, 1, Some(10_000)));
    fixture.advance(25_000);
    assert_eq!(fixture.store.fire_due(fire).await.unwrap().fired, []);
    fixture.store.enable_tenant(&id).await.unwrap();
    assert_eq!(fixture.store.fire_due(fire).await.unwrap().fired, [], "the next time has not come");
    fixture.advance(5_000);
    assert_eq!(fixture.store.fire_due(fire).await.unwrap().fired.len(), 1);
}

pub(crate) async fn deliveries_of_a_disabled_tenant_wait_and_go_on_when_it_is_enabled(fixture: &Fixture) {
    let id = create(fixture, "demo").await.id;
    let channel = webhook(fixture, "demo").await;
    fixture.store.create_delivery(NewDelivery::new(id.clone(), channel.id, json!(1))).await.unwrap();
    fixture.store.disable_tenant(&id).await.unwrap();
    let claim = || ClaimDeliveries { channel: channel.id, owner: fixture.owner, lease_ms: 45_000, limit: 10 };
    let due = fixture.store.due_channels(10, 10).await.unwrap();
    assert_eq!((due.channels.len(), due.next_due_in_ms), (0, None), "nobody is to come back at once");
    assert!(fixture.store.claim_deliveries(claim()).await.unwrap().deliveries.is_empty());
    fixture.store.enable_tenant(&id).await.unwrap();
    assert_eq!(fixture.store.due_channels(10, 10).await.unwrap().channels.len(), 1);
    assert_eq!(fixture.store.claim_deliveries(claim()).await.unwrap().deliveries.len(), 1);
}
