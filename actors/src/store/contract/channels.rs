//! Channels, and the life of a delivery.

use secrecy::ExposeSecret;

use super::*;
use crate::model::new_id;
use crate::store::{
    Channel, ClaimDeliveries, ClaimedDeliveries, Delivery, DeliveryOutcome, DeliveryState, NewChannel, NewDelivery,
};

const SENT: DeliveryOutcome = DeliveryOutcome::Sent { status: Some(204), provider_id: None };

pub(crate) async fn webhook(fixture: &Fixture, of: &str) -> Channel {
    let new = NewChannel {
        id: new_id(),
        tenant: tenant(of),
        kind: "webhook".to_owned(),
        url: "https://example.com/hook".to_owned(),
        secret: "whsec_c2VjcmV0".to_owned().into(),
    };
    fixture.store.create_channel(new).await.unwrap()
}

async fn delivery(fixture: &Fixture, channel: &Channel) -> Delivery {
    let new = NewDelivery::new(channel.tenant.clone(), channel.id, json!({ "text": "hi" }));
    fixture.store.create_delivery(NewDelivery { context: context(), ..new }).await.unwrap()
}

async fn claim(fixture: &Fixture, channel: &Channel) -> ClaimedDeliveries {
    let claim = ClaimDeliveries { channel: channel.id, owner: fixture.owner, lease_ms: 45_000, limit: 10 };
    fixture.store.claim_deliveries(claim).await.unwrap()
}

async fn read(fixture: &Fixture, delivery: &Delivery) -> Delivery {
    fixture.store.get_delivery(&delivery.tenant, delivery.id).await.unwrap().unwrap()
}

pub(crate) async fn a_channel_reads_back_with_its_secret(fixture: &Fixture) {
    let kept = webhook(fixture, "demo").await;
    let read = fixture.store.get_channel(&kept.tenant, kept.id).await.unwrap().unwrap();
    assert_eq!((read.url.as_str(), read.secret.expose_secret()), ("https://example.com/hook", "whsec_c2VjcmV0"));
    assert!(!format!("{read:?}").contains("c2VjcmV0"), "the secret shows");
    assert!(fixture.store.get_channel(&tenant("other"), kept.id).await.unwrap().is_none());
    let newer = webhook(fixture, "demo").await;
    let ids =
        fixture.store.list_channels(&kept.tenant, 10).await.unwrap().iter().map(|kept| kept.id).collect::<Vec<_>>();
    assert_eq!(ids, [newer.id, kept.id]);
}

pub(crate) async fn a_delivery_for_no_channel_or_anothers_is_refused(fixture: &Fixture) {
    let foreign = webhook(fixture, "other").await;
    for channel in [foreign.id, new_id()] {
        let refused = fixture.store.create_delivery(NewDelivery::new(tenant("demo"), channel, json!(1))).await;
        assert_eq!(refused.unwrap_err().kind(), "not_found");
    }
}

pub(crate) async fn deliveries_of_a_channel_are_claimed_oldest_first(fixture: &Fixture) {
    let (channel, other) = (webhook(fixture, "demo").await, webhook(fixture, "demo").await);
    let first = delivery(fixture, &channel).await;
    delivery(fixture, &other).await;
    fixture.advance(1);
    let second = delivery(fixture, &channel).await;
    let claimed = claim(fixture, &channel).await.deliveries;
    assert_eq!(claimed.iter().map(|claimed| claimed.id).collect::<Vec<_>>(), [first.id, second.id]);
    assert!(claimed.iter().all(|claimed| claimed.attempt == 1 && claimed.state == DeliveryState::Sending));
    assert_eq!((&claimed[0].data, &claimed[0].context), (&json!({ "text": "hi" }), &context()));
    assert!(claim(fixture, &channel).await.deliveries.is_empty());
}

pub(crate) async fn a_late_answer_about_a_delivery_is_refused(fixture: &Fixture) {
    let channel = webhook(fixture, "demo").await;
    delivery(fixture, &channel).await;
    let lost = claim(fixture, &channel).await.deliveries.remove(0);
    fixture.advance(45_000);
    let again = claim(fixture, &channel).await.deliveries.remove(0);
    assert_eq!(fixture.store.settle_delivery(lost.fence(), SENT).await.unwrap(), Settled::Late);
    assert_eq!(read(fixture, &again).await, again);
    assert_eq!(fixture.store.settle_delivery(again.fence(), SENT).await.unwrap(), Settled::Applied);
    assert_eq!(fixture.store.settle_delivery(again.fence(), SENT).await.unwrap(), Settled::Late);
}

pub(crate) async fn a_delivery_whose_sender_was_lost_is_due_again(fixture: &Fixture) {
    let channel = webhook(fixture, "demo").await;
    delivery(fixture, &channel).await;
    claim(fixture, &channel).await;
    assert!(fixture.store.due_channels(10, 10).await.unwrap().channels.is_empty());
    fixture.advance(45_000);
    assert_eq!(fixture.store.due_channels(10, 10).await.unwrap().channels.len(), 1);
    assert_eq!(claim(fixture, &channel).await.deliveries[0].attempt, 2);
}

pub(crate) async fn a_failed_delivery_waits_and_a_sent_one_is_final(fixture: &Fixture) {
    let channel = webhook(fixture, "demo").await;
    delivery(fixture, &channel).await;
    let first = claim(fixture, &channel).await.deliveries.remove(0);
    let failed = DeliveryOutcome::Retry { after_ms: 5_000, status: Some(503), error: "busy".to_owned() };
    fixture.store.settle_delivery(first.fence(), failed).await.unwrap();
    let waiting = read(fixture, &first).await;
    assert_eq!((waiting.state, waiting.last_status), (DeliveryState::Pending, Some(503)));
    assert_eq!(waiting.last_error.as_deref(), Some("busy"));
    let early = claim(fixture, &channel).await;
    assert_eq!((early.deliveries.len(), early.next_due_in_ms), (0, Some(5_000)));
    fixture.advance(5_000);
    let second = claim(fixture, &channel).await.deliveries.remove(0);
    let sent = DeliveryOutcome::Sent { status: Some(200), provider_id: Some("msg_1".to_owned()) };
    fixture.store.settle_delivery(second.fence(), sent).await.unwrap();
    let done = read(fixture, &first).await;
    assert_eq!((done.state, done.last_status, done.charged()), (DeliveryState::Sent, Some(200), 2));
    assert_eq!((done.last_error, done.provider_id.as_deref()), (None, Some("msg_1")));
    assert_eq!(done.finished_at_ms, Some(START_MS + 5_000));
    assert!(claim(fixture, &channel).await.deliveries.is_empty());
}

pub(crate) async fn a_released_delivery_is_not_charged(fixture: &Fixture) {
    let channel = webhook(fixture, "demo").await;
    delivery(fixture, &channel).await;
    let claimed = claim(fixture, &channel).await.deliveries.remove(0);
    assert_eq!(fixture.store.release_delivery(claimed.fence()).await.unwrap(), Settled::Applied);
    let again = claim(fixture, &channel).await.deliveries.remove(0);
    assert_eq!((again.attempt, again.charged()), (2, 1));
}

pub(crate) async fn a_disabled_channel_buries_its_deliveries_with_the_reason(fixture: &Fixture) {
    let channel = webhook(fixture, "demo").await;
    let (sending, pending) = (delivery(fixture, &channel).await, delivery(fixture, &channel).await);
    let limit_one = ClaimDeliveries { channel: channel.id, owner: fixture.owner, lease_ms: 45_000, limit: 1 };
    fixture.store.claim_deliveries(limit_one).await.unwrap();
    assert!(fixture.store.disable_channel(channel.id, "410 gone").await.unwrap());
    assert!(!fixture.store.disable_channel(channel.id, "again").await.unwrap());
    for buried in [sending, pending] {
        let dead = read(fixture, &buried).await;
        assert_eq!(dead.state, DeliveryState::Dead);
        assert_eq!(dead.last_error.as_deref(), Some("the channel is disabled: 410 gone"));
    }
    let kept = fixture.store.get_channel(&channel.tenant, channel.id).await.unwrap().unwrap();
    assert_eq!(kept.disabled.as_deref(), Some("410 gone"));
    let refused = fixture.store.create_delivery(NewDelivery::new(channel.tenant, channel.id, json!(1))).await;
    assert_eq!(refused.unwrap_err().kind(), "conflict");
}

pub(crate) async fn due_channels_are_those_with_something_to_send(fixture: &Fixture) {
    let (one, two, _idle) =
        (webhook(fixture, "demo").await, webhook(fixture, "other").await, webhook(fixture, "demo").await);
    delivery(fixture, &two).await;
    fixture.advance(1);
    delivery(fixture, &one).await;
    let due = fixture.store.due_channels(10, 10).await.unwrap();
    assert_eq!(due.channels.iter().map(|due| due.id).collect::<Vec<_>>(), [two.id, one.id]);
    assert_eq!(fixture.store.due_channels(1, 10).await.unwrap().channels.len(), 1);
    claim(fixture, &one).await;
    claim(fixture, &two).await;
    let due = fixture.store.due_channels(10, 10).await.unwrap();
    assert_eq!((due.channels.len(), due.next_due_in_ms), (0, Some(45_000)));
}

pub(crate) async fn a_tenant_with_many_due_channels_hides_no_other(fixture: &Fixture) {
    let mut noisy = Vec::new();
    for _ in 0..12 {
        let channel = webhook(fixture, "noisy").await;
        delivery(fixture, &channel).await;
        fixture.advance(1);
        noisy.push(channel.id);
    }
    let quiet = webhook(fixture, "quiet").await;
    delivery(fixture, &quiet).await;
    let due = async |limit, per_tenant| {
        let due = fixture.store.due_channels(limit, per_tenant).await.unwrap();
        due.channels.iter().map(|due| due.id).collect::<Vec<_>>()
    };
    assert_eq!(due(8, 2).await, [noisy[0], quiet.id, noisy[1]]);
    assert_eq!(due(2, 8).await, [noisy[0], quiet.id]);
}

pub(crate) async fn the_store_answers_a_ping(fixture: &Fixture) {
    fixture.store.ping().await.unwrap();
}
