//! What every bus must do, whichever backend carries it. A backend's own tests call [`holds`] and nothing else here.

use std::{sync::Arc, time::Duration};

use uuid::Uuid;

use super::{Bus, BusItem, BusReceiver};
use crate::broadcast::testing::event;

/// How many events the bus under test holds for a slow receiver; more than that must become a gap.
pub const HELD_MAX: usize = 16;

/// Longer than any backend takes to carry one event, in real or in paused time.
const PATIENCE: Duration = Duration::from_secs(5);

/// Puts a bus through the contract; `make` gives a fresh one, holding [`HELD_MAX`] events, for each part.
pub async fn holds<B: Bus>(make: impl AsyncFn() -> Arc<B>) {
    order_is_kept_and_all_receivers_see_all(make().await).await;
    nobody_listens_and_nothing_is_kept(make().await).await;
    a_lagging_receiver_sees_the_gap(make().await).await;
    a_ping_comes_back_and_other_receivers_see_a_probe(make().await).await;
}

async fn order_is_kept_and_all_receivers_see_all(bus: Arc<impl Bus>) {
    let mut receivers = [bus.subscribe(), bus.subscribe()];
    let sent = publish(&*bus, 10).await;
    for receiver in &mut receivers {
        assert_eq!(events(receiver, 10).await, sent);
    }
}

async fn nobody_listens_and_nothing_is_kept(bus: Arc<impl Bus>) {
    publish(&*bus, 3).await;
    // Comes back behind them.
    bus.ping(PATIENCE).await.unwrap();
    let mut late = bus.subscribe();
    let sent = publish(&*bus, 1).await;
    assert_eq!(events(&mut late, 1).await, sent);
}

async fn a_lagging_receiver_sees_the_gap(bus: Arc<impl Bus>) {
    let mut slow = bus.subscribe();
    let mut quick = bus.subscribe();
    let mut sent = Vec::new();
    for _ in 0..HELD_MAX + 5 {
        sent.extend(publish(&*bus, 1).await);
        events(&mut quick, 1).await;
    }
    assert_eq!(next(&mut slow).await, BusItem::Gap { missed: 5 });
    assert_eq!(events(&mut slow, HELD_MAX).await, sent[5..]);
}

async fn a_ping_comes_back_and_other_receivers_see_a_probe(bus: Arc<impl Bus>) {
    let mut other = bus.subscribe();
    assert!(bus.ping(PATIENCE).await.unwrap() < PATIENCE);
    assert!(matches!(next(&mut other).await, BusItem::Probe(_)));
}

async fn publish(bus: &impl Bus, count: usize) -> Vec<Uuid> {
    let mut ids = Vec::new();
    for n in 0..count {
        let event = event("demo", "orders", &n.to_string());
        ids.push(event.id);
        bus.publish(event).await.unwrap();
    }
    ids
}

async fn next(receiver: &mut BusReceiver) -> BusItem {
    tokio::time::timeout(PATIENCE, receiver.recv()).await.expect("the bus carries what was published")
}

async fn events(receiver: &mut BusReceiver, count: usize) -> Vec<Uuid> {
    let mut ids = Vec::new();
    for _ in 0..count {
        match next(receiver).await {
            BusItem::Event(event) => ids.push(event.id),
            other => panic!("an event was expected, not {other:?}"),
        }
    }
    ids
}
