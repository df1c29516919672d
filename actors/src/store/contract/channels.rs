//! Channels, the life of a delivery, and its log.

use secrecy::ExposeSecret;

use super::*;
use crate::model::new_id;
use crate::store::{
    Before, Channel, ChannelNews, ClaimDeliveries, ClaimedDeliveries, Delivery, DeliveryOutcome, DeliverySettled,
    DeliverySettlement, DeliveryState, DisableRules, Failing, NewAttempt, NewChannel, NewDelivery, Prune,
};

const SENT: DeliveryOutcome = DeliveryOutcome::Sent { status: Some(204), provider_id: None };

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

async fn delivery(fixture: &Fixture, channel: &Channel) -> Delivery {
    let new = NewDelivery::new(channel.tenant.clone(), channel.id, json!({ "text": "hi" }));
    fixture.store.create_delivery(NewDelivery { context: context(), ..new }).await.unwrap()
}

async fn claim(fixture: &Fixture, channel: &Channel) -> ClaimedDeliveries {
    let claim = ClaimDeliveries { channel: channel.id, owner: fixture.owner, lease_ms: 45_000, limit: 10 };
    fixture.store.claim_deliveries(claim).await.unwrap()
}

async fn settle(fixture: &Fixture, claimed: &Delivery, outcome: DeliveryOutcome) -> Settled {
    settle_with(fixture, claimed, outcome, ChannelNews::None).await.settled
}

async fn settle_with(
    fixture: &Fixture,
    claimed: &Delivery,
    outcome: DeliveryOutcome,
    news: ChannelNews,
) -> DeliverySettled {
    let settlement = DeliverySettlement { news, ..DeliverySettlement::new(claimed.fence(), outcome) };
    fixture.store.settle_delivery(settlement).await.unwrap()
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
    assert_eq!(settle(fixture, &lost, SENT).await, Settled::Late);
    assert_eq!(read(fixture, &again).await, again);
    assert_eq!(settle(fixture, &again, SENT).await, Settled::Applied);
    assert_eq!(settle(fixture, &again, SENT).await, Settled::Late);
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
    settle(fixture, &first, failed).await;
    let waiting = read(fixture, &first).await;
    assert_eq!((waiting.state, waiting.last_status), (DeliveryState::Pending, Some(503)));
    assert_eq!(waiting.last_error.as_deref(), Some("busy"));
    let early = claim(fixture, &channel).await;
    assert_eq!((early.deliveries.len(), early.next_due_in_ms), (0, Some(5_000)));
    fixture.advance(5_000);
    let second = claim(fixture, &channel).await.deliveries.remove(0);
    let sent = DeliveryOutcome::Sent { status: Some(200), provider_id: Some("msg_1".to_owned()) };
    settle(fixture, &second, sent).await;
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

fn retry() -> DeliveryOutcome {
    DeliveryOutcome::Retry { after_ms: 0, status: Some(500), error: "broken".to_owned() }
}

fn dead() -> DeliveryOutcome {
    DeliveryOutcome::Dead { status: Some(400), reason: "bad".to_owned() }
}

/// A delivery of `channel` that is dead.
async fn buried(fixture: &Fixture, channel: &Channel) -> Delivery {
    delivery(fixture, channel).await;
    let claimed = claim(fixture, channel).await.deliveries.remove(0);
    settle(fixture, &claimed, dead()).await;
    claimed
}

pub(crate) async fn deliveries_are_kept_all_or_none(fixture: &Fixture) {
    let (good, foreign) = (webhook(fixture, "demo").await, webhook(fixture, "other").await);
    let to = |channel| NewDelivery {
        text: Some("hi".to_owned()),
        attempts_max: Some(1),
        ..NewDelivery::new(tenant("demo"), channel, json!(1))
    };
    let refused = fixture.store.create_deliveries(vec![to(good.id), to(foreign.id)]).await;
    assert_eq!(refused.unwrap_err().kind(), "not_found");
    let list = || fixture.store.list_deliveries(&good.tenant, good.id, None, Before::newest(10));
    assert!(list().await.unwrap().is_empty());
    let kept = fixture.store.create_deliveries(vec![to(good.id), to(good.id)]).await.unwrap();
    assert_eq!((kept[0].text.as_deref(), kept[1].attempts_max), (Some("hi"), Some(1)));
    assert_eq!(list().await.unwrap().len(), 2);
}

pub(crate) async fn every_attempt_is_in_the_log_of_its_delivery(fixture: &Fixture) {
    let channel = webhook(fixture, "demo").await;
    let id = delivery(fixture, &channel).await.id;
    let attempt = |n: u64| NewAttempt {
        took_ms: n,
        outcome: "retry".to_owned(),
        class: Some("status".to_owned()),
        status: Some(500),
        error: Some("broken".to_owned()),
        answer: Some("sorry".to_owned()),
    };
    for n in 1..=60 {
        let claimed = claim(fixture, &channel).await.deliveries.remove(0);
        let settlement = DeliverySettlement::new(claimed.fence(), retry());
        fixture.store.settle_delivery(DeliverySettlement { log: Some(attempt(n)), ..settlement }).await.unwrap();
        fixture.advance(1);
    }
    let log = fixture.store.list_attempts(id).await.unwrap();
    assert_eq!((log.len(), log[0].attempt, log[49].attempt), (50, 11, 60), "the newest ones");
    assert_eq!((&log[49].kept, log[49].at_ms), (&attempt(60), START_MS + 59));
}

pub(crate) async fn a_channel_that_must_wait_is_neither_due_nor_claimed(fixture: &Fixture) {
    let channel = webhook(fixture, "demo").await;
    delivery(fixture, &channel).await;
    delivery(fixture, &channel).await;
    let claimed = claim(fixture, &channel).await.deliveries;
    settle_with(fixture, &claimed[0], retry(), ChannelNews::Hold { for_ms: 30_000 }).await;
    settle_with(fixture, &claimed[1], retry(), ChannelNews::Hold { for_ms: 10_000 }).await;
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
    settle_with(fixture, &claimed, retry(), ChannelNews::Hold { for_ms: 60_000 }).await;
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

pub(crate) async fn a_dead_delivery_is_sent_again_under_its_id_with_all_its_attempts(fixture: &Fixture) {
    let channel = webhook(fixture, "demo").await;
    let gone = buried(fixture, &channel).await;
    let redeliver = |of: &str, id| {
        let of = tenant(of);
        async move { fixture.store.redeliver(&of, channel.id, id).await }
    };
    for (of, id) in [("other", gone.id), ("demo", new_id())] {
        assert_eq!(redeliver(of, id).await.unwrap_err().kind(), "not_found");
    }
    let due = redeliver("demo", gone.id).await.unwrap();
    assert_eq!((due.state, due.charged(), due.finished_at_ms), (DeliveryState::Pending, 0, None));
    assert_eq!(redeliver("demo", gone.id).await.unwrap_err().kind(), "conflict", "it is not dead");
    let claimed = claim(fixture, &channel).await.deliveries.remove(0);
    assert_eq!((claimed.id, claimed.attempt, claimed.charged()), (gone.id, 2, 1));
    settle(fixture, &claimed, dead()).await;
    fixture.store.disable_channel(channel.id, "by hand").await.unwrap();
    assert_eq!(redeliver("demo", gone.id).await.unwrap_err().kind(), "conflict", "the channel is disabled");
}

pub(crate) async fn deliveries_are_listed_by_state_and_by_page(fixture: &Fixture) {
    let channel = webhook(fixture, "demo").await;
    let (first, second) = (buried(fixture, &channel).await.id, buried(fixture, &channel).await.id);
    let third = delivery(fixture, &channel).await.id;
    let list = async |state, id, limit| {
        let page = Before { id, limit };
        let found = fixture.store.list_deliveries(&channel.tenant, channel.id, state, page).await.unwrap();
        found.iter().map(|delivery| delivery.id).collect::<Vec<_>>()
    };
    assert_eq!(list(None, None, 2).await, [third, second]);
    assert_eq!(list(None, Some(second), 2).await, [first]);
    assert_eq!(list(Some(DeliveryState::Dead), None, 1).await, [second]);
    assert_eq!(list(Some(DeliveryState::Dead), Some(second), 9).await, [first]);
    assert_eq!(list(Some(DeliveryState::Pending), None, 9).await, [third]);
}

pub(crate) async fn finished_deliveries_are_forgotten_by_age_and_by_number(fixture: &Fixture) {
    let channel = webhook(fixture, "demo").await;
    let mut ids = Vec::new();
    for _ in 0..4 {
        ids.push(buried(fixture, &channel).await);
        fixture.advance(1_000);
    }
    let waiting = delivery(fixture, &channel).await;
    let prune = |older_than_ms, keep_max| fixture.store.prune_deliveries(Prune { older_than_ms, keep_max, limit: 10 });
    assert_eq!(prune(10_000, 10).await.unwrap(), 0);
    assert_eq!(prune(3_500, 10).await.unwrap(), 1, "the one that ended 4 s ago");
    assert_eq!(prune(10_000, 1).await.unwrap(), 2, "all but the newest");
    let left = fixture.store.list_deliveries(&channel.tenant, channel.id, None, Before::newest(10)).await.unwrap();
    assert_eq!(left.iter().map(|left| left.id).collect::<Vec<_>>(), [waiting.id, ids[3].id]);
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
