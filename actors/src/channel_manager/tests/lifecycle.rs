//! What stops, restarts and idleness do to deliveries.

use super::*;

#[tokio::test]
async fn a_stop_lets_requests_under_way_end_and_gives_the_rest_back() {
    let house = House::start(Settings { stop_within_ms: 1_800, ..settings() }).await;
    let slow = Receiver::start(Arc::new(slow_then_ok(Duration::from_millis(300)))).await;
    let silent = Receiver::start(Arc::new(|_| (Duration::from_secs(60), StatusCode::OK.into_response()))).await;
    let ending = house.deliver(&house.kept.channel(webhook::KIND, &slow.url).await).await;
    let hanging = house.deliver(&house.kept.channel(webhook::KIND, &silent.url).await).await;
    until("both are under way", async || slow.requests().len() + silent.requests().len() == 2).await;

    let (kept, report) = house.stop().await;
    assert!(report.is_clean(), "{report:?}");
    assert!(report.took < Duration::from_millis(1_800), "{:?}", report.took);
    assert_eq!(kept.delivery(ending).await.state, DeliveryState::Sent);
    let row = kept.delivery(hanging).await;
    assert_eq!((row.state, row.charged()), (DeliveryState::Pending, 0));
}

#[tokio::test]
async fn a_restarted_dispatcher_finds_its_couriers_again() {
    let house = House::start(settings()).await;
    let receiver = Receiver::answering(|_| StatusCode::OK).await;
    let channel = house.kept.channel(webhook::KIND, &receiver.url).await;
    let before = house.deliver(&channel).await;
    house.until_state(before, DeliveryState::Sent).await;

    house.tree.inject_panic("channel_manager.dispatcher").await.unwrap();
    let after = house.deliver(&channel).await;
    house.until_state(after, DeliveryState::Sent).await;
    let snapshot = house.tree.snapshot();
    assert_eq!(snapshot.find("channel_manager.dispatcher").unwrap().incarnation, 2);
    let couriers = house.couriers();
    assert_eq!((couriers.len(), couriers[0].incarnation), (1, 1));
}

#[tokio::test]
async fn couriers_that_went_with_their_supervisor_are_started_anew() {
    let house = House::start(settings()).await;
    let receiver = Receiver::answering(|_| StatusCode::OK).await;
    let channel = house.kept.channel(webhook::KIND, &receiver.url).await;
    let before = house.deliver(&channel).await;
    house.until_state(before, DeliveryState::Sent).await;

    house.tree.inject_panic("channel_manager.channels").await.unwrap();
    until("they are gone", async || house.couriers().is_empty()).await;
    let after = house.deliver(&channel).await;
    house.until_state(after, DeliveryState::Sent).await;
}

#[tokio::test]
async fn a_panic_of_a_courier_gives_back_what_it_had_under_way() {
    let house = House::start(settings()).await;
    let receiver = Receiver::start(Arc::new(slow_then_ok(Duration::from_secs(60)))).await;
    let channel = house.kept.channel(webhook::KIND, &receiver.url).await;
    let id = house.deliver(&channel).await;
    until("it is under way", async || receiver.requests().len() == 1).await;
    house.tree.inject_panic(format!("channel_manager.channels.{}", channel.id).as_str()).await.unwrap();
    let row = house.until_state(id, DeliveryState::Sent).await;
    assert_eq!((row.charged(), receiver.requests().len()), (1, 2));
}

#[tokio::test]
async fn an_idle_channel_gives_its_actor_back_and_gets_one_again() {
    let house = House::start(Settings { idle_after_ms: 50, ..settings() }).await;
    let receiver = Receiver::answering(|_| StatusCode::OK).await;
    let channel = house.kept.channel(webhook::KIND, &receiver.url).await;
    for _ in 0..2 {
        let id = house.deliver(&channel).await;
        house.until_state(id, DeliveryState::Sent).await;
        until("its actor is gone", async || house.couriers().is_empty()).await;
    }
}

#[tokio::test]
async fn a_channel_at_rest_gives_its_place_to_one_that_waits_for_a_place() {
    let house = House::start(Settings { channels_max: 1, idle_after_ms: 60_000, ..settings() }).await;
    let receiver = Receiver::answering(|_| StatusCode::OK).await;
    for _ in 0..3 {
        let channel = house.kept.channel(webhook::KIND, &receiver.url).await;
        let id = house.deliver(&channel).await;
        house.until_state(id, DeliveryState::Sent).await;
    }
}
