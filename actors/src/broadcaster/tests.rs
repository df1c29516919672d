//! The broadcaster under its supervisor: what a panic costs, and what a heartbeat proves.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use async_trait::async_trait;
use supervision::{BeatState, EventKind, Heartbeats, NodeSnapshot, Status, Tree, battery};
use tokio::time::{advance, sleep, timeout};
use uuid::Uuid;

use super::*;
use crate::{
    broadcast::{
        Batch, CloseReason, HubSettings, Limits, Subscriber,
        testing::{event, tenant, texts, topics},
    },
    bus::{BusError, BusReceiver, BusSettings, MemoryBus, MemoryBusLimits, bus as bus_child},
    model::Event,
};

const SECOND: Duration = Duration::from_secs(1);

/// The memory bus, with a way to make it deaf (it accepts everything and delivers nothing), and one to take it away (it
/// says so).
struct Switchable {
    bus: Arc<MemoryBus>,
    is_deaf: AtomicBool,
    is_away: AtomicBool,
}

#[async_trait]
impl Bus for Switchable {
    async fn publish(&self, event: Event) -> Result<(), BusError> {
        if self.is_deaf.load(Relaxed) { Ok(()) } else { self.bus.publish(event).await }
    }

    fn subscribe(&self) -> BusReceiver {
        self.bus.subscribe()
    }

    async fn probe(&self, id: Uuid) -> Result<(), BusError> {
        if self.is_away.load(Relaxed) {
            return Err(BusError::Unavailable("refused".to_owned()));
        }
        if self.is_deaf.load(Relaxed) { Ok(()) } else { self.bus.probe(id).await }
    }
}

/// A bus, a hub and the two children in a tree.
struct House {
    bus: Arc<Switchable>,
    hub: Arc<Hub>,
    tree: Tree,
}

impl House {
    async fn new() -> Self {
        telemetry::panic::install_hook();
        let bus = Arc::new(Switchable {
            bus: MemoryBus::new(MemoryBusLimits::default()),
            is_deaf: AtomicBool::new(false),
            is_away: AtomicBool::new(false),
        });
        let hub = Hub::new(HubSettings::default(), &*bus);
        let spec = SupervisorSpec::new("root", Strategy::OneForOne)
            .child(bus_child(bus.clone(), BusSettings::default()))
            .child(ChildSpec::supervisor(broadcaster(hub.clone(), bus.clone(), BroadcasterSettings::default())));
        let tree = Tree::start(spec, Heartbeats::new()).await.unwrap();
        Self { bus, hub, tree }
    }

    fn connect(&self, name: &str) -> Subscriber {
        self.hub.connect(tenant(name), &topics(["x"]), Limits::default()).unwrap()
    }

    async fn publish(&self, data: &str) {
        self.bus.publish(event("a", "x", data)).await.unwrap();
    }

    fn child(&self, path: &str) -> NodeSnapshot {
        fn find(node: NodeSnapshot, path: &str) -> Option<NodeSnapshot> {
            if node.path.as_str() == path {
                return Some(node);
            }
            node.children.into_iter().find_map(|child| find(child, path))
        }
        find(self.tree.snapshot(), path).unwrap()
    }

    fn beat(&self, path: &str) -> BeatState {
        let beats = self.tree.heartbeats().snapshot();
        beats.into_iter().find(|beat| beat.path.as_str() == path).map(|beat| beat.state).unwrap()
    }

    /// Panics a child, and waits until the supervisor has seen it.
    async fn panic(&self, path: &str) {
        let mut events = self.tree.events();
        self.tree.inject_panic(path).await.unwrap();
        let seen = async { while !is_end_of(&events.recv().await.unwrap(), path) {} };
        timeout(10 * SECOND, seen).await.unwrap();
    }
}

fn is_end_of(event: &supervision::Event, path: &str) -> bool {
    event.path.as_str() == path && matches!(event.kind, EventKind::Exited { .. })
}

/// Takes `count` events.
async fn take(subscriber: &mut Subscriber, count: usize) -> Vec<String> {
    let mut seen = Vec::new();
    while seen.len() < count {
        match timeout(60 * SECOND, subscriber.next_batch()).await.expect("the broadcaster delivers") {
            Batch::Ping => subscriber.heard(),
            frames => seen.extend(texts(&frames)),
        }
    }
    seen
}

#[tokio::test(start_paused = true)]
async fn no_event_is_lost_and_no_socket_closed_when_the_relay_panics_under_traffic() {
    let house = House::new().await;
    let mut subscriber = house.connect("a");
    let sent: Vec<String> = (0..1_000).map(|n| n.to_string()).collect();
    let publishing = async {
        for (n, data) in sent.iter().enumerate() {
            house.publish(data).await;
            if n % 10 == 0 {
                sleep(Duration::from_millis(100)).await;
            }
            if n % 300 == 150 {
                house.panic("broadcaster.relay").await;
            }
        }
    };
    let ((), seen) = tokio::join!(publishing, take(&mut subscriber, sent.len()));
    assert_eq!(seen, sent);
    assert_eq!(house.child("broadcaster.relay").incarnation, 4);
    assert_eq!((house.child("broadcaster.reaper").incarnation, house.child("broadcaster").incarnation), (1, 1));
    house.tree.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_panic_of_the_broadcaster_as_a_whole_loses_nothing_either() {
    let house = House::new().await;
    let mut subscriber = house.connect("a");
    house.publish("before").await;
    assert_eq!(take(&mut subscriber, 1).await, ["before"]);
    house.panic("broadcaster").await;
    house.publish("during").await;
    assert_eq!(take(&mut subscriber, 1).await, ["during"]);
    assert_eq!(house.child("broadcaster").incarnation, 2);
    house.tree.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_stalled_subscriber_is_reaped_also_after_the_reaper_panicked() {
    let house = House::new().await;
    let mut stalled = house.connect("a");
    house.panic("broadcaster.reaper").await;
    house.publish("1").await;
    assert_eq!(take(&mut stalled, 1).await, ["1"]);
    assert_eq!(timeout(7 * SECOND, stalled.cut()).await, Ok(CloseReason::Slow));
    house.tree.stop().await;
}

#[tokio::test(start_paused = true)]
async fn an_idle_broadcaster_beats_because_its_probes_come_back() {
    let house = House::new().await;
    sleep(5 * SECOND).await;
    for path in ["bus", "broadcaster.relay", "broadcaster.reaper"] {
        assert_eq!(house.beat(path), BeatState::Beating, "{path}");
    }
    house.tree.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_bus_that_accepts_and_delivers_nothing_makes_bus_and_relay_stale_and_restarts_nobody() {
    let house = House::new().await;
    sleep(2 * SECOND).await;
    house.bus.is_deaf.store(true, Relaxed);
    sleep(10 * SECOND).await;
    assert_eq!((house.beat("bus"), house.beat("broadcaster.relay")), (BeatState::Stale, BeatState::Stale));
    assert_eq!(house.beat("broadcaster.reaper"), BeatState::Beating);
    house.bus.is_deaf.store(false, Relaxed);
    sleep(3 * SECOND).await;
    assert_eq!((house.beat("bus"), house.beat("broadcaster.relay")), (BeatState::Beating, BeatState::Beating));
    assert_eq!((house.child("bus").incarnation, house.child("broadcaster.relay").incarnation), (1, 1));
    house.tree.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_bus_that_says_it_is_away_makes_nobody_stale() {
    let house = House::new().await;
    house.bus.is_away.store(true, Relaxed);
    sleep(60 * SECOND).await;
    assert_eq!((house.beat("bus"), house.beat("broadcaster.relay")), (BeatState::Beating, BeatState::Beating));
    house.tree.stop().await;
}

#[tokio::test(start_paused = true)]
async fn the_broadcaster_stops_at_once_and_leaves_its_sockets_to_their_owner() {
    let house = House::new().await;
    let subscriber = house.connect("a");
    advance(SECOND).await;
    let report = house.tree.stop().await;
    assert!(report.took < SECOND, "{report:?}");
    assert_eq!((house.hub.stats().sockets, subscriber.topics()), (1, topics(["x"])));
    assert_eq!(house.child("broadcaster.relay").status, Status::Down);
}

#[tokio::test(start_paused = true)]
async fn relay_reaper_and_bus_pass_the_battery() {
    let bus = MemoryBus::new(MemoryBusLimits::default());
    let hub = Hub::new(HubSettings::default(), &*bus);
    let reports = [
        battery::run(|| relay::relay(Arc::clone(&hub), bus.clone(), SECOND)).await,
        battery::run(|| reaper::reaper(Arc::clone(&hub), SECOND)).await,
        battery::run(|| bus_child(bus.clone(), BusSettings::default())).await,
    ];
    for report in reports {
        assert_eq!(report.skipped().count(), 2, "all but the flood and what is for tasks: {report}");
    }
}
