//! The life of a delivery, and its log.

use super::channels::{SENT, buried, claim, dead, delivery, fill, read, retry, settle, webhook};
use super::*;
use crate::model::new_id;
use crate::store::{Before, DeliveryOutcome, DeliverySettlement, DeliveryState, NewAttempt, NewDelivery, Prune};

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
    assert_eq!(settle(fixture, &again, DeliveryOutcome::Release { after_ms: 2_000 }).await, Settled::Applied);
    let early = claim(fixture, &channel).await;
    assert_eq!((early.deliveries.len(), early.next_due_in_ms), (0, Some(2_000)));
    fixture.advance(2_000);
    assert_eq!(claim(fixture, &channel).await.deliveries[0].charged(), 1);
}

pub(crate) async fn a_channel_takes_so_many_deliveries_and_more_when_some_are_gone(fixture: &Fixture) {
    let channel = webhook(fixture, "demo").await;
    let gone = buried(fixture, &channel).await;
    fill(fixture, &channel, PENDING_MAX - 1).await;
    let new = || NewDelivery::new(channel.tenant.clone(), channel.id, json!(1));
    let full = fixture.store.create_deliveries(vec![new(), new()]).await.unwrap_err();
    assert!(full.is_retryable() && full.to_string().contains(&format!("has {PENDING_MAX} deliveries")), "{full}");
    fixture.store.create_delivery(new()).await.unwrap();
    assert_eq!(fixture.store.create_delivery(new()).await.unwrap_err().kind(), "limit");
    let again = fixture.store.redeliver(&channel.tenant, channel.id, gone.id).await;
    assert_eq!(again.unwrap_err().kind(), "limit");
    let other = webhook(fixture, "demo").await;
    delivery(fixture, &other).await;
    let under_way = claim(fixture, &channel).await.deliveries;
    assert_eq!(fixture.store.create_delivery(new()).await.unwrap_err().kind(), "limit", "what is under way counts");
    settle(fixture, &under_way[0], SENT).await;
    fixture.store.create_delivery(new()).await.unwrap();
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

pub(crate) async fn a_busy_channel_pushes_out_nothing_of_another(fixture: &Fixture) {
    let (quiet, busy) = (webhook(fixture, "demo").await, webhook(fixture, "other").await);
    let kept = buried(fixture, &quiet).await;
    let mut ids = Vec::new();
    for _ in 0..4 {
        fixture.advance(1_000);
        ids.push(buried(fixture, &busy).await.id);
    }
    let prune = |limit| fixture.store.prune_deliveries(Prune { older_than_ms: 100_000, keep_max: 2, limit });
    assert_eq!([prune(1).await.unwrap(), prune(9).await.unwrap(), prune(9).await.unwrap()], [1, 1, 0]);
    let left = fixture.store.list_deliveries(&busy.tenant, busy.id, None, Before::newest(10)).await.unwrap();
    assert_eq!(left.iter().map(|left| left.id).collect::<Vec<_>>(), [ids[3], ids[2]]);
    assert_eq!(read(fixture, &kept).await.state, DeliveryState::Dead);
}
