//! Channels: which are due, which must wait, and what disables them.

use secrecy::ExposeSecret;

use super::*;
use crate::model::new_id;
use crate::store::{
    Before, Channel, ChannelNews, ClaimDeliveries, ClaimedDeliveries, Delivery, DeliveryOutcome, DeliverySettled,
    DeliverySettlement, DeliveryState, DisableRules, Failing, NewChannel, NewDelivery,
};

pub(super) const SENT: DeliveryOutcome = DeliveryOutcome::Sent { status: Some(204), provider_id: None };

pub(crate) async fn webhook(fixture: &Fixture, of: &str) -> Channel {
    let new = NewChannel {
        id: new_id(),
        tenant: tenant(of),
        kind: "webhook".to_owned(),
        url: "https://example.com/hook".to_owned(),
        secret: "whsec_c2VjcmV0".to_owned().into(),
        chat: None,
    };
    fixture.store.create_channel(new).await.unwrap()
}

pub(super) async fn delivery(fixture: &Fixture, channel: &Channel) -> Delivery {
    let new = NewDelivery::new(channel.tenant.clone(), channel.id, json!({ "text": "hi" }));
    fixture.store.create_delivery(NewDelivery { context: context(), ..new }).await.unwrap()
}

pub(super) async fn claim(fixture: &Fixture, channel: &Channel) -> ClaimedDeliveries {
    let claim = ClaimDeliveries { channel: channel.id, owner: fixture.owner, lease_ms: 45_000, limit: 10 };
    fixture.store.claim_deliveries(claim).await.unwrap()
}

pub(super) async fn settle(fixture: &Fixture, claimed: &Delivery, outcome: DeliveryOutcome) -> Settled {
    settle_with(fixture, claimed, outcome, ChannelNews::None).await.settled
}

pub(super) async fn settle_with(
    fixture: &Fixture,
    claimed: &Delivery,
    outcome: DeliveryOutcome,
    news: ChannelNews,
) -> DeliverySettled {
    let settlement = DeliverySettlement { news, ..DeliverySettlement::new(claimed.fence(), outcome) };
    fixture.store.settle_delivery(settlement).await.unwrap()
}

pub(super) async fn read(fixture: &Fixture, delivery: &Delivery) -> Delivery {
    fixture.store.get_delivery(&delivery.tenant, delivery.id).await.unwrap().unwrap()
}

pub(super) fn retry() -> DeliveryOutcome {
    DeliveryOutcome::Retry { after_ms: 0, status: Some(500), error: "broken".to_owned() }
}

fn hold(for_ms: u64) -> ChannelNews {
    let rules = DisableRules { refusals_max: 3, refused_for_ms: 600_000, failing_for_ms: 600_000 };
    ChannelNews::Hold { for_ms, rules, reason: "429".to_owned() }
}

pub(super) fn dead() -> DeliveryOutcome {
    DeliveryOutcome::Dead { status: Some(400), reason: "bad".to_owned() }
}

/// Gives `channel` so many deliveries at once.
pub(super) async fn fill(fixture: &Fixture, channel: &Channel, count: u32) -> Vec<Delivery> {
    let new = || NewDelivery::new(channel.tenant.clone(), channel.id, json!(1));
    fixture.store.create_deliveries((0..count).map(|_| new()).collect()).await.unwrap()
}

/// A delivery of `channel` that is dead.
pub(super) async fn buried(fixture: &Fixture, channel: &Channel) -> Delivery {
    delivery(fixture, channel).await;
    let claimed = claim(fixture, channel).await.deliveries.remove(0);
    settle(fixture, &claimed, dead()).await;
    claimed
}

pub(crate) async fn a_channel_reads_back_with_its_secret(fixture: &Fixture) {
    let kept = webhook(fixture, "demo").await;
    let read = fixture.store.get_channel(&kept.tenant, kept.id).await.unwrap().unwrap();
    assert_eq!((read.url.as_str(), read.secret.expose_secret()), ("https://example.com/hook", "whsec_c2VjcmV0"));
    assert!(!format!("{read:?}").contains("c2VjcmV0"), "the secret shows");
    assert!(fixture.store.get_channel(&tenant("other"), kept.id).await.unwrap().is_none());
    let newer = webhook(fixture, "demo").await;
    let ids = fixture
        .store
        .list_channels(&kept.tenant, Before::newest(10))
        .await
        .unwrap()
        .iter()
        .map(|kept| kept.id)
        .collect::<Vec<_>>();
    assert_eq!(ids, [newer.id, kept.id]);
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

async fn states(fixture: &Fixture, of: &[Delivery]) -> Vec<DeliveryState> {
    let mut states = Vec::new();
    for delivery in of {
        states.push(read(fixture, delivery).await.state);
    }
    states
}

pub(crate) async fn a_channel_with_a_long_line_is_disabled_at_once_and_nothing_of_it_comes_back(fixture: &Fixture) {
    let channel = webhook(fixture, "demo").await;
    let line = fill(fixture, &channel, PENDING_MAX).await;
    let gone = claim(fixture, &channel).await.deliveries.remove(0);
    let news = ChannelNews::Gone { reason: "410".to_owned() };
    assert_eq!(settle_with(fixture, &gone, dead(), news).await.disabled.as_deref(), Some("410"));
    assert!(claim(fixture, &channel).await.deliveries.is_empty());
    assert!(fixture.store.enable_channel(&channel.tenant, channel.id).await.unwrap());
    fixture.advance(60_000);
    assert!(claim(fixture, &channel).await.deliveries.is_empty(), "none of the line is revived");
    assert!(states(fixture, &line).await.iter().all(|state| *state == DeliveryState::Dead));
    let new = delivery(fixture, &channel).await;
    assert!(fixture.store.enable_channel(&channel.tenant, channel.id).await.unwrap());
    assert_eq!(claim(fixture, &channel).await.deliveries[0].id, new.id, "it was enabled already");
}

pub(crate) async fn what_is_left_of_a_disabled_channel_is_buried_on_a_beat(fixture: &Fixture) {
    let (channel, other) = (webhook(fixture, "demo").await, webhook(fixture, "demo").await);
    let line = fill(fixture, &channel, PENDING_MAX).await;
    let waiting = delivery(fixture, &other).await;
    let gone = claim(fixture, &channel).await.deliveries.remove(0);
    settle_with(fixture, &gone, dead(), ChannelNews::Gone { reason: "410".to_owned() }).await;
    while fixture.store.bury_deliveries(100).await.unwrap() > 0 {}
    assert!(states(fixture, &line).await.iter().all(|state| *state == DeliveryState::Dead));
    let last = read(fixture, line.last().unwrap()).await;
    assert_eq!(last.last_error.as_deref(), Some("the channel is disabled: 410"));
    assert_eq!(read(fixture, &waiting).await.state, DeliveryState::Pending);
    assert!(fixture.store.disable_channel(other.id, "by hand").await.unwrap());
    assert_eq!(fixture.store.bury_deliveries(100).await.unwrap(), 0);
}

pub(crate) async fn what_arrived_while_its_channel_was_disabled_is_sent_and_all_else_stays_dead(fixture: &Fixture) {
    let channel = webhook(fixture, "demo").await;
    let (arrived, failed) = (delivery(fixture, &channel).await, delivery(fixture, &channel).await);
    let under_way = claim(fixture, &channel).await.deliveries;
    assert!(fixture.store.disable_channel(channel.id, "by hand").await.unwrap());
    assert_eq!(settle(fixture, &under_way[0], SENT).await, Settled::Applied);
    assert_eq!(settle(fixture, &under_way[0], SENT).await, Settled::Late);
    let sent = read(fixture, &arrived).await;
    assert_eq!((sent.state, sent.last_status, sent.last_error), (DeliveryState::Sent, Some(204), None));
    for outcome in [retry(), dead(), DeliveryOutcome::Release { after_ms: 0 }] {
        assert_eq!(settle(fixture, &under_way[1], outcome).await, Settled::Late);
    }
    let kept = read(fixture, &failed).await;
    assert_eq!(kept.last_error.as_deref(), Some("the channel is disabled: by hand"));
}

pub(crate) async fn a_channel_that_must_wait_is_neither_due_nor_claimed(fixture: &Fixture) {
    let channel = webhook(fixture, "demo").await;
    delivery(fixture, &channel).await;
    delivery(fixture, &channel).await;
    let claimed = claim(fixture, &channel).await.deliveries;
    settle_with(fixture, &claimed[0], retry(), hold(30_000)).await;
    settle_with(fixture, &claimed[1], retry(), hold(10_000)).await;
    let due = fixture.store.due_channels(10, 10).await.unwrap();
    assert_eq!((due.channels.len(), due.next_due_in_ms), (0, Some(30_000)), "the longest wait counts");
    assert!(claim(fixture, &channel).await.deliveries.is_empty());
    fixture.advance(30_000);
    assert_eq!(fixture.store.due_channels(10, 10).await.unwrap().channels.len(), 1);
    assert_eq!(claim(fixture, &channel).await.deliveries.len(), 2);
}

pub(crate) async fn a_channel_that_only_refuses_is_disabled_after_a_while(fixture: &Fixture) {
    let channel = webhook(fixture, "demo").await;
    delivery(fixture, &channel).await;
    let rules = DisableRules { refusals_max: 3, refused_for_ms: 60_000, failing_for_ms: 600_000 };
    let fails = |how| ChannelNews::Fails { how, rules, reason: "403".to_owned() };
    let attempt = async |news: ChannelNews, outcome: DeliveryOutcome| {
        let claimed = claim(fixture, &channel).await.deliveries.remove(0);
        settle_with(fixture, &claimed, outcome, news).await.disabled
    };
    for _ in 0..4 {
        assert_eq!(attempt(fails(Failing::Refuses), retry()).await, None, "all within one moment");
    }
    fixture.advance(60_000);
    assert_eq!(attempt(fails(Failing::Away), retry()).await, None, "another failure between them");
    assert_eq!(attempt(fails(Failing::Refuses), retry()).await, None);
    assert_eq!(attempt(fails(Failing::Refuses), retry()).await, None);
    let why = attempt(fails(Failing::Refuses), retry()).await;
    assert_eq!(why.as_deref(), Some("refused 3 times in a row, at last: 403"));
    let kept = fixture.store.get_channel(&channel.tenant, channel.id).await.unwrap().unwrap();
    assert_eq!((kept.disabled, kept.failing_since_ms), (why, Some(START_MS)));
}

pub(crate) async fn a_channel_through_which_nothing_arrives_is_disabled_in_the_end(fixture: &Fixture) {
    let channel = webhook(fixture, "demo").await;
    delivery(fixture, &channel).await;
    delivery(fixture, &channel).await;
    let rules = DisableRules { refusals_max: 3, refused_for_ms: 0, failing_for_ms: 7_200_000 };
    let fails = || ChannelNews::Fails { how: Failing::Away, rules, reason: "500".to_owned() };
    let claimed = claim(fixture, &channel).await.deliveries;
    settle_with(fixture, &claimed[0], retry(), fails()).await;
    settle_with(fixture, &claimed[1], SENT, ChannelNews::Works).await;
    fixture.advance(7_200_000);
    let again = claim(fixture, &channel).await.deliveries.remove(0);
    assert_eq!(settle_with(fixture, &again, retry(), fails()).await.disabled, None, "one had arrived since");
    fixture.advance(7_200_000);
    let last = claim(fixture, &channel).await.deliveries.remove(0);
    let why = settle_with(fixture, &last, retry(), fails()).await.disabled;
    assert_eq!(why.as_deref(), Some("nothing has arrived for 2 h, at last: 500"));
    assert_eq!(read(fixture, &last).await.state, DeliveryState::Dead);
}

pub(crate) async fn an_enabled_channel_starts_anew(fixture: &Fixture) {
    let channel = webhook(fixture, "demo").await;
    delivery(fixture, &channel).await;
    let claimed = claim(fixture, &channel).await.deliveries.remove(0);
    settle_with(fixture, &claimed, retry(), hold(60_000)).await;
    assert!(fixture.store.disable_channel(channel.id, "by hand").await.unwrap());
    assert!(!fixture.store.enable_channel(&tenant("other"), channel.id).await.unwrap(), "another's");
    assert!(fixture.store.enable_channel(&channel.tenant, channel.id).await.unwrap());
    assert!(fixture.store.enable_channel(&channel.tenant, channel.id).await.unwrap(), "again");
    let kept = fixture.store.get_channel(&channel.tenant, channel.id).await.unwrap().unwrap();
    assert_eq!((kept.disabled, kept.not_before_ms, kept.failing_since_ms), (None, None, None));
    assert_eq!(read(fixture, &claimed).await.state, DeliveryState::Dead, "what died stays dead");
    delivery(fixture, &channel).await;
    assert_eq!(claim(fixture, &channel).await.deliveries.len(), 1);
}

pub(crate) async fn a_deleted_channel_takes_its_deliveries_with_it(fixture: &Fixture) {
    let (channel, other) = (webhook(fixture, "demo").await, webhook(fixture, "demo").await);
    let gone = buried(fixture, &channel).await;
    let kept = buried(fixture, &other).await;
    assert!(!fixture.store.delete_channel(&tenant("other"), channel.id).await.unwrap(), "another's");
    assert!(fixture.store.delete_channel(&channel.tenant, channel.id).await.unwrap());
    assert!(!fixture.store.delete_channel(&channel.tenant, channel.id).await.unwrap(), "again");
    assert!(fixture.store.get_channel(&channel.tenant, channel.id).await.unwrap().is_none());
    assert!(fixture.store.get_delivery(&gone.tenant, gone.id).await.unwrap().is_none());
    assert!(fixture.store.get_delivery(&kept.tenant, kept.id).await.unwrap().is_some());
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
