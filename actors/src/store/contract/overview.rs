//! What waits, of all tenants.

use super::channels::{SENT, claim, delivery, settle, webhook};
use super::*;
use crate::store::{Backlog, Channel, Fault, TenantAtWork};

fn dead() -> Outcome {
    Outcome::Dead { reason: "no".to_owned(), fault: Fault::Failure }
}

pub(crate) async fn the_tenants_with_the_most_to_do_are_named_first(fixture: &Fixture) {
    fixture.enqueue((0..3).map(|_| new_job("many")).collect()).await;
    let ended = fixture.claim(3).await;
    fixture.settle(ended[0].fence(), dead()).await;
    fixture.settle(ended[1].fence(), Outcome::Done { result: None }).await;
    let more = fixture.enqueue(vec![new_job("few"), new_job("many"), new_job("gone")]).await;
    fixture.store.cancel_job(&more[2].tenant, more[2].id, "not any more").await.unwrap();
    let seen = fixture.store.overview(9).await.unwrap();
    let at_work = |name: &str, queued, running, dead| TenantAtWork { tenant: tenant(name), queued, running, dead };
    assert_eq!(seen.tenants, [at_work("many", 1, 1, 1), at_work("few", 1, 0, 0)]);
    assert_eq!(fixture.store.overview(1).await.unwrap().tenants, seen.tenants[..1]);
}

pub(crate) async fn a_tenant_of_which_only_dead_jobs_are_left_is_named_too(fixture: &Fixture) {
    let job = fixture.claimed().await;
    fixture.settle(job.fence(), dead()).await;
    let seen = fixture.store.overview(9).await.unwrap().tenants;
    assert_eq!(seen, [TenantAtWork { tenant: tenant("demo"), queued: 0, running: 0, dead: 1 }]);
}

pub(crate) async fn the_channels_with_the_most_deliveries_that_have_not_ended_are_named_first(fixture: &Fixture) {
    let (idle, one, two) =
        (webhook(fixture, "demo").await, webhook(fixture, "demo").await, webhook(fixture, "other").await);
    for channel in [&idle, &one, &two, &two] {
        delivery(fixture, channel).await;
    }
    let sent = claim(fixture, &idle).await.deliveries.remove(0);
    settle(fixture, &sent, SENT).await;
    let seen = fixture.store.overview(9).await.unwrap().channels;
    let backlog = |channel: &Channel, pending| Backlog {
        channel: channel.id,
        tenant: channel.tenant.clone(),
        kind: "webhook".to_owned(),
        pending,
        due_at_ms: START_MS,
    };
    assert_eq!(seen, [backlog(&two, 2), backlog(&one, 1)]);
}
