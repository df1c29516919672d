//! The engine as a whole, with the crank in the test's hand: what it promises in `mod.rs`.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use super::{
    testing::{House, event, taken, tenant, topic, topics},
    *,
};
use crate::{
    bus::{Bus, MemoryBusLimits},
    model::Event,
};

#[tokio::test(start_paused = true)]
async fn a_subscriber_never_sees_another_tenants_event_of_the_same_topic() {
    let house = House::new();
    let (mut a, mut b) = (house.connect("a", ["orders"]), house.connect("b", ["orders"]));
    house.publish("a", "orders", "of a").await;
    house.publish("b", "orders", "of b").await;
    house.publish("c", "orders", "of c").await;
    house.pump();
    assert_eq!((taken(&mut a).await, taken(&mut b).await), (vec!["of a".into()], vec!["of b".into()]));
}

#[tokio::test(start_paused = true)]
async fn events_arrive_in_the_order_in_which_they_were_published_over_all_topics() {
    let house = House::new();
    let mut subscriber = house.connect("a", ["x", "y"]);
    let sent: Vec<String> = (0..200).map(|n| n.to_string()).collect();
    for (n, data) in sent.iter().enumerate() {
        house.publish("a", if n % 7 < 3 { "x" } else { "y" }, data).await;
    }
    house.pump();
    assert_eq!(taken(&mut subscriber).await, sent);
}

#[tokio::test(start_paused = true)]
async fn a_subscriber_that_falls_behind_is_closed_and_the_others_miss_nothing() {
    let limits = OutboxLimits { frames_max: 50, ..OutboxLimits::default() };
    let house = House::with(MemoryBusLimits::default(), limits, JsonEncoder);
    let (mut slow, mut quick) = (house.connect("a", ["x"]), house.connect("a", ["x"]));
    let mut seen = Vec::new();
    for n in 0..120 {
        house.publish("a", "x", &n.to_string()).await;
        house.pump();
        seen.extend(taken(&mut quick).await);
    }
    assert_eq!(seen.len(), 120);
    assert_eq!(slow.next_batch().await, Batch::Closed(CloseReason::Slow));
}

#[tokio::test(start_paused = true)]
async fn a_burst_of_large_events_does_not_make_a_subscriber_slow_that_takes_them() {
    let house = House::new();
    let mut subscriber = house.connect("a", ["x"]);
    let large = "x".repeat(200 << 10);
    for _ in 0..16 {
        house.publish("a", "x", &large).await;
    }
    let mut seen = 0;
    while house.hub.step() != Step::Idle {
        seen += taken(&mut subscriber).await.len();
    }
    assert_eq!(seen, 16);
}

/// Panics at the data `poison`, fails at `broken`, takes more than one line for `pretty`, and is the usual format otherwise.
struct Fragile;

impl Encoder for Fragile {
    fn encode(&self, event: &Event) -> Result<String, serde_json::Error> {
        match event.data.as_str() {
            Some("poison") => panic!("poison in {}", event.topic),
            Some("pretty") => Ok("{\n}".to_owned()),
            Some("broken") => Err(serde::ser::Error::custom("broken")),
            _ => JsonEncoder.encode(event),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_poison_event_costs_itself_and_its_incident_names_the_tenant() {
    telemetry::panic::install_hook();
    let house = House::with(MemoryBusLimits::default(), OutboxLimits::default(), Fragile);
    let (mut poisoned, mut other) = (house.connect("poisoned", ["x"]), house.connect("b", ["x"]));
    for data in ["1", "poison", "2", "broken", "3", "pretty"] {
        house.publish("poisoned", "x", data).await;
        house.publish("b", "x", data.trim_start_matches(char::is_alphabetic)).await;
    }
    house.pump();
    assert_eq!(taken(&mut poisoned).await, ["1", "2", "3"]);
    assert_eq!(taken(&mut other).await, ["1", "", "2", "", "3", ""]);
    let incidents = telemetry::incidents::recent(100);
    let of_poison = incidents.iter().filter(|incident| incident.tenant.as_deref() == Some("poisoned")).count();
    assert_eq!(of_poison, 1);
}

#[tokio::test(start_paused = true)]
async fn an_event_larger_than_an_outbox_is_given_up_and_closes_nobody() {
    let limits = OutboxLimits { bytes_max: 1_000, ..OutboxLimits::default() };
    let house = House::with(MemoryBusLimits::default(), limits, JsonEncoder);
    let mut subscriber = house.connect("a", ["x"]);
    house.publish("a", "x", &"x".repeat(2_000)).await;
    house.publish("a", "x", "small").await;
    house.pump();
    assert_eq!(taken(&mut subscriber).await, ["small"]);
}

#[tokio::test(start_paused = true)]
async fn a_gap_on_the_bus_is_shown_to_every_subscriber_in_its_place() {
    let bus = MemoryBusLimits { events_max: 4, ..MemoryBusLimits::default() };
    let house = House::with(bus, OutboxLimits::default(), JsonEncoder);
    let (mut listener, mut idle) = (house.connect("a", ["x"]), house.connect("b", ["y"]));
    house.publish("a", "x", "early").await;
    house.pump();
    for n in 0..10 {
        house.publish("a", "x", &n.to_string()).await;
    }
    house.pump();
    assert_eq!(taken(&mut listener).await, ["early", "<gap>", "6", "7", "8", "9"]);
    assert_eq!(taken(&mut idle).await, ["<gap>"]);
}

#[tokio::test(start_paused = true)]
async fn one_step_sends_no_more_than_its_share_and_the_next_goes_on_where_it_was() {
    let house = House::new();
    let mut subscribers: Vec<_> = (0..SENDS_PER_STEP * 2 + 10).map(|_| house.connect("a", ["x"])).collect();
    house.publish("a", "x", "1").await;
    // One step to take the event, three to serve everyone.
    for served in [0, 1, 2] {
        assert_eq!(house.hub.step(), Step::Busy);
        let registry = house.hub.registry();
        let waiting = registry.all().iter().filter(|connection| connection.outbox.load().frames == 1).count();
        assert_eq!(waiting, SENDS_PER_STEP * served);
    }
    house.pump();
    for subscriber in &mut subscribers {
        assert_eq!(taken(subscriber).await, ["1"]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_subscriber_that_left_gets_nothing_and_one_that_unsubscribed_neither() {
    let house = House::new();
    let (gone, mut left) = (house.connect("a", ["x"]), house.connect("a", ["x", "y"]));
    drop(gone);
    left.unsubscribe(&topics(["x", "never"]));
    house.publish("a", "x", "1").await;
    house.publish("a", "y", "2").await;
    house.pump();
    assert_eq!(taken(&mut left).await, ["2"]);
}

#[tokio::test(start_paused = true)]
async fn a_probe_comes_out_behind_everything_that_was_published_before_it() {
    let house = House::new();
    let mut subscriber = house.connect("a", ["x"]);
    let id = crate::model::new_id();
    house.publish("a", "x", "before").await;
    house.bus.probe(id).await.unwrap();
    while house.hub.step() != Step::Probe(id) {}
    assert_eq!(taken(&mut subscriber).await, ["before"]);
}

#[tokio::test(start_paused = true)]
async fn arrival_wakes_for_an_event_and_for_a_run_that_was_left_in_hand() {
    let house = House::new();
    let _subscriber = house.connect("a", ["x"]);
    let nothing = tokio::time::timeout(Duration::from_secs(1), house.hub.arrival()).await;
    assert!(nothing.is_err());
    let ((), ()) = tokio::join!(house.hub.arrival(), house.publish("a", "x", "1"));
    assert_eq!(house.hub.step(), Step::Busy);
    house.hub.arrival().await;
    house.pump();
}

/// Many steps in random order; after each, index, quotas and deliveries must be those of a plain model.
#[tokio::test(start_paused = true)]
async fn index_quotas_and_deliveries_stay_consistent_in_any_order_of_calls() {
    let given = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = given.unwrap_or_else(|| fastrand::u64(..));
    println!("SEED={seed}");
    for round in 0..20 {
        let mut model = Model::new(fastrand::Rng::with_seed(seed.wrapping_add(round)));
        for _ in 0..150 {
            model.step().await;
            model.check();
        }
        model.clients.clear();
        model.check();
        assert_eq!(model.house.hub.stats().tenants, 0);
    }
}

const TENANTS: [&str; 3] = ["a", "b", "c"];
const TOPICS: [&str; 4] = ["w", "x", "y", "z"];
const SOCKETS_MAX: usize = 6;

struct Client {
    subscriber: Subscriber,
    tenant: &'static str,
    topics: BTreeSet<&'static str>,
    due: Vec<String>,
}

struct Model {
    rng: fastrand::Rng,
    house: House,
    clients: Vec<Client>,
    published: usize,
}

impl Model {
    fn new(rng: fastrand::Rng) -> Self {
        Self { rng, house: House::new(), clients: Vec::new(), published: 0 }
    }

    async fn step(&mut self) {
        match self.rng.u8(0..10) {
            0..2 => self.connect(),
            2..4 => self.subscribe(),
            4..6 => self.unsubscribe(),
            6 => drop(self.any_client().map(|at| self.clients.swap_remove(at))),
            7..9 => self.publish().await,
            _ => self.take().await,
        }
    }

    fn connect(&mut self) {
        let tenant_id = TENANTS[self.rng.usize(..TENANTS.len())];
        let limits = Limits { sockets_max: SOCKETS_MAX, ..Limits::default() };
        let connected = self.house.hub.connect(tenant(tenant_id), &[], limits);
        let open = self.clients.iter().filter(|client| client.tenant == tenant_id).count();
        assert_eq!(connected.is_ok(), open < SOCKETS_MAX);
        let client = |subscriber| Client { subscriber, tenant: tenant_id, topics: BTreeSet::new(), due: Vec::new() };
        self.clients.extend(connected.ok().map(client));
    }

    fn subscribe(&mut self) {
        let (some, Some(at)) = (self.some_topics(), self.any_client()) else {
            return;
        };
        let client = &mut self.clients[at];
        client.subscriber.subscribe(&some.iter().map(|name| topic(name)).collect::<Vec<_>>()).unwrap();
        client.topics.extend(some);
    }

    fn unsubscribe(&mut self) {
        let (some, Some(at)) = (self.some_topics(), self.any_client()) else {
            return;
        };
        let client = &mut self.clients[at];
        client.subscriber.unsubscribe(&some.iter().map(|name| topic(name)).collect::<Vec<_>>());
        client.topics.retain(|name| !some.contains(name));
    }

    async fn publish(&mut self) {
        let tenant_id = TENANTS[self.rng.usize(..TENANTS.len())];
        let topic = TOPICS[self.rng.usize(..TOPICS.len())];
        self.published += 1;
        let data = self.published.to_string();
        self.house.bus.publish(event(tenant_id, topic, &data)).await.unwrap();
        self.house.pump();
        let listens = |client: &&mut Client| client.tenant == tenant_id && client.topics.contains(topic);
        self.clients.iter_mut().filter(listens).for_each(|client| client.due.push(data.clone()));
    }

    async fn take(&mut self) {
        let Some(at) = self.any_client() else { return };
        let client = &mut self.clients[at];
        assert_eq!(taken(&mut client.subscriber).await, std::mem::take(&mut client.due));
    }

    fn check(&self) {
        let mut expected = BTreeMap::<(String, String), usize>::new();
        for client in &self.clients {
            for topic in &client.topics {
                *expected.entry((client.tenant.into(), (*topic).into())).or_default() += 1;
            }
            let held: Vec<_> = client.subscriber.topics().iter().map(|topic| topic.as_str().to_owned()).collect();
            assert!(held.iter().eq(client.topics.iter()));
        }
        let entries = self.house.hub.index().entries();
        assert!(entries.into_iter().map(|(tenant, topic, count)| ((tenant, topic), count)).eq(expected.clone()));
        let stats = self.house.hub.stats();
        assert_eq!((stats.sockets, stats.subscriptions), (self.clients.len(), expected.values().sum()));
    }

    fn any_client(&mut self) -> Option<usize> {
        (!self.clients.is_empty()).then(|| self.rng.usize(..self.clients.len()))
    }

    fn some_topics(&mut self) -> Vec<&'static str> {
        TOPICS.into_iter().filter(|_| self.rng.bool()).collect()
    }
}
