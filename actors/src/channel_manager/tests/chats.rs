//! Chats: stand-ins that answer as the providers document it, and what becomes of the channel.

use axum::Json;
use serde_json::json;

use super::*;
use crate::channels::{slack, telegram};
use crate::store::{Before, NewChannel, NewDelivery};

const TOKEN: &str = "123456:ABC-DEF1234ghIkl-zyx57W2v1u123ew11";

/// The subsystem, with both providers at `receiver`.
async fn house(receiver: &Receiver, settings: Settings) -> House {
    House::start(Settings { slack_base_url: receiver.base(), telegram_base_url: receiver.base(), ..settings }).await
}

impl House {
    async fn chat(&self, kind: &str, secret: String) -> store::Channel {
        let chat = (kind == telegram::KIND).then(|| "42".to_owned());
        let (tenant, kind) = (self.kept.tenant.clone(), kind.to_owned());
        let new =
            NewChannel { id: crate::model::new_id(), tenant, kind, url: String::new(), secret: secret.into(), chat };
        self.kept.store.create_channel(new).await.unwrap()
    }

    async fn telegram(&self) -> store::Channel {
        self.chat(telegram::KIND, TOKEN.to_owned()).await
    }

    async fn slack(&self, receiver: &Receiver) -> store::Channel {
        self.chat(slack::KIND, format!("{}/services/T0/B0/secret", receiver.base())).await
    }

    async fn say(&self, channel: &store::Channel, text: &str) -> Uuid {
        let new = NewDelivery::new(channel.tenant.clone(), channel.id, serde_json::Value::Null);
        let new = NewDelivery { text: Some(text.to_owned()), ..new };
        let id = self.kept.store.create_delivery(new).await.unwrap().id;
        self.poke.poke();
        id
    }

    async fn disabled(&self, channel: &store::Channel) -> Option<String> {
        self.kept.store.get_channel(&channel.tenant, channel.id).await.unwrap().unwrap().disabled
    }
}

fn sent(message_id: usize) -> axum::response::Response {
    Json(json!({"ok": true, "result": {"message_id": message_id}})).into_response()
}

fn throttled(seconds: u64) -> axum::response::Response {
    let body = json!({"ok": false, "error_code": 429, "description": "Too Many Requests",
        "parameters": {"retry_after": seconds}});
    (StatusCode::TOO_MANY_REQUESTS, Json(body)).into_response()
}

#[tokio::test]
async fn a_429_holds_the_whole_channel_for_as_long_as_it_says() {
    let times = Arc::new(std::sync::Mutex::new(Vec::new()));
    let noted = Arc::clone(&times);
    let receiver = Receiver::answering(move |turn| {
        noted.lock().unwrap().push(Instant::now());
        if turn == 0 { throttled(3) } else { sent(turn) }
    })
    .await;
    let house = house(&receiver, settings()).await;
    let channel = house.telegram().await;
    let (first, second) = (house.say(&channel, "one").await, house.say(&channel, "two").await);
    let first = house.until_state(first, DeliveryState::Sent).await;
    let second = house.until_state(second, DeliveryState::Sent).await;
    assert_eq!(first.charged() + second.charged(), 3, "the one that was not tried waited with the other");
    assert!(second.provider_id.is_some());
    let times = times.lock().unwrap().clone();
    assert!(times[1] - times[0] >= Duration::from_secs(3), "{times:?}");
    let log = house.kept.store.list_attempts(first.id).await.unwrap();
    assert_eq!((log.len(), log[0].kept.class.as_deref(), log[0].kept.status), (2, Some("throttled"), Some(429)));
}

#[tokio::test]
async fn messages_to_a_chat_go_out_one_a_second_and_in_order() {
    let receiver = Receiver::answering(|_| "ok").await;
    let house = house(&receiver, settings()).await;
    let channel = house.slack(&receiver).await;
    let began = Instant::now();
    let mut last = None;
    for text in ["a", "b", "c"] {
        last = Some(house.say(&channel, text).await);
    }
    house.until_state(last.unwrap(), DeliveryState::Sent).await;
    assert!(began.elapsed() >= Duration::from_secs(2), "{:?}", began.elapsed());
    let texts: Vec<serde_json::Value> =
        receiver.requests().iter().map(|request| serde_json::from_slice(&request.body).unwrap()).collect();
    assert_eq!(texts, ["a", "b", "c"].map(|text| json!({ "text": text })));
}

#[tokio::test]
async fn a_message_that_slack_cannot_read_is_dead_with_slacks_words_and_the_channel_lives() {
    let receiver = Receiver::answering(|turn| match turn {
        0 => (StatusCode::BAD_REQUEST, "invalid_payload").into_response(),
        _ => "ok".into_response(),
    })
    .await;
    let house = house(&receiver, settings()).await;
    let channel = house.slack(&receiver).await;
    let (bad, good) = (house.say(&channel, "bad").await, house.say(&channel, "good").await);
    let dead = house.until_state(bad, DeliveryState::Dead).await;
    assert_eq!(dead.last_error.as_deref(), Some("the receiver answered 400: invalid_payload"));
    house.until_state(good, DeliveryState::Sent).await;
    let page = Before::newest(10);
    let listed =
        house.kept.store.list_deliveries(&channel.tenant, channel.id, Some(DeliveryState::Dead), page).await.unwrap();
    assert_eq!(listed.iter().map(|delivery| delivery.id).collect::<Vec<_>>(), [bad]);
}

#[tokio::test]
async fn an_archived_slack_channel_disables_ours_at_once() {
    let receiver = Receiver::answering(|_| (StatusCode::GONE, "channel_is_archived")).await;
    let house = house(&receiver, settings()).await;
    let channel = house.slack(&receiver).await;
    let id = house.say(&channel, "hi").await;
    house.until_state(id, DeliveryState::Dead).await;
    let reason = "the receiver answered 410: channel_is_archived";
    assert_eq!(house.disabled(&channel).await.as_deref(), Some(reason));
}

#[tokio::test]
async fn a_bot_that_stays_blocked_disables_its_channel_and_one_403_does_not() {
    let receiver = Receiver::answering(|turn| match turn {
        1 => sent(1),
        _ => {
            let description = "Forbidden: bot was blocked by the user";
            let body = json!({"ok": false, "error_code": 403, "description": description});
            (StatusCode::FORBIDDEN, Json(body)).into_response()
        }
    })
    .await;
    let house = house(&receiver, Settings { refusals_max: 2, refused_for_ms: 0, ..settings() }).await;
    let channel = house.telegram().await;
    let first = house.say(&channel, "one").await;
    house.until_state(first, DeliveryState::Sent).await;
    assert_eq!(house.disabled(&channel).await, None);
    let second = house.say(&channel, "two").await;
    let dead = house.until_state(second, DeliveryState::Dead).await;
    let reason = house.disabled(&channel).await.unwrap();
    assert!(reason.starts_with("refused 2 times in a row, at last: the receiver answered 403: "), "{reason}");
    assert_eq!(dead.last_error, Some(format!("the channel is disabled: {reason}")));
}

#[tokio::test]
async fn finished_deliveries_are_forgotten() {
    let receiver = Receiver::answering(|_| "ok").await;
    let house = house(&receiver, Settings { keep_finished_max: 0, ..settings() }).await;
    let channel = house.slack(&receiver).await;
    let id = house.say(&channel, "hi").await;
    house.until_state(id, DeliveryState::Sent).await;
    // The dispatcher forgets when it starts, and then once a minute.
    house.tree.inject_panic("channel_manager.dispatcher").await.unwrap();
    until("it is forgotten", async || house.kept.store.get_delivery(&channel.tenant, id).await.unwrap().is_none())
        .await;
}
