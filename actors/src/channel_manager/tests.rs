//! The subsystem as a whole: a real store, a real tree, receivers on the loopback address.

mod battery;
mod chats;
mod lifecycle;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use axum::response::IntoResponse;
use http::StatusCode;
use supervision::{Heartbeats, StopReport};
use tokio::time::Instant;

use super::*;
use crate::channels::test_support::{Kept, Receiver, SECRET, install_tls, until};
use crate::channels::{Channel, Message, Report, webhook};
use crate::outbound::OutboundSettings;
use crate::store::{self, Delivery, DeliveryState, StoreError};

/// Development rules, and everything short enough for a test.
fn settings() -> Settings {
    Settings {
        interval_ms: 20,
        retry_delays_ms: vec![10; 3],
        breaker_failures_max: 100,
        allow_http: true,
        allow_private_addresses: true,
        ports: Vec::new(),
        ..Settings::default()
    }
}

fn outbound(settings: &Settings) -> Outbound {
    install_tls();
    let mut limits = OutboundSettings::default();
    settings.limit(&mut limits);
    Outbound::new(limits).unwrap()
}

/// The subsystem alone in a tree.
struct House {
    kept: Kept,
    poke: Poke,
    tree: Tree,
}

impl House {
    async fn start(settings: Settings) -> Self {
        install_tls();
        let adapters = Adapters::standard(&outbound(&settings), &settings.bases());
        Self::with(settings, adapters).await
    }

    async fn with(settings: Settings, adapters: Adapters) -> Self {
        let (kept, poke) = (Kept::open().await, Poke::new());
        let manager = ChannelManager::with_adapters(settings, Arc::clone(&kept.store), poke.clone(), adapters).unwrap();
        let root = SupervisorSpec::new("root", Strategy::OneForOne).child(channel_manager(
            &manager,
            supervision::Intensity::new(5, Duration::from_secs(60)),
            supervision::Backoff::default(),
        ));
        let tree = Tree::start(root, Heartbeats::new()).await.unwrap();
        manager.attach(&tree);
        Self { kept, poke, tree }
    }

    async fn deliver(&self, channel: &store::Channel) -> Uuid {
        let id = self.kept.deliver(channel).await;
        self.poke.poke();
        id
    }

    async fn until_state(&self, id: Uuid, state: DeliveryState) -> Delivery {
        until(state.as_str(), async || self.kept.delivery(id).await.state == state).await;
        self.kept.delivery(id).await
    }

    fn couriers(&self) -> Vec<supervision::NodeSnapshot> {
        self.tree.snapshot().find("channel_manager.channels").unwrap().children.clone()
    }

    async fn stop(self) -> (Kept, StopReport) {
        let report = self.tree.stop().await;
        (self.kept, report)
    }
}

fn slow_then_ok(slow: Duration) -> impl Fn(usize) -> (Duration, axum::response::Response) + Send + Sync {
    move |turn| (if turn == 0 { slow } else { Duration::ZERO }, StatusCode::OK.into_response())
}

#[tokio::test]
async fn a_poked_delivery_is_signed_sent_and_settled() {
    let house = House::start(Settings { interval_ms: 60_000, idle_after_ms: 60_000, ..settings() }).await;
    let receiver = Receiver::answering(|_| StatusCode::OK).await;
    let channel = house.kept.channel(webhook::KIND, &receiver.url).await;
    let id = house.deliver(&channel).await;
    let row = house.until_state(id, DeliveryState::Sent).await;
    assert_eq!((row.charged(), row.last_status), (1, Some(200)));
    let request = receiver.requests().remove(0);
    standardwebhooks::Webhook::new(SECRET).unwrap().verify(&request.body, &request.headers).unwrap();
    assert!(house.stop().await.1.is_clean());
}

#[tokio::test]
async fn a_receivers_retry_after_is_waited_for_and_the_id_stays_the_same() {
    let house = House::start(settings()).await;
    let receiver = Receiver::answering(|turn| match turn {
        0 => (StatusCode::SERVICE_UNAVAILABLE, [("retry-after", "1")]).into_response(),
        _ => StatusCode::OK.into_response(),
    })
    .await;
    let channel = house.kept.channel(webhook::KIND, &receiver.url).await;
    let started = Instant::now();
    let id = house.deliver(&channel).await;
    let row = house.until_state(id, DeliveryState::Sent).await;
    assert_eq!(row.charged(), 2);
    assert!(started.elapsed() >= Duration::from_secs(1));
    let ids: Vec<_> = receiver.requests().iter().map(|request| request.headers["webhook-id"].clone()).collect();
    assert_eq!(ids, [id.to_string(), id.to_string()]);
}

#[tokio::test]
async fn gone_disables_the_channel_and_says_why() {
    let house = House::start(settings()).await;
    let receiver = Receiver::answering(|_| StatusCode::GONE).await;
    let channel = house.kept.channel(webhook::KIND, &receiver.url).await;
    let id = house.deliver(&channel).await;
    house.until_state(id, DeliveryState::Dead).await;
    let tenant = house.kept.tenant.clone();
    until("it is disabled", async || {
        house.kept.store.get_channel(&tenant, channel.id).await.unwrap().unwrap().disabled.is_some()
    })
    .await;
    let further = store::NewDelivery::new(tenant, channel.id, serde_json::Value::Null);
    let refused = house.kept.store.create_delivery(further).await;
    assert!(matches!(refused, Err(StoreError::Conflict { .. })), "{refused:?}");
    assert_eq!(receiver.requests().len(), 1);
}

#[tokio::test]
async fn a_receiver_that_always_fails_gets_every_attempt_and_no_more() {
    let house = House::start(settings()).await;
    let receiver = Receiver::answering(|_| (StatusCode::INTERNAL_SERVER_ERROR, "broken")).await;
    let channel = house.kept.channel(webhook::KIND, &receiver.url).await;
    let id = house.deliver(&channel).await;
    let row = house.until_state(id, DeliveryState::Dead).await;
    let reason = "given up after 4 attempts: the receiver answered 500: broken";
    assert_eq!((row.last_error.as_deref(), row.last_status), (Some(reason), Some(500)));
    assert_eq!(receiver.requests().len(), 4);
}

#[tokio::test]
async fn a_slow_receiver_reaches_the_timeout_and_is_tried_again() {
    let house = House::start(Settings { request_timeout_ms: 500, ..settings() }).await;
    let receiver = Receiver::start(Arc::new(slow_then_ok(Duration::from_secs(60)))).await;
    let channel = house.kept.channel(webhook::KIND, &receiver.url).await;
    let id = house.deliver(&channel).await;
    assert_eq!(house.until_state(id, DeliveryState::Sent).await.charged(), 2);
}

#[tokio::test]
async fn an_open_breaker_uses_up_no_attempts() {
    let breaker = Settings { breaker_failures_max: 2, breaker_open_ms: 60_000, in_flight_max: 1, ..settings() };
    let house = House::start(breaker).await;
    let receiver = Receiver::answering(|_| StatusCode::INTERNAL_SERVER_ERROR).await;
    let healthy = Receiver::answering(|_| StatusCode::OK).await;
    let bad = house.kept.channel(webhook::KIND, &receiver.url).await;
    let good = house.kept.channel(webhook::KIND, &healthy.url).await;
    for _ in 0..5 {
        house.deliver(&bad).await;
    }
    until("the breaker is open", async || receiver.requests().len() == 2).await;
    // Many looks later, nothing has been sent to the bad one.
    for _ in 0..5 {
        let id = house.deliver(&good).await;
        house.until_state(id, DeliveryState::Sent).await;
    }
    assert_eq!(receiver.requests().len(), 2);
}

/// Panics at every message.
struct Broken;

#[async_trait]
impl Channel for Broken {
    async fn send(&self, _message: &Message, _deadline: Instant) -> Report {
        panic!("this adapter is broken")
    }
}

#[tokio::test]
async fn a_panic_in_one_channel_leaves_anothers_deliveries_alone() {
    install_tls();
    let outbound = outbound(&settings());
    let adapters = Adapters::standard(&outbound, &settings().bases()).with("broken", |_| Ok(Arc::new(Broken)));
    let house = House::with(settings(), adapters).await;
    let receiver = Receiver::answering(|_| StatusCode::OK).await;
    let bad = house.kept.channel("broken", "https://example.com/").await;
    let good = house.kept.channel(webhook::KIND, &receiver.url).await;
    let mut ids = Vec::new();
    for _ in 0..20 {
        let poisoned = house.deliver(&bad).await;
        ids.push((poisoned, house.deliver(&good).await));
    }
    for (poisoned, sound) in ids {
        assert_eq!(house.until_state(sound, DeliveryState::Sent).await.charged(), 1);
        let row = house.until_state(poisoned, DeliveryState::Dead).await;
        assert!(row.last_error.unwrap().starts_with("given up after 4 attempts: the adapter panicked"));
    }
    assert_eq!(receiver.requests().len(), 20);
    for courier in house.couriers() {
        assert_eq!((courier.incarnation, courier.restarts), (1, 0), "{}", courier.path);
    }
}

#[tokio::test]
async fn a_receiver_that_never_answers_holds_up_only_itself() {
    let house = House::start(settings()).await;
    let silent = Receiver::start(Arc::new(|_| (Duration::from_secs(60), StatusCode::OK.into_response()))).await;
    let receiver = Receiver::answering(|_| StatusCode::OK).await;
    let bad = house.kept.channel(webhook::KIND, &silent.url).await;
    let good = house.kept.channel(webhook::KIND, &receiver.url).await;
    for _ in 0..10 {
        house.deliver(&bad).await;
    }
    until("all its places are taken", async || silent.requests().len() == settings().in_flight_max).await;
    let id = house.deliver(&good).await;
    house.until_state(id, DeliveryState::Sent).await;
    assert_eq!(silent.requests().len(), settings().in_flight_max);
}

#[tokio::test]
async fn one_tenants_many_failing_channels_do_not_hide_anothers_good_one() {
    let few = Settings { channels_max: 8, tenant_channels_max: 2, ..settings() };
    let house = House::start(Settings { breaker_failures_max: 1, breaker_open_ms: 60_000, ..few }).await;
    let failing = Receiver::answering(|_| StatusCode::INTERNAL_SERVER_ERROR).await;
    let receiver = Receiver::answering(|_| StatusCode::OK).await;
    let noisy = crate::model::TenantId::new("noisy").unwrap();
    for _ in 0..12 {
        let new = store::NewChannel {
            id: crate::model::new_id(),
            tenant: noisy.clone(),
            kind: webhook::KIND.to_owned(),
            url: failing.url.clone(),
            secret: SECRET.to_owned().into(),
            chat: None,
        };
        let channel = house.kept.store.create_channel(new).await.unwrap();
        for _ in 0..3 {
            let new = store::NewDelivery::new(noisy.clone(), channel.id, serde_json::Value::Null);
            house.kept.store.create_delivery(new).await.unwrap();
        }
    }
    until("the noisy one has its places", async || failing.requests().len() >= 2).await;
    let good = house.kept.channel(webhook::KIND, &receiver.url).await;
    let id = house.deliver(&good).await;
    house.until_state(id, DeliveryState::Sent).await;
}

#[tokio::test]
async fn bad_settings_are_refused_before_anything_starts() {
    let kept = Kept::open().await;
    let bad = Settings { in_flight_max: 0, ..settings() };
    let refused = ChannelManager::with_adapters(bad, Arc::clone(&kept.store), Poke::new(), Adapters::default());
    assert_eq!(
        refused.err().unwrap().to_string(),
        "settings of the channel manager: in_flight_max: is 0, must be at least 1"
    );
}
