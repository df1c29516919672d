//! A bus and a hub that turns and sweeps by itself, for tests of sockets and of streams.

use std::sync::Arc;
use std::time::Duration;

use actors::broadcast::{Hub, HubSettings, Limits, OutboxLimits, Step, Subscriber, Topic};
use actors::bus::{Bus, MemoryBus, MemoryBusLimits};
use actors::model::{Event, TenantId, new_id, now_ms};
use supervision::TaskGroup;
use tokio::task::yield_now;
use tokio::time::{sleep, timeout};
use uuid::Uuid;

/// Longer than anything here takes on a slow machine.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Everyone who comes here is tenant `a` and listens to `x`.
#[derive(Clone)]
pub struct House {
    pub hub: Arc<Hub>,
    /// To cancel it is the end of the listener.
    pub tasks: TaskGroup,
    bus: Arc<MemoryBus>,
}

impl House {
    pub fn with(limits: MemoryBusLimits, outbox: OutboxLimits) -> Self {
        let bus = MemoryBus::new(limits);
        let hub = Hub::new(HubSettings { outbox, ..HubSettings::default() }, &*bus);
        let tasks = TaskGroup::new("api");
        tasks.spawn("crank", turn(hub.clone()));
        tasks.spawn("reaper", sweep(hub.clone()));
        Self { hub, tasks, bus }
    }

    pub fn subscriber(&self) -> Subscriber {
        let limits = Limits { topics_per_socket_max: 2, ..Limits::default() };
        self.hub.connect(TenantId::new("a").unwrap(), &[Topic::new("x").unwrap()], limits).unwrap()
    }

    pub async fn publish(&self, topic: &str, data: &str) -> Uuid {
        let event = Event {
            id: new_id(),
            tenant: TenantId::new("a").unwrap(),
            topic: topic.into(),
            data: data.into(),
            context: Default::default(),
            at_ms: now_ms(),
        };
        let id = event.id;
        self.bus.publish(event).await.unwrap();
        id
    }

    pub async fn until_sockets(&self, count: usize) {
        let reached = async {
            while self.hub.stats().sockets != count {
                sleep(Duration::from_millis(1)).await;
            }
        };
        timeout(PATIENCE, reached).await.unwrap();
    }
}

async fn turn(hub: Arc<Hub>) {
    loop {
        hub.arrival().await;
        while hub.step() != Step::Idle {
            yield_now().await;
        }
    }
}

async fn sweep(hub: Arc<Hub>) {
    let mut ticks = tokio::time::interval(Duration::from_millis(10));
    loop {
        ticks.tick().await;
        assert_eq!(hub.sweep(0), None, "the tests open fewer sockets than one step looks at");
    }
}
